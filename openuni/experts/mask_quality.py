"""How good a person's mask is, from what can be seen without the truth: the confidence of light masks and DensePose.

Signals of 0 to 1 a person and frame, each such that more is better, joined by a logistic curve whose weights are none
below zero: a mask never gains by being less steady, less filled by its pose or farther out of the frame. The weights
are fitted on rendered crowds (`benchmarks/crowd_confidence.py --crowds`), which prints them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from openuni.experts import tracking
from openuni.experts.people import BONES, TrackedPeople

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SIGNALS = (
    "size", "landmarks inside", "box filled", "in one piece", "nobody before", "steady", "set off", "limbs in sight",
    "edges", "shape of the pose",
)  # fmt: skip
"""Size of the person; landmarks in sight that lie in the mask; overlap of the mask's bounds with the box; share of the
largest piece; how little of it others take; overlap with the masks just before and after; difference of colours within
and around it (Bhattacharyya); visibility of the limbs; strength of the picture's edges on its rim; overlap with limbs
drawn along the pose. Without a pose, what is about it is 0. The detector's score, its support and how much of a person
lies within the frame were tried: their weights came out as 0."""
_WEIGHTS = (0.4, 0.32, 0.55, 0.84, 0.34, 0.78, 1.77, 0.47, 0.33, 0.45)
_OFFSET = -2.61
LIMBS = (*range(11, 17), *range(23, 29))
"""MediaPipe's landmarks of shoulders, elbows, wrists, hips, knees and ankles."""
_LARGE = 256
"""Pixels of height from which a person is as large as the landmark model sees."""
_THICK = 0.16
"""Width of a limb over the square root of the box's area."""


def signals(people: TrackedPeople, masks: npt.NDArray[np.integer], frames: npt.NDArray[np.uint8]) -> Floats:
    """The signals `[T, P, 10]` of each person's mask, in the order of `SIGNALS`; NaN where there is no mask.

    `masks` `[T, H, W]`: the person (index + 1) at each pixel, 0 nobody, as drawn; `frames` uint8 `[T, H, W, 3]`.
    """
    found = np.full((*people.scores.shape, len(SIGNALS)), np.nan)
    for t, frame in enumerate(frames):
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        edges = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
        areas = np.bincount(masks[t].ravel(), minlength=people.count + 1)[1 : people.count + 1]
        for p in np.flatnonzero(areas).tolist():
            if not np.isnan(people.boxes[t, p, 0]):
                found[t, p] = _signals(people, p, t, masks, frame, edges)
    found[..., SIGNALS.index("steady")] = _steady(masks, people.count)
    return found


def predicted_iou(found: Floats) -> Floats:
    """The overlap with the truth (IoU) to expect of masks with these signals `[T, P, 10]`, `[T, P]`; NaN: no mask.

    Example:
        >>> round(float(predicted_iou(np.ones((1, 1, 10)))[0, 0]), 2)
        0.97
    """
    return logistic(found @ np.array(_WEIGHTS) + _OFFSET)


def logistic(sums: Floats) -> Floats:
    """1 / (1 + exp(−x)): from any number to 0 … 1."""
    return np.asarray(1 / (1 + np.exp(-sums)))


