"""A benchmark that doubts itself and its users: storage, a ladder of corruptions, and conventions that were mistaken.

- `storage`: exact truth scored against the same truth as it is stored must be perfect to the stored precision.
- `ladder`: known corruptions of growing strength must worsen the score at every step.
- `diagnose`: would the predictions be much better if a known mistake (flipped sign, swapped axes, centimetres, radial
  depth, one frame off, left for right, …) were undone? Then it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np

from openuni.errors import OpenUniError
from openuni.modalities import geometry
from openuni.modalities import get as modality
from openuni.modalities.densepose import DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Segmentation
from openuni.modalities.skeleton import LAYOUTS, Skeleton
from unibench.metrics.depth import MAX_DEPTH, Alignment, fit, valid_truth
from unibench.scoring.protocol import Protocol
from unibench.scoring.runs import COLUMN_OF
from unibench.scoring.samples import score_values

_JUDGED_BY: Mapping[str, tuple[str, int]] = {
    "depth": ("disparity/absrel", -1),
    "flow": ("epe", -1),
    "segmentation": ("jf", 1),
    "skeleton": ("pck_bbox@0.1", 1),
    "densepose": ("part_accuracy", 1),
}
"""The column that judges, and +1 where more is better."""


def _judge(task: str, found: Any, true: Any, column: str | None = None) -> float:
    """An error of at least 0, less is better; NaN where it is undefined."""
    name, sign = _JUDGED_BY[task]
    alignment = cast(Alignment, (column or name).split("/")[0]) if task == "depth" else "disparity"
    protocol = Protocol((task,), truth="", keys="", max_depth=MAX_DEPTH, alignments=(alignment,))
    value = score_values(task, "doctor", found, true, protocol).get(column or name, float("nan"))
    return value if sign < 0 else 1 - value


# ── storage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StorageCheck:
    """The error of stored truth against exact truth, and the most that its precision allows."""

    task: str
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.error <= self.bound


def storage(task: str, true: Any) -> StorageCheck:
    """Encode as predictions are stored (not `exact`), decode, and score against the value itself.

    Depth is judged without alignment: its stored step of disparity bounds AbsRel. Flow's step is 1/16 px (of very fast
    clips more, by powers of two): half its diagonal. Ids, joints and charts are stored without loss.
    """
    kind = modality(COLUMN_OF[task])
    stored = kind.decode(kind.encode(replace(true, exact=False) if hasattr(true, "exact") else true))
    if task == "depth":
        disparity = 1 / true.values[np.isfinite(true.values)].astype(np.float64)
        step = (disparity.max() - disparity.min()) / 65534 if disparity.size else 0.0
        # z·½step is the first order of the relative error; float32 adds its own.
        bound = 0.5 * step * min(float(1 / disparity.min()), MAX_DEPTH) * 1.01 + 1e-6 if disparity.size else 0.0
        return StorageCheck(task, _judge(task, stored, true, "metric/absrel"), bound)
    if task == "flow":
        longest = float(np.nanmax(np.abs(true.forward), initial=0))
        step = 1 / 16
        while longest > step * 32767:
            step *= 2
        return StorageCheck(task, _judge(task, stored, true), step / 2 * 2**0.5 + 1e-6)
    return StorageCheck(task, _judge(task, stored, true), 1e-12)


# ── the ladder ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Ladder:
    """The errors after each step of one corruption, weakest first; `steps` says how strong each was."""

    task: str
    corruption: str
    steps: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def ok(self) -> bool:
        """Whether the error grows at every step."""
        return all(a < b for a, b in zip(self.errors[:-1], self.errors[1:], strict=True))


def ladders(task: str, true: Any, seed: int = 0) -> Iterator[Ladder]:
    """Every corruption of this task's truth, scored at every strength."""
    for corruption, (steps, corrupt) in CORRUPTIONS[task].items():
        errors = [_judge(task, corrupt(true, step, np.random.default_rng(seed)), true) for step in (0.0, *steps)]
        yield Ladder(task, corruption, (0.0, *steps), tuple(errors))


def _noisy_depth(true: Depth, strength: float, rng: np.random.Generator) -> Depth:
    return replace(
        true, values=true.values * np.exp(strength * rng.standard_normal(true.values.shape)).astype(np.float32)
    )


