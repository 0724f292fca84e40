"""Light DensePose: our own body fitted to each person's landmarks and painted into their mask.

No DensePose network is used; parts, U and V are those of the fitted body (`anny-24`). Right on people who are mostly
in sight; what is hidden, cut off or held fast by somebody else is left out rather than guessed.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np
import numpy.typing as npt

from openuni.body import LAYOUT, Body, Surface, rasterise
from openuni.body.fit import Fit, Observed, fit
from openuni.errors import OpenUniError
from openuni.experts.base import Expert, Footage, Resources
from openuni.experts.mediapipe_pose import found_people
from openuni.experts.people import People
from openuni.modalities.densepose import DensePose
from openuni.sample import Annotation

_LOG = logging.getLogger(__name__)

MEDIAPIPE = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "left_shoulder": 11,
    "right_shoulder": 12, "left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16, "left_pinky": 17,
    "right_pinky": 18, "left_index": 19, "right_index": 20, "left_thumb": 21, "right_thumb": 22, "left_hip": 23,
    "right_hip": 24, "left_knee": 25, "right_knee": 26, "left_ankle": 27, "right_ankle": 28, "left_heel": 29,
    "right_heel": 30, "left_foot_index": 31, "right_foot_index": 32,
}  # fmt: skip
"""MediaPipe's number of each landmark of the body."""

_OUTSIDE = 0.1
"""What a landmark outside the frame counts: the model extends the body by habit."""
_LEAST_HEIGHT = 48
"""Pixels below which nobody is fitted."""
_LONGEST_GAP = 5
"""Frames without a pose within one fit; a longer gap makes two fits, for smoothness across it would be a guess."""
_LONGEST_FIT = 300
"""Frames solved at once; memory grows with them."""
LEAST = 0.35
"""Confidence of a person in a frame below which nothing is painted."""
_REACH = 0.08
"""How far beyond the fitted outline the mask is filled, over the person's size: clothes and hair."""
_IN_FRONT = frozenset(
    ("sports ball", "frisbee", "tennis racket", "baseball bat", "skateboard", "bottle", "cup", "book", "laptop", "cat")
)
"""Things that hide a body where they are small beside it; what is worn (a tie, a bag) does not."""


class BodyFit(Expert):
    """Part, U, V and person of each pixel on a person, smooth in time, with a confidence a person and frame.

    Confidence is the product of four doubts, each 0–1: landmarks far from the fitted body (reprojection), the fitted
    outline against the person's mask (overlap), landmarks outside the frame (truncation), landmarks not visible or a
    detector that sees no person (sight). Below .35 the person is left out in that frame, and the log says why.
    """

    name = "body_fit"
    version = 1
    modality = "densepose"
    licence = "Apache-2.0"
    requires = ("people",)
    resources = Resources(cpus=1, memory_gib=1.0)
    packages = ("embreex", "scipy")
    installed_by = "openuni[people]"
    seconds_per_frame = 0.1

    def setup(self) -> None:
        self._body = Body.load()

    def annotate(self, footage: Footage) -> Annotation[DensePose]:
        """DensePose of the clip; empty with confidence 0 where there is nobody.

        Raises OpenUniError with the commonest reason where there are people and none can be trusted in any frame.
        """
        people = found_people(footage)
        values = np.zeros((*people.masks.shape, 4), np.uint8)
        confidence = np.full(people.scores.shape, np.nan, np.float32)
        reasons: dict[str, int] = {}
        for p in range(people.count):
            for frames in _runs(people, p):
                fitted = fit(self._body, _observed(people, p, frames, self._body))
                for i, t in enumerate(frames):
                    surface = rasterise(self._body, fitted.vertices(self._body, i), *people.masks.shape[1:])
                    mask = (people.masks[t] == p + 1) & ~_in_front(people, p, t)
                    doubts = _doubts(people, p, t, fitted, i, surface, mask)
                    confidence[t, p] = np.prod(list(doubts.values()))
                    if confidence[t, p] < LEAST:
                        reason = min(doubts, key=lambda name: doubts[name])
                        reasons[reason] = reasons.get(reason, 0) + 1
                        continue
                    _paint(values[t], surface, mask, p + 1, _REACH * fitted_size(surface))
        if reasons:
            _LOG.info("%s: body_fit left out person-frames for %s", footage.key, reasons)
            if not values.any():
                worst = max(reasons, key=lambda name: reasons[name])
                raise OpenUniError(f"{footage.key}: no body could be trusted in any frame ({worst})")
        seen = ~np.isnan(confidence)
        mean = float(confidence[seen].mean()) if seen.any() else 0.0
        return Annotation(DensePose(values, LAYOUT, confidence if people.count else None), mean)