def _signals(
    people: TrackedPeople,
    p: int,
    t: int,
    masks: npt.NDArray[np.integer],
    frame: npt.NDArray[np.uint8],
    edges: npt.NDArray[np.float32],
) -> list[float]:
    height, width = frame.shape[:2]
    box, landmarks = people.boxes[t, p].astype(np.float64), people.landmarks[t, p]
    rows, columns = _crop(box, height, width)
    label = masks[t, rows, columns]
    mine, others = label == p + 1, (label > 0) & (label <= people.count) & (label != p + 1)
    area = max(1, int(mine.sum()))
    limbs = landmarks[list(LIMBS)]
    posed = not np.isnan(landmarks[0, 0])
    x, y = np.nan_to_num(limbs[:, 0] - columns.start), np.nan_to_num(limbs[:, 1] - rows.start)
    inside = ((limbs[:, :2] >= 0) & (limbs[:, :2] < (width, height))).all(-1)
    size = float(np.sqrt(np.prod(box[2:] - box[:2])))
    wide = cv2.dilate(mine.astype(np.uint8), np.ones((max(3, int(0.06 * size) | 1),) * 2, np.uint8)) > 0
    seen = inside & (limbs[:, 2] > 0.5)
    covered = wide[np.clip(y.astype(int), 0, wide.shape[0] - 1), np.clip(x.astype(int), 0, wide.shape[1] - 1)]
    rim = wide & (cv2.erode(mine.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0) & mine
    ring = wide & ~mine
    local, strength = frame[rows, columns], edges[rows, columns]
    contrast = float(strength[rim].mean() / (strength.mean() + 1e-3)) if rim.any() else 0.0
    like = float(np.sqrt(tracking.colours(local, mine) * tracking.colours(local, ring)).sum()) if mine.any() else 1.0
    pieces = cv2.connectedComponentsWithStats(mine.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    return [
        float(np.clip((box[3] - box[1]) / _LARGE, 0, 1) ** 0.5),
        float(covered[seen].mean()) if seen.any() else 0.0,
        _filled(mine, box - np.tile([columns.start, rows.start], 2)),
        float(pieces.max(initial=0)) / area,
        1 - int(others.sum()) / (int(others.sum()) + area),
        np.nan,
        1 - like,
        float(limbs[:, 2].mean()) if posed else 0.0,
        contrast / (1 + contrast),
        _pose_shape(mine, landmarks - [columns.start, rows.start, 0], size) if posed else 0.0,
    ]


def _crop(box: Floats, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns about a box, a fifth of its size wider."""
    margin = 0.2 * (box[2:] - box[:2])
    x0, y0 = np.clip(np.floor(box[:2] - margin), 0, (width - 2, height - 2)).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(box[2:] + margin), (x0 + 2, y0 + 2), (width, height)).astype(int).tolist()
    return slice(y0, y1), slice(x0, x1)


def _filled(mine: Mask, box: Floats) -> float:
    """Overlap of a mask's bounds with the box."""
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    if not len(rows):
        return 0.0
    return tracking.overlap(np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64), box)


def _pose_shape(mine: Mask, landmarks: npt.NDArray[np.floating], size: float) -> float:
    """Overlap of a mask with limbs of one width drawn along the bones of the pose."""
    drawn = np.zeros(mine.shape, np.uint8)
    points = np.clip(landmarks[:, :2], -(2**14), 2**14).astype(np.int32)
    for a, b in BONES:
        cv2.line(drawn, points[a].tolist(), points[b].tolist(), 1, max(1, round(_THICK * size)))
    return float((mine & (drawn > 0)).sum() / max(1, (mine | (drawn > 0)).sum()))


def _steady(masks: npt.NDArray[np.integer], people: int) -> Floats:
    """Overlap of each person's mask with those just before and after, laid on each other by their means `[T, P]`.

    1 where there is none to compare with, in a single picture say; NaN without a mask.
    """
    found, count = np.zeros((2, len(masks), people))
    there = np.zeros(found.shape, np.bool_)
    before: list[npt.NDArray[np.intp] | None] = [None] * people
    for t, frame in enumerate(masks):
        here = _pixels(frame, people)
        for p, (old, new) in enumerate(zip(before, here, strict=True)):
            if new is None:
                continue
            there[t, p] = True
            if old is None:
                continue
            moved = old + np.rint(new.mean(0) - old.mean(0)).astype(int)
            width = masks.shape[2] * 4
            shared = len(np.intersect1d(moved @ [width, 1], new @ [width, 1], assume_unique=True))
            found[t - 1 : t + 1, p] += shared / (len(old) + len(new) - shared)
            count[t - 1 : t + 1, p] += 1
        before = here
    return np.where(there, np.where(count > 0, found / np.maximum(count, 1), 1.0), np.nan)


def _pixels(mask: npt.NDArray[np.integer], people: int) -> list[npt.NDArray[np.intp] | None]:
    """Rows and columns `[N, 2]` of each person's pixels in a frame, None where there are none."""
    from scipy.ndimage import find_objects

    windows = find_objects(mask, max_label=people)
    return [
        None if window is None else np.argwhere(mask[window] == p + 1) + np.array([span.start for span in window])
        for p, window in enumerate(windows)
    ]
