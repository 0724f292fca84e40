"""Truth from rays, against closed forms, the simulator and the picture."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from unibench.camera import Camera, intrinsics, look_at
from unibench.rendering.rays import Frame, Geometry
from unibench.rendering.render import Rendered, modalities, render_scene
from unibench.rendering.shaded import shade
from unibench.rendering.truth import Truth, trace
from unibench.scenes import meshes
from unibench.scenes.families import FAMILIES, Spec, build
from unibench.scenes.graph import Instance, Light, Scene, still
from unibench.scenes.meshes import Mesh
from unibench.state import State

SKY = np.array([0.5, 0.5, 0.5])
NOTHING = State((), *(np.zeros((2, 0, 3)),) * 4, np.zeros(0), np.zeros(0), np.zeros(3), ())  # type: ignore[arg-type]


@cache
def rendered(family: str, seed: int = 0, size: int = 128, frames: int = 8) -> Rendered:
    return render_scene(Spec(family, seed, frames, size, size))


def single(mesh: Mesh, at: list[float], size: int = 96, poses: np.ndarray | None = None) -> Scene:
    """One mesh at `at`, in the axes of a camera in the origin that looks along +z; two frames."""
    pose = np.eye(4)
    pose[:3, 3] = at
    poses = np.tile(np.eye(4), (2, 1, 1)) if poses is None else poses
    camera = Camera(np.tile(intrinsics(1.0, size, size), (2, 1, 1)), poses, size, size)
    grey = np.full((4, 4, 3), 128, np.uint8)
    instance = Instance("it", "thing", mesh, still(mesh, pose, 2), grey)
    return Scene((instance,), camera, Light(np.array([0, 0, -1.0]), SKY, SKY, SKY), NOTHING, "", 16.0)


def test_a_wall_has_the_same_planar_depth_everywhere() -> None:
    truth = trace(single(meshes.plane(40, 40), [0, 0, 5]))
    np.testing.assert_allclose(truth.depth, 5, rtol=1e-7)
    np.testing.assert_allclose(truth.normals, np.broadcast_to([0, 0, -1.0], truth.normals.shape), atol=1e-7)


def test_the_depth_of_a_ball_is_the_closed_form_within_its_facets() -> None:
    scene = single(meshes.sphere(1.0, segments=512), [0.3, -0.2, 4])
    rays = scene.camera.rays(0, scene.camera.pixels())
    centre = np.array([0.3, -0.2, 4])
    a, b, c = (rays**2).sum(1), rays @ centre, (centre**2).sum() - 1
    inside = b**2 - a * c
    expected = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, np.nan).reshape(96, 96)
    depth = trace(scene).depth[0]
    facing = (inside > 0.2 * inside.max()).reshape(96, 96)
    # A chord of 1/512 turn lies 1 − cos(π/512) = 1.9e-5 inside the ball; obliquely a few times that along the ray.
    np.testing.assert_allclose(depth[facing], expected[facing], atol=8e-5)
    assert np.mean(np.isnan(depth) == np.isnan(expected)) > 0.999


def test_a_tilted_plane_has_the_depth_of_its_equation() -> None:
    scene = single(meshes.plane(40, 40), [0, 0, 5])
    tilt = look_at(np.array([1.0, -2.0, -3.0]), np.array([0.0, 0.5, 5.0]))
    scene = single(meshes.plane(400, 400), [0, 0, 5], poses=np.tile(tilt, (2, 1, 1)))
    rays = scene.camera.rays(0, scene.camera.pixels()) @ tilt[:3, :3].T
    expected = (5 - tilt[2, 3]) / rays[:, 2]
    np.testing.assert_allclose(trace(scene).depth[0].ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_flow_is_depth_carried_by_the_simulators_pose_to_1e_4_px(family: str) -> None:
    """Unproject by depth and camera, move by the simulator's own pose, project: the flow, from another path."""
    result = rendered(family)
    truth, state, camera = result.truth, result.state, result.truth.camera
    # Rods hang from what the simulator moves; it moves neither people nor what they hold: see the other tests.
    others = [
        t.id for t in truth.things if t.class_name in ("rod", "person") or f"carries a {t.name}" in result.caption
    ]
    rods = np.isin(truth.ids, others)
    pixels = camera.pixels().reshape(camera.height, camera.width, 2)
    for t in range(7):
        for source, target, flow in ((t, t + 1, truth.forward[t]), (t + 1, t, truth.backward[t])):
            points = camera.rays(source, pixels) * np.nan_to_num(truth.depth[source], nan=1e12)[..., None]
            world = camera.to_world(source, points.astype(np.float64))
            for thing in truth.things:
                if thing.name in state.names:
                    n, here = state.names.index(thing.name), truth.ids[source] == thing.id
                    local = (world[here] - state.position[source, n]) @ state.rotation[source, n]
                    world[here] = local @ state.rotation[target, n].T + state.position[target, n]
            moved = camera.project(target, camera.to_camera(target, world))
            valid = ~np.isnan(flow).any(-1) & ~rods[source] & (np.abs(flow).max(-1) < 1000)
            assert np.abs(moved - pixels - flow)[valid].max() <= 1e-4


