"""DensePose: accuracy and IoU of body parts, and geodesic point similarity where the charts agree.

GPS (Güler et al. 2018) of a true person in a frame = mean over sampled body pixels of exp(−g² / (2κ²)), κ = .255 m,
with g the geodesic distance on the body between the predicted and the true surface point; a pixel where no body is
predicted counts as 0. GPSm = √(GPS · mask IoU), with the predicted person that overlaps the true one most in that
frame. SMPL's geodesics are not free to ship, so g is measured on our own baked body: the columns say `anny` and are not
comparable with published numbers. Where the two layouts differ, or no geodesics are at hand, GPS is undefined; parts
still are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.densepose import PARTS, DensePose
from unibench.metrics.base import UNDEFINED, Column, Floats, Metric, Score, Scores, mean_iou

Points = npt.NDArray[np.uint8]
"""Surface points `[N, 3]`: part, U, V as stored."""
KAPPA = 0.255
"""Metres; the mean over parts of DensePose's normalisation."""
_SAMPLED = 196
"""Pixels of a person in a frame that are compared; annotators of DensePose-COCO marked up to 184."""
_PART_COUNT = len(PARTS)


class Geodesics(Protocol):
    """Distances along a body's surface."""

    layout: str

    def distance(self, first: Points, second: Points) -> Floats:
        """Metres `[N]` between surface points of the same row."""


def part_confusion(predicted: npt.NDArray[np.uint8], true: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Pixels `[25, 25]` by predicted and true part, 0 the background."""
    cell = predicted.astype(np.int32) * _PART_COUNT + true
    return np.bincount(cell.ravel(), minlength=_PART_COUNT**2).reshape(_PART_COUNT, _PART_COUNT)


def part_counts(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pixels of intersection, prediction and truth of each of the 24 parts, `[24, 3]`."""
    return np.stack([np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)], axis=1)[1:]


def geodesic_point_similarity(distances: Floats, kappa: float = KAPPA) -> float:
    """Mean of exp(−g² / (2κ²)); an infinite distance (no body predicted) gives 0. NaN of nothing."""
    return float(np.exp(-(distances**2) / (2 * kappa**2)).mean()) if distances.size else math.nan


def person_similarities(
    predicted: DensePose, true: DensePose, geodesics: Geodesics, seed: int = 0
) -> list[tuple[float, float]]:
    """GPS and GPSm of each true person in each frame. Of larger people 196 pixels are drawn, the same for every run."""
    scores = []
    for t in range(len(true.values)):
        people = true.values[t, ..., 3]
        for person in np.unique(people[people > 0]):
            mask = people == person
            pixels = np.flatnonzero(mask)
            if pixels.size > _SAMPLED:
                rng = np.random.default_rng([seed, t, int(person)])
                pixels = np.sort(rng.choice(pixels, _SAMPLED, replace=False))
            there = true.values[t].reshape(-1, 4)[pixels]
            here = predicted.values[t].reshape(-1, 4)[pixels]
            distances = np.full(len(pixels), np.inf)
            body = here[:, 0] > 0
            distances[body] = geodesics.distance(there[body, :3], here[body, :3])
            gps = geodesic_point_similarity(distances)
            owners = np.bincount(predicted.values[t, ..., 3][mask], minlength=2)
            owners[0] = 0
            partner = predicted.values[t, ..., 3] == owners.argmax() if owners.any() else np.zeros_like(mask)
            iou = np.count_nonzero(partner & mask) / np.count_nonzero(partner | mask)
            scores.append((gps, math.sqrt(gps * iou)))
    return scores


class DensePoseMetric(Metric[DensePose, DensePose]):
    """Part scores of any layout (the 24 parts are numbered alike), GPS on the layout of `geodesics`."""

    task: ClassVar[str] = "densepose"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("part_accuracy", "higher", "", "share of true body pixels with the true part; pooled over pixels"),
        Column("part_accuracy_video", "higher", "", "the same of each video, mean over videos"),
        Column("part_miou", "higher", "", "mean over true parts of IoU over all pixels of the set"),
        Column("part_miou_video", "higher", "", "the same of each video, mean over videos"),
        Column("body_iou", "higher", "", "IoU of body against background; mean over videos"),
        Column("gps_anny", "higher", "", "geodesic point similarity on the baked body; mean over people, then videos"),
        Column("gpsm_anny", "higher", "", "√(GPS · mask IoU); mean over people, then videos"),
    )
    primary: ClassVar[str] = "part_accuracy_video"

    def __init__(self, geodesics: Geodesics | None = None) -> None:
        self.geodesics = geodesics
        self._counts: dict[str, npt.NDArray[np.int64]] = {}  # by sample

    def update(self, key: str, prediction: DensePose, truth: DensePose) -> Scores:
        """Score one video. Raises InvalidAnnotationError on shapes that differ or parts above 24."""
        if prediction.values.shape != truth.values.shape:
            raise InvalidAnnotationError(
                f"{key}: densepose predicted {prediction.values.shape}, true {truth.values.shape}; resample it first"
            )
        if max(prediction.values[..., 0].max(initial=0), truth.values[..., 0].max(initial=0)) >= _PART_COUNT:
            raise InvalidAnnotationError(f"{key}: densepose has a part above {_PART_COUNT - 1}")
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        confusion = part_confusion(prediction.values[..., 0], truth.values[..., 0])
        self._counts[key] = part_counts(confusion)
        body = int(confusion[:, 1:].sum())
        union = int(confusion.sum() - confusion[0, 0])
        if union:
            scores["body_iou"] = Score(int(confusion[1:, 1:].sum()) / union)
        if body:
            accuracy = int(np.diagonal(confusion)[1:].sum()) / body
            scores["part_accuracy"], scores["part_accuracy_video"] = Score(accuracy, body), Score(accuracy)
            scores["part_miou_video"] = Score(float(mean_iou(self._counts[key])))
            if self.geodesics is not None and prediction.layout == truth.layout == self.geodesics.layout:
                people = person_similarities(prediction, truth, self.geodesics)
                scores["gps_anny"] = Score(float(np.mean([gps for gps, _ in people])))
                scores["gpsm_anny"] = Score(float(np.mean([gpsm for _, gpsm in people])))
        return scores

    def state(self) -> dict[str, Any]:
        """Pixels of each part by sample."""
        return {"parts": {key: counts.tolist() for key, counts in self._counts.items()}}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of another one."""
        self._counts |= {key: np.array(counts, dtype=np.int64) for key, counts in state["parts"].items()}

    def compute(self) -> dict[str, float]:
        """Part mIoU over the whole set."""
        return {"part_miou": float(mean_iou(sum(self._counts.values(), np.zeros((_PART_COUNT - 1, 3), np.int64))))}

    def resampled(self, keys: Sequence[str], counts: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Part mIoU of resamples."""
        column = {key: k for k, key in enumerate(keys)}
        table = np.stack(list(self._counts.values())).reshape(len(self._counts), -1)
        totals = counts[:, [column[key] for key in self._counts]] @ table
        return {"part_miou": mean_iou(totals.reshape(-1, _PART_COUNT - 1, 3))}
