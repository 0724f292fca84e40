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
from unibench.metrics.base import UNDEFINED, Bools, Column, Metric, Score, Scores

_WAUC_THRESHOLDS = np.arange(1, 101) / 20
_WAUC_WEIGHTS = 100 - np.arange(100)
"""In hundredths: integers keep a perfect score exactly 100."""


@dataclass(frozen=True, slots=True)
class FlowErrors:
    """Means over some pixels (counted in `pixels`): `epe` in pixels, the others in percent."""

    epe: float
    fl: float
    px1: float
    wauc: float
    pixels: int


def end_point_error(predicted: npt.NDArray[np.floating], true: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Length of the difference of vectors `[…, 2]`, float64 `[…]`; not-finite predictions count as no motion."""
    finite = np.isfinite(predicted).all(axis=-1, keepdims=True)
    difference = np.where(finite, predicted, 0).astype(np.float64) - true
    return np.hypot(difference[..., 0], difference[..., 1])


def flow_errors(epe: npt.NDArray[np.float64], magnitude: npt.NDArray[np.float64]) -> FlowErrors:
    """Means over flat arrays of end-point errors and true magnitudes, in pixels; NaN where they are empty.

    `fl` (Fl-all): error > 3 px *and* > 5 % of the true magnitude. `px1`: error > 1 px. `wauc` (Richter et al. 2017):
    100·Σ w_i·share(error ≤ i/20 px) / Σ w_i with w_i = 1 − (i−1)/100, i = 1…100, so errors above 5 px earn nothing.
    """
    if epe.size == 0:
        return FlowErrors(math.nan, math.nan, math.nan, math.nan, 0)
    # A share of errors below each threshold is a cumulative count of the first threshold that each error reaches.
    first = np.searchsorted(_WAUC_THRESHOLDS, epe, side="left")
    below = np.cumsum(np.bincount(first, minlength=101)[:100])
    return FlowErrors(
        epe=float(epe.mean()),
        fl=100 * int(np.count_nonzero((epe > 3) & (epe > 0.05 * magnitude))) / epe.size,
        px1=100 * int(np.count_nonzero(epe > 1)) / epe.size,
        wauc=100 * int(_WAUC_WEIGHTS @ below) / (int(_WAUC_WEIGHTS.sum()) * epe.size),
        pixels=epe.size,
    )


_SPLITS = {
    "all": "all pixels",
    "occluded": "pixels whose point is hidden or out of frame in the next frame",
    "visible": "pixels whose point is seen in the next frame",
    "s0-10": "pixels that truly move less than 10 px",
    "s10-40": "pixels that truly move 10 px or more, less than 40 px",
    "s40+": "pixels that truly move 40 px or more",
}


def _columns() -> tuple[Column, ...]:
    columns = [Column("epe_video", "lower", "px", "end-point error; mean over videos")]
    for split, where in _SPLITS.items():
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
        epe = end_point_error(predicted, true)
        magnitude = np.hypot(true[:, 0], true[:, 1])
        for split, inside in _split(magnitude, None if truth.occluded is None else truth.occluded[valid]).items():
            errors = flow_errors(epe, magnitude) if inside is None else flow_errors(epe[inside], magnitude[inside])
            prefix = "" if split == "all" else f"{split}/"
            for name, value in (("epe", errors.epe), ("fl", errors.fl), ("1px", errors.px1), ("wauc", errors.wauc)):
                scores[prefix + name] = Score(value, errors.pixels)
        scores["epe_video"] = Score(scores["epe"].value)
        finite = int(np.count_nonzero(np.isfinite(predicted).all(axis=-1)))
        scores["coverage"] = Score(finite / len(predicted), len(predicted))
        return scores


def _split(magnitude: npt.NDArray[np.float64], occluded: Bools | None) -> dict[str, Bools | None]:
    """Which of the valid pixels belong to each split; None means all of them."""
    inside: dict[str, Bools | None] = {"all": None}
    if occluded is not None:
        inside |= {"occluded": occluded, "visible": ~occluded}
    slow, fast = magnitude < 10, magnitude >= 40
    return inside | {"s0-10": slow, "s10-40": ~(slow | fast), "s40+": fast}
