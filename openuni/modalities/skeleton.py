"""Skeleton: the joints of each person, followed over the clip."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import geometry, stored
from openuni.modalities.base import Box, Encoded, Frames, Modality, Pictures, Reading
from openuni.modalities.palette import nearest_colour, palette

Floats = npt.NDArray[np.float32]

MOST_PEOPLE = 1024
DRAWN = 0.3
"""Score from which a joint is drawn, as in OpenPose and DWPose."""


@dataclass(frozen=True, slots=True)
class Body:
    """A layout of joints: their names, the limbs that join them, and each joint's index in a mirror.

    `face` and `hands` say which joints are a face's and which a hand's, where the layout has them.
    """

    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    face: range = range(0)
    hands: tuple[range, ...] = ()

    @property
    def mirrored(self) -> list[int]:
        swap = {"left": "right", "right": "left"}
        names = ["_".join(swap.get(word, word) for word in joint.split("_")) for joint in self.joints]
        return [self.joints.index(name) for name in names]


_COCO17 = Body(
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    limbs=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
)  # fmt: skip


def _sides(side: str, *parts: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in parts)


def _row(part: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{part}_{number}" for number in numbers)


def _chain(*joints: int) -> tuple[tuple[int, int], ...]:
    """Limbs from each joint to the next."""
    return tuple(itertools.pairwise(joints))


_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky")
_HAND = ("hand_root", *(joint for finger in _FINGERS for joint in _row(finger, 1, 2, 3, 4)))

HAND_LIMBS = tuple(limb for f in range(5) for limb in _chain(0, *range(4 * f + 1, 4 * f + 5)))
"""The 20 limbs of a hand's 21 joints: from the root out along each finger, thumb first."""

# From the person's right ear along the jaw to the left one; brows; down the nose; nostrils; eyes; lips without and
# within. Numbers of the left side count as the mirror image does.
_FACE = (
    *_row("right_jaw", *range(8)), "chin", *_row("left_jaw", *range(7, -1, -1)),
    *_row("right_brow", *range(5)), *_row("left_brow", *range(4, -1, -1)),
    *_row("nose_bridge", *range(4)),
    *_row("right_nostril", 0, 1), "nose_base", *_row("left_nostril", 1, 0),
    *_row("right_eyelid", *range(6)), *_row("left_eyelid", 3, 2, 1, 0, 5, 4),
    *_row("right_lip", 0, 1, 2), "lip_top", *_row("left_lip", 2, 1, 0, 3, 4), "lip_bottom", *_row("right_lip", 4, 3),
    *_row("right_mouth", 0, 1), "mouth_top", *_row("left_mouth", 1, 0, 2), "mouth_bottom", "right_mouth_2",
)  # fmt: skip
_FACE_LIMBS = (
    *_chain(*range(17)), *_chain(*range(17, 22)), *_chain(*range(22, 27)), *_chain(*range(27, 31)),
    *_chain(*range(31, 36)), *_chain(*range(36, 42), 36), *_chain(*range(42, 48), 42), *_chain(*range(48, 60), 48),
    *_chain(*range(60, 68), 60),
)  # fmt: skip

_WHOLE = Body(
    joints=(
        *_COCO17.joints,
        *_sides("left", "big_toe", "small_toe", "heel"),
        *_sides("right", "big_toe", "small_toe", "heel"),
        *_FACE,
        *_sides("left", *_HAND),
        *_sides("right", *_HAND),
    ),
    limbs=(
        *_COCO17.limbs,
        *((15, foot) for foot in (17, 18, 19)),
        *((16, foot) for foot in (20, 21, 22)),
        *((a + 23, b + 23) for a, b in _FACE_LIMBS),
        *((9, 91), (10, 112)),
        *((a + 91, b + 91) for a, b in HAND_LIMBS),
        *((a + 112, b + 112) for a, b in HAND_LIMBS),
    ),
    face=range(23, 91),
    hands=(range(91, 112), range(112, 133)),
)

