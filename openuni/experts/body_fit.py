"""Light DensePose: our own body fitted to each person's landmarks and drawn into their mask.

No DensePose network is used; parts, U and V are those of the fitted body (`anny-24`). Right on people who are mostly
in sight; what is hidden, cut off or held fast by somebody else is left out rather than guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from openuni.body import LAYOUT, Body, Surface, rasterise
from openuni.body.fit import Fit, Observed, fit
from openuni.errors import OpenUniError
from openuni.experts import part_quality
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.mediapipe_pose import people_in
from openuni.experts.people import TrackedPeople
from openuni.modalities.densepose import DOUBTS, DensePose
from openuni.sample import Annotation

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
_OVERLAP = 1
"""Place of the overlap of fit and mask among the doubts."""
LEAST = 0.35
"""Trust in the fit of a person in a frame below which nothing is drawn."""
_REACH = 0.15
"""How far beyond the fitted outline the mask is filled, over the person's size: clothes, hair and a back more bent
than the fit's. Farther away the mask is more likely wrong than the body."""
_IN_FRONT = frozenset(
    ("sports ball", "frisbee", "tennis racket", "baseball bat", "skateboard", "bottle", "cup", "book", "laptop", "cat")
)
"""Things that hide a body where they are small beside it; what is worn (a tie, a bag) does not."""
_FLIGHT = 0.25
"""Seconds between two sightings of a thing over which its way is taken to be straight."""
_BLUR = 1.1
"""A thing's size over that of its box: edges are soft, and what flies is blurred."""


class BodyFit(Expert):
    """Part, U, V and person of each pixel on a person, smooth in time, with a confidence a person and frame.

    There are five factors, each 0–1, one for each of `DOUBTS`: landmarks far from the fitted body (reprojection), the
    fitted outline against the person's mask (overlap), landmarks outside the frame (truncation), landmarks not visible
    (sight), and whether it is a person at all (from `TrackedPeople.belief`). Where the first four, which are of the
    fit, come to less than `LEAST`, or the last is 0, the person is left out in that frame, and `DensePose.doubt` names
    the worst of the five; the confidence is then their product. Of who is drawn it is the share of painted pixels whose
    part is right to expect (`part_quality`). Somebody who only stands very still is drawn, with low confidence.
    """

    name = "body_fit"
    version = 4
    modality = "densepose"
    license = "Apache-2.0"
    requires = ("people",)
    resources = Resources(cpus=1, memory_gib=1.0)
    packages = ("embreex", "scipy", "threadpoolctl")
    installed_by = "openuni[people]"
    seconds_per_frame = 0.1

    def setup(self) -> None:
        self._body = Body.load()

    def annotate(self, clip: DecodedClip) -> Annotation[DensePose]:
        """DensePose of the clip; empty with confidence 0 where there is nobody.

        The scores `densepose_painted` and `densepose_left_out` count person-frames.
        Raises OpenUniError with the commonest doubt where there are people and none can be trusted in any frame.
        """
        from threadpoolctl import threadpool_limits

        people = people_in(clip)
        values = np.zeros((*people.masks.shape, 4), np.uint8)
        agreement = np.full(people.scores.shape, np.nan)
        doubt = np.zeros(people.scores.shape, np.uint8)
        before = [_ways(people, p, clip.fps) for p in range(people.count)]
        # BLAS gives each of the fit's many small products to all cores, and waiting for one another costs more than
        # the products: .20 s of processor time a person-frame on two threads for .04 s on one.
        with threadpool_limits(limits=self.resources.cpus, user_api="blas"):
            for p in range(people.count):
                for frames in _runs(people, p):
                    fitted = fit(self._body, _observed(people, p, frames, self._body))
                    for i, t in enumerate(frames):
                        surface = rasterise(self._body, fitted.vertices(self._body, i), *people.masks.shape[1:])
                        mask = (people.masks[t] == p + 1) & ~_hidden(before[p].get(t, ()), people.masks.shape[1:])
                        doubts = _doubts(people, p, t, fitted, i, surface, mask)
                        agreement[t, p] = np.prod(doubts[:-1]) * doubts[_OVERLAP]
                        if np.prod(doubts[:-1]) < LEAST or doubts[-1] == 0:
                            doubt[t, p] = 1 + np.argmin(doubts)
                        else:
                            _draw(values[t], surface, mask, p + 1, _REACH * fitted_size(surface))
        expected = part_quality.predicted_share(part_quality.signals(people, clip.frames, agreement), people.belief)
        confidence = np.where(doubt > 0, agreement * people.belief, expected).astype(np.float32)
        counts = np.bincount(doubt.ravel(), minlength=len(DOUBTS) + 1)[1:]
        if counts.any() and not values.any():
            worst = DOUBTS[int(counts.argmax())]
            raise OpenUniError(f"{clip.key}: no body could be trusted in any frame ({worst})")
        seen = ~np.isnan(confidence)
        mean = float(confidence[seen].mean()) if seen.any() else 0.0
        scores = {"densepose_painted": float(seen.sum() - counts.sum()), "densepose_left_out": float(counts.sum())}
        value = DensePose(values, LAYOUT, confidence, doubt) if people.count else DensePose(values, LAYOUT)
        return Annotation(value, mean, scores)


