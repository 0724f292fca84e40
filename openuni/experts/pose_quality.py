"""How good a person's pose is, from what can be seen without the truth: the confidence of light skeletons.

Four signals of 0 to 1 a person and frame, each such that more is better, joined by a logistic curve as those of masks
are (`mask_quality`), times the belief that it is a person and how far it is a whole one. The weights are fitted on
rendered crowds and walkers, of whom it is firmly believed (`benchmarks/crowd_confidence.py --crowds`).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from openuni.experts import tracking
from openuni.experts.mask_quality import LIMBS, logistic
from openuni.experts.people import TrackedPeople

Floats = npt.NDArray[np.float64]

SIGNALS = ("fills the box", "limbs in sight", "in the mask", "steady")
"""Overlap of the landmarks' bounds, within the frame, with the box; visibility of the limbs; share of the joints in the
frame that lie in the person's mask or near it; how little the joints move within the box from frame to frame."""
_WEIGHTS = (0.78, 1.04, 1.09, 2.1)
_OFFSET = -2.62
COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""MediaPipe's number of each of COCO's 17 joints."""
_NEAR = 0.03
"""Distance from the mask, over the square root of the box's area, up to which a joint lies in it."""
_FARTHEST = 0.3
"""Movement within the box, as a share of its sides, from which a pose is not steady at all."""
_HALF = 0.5
_UNKNOWN = 0.5
"""How steady a pose is that is seen in one frame alone."""


def signals(people: TrackedPeople) -> Floats:
    """The signals `[T, P, 4]` of each person's pose, in the order of `SIGNALS`; NaN where there is none."""
    found = np.full((*people.scores.shape, len(SIGNALS)), np.nan)
    posed = ~np.isnan(people.landmarks[..., 0, 0]) & ~np.isnan(people.boxes[..., 0])
    height, width = people.masks.shape[1:]
    for t, p in np.argwhere(posed).tolist():
        box, landmarks = people.boxes[t, p].astype(np.float64), people.landmarks[t, p].astype(np.float64)
        bounds = np.concatenate([landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)])
        joints = _in_frame(landmarks[list(COCO), :2], height, width)
        moved = [
            _moved(joints, box, _in_frame(people.landmarks[u, p, list(COCO), :2], height, width), people.boxes[u, p])
            for u in (t - 1, t + 1)
            if 0 <= u < len(posed) and posed[u, p]
        ]
        found[t, p] = (
            tracking.overlap(np.clip(bounds, 0, (width, height, width, height)), box),
            landmarks[list(LIMBS), 2].mean(),
            _in_mask(people.masks[t] == p + 1, joints, box),
            _UNKNOWN if not moved else 1 - min(float(np.mean(moved)) / _FARTHEST, 1),
        )
    return found


def predicted_oks(people: TrackedPeople) -> Floats:
    """The object keypoint similarity (OKS) to expect of each pose `[T, P]`; NaN where there is none."""
    expected: Floats = logistic(signals(people) @ np.array(_WEIGHTS) + _OFFSET) * whole(people) * people.belief
    return expected


def whole(people: TrackedPeople) -> Floats:
    """1 where at least half of the limbs' landmarks are in the frame `[T, P]`, less where fewer are.

    OKS counts no joint outside the frame, so a face that fills it would be as good as a person: nobody wants that.
    """
    height, width = people.masks.shape[1:]
    limbs = people.landmarks[:, :, list(LIMBS), :2]
    share = ((limbs >= 0) & (limbs < (width, height))).all(axis=-1).mean(axis=-1)
    return np.asarray(np.minimum(share / _HALF, 1))


def _in_frame(joints: npt.NDArray[np.floating], height: int, width: int) -> Floats:
    """Joints `[K, 2]` with NaN for those outside the frame."""
    inside = ((joints >= 0) & (joints < (width, height))).all(axis=-1, keepdims=True)
    return np.where(inside, joints, np.nan).astype(np.float64)


def _in_mask(mask: npt.NDArray[np.bool_], joints: Floats, box: Floats) -> float:
    """Share of the joints in the frame that lie in the mask, or as near to it as the person's size allows."""
    seen = joints[~np.isnan(joints[:, 0])].astype(int)
    if not len(seen):
        return 0.0
    side = max(3, int(2 * _NEAR * np.sqrt(np.prod(box[2:] - box[:2]))) | 1)
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))
    return float(wide[seen[:, 1], seen[:, 0]].mean())


def _moved(joints: Floats, box: Floats, others: Floats, other_box: npt.NDArray[np.floating]) -> float:
    """How far the joints of one frame lie from another's, each within its box whose sides are 1; the middle one's."""
    here, there = ((each - at[:2]) / (at[2:] - at[:2]) for each, at in ((joints, box), (others, other_box)))
    apart = np.linalg.norm(here - there, axis=-1)
    known = apart[~np.isnan(apart)]
    return float(np.median(known)) if len(known) else _FARTHEST
