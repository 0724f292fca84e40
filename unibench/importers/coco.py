"""COCO key points (Lin et al. 2014): one picture a clip, 17 joints a person, from `person_keypoints_*.json`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from openuni.errors import CorruptDataError
from openuni.modalities.skeleton import Skeleton
from openuni.sample import make_key
from unibench.formats.bounded import read_rgb
from unibench.importers.base import Imported, LeftOut

_SCORE = np.array([0.0, 0.5, 1.0], np.float32)
"""Score of visibility 0 (not labelled), 1 (labelled, hidden) and 2 (labelled, seen)."""


def read_coco(src: Path) -> Iterator[Imported | LeftOut]:
    """Pictures with people: `annotations/person_keypoints_<split>.json`, pictures in `<split>/`.

    COCO's key points have pixel centres at whole numbers (its tools round them to pixels), so half a pixel is added.
    Every picture is a clip, also one without people: what is found there is wrong. Masks' areas, crowds, and people
    without a labelled joint come along, for `pycocotools` scores by them.
    """
    tables = sorted((src / "annotations").glob("person_keypoints_*.json"))
    if not tables:
        raise CorruptDataError(f"{src}/annotations holds no person_keypoints_*.json; point to COCO itself")
    for other in sorted({*(src / "annotations").iterdir()} - {*tables}):
        yield LeftOut(str(other), "is not read: only person_keypoints_*.json are")
    for table in tables:
        split = table.stem.removeprefix("person_keypoints_")
        try:
            data = json.loads(table.read_text(encoding="utf-8"))
            images = {int(row["id"]): str(row["file_name"]) for row in data["images"]}
            people = defaultdict[int, list[dict[str, Any]]](list)
            for row in data["annotations"]:
                people[int(row["image_id"])].append(row)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptDataError(f"{table} is no table of COCO's key points: {error!r}") from error
        for image in sorted({*images, *people}):
            name = images.get(image, "")
            path = (src / split / name).resolve()
            if not name or not path.is_relative_to(src.resolve()):
                raise CorruptDataError(f"{table}: image {image} is {name or 'not listed'}, no file of {src / split}")
            rgb = read_rgb(path)[None]
            people_here = _skeleton(table, image, people.get(image, []), rgb)
            yield Imported(make_key(f"coco-{Path(name).stem}"), rgb, 1.0, skeleton=people_here)


def _skeleton(
    table: Path, image: int, rows: list[dict[str, Any]], rgb: np.ndarray[Any, np.dtype[np.uint8]]
) -> Skeleton:
    try:
        points = np.array([row["keypoints"] for row in rows], np.float32).reshape(1, len(rows), 17, 3)
        boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(1, len(rows), 4)
        areas = np.array([row.get("area", np.nan) for row in rows], np.float32).reshape(1, len(rows))
        crowds = np.array([bool(row.get("iscrowd", 0)) for row in rows], np.bool_)
        points[..., 2] = _SCORE[points[..., 2].astype(int)]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise CorruptDataError(f"{table}: a person of image {image} is malformed: {error!r}") from error
    points[..., :2] += 0.5
    points[points[..., 2] == 0] = np.nan, np.nan, 0.0
    boxes[..., 2:] += boxes[..., :2]  # COCO has corner and size
    tracks = np.arange(1, len(rows) + 1, dtype=np.int32)
    height, width = rgb.shape[1:3]
    return Skeleton(points, boxes, tracks, height, width, areas=areas, crowds=crowds)
