"""Depth: distance along the optical axis, or disparity up to an affine map."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import geometry, stored
from openuni.modalities.base import Box, ColourRange, Encoded, Frames, Modality, Pictures, Reading
from openuni.modalities.planes import decode_planes, encode_planes

DepthKind = Literal["metric", "relative", "affine_disparity"]
_CODES = 65534
"""Steps between the smallest and the largest stored disparity; code 0 is kept for invalid pixels."""
_COMPACT_ERROR = 0.0025
"""Largest relative error of relative depth in compact storage, where twelve bits suffice."""
_COMPANDED_STEPS = 1022
_FAR = 400
"""In compact storage, a disparity of 1/400 of its range above the lowest is where steps turn from linear to relative.

So the error is about .3 % of depth wherever the farthest is up to 400 times as far as the nearest.
"""
_SATURATED = 0.005
"""Share of the clip's valid pixels at either end of the disparity range that a picture may saturate."""


@dataclass(frozen=True, slots=True, eq=False)
class Depth:
    """`values` float32 `[T, H, W]`, NaN where unknown (sky, holes, no surface).

    `kind` says what they are: `metric` planar depth in metres (> 0), `relative` the same up to one positive factor a
    clip, `affine_disparity` a disparity up to a positive factor and a shift a clip (larger is nearer; any sign; what
    MiDaS and Depth Anything predict). `exact` keeps float32 in storage, for rendered truth.
    """

    values: npt.NDArray[np.float32]
    kind: DepthKind
    exact: bool = False


@dataclass(frozen=True, slots=True)
class _Meta(stored.Size):
    kind: DepthKind
    exact: bool
    low: stored.Finite
    high: stored.Finite


@dataclass(frozen=True, slots=True)
class _Compact(stored.Size):
    """Of predicted depth in 10 or 12 bits: code c is `low + (c − 1) / steps · (high − low)`, and 0 is invalid.

    That is the natural logarithm of relative depth; `error` is the largest relative one. Older versions wrote affine
    disparity so as well, itself and not its logarithm, with `error` in its own unit.
    """

    kind: Literal["relative", "affine_disparity"]
    bits: Literal[10, 12]
    steps: Annotated[int, Field(ge=1, le=4094, strict=True)]
    low: stored.Finite
    high: stored.Finite
    error: stored.Finite


@dataclass(frozen=True, slots=True)
class _Companded(stored.Size):
    """Of predicted affine disparity in 10 bits, finer where it is far.

    Code c is `low + offset · ((1 + (high − low) / offset)^((c − 1) / 1022) − 1)`, and 0 is invalid. `error` is the
    largest, relative to the disparity's height above `low − offset`.
    """

    kind: Literal["affine_disparity"]
    low: stored.Finite
    high: stored.Finite
    offset: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    error: stored.Finite


