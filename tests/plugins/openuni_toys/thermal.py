"""A sixth modality in one file: temperature in kelvin, as another distribution would add it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities import Box, Encoded, Frames, Modality, Pictures, planes

COLDEST, HOTTEST = 200.0, 400.0
_STEP = (HOTTEST - COLDEST) / 65535


@dataclass(frozen=True, slots=True, eq=False)
class Thermal:
    kelvin: npt.NDArray[np.float32]
    """`[T, H, W]`."""


class ThermalModality(Modality[Thermal]):
    name = "thermal"
    prompt = "a thermal image"

    def shape(self, value: Thermal) -> tuple[int, int, int]:
        frames, height, width = value.kelvin.shape
        return frames, height, width

    def check(self, value: Thermal) -> None:
        if value.kelvin.dtype != np.float32 or value.kelvin.ndim != 3:
            raise InvalidAnnotationError("thermal.kelvin must be float32 [T, H, W]")
        if not ((value.kelvin >= COLDEST) & (value.kelvin <= HOTTEST)).all():
            raise InvalidAnnotationError(f"thermal.kelvin must lie in [{COLDEST}, {HOTTEST}]")

    def encode(self, value: Thermal) -> Encoded:
        codes = np.rint((value.kelvin - COLDEST) / _STEP).astype(np.uint16)
        return Encoded({"thermal.mkv": planes.encode_planes(codes)}, {"shape": list(codes.shape)})

    def decode(self, encoded: Encoded) -> Thermal:
        frames, height, width = encoded.meta["shape"]
        codes = planes.decode_planes(encoded.members["thermal.mkv"], frames, height, width, np.dtype(np.uint16))
        return Thermal((codes * np.float32(_STEP) + np.float32(COLDEST)).astype(np.float32))

    def to_picture(self, value: Thermal) -> Pictures:
        grey = (value.kelvin - COLDEST) / (HOTTEST - COLDEST)
        return np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)

    def from_picture(self, picture: Pictures) -> Thermal:
        grey = np.clip(picture.mean(axis=-1), 0, 1)
        return Thermal((grey * (HOTTEST - COLDEST) + COLDEST).astype(np.float32))

    def show(self, value: Thermal) -> Frames:
        return np.rint(self.to_picture(value) * 255).astype(np.uint8)

    def take(self, value: Thermal, frames: slice) -> Thermal:
        return replace(value, kelvin=value.kelvin[frames])

    def crop(self, value: Thermal, box: Box) -> Thermal:
        return replace(value, kelvin=value.kelvin[:, box.y0 : box.y1, box.x0 : box.x1])

    def resize(self, value: Thermal, height: int, width: int) -> Thermal:
        return replace(value, kelvin=np.stack([cv2.resize(frame, (width, height)) for frame in value.kelvin]))

    def flip(self, value: Thermal) -> Thermal:
        return replace(value, kelvin=value.kelvin[:, :, ::-1].copy())
