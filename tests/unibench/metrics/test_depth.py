"""Depth scores against slow loops, numpy's least squares and a linear programme."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from openuni.modalities.depth import Depth, DepthKind
from unibench.metrics.base import weighted_mean
from unibench.metrics.depth import (
    ALIGNMENTS,
    DepthMetric,
    DepthTruth,
    apply_fit,
    depth_errors,
    fit,
    fit_least_absolute,
    fit_least_squares,
    fit_scale,
    fit_scale_weiszfeld,
    temporal_alignment_error,
    valid_truth,
)


def depth(values: np.ndarray, kind: DepthKind = "metric") -> Depth:
    return Depth(values, kind)


def scene(seed: int, frames: int = 3, height: int = 12, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 30, (frames, height, width))
    truth[rng.random(truth.shape) < 0.1] = np.nan
    truth[0, 0, 0] = 200.0
    prediction = truth * rng.lognormal(0.3, 0.2, truth.shape)
    prediction[~np.isfinite(prediction)] = 3.0
    return prediction, truth


def slow_primary(prediction: np.ndarray, truth: np.ndarray, max_depth: float) -> dict[str, list[float]]:
    """Pixel by pixel: numpy.linalg.lstsq in disparity, clip, invert, clip, then plain sums a frame."""
    x, y = [], []
    for p, t in zip(prediction.ravel(), truth.ravel(), strict=True):
        if math.isfinite(t) and 1e-3 < t < max_depth:
            x.append([1.0 / p, 1.0])
            y.append(1.0 / (t + 1e-8))
    (scale, shift), *_ = np.linalg.lstsq(np.array(x), np.array(y), rcond=None)
    frames: dict[str, list[float]] = {"absrel": [], "delta1": [], "rmse": [], "pixels": []}
    for p_frame, t_frame in zip(prediction, truth, strict=True):
        absrel = square = delta = 0.0
        count = 0
        for p, t in zip(p_frame.ravel(), t_frame.ravel(), strict=True):
            if not (math.isfinite(t) and 1e-3 < t < max_depth):
                continue
            d = min(max(1.0 / max(scale / p + shift, 1e-3), 1e-3), max_depth)
            absrel += abs(d - t) / t
            square += (d - t) ** 2
            delta += max(d / t, t / d) < 1.25
            count += 1
        for name, value in (("absrel", absrel / count), ("delta1", delta / count), ("rmse", (square / count) ** 0.5)):
            frames[name].append(value)
        frames["pixels"].append(count)
    return frames


@pytest.mark.parametrize("seed", range(5))
def test_primary_scores_equal_a_slow_loop(seed: int) -> None:
    prediction, truth = scene(seed)
    scores = DepthMetric(80.0).update("k", depth(prediction), DepthTruth(truth))
    slow = slow_primary(prediction, truth, 80.0)
    for name in ("absrel", "delta1", "rmse"):
        assert scores[f"disparity/{name}"].value == pytest.approx(np.mean(slow[name]), rel=1e-9)
    pooled = np.average(slow["absrel"], weights=slow["pixels"])
    assert scores["disparity/absrel_pixels"].value == pytest.approx(pooled, rel=1e-9)
    assert scores["disparity/absrel_pixels"].weight == sum(slow["pixels"])
    rmse = math.sqrt(np.average(np.square(slow["rmse"]), weights=slow["pixels"]))
    assert scores["disparity/rmse_pixels"].value == pytest.approx(rmse, rel=1e-9)


def test_a_set_pools_over_pixels_and_over_videos() -> None:
    metric = DepthMetric(80.0)
    videos = [scene(1, frames=1), scene(2, frames=4, height=5)]
    scores = [metric.update("k", depth(p), DepthTruth(t)) for p, t in videos]
    per_video = [s["disparity/absrel"].value for s in scores]
    assert weighted_mean(s["disparity/absrel"] for s in scores) == pytest.approx(np.mean(per_video), rel=1e-12)
    total = sum(s["disparity/absrel_pixels"].value * s["disparity/absrel_pixels"].weight for s in scores)
    pixels = sum(int(valid_truth(t).sum()) for _, t in videos)
    assert weighted_mean(s["disparity/absrel_pixels"] for s in scores) == pytest.approx(total / pixels, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_equals_lstsq(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1e-3, 1000) + 7
    y = rng.normal(size=1000)
    expected = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    scale, shift = fit_least_squares(x, y)
    assert np.allclose(scale * x + shift, expected[0] * x + expected[1], rtol=1e-9, atol=1e-9)


def test_a_constant_prediction_is_fitted_by_the_mean() -> None:
    assert fit_least_squares(np.full(1000, 0.1), np.arange(1000.0)) == (0.0, 499.5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [3, 30, 151])
def test_least_absolute_error_equals_a_linear_programme(seed: int, count: int) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    x = rng.normal(size=count)
    y = 3 * x + 1 + rng.standard_cauchy(count)
    if seed % 2:
        x, y = x.round(1), y.round(1)  # ties
    # min Σe over (s, t, e) with −e ≤ s·x + t − y ≤ e
    eye = np.eye(count)
    ones = np.ones((count, 1))
    upper = np.block([[x[:, None], ones, -eye], [-x[:, None], -ones, -eye]])
    solved = linprog(
        np.r_[0, 0, np.ones(count)], A_ub=upper, b_ub=np.r_[y, -y], bounds=[(None, None)] * 2 + [(0, None)] * count
    )
    scale, shift = fit_least_absolute(x, y)
    assert np.abs(scale * x + shift - y).sum() == pytest.approx(solved.fun, rel=1e-9, abs=1e-9)


def test_least_absolute_error_of_many_pixels_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    median = np.median

    def counted(values: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        return float(median(values))

    monkeypatch.setattr(np, "median", counted)
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 50, 200_000)
    fit_least_absolute(x, 2 * x + 1 + rng.laplace(size=x.size) * x)
    assert calls <= 40


def test_scale_equals_ten_slow_weiszfeld_steps() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1, 9, 200), rng.uniform(1, 9, 200)
    scale = sum(y) / len(y) / (sum(x) / len(x))
    for _ in range(10):
        weights = [1 / (abs(scale * a - b) + 1e-8) for a, b in zip(x, y, strict=True)]
        over = sum(w * a * b for w, a, b in zip(weights, x, y, strict=True))
        scale = over / sum(w * a * a for w, a in zip(weights, x, strict=True))
    assert fit_scale_weiszfeld(x, y) == pytest.approx(scale, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_scale_equals_a_linear_programme_and_does_not_depend_on_the_order_of_pixels(seed: int) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.1, 9, 80), rng.uniform(0.1, 9, 80)
    if seed % 2:
        x, y = x.round(), y.round()  # ties, and pixels with x = 0
    eye = np.eye(80)
    upper = np.block([[x[:, None], -eye], [-x[:, None], -eye]])
    solved = linprog(np.r_[0, np.ones(80)], A_ub=upper, b_ub=np.r_[y, -y], bounds=[(None, None)] + [(0, None)] * 80)
    scale = fit_scale(x, y)
    assert np.abs(scale * x - y).sum() == pytest.approx(solved.fun, rel=1e-9)
    order = rng.permutation(80)
    assert fit_scale(x[order], y[order]) == scale


def test_every_alignment_is_perfect_where_it_should_be() -> None:
    _, truth = scene(3)
    cases = {
        "disparity": depth(5 / np.where(np.isfinite(truth), truth, 1) - 0.01, "affine_disparity"),
        "scale": depth(truth * 7, "relative"),
        "l1": depth(truth * 0.1 - 2, "relative"),
        "metric": depth(truth, "metric"),
    }
    for alignment, prediction in cases.items():
        scores = DepthMetric(80.0).update("k", prediction, DepthTruth(truth))
        assert scores[f"{alignment}/absrel"].value == pytest.approx(0, abs=2e-7), alignment
        assert scores[f"{alignment}/delta1"].value == 1, alignment


def test_the_primary_score_does_not_depend_on_scale_and_shift_of_a_disparity() -> None:
    prediction, truth = scene(4)
    a = DepthMetric(80.0).update("k", depth(1 / prediction, "affine_disparity"), DepthTruth(truth))
    b = DepthMetric(80.0).update("k", depth(1e-5 / prediction + 3, "affine_disparity"), DepthTruth(truth))
    assert a["disparity/absrel"].value == pytest.approx(b["disparity/absrel"].value, rel=1e-6)


def test_an_alignment_the_kind_cannot_have_is_undefined() -> None:
    prediction, truth = scene(5)
    relative = DepthMetric().update("k", depth(prediction, "relative"), DepthTruth(truth))
    assert math.isnan(relative["metric/absrel"].value)
    affine = DepthMetric().update("k", depth(1 / prediction, "affine_disparity"), DepthTruth(truth))
    assert math.isnan(affine["scale/absrel"].value)
    assert math.isfinite(affine["l1/absrel"].value)


def test_no_valid_pixel_makes_every_score_undefined_and_an_empty_frame_is_left_out() -> None:
    prediction, truth = scene(6)
    nothing = DepthMetric().update("k", depth(prediction), DepthTruth(np.full_like(truth, np.nan)))
    assert all(math.isnan(score.value) for score in nothing.values())
    gap = truth.copy()
    gap[1] = np.nan
    with_gap = DepthMetric().update("k", depth(prediction), DepthTruth(gap))
    without = DepthMetric().update("k", depth(prediction[[0, 2]]), DepthTruth(truth[[0, 2]]))
    assert with_gap["disparity/absrel"].value == without["disparity/absrel"].value


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_score_as_the_farthest_depth_and_lower_the_coverage(bad: float) -> None:
    _, truth = scene(7)
    prediction = np.where(np.isfinite(truth), truth, 1.0)
    prediction[1, 3:6] = bad
    truth[1, 3:6] = 4.0
    scores = DepthMetric(80.0).update("k", depth(prediction), DepthTruth(truth))
    valid = valid_truth(truth)
    expected = [0.0, 30 * (80 - 4) / 4 / valid[1].sum(), 0.0]
    for alignment in ALIGNMENTS:
        assert scores[f"{alignment}/absrel"].value == pytest.approx(np.mean(expected), rel=1e-6), alignment
    assert scores["coverage"].value == pytest.approx(1 - 30 / valid.sum())


def test_nothing_finite_is_scored_not_crashed() -> None:
    _, truth = scene(8)
    scores = DepthMetric(80.0).update("k", depth(np.full_like(truth, np.nan)), DepthTruth(truth))
    assert scores["coverage"].value == 0
    assert scores["disparity/delta1"].value < 0.1


def test_a_constant_depth_and_one_frame_are_scored() -> None:
    truth = np.full((1, 4, 4), 5.0)
    scores = DepthMetric().update("k", depth(np.full_like(truth, 2.0)), DepthTruth(truth))
    assert scores["disparity/absrel"].value == pytest.approx(0, abs=1e-7)
    assert scores["scale/absrel"].value == pytest.approx(0, abs=1e-7)
    assert scores["metric/absrel"].value == pytest.approx(0.6)
    assert math.isnan(scores["tae"].value)


def test_the_floors_stand_beside_the_prediction_and_do_not_depend_on_it() -> None:
    """A floor that runs to a wall at .35 of the height is what the capped floor says; the row alone bends at it."""
    disparity = np.broadcast_to(np.maximum((np.arange(60) + 0.5) / 60, 0.35)[:, None], (2, 60, 8)) / 3
    truth = 1 / disparity
    scores = [DepthMetric().update("k", depth(p), DepthTruth(truth)) for p in (truth, np.ones_like(truth))]
    assert scores[0]["capped_row/absrel"].value == pytest.approx(0, abs=1e-5)
    assert 0.05 < scores[0]["row/absrel"].value < 0.3
    assert scores[0]["row/absrel"] == scores[1]["row/absrel"]
    only = DepthMetric(alignments=("metric",)).update("k", depth(truth), DepthTruth(truth))
    assert math.isnan(only["row/absrel"].value), "who asks for other alignments alone does not pay for it"


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(InvalidAnnotationError, match="resample"):
        DepthMetric().update("k", depth(np.ones((1, 2, 2))), DepthTruth(np.ones((1, 2, 3))))


def test_clipping_keeps_depth_in_range() -> None:
    prediction = depth(np.array([[[1e-9, 1.0, 1e9]]]))
    fitted = fit(prediction, np.array([[[1.0, 2.0, 3.0]]]), np.ones((1, 1, 3), bool), "metric")
    assert fitted is not None
    assert apply_fit(prediction, fitted, 80.0).ravel().tolist() == [1e-3, 1.0, 80.0]


def camera(frames: int) -> tuple[np.ndarray, np.ndarray]:
    intrinsics = np.tile(np.array([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]]), (frames, 1, 1))
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = 0.3 * np.arange(frames)
    poses[:, 2, 3] = 0.5 * np.arange(frames)
    return intrinsics, poses


def slow_tae(depth: np.ndarray, intrinsics: np.ndarray, poses: np.ndarray, published: bool) -> float:
    frames, height, width = depth.shape
    errors = []
    for i in range(frames - 1):
        for a, b in ((i, i + 1), (i + 1, i)):
            move = np.linalg.inv(poses[b]) @ poses[a]
            seen: dict[tuple[int, int], float] = {}
            for row in range(height):
                for column in range(width):
                    ray = np.linalg.inv(intrinsics[a]) @ np.array([column + 0.5, row + 0.5, 1.0])
                    point = move @ np.r_[ray * depth[a, row, column], 1.0]
                    if not published and point[2] <= 0:
                        continue
                    u, v, w = intrinsics[b] @ point[:3]
                    at = (math.floor(v / w), math.floor(u / w))
                    if 0 <= at[0] < height and 0 <= at[1] < width:
                        seen[at] = point[2] if published else min(point[2], seen.get(at, math.inf))
            hits = [(depth[b][at], z) for at, z in seen.items() if z > 0]
            if hits:
                errors.append(np.mean([abs(d - z) / d for d, z in hits]))
            elif published:
                errors.append(0.0)
    return 100 * float(np.mean(errors))


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_temporal_alignment_error_equals_a_slow_loop(seed: int, published: bool) -> None:
    values = np.random.default_rng(seed).uniform(0.3, 6, (3, 12, 16))
    intrinsics, poses = camera(3)
    fast = temporal_alignment_error(values, intrinsics, poses, published=published)
    assert fast == pytest.approx(slow_tae(values, intrinsics, poses, published), rel=1e-9)


def test_a_wall_seen_by_a_moving_camera_has_no_temporal_error_only_with_a_z_buffer() -> None:
    frames, height, width = 3, 24, 32
    intrinsics, poses = camera(frames)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = 16, 12
    wall = np.stack([np.full((height, width), 9.0 - 0.5 * t) for t in range(frames)])
    assert temporal_alignment_error(wall, intrinsics, poses) == pytest.approx(0, abs=1e-9)
    # A pillar before the wall: parts of the wall land on it, and only the z-buffer knows which is in front.
    for t in range(frames):
        x = (np.arange(width) + 0.5 - 16) / 20 * (3.0 - 0.5 * t) + 0.3 * t
        wall[t][:, np.abs(x) < 0.4] = 3.0 - 0.5 * t
    shown = temporal_alignment_error(wall, intrinsics, poses)
    published = temporal_alignment_error(wall, intrinsics, poses, published=True)
    assert shown < published


def test_a_pair_without_overlap_is_perfect_as_published_and_undefined_here() -> None:
    depth = np.ones((2, 4, 4))
    intrinsics = np.tile(np.array([[4.0, 0, 2], [0, 4, 2], [0, 0, 1]]), (2, 1, 1))
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 0, 3] = 100
    assert temporal_alignment_error(depth, intrinsics, poses, published=True) == 0
    assert math.isnan(temporal_alignment_error(depth, intrinsics, poses))


def test_errors_over_nothing_are_undefined() -> None:
    errors = depth_errors(np.empty(0), np.empty(0))
    assert math.isnan(errors.absrel)
    assert errors.pixels == 0
