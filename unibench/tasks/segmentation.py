"""Instance segmentation: ids that keep their number over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from openuni.errors import InvalidAnnotationError
from openuni.modalities.palette import for_people
from openuni.modalities.segmentation import Instance, Segmentation, at_frames
from unibench.formats.arrays import LARGEST, load_arrays, one_of
from unibench.formats.bounded import read_bytes
from unibench.formats.plain import frames_of, read_ids, stacked, whole
from unibench.metrics.segmentation import SegmentationMetric, overlaps, pair_objects
from unibench.tasks.base import Estimated, Info, Setup
from unibench.tasks.checks import Corruption, Mistake, shifts
from unibench.tasks.drawing import Image, Panel, agreement


@dataclass(frozen=True, slots=True)
class SegmentationOptions:
    """The id that marks pixels of truth as undecided: 255 in DAVIS 2017, VOC and Cityscapes."""

    ignore: int | None = None


class SegmentationTask(Estimated[Segmentation]):
    """`[T, H, W]` ids; a folder holds npz, npy or png (palette or grey: ids; colour: one instance a colour)."""

    name = "segmentation"
    judge = "jf"
    Options = SegmentationOptions

    def metric(self, setup: Setup) -> SegmentationMetric:
        del setup
        return SegmentationMetric()

    def read(self, entry: Path, info: Info, most: int = LARGEST) -> Segmentation:
        """Classes and scores come from `instances.json` beside the ids, else every instance is an `object`."""
        options: SegmentationOptions = self.options(info)
        file = whole(entry)
        if file is None:
            ids = _join_colours(stacked([read_ids(frame) for frame in frames_of(entry)], entry, 8 * most), entry)
        else:
            ids = one_of(load_arrays(file, most), ("ids", "masks", "segmentation"), file)
        if ids.ndim != 3 or ids.dtype.kind not in "iub":
            raise InvalidAnnotationError(
                f"{entry}: masks have shape {ids.shape} {ids.dtype}; they must be ids [T, H, W]"
            )
        if ids.size and (ids.min() < 0 or ids.max() > 65535):
            raise InvalidAnnotationError(f"{entry}: ids run from {ids.min()} to {ids.max()}; use 0 to 65535")
        labels = ids.astype(np.int32)
        ignored = None if options.ignore is None else labels == options.ignore
        if ignored is not None:
            labels[ignored] = 0
        table = (entry if entry.is_dir() else entry.with_suffix("")) / "instances.json"
        if not table.is_file():
            return Segmentation(labels, tuple(Instance(int(i), "object") for i in np.unique(labels) if i), ignored)
        try:
            rows = TypeAdapter(tuple[Instance, ...]).validate_json(read_bytes(table))
        except ValidationError as error:
            raise InvalidAnnotationError(f"{table} cannot be used: {error}") from error
        return Segmentation(labels, rows, ignored)

    def arrays(self, value: Segmentation) -> dict[str, npt.NDArray[Any]]:
        return {"ids": value.ids}

    def pick(self, value: Segmentation, index: npt.NDArray[np.int64]) -> Segmentation:
        return at_frames(value, index)

    def nothing(self, true: Segmentation) -> Segmentation:
        return Segmentation(np.zeros_like(true.ids), ())

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        return {"shift": Corruption((1, 2, 4, 8), _shifted), "holes": Corruption((0.02, 0.1, 0.3, 0.6), _lost)}

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return (self.mirrored(), Mistake("rows and columns are swapped", _transposed), *shifts())

    def panels(self, predicted: Segmentation, true: Segmentation, frame: int, setup: Setup) -> list[Panel]:
        return self.comparison(predicted, true, setup)(frame)

    def comparison(self, predicted: Segmentation, true: Segmentation, setup: Setup) -> Callable[[int], list[Panel]]:
        """Predicted objects wear the colour of the true object that they are paired with."""
        del setup
        pairs = pair_objects(overlaps(predicted, true))
        colour = {i.id: k + 1 for k, i in enumerate(true.instances)}
        paired = {predicted.instances[p].id: k + 1 for k, p in enumerate(pairs) if p is not None}
        spare = {i.id: len(colour) + k + 1 for k, i in enumerate(predicted.instances) if i.id not in paired}

        def panels(frame: int) -> list[Panel]:
            there, here = _renumber(true.ids[frame], colour), _renumber(predicted.ids[frame], paired | spare)
            return [
                Panel("truth", _palette(there)),
                Panel("prediction, paired", _palette(here)),
                agreement(there, here),
            ]

        return panels


def _join_colours(ids: npt.NDArray[Any], entry: Path) -> npt.NDArray[np.int64]:
    colours = np.unique(ids[ids < 0])
    if colours.size > 65535:
        raise InvalidAnnotationError(f"{entry}: more than 65535 colours; masks need one flat colour an instance")
    return np.where(ids < 0, np.searchsorted(colours, ids) + 1, ids) if colours.size else ids.astype(np.int64)


def _shifted(true: Segmentation, strength: float, rng: np.random.Generator) -> Segmentation:
    del rng
    return replace(true, ids=np.roll(true.ids, int(strength), axis=2))


def _lost(true: Segmentation, strength: float, rng: np.random.Generator) -> Segmentation:
    kept = rng.random(true.ids.shape) >= strength
    return replace(true, ids=np.where(kept, true.ids, 0).astype(np.int32))


def _transposed(value: Segmentation) -> Segmentation | None:
    _, height, width = value.ids.shape
    return replace(value, ids=np.ascontiguousarray(value.ids.transpose(0, 2, 1))) if height == width else None


def _renumber(ids: npt.NDArray[np.integer], numbers: Mapping[int, int]) -> npt.NDArray[np.int64]:
    table = np.zeros(max(int(ids.max(initial=0)), *numbers, 0) + 1, np.int64)
    for old, new in numbers.items():
        table[old] = new
    return np.asarray(table[ids])


def _palette(numbers: npt.NDArray[np.int64]) -> Image:
    return for_people(int(numbers.max(initial=0)) + 1)[numbers]