LAYOUTS = {"coco17": _COCO17, "coco_wholebody133": _WHOLE}
"""Known layouts by name; each begins with the joints and the limbs of `coco17`. Left and right are the person's own.

`coco17` is COCO's 17 joints and 19 limbs. `coco_wholebody133` is COCO-WholeBody's (Jin et al., ECCV 2020,
arXiv:2007.11858), in its order: the 17, three points a foot, 68 landmarks of the face as in 300-W, 21 joints a hand.
The names of face points are ours, for it only numbers them.
"""

_ABSENT = np.array([np.nan, np.nan, 0], np.float32)

_MORE: tuple[Literal["areas", "crowds", "scores"], ...] = ("areas", "crowds", "scores")

_FROM_FRAGMENT = 4
"""Joints from which a group that no limb joins to another is a person of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """P people with K joints each in a clip of T frames of `height` × `width` pixels.

    `keypoints` float32 `[T, P, K, 3]`: x, y in pixels (pixel (i, j) is centred at (j + .5, i + .5)) and a score in
    [0, 1]; a joint that is not there has score 0 and x = y = NaN. `boxes` float32 `[T, P, 4]`: x0, y0, x1, y1, NaN
    where the person is not in the frame. `track_ids` int32 `[P]`: one number a person over the clip. `world` float32
    `[T, P, K, 3]`, where known: metres, x right, y down, z away from the camera, NaN where unknown.

    Where known: `areas` float32 `[T, P]`, pixels of each person's mask, NaN where not. `crowds` bool `[P]`: not one
    person but a group that nobody took apart; what is found there is neither right nor wrong. (So is what is found on a
    person who has a box and no joint.) `scores` float32 `[T, P]`: how sure a detector is of each person, on any scale,
    for only their order counts; NaN where it does not say.
    """

    keypoints: Floats
    boxes: Floats
    track_ids: npt.NDArray[np.int32]
    height: int
    width: int
    layout: str = "coco17"
    world: Floats | None = None
    areas: Floats | None = None
    crowds: npt.NDArray[np.bool_] | None = None
    scores: Floats | None = None

    @property
    def body(self) -> Skeleton:
        """The same people with COCO's 17 joints alone: what is scored, and what the model's pictures show.

        Example:
            >>> points = np.ones((2, 1, 133, 3), np.float32)
            >>> boxes, tracks = np.ones((2, 1, 4), np.float32), np.ones(1, np.int32)
            >>> whole = Skeleton(points, boxes, tracks, 48, 64, "coco_wholebody133")
            >>> whole.body.layout, whole.body.keypoints.shape
            ('coco17', (2, 1, 17, 3))
        """
        if self.layout == "coco17":
            return self
        joints = len(_COCO17.joints)
        world = None if self.world is None else self.world[:, :, :joints]
        return replace(self, keypoints=self.keypoints[:, :, :joints], world=world, layout="coco17")


@dataclass(frozen=True, slots=True)
class _Meta(stored.Size):
    people: Literal[0] | stored.Count
    layout: str
    world: bool
    more: tuple[Literal["areas", "crowds", "scores"], ...] = ()
    """What else is stored; unwritten where there is nothing else, so such bytes are those of earlier versions."""


class SkeletonModality(Modality[Skeleton]):
    """Stored as float32 in an npz: some 3 KiB a person-second of 17 joints at 16 fps, so nothing is rounded."""

    name = "skeleton"
    prompt = "a skeleton map: joints and limbs of each person in their own colours on black"

    def shape(self, value: Skeleton) -> tuple[int, int, int]:
        return len(value.keypoints), value.height, value.width

    def check(self, value: Skeleton) -> None:
        if value.layout not in LAYOUTS:
            raise InvalidAnnotationError(f"skeleton.layout is {value.layout!r}; known: {', '.join(LAYOUTS)}")
        if value.height < 1 or value.width < 1:
            raise InvalidAnnotationError(f"skeleton: a frame of {value.width}×{value.height} pixels")
        joints = len(LAYOUTS[value.layout].joints)
        people = len(value.track_ids)
        geometry.check_array("skeleton.track_ids", value.track_ids, np.int32, (people,))
        geometry.check_array("skeleton.keypoints", value.keypoints, np.float32, ("T", people, joints, 3))
        frames = len(value.keypoints)
        geometry.check_array("skeleton.boxes", value.boxes, np.float32, (frames, people, 4))
        if value.world is not None:
            geometry.check_array("skeleton.world", value.world, np.float32, (frames, people, joints, 3))
            if np.isinf(value.world).any():
                raise InvalidAnnotationError("skeleton.world holds infinities; mark unknown joints with NaN")
        if value.crowds is not None:
            geometry.check_array("skeleton.crowds", value.crowds, np.bool_, (people,))
        for name, low in (("areas", 0.0), ("scores", -np.inf)):
            numbers = getattr(value, name)
            if numbers is not None:
                geometry.check_array(f"skeleton.{name}", numbers, np.float32, (frames, people))
                if np.isinf(numbers).any() or (numbers < low).any():
                    raise InvalidAnnotationError(f"skeleton.{name} must be finite (areas: not negative), or NaN")
        if people > MOST_PEOPLE or len(set(value.track_ids.tolist())) != people:
            raise InvalidAnnotationError(f"skeleton.track_ids must differ, and be at most {MOST_PEOPLE}")
        score = value.keypoints[..., 2]
        if not ((score >= 0) & (score <= 1)).all():
            raise InvalidAnnotationError("skeleton: scores of joints must lie in 0 to 1 (0: not there), without NaN")
        if not (np.isnan(value.keypoints[..., :2]) == (score == 0)[..., None]).all():
            raise InvalidAnnotationError("skeleton: a joint must have either a score above 0 and a place, or 0 and NaN")
        size = np.array([value.width, value.height], np.float32)
        for what, xy in (
            ("joint", value.keypoints[..., :2]),
            ("box corner", value.boxes.reshape(frames, people, 2, 2)),
        ):
            if ((xy < -size) | (xy > 2 * size)).any():
                raise InvalidAnnotationError(
                    f"skeleton: a {what} lies more than a frame outside the frame: not pixels?"
                )
        x0, y0, x1, y1 = np.moveaxis(value.boxes, -1, 0)
        missing = np.isnan(value.boxes)
        if (missing.any(axis=-1) != missing.all(axis=-1)).any() or ((x0 > x1) | (y0 > y1)).any():
            raise InvalidAnnotationError("skeleton.boxes must be x0 ≤ x1, y0 ≤ y1, or NaN in all four")

    def encode(self, value: Skeleton) -> Encoded:
        self.check(value)
        more = tuple(name for name in _MORE if getattr(value, name) is not None)
        meta = _Meta(*self.shape(value), len(value.track_ids), value.layout, value.world is not None, more)
        arrays = {name: getattr(value, name) for name in _layouts(meta)}
        written = stored.write_meta(meta)
        if not more:
            del written["more"]
        return Encoded({"skeleton.npz": stored.pack_arrays(arrays)}, written)

    def decode(self, encoded: Encoded) -> Skeleton:
        meta = stored.read_meta(_Meta, encoded)
        if meta.layout not in LAYOUTS or meta.people > MOST_PEOPLE:
            raise CorruptDataError(f"stored skeleton: layout {meta.layout!r} of {meta.people} people")
        arrays = stored.unpack_arrays(stored.member(encoded, "skeleton.npz"), _layouts(meta))
        value = Skeleton(**arrays, height=meta.height, width=meta.width, layout=meta.layout)
        return stored.checked(self, value)

    def to_picture(self, value: Skeleton) -> Pictures:
        """Limbs as lines, joints as discs over them, on black; each joint and each limb of `coco17` has a bright colour
        of its own, the same for all people. Joints of a score below .3 are left out, and so are feet, face and hands.

        A disc has a radius of 1/100 of the frame's shorter side, at least 2 px.
        """
        body = _COCO17
        colours = palette()[_colours(body)] * np.float32(255)
        frames, height, width = self.shape(value)
        pictures = np.zeros((frames, height, width, 3), np.uint8)
        radius = _radius(height, width)
        joint_colours = [tuple(map(float, colours[j])) for j in range(len(body.joints))]
        limb_colours = [tuple(map(float, colours[len(body.joints) + i])) for i in range(len(body.limbs))]
        for picture, people in zip(pictures, value.body.keypoints, strict=True):
            for joints in people:
                for (a, b), colour in zip(body.limbs, limb_colours, strict=True):
                    if joints[a, 2] >= DRAWN and joints[b, 2] >= DRAWN:
                        _line(picture, joints[a], joints[b], colour, thickness=max(2, radius - 1))
            for joints in people:
                for joint, colour in zip(joints, joint_colours, strict=True):
                    if joint[2] >= DRAWN:
                        _disc(picture, joint, colour, radius)
        return pictures.astype(np.float32) / np.float32(255)

    def from_picture(self, picture: Pictures) -> Skeleton:
        """Joints (`coco17`) are blobs of their colour; limbs of their colour join them into people; people are followed
        by nearness.

        Measured on drawings of 100–220 px tall people at 256², joints within 3 px and in the right person, be there
        one person or two side by side: 98 %, 97 % with noise of σ = .08 a channel, 91 % with a blur of σ = 1 px and
        noise of .03 (which also shows a person too many in one picture of six). Of three who overlap, 95 %.
        Lost: scores (all 1), world positions, track numbers (renumbered), joints that another disc covers.
        """
        height, width = picture.shape[1:3]
        # A generated picture is soft, and softness mixes colours with black. All of ours have a channel at 1, so a
        # pixel's largest channel tells how much black there is in it.
        index = nearest_colour(picture / np.maximum(picture.max(axis=-1, keepdims=True), 0.5))
        people = [_people(frame, _COCO17, _radius(height, width)) for frame in index]
        keypoints = _follow(people, len(_COCO17.joints))
        boxes = _boxes(keypoints)
        track_ids = np.arange(keypoints.shape[1], dtype=np.int32)
        return Skeleton(keypoints, boxes, track_ids, height, width)

    def show(self, value: Skeleton) -> Frames:
        """Limbs in the hues of the rainbow, joints in white, smooth, on black (to be laid over the clip).

        Feet, faces and hands, where the layout has them, are thin white lines.
        """
        body, fine = _COCO17, LAYOUTS[value.layout].limbs[len(_COCO17.limbs) :]
        frames, height, width = self.shape(value)
        shown = np.zeros((frames, height, width, 3), np.uint8)
        radius = _radius(height, width)
        hues = np.stack([np.arange(len(body.limbs)) * 179 / len(body.limbs), *np.full((2, len(body.limbs)), 255)], -1)
        colours = cv2.cvtColor(hues[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
        for picture, people in zip(shown, value.keypoints, strict=True):
            for joints in people:
                for (a, b), colour in zip(body.limbs, colours, strict=True):
                    if joints[a, 2] >= DRAWN and joints[b, 2] >= DRAWN:
                        _line(picture, joints[a], joints[b], tuple(map(float, colour)), thickness=radius, smooth=True)
                for a, b in fine:
                    if joints[a, 2] >= DRAWN and joints[b, 2] >= DRAWN:
                        _line(picture, joints[a], joints[b], (255.0, 255.0, 255.0), thickness=1, smooth=True)
                for joint in joints[: len(body.joints)]:
                    if joint[2] >= DRAWN:
                        _disc(picture, joint, (255.0, 255.0, 255.0), radius - 1, smooth=True)
        return shown

    def read_out(self, value: Skeleton, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        """The joint nearest to the pixel, of any person in the frame."""
        people = value.keypoints[frame]
        distance = np.hypot(people[..., 0] - (x + 0.5), people[..., 1] - (y + 0.5))
        if not distance.size or np.isnan(distance).all():
            return (Reading("joint", "nobody in this frame"),)
        person, joint = np.unravel_index(int(np.nanargmin(distance)), distance.shape)
        return (
            Reading("person", int(value.track_ids[person])),
            Reading("joint", LAYOUTS[value.layout].joints[joint]),
            Reading("at", float(distance[person, joint]), "px away"),
            Reading("score", float(people[person, joint, 2])),
        )

    def take(self, value: Skeleton, frames: slice) -> Skeleton:
        start, stop = geometry.span(frames, len(value.keypoints))
        return at_frames(value, np.arange(start, stop))

    def crop(self, value: Skeleton, box: Box) -> Skeleton:
        """Shifted; a joint outside the crop is not there any more, boxes end at its sides; `world` stays. How much of a
        mask is left where its box is cut is not known."""
        geometry.check_box(box, value.height, value.width)
        corner = np.array([box.x0, box.y0], np.float32)
        size = np.array([box.x1 - box.x0, box.y1 - box.y0], np.float32)
        keypoints = value.keypoints.copy()
        keypoints[..., :2] -= corner
        inside = ((keypoints[..., :2] >= 0) & (keypoints[..., :2] < size)).all(axis=-1)
        keypoints[~inside] = _ABSENT
        boxes = np.clip(value.boxes - np.tile(corner, 2), 0, np.tile(size, 2))
        boxes[(boxes[..., 0] >= boxes[..., 2]) | (boxes[..., 1] >= boxes[..., 3])] = np.nan
        areas = value.areas
        if areas is not None:
            whole = (boxes == value.boxes - np.tile(corner, 2)).all(axis=-1)
            areas = np.where(whole, areas, np.float32(np.nan))
        height, width = box.y1 - box.y0, box.x1 - box.x0
        return replace(value, keypoints=keypoints, boxes=boxes, areas=areas, height=height, width=width)

    def resize(self, value: Skeleton, height: int, width: int) -> Skeleton:
        """Coordinates scale with the frame."""
        scale = np.array([width / value.width, height / value.height], np.float32)
        keypoints = value.keypoints.copy()
        keypoints[..., :2] *= scale
        boxes = value.boxes * np.tile(scale, 2)
        areas = None if value.areas is None else value.areas * scale.prod()
        return replace(value, keypoints=keypoints, boxes=boxes, areas=areas, height=height, width=width)

    def flip(self, value: Skeleton) -> Skeleton:
        """x becomes width - x, left joints right ones, and world x its negative."""
        order = LAYOUTS[value.layout].mirrored
        keypoints = value.keypoints[:, :, order]
        keypoints[..., 0] = value.width - keypoints[..., 0]
        boxes = value.boxes[..., [2, 1, 0, 3]]
        boxes[..., ::2] = value.width - boxes[..., ::2]
        world = None if value.world is None else value.world[:, :, order] * np.array([-1, 1, 1], np.float32)
        return replace(value, keypoints=keypoints, boxes=boxes, world=world)


def at_frames(value: Skeleton, index: npt.NDArray[np.integer]) -> Skeleton:
    """The annotation of the frames `index` `[N]`, in that order."""
    of_frames = {
        name: array[index]
        for name in ("keypoints", "boxes", "world", "areas", "scores")
        if (array := getattr(value, name)) is not None
    }
    return replace(value, **of_frames)


def _layouts(meta: _Meta) -> dict[str, stored.Layout]:
    joints = (meta.frames, meta.people, len(LAYOUTS[meta.layout].joints), 3)
    layouts = {
        "keypoints": stored.Layout(np.float32, joints),
        "boxes": stored.Layout(np.float32, (meta.frames, meta.people, 4)),
        "track_ids": stored.Layout(np.int32, (meta.people,)),
    }
    if meta.world:
        layouts["world"] = stored.Layout(np.float32, joints)
    flags, numbers = stored.Layout(np.bool_, (meta.people,)), stored.Layout(np.float32, (meta.frames, meta.people))
    return layouts | {name: flags if name == "crowds" else numbers for name in meta.more}


def _colours(body: Body) -> npt.NDArray[np.intp]:
    """Numbers in `palette()` of the joints' colours, then the limbs': of the 37 with a channel at 1, which noise cannot
    take for the black background."""
    bright = np.flatnonzero(palette().max(axis=1) == 1)
    return bright[: len(body.joints) + len(body.limbs)]


def _radius(height: int, width: int) -> int:
    return max(2, round(min(height, width) / 100))


_Colour = tuple[float, ...]
_SHIFT = 4
"""Bits of OpenCV's fixed-point coordinates."""


