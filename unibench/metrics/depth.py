"""Depth of a video: five alignments side by side, AbsRel, δ, RMSE, and the temporal alignment error.

Truth is planar depth in metres, `[T, H, W]`, NaN where invalid; pixels with 1e-3 < truth < `max_depth` count.
One alignment is fitted per *video*, over all its valid pixels, in float64:

- `disparity` (primary): least-squares scale and shift in disparity, clip to ≥ 1e-3, invert, clip to the depth range, as
  DepthCrafter (arXiv:2409.02095) and Video Depth Anything (arXiv:2501.12375) evaluate. Their code first clips the raw
  prediction at 1e-3 as well, which makes the score depend on the prediction's unit; that is not done here.
- `scale`: one factor in depth, of least absolute error: exactly, by a weighted median.
- `weiszfeld`: the same as Aether (arXiv:2503.18945) and CUT3R compute it, by 10 Weiszfeld iterations from the ratio of
  means. Ten are too few, and a pixel that a step happens to hit gets the weight 1e8 and holds the factor: on rendered
  clips it ended 0–24 % from the minimum, and changing the input by one rounding error moved it by up to 2 %. It is here
  for comparison with published numbers; claims should rest on another.
- `l1`: scale and shift of least absolute error, in depth (in disparity for a prediction that is affine disparity).
  The exact minimiser, by cutting planes; MonST3R's Adam stops wherever 1000 steps lead.
- `metric`: none.

An alignment that the prediction's kind cannot have (no metric score for a relative depth) is undefined. A predicted
pixel that is not finite is left out of the fit and scored as the farthest depth; `coverage` says how many were finite.

Two floors stand beside the prediction, for what needs no picture: `row/absrel` is that of a disparity which grows with
the row of the picture, as before a level camera over a floor, `capped_row/absrel` of max(row, .35), a floor that ends
at a wall. Both are aligned by `disparity`. What does not beat the better one has not been shown to see.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.depth import Depth
from unibench.metrics.base import UNDEFINED, Better, Bools, Column, Floats, Metric, Score, Scores, mean_score

Alignment = Literal["disparity", "scale", "weiszfeld", "l1", "metric"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
MIN_DEPTH = 1e-3
MAX_DEPTH = 80.0
"""Metres. Usual values: 70 (Sintel), 80 (KITTI), 10 (indoor)."""
_MIN_DISPARITY = 1e-3
_TINY = 1e-8
_FLOORS = (("row", 0.0), ("capped_row", 0.35))
"""Floors by name: where they end at a wall, in heights of the picture from its top."""


@dataclass(frozen=True, slots=True, eq=False)
class DepthTruth:
    """True planar depth `[T, H, W]` in metres, NaN where invalid; where known, the camera and what stands still.

    `intrinsics` are `[T, 3, 3]` in pixels with pixel (i, j) centred at (j + .5, i + .5); `poses` `[T, 4, 4]` carry
    camera points (x right, y down, z forward, metres) to the world. `static` `[T, H, W]` marks what does not move by
    itself.
    """

    values: npt.NDArray[np.floating]
    intrinsics: Floats | None = None
    poses: Floats | None = None
    static: Bools | None = None


@dataclass(frozen=True, slots=True)
class FittedScale:
    """`aligned = scale · prediction + shift`, in depth or in disparity."""

    scale: float
    shift: float
    space: Literal["depth", "disparity"]


@dataclass(frozen=True, slots=True)
class DepthErrors:
    """Mean errors over some valid pixels (counted in `pixels`). `rmse` is in metres, the δ are fractions."""

    absrel: float
    rmse: float
    delta1: float
    delta2: float
    delta3: float
    pixels: int


def valid_truth(truth: npt.NDArray[np.floating], max_depth: float = MAX_DEPTH) -> Bools:
    """Pixels that count: finite and strictly between 1 mm and `max_depth` metres."""
    with np.errstate(invalid="ignore"):
        return (truth > MIN_DEPTH) & (truth < max_depth)


def fit_least_squares(x: Floats, y: Floats) -> tuple[float, float]:
    """Scale and shift that minimise Σ(scale·x + shift − y)². A constant x gives (0, mean y)."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    centred = x - mean_x
    variance = float(centred @ centred)
    # Below this the spread of x is rounding noise, and so would be any slope.
    if variance <= x.size * (4 * np.finfo(np.float64).eps * abs(mean_x)) ** 2:
        return 0.0, mean_y
    scale = float(centred @ y) / variance
    return scale, mean_y - scale * mean_x


def fit_scale(x: Floats, y: Floats) -> float:
    """The factor that minimises Σ|scale·x − y|: the median of y / x, weighted with |x|. 1 where x is 0 everywhere."""
    x, y = x[x != 0], y[x != 0]
    if x.size == 0:
        return 1.0
    ratio = y / x
    order = np.argsort(ratio, kind="stable")
    below = np.cumsum(np.abs(x[order]))
    return float(ratio[order[np.searchsorted(below, below[-1] / 2)]])


