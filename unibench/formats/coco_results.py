"""COCO's and YouTube-VIS's `results.json`: lists of detections, `{"image_id", "keypoints" or "segmentation", "score"}`.

A picture of the truth that the file does not name is one where nothing was found, not one that is missing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import LAYOUTS, Skeleton

_LARGEST = 2 << 30
"""Bytes that are read: COCO's test set with 20 people a picture is less."""
Rows = list[Mapping[str, Any]]


def find(folder: Path) -> Path | None:
    """The table of found key points in a run, `*results*.json` in `skeleton/` or in the run itself; None where there is
    none. Raises InvalidAnnotationError where there are several."""
    files = [file for place in (folder / "skeleton", folder) for file in sorted(place.glob("*results*.json"))]
    files = [file for file in files if file.is_file() and _of_key_points(file)]
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise InvalidAnnotationError(f"{folder} has several tables of key points ({names}); keep one")
    return files[0] if files else None


def _of_key_points(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(1 << 16)
    return head.lstrip().startswith(b"[") and b'"image_id"' in head and b'"keypoints"' in head


def read(file: Path) -> dict[str, Rows]:
    """The detections of each picture, by its id as text. Raises InvalidAnnotationError on any other file."""
    return _read(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(file: Path, changed: int) -> dict[str, Rows]:
    del changed  # a part of the cache's key
    if file.stat().st_size > _LARGEST:
        raise InvalidAnnotationError(f"{file} is larger than {_LARGEST} bytes; split it by pictures")
    try:
        data = json.loads(file.read_bytes())
        found = defaultdict[str, Rows](list)
        for row in data:
            found[str(row["image_id"])].append(row)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidAnnotationError(
            f"{file} is no list of COCO detections with an image_id each: {error!r}"
        ) from error
    return dict(found)


def skeleton(file: Path, name: str, height: int, width: int) -> Skeleton:
    """The people found in the picture `name`, ranked by their own `score`; nobody where the file has none.

    COCO's key points have pixel centres at whole numbers, so half a pixel is added. Raises InvalidAnnotationError on
    people that are not 17 numbers of three.
    """
    rows = read(file).get(name, [])
    joints = len(LAYOUTS["coco17"].joints)
    try:
        points = np.array([row["keypoints"] for row in rows], np.float32).reshape(1, len(rows), joints, 3)
        scores = np.array([row["score"] for row in rows], np.float32).reshape(1, len(rows))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InvalidAnnotationError(f"{file}: a detection in picture {name} is malformed: {error!r}") from error
    if not (np.isfinite(points).all() and np.isfinite(scores).all()):
        raise InvalidAnnotationError(f"{file}: a detection in picture {name} has numbers that are not finite")
    # COCO's evaluation takes every point for there, whatever the third number says: some write 0 or 1 for all.
    points[..., 2] = np.where(points[..., 2] > 0, np.clip(points[..., 2], 0, 1), 1)
    points[..., :2] += 0.5
    size = np.array([width, height], np.float32)
    points[..., :2] = np.clip(points[..., :2], -size, 2 * size)  # farther out is as wrong
    boxes = np.concatenate([points[..., :2].min(axis=2), points[..., :2].max(axis=2)], axis=-1)
    tracks = np.arange(len(rows), dtype=np.int32)
    return Skeleton(points, boxes, tracks, height, width, scores=scores)


def masks(rows: Sequence[Mapping[str, Any]], where: str, frames: int, height: int, width: int) -> Segmentation:
    """Detected masks of one picture (`segmentation`: RLE or polygons) or one video (YouTube-VIS's `segmentations`: an
    RLE or null for each frame) as ids, 1 and up in the order of `rows`; a class is its `category_id` as text.

    Raises InvalidAnnotationError where a mask is malformed or of another size, and where masks overlap: an id map has
    one id a pixel, and AP of what is left would be another number.
    """
    ids = np.zeros((frames, height, width), np.int32)
    table = []
    for number, row in enumerate(rows, 1):
        try:
            parts = row["segmentations"] if "segmentations" in row else [row["segmentation"]]
            table.append(Instance(number, str(row.get("category_id", "object")), float(row["score"])))
            member = np.stack([_mask(part, height, width) for part in parts])
        except (ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
            raise InvalidAnnotationError(f"{where}: mask {number} is malformed: {error!r}") from error
        if member.shape != ids.shape:
            raise InvalidAnnotationError(f"{where}: mask {number} is {member.shape}, the truth is {ids.shape}")
        if (shared := np.count_nonzero(ids[member])) > 0:
            raise InvalidAnnotationError(
                f"{where}: mask {number} shares {shared} pixels with others; ids hold one instance a pixel: give each "
                "pixel to one mask, or score overlapping masks with pycocotools"
            )
        ids[member] = number
    return Segmentation(ids, tuple(table))


def _mask(part: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    from hotcoco import mask as rle

    if part is None:
        return np.zeros((height, width), np.bool_)
    if isinstance(part, Mapping) and list(part["size"]) != [height, width]:
        raise ValueError(f"it is of size {part['size']}, the truth of {[height, width]}")
    plain = isinstance(part, list) or isinstance(part["counts"], list)  # polygons, or counts that are not packed
    encoded = rle.fr_py_objects(part, height, width) if plain else part
    encoded = rle.merge(encoded) if isinstance(encoded, list) else encoded
    return np.asarray(rle.decode(encoded), np.bool_)
