"""Optical flow: end-point error, outliers, and the weighted area under the curve, on all, hidden and visible pixels.

Definitions as in ptlflow and the KITTI, Sintel and Spring benchmarks. A pixel counts where the true vector is finite.
A predicted vector that is not finite is scored as no motion; `coverage` says how many were finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.flow import Flow
from unibench.metrics.base import UNDEFINED, Column, Floats, Metric, Score, Scores

_WAUC_WEIGHTS = 100 - np.arange(100)
"""In hundredths, of the thresholds 1/20, 2/20, …, 5 px: integers keep a perfect score exactly 100."""
_ONE_PIXEL = 20
"""Thresholds up to 1 px."""


@dataclass(frozen=True, slots=True)
class FlowErrors:
    """Means over some pixels (counted in `pixels`): `epe` in pixels, the others in percent."""

    epe: float
    fl: float
    px1: float
    wauc: float
    pixels: int


@dataclass(frozen=True, slots=True, eq=False)
class FlowCounts:
    """Sums over each of C cells of pixels: of errors `[C]`, of Fl outliers `[C]`, and pixels by threshold `[C, 101]`.

    `first[c, i]` counts the pixels whose error is above i/20 px but not above (i+1)/20; the last one, above 5 px.
    """

    epe: Floats
    outliers: Floats
    first: npt.NDArray[np.int64]

    def errors(self, cells: list[int]) -> FlowErrors:
        """Means over the pixels of these cells; NaN where they have none."""
        first = self.first[cells].sum(axis=0)
        pixels = int(first.sum())
        if pixels == 0:
            return FlowErrors(math.nan, math.nan, math.nan, math.nan, 0)
        area = int(_WAUC_WEIGHTS @ np.cumsum(first[:100]))
        return FlowErrors(
            epe=float(self.epe[cells].sum()) / pixels,
            fl=100 * float(self.outliers[cells].sum()) / pixels,
            px1=100 * int(first[_ONE_PIXEL:].sum()) / pixels,
            wauc=100 * area / (int(_WAUC_WEIGHTS.sum()) * pixels),
            pixels=pixels,
        )


def end_point_error(predicted: npt.NDArray[np.floating], true: Floats) -> Floats:
    """Length `[N]` of the difference of vectors `[N, 2]`; a predicted one that is not finite counts as no motion."""
    difference = predicted - true
    missing = ~np.isfinite(difference).all(axis=1)
    difference[missing] = true[missing]
    return np.sqrt(difference[:, 0] ** 2 + difference[:, 1] ** 2)


def count_errors(epe: Floats, magnitude: Floats, cell: npt.NDArray[np.integer], cells: int) -> FlowCounts:
    """Sum end-point errors `[N]` of vectors of these true magnitudes `[N]`, in pixels, by cell `[N]` out of `cells`.

    Fl (KITTI): error > 3 px *and* > 5 % of the true magnitude. 1px: error > 1 px. WAUC (Richter et al. 2017): 100·Σ
    w_i·share(error ≤ i/20 px) / Σ w_i with w_i = 1 − (i−1)/100, i = 1…100, so errors above 5 px earn nothing.
    """
    first = np.minimum(np.maximum(np.ceil(20 * epe) - 1, 0), 100).astype(np.int64)
    outlier = (epe > 3) & (epe > 0.05 * magnitude)
    return FlowCounts(
        np.bincount(cell, weights=epe, minlength=cells).astype(np.float64),
        np.bincount(cell, weights=outlier, minlength=cells).astype(np.float64),
        np.bincount(cell * 101 + first, minlength=cells * 101).reshape(cells, 101),
    )


_SPLITS = {
    "all": ([0, 1, 2, 3, 4, 5], "all pixels"),
    "occluded": ([3, 4, 5], "pixels whose point is hidden or out of frame in the next frame"),
    "visible": ([0, 1, 2], "pixels whose point is seen in the next frame"),
    "s0-10": ([0, 3], "pixels that truly move less than 10 px"),
    "s10-40": ([1, 4], "pixels that truly move 10 px or more, less than 40 px"),
    "s40+": ([2, 5], "pixels that truly move 40 px or more"),
}
"""Of which cells a split consists: 0, 1, 2 by speed, and 3 more for what is occluded."""


def _columns() -> tuple[Column, ...]:
    columns = [Column("epe_video", "lower", "px", "end-point error; mean over videos")]
    for split, (_, where) in _SPLITS.items():
        prefix = "" if split == "all" else f"{split}/"
        columns += [
            Column(f"{prefix}epe", "lower", "px", f"end-point error; pooled over {where}"),
            Column(f"{prefix}fl", "lower", "%", f"Fl: error > 3 px and > 5 %; pooled over {where}"),
            Column(f"{prefix}1px", "lower", "%", f"error > 1 px; pooled over {where}"),
            Column(f"{prefix}wauc", "higher", "%", f"weighted area under the curve; pooled over {where}"),
        ]
    return (*columns, Column("coverage", "higher", "", "share of valid pixels where the prediction is finite"))


class FlowMetric(Metric[Flow, Flow]):
    """Forward flow, `[T-1, H, W, 2]` pixels, x right, y down; splits by occlusion where the truth knows it."""

    task: ClassVar[str] = "flow"
    columns: ClassVar[tuple[Column, ...]] = _columns()
    primary: ClassVar[str] = "epe_video"

    def update(self, key: str, prediction: Flow, truth: Flow) -> Scores:
        """Score one video. Raises InvalidAnnotationError where the shapes differ."""
        if prediction.forward.shape != truth.forward.shape:
            raise InvalidAnnotationError(
                f"{key}: flow predicted {prediction.forward.shape}, true {truth.forward.shape}; resample it first"
            )
        valid = np.isfinite(truth.forward).all(axis=-1)
        predicted, true = prediction.forward[valid], truth.forward[valid].astype(np.float64)
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        if true.size == 0:
            return scores
        magnitude = np.sqrt(true[:, 0] ** 2 + true[:, 1] ** 2)
        cell = (magnitude >= 10).astype(np.int64) + (magnitude >= 40)
        if truth.occluded is not None:
            cell += 3 * truth.occluded[valid]
        counts = count_errors(end_point_error(predicted, true), magnitude, cell, 6)
        for split, (cells, _) in _SPLITS.items():
            errors = counts.errors(cells)
            if errors.pixels == 0 or (split in ("occluded", "visible") and truth.occluded is None):
                continue
            prefix = "" if split == "all" else f"{split}/"
            for name, value in (("epe", errors.epe), ("fl", errors.fl), ("1px", errors.px1), ("wauc", errors.wauc)):
                scores[prefix + name] = Score(value, errors.pixels)
        scores["epe_video"] = Score(scores["epe"].value)
        finite = int(np.count_nonzero(np.isfinite(predicted).all(axis=-1)))
        scores["coverage"] = Score(finite / len(predicted), len(predicted))
        return scores
