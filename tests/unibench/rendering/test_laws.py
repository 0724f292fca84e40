"""The laws of motion, measured in rendered depth and ids alone, are those of the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from unibench.rendering.truth import Truth, trace
from unibench.scenes.families import Spec, build
from unibench.state import Contact, State

FPS, FRAMES, SIZE = 60.0, 60, 192


def clip(family: str, seed: int) -> tuple[Truth, State]:
    scene = build(Spec(family, seed, FRAMES, SIZE, SIZE, FPS))
    return trace(scene), scene.state


def centres(truth: Truth, name: str) -> np.ndarray:
    """Centre of a ball in each frame `[T, 3]`, world: the sphere through the points its depth shows (NaN: < 60 px)."""
    thing = next(t.id for t in truth.things if t.name == name)
    camera = truth.camera
    pixels = camera.pixels().reshape(camera.height, camera.width, 2)
    found = np.full((len(camera), 3), np.nan)
    for t in range(len(camera)):
        here = truth.ids[t] == thing
        if here.sum() >= 60:
            points = camera.to_world(t, camera.rays(t, pixels[here]) * truth.depth[t][here][:, None].astype(np.float64))
            # |p|² = 2 c·p + (r² − |c|²): linear in the centre c and one more unknown.
            system = np.column_stack([2 * points, np.ones(len(points))])
            found[t] = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0][:3]
    return found


def fit(positions: np.ndarray, frames: slice, at: float, degree: int) -> np.ndarray:
    """Coefficients `[degree + 1, 3]` (position, velocity, half the acceleration) at time `at` of those frames."""
    t = np.arange(len(positions))[frames] / FPS - at
    here = positions[frames]
    known = np.isfinite(here).all(1)
    assert known.sum() > degree + 3
    return np.polynomial.polynomial.polyfit(t[known], here[known], degree)


def bounce_of(state: State, body: int) -> tuple[Contact, float]:
    """The body's first bounce on the floor, and when its next contact comes."""
    own = [c for c in state.contacts if body in (c.first, c.second)]
    return own[0], own[1].time if len(own) > 1 else (FRAMES - 1) / FPS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_free_fall_has_the_simulators_g(seed: int) -> None:
    truth, state = clip("bounce", seed)
    contact, _ = bounce_of(state, 0)
    accel = 2 * fit(centres(truth, state.names[0]), slice(0, int(contact.time * FPS)), 0.0, 2)[2]
    np.testing.assert_allclose(accel, state.gravity, atol=0.02 * 9.81)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_bounce_has_the_restitution_on_record(seed: int) -> None:
    truth, state = clip("bounce", seed)
    contact, after = bounce_of(state, 0)
    assert (contact.first, contact.second) == (0, -1)
    path = centres(truth, state.names[0])
    down = fit(path, slice(0, int(contact.time * FPS)), contact.time, 2)[1, 2]
    up = fit(path, slice(int(contact.time * FPS) + 2, int(after * FPS)), contact.time, 2)[1, 2]
    assert -up / down == pytest.approx(state.restitution[0], abs=0.03)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_collision_keeps_momentum(seed: int) -> None:
    """Just after the collision, while each ball still slides: the floor slows it evenly, so a parabola fits."""
    truth, state = clip("collide", seed)
    contact = next(c for c in state.contacts if c.second >= 0)
    momentum = np.zeros((2, 3))
    for n, name in enumerate(state.names):
        path = centres(truth, name)
        before = fit(path, slice(0, int(contact.time * FPS)), contact.time, 1)[1]
        after = fit(path, slice(first := int(contact.time * FPS) + 2, first + 9), contact.time, 2)[1]
        momentum += state.mass[n] * np.array([before, after])
    scale = sum(state.mass[n] * np.linalg.norm(state.velocity[0, n]) for n in range(2))
    np.testing.assert_allclose(momentum[0, :2], momentum[1, :2], atol=0.03 * scale)


def test_a_pendulum_swings_as_its_length_says() -> None:
    """Speed² over height: v² (1 + 2r²/5L²) = 2 g (h₀ − h), a straight line through the whole swing."""
    truth, state = clip("pendulum", 1)
    path = centres(truth, state.names[0])
    known = np.isfinite(path).all(1)
    assert known.all()
    velocity = (path[2:] - path[:-2]) * FPS / 2
    slope = np.polyfit(path[1:-1, 2], (velocity**2).sum(1), 1)[0]
    # (2/5)(r/L)² is below .03 for these balls and rods.
    assert slope == pytest.approx(-2 * 9.81, rel=0.04)