def _point(joint: Floats) -> tuple[int, int]:
    """OpenCV centres pixel j at j, not at j + ½."""
    x, y = np.rint((joint[:2] - 0.5) * (1 << _SHIFT)).astype(int).tolist()
    return x, y


def _line(picture: Frames, a: Floats, b: Floats, colour: _Colour, thickness: int, *, smooth: bool = False) -> None:
    kind = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.line(picture, _point(a), _point(b), colour, thickness, kind, _SHIFT)


def _disc(picture: Frames, joint: Floats, colour: _Colour, radius: int, *, smooth: bool = False) -> None:
    kind = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.circle(picture, _point(joint), radius << _SHIFT, colour, cv2.FILLED, kind, _SHIFT)


class _Blob(NamedTuple):
    """A joint found in a picture."""

    joint: int
    x: float
    y: float


def _people(index: npt.NDArray[np.uint8], body: Body, radius: int) -> list[Floats]:
    """People `[K, 3]` in one picture `[H, W]` of colour numbers.

    As in OpenPose (Cao et al., CVPR 2017) pairs of joints are joined greedily, best limb first; the evidence for a
    limb is the share of its line that has its colour.
    """
    colours = _colours(body)[: len(body.joints)]
    blobs = [_Blob(joint, x, y) for joint, colour in enumerate(colours) for x, y in _centres(index == colour, radius)]
    group = list(range(len(blobs)))  # the group that each blob belongs to
    joints_of = {g: {blob.joint} for g, blob in enumerate(blobs)}

    def merge(a: int, b: int) -> None:
        """Join two groups that have no joint in common."""
        if a == b or joints_of[a] & joints_of[b]:
            return
        joints_of[a] |= joints_of.pop(b)
        group[:] = [a if g == b else g for g in group]

    for _, _, i, j in sorted(_limbs(index, blobs, body, radius)):
        merge(group[i], group[j])
    # A joint whose neighbours are hidden hangs on no limb: it goes to the nearest person that lacks it. One that
    # everybody has already is noise.
    for g in sorted(joints_of, key=lambda g: len(joints_of[g])):
        if g not in joints_of or len(joints_of[g]) >= _FROM_FRAGMENT:
            continue
        others = [o for o in joints_of if o != g and not joints_of[o] & joints_of[g]]
        if others:
            merge(min(others, key=lambda o: (_gap(blobs, group, g, o), o)), g)
        elif len(joints_of) > 1:
            del joints_of[g]
    people = []
    for g in joints_of:
        person = np.tile(_ABSENT, (len(body.joints), 1))
        for blob, owner in zip(blobs, group, strict=True):
            if owner == g:
                person[blob.joint] = blob.x, blob.y, 1
        people.append(person)
    return people


