"""Key points of people: OKS average precision and PCK with its norm named.

Layouts are joined by the names of their joints: the points that both have are compared, in the truth's order, and a
sample says how many that were. OKS (COCO) = mean over true points of exp(−d² / (2·area·(2σ)²)); the area is the
truth's, of its mask where it has one, else of its box. PCK is the share of true points whose prediction lies within a
fraction of the norm: `bbox` the longer side of the true box, `torso` left shoulder to right hip, `head` upper neck to
top of the head (MPII's; COCO's 17 joints have neither). For PCK people are paired one to one in each frame by the
largest sum of OKS; the points of a person without a partner count as missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.skeleton import LAYOUTS, Skeleton
from unibench.metrics.base import UNDEFINED, Bools, Column, Floats, Metric, Score, Scores
from unibench.metrics.precision import AveragePrecision, Picture

SIGMAS: dict[str, float] = {
    "nose": 0.026,
    "left_eye": 0.025,
    "right_eye": 0.025,
    "left_ear": 0.035,
    "right_ear": 0.035,
    "left_shoulder": 0.079,
    "right_shoulder": 0.079,
    "left_elbow": 0.072,
    "right_elbow": 0.072,
    "left_wrist": 0.062,
    "right_wrist": 0.062,
    "left_hip": 0.107,
    "right_hip": 0.107,
    "left_knee": 0.087,
    "right_knee": 0.087,
    "left_ankle": 0.089,
    "right_ankle": 0.089,
}
"""COCO's falloffs σ of its 17 joints; joints outside this list are left out of OKS."""
PCK_FRACTIONS = (0.05, 0.1, 0.2)
NORMS = ("bbox", "torso", "head")
_ENDS = {"torso": ("left_shoulder", "right_hip"), "head": ("upper_neck", "head_top")}


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """Up to P people in T frames: `points` `[T, P, K, 3]` x, y in pixels and a score (≤ 0 or NaN: no such point).

    `boxes` `[T, P, 4]` x0, y0, x1, y1, NaN where a person is not in a frame. `areas` `[T, P]` are of masks, in pixels.
    `crowds` `[P]` are groups; `scores` `[T, P]` rank people by more than the mean of their points' scores.
    """

    joints: tuple[str, ...]
    points: npt.NDArray[np.floating]
    boxes: npt.NDArray[np.floating]
    areas: npt.NDArray[np.floating] | None = None
    crowds: Bools | None = None
    scores: npt.NDArray[np.floating] | None = None

    @staticmethod
    def of(skeleton: Skeleton) -> Poses:
        """The people of a skeleton by their bodies: feet, faces and hands are not scored."""
        s = skeleton.body
        return Poses(LAYOUTS[s.layout].joints, s.keypoints, s.boxes, s.areas, s.crowds, s.scores)

    def present(self) -> Bools:
        """Who is in which frame, `[T, P]`: one person who has a point."""
        return np.asarray(self.labelled().any(axis=-1) & ~self.grouped())

    def grouped(self) -> Bools:
        """Which of the P are crowds."""
        return np.zeros(self.points.shape[1], np.bool_) if self.crowds is None else self.crowds

    def ranks(self) -> Floats:
        """The score `[T, P]` by which people are ranked: their own, else the mean of their points'."""
        has = self.labelled()
        total = np.where(has, self.points[..., 2], 0).sum(axis=-1, dtype=np.float64)
        mean: Floats = total / np.maximum(has.sum(axis=-1), 1)
        return mean if self.scores is None else np.where(np.isnan(self.scores), mean, self.scores).astype(np.float64)

    def labelled(self) -> Bools:
        """Which points there are, `[T, P, K]`."""
        with np.errstate(invalid="ignore"):
            has: Bools = (self.points[..., 2] > 0) & np.isfinite(self.points).all(axis=-1)
        return has


def select_joints(people: Poses, joints: tuple[str, ...]) -> Poses:
    """The same people with these joints only, in this order."""
    columns = [people.joints.index(joint) for joint in joints]
    return replace(people, joints=joints, points=people.points[:, :, columns])


def true_areas(people: Poses) -> Floats:
    """`[T, P]`, of masks where they are known, else of boxes."""
    sides = np.maximum(people.boxes[..., 2:] - people.boxes[..., :2], 0).astype(np.float64)
    box: Floats = sides[..., 0] * sides[..., 1]
    return box if people.areas is None else np.where(np.isfinite(people.areas), people.areas, box).astype(np.float64)


