"""Tables of true objects, COCO's `instances_*.json` and YouTube-VIS's `instances.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openuni import rle
from openuni.errors import CorruptDataError
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.formats.bounded import read_bytes

_LARGEST = 4 << 30
"""Bytes that are read: the tables of COCO's training set are half a gigabyte."""


def load(file: Path) -> dict[str, Any]:
    """The table. Raises CorruptDataError where it is none."""
    try:
        data = json.loads(read_bytes(file, _LARGEST))
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise CorruptDataError(f"{file} is not a table of images, annotations and categories")
    return data


def categories(data: Mapping[str, Any], file: Path) -> dict[int, str]:
    """The names of categories by number. Raises CorruptDataError where two numbers share one name."""
    try:
        names = {int(row["id"]): str(row["name"]) for row in data["categories"]}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(f"{file} has no table of categories: {error!r}") from error
    if len(set(names.values())) < len(names) or not all(0 < len(name) <= 200 for name in names.values()):
        raise CorruptDataError(f"{file}: its categories need names of 1–200 letters, each its own")
    return names


def segmentation(
    rows: Sequence[Mapping[str, Any]],
    masks: Sequence[Sequence[Any]],
    names: Mapping[int, str],
    where: str,
    size: tuple[int, ...],
    *,
    masked: bool = True,
) -> Segmentation:
    """The true objects `rows` of a clip of `size` (frames, height, width), `masks` `[P][T]` as COCO writes them.

    Ids show the smaller of objects that overlap, and crowds are ignored where no object is. Raises CorruptDataError on
    an object that is malformed.
    """
    frames, height, width = size
    shape = (frames, len(rows))
    boxes, areas = np.full((*shape, 4), np.nan), np.full(shape, np.nan)
    runs: list[list[rle.Runs | None]] = [[None] * len(rows) for _ in range(frames)]
    crowds, table = np.zeros(len(rows), np.bool_), []
    for p, (row, parts) in enumerate(zip(rows, masks, strict=True)):
        try:
            table.append(Instance(p + 1, names[int(row["category_id"])]))
            crowds[p] = bool(row.get("iscrowd", 0))
            for t, part in enumerate(parts):
                if part is None:
                    continue
                runs[t][p] = mask = rle.read(part, height, width)
                boxes[t, p], areas[t, p] = rle.box(mask, height, width), rle.area(mask)
            _stated(row, frames, boxes[:, p], areas[:, p])
        except (ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
            raise CorruptDataError(f"{where}: annotation {row.get('id')} is malformed: {error!r}") from error
    largest_first = np.argsort(-np.nansum(areas, axis=0), kind="stable").tolist()
    order = [p for p in largest_first if crowds[p]] + [p for p in largest_first if not crowds[p]]
    ids = rle.draw(runs, order, frames, height, width)
    ignored = np.isin(ids, np.flatnonzero(crowds) + 1)
    ids[ignored] = 0
    objects = rle.gather(runs, boxes, areas, crowds, np.full(len(rows), np.nan), masked=masked)
    return Segmentation(ids, tuple(table), ignored if ignored.any() else None, objects)


def _stated(row: Mapping[str, Any], frames: int, boxes: Any, areas: Any) -> None:
    """Boxes and areas as the table states them, in place of the masks'."""
    one = frames == 1 and "segmentations" not in row
    for values, stated in (
        (boxes, [row.get("bbox")] if one else row.get("bboxes")),
        (areas, [row.get("area")] if one else row.get("areas")),
    ):
        for t, value in enumerate(stated or ()):
            if value is not None:
                values[t] = value
    if np.isinf(boxes).any() or np.isinf(areas).any() or (areas < 0).any():
        raise ValueError("boxes and areas must be finite, areas not negative")