def _centres(mask: npt.NDArray[np.bool_], radius: int) -> list[tuple[float, float]]:
    """Centres in pixels of connected blobs, of the 64 largest at most. Less than a fifth of a disc is noise, or where
    two colours blend at an edge."""
    _, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    largest = 1 + np.argsort(-areas[1:], kind="stable")[:64]  # 0 is what is not in the mask
    return [(float(x) + 0.5, float(y) + 0.5) for x, y in centroids[largest[areas[largest] >= np.pi * radius**2 / 5]]]


def _limbs(
    index: npt.NDArray[np.uint8], blobs: list[_Blob], body: Body, radius: int
) -> list[tuple[float, float, int, int]]:
    """Plausible limbs as (-evidence, length, blob, blob), so that sorting puts the surest and shortest first."""
    of_joint: dict[int, list[int]] = {joint: [] for joint in range(len(body.joints))}
    for i, blob in enumerate(blobs):
        of_joint[blob.joint].append(i)
    found = []
    for (a, b), colour in zip(body.limbs, _colours(body)[len(body.joints) :], strict=True):
        for i, j in itertools.product(of_joint[a], of_joint[b]):
            start, end = np.array(blobs[i][1:]), np.array(blobs[j][1:])
            length = float(np.linalg.norm(end - start))
            # Two samples a pixel, but for the ends, which the discs cover.
            part = np.linspace(0, 1, max(2, int(length) * 2))
            part = part[(part * length > radius + 0.5) & ((1 - part) * length > radius + 0.5)]
            columns, rows = np.floor(start[:, None] + part * (end - start)[:, None]).astype(int)
            evidence = float((index[rows, columns] == colour).mean()) if len(part) else 0.5
            if evidence >= 0.3:
                found.append((-evidence, length, i, j))
    return found


