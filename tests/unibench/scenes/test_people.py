"""People: feet that stay, parts and charts as the body's own, key points as its own regressor says."""

from __future__ import annotations

import numpy as np
import pytest

from openuni.body import Body, rasterise
from openuni.errors import OpenUniError
from unibench.rendering.truth import trace
from unibench.scenes.families import Spec, build
from unibench.scenes.people import _STANCE, Walk, _period, animate, hold, person

WALKS = {
    "straight": Walk((0.0, 0.0), 0.4, 1.1, phase=0.3),
    "slow": Walk((0.0, 0.0), -1.0, 0.7),
    "turning": Walk((1.0, 2.0), 2.0, 1.0, turn=0.7, phase=0.8),
    "standing": Walk((0.0, 0.0), 1.0, 0.0, gesture="wave"),
}


@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("seed", [None, 1])
def test_a_standing_foot_slides_less_than_a_centimetre_a_second(name: str, seed: int | None) -> None:
    body, walk, fps, frames = Body.load(), WALKS[name], 60.0, 120
    shape = np.zeros(6) if seed is None else np.random.default_rng(seed).normal(0, 0.8, 6)
    vertices = body.pose(*_order(animate(body, walk, shape, frames, fps), shape))
    for side, half in (("left", 0.0), ("right", 0.5)):
        toes = vertices[:, body.skinning[:, body.joint(f"{side}_toes")] > 0.95]
        phase = (np.arange(frames) / fps / _period(walk) + walk.phase + half) % 1
        stands = (phase[1:] < _STANCE - 0.02) & (phase[:-1] < phase[1:]) if walk.speed else np.ones(frames - 1, bool)
        speed = np.linalg.norm(np.diff(toes, axis=0), axis=-1) * fps
        assert speed[stands].max() < 0.01
        # The sole stays on the floor within the difference between shapes, whose joints and skin are regressed apart.
        assert -0.02 < toes[:-1][stands][..., 1].min() < 0.02


def test_a_foot_that_lands_or_leaves_grazes_the_floor_by_less_than_two_centimetres() -> None:
    """Any point of the sole, in one spell within 2 mm of the floor, at the fastest walk that a scene has."""
    body, fps, frames = Body.load(), 240.0, 300
    walk, shape = Walk((0.0, 0.0), 0.0, 1.25, turn=0.7), np.random.default_rng(0).normal(0, 0.8, 6)
    vertices = body.pose(*_order(animate(body, walk, shape, frames, fps), shape))
    for side in ("left", "right"):
        foot = vertices[:, body.skinning[:, [body.joint(f"{side}_{n}") for n in ("toes", "foot")]].sum(1) > 0.95]
        near = foot[..., 1] < foot[..., 1].min() + 0.002
        steps = np.linalg.norm(np.diff(foot[..., [0, 2]], axis=0), axis=-1)
        slid, worst = np.zeros(foot.shape[1]), 0.0
        for t in range(frames - 1):
            slid = np.where(near[t] & near[t + 1], slid + steps[t], 0)
            worst = max(worst, slid.max())
        assert worst < 0.02


@pytest.mark.parametrize("seed", [0, 1, 4, 5])
def test_what_is_carried_stays_in_hand_and_clear_of_the_body(seed: int) -> None:
    """Crates (seeds 0, 1) touch both hands; cases (4, 5) hang from the right one; nothing of either is in the body."""
    scene = build(Spec("carry", seed, 8, 64, 64))
    person = next(i for i in scene.instances if i.skin is not None)
    held = next(i for i in scene.instances if f"carries a {i.name}" in scene.caption)
    assert held.class_name == ("crate" if seed < 2 else "case")
    parts = np.zeros(len(person.mesh.vertices), np.int64)
    parts[person.mesh.faces.ravel()] = np.repeat(person.skin.parts, 3)
    box = held.mesh.vertices[:24]  # of a case: without its handle
    half = np.ptp(box, axis=0) / 2
    for t in range(8):
        place = held.vertices[t][:24]
        turn = np.linalg.lstsq(box - box.mean(0), place - place.mean(0), rcond=None)[0]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        outside = np.abs((person.vertices[t] - place.mean(0)) @ turn.T) - half  # metres beyond each pair of faces
        assert outside.max(1).min() > -0.002
        distance = np.linalg.norm(np.maximum(outside, 0), axis=1)
        for hand in (3, 4) if seed < 2 else (3,):
            assert distance[parts == hand].min() < 0.01