def _runs(people: TrackedPeople, p: int) -> list[list[int]]:
    """The frames in which person p has a pose, cut at long gaps; nothing for a person too small to fit."""
    posed = np.flatnonzero(~np.isnan(people.landmarks[:, p, 0, 0]))
    height = people.boxes[posed, p, 3] - people.boxes[posed, p, 1]
    posed = posed[height >= _LEAST_HEIGHT]
    cuts = np.flatnonzero(np.diff(posed) > _LONGEST_GAP) + 1
    runs = [run for run in np.split(posed, cuts) if len(run)]
    return [part.tolist() for run in runs for part in np.array_split(run, -(-len(run) // _LONGEST_FIT))]


def _observed(people: TrackedPeople, p: int, frames: list[int], body: Body) -> Observed:
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


Box = npt.NDArray[np.float64]


def _ways(people: TrackedPeople, p: int, fps: float) -> dict[int, list[Box]]:
    """Boxes of the things before person p by frame: where the detector saw them, and on the straight ways between.

    A thing is before a person if it is small beside them (only where their bodies meet does it hide anything). Its next
    sighting is the nearest one of like size in the next frame in which the detector saw such a thing, within `_FLIGHT`.
    """
    ways: dict[int, list[Box]] = {}
    for i, t in enumerate(people.thing_frames.tolist()):
        box, body = people.thing_boxes[i].astype(np.float64), people.boxes[t, p]
        small = np.prod(box[2:] - box[:2]) < 0.25 * np.prod(body[2:] - body[:2])  # False where the body is not seen
        if small and people.thing_classes[i] in _IN_FRONT:
            ways.setdefault(t, []).append(box)
    for a, b in pairwise(sorted(ways)):
        if not 1 < b - a <= _FLIGHT * fps:
            continue
        for box in list(ways[a]):
            there = min(ways[b], key=lambda other: float(np.linalg.norm(_middle(other) - _middle(box))))
            sizes = np.sqrt([np.prod(each[2:] - each[:2]) for each in (box, there)])
            if np.linalg.norm(_middle(there) - _middle(box)) < 3 * sizes.max() and sizes.max() < 2 * sizes.min():
                for t in range(a + 1, b):
                    ways.setdefault(t, []).append(box + (t - a) / (b - a) * (there - box))
    return ways


def _middle(box: Box) -> Box:
    middle: Box = (box[:2] + box[2:]) / 2
    return middle


def _hidden(boxes: Sequence[Box], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The pixels `[H, W]` of things in boxes, as ellipses."""
    hidden = np.zeros(shape, np.uint8)
    for box in boxes:
        axes = np.maximum(_BLUR * (box[2:] - box[:2]) / 2, 1)
        cv2.ellipse(hidden, _middle(box).round().astype(int), axes.round().astype(int), 0, 0, 360, 1, -1)
    return hidden > 0


def _doubts(
    people: TrackedPeople, p: int, t: int, fitted: Fit, i: int, surface: Surface, mask: npt.NDArray[np.bool_]
) -> list[float]:
    """The factors of confidence in the order of `DOUBTS`, each 1 where all is well."""
    drawn = surface.part > 0
    union = int((drawn | mask).sum())
    overlap = int((drawn & mask).sum()) / union if union else 0.0
    limbs = people.landmarks[t, p, 11:29]
    _, height, width = people.masks.shape
    inside = ((limbs[:, :2] >= 0) & (limbs[:, :2] < (width, height))).all(-1)
    return [
        _ramp(fitted.error[i], 0.12, 0.04),
        _ramp(overlap, 0.3, 0.7),
        _ramp(float(inside.mean()), 0.3, 0.9),
        _ramp(float(limbs[:, 2].mean()), 0.3, 0.8),
        _ramp(float(people.belief[p]), 0.25, 1),
    ]


def _ramp(value: float, zero: float, one: float) -> float:
    """0 at `zero`, 1 at `one`, linear between."""
    return float(np.clip((value - zero) / (one - zero), 0, 1))


def fitted_size(surface: Surface) -> float:
    """Square root of the drawn body's bounding box, pixels."""
    rows, columns = np.nonzero(surface.part)
    return float(np.sqrt(np.ptp(rows) * np.ptp(columns))) if len(rows) else 0.0


def _draw(
    values: npt.NDArray[np.uint8], surface: Surface, mask: npt.NDArray[np.bool_], person: int, reach: float
) -> None:
    """Draw one person: each pixel of the mask takes the nearest pixel of the drawn body, within `reach` pixels.

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
    drawn = np.stack([surface.part[y, x], surface.u[y, x], surface.v[y, x], np.full(len(x), person, np.uint8)], -1)
    values[where] = drawn