def fit_scale_weiszfeld(x: Floats, y: Floats, iterations: int = 10) -> float:
    """The factor after Aether's iteratively reweighted steps, not below 1e-3; see the module about its worth."""
    mean_x = float(x.mean())
    scale = float(y.mean()) / mean_x if mean_x != 0 else 1.0
    xy, xx = x * y, x * x
    for _ in range(iterations):
        weights = 1.0 / (np.abs(scale * x - y) + _TINY)
        # Sums, not dot products: those depend on the number of BLAS's threads, and this result on every rounding.
        square = float((weights * xx).sum())
        if square == 0:
            break
        scale = float((weights * xy).sum()) / square
    return max(scale, 1e-3)


def fit_least_absolute(x: Floats, y: Floats) -> tuple[float, float]:
    """Scale and shift that minimise Σ|scale·x + shift − y|, to a relative 1e-12 of the smallest sum.

    With the best shift (a median) put in, the sum is a convex function of the scale alone. Two tangents on either side
    of its minimum meet below it: the next scale to try, and a bound that tells how much is left to gain.
    """

    def tangent(scale: float) -> tuple[float, float, float]:
        """The least sum for this scale, a subgradient there, and the shift that attains it."""
        rest = y - scale * x
        shift = float(np.median(rest))
        rest -= shift
        signs = np.sign(rest)
        # A residual of 0 has any slope in [-1, 1]; together they must balance the others for the shift to be optimal.
        zero = rest == 0
        ties = int(np.count_nonzero(zero))
        balance = -float(signs.sum()) / ties if ties else 0.0
        gradient = -float(signs @ x) - balance * float(x[zero].sum())
        return float(np.abs(rest).sum()), gradient, shift

    start, _ = fit_least_squares(x, y)
    spread = float(np.abs(x - x.mean()).mean())
    best_sum, slope, best_shift = tangent(start)
    best_scale = start
    if slope == 0 or spread == 0:
        return best_scale, best_shift
    # Walk downhill with growing steps until the slope turns.
    step = max(best_sum / (x.size * spread), abs(start) * 1e-6, 1e-12)
    low = high = (start, best_sum, slope)
    while slope != 0 and (low[2] > 0 or high[2] < 0 or low is high):
        scale = (high[0] + step) if high[2] < 0 else (low[0] - step)
        total, slope, shift = tangent(scale)
        if total < best_sum:
            best_sum, best_scale, best_shift = total, scale, shift
        point = (scale, total, slope)
        if high[2] < 0:
            low, high = high, point
        else:
            low, high = point, low
        step *= 4
    while slope != 0:
        scale = low[0] + (low[1] - high[1] + high[2] * (high[0] - low[0])) / (high[2] - low[2])
        bound = low[1] + low[2] * (scale - low[0])
        if best_sum - bound <= 1e-12 * best_sum or not low[0] < scale < high[0]:
            break
        total, slope, shift = tangent(scale)
        if total < best_sum:
            best_sum, best_scale, best_shift = total, scale, shift
        low, high = ((scale, total, slope), high) if slope < 0 else (low, (scale, total, slope))
    return best_scale, best_shift


def fit(prediction: Depth, truth: npt.NDArray[np.floating], valid: Bools, alignment: Alignment) -> FittedScale | None:
    """Fit one alignment over the valid pixels of a video; None where the prediction's kind cannot have it."""
    affine = prediction.kind == "affine_disparity"
    if alignment == "metric":
        return FittedScale(1.0, 0.0, "depth") if prediction.kind == "metric" else None
    if alignment in ("scale", "weiszfeld") and affine:
        return None
    x = prediction.values[valid].astype(np.float64)
    y = truth[valid].astype(np.float64)
    if alignment == "disparity" or affine:
        y = 1.0 / (y + _TINY)
        if not affine:
            with np.errstate(divide="ignore"):
                x = np.where(x > 0, 1.0 / x, np.nan)
        space: Literal["depth", "disparity"] = "disparity"
    else:
        space = "depth"
    finite = np.isfinite(x) & np.isfinite(prediction.values[valid])
    if not finite.all():
        x, y = x[finite], y[finite]
    if x.size == 0:
        # Nothing predicted: every pixel is not finite and will be scored as the farthest depth.
        return FittedScale(1.0, 0.0, space)
    if alignment == "disparity":
        return FittedScale(*fit_least_squares(x, y), space)
    if alignment == "scale":
        return FittedScale(fit_scale(x, y), 0.0, space)
    if alignment == "weiszfeld":
        return FittedScale(fit_scale_weiszfeld(x, y), 0.0, space)
    return FittedScale(*fit_least_absolute(x, y), space)


