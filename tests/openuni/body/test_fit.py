"""The fit: a posed body is found again from its landmarks, to the accuracy that the part labels need."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from openuni.body import Body, rasterise
from openuni.body.fit import Observed, fit
from tests.openuni.body import posed

pytest.importorskip("embreex")
BODIES = 24


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.load()


def round_trip(body: Body, noise_2d: float, noise_3d: float) -> np.ndarray:
    """Mean agreement over random bodies: parts, front/back, left/right, U, V, overlap."""
    rows = []
    for seed in range(BODIES):
        rng = np.random.default_rng(seed)
        rotations = posed.random_rotations(body, rng)
        vertices = body.pose(rotations[None], rng.normal(0, 0.8, len(body.components)))
        vertices -= vertices.mean(1, keepdims=True)
        found = fit(body, posed.observe(body, vertices, rng, noise_2d, noise_3d))
        size = posed.HEIGHT, posed.WIDTH
        truth = rasterise(body, posed.picture(vertices[0]), *size)
        agreement = posed.compare(truth, rasterise(body, found.vertices(body, 0), *size))
        rows.append([*vars(agreement).values()])
    return np.mean(rows, axis=0)


def test_a_body_posed_at_random_is_found_again(body: Body) -> None:
    parts, front_back, left_right, u, v, _ = round_trip(body, 0, 0)
    assert parts >= 0.90
    assert front_back <= 0.06
    assert left_right <= 0.01
    assert u <= 0.04
    assert v <= 0.04


def test_landmarks_off_by_centimetres_cost_few_parts(body: Body) -> None:
    parts, *_ = round_trip(body, 0.015, 0.03)
    assert parts >= 0.87


def motion(body: Body, frames: int) -> np.ndarray:
    """Bodies `[T, V, 3]` that move evenly from one random pose to another."""
    rng = np.random.default_rng(5)
    first, last = posed.random_rotations(body, rng), posed.random_rotations(body, rng)
    last[0] = first[0] @ Rotation.from_euler("y", 0.6).as_matrix()
    steps = np.linspace(0, 1, frames)
    turns = [Slerp([0, 1], Rotation.from_matrix([a, b]))(steps).as_matrix() for a, b in zip(first, last, strict=True)]
    vertices = body.pose(np.stack(turns, 1))
    return vertices - vertices.mean(1, keepdims=True)


def test_noise_from_frame_to_frame_is_smoothed_away(body: Body) -> None:
    vertices = motion(body, 20)
    seen = posed.observe(body, vertices, np.random.default_rng(0), 0.015, 0.03)

    def error(found: np.ndarray) -> float:
        truth = np.stack([posed.picture(v)[:, :2] for v in vertices])
        return float(np.linalg.norm(found - truth, axis=2).mean())

    def drawn(*seens: Observed) -> np.ndarray:
        fits = [fit(body, s) for s in seens]
        return np.concatenate([[f.vertices(body, i)[:, :2] for i in range(len(f.scale))] for f in fits])

    one_by_one = [
        Observed(seen.points[t : t + 1], seen.weights[t : t + 1], seen.space[t : t + 1], seen.size[t : t + 1])
        for t in range(20)
    ]
    together, alone = drawn(seen), drawn(*one_by_one)
    assert error(together) < 0.8 * error(alone)
    jitter = [np.linalg.norm(np.diff(x, 2, axis=0), axis=2).mean() for x in (together, alone)]
    assert jitter[0] < 0.5 * jitter[1]


def test_landmarks_of_weight_zero_do_not_matter(body: Body) -> None:
    vertices = motion(body, 3)
    seen = posed.observe(body, vertices, np.random.default_rng(0))
    row = body.landmark_names.index("left_wrist")
    seen.weights[:, row] = 0
    clean = fit(body, seen)
    seen.points[:, row] += 1000
    np.testing.assert_allclose(fit(body, seen).rotations, clean.rotations, atol=1e-6)


def test_the_fit_does_not_care_where_the_picture_is_or_how_large(body: Body) -> None:
    seen = posed.observe(body, motion(body, 3), np.random.default_rng(0), 0.01, 0.02)
    moved = Observed(seen.points * 2.5 + [300, -40], seen.weights, seen.space * 1.3, seen.size * 2.5)
    a, b = fit(body, seen), fit(body, moved)
    np.testing.assert_allclose(b.rotations, a.rotations, atol=1e-6)
    np.testing.assert_allclose(b.vertices(body, 1)[:, :2], a.vertices(body, 1)[:, :2] * 2.5 + [300, -40], atol=1e-3)


def test_the_error_tells_a_good_fit_from_landmarks_of_no_body(body: Body) -> None:
    seen = posed.observe(body, motion(body, 2), np.random.default_rng(0))
    nonsense = Observed(
        np.random.default_rng(1).uniform(0, 300, seen.points.shape), seen.weights, seen.space, seen.size
    )
    assert fit(body, seen).error.max() < 0.02
    assert fit(body, nonsense).error.min() > 0.2
