"""COCO's and YouTube-VIS's `results.json`: lists of detections, each with the `image_id` or `video_id` it was found in.

People have `keypoints`; objects a `segmentation` (YouTube-VIS: `segmentations`, one a frame), a `bbox`, or both. A
picture of the truth that the file does not name is one where nothing was found, not one that is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from openuni import rle
from openuni.errors import InvalidAnnotationError
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import LAYOUTS, Skeleton

_LARGEST = 2 << 30
"""Bytes that are read: COCO's test set with 20 people a picture is less."""
_HEAD = 1 << 22
"""Bytes that hold the first detection: a mask may be long."""
_MOST = 4096
"""Detections in a picture that are read; evaluation looks at 100 of a class."""
Rows = list[Mapping[str, Any]]


def find(folder: Path) -> dict[str, Path]:
    """The table of detections of `skeleton` and of `segmentation` in a run: `*results*.json` in a folder of that name,
    or in the run itself. Where some tables have masks, those of boxes alone are not looked at.

    Raises InvalidAnnotationError where there are several.
    """
    tables = {}
    for task, kinds in (("skeleton", ("keypoints",)), ("segmentation", ("masks", "boxes"))):
        files = [f for place in (folder / task, folder) for f in sorted(place.glob("*results*.json")) if f.is_file()]
        by_kind = {kind: [file for file in files if _kind(file) == kind] for kind in kinds}
        chosen: list[Path] = next((found for found in by_kind.values() if found), [])
        if len(chosen) > 1:
            names = ", ".join(file.name for file in chosen[:4])
            raise InvalidAnnotationError(f"{folder} has several tables of {task} results ({names}); keep one")
        if chosen:
            tables[task] = chosen[0]
    return tables


def _kind(file: Path) -> str:
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if not head.lstrip().startswith(b"[") or not (b'"image_id"' in head or b'"video_id"' in head):
        return ""
    if b'"keypoints"' in head:
        return "keypoints"
    return "masks" if b'"segmentation' in head else "boxes" if b'"bbox"' in head else ""


def read(file: Path) -> dict[str, Rows]:
    """The detections of each picture or video, by its id as text. Raises InvalidAnnotationError on any other file."""
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
            found[str(row["video_id"] if "video_id" in row else row["image_id"])].append(row)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidAnnotationError(
            f"{file} is not a list of COCO detections with an image_id (or video_id) each: {error!r}"
        ) from error
    return dict(found)


def digest(file: Path, name: str) -> str:
    """Hex digits over the detections of one picture or video."""
    return hashlib.sha256(json.dumps(read(file).get(name, []), sort_keys=True).encode()).hexdigest()


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


def segmentation(
    file: Path, name: str, frames: int, height: int, width: int, categories: Mapping[int, str]
) -> Segmentation:
    """The objects found in the picture or video `name`, ranked by their own `score`; none where the file has none.

    A class is the truth's name of its `category_id`; detections of a category that the truth does not have are left
    out, as `pycocotools` does. Where `categories` is empty, the truth has no names, and the number is the class. Of
    masks that overlap, ids show the best. Raises InvalidAnnotationError where a detection is malformed, or its mask is
    of another size.
    """
    rows = [row for row in read(file).get(name, []) if _known(row, categories)]
    masked = _kind(file) == "masks"
    if len(rows) > _MOST:
        raise InvalidAnnotationError(f"{file}: {len(rows)} detections in {name}; keep the best {_MOST}")
    shape = (frames, len(rows))
    boxes, areas = np.full((*shape, 4), np.nan), np.full(shape, np.nan)
    masks: list[list[rle.Runs | None]] = [[None] * len(rows) for _ in range(frames)]
    scores, table = np.zeros(len(rows)), []
    for p, row in enumerate(rows):
        try:
            scores[p] = _number(row["score"])
            label = str(row["category_id"]) if not categories else categories[int(row["category_id"])]
            table.append(Instance(p + 1, label, scores[p].item() if 0 <= scores[p] <= 1 else None))
            for t, part in enumerate(_parts(row, frames) if masked else [None] * frames):
                masks[t][p] = runs = None if part is None else rle.read(part, height, width)
                if runs is not None:
                    boxes[t, p], areas[t, p] = rle.box(runs, height, width), rle.area(runs)
            if frames == 1 and (corner := row.get("bbox")):
                boxes[0, p] = [_number(value) for value in corner]
                areas[0, p] = boxes[0, p, 2] * boxes[0, p, 3]  # pycocotools takes the box's, also for masks
        except (ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
            raise InvalidAnnotationError(f"{file}: detection {p + 1} in {name} is malformed: {error!r}") from error
    best_last = np.argsort(scores, kind="stable").tolist()
    ids = rle.draw(masks, best_last, frames, height, width)
    crowds = np.zeros(len(rows), np.bool_)
    return Segmentation(ids, tuple(table), objects=rle.gather(masks, boxes, areas, crowds, scores, masked=masked))


def unknown_categories(file: Path, categories: Mapping[int, str]) -> int:
    """How many detections are of a category that the truth does not have."""
    return sum(not _known(row, categories) for rows in read(file).values() for row in rows)


def _known(row: Mapping[str, Any], categories: Mapping[int, str]) -> bool:
    return not categories or row.get("category_id") in categories


def _parts(row: Mapping[str, Any], frames: int) -> list[Any]:
    parts: list[Any] = row["segmentations"] if "segmentations" in row else [row["segmentation"]]
    if len(parts) != frames:
        raise ValueError(f"{len(parts)} masks, the truth has {frames} frames")
    return parts


def _number(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{value} is not finite")
    return number
