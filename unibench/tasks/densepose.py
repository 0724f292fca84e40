"""DensePose: part, U, V and person of every pixel of a body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities import geometry
from openuni.modalities.densepose import PARTS, DensePose
from unibench.formats.arrays import LARGEST, load_arrays, one_of
from unibench.formats.plain import read_rgb_frames, whole
from unibench.metrics.densepose import DensePoseMetric
from unibench.tasks.base import Estimated, Info, Setup
from unibench.tasks.checks import Corruption, Mistake, shifts
from unibench.tasks.drawing import Panel, agreement


@dataclass(frozen=True, slots=True)
class DensePoseOptions:
    """The layout of charts."""

    layout: str = "anny-24"


class DensePoseTask(Estimated[DensePose]):
    """A folder holds npz with `values` `[T, H, W, 4]`, or `iuv` `[T, H, W, 3]` of one person; or png: part, U, V."""

    name = "densepose"
    judge = "part_accuracy"
    Options = DensePoseOptions

    def metric(self, setup: Setup) -> DensePoseMetric:
        return DensePoseMetric(setup.geodesics)

    def read(self, entry: Path, info: Info, most: int = LARGEST) -> DensePose:
        """A file without people is of one person. Facebook's pictures, which have the part in blue, are known by it and
        have the charts `densepose-24`."""
        file, layout = whole(entry), self.options(info).layout
        if file is None:
            iuv: npt.NDArray[Any] = read_rgb_frames(entry, most)
            if iuv[..., 0].max() >= len(PARTS) > iuv[..., 2].max():
                # Facebook's own IUV pictures are written as if they were B, G, R: the part lies in blue, V in red.
                iuv, layout = iuv[..., ::-1], "densepose-24"
        else:
            iuv = one_of(load_arrays(file, most), ("values", "iuv"), file)
        if iuv.ndim != 4 or iuv.shape[-1] not in (3, 4) or iuv.dtype != np.uint8:
            raise InvalidAnnotationError(f"{entry}: {iuv.shape} {iuv.dtype}; DensePose is uint8 [T, H, W, 3 or 4]")
        if iuv.shape[-1] == 3:
            iuv = np.concatenate([iuv, (iuv[..., :1] > 0).astype(np.uint8)], axis=-1)
        return DensePose(np.where(iuv[..., :1] > 0, iuv, np.uint8(0)), layout)

    def arrays(self, value: DensePose) -> dict[str, npt.NDArray[Any]]:
        return {"values": value.values}

    def pick(self, value: DensePose, index: npt.NDArray[np.int64]) -> DensePose:
        return replace(value, values=value.values[index], confidence=None)

    def nothing(self, true: DensePose) -> DensePose:
        return DensePose(np.zeros_like(true.values), true.layout)

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        return {
            "mistaken": Corruption((0.05, 0.1, 0.3, 0.6), _mistaken),
            "shift": Corruption((1, 2, 4, 8), _shifted),
        }

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return (
            Mistake("left and right parts are swapped (sides are the person's own)", _other_parts),
            Mistake("the pictures are mirrored left to right", lambda v: replace(v, values=geometry.mirror(v.values))),
            *shifts(),
        )

    def panels(self, predicted: DensePose, true: DensePose, frame: int, setup: Setup) -> list[Panel]:
        """The error is that of the parts: charts of two layouts cannot be compared."""
        del setup
        error = agreement(true.values[frame, ..., 0], predicted.values[frame, ..., 0])
        return [
            Panel("truth", self.picture(true, frame)),
            Panel("prediction", self.picture(predicted, frame)),
            replace(error, caption=f"parts: {error.caption}"),
        ]


_OTHER_SIDE = np.array(
    [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23], np.uint8
)
"""DensePose's part on the other side of the body."""


def _other_parts(pose: DensePose) -> DensePose:
    values = pose.values.copy()
    values[..., 0] = _OTHER_SIDE[np.minimum(values[..., 0], 24)]
    return replace(pose, values=values)


def _mistaken(true: DensePose, strength: float, rng: np.random.Generator) -> DensePose:
    values = true.values.copy()
    wrong = (rng.random(values.shape[:3]) < strength) & (values[..., 0] > 0)
    values[wrong, 0] = values[wrong, 0] % 24 + 1
    return replace(true, values=values)


def _shifted(true: DensePose, strength: float, rng: np.random.Generator) -> DensePose:
    del rng
    return replace(true, values=np.roll(true.values, int(strength), axis=2))