def object_keypoint_similarity(
    predicted: npt.NDArray[np.floating], true: npt.NDArray[np.floating], labelled: Bools, area: float, sigmas: Floats
) -> float:
    """COCO's OKS of one pair: points `[K, 2]`, true points that count `[K]`, area in pixels; NaN where none counts.

    A predicted point that is not finite is infinitely far.
    """
    if not labelled.any():
        return math.nan
    square = ((predicted[labelled].astype(np.float64) - true[labelled]) ** 2).sum(axis=-1)
    square = np.where(np.isfinite(square), square, np.inf)
    scale = 2 * (area + np.spacing(1)) * (2 * sigmas[labelled]) ** 2
    return float(np.exp(-square / scale).mean())


def norms(people: Poses) -> dict[str, Floats]:
    """The length in pixels `[T, P]` of each norm; NaN where its ends are not known."""
    points = np.where(people.labelled()[..., None], people.points[..., :2], np.nan).astype(np.float64)
    sides = (people.boxes[..., 2:] - people.boxes[..., :2]).astype(np.float64)
    lengths: dict[str, Floats] = {"bbox": sides.max(axis=-1)}
    for norm, (a, b) in _ENDS.items():
        if a in people.joints and b in people.joints:
            lengths[norm] = np.linalg.norm(
                points[:, :, people.joints.index(a)] - points[:, :, people.joints.index(b)], axis=-1
            )
        else:
            lengths[norm] = np.full(points.shape[:2], np.nan)
    return {norm: np.where(length > 0, length, np.nan) for norm, length in lengths.items()}


def pair_people(predicted: Poses, true: Poses) -> npt.NDArray[np.int64]:
    """For each frame and true person `[T, P]` the predicted person paired with it, or −1: one to one, largest ΣOKS."""
    from hotcoco import primitives

    sigmas = np.array([SIGMAS.get(joint, np.mean(list(SIGMAS.values()))) for joint in true.joints])
    labelled, areas = true.labelled(), true_areas(true)
    pairs = np.full(labelled.shape[:2], -1, dtype=np.int64)
    found_present, true_present = predicted.present(), true.present()
    for t in range(len(pairs)):
        mine, theirs = np.flatnonzero(found_present[t]), np.flatnonzero(true_present[t])
        if not mine.size or not theirs.size:
            continue
        similarity = np.array(
            [
                [
                    object_keypoint_similarity(
                        predicted.points[t, p, :, :2], true.points[t, n, :, :2], labelled[t, n], areas[t, n], sigmas
                    )
                    for n in theirs
                ]
                for p in mine
            ]
        )
        for row, column in zip(*primitives.lsap(similarity, maximize=True), strict=True):
            pairs[t, theirs[column]] = mine[row]
    return pairs


def correct_points(predicted: Poses, true: Poses) -> dict[tuple[str, float], tuple[int, int]]:
    """PCK's counts by norm and fraction: points within, and points that count (true, with a norm)."""
    pairs = pair_people(predicted, true)
    if predicted.points.shape[1] == 0:
        predicted = Poses(predicted.joints, np.zeros_like(true.points), true.boxes)  # nobody, but someone to look up
    points = np.take_along_axis(predicted.points, np.maximum(pairs, 0)[..., None, None], axis=1)
    has = np.take_along_axis(predicted.labelled(), np.maximum(pairs, 0)[..., None], axis=1)
    distance = np.linalg.norm(points[..., :2].astype(np.float64) - true.points[..., :2], axis=-1)
    distance[(pairs < 0)[..., None] | ~has] = np.inf
    counts = {}
    for norm, length in norms(true).items():
        counted = true.labelled() & (np.isfinite(length) & ~true.grouped())[..., None]
        for fraction in PCK_FRACTIONS:
            with np.errstate(invalid="ignore"):
                within = counted & (distance <= fraction * length[..., None])
            counts[norm, fraction] = int(np.count_nonzero(within)), int(np.count_nonzero(counted))
    return counts


def pictures(key: str, predicted: Poses, true: Poses, height: int, width: int) -> list[Picture]:
    """The frames of a clip for `AveragePrecision`; a true person without a point is there by its box, as in COCO."""
    frames = []
    areas, boxes, crowds = true_areas(true), true.boxes.astype(np.float64), true.grouped()
    labelled, detected, ranks = true.labelled(), predicted.labelled(), predicted.ranks()
    for t in range(len(true.points)):
        there = [
            {
                "keypoints": _flat(true.points[t, n], 2.0 * labelled[t, n]),
                "num_keypoints": int(labelled[t, n].sum()),
                "area": float(areas[t, n]),
                "bbox": [*boxes[t, n, :2].tolist(), *(boxes[t, n, 2:] - boxes[t, n, :2]).tolist()],
                "iscrowd": int(crowds[n]),
            }
            for n in np.flatnonzero(labelled[t].any(axis=-1) | np.isfinite(boxes[t]).all(axis=-1))
        ]
        mine = [
            {
                "keypoints": _flat(predicted.points[t, p], np.ones(len(predicted.joints)), missing=~detected[t, p]),
                "score": float(ranks[t, p]),
            }
            for p in np.flatnonzero(detected[t].any(axis=-1))
        ]
        frames.append(Picture(key, t, height, width, "person", there, mine))
    return frames


