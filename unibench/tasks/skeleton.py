"""Skeletons: key points of people in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.skeleton import LAYOUTS, Skeleton, at_frames
from unibench.formats.arrays import LARGEST, load_arrays, one_of
from unibench.formats.plain import whole
from unibench.metrics.skeleton import Poses, SkeletonMetric
from unibench.tasks.base import Estimated, Info, Setup
from unibench.tasks.checks import Corruption, Mistake, shifts


@dataclass(frozen=True, slots=True)
class SkeletonOptions:
    """The layout of joints; of any, the body is scored."""

    layout: str = "coco17"


class SkeletonTask(Estimated[Skeleton]):
    """`[T, P, K, 3]`; a file is an npz with `keypoints`, `size` (height, width) and, where known, `boxes` and the
    detector's `scores` `[T, P]` of people."""

    name = "skeleton"
    judge = "pck_bbox@0.1"
    Options = SkeletonOptions

    def metric(self, setup: Setup) -> SkeletonMetric:
        del setup
        return SkeletonMetric()

    def read(self, entry: Path, info: Info, most: int = LARGEST) -> Skeleton:
        """Boxes, where not given, are those of the joints."""
        file = whole(entry)
        if file is None:
            raise InvalidAnnotationError(f"{entry}: a skeleton is one npz a clip")
        arrays = load_arrays(file, most)
        points = one_of(arrays, ("keypoints",), file).astype(np.float32)
        if points.ndim != 4 or points.shape[-1] != 3:
            raise InvalidAnnotationError(f"{file}: keypoints have shape {points.shape}; they must be [T, P, K, 3]")
        with np.errstate(invalid="ignore"):
            missing = ~(np.isfinite(points).all(axis=-1) & (points[..., 2] > 0))
        points[missing] = (np.nan, np.nan, 0)
        # Poses rank by the scores as they are: heat maps' peaks (RTMPose, MMPose) go above 1.
        scores = arrays["scores"].astype(np.float32) if "scores" in arrays else _mean_scores(points)
        points[..., 2] = np.clip(points[..., 2], 0, 1)
        boxes = arrays["boxes"].astype(np.float32) if "boxes" in arrays else _boxes_of(points)
        if "size" not in arrays or arrays["size"].shape != (2,):
            raise InvalidAnnotationError(f"{file} has no `size`: say the height and width its joints are in pixels of")
        height, width = (int(side) for side in arrays["size"])
        tracks = np.arange(points.shape[1], dtype=np.int32)
        return Skeleton(points, boxes, tracks, height, width, self.options(info).layout, scores=scores)

    def compared(self, predicted: Skeleton, true: Skeleton) -> tuple[Poses, Poses]:
        return Poses.of(predicted), Poses.of(true)

    def arrays(self, value: Skeleton) -> dict[str, npt.NDArray[Any]]:
        return {"keypoints": value.keypoints, "boxes": value.boxes, "size": np.array([value.height, value.width])}

    def pick(self, value: Skeleton, index: npt.NDArray[np.int64]) -> Skeleton:
        return at_frames(value, index)

    def nothing(self, true: Skeleton) -> Skeleton:
        frames, _, joints, _ = true.keypoints.shape
        points, boxes = np.zeros((frames, 0, joints, 3), np.float32), np.zeros((frames, 0, 4), np.float32)
        return Skeleton(points, boxes, np.zeros(0, np.int32), true.height, true.width, true.layout)

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        return {"noise": Corruption((0.05, 0.1, 0.2, 0.4), _noisy), "lost": Corruption((0.1, 0.3, 0.6, 0.9), _lost)}

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return (
            Mistake("left and right joints are swapped (sides are the person's own)", _swap_sides),
            Mistake("rows and columns are swapped (y, x where x, y is meant)", _swap_axes),
            Mistake("joints are in widths and heights (0…1) where pixels are meant", _to_pixels),
            self.mirrored(),
            # A step of a walk is far within PCK's tenth of a box; AP's strict thresholds see it.
            *shifts("oks_ap_video"),
        )


def _mean_scores(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean score `[T, P]` of each person's joints of the body; NaN where there is none."""
    points = points[:, :, : len(LAYOUTS["coco17"].joints)]
    total, number = points[..., 2].sum(axis=-1, dtype=np.float64), (points[..., 2] > 0).sum(axis=-1)
    mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return np.asarray(mean, np.float32)


def _boxes_of(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low = np.where(np.isnan(points[..., :2]), np.inf, points[..., :2]).min(axis=2, initial=np.inf)
    high = np.where(np.isnan(points[..., :2]), -np.inf, points[..., :2]).max(axis=2, initial=-np.inf)
    boxes = np.concatenate([low, high], axis=-1)
    boxes[~np.isfinite(boxes).all(axis=-1)] = np.nan
    return boxes.astype(np.float32)


def _noisy(true: Skeleton, strength: float, rng: np.random.Generator) -> Skeleton:
    boxes = true.boxes[..., 2:] - true.boxes[..., :2]
    size = np.nan_to_num(boxes.max(axis=-1), nan=0.0)[..., None, None]
    points = true.keypoints.copy()
    points[..., :2] += strength * size * rng.standard_normal(points[..., :2].shape).astype(np.float32)
    return replace(true, keypoints=points)


def _lost(true: Skeleton, strength: float, rng: np.random.Generator) -> Skeleton:
    points = true.keypoints.copy()
    points[rng.random(points.shape[:3]) < strength] = (np.nan, np.nan, 0)
    return replace(true, keypoints=points)


def _swap_sides(skeleton: Skeleton) -> Skeleton:
    return replace(skeleton, keypoints=skeleton.keypoints[:, :, LAYOUTS[skeleton.layout].mirrored])


def _swap_axes(skeleton: Skeleton) -> Skeleton:
    return replace(skeleton, keypoints=skeleton.keypoints[..., [1, 0, 2]], boxes=skeleton.boxes[..., [1, 0, 3, 2]])


def _to_pixels(skeleton: Skeleton) -> Skeleton:
    size = np.array([skeleton.width, skeleton.height], np.float32)
    points = skeleton.keypoints.copy()
    points[..., :2] *= size
    return replace(skeleton, keypoints=points, boxes=skeleton.boxes * np.tile(size, 2))