def _away_from_edges(truth: Truth, t: int, pixels: int) -> np.ndarray:
    """Pixels with a neighbourhood of one instance and no jump of depth."""
    ids = truth.ids[t].astype(np.float32)
    kernel = np.ones((2 * pixels + 1,) * 2, np.uint8)
    even = cv2.erode(ids, kernel) == cv2.dilate(ids, kernel)
    disparity = np.nan_to_num(1 / truth.depth[t])
    return np.asarray(even & (cv2.dilate(disparity, kernel) - cv2.erode(disparity, kernel) < 0.1 * disparity + 1e-3))


def _at(mask: np.ndarray, there: np.ndarray) -> np.ndarray:
    """How much of `mask` holds at indices `there` `[H, W, 2]` (x, y), bilinear."""
    return np.asarray(cv2.remap(mask.astype(np.float32), there[..., 0], there[..., 1], cv2.INTER_LINEAR))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_forward_and_backward_flow_undo_each_other(family: str) -> None:
    truth = rendered(family, size=256, frames=4).truth
    y, x = np.mgrid[:256, :256].astype(np.float32)
    errors = []
    for t in range(3):
        forward = truth.forward[t]
        there = np.nan_to_num(forward, nan=-1e4) + np.stack([x, y], -1)
        backward = cv2.remap(truth.backward[t], there[..., 0], there[..., 1], cv2.INTER_LINEAR)
        clear = _at(_away_from_edges(truth, t + 1, 2), there) > 0.999
        seen = ~truth.occluded[t] & _away_from_edges(truth, t, 2) & clear
        errors.append(np.linalg.norm(forward + backward, axis=-1)[seen])
    assert np.percentile(np.concatenate(errors), 99) <= 0.05


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_picture_warped_by_the_flow_explains_the_next(family: str) -> None:
    """In even light, where a surface keeps its colour as it turns; a thing that rolls in the sun changes shade."""
    scene = build(Spec(family, 0, 4))
    scene = replace(scene, light=Light(scene.light.direction, np.zeros(3), SKY, SKY))
    truth, rgb = trace(scene), shade(scene).astype(np.float32)
    y, x = np.mgrid[:256, :256].astype(np.float32)
    warped, unwarped = [], []
    for t in range(3):
        there = np.nan_to_num(truth.forward[t], nan=0) + np.stack([x, y], -1)
        found = cv2.remap(rgb[t + 1], there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        clear = _at(_away_from_edges(truth, t + 1, 2), there) > 0.999
        moving = ~truth.occluded[t] & (np.abs(truth.forward[t]).max(-1) > 0.5) & _away_from_edges(truth, t, 2) & clear
        warped.append(np.abs(found - rgb[t])[moving])
        unwarped.append(np.abs(rgb[t + 1] - rgb[t])[moving])
    errors = np.concatenate(warped).mean(), np.concatenate(unwarped).mean()
    print(f"{family}: mean absolute RGB difference {errors[1]:.1f} unwarped, {errors[0]:.1f} warped")
    assert errors[0] < 0.45 * errors[1]


def test_occlusion_agrees_with_a_search_over_all_triangles() -> None:
    """A slow double loop: a point is hidden where some triangle of the target frame lies in front of it."""
    scene = build(Spec("fly", 3, 2, 24, 24))
    truth = trace(scene)
    frame = Frame(scene, Geometry.of(scene), 1)
    hits = Frame(scene, Geometry.of(scene), 0).cast(scene.camera.rays(0, scene.camera.pixels()))
    corners = frame.vertices[frame.geometry.faces]
    wrong = 0
    for k, (point, triangle) in enumerate(zip(frame.points(hits), hits.triangle, strict=True)):
        if triangle < 0:
            continue
        x, y = scene.camera.project(1, point)
        hidden = not (0 <= x < 24 and 0 <= y < 24)
        ray = point / point[2]
        a, e1, e2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        p = np.cross(ray, e2)
        det = (e1 * p).sum(1)
        with np.errstate(all="ignore"):
            u = -(a * p).sum(1) / det
            q = np.cross(-a, e1)
            v, depth = (q @ ray) / det, (e2 * q).sum(1) / det
        front = (u >= 0) & (v >= 0) & (u + v <= 1) & (depth > 0) & (depth < point[2] * (1 - 2e-4))
        wrong += (hidden or bool(front.any())) != truth.occluded[0].ravel()[k]
    assert wrong <= 2


def test_a_thing_behind_the_screen_returns_with_its_id() -> None:
    truth = rendered("occlude", frames=16).truth
    ball = next(t.id for t in truth.things if t.class_name == "ball")
    area = (truth.ids == ball).sum((1, 2))
    assert area[0] > 0
    assert area[-1] > 0
    assert area.min() == 0


def test_large_motion_is_large_and_thin_things_are_thin() -> None:
    fast = rendered("fast", size=128, frames=16).truth
    assert np.nanmax(np.abs(fast.forward)) > 0.08 * 128
    thin = rendered("thin").truth
    poles = np.isin(thin.ids[0], [t.id for t in thin.things if t.class_name in ("pole", "wire")])
    assert poles.any()
    assert not cv2.erode(poles.astype(np.uint8), np.ones((5, 5))).any()


def test_modality_values_pass_their_own_checks() -> None:
    from openuni.modalities import get

    for family in FAMILIES:
        values = modalities(rendered(family).truth)
        get("depth").check(values.depth)
        get("flow").check(values.flow)
        get("segmentation").check(values.segmentation)
        assert (values.skeleton is not None) == (family in ("walk", "pair", "play", "carry"))
        if values.skeleton is not None:
            get("skeleton").check(values.skeleton)
            get("densepose").check(values.densepose)


def test_two_processes_render_the_same_truth_and_picture() -> None:
    code = (
        "import hashlib; from unibench.rendering.render import render_scene; from unibench.scenes.families import *\n"
        "for f in FAMILIES:\n"
        "    r = render_scene(Spec(f, 5, 3, 32, 32))\n"
        "    print(r.truth.digest(), hashlib.sha256(r.rgb).hexdigest(), r.caption)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout
    assert len(set(runs[0].stdout.splitlines())) == len(FAMILIES)


def test_seeds_differ() -> None:
    digests = {render_scene(Spec("fall", seed, 2, 16, 16)).truth.digest() for seed in range(3)}
    assert len(digests) == 3


def test_shading_follows_lamberts_law() -> None:
    """A grey wall lit at an angle: sRGB of albedo · (sun · cos + sky), in closed form."""
    scene = single(meshes.plane(40, 40), [0, 0, 5])
    sun = np.array([0.6, 0.0, -0.8])
    light = Light(sun, np.full(3, 0.5), np.zeros(3), np.zeros(3))
    scene = Scene(scene.instances, scene.camera, light, NOTHING, "", 16.0)
    albedo = ((128 / 255 + 0.055) / 1.055) ** 2.4
    linear = albedo * 0.5 * 0.8
    expected = round(255 * (1.055 * linear ** (1 / 2.4) - 0.055))
    assert np.abs(shade(scene)[0].astype(int) - expected).max() <= 1
