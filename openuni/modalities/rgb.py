"""RGB: the clip itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from openuni.errors import BadVideoError, CorruptDataError, InvalidAnnotationError
from openuni.modalities import geometry, stored
from openuni.modalities.base import Box, Encoded, Frames, Modality, Pictures, Reading
from openuni.video import decode_video, decode_video_part, encode_video


@dataclass(frozen=True, slots=True, eq=False)
class Rgb:
    """A clip: `frames` uint8 `[T, H, W, 3]` in sRGB, `fps` frames a second. `exact` asks for lossless storage."""

    frames: Frames
    fps: float
    exact: bool = False


@dataclass(frozen=True, slots=True)
class _Meta(stored.Size):
    exact: bool


class RgbModality(Modality[Rgb]):
    """Stored as H.264 in `mp4`: crf 18, or lossless for an exact clip."""

    name = "rgb"
    prompt = "a colour video"

    def shape(self, value: Rgb) -> tuple[int, int, int]:
        frames, height, width, _ = value.frames.shape
        return frames, height, width

    def check(self, value: Rgb) -> None:
        geometry.check_array("rgb.frames", value.frames, np.uint8, ("T", "H", "W", 3))
        if not 0 < value.fps <= 1000:
            raise InvalidAnnotationError(f"rgb.fps is {value.fps}; it must lie between 0 and 1000")

    def encode(self, value: Rgb) -> Encoded:
        self.check(value)
        if not value.exact and (value.frames.shape[1] % 2 or value.frames.shape[2] % 2):
            raise InvalidAnnotationError("rgb: H.264 stores even sides only; crop a row or column, or store exactly")
        meta = _Meta(*self.shape(value), exact=value.exact)
        return Encoded({"mp4": encode_video(value.frames, value.fps, lossless=value.exact)}, stored.write_meta(meta))

    def kept(self, mp4: bytes, value: Rgb) -> Encoded:
        """The stored form of a clip that is an H.264 file already: its bytes as they are; `value` is what they show."""
        self.check(value)
        return Encoded({"mp4": mp4}, stored.write_meta(_Meta(*self.shape(value), exact=value.exact)))

    def decode(self, encoded: Encoded) -> Rgb:
        meta = stored.read_meta(_Meta, encoded)
        try:
            frames, fps = decode_video(stored.member(encoded, "mp4"))
        except BadVideoError as error:
            raise CorruptDataError(f"stored rgb: {error}") from error
        value = Rgb(frames, fps, meta.exact)
        expected = (meta.frames, meta.height, meta.width)
        if self.shape(value) != expected:
            raise CorruptDataError(f"rgb: video is {self.shape(value)} (T, H, W) instead of {expected}")
        return value

    def decode_part(self, encoded: Encoded, frames: slice) -> Rgb:
        meta = stored.read_meta(_Meta, encoded)
        start, stop = geometry.span(frames, meta.frames)
        try:
            part, fps = decode_video_part(stored.member(encoded, "mp4"), range(start, stop))
        except BadVideoError as error:
            raise CorruptDataError(f"stored rgb: {error}") from error
        value = Rgb(part, fps, meta.exact)
        expected = (stop - start, meta.height, meta.width)
        if self.shape(value) != expected:
            raise CorruptDataError(f"rgb: frames are {self.shape(value)} (T, H, W) instead of {expected}")
        return value

    def to_picture(self, value: Rgb) -> Pictures:
        """Channels / 255."""
        return value.frames.astype(np.float32) / np.float32(255)

    def from_picture(self, picture: Pictures) -> Rgb:
        """Rounded to 8 bits. The rate is not in the picture: 16 fps, the dataset's own, is assumed."""
        return Rgb(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8), 16.0)

    def show(self, value: Rgb) -> Frames:
        return value.frames

    def read_out(self, value: Rgb, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        return tuple(
            Reading(name, int(channel)) for name, channel in zip("RGB", value.frames[frame, y, x], strict=True)
        )

    def take(self, value: Rgb, frames: slice) -> Rgb:
        start, stop = geometry.span(frames, len(value.frames))
        return replace(value, frames=value.frames[start:stop])

    def crop(self, value: Rgb, box: Box) -> Rgb:
        return replace(value, frames=geometry.crop(value.frames, box))

    def resize(self, value: Rgb, height: int, width: int) -> Rgb:
        """Area averaging where the clip shrinks, bicubic where it grows."""
        _, old_height, old_width = self.shape(value)
        shrinks = height <= old_height and width <= old_width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        frames = [cv2.resize(frame, (width, height), interpolation=method) for frame in value.frames]
        return replace(value, frames=np.stack(frames))

    def flip(self, value: Rgb) -> Rgb:
        return replace(value, frames=geometry.mirror(value.frames))