def _gap(blobs: list[_Blob], group: list[int], g: int, o: int) -> float:
    """Distance in pixels between the nearest joints of two groups."""
    ours = np.array([blob[1:] for blob, owner in zip(blobs, group, strict=True) if owner == g])
    theirs = np.array([blob[1:] for blob, owner in zip(blobs, group, strict=True) if owner == o])
    return float(np.linalg.norm(ours[:, None] - theirs[None], axis=-1).min())


def _follow(frames: list[list[Floats]], joints: int) -> Floats:
    """People of all frames as `[T, P, K, 3]`: each goes on as the person whose joints were nearest, closest first."""
    tracks: list[dict[int, Floats]] = []  # by frame
    last: list[Floats] = []
    for t, people in enumerate(frames):
        costs = sorted(
            (_distance(person, seen), i, p) for i, person in enumerate(people) for p, seen in enumerate(last)
        )
        taken: dict[int, int] = {}
        for cost, i, p in costs:
            if np.isfinite(cost) and i not in taken and p not in taken.values():
                taken[i] = p
        for i, person in enumerate(people):
            p = taken.get(i, len(last))
            if p == len(last):
                last.append(person)
                tracks.append({})
            last[p] = person
            tracks[p][t] = person
    keypoints = np.tile(_ABSENT, (len(frames), len(tracks), joints, 1))
    for p, track in enumerate(tracks):
        for t, person in track.items():
            keypoints[t, p] = person
    return keypoints


def _distance(a: Floats, b: Floats) -> float:
    """Mean distance in pixels of the joints that both have; infinite beyond the size of the first person."""
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    if not both.any():
        return float("inf")
    size = float(np.nanmax(np.nanmax(a[:, :2], axis=0) - np.nanmin(a[:, :2], axis=0)))
    distance = float(np.linalg.norm(a[both, :2] - b[both, :2], axis=-1).mean())
    return distance if distance <= max(size, 1.0) else float("inf")


def _boxes(keypoints: Floats) -> Floats:
    """The smallest boxes `[T, P, 4]` around the joints; NaN for a person without any."""
    boxes = np.full((*keypoints.shape[:2], 4), np.nan, np.float32)
    present = (keypoints[..., 2] > 0).any(axis=-1)
    boxes[present, :2] = np.nanmin(keypoints[present, :, :2], axis=-2)
    boxes[present, 2:] = np.nanmax(keypoints[present, :, :2], axis=-2)
    return boxes
