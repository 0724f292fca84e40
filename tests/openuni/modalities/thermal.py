"""A sixth modality in one file, as another distribution would bring it: temperature in kelvin."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities import Box, Encoded, Frames, Modality, Pictures, geometry, stored
from openuni.modalities.planes import decode_planes, encode_planes


@dataclass(frozen=True, slots=True, eq=False)
class Thermal:
    """`kelvin` float32 `[T, H, W]`, 0–655.35."""

    kelvin: npt.NDArray[np.float32]


class ThermalModality(Modality[Thermal]):
    """Stored in steps of 0.01 K; the picture spans 273–373 K."""

    name = "thermal"
    prompt = "a thermal map: warm is bright"

    def shape(self, value: Thermal) -> tuple[int, int, int]:
        frames, height, width = value.kelvin.shape
        return frames, height, width

    def check(self, value: Thermal) -> None:
        geometry.check_array("thermal.kelvin", value.kelvin, np.float32, ("T", "H", "W"))
        if not ((value.kelvin >= 0) & (value.kelvin <= 655.35)).all():
            raise InvalidAnnotationError("thermal.kelvin must lie in 0–655.35 K")

    def encode(self, value: Thermal) -> Encoded:
        self.check(value)
        codes = np.rint(value.kelvin * 100).astype(np.uint16)
        return Encoded({"thermal.mkv": encode_planes(codes)}, stored.write_meta(stored.Size(*self.shape(value))))

    def decode(self, encoded: Encoded) -> Thermal:
        size = stored.read_meta(stored.Size, encoded)
        data = stored.member(encoded, "thermal.mkv")
        codes = decode_planes(data, size.frames, size.height, size.width, np.uint16)
        return Thermal(codes.astype(np.float32) / np.float32(100))

    def to_picture(self, value: Thermal) -> Pictures:
        grey = np.clip((value.kelvin - 273) / 100, 0, 1).astype(np.float32)
        return np.repeat(grey[..., None], 3, axis=-1)

    def from_picture(self, picture: Pictures) -> Thermal:
        return Thermal((273 + 100 * picture.mean(axis=-1)).astype(np.float32))

    def show(self, value: Thermal) -> Frames:
        grey = (self.to_picture(value)[..., 0] * 255).astype(np.uint8)
        return np.stack([cv2.applyColorMap(frame, cv2.COLORMAP_INFERNO)[..., ::-1] for frame in grey])

    def take(self, value: Thermal, frames: slice) -> Thermal:
        start, stop = geometry.span(frames, len(value.kelvin))
        return Thermal(value.kelvin[start:stop])

    def crop(self, value: Thermal, box: Box) -> Thermal:
        return Thermal(geometry.crop(value.kelvin, box))

    def resize(self, value: Thermal, height: int, width: int) -> Thermal:
        return Thermal(geometry.nearest(value.kelvin, height, width))

    def flip(self, value: Thermal) -> Thermal:
        return Thermal(geometry.mirror(value.kelvin))
