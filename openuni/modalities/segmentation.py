"""Segmentation: which instance each pixel shows, with ids that hold over the clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import geometry, stored
from openuni.modalities.base import Box, Encoded, Frames, Modality, Pictures, Reading
from openuni.modalities.palette import COLOURS, for_people, nearest_colour, palette
from openuni.modalities.planes import decode_planes, encode_planes

_MOST_IDS = 65535
_MOST_RUNS = 2**28
"""Run lengths that a stored clip may claim: 1 GiB of them."""
_LEAST_SHARE = 1 / 5000
"""Share of the clip's pixels below which a colour of a generated picture is taken for a blend of its neighbours."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What an id stands for. `score` is the expert's in [0, 1]; `track` the id it had in the expert's own tracks.

    `crowd`, of truth: a group that nobody took apart. Its pixels are of its class; it is no object to be found.
    """

    id: Annotated[int, Field(ge=1, le=_MOST_IDS, strict=True)]
    class_name: Annotated[str, Field(min_length=1, max_length=200)]
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    track: int | None = None
    crowd: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The P instances in T frames as COCO's and YouTube-VIS's files have them: masks that overlap, boxes, crowds.

    The p-th is row p of the table of instances. `lengths` int32 `[T, P]` says how many of `runs` uint32 `[R]` are each
    mask's, frame by frame, 0 where an instance is not in a frame; runs go down the columns, background first, as COCO's
    do. Both are None where only boxes are known. `boxes` float64 `[T, P, 4]` are x, y, width, height in pixels and
    `areas` float64 `[T, P]` pixels of each mask, NaN where there is none. `crowds` bool `[P]`: a group that nobody took
    apart; what is found there is neither right nor wrong. `scores` float64 `[P]`: how sure a detector is, on any scale,
    for only their order counts; NaN where it does not say.
    """

    boxes: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    crowds: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]
    runs: npt.NDArray[np.uint32] | None = None
    lengths: npt.NDArray[np.int32] | None = None

    def masks(self) -> list[list[npt.NDArray[np.uint32] | None]]:
        """The runs of each instance's mask by frame, `[T][P]`; None where it has none."""
        frames, people = self.areas.shape
        if self.runs is None or self.lengths is None:
            return [[None] * people for _ in range(frames)]
        ends = np.cumsum(self.lengths.ravel(), dtype=np.int64).tolist()
        starts = [0, *ends][: len(ends)]
        flat = [self.runs[start:end] if end > start else None for start, end in zip(starts, ends, strict=True)]
        return [flat[t * people : (t + 1) * people] for t in range(frames)]


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """`ids` int32 `[T, H, W]`, 0 is background; `instances` has a row for each id that occurs (and may have more).

    `ignored` bool `[T, H, W]`, of truth that has it: pixels that the annotators left undecided (void, 255 in DAVIS, VOC
    and Cityscapes). Their id is 0, and scores leave them out. `objects`, where the source has more than fits an id map:
    of masks that overlap, `ids` show the one on top. They follow frames; cropped, resized or mirrored, only ids stay.
    """

    ids: npt.NDArray[np.int32]
    instances: tuple[Instance, ...]
    ignored: npt.NDArray[np.bool_] | None = None
    objects: Objects | None = None


@dataclass(frozen=True, slots=True)
class _Meta(stored.Size):
    instances: tuple[Instance, ...]
    ignored: bool = False
    """Whether the row after the last marks what is ignored; not written where there is no such row."""
    objects: Literal["", "boxes", "masks"] = ""
    runs: Annotated[int, Field(ge=0, le=_MOST_RUNS, strict=True)] = 0
    """How many there are; both unwritten where there are no objects."""

    @property
    def rows(self) -> int:
        return len(self.instances) + self.ignored


