"""Optical flow: where each pixel of a frame is in the next one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import geometry, stored
from openuni.modalities.base import Box, ColourRange, Encoded, Frames, Modality, Pictures, Reading
from openuni.modalities.planes import decode_planes, encode_planes

Motion = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_STEP = 1 / 16
"""Pixels to which motion is rounded, so the worst error is 1/32 px. At 1/64 px a clip takes twice the bytes."""
_UNIT = _STEP / 8
"""Pixels a code. Only every eighth code is used: the contexts by which FFV1 codes 16-bit samples take differences of
up to four for none, and the idle bits cost next to nothing (measured: 20 to 30 % fewer bytes)."""
_ZERO = 32768
"""The code of no motion."""
_VALID, _OCCLUDED = 1, 2
"""Bits of the third stored plane."""
_LIMIT = 1 / 8
"""Motion at which a picture saturates, as a share of the frame's longer side."""
_ANGLES = 4096
"""Of the colour wheel for people."""
_FARTHEST = 4
"""Motion that `check` takes for nonsense, in longer sides of the frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Motion between neighbouring frames of a clip of T frames, in pixels, x to the right, y down; NaN where unknown.

    `forward[t]`, float32 `[T-1, H, W, 2]`: a point of frame t at x is at x + forward[t] in frame t+1.
    `occluded[t]`, bool `[T-1, H, W]`: that point is not seen in frame t+1 (hidden, or outside). None: not known.
    `backward[t]` and `backward_occluded[t]`, the same shapes, for truth: from frame t+1 to frame t, on the pixels of
    frame t+1. `exact` keeps float32 in storage, for rendered truth.
    """

    forward: Motion
    occluded: Mask | None = None
    backward: Motion | None = None
    backward_occluded: Mask | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class _Meta(stored.Size):
    exact: bool
    occluded: bool
    backward: bool
    backward_occluded: bool
    unit: stored.Finite