def _flat(points: npt.NDArray[np.floating], flags: npt.NDArray[Any], missing: Bools | None = None) -> list[float]:
    """COCO's flat x, y, flag, pixel centres at whole numbers (it compares points with boxes, which have no such shift).
    A missing point goes far away, where OKS is 0; an unlabelled true one to the corner."""
    xy = points[:, :2].astype(np.float64) - 0.5
    xy[~np.isfinite(xy).all(axis=-1)] = 0
    if missing is not None:
        xy[missing] = -1e6
    flat: list[float] = np.concatenate([xy, flags[:, None]], axis=1).ravel().tolist()
    return flat


def _columns() -> tuple[Column, ...]:
    columns = [
        Column("oks_ap", "higher", "", "COCO key point AP (OKS .5:.05:.95) over all frames"),
        Column("oks_ap50", "higher", "", "the same at OKS .5"),
        Column("oks_ap75", "higher", "", "the same at OKS .75"),
        Column("oks_ap_video", "higher", "", "AP of each video by itself, mean over videos"),
    ]
    for norm in NORMS:
        for fraction in PCK_FRACTIONS:
            what = f"share of true points within {fraction:g} of the norm ({norm}); pooled over points"
            columns.append(Column(f"pck_{norm}@{fraction:g}", "higher", "", what))
    return (*columns, Column("joints", "neither", "", "joints that both layouts have"))


class SkeletonMetric(Metric[Poses, Poses]):
    """OKS-AP and PCK. AP uses the shared joints that COCO has a falloff for, PCK all shared joints."""

    task: ClassVar[str] = "skeleton"
    columns: ClassVar[tuple[Column, ...]] = _columns()
    primary: ClassVar[str] = "oks_ap_video"

    def __init__(self) -> None:
        self._precision: dict[tuple[str, ...], AveragePrecision] = {}

    def update(self, key: str, prediction: Poses, truth: Poses) -> Scores:
        """Score one clip. Raises InvalidAnnotationError where the frames differ or no joint is shared."""
        if len(prediction.points) != len(truth.points):
            raise InvalidAnnotationError(
                f"{key}: skeleton predicted for {len(prediction.points)} frames, true for {len(truth.points)}"
            )
        shared = tuple(joint for joint in truth.joints if joint in prediction.joints)
        if not shared:
            raise InvalidAnnotationError(f"{key}: the skeleton layouts share no joint name: {prediction.joints[:5]}…")
        scores: dict[str, Score] = {column.name: UNDEFINED for column in self.columns}
        scores["joints"] = Score(len(shared))
        counts = correct_points(select_joints(prediction, shared), select_joints(truth, shared))
        for (norm, fraction), (within, total) in counts.items():
            if total:
                scores[f"pck_{norm}@{fraction:g}"] = Score(within / total, total)
        coco = tuple(joint for joint in shared if joint in SIGMAS)
        if coco:
            alone = AveragePrecision([SIGMAS[joint] for joint in coco])
            # OKS does not depend on the size of the image.
            alone.add(pictures(key, select_joints(prediction, coco), select_joints(truth, coco), 1, 1))
            ap = alone.compute().ap
            scores["oks_ap_video"] = UNDEFINED if math.isnan(ap) else Score(ap)
            self._of(coco).merge(alone.state())
        return scores

    def state(self) -> dict[str, Any]:
        """The matches, by the joints that were compared."""
        return {" ".join(joints): precision.state() for joints, precision in self._precision.items()}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of another one."""
        for joints, precision in state.items():
            self._of(tuple(joints.split())).merge(precision)

    def compute(self) -> dict[str, float]:
        """AP over the whole set. Raises InvalidAnnotationError where samples shared different joints."""
        if len(self._precision) > 1:
            raise InvalidAnnotationError("skeleton: samples of one run have different layouts; score them apart")
        for precision in self._precision.values():
            ap, ap50, ap75 = precision.compute()
            return {"oks_ap": ap, "oks_ap50": ap50, "oks_ap75": ap75}
        return {"oks_ap": math.nan, "oks_ap50": math.nan, "oks_ap75": math.nan}

    def resampled(self, keys: Sequence[str], counts: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """AP of resamples."""
        for precision in self._precision.values():
            return dict(zip(("oks_ap", "oks_ap50", "oks_ap75"), precision.resampled(keys, counts).T, strict=True))
        return {}

    def _of(self, joints: tuple[str, ...]) -> AveragePrecision:
        return self._precision.setdefault(joints, AveragePrecision([SIGMAS[joint] for joint in joints]))
