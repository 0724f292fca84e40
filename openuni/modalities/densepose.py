"""DensePose: which point of the body surface each pixel shows (Güler et al., CVPR 2018)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import geometry, stored
from openuni.modalities.base import Box, Encoded, Frames, Modality, Pictures, Reading
from openuni.modalities.planes import decode_planes, encode_planes

PARTS = (
    "background",
    "torso back",
    "torso front",
    "right hand",
    "left hand",
    "left foot",
    "right foot",
    "right upper leg back",
    "left upper leg back",
    "right upper leg front",
    "left upper leg front",
    "right lower leg back",
    "left lower leg back",
    "right lower leg front",
    "left lower leg front",
    "left upper arm inside",
    "right upper arm inside",
    "left upper arm outside",
    "right upper arm outside",
    "left lower arm inside",
    "right lower arm inside",
    "left lower arm outside",
    "right lower arm outside",
    "head right",
    "head left",
)
"""DensePose's numbering of the 24 parts; left and right are the person's own."""

LAYOUTS = ("anny-24", "densepose-24")
"""`anny-24`: DensePose's parts with U and V of our own baked body, whose charts run as DensePose's do (the trunk's U
from neck to hips, its V from the person's left to the right). `densepose-24`: DensePose's own charts."""

DOUBTS = (
    "the body misses its landmarks",
    "the body does not cover its mask",
    "the body is cut off by the frame",
    "the body is hidden",
    "it may be no person",
)
"""Why a person is left out of a frame, by the number in `DensePose.doubt` less 1."""

_MIRRORED = np.array(
    [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23], np.uint8
)
"""The part that a part becomes in a mirror."""
_TURNS_U, _TURNS_V = (3, 4, 5, 6, 23, 24), (1, 2)
"""Parts whose U or V runs the other way in a mirror: hands, feet and head; the trunk. Limbs keep both (the baked
body's own tests hold these)."""
_FIRST_RED = 6
"""Part p is drawn with red (6 + p) / 30: the step from background to any part is seven times that between parts,
because a speckled background would be worse than a confused part."""


@dataclass(frozen=True, slots=True, eq=False)
class DensePose:
    """`values` uint8 `[T, H, W, 4]`: part (0 background, 1–24 as in `PARTS`), U and V (0–255 over the chart), and
    person (0 background, 1… the same over the clip). `layout` says whose charts U and V are.

    `confidence` float32 `[T, P]`, 0–1, NaN where person p+1 is not in the frame; None where the expert gives none.
    `doubt` uint8 `[T, P]`: 0, or one more than the place in `DOUBTS` of the reason why the person is not drawn in
    that frame though they are there; None where the expert gives none, and never without `confidence`.
    """

    values: npt.NDArray[np.uint8]
    layout: str = "anny-24"
    confidence: npt.NDArray[np.float32] | None = None
    doubt: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class _Meta(stored.Size):
    layout: str
    people: stored.Count | None
    """Columns of `confidence`."""
    doubts: bool = False
    """Whether `doubt` is stored beside it."""


class DensePoseModality(Modality[DensePose]):
    """Stored without loss: part over U over V over person, 8 bits each; confidences in an npz beside it."""

    name = "densepose"
    prompt = "a body surface map: red is the body part, green and blue are the position on it"

    def shape(self, value: DensePose) -> tuple[int, int, int]:
        frames, height, width, _ = value.values.shape
        return frames, height, width

    def check(self, value: DensePose) -> None:
        geometry.check_array("densepose.values", value.values, np.uint8, ("T", "H", "W", 4))
        if value.layout not in LAYOUTS:
            raise InvalidAnnotationError(f"densepose.layout is {value.layout!r}; known: {', '.join(LAYOUTS)}")
        part, u, v, person = np.moveaxis(value.values, -1, 0)
        if part.max() >= len(PARTS):
            raise InvalidAnnotationError(f"densepose: part {part.max()} is not one of 0 to {len(PARTS) - 1}")
        if ((part == 0) & ((u | v | person) > 0)).any():
            raise InvalidAnnotationError("densepose: the background has U, V or a person; set them to 0")
        if ((part > 0) & (person == 0)).any():
            raise InvalidAnnotationError("densepose: a body part belongs to person 0; people count from 1")
        if value.confidence is not None:
            geometry.check_array("densepose.confidence", value.confidence, np.float32, (len(part), "P"))
            known = value.confidence[~np.isnan(value.confidence)]
            if ((known < 0) | (known > 1)).any():
                raise InvalidAnnotationError("densepose.confidence must lie in 0 to 1, or be NaN")
            if value.confidence.shape[1] < person.max():
                raise InvalidAnnotationError(f"densepose.confidence has no column for person {person.max()}")
        if value.doubt is not None:
            if value.confidence is None:
                raise InvalidAnnotationError("densepose.doubt says why confidence is low: give confidence too")
            geometry.check_array("densepose.doubt", value.doubt, np.uint8, value.confidence.shape)
            if value.doubt.max(initial=0) > len(DOUBTS):
                raise InvalidAnnotationError(f"densepose.doubt: {value.doubt.max()} is not one of 0 to {len(DOUBTS)}")

    def encode(self, value: DensePose) -> Encoded:
        self.check(value)
        frames, height, width = self.shape(value)
        planes = np.moveaxis(value.values, -1, 1).reshape(frames, 4 * height, width)
        members = {"densepose.mkv": encode_planes(planes)}
        people = None
        if value.confidence is not None:
            people = value.confidence.shape[1]
            known = {"confidence": value.confidence} | ({} if value.doubt is None else {"doubt": value.doubt})
            members["densepose.npz"] = stored.pack_arrays(known)
        meta = _Meta(frames, height, width, value.layout, people, value.doubt is not None)
        return Encoded(members, stored.write_meta(meta))

    def decode(self, encoded: Encoded) -> DensePose:
        return self.decode_part(encoded, slice(None))

    def decode_part(self, encoded: Encoded, frames: slice) -> DensePose:
        meta = stored.read_meta(_Meta, encoded)
        data = stored.member(encoded, "densepose.mkv")
        part = range(*geometry.span(frames, meta.frames))
        planes = decode_planes(data, meta.frames, 4 * meta.height, meta.width, np.uint8, part)
        values = np.moveaxis(planes.reshape(len(part), 4, meta.height, meta.width), 1, -1)
        known: dict[str, npt.NDArray[Any]] = {}
        if meta.people is not None:
            if meta.people > 255:
                raise CorruptDataError(f"stored densepose: {meta.people} people; 8 bits number 255")
            expected = {"confidence": stored.Layout(np.float32, (meta.frames, meta.people))}
            if meta.doubts:
                expected["doubt"] = stored.Layout(np.uint8, (meta.frames, meta.people))
            known = stored.unpack_arrays(stored.member(encoded, "densepose.npz"), expected, part)
        return stored.checked(self, DensePose(np.ascontiguousarray(values), meta.layout, **known))

    def to_picture(self, value: DensePose) -> Pictures:
        """Red = (6 + part) / 30, green = U, blue = V, on black. The person is not in the picture."""
        part = value.values[..., 0]
        picture = value.values[..., :3].astype(np.float32) / np.float32(255)
        picture[..., 0] = np.where(part > 0, (part + np.float32(_FIRST_RED)) / (len(PARTS) - 1 + _FIRST_RED), 0)
        return picture

    def from_picture(self, picture: Pictures) -> DensePose:
        """The nearest red: a part is right where red is off by less than 1/60, background by less than 7/60; U and V
        are as far off as green and blue.

        Lost: who is who (all are person 1), confidences, and the layout's name (`anny-24` is assumed).
        """
        red = np.clip(picture[..., 0], 0, 1) * (len(PARTS) - 1 + _FIRST_RED)
        body = red >= (_FIRST_RED + 1) / 2
        values = np.empty((*red.shape, 4), np.uint8)
        values[..., 0] = np.maximum(np.rint(red) - _FIRST_RED, 1)
        values[..., 1:3] = np.rint(np.clip(picture[..., 1:], 0, 1) * 255)
        values[..., 3] = 1
        values[~body] = 0
        return DensePose(values)

    def show(self, value: DensePose) -> Frames:
        """Parts in Viridis with lines of equal U and V, the look of DensePose's own figures; background black."""
        part, u, v = np.moveaxis(value.values[..., :3], -1, 0)
        ramp = np.linspace(40, 255, len(PARTS)).astype(np.uint8)[:, None]
        colours = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)[:, 0]
        colours[0] = 0
        shown: Frames = colours.take(part, axis=0)
        for chart in (u, v):
            ring = chart // 32  # eight lines a chart
            line = np.zeros(part.shape, bool)
            line[:, 1:] |= (ring[:, 1:] != ring[:, :-1]) & (part[:, 1:] == part[:, :-1])
            line[:, :, 1:] |= (ring[:, :, 1:] != ring[:, :, :-1]) & (part[:, :, 1:] == part[:, :, :-1])
            shown[line] = shown[line] // 2 + 120
        return shown

    def read_out(self, value: DensePose, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        part, u, v, person = map(int, value.values[frame, y, x])
        if not part:
            return (Reading("part", PARTS[0]),)
        return (Reading("part", PARTS[part]), Reading("U", u / 255), Reading("V", v / 255), Reading("person", person))

    def take(self, value: DensePose, frames: slice) -> DensePose:
        start, stop = geometry.span(frames, len(value.values))
        confidence = None if value.confidence is None else value.confidence[start:stop]
        doubt = None if value.doubt is None else value.doubt[start:stop]
        return replace(value, values=value.values[start:stop], confidence=confidence, doubt=doubt)

    def crop(self, value: DensePose, box: Box) -> DensePose:
        return replace(value, values=geometry.crop(value.values, box))

    def resize(self, value: DensePose, height: int, width: int) -> DensePose:
        """Nearest: U and V jump between charts, and parts and people are names."""
        return replace(value, values=geometry.nearest(value.values, height, width))

    def flip(self, value: DensePose) -> DensePose:
        """Mirrored: left parts become right ones, charts that a mirror turns are turned, people stay who they are.

        Raises InvalidAnnotationError for `densepose-24`: its left and right charts are not mirror images of each other
        (DensePose ships a table for that, which is not ours to copy).
        """
        if value.layout != "anny-24":
            raise InvalidAnnotationError(
                f"charts of {value.layout} have no known mirror image; leave such clips unflipped"
            )
        values = geometry.mirror(value.values)
        part = values[..., 0]
        for channel, parts in ((1, _TURNS_U), (2, _TURNS_V)):
            turned = np.isin(part, parts)
            values[..., channel][turned] = 255 - values[..., channel][turned]
        values[..., 0] = _MIRRORED[part]
        return replace(value, values=values)
