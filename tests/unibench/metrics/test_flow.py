"""Flow scores against a slow loop over pixels, and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from openuni.modalities.flow import Flow
from unibench.metrics.flow import FlowErrors, FlowMetric, count_errors


def flow_errors(epe: np.ndarray, magnitude: np.ndarray) -> FlowErrors:
    return count_errors(epe, magnitude, np.zeros(len(epe), np.int64), 1).errors([0])


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 25, (2, 9, 11, 2))
    predicted = truth + rng.normal(0, 2, truth.shape) * rng.choice([0.1, 1, 4], truth.shape[:3])[..., None]
    truth[rng.random(truth.shape[:3]) < 0.1] = np.nan
    return predicted, truth, rng.random(truth.shape[:3]) < 0.3


def slow(predicted: np.ndarray, truth: np.ndarray, keep: np.ndarray) -> dict[str, float]:
    errors, magnitudes = [], []
    for p, t, k in zip(predicted.reshape(-1, 2), truth.reshape(-1, 2), keep.ravel(), strict=True):
        if k and math.isfinite(t[0]):
            errors.append(math.sqrt((p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2))
            magnitudes.append(math.sqrt(t[0] ** 2 + t[1] ** 2))
    count = len(errors)
    weights = [1 - (i - 1) / 100 for i in range(1, 101)]
    area = sum(w * sum(e <= i / 20 for e in errors) / count for i, w in enumerate(weights, 1))
    return {
        "epe": sum(errors) / count,
        "fl": 100 * sum(e > 3 and e / m > 0.05 for e, m in zip(errors, magnitudes, strict=True)) / count,
        "1px": 100 * sum(e > 1 for e in errors) / count,
        "wauc": 100 * area / sum(weights),
        "pixels": count,
    }


@pytest.mark.parametrize("seed", range(5))
def test_every_split_equals_a_slow_loop(seed: int) -> None:
    predicted, truth, occluded = scene(seed)
    scores = FlowMetric().update("k", Flow(predicted), Flow(truth, occluded))
    magnitude = np.linalg.norm(truth, axis=-1)
    splits = {
        "": np.ones_like(occluded),
        "occluded/": occluded,
        "visible/": ~occluded,
        "s0-10/": magnitude < 10,
        "s10-40/": (magnitude >= 10) & (magnitude < 40),
        "s40+/": magnitude >= 40,
    }
    for prefix, keep in splits.items():
        expected = slow(predicted, truth, keep)
        for name in ("epe", "fl", "1px", "wauc"):
            score = scores[prefix + name]
            assert score.value == pytest.approx(expected[name], rel=1e-9), prefix + name
            assert score.weight == expected["pixels"]


def test_thresholds_are_strict_where_the_definition_is_strict() -> None:
    # 3 px of 60 is exactly 5 %: no outlier; 1 px exactly is none either; 5 px exactly still earns the last threshold.
    at_limits = flow_errors(np.array([3.0, 4.0, 1.0, 5.0]), np.array([60.0, 80.0, 0.0, 1000.0]))
    assert at_limits.fl == 0
    assert at_limits.px1 == 75
    assert flow_errors(np.array([5.0]), np.array([0.0])).wauc == pytest.approx(100 * 0.01 / 50.5, rel=1e-12)
    assert flow_errors(np.array([0.0]), np.array([0.0])).wauc == 100


@pytest.mark.parametrize("step", range(1, 101))
def test_an_error_on_a_threshold_counts_as_below_it(step: int) -> None:
    expected = 100 * sum(1 - (i - 1) / 100 for i in range(step, 101)) / 50.5
    assert flow_errors(np.array([step / 20]), np.array([0.0])).wauc == pytest.approx(expected, rel=1e-12)


def test_perfect_flow_is_perfect_and_flipped_flow_is_twice_the_magnitude() -> None:
    _, truth, _ = scene(1)
    perfect = FlowMetric().update("k", Flow(truth), Flow(truth))
    assert (perfect["epe"].value, perfect["fl"].value, perfect["wauc"].value) == (0, 0, 100)
    flipped = FlowMetric().update("k", Flow(-truth), Flow(truth))
    assert flipped["epe"].value == pytest.approx(2 * np.nanmean(np.linalg.norm(truth, axis=-1)))
    assert math.isnan(perfect["occluded/epe"].value)


def test_no_valid_pixel_and_no_pair_of_frames_are_undefined() -> None:
    for truth in (np.full((1, 2, 2, 2), np.nan), np.zeros((0, 2, 2, 2))):
        scores = FlowMetric().update("k", Flow(np.zeros_like(truth)), Flow(truth))
        assert all(math.isnan(score.value) for score in scores.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_score_as_no_motion(bad: float) -> None:
    truth = np.full((1, 2, 2, 2), 8.0)
    predicted = truth.copy()
    predicted[0, 0, 0, 1] = bad
    scores = FlowMetric().update("k", Flow(predicted), Flow(truth))
    assert scores["epe"].value == pytest.approx(math.hypot(8, 8) / 4)
    assert scores["coverage"].value == 0.75


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(InvalidAnnotationError, match="resample"):
        FlowMetric().update("k", Flow(np.zeros((1, 2, 2, 2))), Flow(np.zeros((1, 2, 3, 2))))