def apply_fit(prediction: Depth, fitted: FittedScale, max_depth: float = MAX_DEPTH) -> Floats:
    """Aligned depth `[T, H, W]` in metres, float64, within [1e-3, max_depth]; not finite becomes `max_depth`."""
    x = prediction.values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if fitted.space == "disparity":
            if prediction.kind != "affine_disparity":
                x = np.where(x > 0, 1.0 / x, np.nan)
            x *= fitted.scale
            x += fitted.shift
            np.maximum(x, _MIN_DISPARITY, out=x)  # keeps NaN
            np.divide(1.0, x, out=x)
            missing = ~np.isfinite(prediction.values)
        else:
            x *= fitted.scale
            x += fitted.shift
            missing = ~np.isfinite(x)
    x[missing | np.isnan(x)] = max_depth
    return np.clip(x, MIN_DEPTH, max_depth, out=x)


def depth_errors(depth: Floats, truth: Floats) -> DepthErrors:
    """Mean errors over flat arrays of aligned and true depth in metres; all NaN where they are empty."""
    if depth.size == 0:
        return DepthErrors(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    difference = depth - truth
    ratio = depth / truth
    np.maximum(ratio, 1.0 / ratio, out=ratio)
    d1, d2, d3 = (float(np.count_nonzero(ratio < 1.25**power)) / depth.size for power in (1, 2, 3))
    rmse = math.sqrt(float(difference @ difference) / depth.size)
    np.abs(difference, out=difference)
    difference /= truth
    return DepthErrors(float(difference.mean()), rmse, d1, d2, d3, depth.size)


def temporal_alignment_error(
    depth: Floats, intrinsics: Floats, poses: Floats, valid: Bools | None = None, *, published: bool = False
) -> float:
    """TAE of Video Depth Anything in percent: AbsRel between each frame's depth and its neighbours' carried into it.

    `depth` `[T, H, W]` metres, `intrinsics` `[T, 3, 3]`, `poses` `[T, 4, 4]` camera to world, `valid` `[T, H, W]`:
    pixels that may be carried and hit. Where several points land in one pixel the nearest counts (a z-buffer); points
    behind the camera do not. `published=True` does what the published code does instead: whichever point comes last
    counts, points behind the camera are projected too, every source pixel is carried, and a pair that nowhere overlaps
    scores 0. NaN for one frame, or where no pair overlaps.
    """
    frames, height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    errors: list[float] = []
    for source, target in _neighbours(frames):
        to_target = np.linalg.inv(poses[target]) @ poses[source]
        k_source, k_target = intrinsics[source], intrinsics[target]
        z = depth[source]
        x = (columns + 0.5 - k_source[0, 2]) * z / k_source[0, 0]
        y = (rows + 0.5 - k_source[1, 2]) * z / k_source[1, 1]
        points = np.stack([x, y, z], axis=-1) @ to_target[:3, :3].T + to_target[:3, 3]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = np.floor(points[..., 0] * k_target[0, 0] / points[..., 2] + k_target[0, 2])
            v = np.floor(points[..., 1] * k_target[1, 1] / points[..., 2] + k_target[1, 2])
            hit = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        if not published:
            hit &= points[..., 2] > 0
            if valid is not None:
                hit &= valid[source]
        pixel = v[hit].astype(np.int64) * width + u[hit].astype(np.int64)
        carried = np.zeros(height * width)
        if published:
            carried[pixel] = points[..., 2][hit]
        else:
            nearest = np.full(height * width, np.inf)
            np.minimum.at(nearest, pixel, points[..., 2][hit])
            carried[np.isfinite(nearest)] = nearest[np.isfinite(nearest)]
        both = (carried > 0) & (depth[target].ravel() > 0)
        if valid is not None:
            both &= valid[target].ravel()
        if not both.any():
            if published:
                errors.append(0.0)
            continue
        there = depth[target].ravel()[both]
        errors.append(float(np.mean(np.abs(there - carried[both]) / there)))
    return 100.0 * float(np.mean(errors)) if errors else math.nan


def _neighbours(frames: int) -> Iterator[tuple[int, int]]:
    for first in range(frames - 1):
        yield first, first + 1
        yield first + 1, first


_MEASURES: tuple[tuple[str, Better, str, str], ...] = (
    ("absrel", "lower", "", "mean |d − d*| / d*"),
    ("delta1", "higher", "", "share of pixels with max(d/d*, d*/d) < 1.25"),
    ("delta2", "higher", "", "… < 1.25²"),
    ("delta3", "higher", "", "… < 1.25³"),
    ("rmse", "lower", "m", "root mean square error, of depth"),
)


def _columns() -> tuple[Column, ...]:
    columns = []
    for alignment in ALIGNMENTS:
        for name, better, unit, what in _MEASURES:
            columns.append(Column(f"{alignment}/{name}", better, unit, f"{what}; frame → video → set"))
            columns.append(Column(f"{alignment}/{name}_pixels", better, unit, f"{what}; pooled over pixels"))
    columns.append(Column("tae", "lower", "%", "temporal alignment error with z-buffer, after alignment disparity"))
    columns.append(Column("tae_published", "lower", "%", "the same as published, without z-buffer"))
    columns.append(Column("row/absrel", "lower", "", "floor: AbsRel of disparity by the row alone, no network"))
    columns.append(Column("capped_row/absrel", "lower", "", "floor: AbsRel of disparity max(row, .35), no network"))
    columns.append(Column("coverage", "higher", "", "share of valid pixels where the prediction is finite"))
    return tuple(columns)


def row_floor(shape: tuple[int, ...], wall: float = 0.0) -> Depth:
    """Disparity of a floor that no camera has seen, `[T, H, W]`: the row's middle, in heights, and no less than `wall`.

    Example:
        >>> row_floor((1, 4, 1), wall=0.35).values.ravel().tolist()
        [0.3499999940395355, 0.375, 0.625, 0.875]
    """
    _, height, _ = shape
    rows = np.maximum((np.arange(height, dtype=np.float32) + 0.5) / height, np.float32(wall))
    return Depth(np.broadcast_to(rows[:, None], shape), "affine_disparity")


class DepthMetric(Metric[Depth, DepthTruth]):
    """Depth scores; the temporal ones only where the truth has a camera."""

    task: ClassVar[str] = "depth"
    columns: ClassVar[tuple[Column, ...]] = _columns()
    primary: ClassVar[str] = "disparity/absrel"

    def __init__(self, max_depth: float = MAX_DEPTH, alignments: tuple[Alignment, ...] = ALIGNMENTS) -> None:
        self.max_depth = max_depth
        self.alignments = alignments

    def update(self, key: str, prediction: Depth, truth: DepthTruth) -> Scores:
        """Score one video. Raises InvalidAnnotationError where the shapes differ."""
        if prediction.values.shape != truth.values.shape:
            raise InvalidAnnotationError(
                f"{key}: depth predicted {prediction.values.shape}, true {truth.values.shape}; resample it first"
            )
        valid = valid_truth(truth.values, self.max_depth)
        counts = np.count_nonzero(valid, axis=(1, 2))
        bounds = np.concatenate([[0], np.cumsum(counts)])
        true = truth.values[valid].astype(np.float64)
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        if true.size == 0:
            return scores
        finite = int(np.count_nonzero(np.isfinite(prediction.values[valid])))
        scores["coverage"] = Score(finite / true.size, true.size)
        if "disparity" in self.alignments:
            for name, wall in _FLOORS:
                floor = row_floor(truth.values.shape, wall)
                fitted = fit(floor, truth.values, valid, "disparity")
                assert fitted is not None
                flat = apply_fit(floor, fitted, self.max_depth)[valid]
                errors = [depth_errors(flat[a:b], true[a:b]).absrel for a, b in itertools.pairwise(bounds) if b > a]
                scores[f"{name}/absrel"] = mean_score(errors)
        for alignment in self.alignments:
            fitted = fit(prediction, truth.values, valid, alignment)
            if fitted is None:
                continue
            aligned = apply_fit(prediction, fitted, self.max_depth)
            depth = aligned[valid]
            frames = [depth_errors(depth[a:b], true[a:b]) for a, b in itertools.pairwise(bounds) if b > a]
            pooled = _pool(frames)
            for name, *_ in _MEASURES:
                scores[f"{alignment}/{name}"] = mean_score([getattr(f, name) for f in frames])
                scores[f"{alignment}/{name}_pixels"] = Score(getattr(pooled, name), pooled.pixels)
            if alignment == "disparity" and truth.intrinsics is not None and truth.poses is not None:
                still = valid if truth.static is None else valid & truth.static
                camera = truth.intrinsics, truth.poses
                scores["tae"] = mean_score(temporal_alignment_error(aligned, *camera, still))
                scores["tae_published"] = mean_score(temporal_alignment_error(aligned, *camera, published=True))
        return scores


def _pool(frames: list[DepthErrors]) -> DepthErrors:
    """The errors over all pixels of these frames together."""
    weights = np.array([f.pixels for f in frames], dtype=np.float64)
    share = weights / weights.sum()
    mean = {name: float(share @ np.array([getattr(f, name) for f in frames])) for name, *_ in _MEASURES}
    mean["rmse"] = math.sqrt(float(share @ np.array([f.rmse**2 for f in frames])))
    return DepthErrors(**mean, pixels=int(weights.sum()))
