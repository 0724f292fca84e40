"""Physics-IQ (Motamed et al. 2025, arXiv:2501.09038): does the motion happen where, when and as much as it truly did?

No learned judge. Motion masks: grey, 5×5 blur, difference > 10 from a running average (α = .3), opened and closed 5×5;
the first frame's is empty. Masks and frames are compared at a quarter of the size. Per video: spatial IoU (masks joined
over time), spatio-temporal IoU (mean over frames), weighted spatial IoU (mean masks, Σ min / Σ max), all 1 where
nothing moves in either, and MSE of frames in [0, 1]. A second take of the same event, where there is one, says how well
truth agrees with itself, and only then there is a Physics-IQ score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from unibench.metrics.base import UNDEFINED, Bools, Column, Floats, Metric, Score, Scores
from unibench.metrics.video import Video

_SHRINK = 4
_THRESHOLD = 10
_MEMORY = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Takes:
    """What truly happened, RGB uint8 `[T, H, W, 3]`; and the same event once more, where it was filmed twice."""

    first: npt.NDArray[np.uint8]
    second: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two videos: three IoU of their motion, and the mean squared difference of their frames in [0, 1]."""

    spatial: float
    spatiotemporal: float
    weighted: float
    mse: float


def motion_masks(frames: npt.NDArray[np.uint8]) -> Bools:
    """Where something moves, `[T, H // 4, W // 4]`."""
    height, width = frames.shape[1] // _SHRINK, frames.shape[2] // _SHRINK
    masks = np.zeros((len(frames), height, width), np.bool_)
    square = np.ones((5, 5), np.uint8)
    average: Floats | None = None
    for t, frame in enumerate(frames):
        grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (5, 5), 0)
        if average is None:
            average = grey.astype(np.float64)
            continue
        cv2.accumulateWeighted(grey, average, _MEMORY)
        difference = cv2.absdiff(grey, cv2.convertScaleAbs(average))
        moving = cv2.threshold(difference, _THRESHOLD, 255, cv2.THRESH_BINARY)[1]
        moving = cv2.morphologyEx(cv2.morphologyEx(moving, cv2.MORPH_OPEN, square), cv2.MORPH_CLOSE, square)
        masks[t] = cv2.resize(moving, (width, height)) > 127
    return masks


def agreement(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> Agreement:
    """Compare two videos of one shape, at least 4 pixels a side. Raises InvalidAnnotationError on other shapes."""
    if a.shape != b.shape or min(a.shape[1:3]) < _SHRINK:
        raise InvalidAnnotationError(f"physics: videos of {a.shape} and {b.shape}; they must agree, 4 pixels or more")
    first, second = motion_masks(a), motion_masks(b)
    mean_a, mean_b = first.mean(axis=0), second.mean(axis=0)
    most = float(np.maximum(mean_a, mean_b).sum())
    return Agreement(
        spatial=_iou(np.asarray(first.any(axis=0)), np.asarray(second.any(axis=0))),
        spatiotemporal=float(np.mean([_iou(m, n) for m, n in zip(first, second, strict=True)])),
        weighted=float(np.minimum(mean_a, mean_b).sum()) / most if most else 1.0,
        mse=float(np.mean([_square(x, y) for x, y in zip(a, b, strict=True)])),
    )


def _iou(a: Bools, b: Bools) -> float:
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def _square(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    size = a.shape[1] // _SHRINK, a.shape[0] // _SHRINK
    difference = cv2.resize(a, size).astype(np.float64) - cv2.resize(b, size)
    return float(np.mean((difference / 255) ** 2))


def physics_iq(predicted: Agreement, truth: Agreement) -> float:
    """The score of a set, 0–100 %, from the mean agreement of predictions with the first take, and of both takes."""
    ratios = (
        predicted.spatial / truth.spatial,
        predicted.spatiotemporal / truth.spatiotemporal,
        predicted.weighted / truth.weighted,
    )
    return 100 * min(max(sum(ratios) / 3 - (predicted.mse - truth.mse), 0.0), 1.0)


_MEASURES = ("spatial", "spatiotemporal", "weighted", "mse")


class PhysicsMetric(Metric[Video, Takes]):
    """Generated video against what truly happened from the same start."""

    task: ClassVar[str] = "physics"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("spatial", "higher", "", "IoU of where motion happened at any time"),
        Column("spatiotemporal", "higher", "", "IoU of where motion happens, mean over frames"),
        Column("weighted", "higher", "", "IoU of how often motion happens where"),
        Column("mse", "lower", "", "mean squared difference of frames in [0, 1]"),
        *(Column(f"takes/{name}", "neither", "", "the same between two takes of the truth") for name in _MEASURES),
        Column("physics_iq", "higher", "%", "Physics-IQ score of the set, relative to the agreement of two takes"),
    )
    primary: ClassVar[str] = "spatiotemporal"

    def __init__(self) -> None:
        self._sums = np.zeros((2, 4))
        self._paired = 0

    def update(self, key: str, prediction: Video, truth: Takes) -> Scores:
        """Score one video. Raises InvalidAnnotationError where the shapes differ."""
        del key
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        predicted = agreement(prediction.frames, truth.first)
        for name in _MEASURES:
            scores[name] = Score(getattr(predicted, name))
        if truth.second is not None:
            takes = agreement(truth.first, truth.second)
            for name in _MEASURES:
                scores[f"takes/{name}"] = Score(getattr(takes, name))
            self._sums += [[getattr(x, name) for name in _MEASURES] for x in (predicted, takes)]
            self._paired += 1
        return scores

    def state(self) -> dict[str, Any]:
        """Sums over the videos with two takes, and their number."""
        return {"sums": self._sums.tolist(), "paired": self._paired}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of another one."""
        self._sums += np.array(state["sums"], dtype=np.float64)
        self._paired += int(state["paired"])

    def compute(self) -> dict[str, float]:
        """The Physics-IQ score; NaN without two takes, or where they share no motion."""
        if not self._paired:
            return {"physics_iq": math.nan}
        predicted, takes = (Agreement(*(row / self._paired).tolist()) for row in self._sums)
        if min(takes.spatial, takes.spatiotemporal, takes.weighted) <= 0:
            return {"physics_iq": math.nan}
        return {"physics_iq": physics_iq(predicted, takes)}