def _blurred_depth(true: Depth, strength: float, rng: np.random.Generator) -> Depth:
    del rng
    if strength == 0:
        return true
    filled = np.where(np.isfinite(true.values), true.values, np.float32(MAX_DEPTH))
    return replace(true, values=np.stack([cv2.GaussianBlur(f, (0, 0), strength) for f in filled]))


def _noisy_flow(true: Flow, strength: float, rng: np.random.Generator) -> Flow:
    noise = strength * rng.standard_normal(true.forward.shape)
    return Flow(true.forward + noise.astype(np.float32), true.occluded)


def _scaled_flow(true: Flow, strength: float, rng: np.random.Generator) -> Flow:
    del rng
    return Flow(true.forward * np.float32(1 + strength), true.occluded)


def _shifted_ids(true: Segmentation, strength: float, rng: np.random.Generator) -> Segmentation:
    del rng
    return replace(true, ids=np.roll(true.ids, int(strength), axis=2))


def _lost_ids(true: Segmentation, strength: float, rng: np.random.Generator) -> Segmentation:
    kept = rng.random(true.ids.shape) >= strength
    return replace(true, ids=np.where(kept, true.ids, 0).astype(np.int32))


def _noisy_joints(true: Skeleton, strength: float, rng: np.random.Generator) -> Skeleton:
    boxes = true.boxes[..., 2:] - true.boxes[..., :2]
    size = np.nan_to_num(boxes.max(axis=-1), nan=0.0)[..., None, None]
    points = true.keypoints.copy()
    points[..., :2] += strength * size * rng.standard_normal(points[..., :2].shape).astype(np.float32)
    return replace(true, keypoints=points)


def _lost_joints(true: Skeleton, strength: float, rng: np.random.Generator) -> Skeleton:
    points = true.keypoints.copy()
    points[rng.random(points.shape[:3]) < strength] = (np.nan, np.nan, 0)
    return replace(true, keypoints=points)


def _mistaken_parts(true: DensePose, strength: float, rng: np.random.Generator) -> DensePose:
    values = true.values.copy()
    wrong = (rng.random(values.shape[:3]) < strength) & (values[..., 0] > 0)
    values[wrong, 0] = values[wrong, 0] % 24 + 1
    return replace(true, values=values)


def _shifted_parts(true: DensePose, strength: float, rng: np.random.Generator) -> DensePose:
    del rng
    return replace(true, values=np.roll(true.values, int(strength), axis=2))


Corruption = tuple[tuple[float, ...], Callable[[Any, float, np.random.Generator], Any]]
CORRUPTIONS: Mapping[str, Mapping[str, Corruption]] = {
    "depth": {"noise": ((0.02, 0.05, 0.1, 0.2), _noisy_depth), "blur": ((1, 2, 4, 8), _blurred_depth)},
    "flow": {"noise": ((0.1, 0.5, 2, 8), _noisy_flow), "scale": ((0.02, 0.1, 0.5, 1), _scaled_flow)},
    "segmentation": {"shift": ((1, 2, 4, 8), _shifted_ids), "holes": ((0.02, 0.1, 0.3, 0.6), _lost_ids)},
    "skeleton": {"noise": ((0.05, 0.1, 0.2, 0.4), _noisy_joints), "lost": ((0.1, 0.3, 0.6, 0.9), _lost_joints)},
    "densepose": {"mistaken": ((0.05, 0.1, 0.3, 0.6), _mistaken_parts), "shift": ((1, 2, 4, 8), _shifted_parts)},
}
"""Of every task, corruptions by name: four strengths, weakest first, and how to corrupt a true value with one."""


# ── mistaken conventions ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake that, undone, would bring the error from `before` to `after` (medians over `samples` samples)."""

    task: str
    mistake: str
    column: str
    before: float
    after: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.task}: {self.mistake}? Undoing it would bring {self.column} from {self.before:.3g} "
            f"to {self.after:.3g} (median of {self.samples} samples)"
        )


@dataclass(frozen=True, slots=True)
class _Mistake:
    """What might be wrong, and how to undo it (None: not possible for this value). `gain` is the least it must help."""

    name: str
    undo: Callable[[Any], Any | None]
    column: str | None = None
    gain: float = 0.6