def _runs(people: People, p: int) -> list[list[int]]:
    """The frames in which person p has a pose, cut at long gaps; nothing for a person too small to fit."""
    posed = np.flatnonzero(~np.isnan(people.landmarks[:, p, 0, 0]))
    height = people.boxes[posed, p, 3] - people.boxes[posed, p, 1]
    posed = posed[height >= _LEAST_HEIGHT]
    cuts = np.flatnonzero(np.diff(posed) > _LONGEST_GAP) + 1
    runs = [run for run in np.split(posed, cuts) if len(run)]
    return [part.tolist() for run in runs for part in np.array_split(run, -(-len(run) // _LONGEST_FIT))]


def _observed(people: People, p: int, frames: list[int], body: Body) -> Observed:
    """Person p's landmarks in some frames as the fit wants them."""
    rows = [MEDIAPIPE[name] for name in body.landmark_names]
    landmarks = people.landmarks[frames, p][:, rows].astype(np.float64)
    _, height, width = people.masks.shape
    points, visibility = landmarks[..., :2], landmarks[..., 2]
    inside = ((points >= 0) & (points < (width, height))).all(-1)
    box = people.boxes[frames, p].astype(np.float64)
    size = np.sqrt(np.prod(np.maximum(box[:, 2:] - box[:, :2], 1), axis=1))
    weights = np.maximum(visibility**2, 0.02) * np.where(inside, 1, _OUTSIDE)
    space = people.world[frames, p][:, rows].astype(np.float64) * [1, -1, -1]
    return Observed(points, weights, space, np.full(len(frames), np.median(size)))


def _in_front(people: People, p: int, t: int) -> npt.NDArray[np.bool_]:
    """The pixels `[H, W]` of things before person p in frame t, as ellipses in the boxes of the nearest detection."""
    hidden = np.zeros(people.masks.shape[1:], np.uint8)
    if len(people.thing_frames) == 0:
        return hidden > 0
    away = np.abs(people.thing_frames - t)
    x0, y0, x1, y1 = people.boxes[t, p]
    for i in np.flatnonzero((away == away.min()) & (away <= 2)):
        a, b, c, d = people.thing_boxes[i].tolist()
        if people.thing_classes[i] in _IN_FRONT and (c - a) * (d - b) < 0.25 * (x1 - x0) * (y1 - y0):
            middle, axes = (round((a + c) / 2), round((b + d) / 2)), (round((c - a) / 2), round((d - b) / 2))
            cv2.ellipse(hidden, middle, axes, 0, 0, 360, 1, -1)
    return hidden > 0


def _doubts(
    people: People, p: int, t: int, fitted: Fit, i: int, surface: Surface, mask: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """The four factors of confidence, each 1 where all is well, by the reason they stand for."""
    drawn = surface.part > 0
    union = int((drawn | mask).sum())
    overlap = int((drawn & mask).sum()) / union if union else 0.0
    limbs = people.landmarks[t, p, 11:29]
    _, height, width = people.masks.shape
    inside = ((limbs[:, :2] >= 0) & (limbs[:, :2] < (width, height))).all(-1)
    return {
        "the body misses its landmarks": _ramp(fitted.error[i], 0.12, 0.04),
        "the body does not cover its mask": _ramp(overlap, 0.3, 0.7),
        "the body is cut off by the frame": _ramp(float(inside.mean()), 0.3, 0.9),
        "the body is hidden or may be none": _ramp(float(limbs[:, 2].mean()), 0.3, 0.8)
        * _ramp(float(people.support[p]), 0.15, 0.45),
    }


def _ramp(value: float, zero: float, one: float) -> float:
    """0 at `zero`, 1 at `one`, linear between."""
    return float(np.clip((value - zero) / (one - zero), 0, 1))


def fitted_size(surface: Surface) -> float:
    """Square root of the drawn body's bounding box, pixels."""
    rows, columns = np.nonzero(surface.part)
    return float(np.sqrt(np.ptp(rows) * np.ptp(columns))) if len(rows) else 0.0


def _paint(
    values: npt.NDArray[np.uint8], surface: Surface, mask: npt.NDArray[np.bool_], person: int, reach: float
) -> None:
    """Paint one person: each pixel of the mask takes the nearest pixel of the drawn body, within `reach` pixels.

    The drawing is eroded first: its rim is seen edge-on, and slivers of the far side would be smeared outwards.
    """
    drawn = surface.part > 0
    core = cv2.erode(drawn.astype(np.uint8), np.ones((3, 3), np.uint8))
    if not core.any():
        core = drawn.astype(np.uint8)
    distance, label = cv2.distanceTransformWithLabels(1 - core, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, columns = np.nonzero(core)
    source = np.zeros(label.max() + 1, np.intp)
    source[label[rows, columns]] = np.arange(len(rows))
    where = mask & (distance <= reach)
    nearest = source[label[where]]
    y, x = rows[nearest], columns[nearest]
    painted = np.stack([surface.part[y, x], surface.u[y, x], surface.v[y, x], np.full(len(x), person, np.uint8)], -1)
    values[where] = painted
