"""Normals of exact truth, which lie beside a dataset's columns, drawn and read out as its columns are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from openuni.modalities import ColourRange, Frames, Reading
from unibench.report.previews import show_normals

NAME = "normals"


@dataclass(frozen=True, slots=True, eq=False)
class Normals:
    """float32 `[T, H, W, 3]`, unit, camera axes (x right, y down, z away), towards the camera; NaN: sky."""

    vectors: npt.NDArray[np.float32]


class NormalMaps:
    """What the viewer asks of a modality. It is none: no model is trained on normals."""

    reaches: ClassVar[int] = 0
    has_colour_range = False

    def shape(self, value: Normals) -> tuple[int, int, int]:
        """Frames, height and width."""
        frames, height, width, _ = value.vectors.shape
        return frames, height, width

    def colour_range(self, value: Normals) -> ColourRange | None:
        """None: a direction has its colour."""
        return None

    def show_within(self, value: Normals, within: ColourRange | None) -> Frames:
        """Red to the right, green up, blue towards the camera."""
        return show_normals(value.vectors)

    def read_out(self, value: Normals, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        """The unit vector, and by how many degrees the surface is turned from the camera's axis."""
        vector = value.vectors[frame, y, x]
        if np.isnan(vector).any():
            return (Reading("normal", "none: sky"),)
        turned = float(np.degrees(np.arccos(np.clip(-vector[2], -1, 1))))
        axes = (Reading(f"normal {name}", float(number)) for name, number in zip("xyz", vector, strict=True))
        return (*axes, Reading("turned", round(turned, 2), "°"))

    def take(self, value: Normals, frames: slice) -> Normals:
        """Some frames."""
        return Normals(value.vectors[frames])