class DepthModality(Modality[Depth]):
    """Stored as 16-bit disparity (1/depth, or the affine disparity itself), linear between the clip's extremes.

    Worst error: half a step of (largest − smallest disparity) / 65534. For metric depth z that is z²·(1/z_near −
    1/z_far)/131068: .12 % at 80 m where the nearest point of the clip is at .5 m. An exact clip keeps float32.

    Compact, as builds store what is predicted without a unit: relative depth in logarithms, to .25 % of itself as long
    as the farthest is no more than 7.5e8 times as far as the nearest; affine disparity d to .294 % of d − d_min +
    (d_max − d_min)/400. Once its true scale and shift are known, that is .294 % of depth where the farthest is at most
    400 times as far as the nearest. Metric depth has no compact form.
    """

    name = "depth"
    prompt = "a depth map: near surfaces are bright, far ones dark"

    def shape(self, value: Depth) -> tuple[int, int, int]:
        frames, height, width = value.values.shape
        return frames, height, width

    def check(self, value: Depth) -> None:
        geometry.check_array("depth.values", value.values, np.float32, ("T", "H", "W"))
        if value.kind not in ("metric", "relative", "affine_disparity"):
            raise InvalidAnnotationError(f"depth.kind is {value.kind!r}; use metric, relative or affine_disparity")
        if np.isinf(value.values).any():
            raise InvalidAnnotationError("depth.values hold infinities; mark what has no depth with NaN")
        if value.kind != "affine_disparity" and (value.values <= 0).any():
            low = float(np.nanmin(value.values))
            raise InvalidAnnotationError(f"{value.kind} depth goes down to {low:g}; it must be positive, or NaN")

    def encode(self, value: Depth) -> Encoded:
        self.check(value)
        size = self.shape(value)
        if value.exact:
            meta = _Meta(*size, value.kind, True, 0.0, 0.0)
            members = {"depth.npz": stored.pack_arrays({"values": value.values})}
            return Encoded(members, stored.write_meta(meta))
        disparity = _disparity(value)
        low, high = _extremes(disparity)
        codes = _codes(disparity - low, (high - low) / _CODES)
        meta = _Meta(*size, value.kind, False, low, high)
        return Encoded({"depth.mkv": encode_planes(codes)}, stored.write_meta(meta))

    def encode_compact(self, value: Depth) -> Encoded:
        if value.exact or value.kind == "metric":
            return self.encode(value)
        self.check(value)
        if value.kind == "affine_disparity":
            return self._companded(value)
        numbers = np.log(value.values.astype(np.float64))
        low, high = _extremes(numbers)
        bits, steps = _compact_steps(high - low)
        step = (high - low) / steps
        meta = _Compact(*self.shape(value), "relative", bits, steps, low, high, math.expm1(step / 2))
        members = {"depth.mkv": encode_planes(_codes(numbers - low, step), bits)}
        return Encoded(members, stored.write_meta(meta))

    def _companded(self, value: Depth) -> Encoded:
        values = value.values.astype(np.float64)
        low, high = _extremes(values)
        offset = (high - low) / _FAR or 1.0
        step = math.log1p((high - low) / offset) / _COMPANDED_STEPS
        meta = _Companded(*self.shape(value), "affine_disparity", low, high, offset, math.expm1(step / 2))
        members = {"depth.mkv": encode_planes(_codes(np.log1p((values - low) / offset), step), 10)}
        return Encoded(members, stored.write_meta(meta))

    def decode(self, encoded: Encoded) -> Depth:
        return self.decode_part(encoded, slice(None))

    def decode_part(self, encoded: Encoded, frames: slice) -> Depth:
        if "steps" in encoded.meta:
            return _decode_compact(stored.read_meta(_Compact, encoded), encoded, frames)
        if "offset" in encoded.meta:
            return _decode_companded(stored.read_meta(_Companded, encoded), encoded, frames)
        meta = stored.read_meta(_Meta, encoded)
        size = (meta.frames, meta.height, meta.width)
        part = range(*geometry.span(frames, meta.frames))
        if meta.exact:
            layout = {"values": stored.Layout(np.float32, size)}
            values = stored.unpack_arrays(stored.member(encoded, "depth.npz"), layout, part)["values"]
            return stored.checked(self, Depth(values, meta.kind, exact=True))
        codes = decode_planes(stored.member(encoded, "depth.mkv"), *size, np.uint16, part)
        # One table of 65536 values replaces arithmetic on every pixel.
        table = meta.low + (np.arange(_CODES + 2) - 1.0) * ((meta.high - meta.low) / _CODES)
        table[0] = np.nan
        if meta.kind != "affine_disparity":
            if not 0 <= meta.low <= meta.high:
                raise CorruptDataError(f"stored depth: disparity from {meta.low} to {meta.high} is not depth")
            with np.errstate(divide="ignore"):
                table = 1 / table
        return Depth(table.astype(np.float32)[codes], meta.kind)

    def to_picture(self, value: Depth) -> Pictures:
        """Grey √ of normalised disparity; invalid pixels are black, as is what lies infinitely far.

        Disparity is divided by its 99.5th percentile over the clip (affine disparity is first shifted so that its
        .5th percentile is 0) and cut to [0, 1]: the nearest .5 % of pixels saturate. The root spreads the far half
        of a scene, where disparity hardly differs, over more grey levels.
        """
        disparity = _disparity(value)
        low, high = _range(disparity)
        if value.kind != "affine_disparity":
            low = 0.0
        grey = np.sqrt(_normalise(disparity, low, high), dtype=np.float32)
        return np.repeat(grey[..., None], 3, axis=-1)

    def from_picture(self, picture: Pictures) -> Depth:
        """Affine disparity in [0, 1]: the squared mean of the channels. No pixel is invalid.

        Noise of ε in a grey level g becomes 2·g·ε of the disparity range.
        """
        grey = np.clip(picture.mean(axis=-1, dtype=np.float32), 0, 1)
        return Depth(np.square(grey), "affine_disparity")

    def show(self, value: Depth) -> Frames:
        """Viridis over the clip's disparity range: near is yellow, far violet, unknown black. Its lightness grows with
        nearness, so it reads the same without colour vision."""
        return self.show_within(value, self.colour_range(value))

    def colour_range(self, value: Depth) -> ColourRange:
        """Of disparity, without the .5 % at either end; every second pixel of every second row says it well enough."""
        return _range(_disparity(replace(value, values=value.values[:, ::2, ::2])))

    def show_within(self, value: Depth, within: ColourRange | None) -> Frames:
        return self.in_colours(value, within, cv2.COLORMAP_VIRIDIS)

    def in_colours(self, value: Depth, within: ColourRange | None, colormap: int) -> Frames:
        """In one of OpenCV's colour maps, whose upper end is near; unknown is black."""
        disparity = _disparity(value)
        grey = np.rint(_normalise(disparity, *(within or _range(disparity))) * 255).astype(np.uint8)
        ramp = np.arange(256, dtype=np.uint8)[:, None]
        colours = cv2.cvtColor(cv2.applyColorMap(ramp, colormap), cv2.COLOR_BGR2RGB)[:, 0]
        shown: Frames = colours.take(grey, axis=0)  # a fifth of the time of an index
        shown[np.isnan(disparity)] = 0
        return shown

    def read_out(self, value: Depth, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        names = {
            "metric": ("depth", "m"),
            "relative": ("depth", "relative"),
            "affine_disparity": ("disparity", "affine"),
        }
        name, unit = names[value.kind]
        return (Reading(name, float(value.values[frame, y, x]), unit),)

    def take(self, value: Depth, frames: slice) -> Depth:
        start, stop = geometry.span(frames, len(value.values))
        return replace(value, values=value.values[start:stop])

    def crop(self, value: Depth, box: Box) -> Depth:
        return replace(value, values=geometry.crop(value.values, box))

    def resize(self, value: Depth, height: int, width: int) -> Depth:
        """Nearest: interpolation would invent surfaces between a near and a far object. The values stay what they
        are, affine disparity too (unlike a stereo disparity in pixels, it has no unit of width)."""
        return replace(value, values=geometry.nearest(value.values, height, width))

    def flip(self, value: Depth) -> Depth:
        return replace(value, values=geometry.mirror(value.values))


def _compact_steps(span: float) -> tuple[Literal[10, 12], int]:
    """Bits of a code and steps for logarithms of depth over `span`: as few as keep to the error."""
    wanted = max(1, math.ceil(span / (2 * math.log1p(_COMPACT_ERROR))))
    return (10, wanted) if wanted <= 1022 else (12, min(wanted, 4094))


def _extremes(numbers: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The smallest and the largest known number; (0, 0) where none is."""
    return (0.0, 0.0) if np.isnan(numbers).all() else (float(np.nanmin(numbers)), float(np.nanmax(numbers)))


def _codes(above: npt.NDArray[np.float64], step: float) -> npt.NDArray[np.uint16]:
    """Codes from 1 on of numbers above their smallest, 0 for NaN. A constant clip, whose step is 0, is all code 1."""
    codes = np.rint(above / (step or 1.0)) + 1
    return np.where(np.isnan(codes), 0, codes).astype(np.uint16)


def _decode_compact(meta: _Compact, encoded: Encoded, frames: slice) -> Depth:
    numbers = meta.low + np.arange(meta.steps + 1) * ((meta.high - meta.low) / meta.steps)
    with np.errstate(over="ignore", under="ignore"):
        known = (np.exp(numbers) if meta.kind == "relative" else numbers).astype(np.float32)
    if not np.isfinite(known).all() or (meta.kind == "relative" and not known.all()) or meta.low > meta.high:
        raise CorruptDataError(f"stored depth: numbers from {meta.low} to {meta.high} are not {meta.kind}")
    return Depth(_looked_up(known, meta, encoded, frames, meta.bits), meta.kind)


def _decode_companded(meta: _Companded, encoded: Encoded, frames: slice) -> Depth:
    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.log1p((meta.high - meta.low) / meta.offset) / _COMPANDED_STEPS
        known = (meta.low + meta.offset * np.expm1(np.arange(_COMPANDED_STEPS + 1) * spread)).astype(np.float32)
    if not np.isfinite(known).all() or meta.low > meta.high:
        raise CorruptDataError(f"stored depth: numbers from {meta.low} to {meta.high} are not {meta.kind}")
    return Depth(_looked_up(known, meta, encoded, frames, 10), meta.kind)


def _looked_up(
    known: npt.NDArray[np.float32], size: stored.Size, encoded: Encoded, frames: slice, bits: Literal[10, 12]
) -> npt.NDArray[np.float32]:
    """Numbers of the codes from 1 on; codes that no writer of ours wrote are unknown."""
    part = range(*geometry.span(frames, size.frames))
    member = stored.member(encoded, "depth.mkv")
    codes = decode_planes(member, size.frames, size.height, size.width, np.uint16, part, bits)
    table = np.full(1 << 16, np.nan, np.float32)
    table[1 : len(known) + 1] = known
    return table[codes]


def _disparity(value: Depth) -> npt.NDArray[np.float64]:
    """Larger is nearer; NaN stays NaN. Double precision: the range may span many powers of ten."""
    values = value.values.astype(np.float64)
    return values if value.kind == "affine_disparity" else 1 / values


def _range(disparity: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Robust extremes over the whole clip (so that a picture does not flicker); (0, 1) where nothing is valid."""
    valid = disparity[~np.isnan(disparity)]
    if not valid.size:
        return 0.0, 1.0
    low, high = np.quantile(valid, [_SATURATED, 1 - _SATURATED])
    return float(low), float(high)


def _normalise(disparity: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """To [0, 1]; NaN becomes 0. A constant clip becomes 1 where it is as near as the range says."""
    scaled = (disparity - low) / (high - low) if high > low else (disparity >= high).astype(np.float64)
    return cast(npt.NDArray[np.float64], np.nan_to_num(np.clip(scaled, 0, 1), nan=0.0))
