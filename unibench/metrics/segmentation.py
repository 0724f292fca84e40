"""Segmentation of a video: semantic mIoU, frame AP and tube AP of instances, and J & F of objects.

- mIoU: per class Σ intersection / Σ union over all pixels of the set, then the mean over the classes that occur in the
  truth. `miou` leaves the background out of that mean, `miou_background` counts it as one more class.
- Frame AP is COCO's, each frame an image. Tube AP is YouTube-VIS's: masks are compared over the whole video, Σ_t
  intersection / Σ_t union. The `_agnostic` ones ignore class names, for predictions that have none.
- J & F are DAVIS 2017's region and boundary measures (tolerance ⌈.008·diagonal⌉ px, both masks empty = 1), over all
  frames of each true object. As in its unsupervised track, predicted objects are paired one to one with true ones, here
  by the largest sum of tube IoU; a true object without a partner is compared with nothing.

- Truth from COCO's and YouTube-VIS's files has masks that overlap, crowds and boxes of its own (`Objects`), and AP is
  that of those, as `pycocotools` and `ytvoseval` count; the id map on top of them serves mIoU, J and F.

A group that nobody took apart (`Instance.crowd`) counts for mIoU, as in cityscapesScripts; it is void for the others.

What the truth ignores (void) is left out of all of them: it is not a pixel of a class, and what is predicted there is
cut away before masks and boundaries are compared, as davis2017-evaluation does.

An instance without a score counts as 1; equal scores are ranked in the order of keys, frames and the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt

from openuni import rle
from openuni.errors import InvalidAnnotationError
from openuni.modalities.segmentation import Instance, Objects, Segmentation
from unibench.metrics.base import UNDEFINED, Bools, Column, Floats, Metric, Score, Scores, mean_iou
from unibench.metrics.precision import ALL_AREAS, COCO_AREAS, Annotation, AveragePrecision, Picture

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

    One to one, by the largest sum of tube IoU; a pair that overlaps nowhere is not a pair.
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
        edges, true_edges = _boundary(predicted[t]), _boundary(true[t])
        n, n_true = int(np.count_nonzero(edges)), int(np.count_nonzero(true_edges))
        if n == 0 or n_true == 0:
            scores[t] = float(n == n_true)
            continue
        precision = np.count_nonzero(edges & cv2.dilate(true_edges, disk)) / n
        recall = np.count_nonzero(true_edges & cv2.dilate(edges, disk)) / n_true
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
    from hotcoco import mask

    frames, height, width = masks.ids.shape
    columns_first = np.ascontiguousarray(masks.ids.transpose(0, 2, 1))  # run lengths go down the columns
    encoded = []
    for instance in masks.instances:
        member = (columns_first == instance.id).view(np.uint8)
        present = member.any(axis=(1, 2))
        if not present.any():
            continue
        tube = mask.encode(member.reshape(frames * width, height).T)
        encoded.append((instance, tube, [mask.encode(member[t].T) if present[t] else None for t in range(frames)]))
    return encoded


@dataclass(frozen=True, slots=True)
class _Thing:
    """An instance as AP compares it: encoded masks of the tube and of each frame, boxes and areas of each frame."""

    label: str
    score: float
    crowd: bool
    tube: Any
    masks: Sequence[Any]
    boxes: Sequence[list[float] | None]
    areas: Sequence[float]

    def truth(self, encoded: Any, area: float) -> Annotation:
        return {"segmentation": encoded, "area": area, "iscrowd": int(self.crowd)}

    def detection(self, encoded: Any, area: float) -> Annotation:
        return {"segmentation": encoded, "area": area, "score": self.score}


def _things(value: Segmentation) -> list[_Thing]:
    """The instances: those of the source where it has more than an id map, else those that have pixels."""
    if value.objects is not None:
        return _of_objects(value, value.objects)
    from hotcoco import mask

    things = []
    for instance, tube, frames in encode_tubes(value):
        boxes = [None if frame is None else np.asarray(mask.to_bbox(frame)).ravel().tolist() for frame in frames]
        areas = [0.0 if frame is None else float(mask.area(frame)) for frame in frames]
        score = 1.0 if instance.score is None else float(instance.score)
        things.append(_Thing(instance.class_name, score, False, tube, frames, boxes, areas))
    return things


def _of_objects(value: Segmentation, objects: Objects) -> list[_Thing]:
    _, height, width = value.ids.shape
    by_frame, things = objects.masks(), []
    for p, instance in enumerate(value.instances):
        masks = [row[p] for row in by_frame]
        boxes = [None if np.isnan(box).any() else box.tolist() for box in objects.boxes[:, p]]
        score = 1.0 if np.isnan(objects.scores[p]) else float(objects.scores[p])
        tube = (
            None if objects.runs is None else rle.packed(rle.beside(masks, height, width), height, len(masks) * width)
        )
        encoded = [None if mask is None else rle.packed(mask, height, width) for mask in masks]
        areas = np.nan_to_num(objects.areas[:, p]).tolist()
        things.append(_Thing(instance.class_name, score, bool(objects.crowds[p]), tube, encoded, boxes, areas))
    return things


def pictures(key: str, predicted: Segmentation, true: Segmentation) -> tuple[list[Picture], list[Picture]]:
    """The frames and the tubes of a video, by class, for `AveragePrecision`."""
    things, true_things = _things(predicted), _things(true)
    return _frames(key, things, true_things, true.ids.shape), _tubes(key, things, true_things, true.ids.shape)


def _labels(predicted: list[_Thing], true: list[_Thing]) -> Iterator[tuple[str, list[_Thing], list[_Thing]]]:
    for label in sorted({thing.label for thing in (*predicted, *true)}):
        yield label, [t for t in predicted if t.label == label], [t for t in true if t.label == label]


def _frames(key: str, predicted: list[_Thing], true: list[_Thing], shape: tuple[int, ...]) -> list[Picture]:
    """Each frame and class with its masks."""
    frames, height, width = shape
    return [
        Picture(
            key,
            t,
            height,
            width,
            label,
            [i.truth(i.masks[t], i.areas[t]) for i in theirs if i.masks[t] is not None],
            [i.detection(i.masks[t], i.areas[t]) for i in mine if i.masks[t] is not None],
        )
        for label, mine, theirs in _labels(predicted, true)
        for t in range(frames)
    ]


def _boxes(key: str, predicted: list[_Thing], true: list[_Thing], shape: tuple[int, ...]) -> list[Picture]:
    """Each frame and class with its boxes."""
    frames, height, width = shape
    return [
        Picture(
            key,
            t,
            height,
            width,
            label,
            [
                {"bbox": box, "area": i.areas[t], "iscrowd": int(i.crowd)}
                for i in theirs
                if (box := i.boxes[t]) is not None
            ],
            [{"bbox": box, "score": i.score} for i in mine if (box := i.boxes[t]) is not None],
        )
        for label, mine, theirs in _labels(predicted, true)
        for t in range(frames)
    ]


def _tubes(key: str, predicted: list[_Thing], true: list[_Thing], shape: tuple[int, ...]) -> list[Picture]:
    """Each class with its masks over the whole video."""
    frames, height, width = shape
    return [
        Picture(
            key,
            0,
            height,
            frames * width,
            label,
            [i.truth(i.tube, sum(i.areas)) for i in theirs],
            [i.detection(i.tube, sum(i.areas)) for i in mine],
        )
        for label, mine, theirs in _labels(predicted, true)
    ]


def _agnostic(by_class: list[Picture]) -> list[Picture]:
    """The same pictures with all classes taken for one."""
    merged: dict[int, Picture] = {}
    for p in by_class:
        have = merged.get(p.frame)
        truths, detections = (have.truths, have.detections) if have else ([], [])
        merged[p.frame] = Picture(
            p.key, p.frame, p.height, p.width, _ANY, [*truths, *p.truths], [*detections, *p.detections]
        )
    return list(merged.values())


_AP = {
    "frame_ap": "COCO AP of instance masks, each frame an image",
    "tube_ap": "YouTube-VIS AP: masks compared over the whole video",
    "frame_ap_agnostic": "frame AP with class names ignored",
    "tube_ap_agnostic": "tube AP with class names ignored",
    "box_ap": "COCO AP of boxes, where the truth has boxes of its own",
}
_BY_AREA = {f"{name}_{size}": areas for name in ("frame_ap", "box_ap") for size, areas in COCO_AREAS.items()}
"""COCO's sizes, where the truth has areas of its own: those of a rendered 256-pixel frame are not COCO's."""


def _names(name: str) -> list[str]:
    """The columns of an AP; of one by size COCO reports the mean over thresholds alone."""
    return [name, f"{name}50", f"{name}75"] if name in _AP else [name]


def _precision(name: str) -> AveragePrecision:
    """The AP of a column."""
    compare: Literal["masks", "boxes", "tubes"] = (
        "tubes" if name.startswith("tube") else "boxes" if name.startswith("box") else "masks"
    )
    return AveragePrecision(compare=compare, areas=_BY_AREA.get(name, ALL_AREAS))


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
            Column(f"{name}75", "higher", "", f"{what}, at IoU .75"),
            Column(f"{name}_video", "higher", "", f"{what}; of each video by itself, mean over videos"),
        ]
    for name, (low, high) in _BY_AREA.items():
        size = f"from {low:g}" if high > 1e9 else f"of {low:g} to {high:g}"
        columns.append(Column(name, "higher", "", f"{_AP[name.rpartition('_')[0]]}, instances {size} pixels"))
    return tuple(columns)


class SegmentationMetric(Metric[Segmentation, Segmentation]):
    """Semantic, instance and object scores of id maps with one table of instances a video."""

    task: ClassVar[str] = "segmentation"
    columns: ClassVar[tuple[Column, ...]] = _columns()
    primary: ClassVar[str] = "miou_video"

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, Counts]] = {}  # by sample and class
        self._precision = {name: _precision(name) for name in (*_AP, *_BY_AREA)}

    def update(self, key: str, prediction: Segmentation, truth: Segmentation) -> Scores:
        """Score one video. Raises InvalidAnnotationError on shapes that differ, or ids that no table names."""
        if prediction.ids.shape != truth.ids.shape:
            raise InvalidAnnotationError(
                f"{key}: segmentation predicted {prediction.ids.shape}, true {truth.ids.shape}; resample it first"
            )
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        objects = _without_crowds(truth)
        self._add_precision(key, prediction, objects, scores)
        if _only_boxes(prediction) or _only_boxes(truth):
            return scores
        prediction = _cut(prediction, truth)
        counts = class_counts(overlaps(prediction, truth), prediction, truth)
        scores["miou_video"] = _defined(_miou({key: counts})["miou"][0])
        self._counts[key] = counts
        prediction, truth = _cut(prediction, objects), objects
        overlap = overlaps(prediction, truth)
        similarity, boundary = object_scores(overlap, prediction, truth)
        scores["j"], scores["f"] = _defined(similarity), _defined(boundary)
        scores["jf"] = _defined((similarity + boundary) / 2)
        return scores

    def _add_precision(self, key: str, prediction: Segmentation, truth: Segmentation, scores: dict[str, Score]) -> None:
        """Match the instances, and say the AP of this video."""
        shape = truth.ids.shape
        if truth.objects is None:
            prediction = _cut(prediction, truth)
        things = _things(prediction), _things(truth)
        groups: dict[str, list[Picture]] = {}
        if not (_only_boxes(prediction) or _only_boxes(truth)):
            groups["frame_ap"], groups["tube_ap"] = _frames(key, *things, shape), _tubes(key, *things, shape)
            groups |= {f"{name}_agnostic": _agnostic(group) for name, group in groups.items()}
        if truth.objects is not None:
            groups["box_ap"] = _boxes(key, *things, shape)
            groups |= {name: groups[whole] for name in _BY_AREA if (whole := name.rpartition("_")[0]) in groups}
        for name, group in groups.items():
            alone = _precision(name)
            alone.add(group)
            if name in _AP:
                scores[f"{name}_video"] = _defined(alone.compute().ap)
            self._precision[name].merge(alone.state())

    def state(self) -> dict[str, Any]:
        """Pixel counts by sample and class, and the matches of each AP."""
        counts = {
            key: {name: three.tolist() for name, three in sorted(classes.items())}
            for key, classes in self._counts.items()
        }
        return {"counts": counts} | {name: precision.state() for name, precision in self._seen()}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of another one."""
        for key, classes in state["counts"].items():
            self._counts[key] = {name: np.array(three, dtype=np.int64) for name, three in classes.items()}
        for name, precision in self._precision.items():
            precision.merge(state.get(name, {}))

    def compute(self) -> dict[str, float]:
        """mIoU and AP of the whole set."""
        values = {name: float(value[0]) for name, value in _miou(self._counts).items()}
        for name, precision in self._seen():
            values |= dict(zip(_names(name), precision.compute(), strict=False))
        return values

    def _seen(self) -> Iterator[tuple[str, AveragePrecision]]:
        """Every AP, but of those that only some truth has (boxes, sizes) the ones that have met it."""
        for name, precision in self._precision.items():
            if precision.seen or (name in _AP and name != "box_ap"):
                yield name, precision

    def remarks(self) -> Iterator[str]:
        """Whether no predicted class is one of the truth."""
        predicted, true = (
            {name for classes in self._counts.values() for name, three in classes.items() if three[which] > 0}
            - {BACKGROUND}
            for which in (1, 2)
        )
        if predicted and true and not predicted & true:
            yield (
                f"no predicted class ({_some(predicted)}) is one of the truth ({_some(true)}): mIoU and AP with "
                "classes are 0 by that; the columns `agnostic`, J and F look at no classes"
            )

    def resampled(self, keys: Sequence[str], counts: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """mIoU and AP of resamples."""
        column = {key: k for k, key in enumerate(keys)}
        values = _miou(self._counts, counts[:, [column[key] for key in self._counts]])
        for name, precision in self._seen():
            values |= dict(zip(_names(name), precision.resampled(keys, counts).T, strict=False))
        return values


def _only_boxes(value: Segmentation) -> bool:
    return value.objects is not None and value.objects.runs is None


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


def _without_crowds(true: Segmentation) -> Segmentation:
    """The truth of objects: pixels of groups that nobody took apart are ignored."""
    crowds = [instance.id for instance in true.instances if instance.crowd]
    if not crowds:
        return true
    of_crowds = np.isin(true.ids, crowds)
    ignored = of_crowds if true.ignored is None else of_crowds | true.ignored
    return replace(true, ids=np.where(of_crowds, 0, true.ids).astype(np.int32), ignored=ignored)


def _cut(predicted: Segmentation, true: Segmentation) -> Segmentation:
    """The prediction without what it says of pixels that the truth ignores."""
    if true.ignored is None:
        return predicted
    return Segmentation(np.where(true.ignored, 0, predicted.ids).astype(np.int32), predicted.instances)


def object_scores(overlap: Counts, predicted: Segmentation, true: Segmentation) -> tuple[float, float]:
    """J and F, each the mean over true objects (that have pixels) of the mean over frames; NaN without objects."""
    similarity, boundary = [], []
    for n, partner in enumerate(pair_objects(overlap)):
        if overlap[:, :, n + 1].sum() == 0:
            continue
        mask = true.ids == true.instances[n].id
        estimate = np.zeros_like(mask) if partner is None else predicted.ids == predicted.instances[partner].id
        similarity.append(float(region_similarity(estimate, mask).mean()))
        boundary.append(float(boundary_measure(estimate, mask).mean()))
    if not similarity:
        return math.nan, math.nan
    return float(np.mean(similarity)), float(np.mean(boundary))