def test_only_hands_that_are_free_to_hold_hold() -> None:
    rng = np.random.default_rng(0)
    waving = Walk((0.0, 0.0), 0.0, 1.0, gesture="wave")
    someone = person("someone", waving, np.zeros(6), 2, 16.0, rng)
    with pytest.raises(OpenUniError, match="someone holds nothing"):
        hold(someone, waving, 16.0, "red crate", someone.texture, rng)


def _order(motion: tuple[np.ndarray, np.ndarray], shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return motion[0], shape, motion[1]


@pytest.mark.parametrize("name", WALKS)
def test_a_walker_moves_at_the_speed_and_along_the_path_asked_for(name: str) -> None:
    body, walk = Body.load(), WALKS[name]
    _, places = animate(body, walk, np.zeros(6), 31, 30.0)
    track = places[:, [2, 0]] + body.joints[0, [2, 0]]  # world x, y are the body's forward, left
    speed = np.linalg.norm(np.diff(track, axis=0), axis=1) * 30
    np.testing.assert_allclose(speed, walk.speed, atol=0.01)
    np.testing.assert_allclose(track[0], walk.start, atol=1e-9)


def test_no_joint_bends_the_wrong_way() -> None:
    """Knees and elbows bend forward of the straight line from end to end."""
    body = Body.load()
    rotations, _ = animate(body, WALKS["straight"], np.zeros(6), 60, 30.0)
    world, joints = body.place(rotations, body.joints)
    forward = world[:, 0, :, 2]
    for side in ("left", "right"):
        hip, knee, ankle = (joints[:, body.joint(f"{side}_{n}")] for n in ("thigh", "shin", "foot"))
        assert (((knee - (hip + ankle) / 2) * forward).sum(1) > -1e-3).all()
        shoulder, elbow, wrist = (joints[:, body.joint(f"{side}_{n}")] for n in ("upper_arm", "forearm", "hand"))
        assert (((elbow - (shoulder + wrist) / 2) * forward).sum(1) < 0.02).all()


def test_parts_and_charts_are_those_of_the_bodys_own_rasteriser() -> None:
    scene = build(Spec("walk", 4, 2, 160, 160))
    truth, body = trace(scene), Body.load()
    person = next(i for i in scene.instances if i.skin is not None)
    first = np.unique(_owner(body), return_index=True)[1]
    points = scene.camera.to_camera(1, person.vertices[1][first])
    screen = np.concatenate([scene.camera.project(1, points), points[:, 2:]], axis=1)
    other = rasterise(body, screen, 160, 160)
    surface = truth.people.surface[1]
    both = (surface[..., 3] == 1) & (other.part > 0)
    # What stands before the person, and rays that graze an outline, are the only differences.
    assert both.sum() > 0.97 * (surface[..., 3] == 1).sum()
    same = both & (surface[..., 0] == other.part)
    assert same.sum() > 0.995 * both.sum()
    # The rasteriser interpolates in the picture, the truth in space: within a face of a few pixels they agree.
    assert np.percentile(np.abs(surface[..., 1].astype(int) - other.u)[same], 99) <= 2
    assert np.percentile(np.abs(surface[..., 2].astype(int) - other.v)[same], 99) <= 2


def test_key_points_are_the_regressors_and_visible_ones_lie_on_the_person() -> None:
    scene = build(Spec("pair", 3, 4, 160, 160))
    truth, body = trace(scene), Body.load()
    persons = [n for n, i in enumerate(scene.instances) if i.skin is not None]
    first = np.unique(_owner(body), return_index=True)[1]
    seen = hidden = 0
    for t in range(4):
        for p, n in enumerate(persons):
            places = body.joint_regressor @ scene.instances[n].vertices[t][first]
            image = scene.camera.project(t, scene.camera.to_camera(t, places))
            found = truth.people.keypoints[t, p]
            known = found[:, 2] > 0
            np.testing.assert_allclose(found[known, :2], image[known], atol=1e-3)
            for x, y, score in found[known]:
                on = truth.ids[t, int(y), int(x)] == n + 1
                seen += score == 1
                hidden += score == 0.5
                assert on or score == 0.5 or _beside(truth.ids[t] == n + 1, x, y)
    assert seen > 2 * hidden > 0


def _beside(mask: np.ndarray, x: float, y: float) -> bool:
    """Whether the mask has a pixel next to (x, y): the pixel's centre may miss a limb that the point is in."""
    return bool(mask[max(int(y) - 1, 0) : int(y) + 2, max(int(x) - 1, 0) : int(x) + 2].any())


def _owner(body: Body) -> np.ndarray:
    owner = np.zeros(len(body.uv), np.int64)
    owner[body.corners] = body.faces
    return owner
