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
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.densepose import PARTS, DensePose
from unibench.metrics.base import UNDEFINED, Column, Floats, Metric, Score, Scores

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


def mean_part_iou(confusion: npt.NDArray[np.int64]) -> float:
    """Mean over the parts that occur in the truth of intersection / union; NaN where none does."""
    inner = np.diagonal(confusion)[1:]
    there, found = confusion.sum(axis=0)[1:], confusion.sum(axis=1)[1:]
    occurs = there > 0
    if not occurs.any():
        return math.nan
    return float(np.mean(inner[occurs] / (there + found - inner)[occurs]))


def geodesic_point_similarity(distances: Floats, kappa: float = KAPPA) -> float:
    """Mean of exp(−g² / (2κ²)); an infinite distance (no body predicted) gives 0. NaN of nothing."""
    return float(np.exp(-(distances**2) / (2 * kappa**2)).mean()) if distances.size else math.nan


def person_similarities(
    found: DensePose, true: DensePose, geodesics: Geodesics, seed: int = 0
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
            here = found.values[t].reshape(-1, 4)[pixels]
            distances = np.full(len(pixels), np.inf)
            body = here[:, 0] > 0
            distances[body] = geodesics.distance(there[body, :3], here[body, :3])
            gps = geodesic_point_similarity(distances)
            owners = np.bincount(found.values[t, ..., 3][mask], minlength=2)
            owners[0] = 0
            partner = found.values[t, ..., 3] == owners.argmax() if owners.any() else np.zeros_like(mask)
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
        self._confusion = np.zeros((_PART_COUNT, _PART_COUNT), dtype=np.int64)

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
        self._confusion += confusion
        body = int(confusion[:, 1:].sum())
        union = int(confusion.sum() - confusion[0, 0])
        if union:
            scores["body_iou"] = Score(int(confusion[1:, 1:].sum()) / union)
        if body:
            accuracy = int(np.diagonal(confusion)[1:].sum()) / body
            scores["part_accuracy"], scores["part_accuracy_video"] = Score(accuracy, body), Score(accuracy)
            scores["part_miou_video"] = Score(mean_part_iou(confusion))
            if self.geodesics is not None and prediction.layout == truth.layout == self.geodesics.layout:
                people = person_similarities(prediction, truth, self.geodesics)
                scores["gps_anny"] = Score(float(np.mean([gps for gps, _ in people])))
                scores["gpsm_anny"] = Score(float(np.mean([gpsm for _, gpsm in people])))
        return scores

    def state(self) -> dict[str, Any]:
        """Pixels by predicted and true part."""
        return {"confusion": self._confusion.tolist()}

    def absorb(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of another one."""
        self._confusion += np.array(state["confusion"], dtype=np.int64)

    def compute(self) -> dict[str, float]:
        """Part mIoU over the whole set."""
        return {"part_miou": mean_part_iou(self._confusion)}
