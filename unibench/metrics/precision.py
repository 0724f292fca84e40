"""Average precision by COCO's protocol, streamed: each class by itself, matched image by image, merged across workers.

`hotcoco` measures overlap and matches. What is kept of a detection is its image, its score and whether it was right at
each of the ten thresholds; the precision curve is drawn from that, for the whole set and for resamples of it (tests
hold both to `pycocotools` at 1e-12). COCO averages over the classes that have truth and matches each class by itself,
so a class at a time gives the same mean without a vocabulary that is known beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from unibench.metrics.base import Floats

Annotation = dict[str, Any]
"""A COCO annotation less its ids: `segmentation`, `bbox` or `keypoints`, `area`, `iscrowd`, for detections `score`.

A crowd, or a person with no labelled key point, is there to be ignored: what matches nothing else may match it, and
then counts neither way.
"""


class Precision(NamedTuple):
    """AP over IoU (or OKS) .5:.05:.95, at .5 and at .75; NaN where there is no truth."""

    ap: float
    ap50: float
    ap75: float


NO_PRECISION = Precision(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of the sample `key` (for tubes: all of it, as frame 0), one class: its truths and detections."""

    key: str
    frame: int
    height: int
    width: int
    label: str
    truths: Sequence[Annotation]
    detections: Sequence[Annotation]


ALL_AREAS = (0.0, 1e18)
"""No upper end: a pose with a missing joint, which lies far away, is a wrong detection all the same."""
COCO_AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_THRESHOLDS = 10
_IOUS = np.linspace(0.5, 0.95, _THRESHOLDS)
_RECALLS = np.linspace(0, 1, 101)
_FRAME_BITS = 14
_CELLS = 1 << 16
"""Resamples × detections that are looked at together: what fits a processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The matching of one class: D detections, and how many true instances each sample has.

    `images` `[D]` are the place of the sample's key in `keys`, then the frame (see `_image`). `outcomes` `[D, 10]` is 1
    where a detection is right at that threshold, 0 where it is wrong, −1 where COCO does not count it. `truths` are the
    true instances of each of `keys`.
    """

    keys: tuple[str, ...]
    images: npt.NDArray[np.int64]
    scores: Floats
    outcomes: npt.NDArray[np.int8]
    truths: tuple[int, ...]