class SegmentationModality(Modality[Segmentation]):
    """Stored without loss as row of the table, counted from 1: 8 bits a pixel for up to 255 instances, else 16. The
    table travels as JSON. (Rows instead of ids: FFV1 is better at small differences, and ids may be scattered.)"""

    name = "segmentation"
    prompt = "a segmentation map: each object in a flat colour of its own on black"

    def shape(self, value: Segmentation) -> tuple[int, int, int]:
        frames, height, width = value.ids.shape
        return frames, height, width

    def check(self, value: Segmentation) -> None:
        geometry.check_array("segmentation.ids", value.ids, np.int32, ("T", "H", "W"))
        if value.ignored is not None:
            geometry.check_array("segmentation.ignored", value.ignored, np.bool_, value.ids.shape)
            if value.ids[value.ignored].any():
                raise InvalidAnnotationError("segmentation: pixels that are ignored have an id; set it to 0")
            if len(value.instances) == _MOST_IDS:
                raise InvalidAnnotationError(f"segmentation: with ignored pixels use fewer than {_MOST_IDS} instances")
        rows = [instance.id for instance in value.instances]
        if len(set(rows)) != len(rows) or any(not 1 <= row <= _MOST_IDS for row in rows):
            raise InvalidAnnotationError(f"segmentation: instance ids must differ and lie in 1 to {_MOST_IDS}")
        for instance in value.instances:
            if not instance.class_name or len(instance.class_name) > 200:
                raise InvalidAnnotationError(
                    f"segmentation: instance {instance.id} needs a class name of 1–200 letters"
                )
            if instance.score is not None and not 0 <= instance.score <= 1:
                raise InvalidAnnotationError(
                    f"segmentation: instance {instance.id} has score {instance.score}, not 0–1"
                )
        low, high = int(value.ids.min()), int(value.ids.max())
        if low < 0 or high > _MOST_IDS:
            raise InvalidAnnotationError(f"segmentation.ids run from {low} to {high}; use 0 to {_MOST_IDS}")
        if value.objects is not None:
            _check_objects(value.objects, *self.shape(value), len(rows))
        unknown = sorted(set(_present(value.ids)) - set(rows))
        if unknown:
            raise InvalidAnnotationError(f"segmentation: ids {unknown[:5]} have no row in the table of instances")

    def encode(self, value: Segmentation) -> Encoded:
        self.check(value)
        row_of = np.zeros(_MOST_IDS + 1, np.uint16)
        row_of[[instance.id for instance in value.instances]] = np.arange(1, len(value.instances) + 1)
        rows = row_of[value.ids]
        meta = _meta(*self.shape(value), value)
        if value.ignored is not None:
            rows[value.ignored] = meta.rows
        data = encode_planes(rows.astype(np.uint8)) if meta.rows <= 255 else encode_planes(rows)
        written = stored.write_meta(meta)
        members = {"segmentation.mkv": data}
        for row in written["instances"]:
            if not row["crowd"]:
                del row["crowd"]
        if not meta.ignored:
            del written["ignored"]
        if value.objects is None:
            del written["objects"], written["runs"]
        else:
            arrays = {name: array for name in _OBJECTS if (array := getattr(value.objects, name)) is not None}
            members["segmentation.npz"] = stored.pack_arrays(arrays)
        return Encoded(members, written)

    def decode(self, encoded: Encoded) -> Segmentation:
        return self.decode_part(encoded, slice(None))

    def decode_part(self, encoded: Encoded, frames: slice) -> Segmentation:
        meta = stored.read_meta(_Meta, encoded)
        dtype: type[Any] = np.uint8 if meta.rows <= 255 else np.uint16
        data = stored.member(encoded, "segmentation.mkv")
        part = range(*geometry.span(frames, meta.frames))
        rows = decode_planes(data, meta.frames, meta.height, meta.width, dtype, part)
        if rows.max() > meta.rows:
            raise CorruptDataError(f"stored segmentation: row {rows.max()} of {len(meta.instances)} instances")
        id_of = np.array([0, *(instance.id for instance in meta.instances), 0], np.int32)
        ignored = rows == meta.rows if meta.ignored else None
        objects = None
        if meta.objects:  # their runs belong together: all of them are read
            objects = Objects(**stored.unpack_arrays(stored.member(encoded, "segmentation.npz"), _layouts(meta)))
            objects = _objects_of_frames(objects, slice(part.start, part.stop))
        return stored.checked(self, Segmentation(id_of[rows], meta.instances, ignored, objects))

    def to_picture(self, value: Segmentation) -> Pictures:
        """Each instance in one of 63 colours, in the order of ids; beyond 63 those of the smallest area are left out
        (drawn as background)."""
        areas = _present(value.ids)
        kept = sorted(sorted(areas, key=lambda i: (-areas[i], i))[:COLOURS])
        colour_of = np.zeros(int(value.ids.max()) + 1, np.uint8)
        colour_of[kept] = np.arange(1, len(kept) + 1)
        return palette()[colour_of[value.ids]]

    def from_picture(self, picture: Pictures) -> Segmentation:
        """The nearest colour's number as id: right where each channel is off by less than ⅙.

        A colour on less than 1/5000 of the clip's pixels is taken for a blend at an edge, and its pixels get the most
        similar of the other colours. Lost: the ids themselves (they are renumbered in order), classes (all `object`),
        scores and tracks, instances that small, and those beyond 63.
        """
        colours = nearest_colour(picture)
        counts = np.bincount(colours.ravel(), minlength=COLOURS + 1)
        kept = np.flatnonzero(counts >= max(1.0, _LEAST_SHARE * colours.size))
        distance = ((palette()[:, None] - palette()[kept]) ** 2).sum(axis=-1)
        ids = kept[distance.argmin(axis=1)].astype(np.int32)[colours]
        return Segmentation(ids, tuple(Instance(i, "object") for i in _present(ids)))

    def show(self, value: Segmentation) -> Frames:
        """Each id in a colour of its own, outlined in black on dark grey; see `palette.for_people`."""
        ids = value.ids
        shown: Frames = for_people(int(ids.max(initial=0)) + 1).take(ids, axis=0)
        edge = np.zeros(ids.shape, bool)
        edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        edge[:, :, 1:] |= ids[:, :, 1:] != ids[:, :, :-1]
        shown[edge] = 0
        return shown

    def read_out(self, value: Segmentation, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        if value.ignored is not None and value.ignored[frame, y, x]:
            return (Reading("id", 0), Reading("class", "ignored"))
        at = int(value.ids[frame, y, x])
        row = next((instance for instance in value.instances if instance.id == at), None)
        if row is None:
            return (Reading("id", at), Reading("class", "background"))
        readings = [Reading("id", at), Reading("class", row.class_name)]
        if row.score is not None:
            readings.append(Reading("score", row.score))
        if row.track is not None:
            readings.append(Reading("track", row.track))
        return tuple(readings)

    def take(self, value: Segmentation, frames: slice) -> Segmentation:
        start, stop = geometry.span(frames, len(value.ids))
        return _of_frames(value, slice(start, stop))

    def crop(self, value: Segmentation, box: Box) -> Segmentation:
        return _each(value, lambda maps: geometry.crop(maps, box))

    def resize(self, value: Segmentation, height: int, width: int) -> Segmentation:
        """Nearest: a mean of two ids is a third object."""
        return _each(value, lambda maps: geometry.nearest(maps, height, width))

    def flip(self, value: Segmentation) -> Segmentation:
        return _each(value, geometry.mirror)


def at_frames(value: Segmentation, index: npt.NDArray[np.integer]) -> Segmentation:
    """The annotation of the frames `index` `[N]`, in that order."""
    return _of_frames(value, index)


def _of_frames(value: Segmentation, index: slice | npt.NDArray[np.integer]) -> Segmentation:
    objects = None if value.objects is None else _objects_of_frames(value.objects, index)
    return replace(_each(value, lambda maps: maps[index]), objects=objects)


def _objects_of_frames(objects: Objects, index: slice | npt.NDArray[np.integer]) -> Objects:
    lengths, runs = objects.lengths, objects.runs
    if runs is not None and lengths is not None:
        masks = objects.masks()
        kept = [mask for t in np.arange(len(masks))[index] for mask in masks[t] if mask is not None]
        lengths, runs = lengths[index], np.concatenate([*kept, runs[:0]])
    return replace(objects, boxes=objects.boxes[index], areas=objects.areas[index], runs=runs, lengths=lengths)


def _each(value: Segmentation, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Segmentation:
    """The same change to every map of a pixel each."""
    ignored = None if value.ignored is None else change(value.ignored)
    return replace(value, ids=change(value.ids), ignored=ignored, objects=None)


_OBJECTS = tuple(field.name for field in fields(Objects))


def _meta(frames: int, height: int, width: int, value: Segmentation) -> _Meta:
    runs = None if value.objects is None else value.objects.runs
    kind: Literal["", "boxes", "masks"] = "" if value.objects is None else "boxes" if runs is None else "masks"
    return _Meta(
        frames, height, width, value.instances, value.ignored is not None, kind, 0 if runs is None else len(runs)
    )


def _layouts(meta: _Meta) -> dict[str, stored.Layout]:
    size = (meta.frames, len(meta.instances))
    layouts = {
        "boxes": stored.Layout(np.float64, (*size, 4)),
        "areas": stored.Layout(np.float64, size),
        "crowds": stored.Layout(np.bool_, size[1:]),
        "scores": stored.Layout(np.float64, size[1:]),
    }
    if meta.objects == "masks":
        layouts |= {"runs": stored.Layout(np.uint32, (meta.runs,)), "lengths": stored.Layout(np.int32, size)}
    return layouts


def _check_objects(objects: Objects, frames: int, height: int, width: int, rows: int) -> None:
    size = (frames, rows)
    geometry.check_array("segmentation.objects.boxes", objects.boxes, np.float64, (*size, 4))
    geometry.check_array("segmentation.objects.areas", objects.areas, np.float64, size)
    geometry.check_array("segmentation.objects.crowds", objects.crowds, np.bool_, (rows,))
    geometry.check_array("segmentation.objects.scores", objects.scores, np.float64, (rows,))
    if any(np.isinf(numbers).any() for numbers in (objects.boxes, objects.areas, objects.scores)):
        raise InvalidAnnotationError("segmentation.objects: boxes, areas and scores must be finite, or NaN")
    if (objects.runs is None) != (objects.lengths is None):
        raise InvalidAnnotationError("segmentation.objects: masks have runs and lengths, or neither")
    if objects.runs is None or objects.lengths is None:
        return
    geometry.check_array("segmentation.objects.runs", objects.runs, np.uint32, (len(objects.runs),))
    geometry.check_array("segmentation.objects.lengths", objects.lengths, np.int32, size)
    lengths = objects.lengths[objects.lengths != 0].astype(np.int64)
    if (lengths < 0).any() or lengths.sum() != len(objects.runs) or len(objects.runs) > _MOST_RUNS:
        raise InvalidAnnotationError(f"segmentation.objects: lengths do not add up to {len(objects.runs)} runs")
    pixels = np.add.reduceat(objects.runs, np.cumsum(lengths) - lengths, dtype=np.int64) if len(lengths) else lengths
    if (pixels != height * width).any():
        raise InvalidAnnotationError(f"segmentation.objects: a mask has not the {height * width} pixels of its frame")


def _present(ids: npt.NDArray[np.int32]) -> dict[int, int]:
    """Area in pixels over the clip of each id but the background, by id."""
    counts = np.bincount(ids.ravel())
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts) if i}