class FlowModality(Modality[Flow]):
    """Stored as 16-bit u over v over validity and occlusion, T frames: the last has no forward flow and is marked so.

    Motion is rounded to 1/16 px, so the worst error is 1/32 px. A clip that moves farther than 255 px in a frame gets
    codes of twice 1/128 px, as often as it needs, which beyond 2047 px rounds it more coarsely. Backward flow stands
    below, its first frame marked. An exact clip keeps float32.
    """

    name = "flow"
    reaches = 1
    prompt = "an optical flow map: red and green are motion to the right and down, blue is what stays visible"

    def shape(self, value: Flow) -> tuple[int, int, int]:
        maps, height, width, _ = value.forward.shape
        return maps + 1, height, width

    def check(self, value: Flow) -> None:
        # A clip of one frame has no flow map, so the first length may be 0: only here.
        first = value.forward.shape[0] if isinstance(value.forward, np.ndarray) and value.forward.ndim else "T-1"
        geometry.check_array("flow.forward", value.forward, np.float32, (first, "H", "W", 2))
        shape = value.forward.shape
        if value.backward is None and value.backward_occluded is not None:
            raise InvalidAnnotationError("flow.backward_occluded is given without flow.backward")
        for name, motion, mask in _directions(value):
            geometry.check_array(f"flow.{name}", motion, np.float32, shape)
            if mask is not None:
                geometry.check_array(f"flow.{name}: occlusion", mask, np.bool_, shape[:3])
            missing = np.isnan(motion)
            if np.isinf(motion).any() or (missing[..., 0] != missing[..., 1]).any():
                raise InvalidAnnotationError(f"flow.{name} is infinite or half known; mark both u and v with NaN")
            largest = _largest(motion)
            if largest > _FARTHEST * max(shape[1:3]):
                size = f"{shape[2]}×{shape[1]}"
                raise InvalidAnnotationError(f"flow.{name} moves {largest:g} px in a frame of {size}: not pixels?")

    def encode(self, value: Flow) -> Encoded:
        self.check(value)
        unit = _UNIT
        # Half a step more, because the largest motion may be rounded up.
        while max(_largest(motion) for _, motion, _ in _directions(value)) + _STEP / 2 > unit * (_ZERO - 1):
            unit *= 2
        flags = (value.occluded is not None, value.backward is not None, value.backward_occluded is not None)
        meta = _Meta(*self.shape(value), value.exact, *flags, unit)
        if value.exact:
            arrays = {name: getattr(value, name) for name in _layouts(meta)}
            return Encoded({"flow.npz": stored.pack_arrays(arrays)}, stored.write_meta(meta))
        planes = [_pack(motion, mask, unit, first=name == "backward") for name, motion, mask in _directions(value)]
        return Encoded({"flow.mkv": encode_planes(np.concatenate(planes, axis=1))}, stored.write_meta(meta))

    def decode(self, encoded: Encoded) -> Flow:
        return self.decode_part(encoded, slice(None))

    def decode_part(self, encoded: Encoded, frames: slice) -> Flow:
        meta = stored.read_meta(_Meta, encoded)
        if not _UNIT <= meta.unit <= 2**20 or meta.backward_occluded > meta.backward:
            raise CorruptDataError("stored flow: its numbers contradict each other; annotate this clip again")
        part = range(*geometry.span(frames, meta.frames))
        if meta.exact:
            maps = range(part.start, part.stop - 1)
            arrays = stored.unpack_arrays(stored.member(encoded, "flow.npz"), _layouts(meta), maps)
            return stored.checked(self, Flow(**arrays, exact=True))
        height = meta.height
        tall = 3 * height * (2 if meta.backward else 1)
        # Without backward flow the last frame of a part has no map to give.
        needed = part if meta.backward else part[:-1]
        planes = decode_planes(stored.member(encoded, "flow.mkv"), meta.frames, tall, meta.width, np.uint16, needed)
        forward, occluded = _unpack(planes[: len(part) - 1, : 3 * height], meta.unit)
        if not meta.backward:
            return Flow(forward, occluded if meta.occluded else None)
        backward, hidden = _unpack(planes[1:, 3 * height :], meta.unit)
        return Flow(forward, occluded if meta.occluded else None, backward, hidden if meta.backward_occluded else None)

    def to_picture(self, value: Flow) -> Pictures:
        """Red = ½ + u / 2L and green = ½ + v / 2L with L an eighth of the frame's longer side; blue is 1 where the
        point is seen in the next frame too, else 0.

        The scale depends on the size alone, so a picture inverts without knowing its clip. Faster motion saturates at
        ±L. Unknown pixels look like occluded ones at rest, and so does the whole last frame.
        """
        frames, height, width = self.shape(value)
        picture = np.zeros((frames, height, width, 3), np.float32)
        picture[..., :2] = 0.5
        motion = np.nan_to_num(value.forward, nan=0.0)
        picture[:-1, ..., :2] += np.clip(motion / (2 * _LIMIT * max(height, width)), -0.5, 0.5)
        visible = ~np.isnan(value.forward[..., 0])
        picture[:-1, ..., 2] = visible if value.occluded is None else visible & ~value.occluded
        return picture

    def from_picture(self, picture: Pictures) -> Flow:
        """Forward flow and occlusion (blue below ½). Noise of ε in a channel becomes ε · longer side / 4 px.

        Lost: motion beyond the limit, which pixels were unknown (they come back as occluded, at rest), backward flow.
        """
        _, height, width, _ = picture.shape
        scale = np.float32(2 * _LIMIT * max(height, width))
        forward = (np.clip(picture[:-1, ..., :2], 0, 1) - np.float32(0.5)) * scale
        return Flow(forward.astype(np.float32), picture[:-1, ..., 2] < 0.5)

    def show(self, value: Flow) -> Frames:
        """The Middlebury colour wheel (Baker et al., IJCV 2011): hue is direction, saturation speed relative to the
        clip's 99th percentile, or to 1/400 of the longer side in a clip slower than that (else a still clip would
        show its noise); unknown pixels and the last frame are black."""
        return self.show_within(value, self.colour_range(value))

    def colour_range(self, value: Flow) -> ColourRange:
        """Of speed, in pixels a frame; from 0. Every second pixel of every second row says it well enough."""
        _, height, width = self.shape(value)
        some = value.forward[:, ::2, ::2]
        speed = np.hypot(some[..., 0], some[..., 1])
        known = speed[~np.isnan(speed)]
        fastest = float(np.quantile(known, 0.99)) if known.size else 0.0
        return 0.0, max(fastest, max(height, width) / 400)

    def show_within(self, value: Flow, within: ColourRange | None) -> Frames:
        _, scale = within or self.colour_range(value)
        shown = np.zeros((*self.shape(value), 3), np.uint8)
        for picture, motion in zip(shown, value.forward, strict=False):  # one map at a time stays in the cache
            picture[:] = _middlebury(np.nan_to_num(motion, nan=0.0) / np.float32(scale))
            picture[np.isnan(motion[..., 0])] = 0
        return shown

    def read_out(self, value: Flow, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        if frame >= len(value.forward):
            return (Reading("flow", "none: the last frame"),)
        u, v = map(float, value.forward[frame, y, x])
        if math.isnan(u):
            return (Reading("flow", "unknown"),)
        readings = (Reading("u", u, "px"), Reading("v", v, "px"))
        if value.occluded is None:
            return readings
        return (*readings, Reading("seen next", "no" if value.occluded[frame, y, x] else "yes"))

    def take(self, value: Flow, frames: slice) -> Flow:
        start, stop = geometry.span(frames, len(value.forward) + 1)
        return _map(value, lambda motion: motion[start : stop - 1], lambda mask, _: mask[start : stop - 1])

    def crop(self, value: Flow, box: Box) -> Flow:
        """Motion stays; a point that leaves the box is now occluded, as one that leaves the frame is."""
        inside = Box(0, 0, box.x1 - box.x0, box.y1 - box.y0)
        return _map(
            value,
            lambda motion: geometry.crop(motion, box),
            lambda mask, motion: geometry.crop(mask, box) | _leaves(geometry.crop(motion, box), inside),
        )

    def resize(self, value: Flow, height: int, width: int) -> Flow:
        """Bilinear over the known pixels, u and v scaled as x and y are; occlusion by the nearest pixel."""
        return _map(
            value,
            lambda motion: _resize(motion, height, width),
            lambda mask, _: geometry.nearest(mask, height, width),
        )

    def flip(self, value: Flow) -> Flow:
        """Mirrored, with u negated."""
        sign = np.array([-1, 1], np.float32)
        return _map(value, lambda motion: geometry.mirror(motion) * sign, lambda mask, _: geometry.mirror(mask))


def _directions(value: Flow) -> list[tuple[str, Motion, Mask | None]]:
    forward: list[tuple[str, Motion, Mask | None]] = [("forward", value.forward, value.occluded)]
    return forward if value.backward is None else [*forward, ("backward", value.backward, value.backward_occluded)]


def _map(value: Flow, move: Callable[[Motion], Motion], hide: Callable[[Mask, Motion], Mask]) -> Flow:
    """`move` on every motion and `hide` on every mask, which also sees the motion as it was."""
    changed: dict[str, Any] = {"forward": move(value.forward)}
    if value.occluded is not None:
        changed["occluded"] = hide(value.occluded, value.forward)
    if value.backward is not None:
        changed["backward"] = move(value.backward)
        if value.backward_occluded is not None:
            changed["backward_occluded"] = hide(value.backward_occluded, value.backward)
    return replace(value, **changed)


def _layouts(meta: _Meta) -> dict[str, stored.Layout]:
    """The arrays of an exact clip."""
    shape = (meta.frames - 1, meta.height, meta.width)
    layouts = {"forward": stored.Layout(np.float32, (*shape, 2))}
    if meta.occluded:
        layouts["occluded"] = stored.Layout(np.bool_, shape)
    if meta.backward:
        layouts["backward"] = stored.Layout(np.float32, (*shape, 2))
    if meta.backward_occluded:
        layouts["backward_occluded"] = stored.Layout(np.bool_, shape)
    return layouts


def _largest(motion: Motion) -> float:
    """The largest |u| or |v| in pixels, 0 where nothing is known."""
    return float(np.nanmax(np.abs(motion), initial=0.0)) if motion.size else 0.0


def _pack(motion: Motion, occluded: Mask | None, unit: float, *, first: bool) -> npt.NDArray[np.uint16]:
    """Codes `[T, 3H, W]` of T-1 maps; the absent map is the first or the last, all zero in the third plane.

    Unknown pixels get the code of no motion: a code far from all others would cost bytes at every edge.
    """
    maps, height, width, _ = motion.shape
    planes = np.full((maps + 1, 3, height, width), _ZERO, np.uint16)
    valid = ~np.isnan(motion[..., 0])
    present = slice(1, None) if first else slice(None, -1)
    step = max(_STEP, unit)
    codes = np.rint(np.nan_to_num(motion, nan=0.0) / np.float32(step)) * np.float32(step / unit) + _ZERO
    planes[present, :2] = np.moveaxis(codes, -1, 1).astype(np.uint16)
    planes[:, 2] = 0
    planes[present, 2] = valid * _VALID
    if occluded is not None:
        planes[present, 2] |= occluded.astype(np.uint16) * np.uint16(_OCCLUDED)
    return planes.reshape(maps + 1, 3 * height, width)


def _unpack(planes: npt.NDArray[np.uint16], unit: float) -> tuple[Motion, Mask]:
    """Motion and occlusion of coded maps `[T-1, 3H, W]`."""
    maps, tall, width = planes.shape
    u, v, flags = np.moveaxis(planes.reshape(maps, 3, tall // 3, width), 1, 0)
    motion = np.empty((*u.shape, 2), np.float32)
    for axis, codes in enumerate((u, v)):
        np.subtract(codes, np.float32(_ZERO), out=motion[..., axis])
    motion *= np.float32(unit)
    motion[(flags & _VALID) == 0] = np.nan
    return motion, (flags & _OCCLUDED) != 0


def _leaves(motion: Motion, box: Box) -> Mask:
    """Where a pixel's point ends outside the box; an unknown motion leaves nothing."""
    height, width = motion.shape[1:3]
    x = np.arange(width, dtype=np.float32) + np.float32(0.5) + motion[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5) + motion[..., 1]
    return (x < box.x0) | (x >= box.x1) | (y < box.y0) | (y >= box.y1)


def _resize(motion: Motion, height: int, width: int) -> Motion:
    """Mean of the known neighbours with bilinear weights; known where they carry at least half the weight."""
    _, old_height, old_width, _ = motion.shape
    scale = np.array([width / old_width, height / old_height], np.float32)
    resized = np.empty((len(motion), height, width, 2), np.float32)
    for index, one in enumerate(motion):
        valid = ~np.isnan(one[..., 0])
        weighed = np.dstack([np.nan_to_num(one, nan=0.0), valid.astype(np.float32)])
        mixed = cv2.resize(weighed, (width, height), interpolation=cv2.INTER_LINEAR)
        weight = mixed[..., 2:]
        resized[index] = np.where(weight >= 0.5, mixed[..., :2] / np.maximum(weight, 0.5) * scale, np.nan)
    return resized


@cache
def colour_wheel() -> npt.NDArray[np.float32]:
    """The 55 hues of the Middlebury colour coding, from red over yellow, green, cyan, blue and magenta, with those in
    between at `_ANGLES` + 1 angles from -π to π: a quarter of an 8-bit level apart, so none need be made for a pixel.
    """
    segments = [
        (0, 1, 15),
        (1, 0, 6),
        (1, 2, 4),
        (2, 1, 11),
        (2, 0, 13),
        (0, 2, 6),
    ]  # full channel, changing one, steps
    hues = []
    for index, (full, changing, steps) in enumerate(segments):
        for step in range(steps):
            hue = [0.0, 0.0, 0.0]
            hue[full] = 1.0
            hue[changing] = step / steps if index % 2 == 0 else 1 - step / steps
            hues.append(hue)
    at = np.linspace(0, len(hues) - 1, _ANGLES + 1)
    return np.stack(
        [np.interp(at, range(len(hues)), channel) for channel in zip(*hues, strict=True)], -1, dtype=np.float32
    )


def _middlebury(motion: Motion) -> npt.NDArray[np.uint8]:
    """Colours `[H, W, 3]` of motions `[H, W, 2]`, speed 1 at full saturation; faster ones are darkened."""
    speed = np.hypot(motion[..., 0], motion[..., 1])
    angle = np.arctan2(-motion[..., 1], -motion[..., 0])
    angle *= np.float32(_ANGLES / 2 / np.pi)
    angle += np.float32(_ANGLES / 2)
    colour = colour_wheel().take(np.rint(angle, out=angle).astype(np.int32), axis=0)
    fast = speed > 1
    dark = colour[fast] * np.float32(0.75)
    # 1 - speed · (1 - hue), without a new array a step
    np.subtract(1, colour, out=colour)
    colour *= speed[..., None]
    np.subtract(1, colour, out=colour)
    colour[fast] = dark
    colour *= 255
    colours: npt.NDArray[np.uint8] = colour.astype(np.uint8)
    return colours