class AveragePrecision:
    """Mean over classes of COCO's AP, at most 100 detections (20 poses) of a class in an image.

    `sigmas` are the key points' falloffs for OKS; without them masks, boxes or tubes are compared by IoU. Tubes are
    YouTube-VIS's: a detection on a crowd is compared with all of it, not by the share that lies inside. Of truth
    only `areas` counts, from and to these pixels. Keeps a few numbers for each instance, no masks.
    """

    def __init__(
        self,
        sigmas: Sequence[float] | None = None,
        *,
        compare: Literal["masks", "boxes", "tubes"] = "masks",
        areas: tuple[float, float] = ALL_AREAS,
    ) -> None:
        self.sigmas = None if sigmas is None else tuple(sigmas)
        self.compare = compare
        self.areas = areas
        self._matched: dict[str, list[Matches]] = {}

    @property
    def seen(self) -> bool:
        """Whether anything was added."""
        return bool(self._matched)

    def add(self, pictures: Sequence[Picture]) -> None:
        """Match detections with truths. A frame must be added once."""
        by_label: dict[str, list[Picture]] = {}
        for picture in pictures:
            if picture.truths or picture.detections:
                by_label.setdefault(picture.label, []).append(picture)
        for label, group in by_label.items():
            images: list[Annotation] = []
            truths: list[Annotation] = []
            detections: list[Annotation] = []
            true_instances = dict.fromkeys(sorted({picture.key for picture in group}), 0)
            place = {key: k for k, key in enumerate(true_instances)}
            for picture in group:
                image = _image(place[picture.key], picture)
                true_instances[picture.key] += sum(not self._ignored(truth) for truth in picture.truths)
                common = {"image_id": image, "category_id": 1}
                images.append({"id": image, "height": picture.height, "width": picture.width})
                for truth in picture.truths:
                    truths.append({"iscrowd": 0, **truth, **common, "id": len(truths) + 1})
                detections += [{**detection, **common} for detection in picture.detections]
            matches = Matches(tuple(place), *self._match(images, truths, detections), tuple(true_instances.values()))
            self._matched.setdefault(label, []).append(matches)

    def _ignored(self, truth: Annotation) -> bool:
        outside = self.areas != ALL_AREAS and not self.areas[0] <= truth["area"] <= self.areas[1]
        return bool(truth.get("iscrowd")) or outside or (self.sigmas is not None and not truth["num_keypoints"])

    def state(self) -> dict[str, list[dict[str, Any]]]:
        """The matches of each class."""
        return {
            label: [
                {
                    "keys": list(matches.keys),
                    "images": matches.images.tolist(),
                    "scores": matches.scores.tolist(),
                    "outcomes": ["".join(_SIGNS[o] for o in row) for row in matches.outcomes.tolist()],
                    "truths": list(matches.truths),
                }
                for matches in parts
            ]
            for label, parts in sorted(self._matched.items())
        }

    def merge(self, state: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Take in the `state()` of another one."""
        for label, parts in state.items():
            self._matched.setdefault(label, []).extend(_restored(part) for part in parts)

    def compute(self) -> Precision:
        """The mean over the classes that have truth; NaN where none has."""
        return Precision(*(float(column[0]) for column in self._mean(None).T))

    def resampled(self, keys: Sequence[str], counts: npt.NDArray[np.integer]) -> Floats:
        """AP, at .5 and at .75, of R resamples, `[R, 3]`. In the r-th, sample `keys[k]` counts `counts[r, k]` times.

        A sample's copies stand beside it where scores are equal. Classes without truth in a resample are left out of
        its mean; NaN where it has none.
        """
        return self._mean(({key: k for k, key in enumerate(keys)}, counts))

    def by_class(self) -> dict[str, Precision]:
        """AP of each class seen; NaN for a class that was only predicted."""
        return {
            label: Precision(*(float(value) for value in _curve(parts, None)[0]))
            for label, parts in sorted(self._matched.items())
        }

    def _mean(self, resamples: _Resamples | None) -> Floats:
        rows = 1 if resamples is None else len(resamples[1])
        classes = [_curve(parts, resamples) for _, parts in sorted(self._matched.items())]
        table = np.stack(classes) if classes else np.full((0, rows, 3), np.nan)
        there = ~np.isnan(table)
        count = there.sum(axis=0)
        total = np.where(there, table, 0).sum(axis=0)
        mean: Floats = np.divide(total, count, out=np.full((rows, 3), np.nan), where=count > 0)
        return mean

    def _match(
        self, images: list[Annotation], truths: list[Annotation], detections: list[Annotation]
    ) -> tuple[npt.NDArray[np.int64], Floats, npt.NDArray[np.int8]]:
        """Images, scores and outcomes of the detections that COCO looks at."""
        import hotcoco

        if not detections:
            return np.zeros(0, np.int64), np.zeros(0), np.zeros((0, _THRESHOLDS), np.int8)
        if self.compare == "tubes":
            return _match_tubes(images, truths, detections)
        kind: Literal["segm", "bbox", "keypoints"] = "segm" if self.compare == "masks" else "bbox"
        kind = kind if self.sigmas is None else "keypoints"
        truth = hotcoco.COCO({"images": images, "annotations": truths, "categories": [{"id": 1, "name": "one"}]})
        evaluation = hotcoco.COCOeval(truth, truth.load_res(detections), kind)
        params = evaluation.params
        if self.sigmas is not None:
            params.kpt_oks_sigmas = list(self.sigmas)
        params.area_rng, params.area_rng_lbl = [list(self.areas)], ["all"]
        params.max_dets = params.max_dets[-1:]
        evaluation.params = params
        evaluation.evaluate()
        matched = [image for image in evaluation.eval_imgs if image is not None and image["dtScores"]]
        seen = np.concatenate([np.full(len(image["dtScores"]), image["image_id"], np.int64) for image in matched])
        scores = np.concatenate([np.array(image["dtScores"], np.float64) for image in matched])
        right = np.concatenate([np.array(image["dtMatched"], bool).T for image in matched])
        ignored = np.concatenate([np.array(image["dtIgnore"], bool).T for image in matched])
        return seen, scores, np.where(ignored, -1, right).astype(np.int8)


def _match_tubes(
    images: list[Annotation], truths: list[Annotation], detections: list[Annotation]
) -> tuple[npt.NDArray[np.int64], Floats, npt.NDArray[np.int8]]:
    """The matching of YouTube-VIS (`ytvoseval.evaluateVid`), which differs from COCO's in what a crowd overlaps."""
    from hotcoco import mask

    seen, scores, outcomes = [], [], []
    for image in (row["id"] for row in images):
        theirs = [truth for truth in truths if truth["image_id"] == image]
        theirs.sort(key=lambda truth: bool(truth["iscrowd"]))  # what is to be ignored comes last
        mine = [detection for detection in detections if detection["image_id"] == image]
        mine = sorted(mine, key=lambda detection: -detection["score"])[:_MOST_TUBES]
        if not mine:
            continue
        overlap = np.zeros((len(mine), len(theirs)))
        if theirs:
            tubes = [row["segmentation"] for row in mine], [row["segmentation"] for row in theirs]
            overlap = np.asarray(mask.iou(tubes[0], tubes[1], [False] * len(theirs))).reshape(overlap.shape)
        crowd = [bool(truth["iscrowd"]) for truth in theirs]
        outcomes.append(np.stack([_greedy(overlap, crowd, threshold) for threshold in _IOUS], axis=1))
        seen += [image] * len(mine)
        scores += [float(detection["score"]) for detection in mine]
    return np.array(seen, np.int64), np.array(scores), np.concatenate(outcomes)


_MOST_TUBES = 100


def _greedy(overlap: Floats, crowd: Sequence[bool], threshold: float) -> npt.NDArray[np.int8]:
    """The outcome of each detection, best first: it takes the free truth that it overlaps most, a crowd only where it
    takes no other; crowds stay free."""
    taken = [False] * len(crowd)
    outcomes = np.zeros(len(overlap), np.int8)
    for d, row in enumerate(overlap.tolist()):
        best, match = min(threshold, 1 - 1e-10), -1
        for g, similarity in enumerate(row):
            if taken[g] and not crowd[g]:
                continue
            if match >= 0 and not crowd[match] and crowd[g]:
                break
            if similarity >= best:
                best, match = similarity, g
        if match >= 0:
            taken[match] = True
            outcomes[d] = -1 if crowd[match] else 1
    return outcomes


_SIGNS = {0: "0", 1: "1", -1: "-"}
_Resamples = tuple[Mapping[str, int], npt.NDArray[np.integer]]
"""The column of each sample, and how often it counts, `[R, samples]`."""


def _restored(part: Mapping[str, Any]) -> Matches:
    back = {sign: outcome for outcome, sign in _SIGNS.items()}
    outcomes = [[back[sign] for sign in row] for row in part["outcomes"]]
    return Matches(
        tuple(part["keys"]),
        np.array(part["images"], np.int64),
        np.array(part["scores"], np.float64),
        np.array(outcomes, np.int8).reshape(-1, _THRESHOLDS),
        tuple(part["truths"]),
    )


def _curve(parts: Sequence[Matches], resamples: _Resamples | None) -> Floats:
    """AP of one class over .5:.05:.95, at .5 and at .75, `[R, 3]`; NaN where there is no truth."""
    truths = dict.fromkeys(sorted({key for part in parts for key in part.keys}), 0)
    for part in parts:
        for key, count in zip(part.keys, part.truths, strict=True):
            truths[key] += count
    columns, counts = resamples or ({key: k for k, key in enumerate(truths)}, np.ones((1, len(truths)), np.int64))
    column = np.array([columns[key] for key in truths])
    positives = counts[:, column] @ np.array(list(truths.values()), np.int64)
    place = {key: k for k, key in enumerate(truths)}
    places = [np.array([place[key] for key in part.keys])[part.images >> _FRAME_BITS] for part in parts]
    scores = np.concatenate([part.scores for part in parts])
    frames = np.concatenate([part.images for part in parts]) & ((1 << _FRAME_BITS) - 1)
    # COCO sorts by falling score and, where scores are equal, by image; within an image the order is the matching's.
    order = np.lexsort((frames, np.concatenate(places), -scores))
    outcomes = np.concatenate([part.outcomes for part in parts])[order]
    sample = column[np.concatenate(places)[order]]
    right = [np.flatnonzero(outcomes[:, t] == 1) for t in range(_THRESHOLDS)]
    ignored = [np.flatnonzero(outcomes[:, t] < 0) for t in range(_THRESHOLDS)]  # on crowds, or of other areas
    result = np.full((len(counts), 3), np.nan)
    step = max(1, _CELLS // max(1, len(sample)))
    for start in range(0, len(counts), step):
        rows = slice(start, start + step)
        weights = counts[rows][:, sample].astype(np.float64)
        detected = np.cumsum(weights, axis=1)
        by_threshold = np.empty((len(weights), _THRESHOLDS))
        for t in range(_THRESHOLDS):
            counted = detected
            if ignored[t].size:
                counted = weights.copy()
                counted[:, ignored[t]] = 0
                np.cumsum(counted, axis=1, out=counted)
            correct = np.cumsum(weights[:, right[t]], axis=1)
            by_threshold[:, t] = _average(correct, counted[:, right[t]], positives[rows])
        result[rows] = np.stack([by_threshold.mean(axis=1), by_threshold[:, 0], by_threshold[:, 5]], axis=1)
    return result


def _average(correct: Floats, detected: Floats, positives: npt.NDArray[np.integer]) -> Floats:
    """Mean over 101 recalls of the largest precision at that recall or beyond it, `[R]`; NaN where nothing is true.

    `correct` and `detected` `[R, N]` count right and all detections down to each of the N right ones, best first: only
    there recall grows, so only there precision matters.
    """
    precision = correct / (detected + np.spacing(1))
    # One more column: a recall that is never reached has precision 0.
    envelope = np.zeros((len(correct), correct.shape[1] + 1))
    envelope[:, :-1] = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    average = np.full(len(correct), np.nan)
    for row in np.flatnonzero(positives):
        reached = np.searchsorted(correct[row] / positives[row], _RECALLS)
        average[row] = envelope[row, reached].mean()
    return average


def _image(place: int, picture: Picture) -> int:
    """COCO's id of a picture: among equal scores it ranks by keys, then by frames, as a table's ids would."""
    if not 0 <= picture.frame < 1 << _FRAME_BITS:
        raise InvalidAnnotationError(
            f"{picture.key}: frame {picture.frame}; scores are defined for clips of at most 16384 frames"
        )
    return (place << _FRAME_BITS) + picture.frame