def diagnose(task: str, pairs: Sequence[tuple[Any, Any]]) -> Finding | None:
    """The mistake whose undoing helps most over (prediction, truth) pairs of one size, or None.

    It must lower the median error to `gain` of what it was, and help in four of five samples. The frame that a shifted
    clip lacks at one end is left out of what it is compared with as well.
    """
    best: Finding | None = None
    for mistake in _MISTAKES[task]:
        before, after = [], []
        for found, true in pairs:
            try:
                tried = _try(task, mistake, found, true)
            except OpenUniError:
                continue  # undone, the value is no value of this task: then this was not the mistake
            if tried is not None and np.isfinite(tried).all():
                before.append(tried[0])
                after.append(tried[1])
        if not before or np.median(before) <= 0:
            continue
        helped = np.mean(np.array(after) < np.array(before))
        if helped < 0.8 or np.median(after) > mistake.gain * np.median(before):
            continue
        column = mistake.column or _JUDGED_BY[task][0]
        if best is None or np.median(after) / np.median(before) < best.after / best.before:
            best = Finding(task, mistake.name, column, float(np.median(before)), float(np.median(after)), len(before))
    if best is None:
        return _turned_around(pairs) if task == "depth" else None
    if _JUDGED_BY[task][1] > 0:
        return replace(best, before=1 - best.before, after=1 - best.after)
    return best


def _turned_around(pairs: Sequence[tuple[Depth, Depth]]) -> Finding | None:
    """Near and far exchanged: no score shows it, because least squares just fits a negative scale."""
    fits = [fit(found, true.values, valid_truth(true.values), "disparity") for found, true in pairs]
    turned = [fitted is not None and fitted.scale < 0 for fitted in fits]
    if not turned or np.mean(turned) < 0.8:
        return None
    median = float(np.median([_judge("depth", found, true) for found, true in pairs]))
    mistake = "near and far are exchanged (the alignment fits a negative scale)"
    return Finding("depth", mistake, "disparity/absrel", median, median, len(pairs))


def _try(task: str, mistake: _Mistake, found: Any, true: Any) -> tuple[float, float] | None:
    """The error as it is and with the mistake undone, over the same frames."""
    undone = mistake.undo(found)
    if undone is None:
        return None
    if isinstance(undone, _Late):
        here, there = _frames(task, true), undone.by
        window, moved = slice(max(there, 0), here + min(there, 0)), slice(max(-there, 0), here - max(there, 0))
        if window.stop - window.start < 2:
            return None
        kind = modality(task)
        true_part = kind.take(true, window)
        as_is = _judge(task, kind.take(found, window), true_part, mistake.column)
        return as_is, _judge(task, kind.take(found, moved), true_part, mistake.column)
    return _judge(task, found, true, mistake.column), _judge(task, undone, true, mistake.column)


def _frames(task: str, value: Any) -> int:
    return modality(task).shape(value)[0]


@dataclass(frozen=True, slots=True)
class _Late:
    """Stands for the prediction whose frame t says what was true of frame t + `by`."""

    by: int


def _shifts(column: str | None = None) -> tuple[_Mistake, ...]:
    return (
        _Mistake("the prediction is one frame late", lambda _: _Late(-1), column, gain=0.8),
        _Mistake("the prediction is one frame early", lambda _: _Late(1), column, gain=0.8),
    )


def _mirror_of(task: str) -> _Mistake:
    return _Mistake("the prediction is mirrored left to right", lambda value: modality(task).flip(value))


def _flow_with(change: Callable[[Any], Any]) -> Callable[[Flow], Flow]:
    return lambda flow: Flow(change(flow.forward), flow.occluded)


def _vector(x: float, y: float) -> Any:
    return np.array([x, y], np.float32)


def _depth_with(change: Callable[[Any], Any], kind: str) -> Callable[[Depth], Depth | None]:
    def undo(depth: Depth) -> Depth | None:
        if depth.kind != kind:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            return replace(depth, values=np.asarray(change(depth.values), dtype=np.float32))

    return undo


def _inverse(depth: Depth) -> Depth:
    """Depth for disparity, or disparity for depth."""
    return Depth(depth.values, "relative" if depth.kind == "affine_disparity" else "affine_disparity")


