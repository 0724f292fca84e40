"""Segmentation of a video: semantic mIoU, frame AP and tube AP of instances, and J & F of objects.

- mIoU: per class Σ intersection / Σ union over all pixels of the set, then the mean over the classes that occur in the
  truth. `miou` leaves the background out of that mean, `miou_background` counts it as one more class.
- Frame AP is COCO's, each frame an image. Tube AP is YouTube-VIS's: masks are compared over the whole video, Σ_t
  intersection / Σ_t union. The `_agnostic` ones ignore class names, for predictions that have none.
- J & F are DAVIS 2017's region and boundary measures (tolerance ⌈.008·diagonal⌉ px, both masks empty = 1), over all
  frames of each true object. As in its unsupervised track, predicted objects are paired one to one with true ones, here
  by the largest sum of tube IoU; a true object without a partner is compared with nothing.

What the truth ignores (void) is left out of all of them: it is no pixel of a class, and what is predicted there is cut
away before masks and boundaries are compared, as davis2017-evaluation does.

An instance without a score counts as 1; equal scores are ranked in the order of keys, frames and the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.metrics.base import UNDEFINED, Bools, Column, Floats, Metric, Score, Scores, mean_iou
from unibench.metrics.precision import AveragePrecision, Picture

Counts = npt.NDArray[np.int64]
BACKGROUND = "(background)"
_ANY = "(any)"
_MOST_IDS = 65535


def overlaps(predicted: Segmentation, true: Segmentation) -> Counts:
    """Pixels `[T, P+1, N+1]` by frame, predicted and true instance, in table order with the background in front.
    Pixels that the truth ignores are not counted.

    Raises InvalidAnnotationError where an id is in no table.
    """
    frames = predicted.ids.shape[0]
    p, n = len(predicted.instances) + 1, len(true.instances) + 1
    cell = _positions(predicted) * n + _positions(true)
    cell += np.arange(frames, dtype=np.int32)[:, None, None] * (p * n)
    counted = cell.ravel() if true.ignored is None else cell[~true.ignored]
    return np.bincount(counted, minlength=frames * p * n).reshape(frames, p, n)


def _positions(masks: Segmentation) -> npt.NDArray[np.int32]:
    """Ids replaced by their position in the table, from 1."""
    known = np.array([0, *(i.id for i in masks.instances)], dtype=np.int64)
    low, high = int(masks.ids.min(initial=0)), int(masks.ids.max(initial=0))
    if low < 0 or high > _MOST_IDS or known.min() < 0 or len(set(known.tolist())) < len(known):
        raise InvalidAnnotationError(f"segmentation: ids must be unique in the table and lie in 0 to {_MOST_IDS}")
    table = np.full(max(high, int(known.max())) + 1, -1, dtype=np.int32)
    table[known] = np.arange(len(known), dtype=np.int32)
    positions = table[masks.ids]
    if positions.size and positions.min() < 0:
        stray = int(masks.ids[positions < 0][0])
        raise InvalidAnnotationError(f"segmentation: pixels have id {stray}, which the table of instances lacks")
    return positions


def class_counts(overlap: Counts, predicted: Segmentation, true: Segmentation) -> dict[str, Counts]:
    """Intersection, predicted pixels and true pixels `[3]` of each class, background included."""
    names = (
        [BACKGROUND, *(i.class_name for i in predicted.instances)],
        [BACKGROUND, *(i.class_name for i in true.instances)],
    )
    total = overlap.sum(axis=0)
    counts = {name: np.zeros(3, dtype=np.int64) for name in (*names[0], *names[1])}
    for p, predicted_name in enumerate(names[0]):
        counts[predicted_name][1] += total[p].sum()
        for n, true_name in enumerate(names[1]):
            if predicted_name == true_name:
                counts[true_name][0] += total[p, n]
    for n, true_name in enumerate(names[1]):
        counts[true_name][2] += total[:, n].sum()
    return counts


def pair_objects(overlap: Counts) -> list[int | None]:
    """For each true instance the predicted one (position in its table) paired with it, or None.

    One to one, by the largest sum of tube IoU; a pair that nowhere overlaps is no pair.
    """
    total = overlap.sum(axis=0)
    inner = total[1:, 1:].astype(np.float64)
    union = total[1:].sum(axis=1)[:, None] + total[:, 1:].sum(axis=0)[None, :] - inner
    iou = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    pairs: list[int | None] = [None] * iou.shape[1]
    if iou.size:
        for p, n in _assign(-iou):
            if iou[p, n] > 0:
                pairs[n] = p
    return pairs


def _assign(cost: Floats) -> Iterator[tuple[int, int]]:
    from hotcoco import primitives

    rows, columns = primitives.lsap(cost)
    yield from zip((int(r) for r in rows), (int(c) for c in columns), strict=True)


def region_similarity(predicted: Bools, true: Bools) -> Floats:
    """DAVIS J of each frame: intersection / union of masks `[T, H, W]`; 1 where both are empty."""
    inner = np.count_nonzero(predicted & true, axis=(1, 2)).astype(np.float64)
    union = np.count_nonzero(predicted | true, axis=(1, 2))
    similarity: Floats = np.divide(inner, union, out=np.ones_like(inner), where=union > 0)
    return similarity


def boundary_measure(predicted: Bools, true: Bools, tolerance: float = 0.008) -> Floats:
    """DAVIS F of each frame: harmonic mean of the boundaries' precision and recall within ⌈tolerance·diagonal⌉ px.

    Segmentation `[T, H, W]`. 1 where both boundaries are empty, 0 where one is.
    """
    frames, height, width = predicted.shape
    radius = math.ceil(tolerance * math.hypot(height, width))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    scores = np.empty(frames)
    for t in range(frames):
        found, there = _boundary(predicted[t]), _boundary(true[t])
        n_found, n_there = int(np.count_nonzero(found)), int(np.count_nonzero(there))
        if n_found == 0 or n_there == 0:
            scores[t] = float(n_found == n_there)
            continue
        precision = np.count_nonzero(found & cv2.dilate(there, disk)) / n_found
        recall = np.count_nonzero(there & cv2.dilate(found, disk)) / n_there
        scores[t] = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    return scores


def _boundary(mask: Bools) -> npt.NDArray[np.uint8]:
    """Pixels whose right, lower or lower right neighbour differs; at the last row and column, the one that exists."""
    edge = np.zeros(mask.shape, dtype=np.bool_)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge.view(np.uint8)


def encode_tubes(masks: Segmentation) -> list[tuple[Instance, Any, list[Any]]]:
    """Run lengths of each instance that has pixels: of the tube (all frames side by side), and of each frame.

    Segmentation that stand side by side have Σ_t intersection and Σ_t union as their intersection and union.
    """
    from hotcoco import mask as rle

    frames, height, width = masks.ids.shape
    columns_first = np.ascontiguousarray(masks.ids.transpose(0, 2, 1))  # run lengths go down the columns
    encoded = []
    for instance in masks.instances:
        member = (columns_first == instance.id).view(np.uint8)
        present = member.any(axis=(1, 2))
        if not present.any():
            continue
        tube = rle.encode(member.reshape(frames * width, height).T)
        encoded.append((instance, tube, [rle.encode(member[t].T) if present[t] else None for t in range(frames)]))
    return encoded


def _annotation(instance: Instance, encoded: Any, *, detection: bool) -> dict[str, Any]:
    from hotcoco import mask as rle

    if detection:
        return {"segmentation": encoded, "score": 1.0 if instance.score is None else float(instance.score)}
    return {"segmentation": encoded, "area": float(rle.area(encoded))}


def pictures(key: str, predicted: Segmentation, true: Segmentation) -> tuple[list[Picture], list[Picture]]:
    """The frames and the tubes of a video, by class, for `AveragePrecision`."""
    frames, height, width = true.ids.shape
    found, there = encode_tubes(predicted), encode_tubes(true)
    labels = sorted({i.class_name for i, *_ in (*found, *there)})
    images, tubes = [], []
    for label in labels:
        mine = [entry for entry in found if entry[0].class_name == label]
        truth = [entry for entry in there if entry[0].class_name == label]
        tubes.append(
            Picture(
                key,
                0,
                height,
                frames * width,
                label,
                [_annotation(i, tube, detection=False) for i, tube, _ in truth],
                [_annotation(i, tube, detection=True) for i, tube, _ in mine],
            )
        )
        images += [
            Picture(
                key,
                t,
                height,
                width,
                label,
                [_annotation(i, frame[t], detection=False) for i, _, frame in truth if frame[t] is not None],
                [_annotation(i, frame[t], detection=True) for i, _, frame in mine if frame[t] is not None],
            )
            for t in range(frames)
        ]
    return images, tubes


def _agnostic(by_class: list[Picture]) -> list[Picture]:
    """The same pictures with all classes taken for one."""
    merged: dict[int, Picture] = {}
    for p in by_class:
        have = merged.get(p.frame)
        truths, found = (have.truths, have.found) if have else ([], [])
        merged[p.frame] = Picture(p.key, p.frame, p.height, p.width, _ANY, [*truths, *p.truths], [*found, *p.found])
    return list(merged.values())


_AP = {
    "frame_ap": "COCO AP of instance masks, each frame an image",
    "tube_ap": "YouTube-VIS AP: masks compared over the whole video",
    "frame_ap_agnostic": "frame AP with class names ignored",
    "tube_ap_agnostic": "tube AP with class names ignored",
}


def _columns() -> tuple[Column, ...]:
    columns = [
        Column("miou", "higher", "", "mean over true classes of IoU over all pixels, background left out"),
        Column("miou_background", "higher", "", "the same with the background as one more class"),
        Column("miou_video", "higher", "", "mIoU (without background) of each video, mean over videos"),
        Column("j", "higher", "", "DAVIS region similarity; mean over objects and frames, then videos"),
        Column("f", "higher", "", "DAVIS boundary measure; mean over objects and frames, then videos"),
        Column("jf", "higher", "", "mean of J and F"),
    ]
    for name, what in _AP.items():
        columns += [
            Column(name, "higher", "", what),
            Column(f"{name}50", "higher", "", f"{what}, at IoU .5"),
            Column(f"{name}_video", "higher", "", f"{what}; of each video by itself, mean over videos"),
        ]
    return tuple(columns)


class SegmentationMetric(Metric[Segmentation, Segmentation]):
    """Semantic, instance and object scores of id maps with one table of instances a video."""

    task: ClassVar[str] = "segmentation"
    columns: ClassVar[tuple[Column, ...]] = _columns()
    primary: ClassVar[str] = "miou_video"

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, Counts]] = {}  # by sample and class
        self._precision = {name: AveragePrecision() for name in _AP}

    def update(self, key: str, prediction: Segmentation, truth: Segmentation) -> Scores:
        """Score one video. Raises InvalidAnnotationError on shapes that differ, or ids that no table names."""
        if prediction.ids.shape != truth.ids.shape:
            raise InvalidAnnotationError(
                f"{key}: segmentation predicted {prediction.ids.shape}, true {truth.ids.shape}; resample it first"
            )
        if truth.ignored is not None:
            kept = np.where(truth.ignored, 0, prediction.ids).astype(np.int32)
            prediction = Segmentation(kept, prediction.instances)
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        overlap = overlaps(prediction, truth)
        counts = class_counts(overlap, prediction, truth)
        scores["miou_video"] = _defined(_miou({key: counts})["miou"][0])
        self._counts[key] = counts
        images, tubes = pictures(key, prediction, truth)
        for name, group in zip(_AP, (images, tubes, _agnostic(images), _agnostic(tubes)), strict=True):
            alone = AveragePrecision()
            alone.add(group)
            scores[f"{name}_video"] = _defined(alone.compute().ap)
            self._precision[name].merge(alone.state())
        similarity, boundary = object_scores(overlap, prediction, truth)
        scores["j"], scores["f"] = _defined(similarity), _defined(boundary)
        scores["jf"] = _defined((similarity + boundary) / 2)
        return scores

    def state(self) -> dict[str, Any]:
        """Pixel counts by sample and class, and the matches of each AP."""
        counts = {
            key: {name: three.tolist() for name, three in sorted(classes.items())}
            for key, classes in self._counts.items()
        }
        return {"counts": counts} | {name: precision.state() for name, precision in self._precision.items()}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of another one."""
        for key, classes in state["counts"].items():
            self._counts[key] = {name: np.array(three, dtype=np.int64) for name, three in classes.items()}
        for name, precision in self._precision.items():
            precision.merge(state[name])

    def compute(self) -> dict[str, float]:
        """mIoU and AP of the whole set."""
        values = {name: float(value[0]) for name, value in _miou(self._counts).items()}
        for name, precision in self._precision.items():
            computed = precision.compute()
            values[name], values[f"{name}50"] = computed.ap, computed.ap50
        return values

    def remarks(self) -> Iterator[str]:
        """Whether no predicted class is one of the truth."""
        found, there = (
            {name for classes in self._counts.values() for name, three in classes.items() if three[which] > 0}
            - {BACKGROUND}
            for which in (1, 2)
        )
        if found and there and not found & there:
            yield (
                f"no predicted class ({_some(found)}) is one of the truth ({_some(there)}): mIoU and AP with classes "
                "are 0 by that; the columns `agnostic`, J and F look at no classes"
            )

    def resampled(self, keys: Sequence[str], counts: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """mIoU and AP of resamples."""
        column = {key: k for k, key in enumerate(keys)}
        values = _miou(self._counts, counts[:, [column[key] for key in self._counts]])
        for name, precision in self._precision.items():
            values[name], values[f"{name}50"], _ = precision.resampled(keys, counts).T
        return values


def _miou(
    samples: Mapping[str, Mapping[str, Counts]], weights: npt.NDArray[np.integer] | None = None
) -> dict[str, Floats]:
    """mIoU without and with the background, `[R]` each, of counts by sample and class, each `weights[r]` times."""
    names = sorted({name for classes in samples.values() for name in classes})
    table = np.zeros((len(samples), len(names), 3), np.int64)
    for row, classes in zip(table, samples.values(), strict=True):
        for name, three in classes.items():
            row[names.index(name)] = three
    weights = np.ones((1, len(samples)), np.int64) if weights is None else weights
    totals = (weights @ table.reshape(len(samples), 3 * len(names))).reshape(len(weights), len(names), 3)
    inside = [k for k, name in enumerate(names) if name != BACKGROUND]
    return {"miou": mean_iou(totals[:, inside]), "miou_background": mean_iou(totals)}


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")


def _defined(value: float) -> Score:
    return UNDEFINED if math.isnan(value) else Score(value)


def object_scores(overlap: Counts, predicted: Segmentation, true: Segmentation) -> tuple[float, float]:
    """J and F, each the mean over true objects (that have pixels) of the mean over frames; NaN without objects."""
    similarity, boundary = [], []
    for n, partner in enumerate(pair_objects(overlap)):
        if overlap[:, :, n + 1].sum() == 0:
            continue
        there = true.ids == true.instances[n].id
        found = np.zeros_like(there) if partner is None else predicted.ids == predicted.instances[partner].id
        similarity.append(float(region_similarity(found, there).mean()))
        boundary.append(float(boundary_measure(found, there).mean()))
    if not similarity:
        return math.nan, math.nan
    return float(np.mean(similarity)), float(np.mean(boundary))