def _planar(focal: float) -> Callable[[Depth], Depth | None]:
    """Distance along the ray → along the axis, for a focal length in widths of the frame."""

    def undo(depth: Depth) -> Depth | None:
        if depth.kind == "affine_disparity":
            return None
        _, height, width = depth.values.shape
        y, x = np.mgrid[0:height, 0:width]
        ray = np.stack([(x + 0.5 - width / 2), (y + 0.5 - height / 2)]) / (focal * width)
        return replace(depth, values=(depth.values / np.sqrt(1 + (ray**2).sum(axis=0))).astype(np.float32))

    return undo


def _swap_sides(skeleton: Skeleton) -> Skeleton:
    return replace(skeleton, keypoints=skeleton.keypoints[:, :, LAYOUTS[skeleton.layout].mirrored])


def _swap_axes(skeleton: Skeleton) -> Skeleton:
    return replace(skeleton, keypoints=skeleton.keypoints[..., [1, 0, 2]], boxes=skeleton.boxes[..., [1, 0, 3, 2]])


def _to_pixels(skeleton: Skeleton) -> Skeleton:
    size = np.array([skeleton.width, skeleton.height], np.float32)
    points = skeleton.keypoints.copy()
    points[..., :2] *= size
    return replace(skeleton, keypoints=points, boxes=skeleton.boxes * np.tile(size, 2))


_OTHER_SIDE = np.array(
    [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23], np.uint8
)
"""DensePose's part on the other side of the body."""


def _other_parts(pose: DensePose) -> DensePose:
    values = pose.values.copy()
    values[..., 0] = _OTHER_SIDE[np.minimum(values[..., 0], 24)]
    return replace(pose, values=values)


def _transposed(value: Segmentation) -> Segmentation | None:
    _, height, width = value.ids.shape
    return replace(value, ids=np.ascontiguousarray(value.ids.transpose(0, 2, 1))) if height == width else None


_MISTAKES: Mapping[str, tuple[_Mistake, ...]] = {
    "depth": (
        _Mistake("depth was given as disparity, or disparity as depth", _inverse),
        _Mistake("the depth is in centimetres", _depth_with(lambda v: v / 100, "metric"), "metric/absrel", 0.2),
        _Mistake("the depth is in millimetres", _depth_with(lambda v: v / 1000, "metric"), "metric/absrel", 0.2),
        *(
            _Mistake(
                f"the depth is radial (along the ray) where planar is meant, for a focal length of {focal:g} widths",
                _planar(focal),
                # A shift of disparity would hide most of it; a scale alone leaves centre and corners apart.
                "scale/absrel",
                gain=0.8,
            )
            for focal in (0.5, 0.6, 0.7, 0.85, 1, 1.2, 1.5, 2)
        ),
        _mirror_of("depth"),
        *_shifts(),
    ),
    "flow": (
        _Mistake("the flow has the opposite sign (backward where forward is meant)", _flow_with(np.negative)),
        _Mistake("rows and columns are swapped (v, u where u, v is meant)", _flow_with(lambda f: f[..., ::-1])),
        _Mistake("y points up where down is meant", _flow_with(lambda f: f * _vector(1, -1))),
        _Mistake("x points left where right is meant", _flow_with(lambda f: f * _vector(-1, 1))),
        _Mistake(
            "the flow is in widths and heights where pixels are meant",
            _flow_with(lambda f: f * _vector(f.shape[2], f.shape[1])),
        ),
        _Mistake(
            "the flow is in half widths and heights (−1…1) where pixels are meant",
            _flow_with(lambda f: f * _vector(f.shape[2], f.shape[1]) / 2),
        ),
        _mirror_of("flow"),
        *_shifts(),
    ),
    "segmentation": (
        _mirror_of("segmentation"),
        _Mistake("rows and columns are swapped", _transposed),
        *_shifts(),
    ),
    "skeleton": (
        _Mistake("left and right joints are swapped (sides are the person's own)", _swap_sides),
        _Mistake("rows and columns are swapped (y, x where x, y is meant)", _swap_axes),
        _Mistake("joints are in widths and heights (0…1) where pixels are meant", _to_pixels),
        _mirror_of("skeleton"),
        # A step of a walk is far within PCK's tenth of a box; AP's strict thresholds see it.
        *_shifts("oks_ap_video"),
    ),
    "densepose": (
        _Mistake("left and right parts are swapped (sides are the person's own)", _other_parts),
        _Mistake("the pictures are mirrored left to right", lambda v: replace(v, values=geometry.mirror(v.values))),
        *_shifts(),
    ),
}
