"""COCO (Lin et al. 2014): one picture a clip; key points of people, masks and boxes of objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.segmentation import Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.printable import count
from unibench.formats import coco_truth
from unibench.formats.bounded import read_rgb
from unibench.importers.base import Categories, Imported, LeftOut, unread

_SCORE = np.array([0.0, 0.5, 1.0], np.float32)
"""Score of visibility 0 (not labelled), 1 (labelled, hidden) and 2 (labelled, seen)."""
_KINDS = ("person_keypoints", "instances")
Rows = list[dict[str, Any]]


@dataclass(slots=True)
class _Table:
    """A table of annotations: its file, its pictures' names and its annotations by picture."""

    file: Path
    images: Mapping[int, str]
    annotations: Mapping[int, Rows]
    categories: Mapping[int, str] = field(default_factory=dict)
    masked: bool = False


def read_coco(src: Path) -> Iterator[Imported | LeftOut | Categories]:
    """Pictures with their people and objects: `annotations/person_keypoints_<split>.json` and `instances_<split>.json`,
    either or both, pictures in `<split>/`.

    COCO's key points have pixel centres at whole numbers (its tools round them to pixels), so half a pixel is added.
    Every picture is a clip, also one without people or objects: what is found there is wrong. Masks that overlap, their
    areas, boxes, crowds, and people without a labelled joint come along, for `pycocotools` scores by them.
    """
    folder = src / "annotations"
    files = {kind: sorted(folder.glob(f"{kind}_*.json")) for kind in _KINDS}
    if not any(files.values()):
        raise CorruptDataError(f"{folder} holds no person_keypoints_*.json or instances_*.json; point to COCO itself")
    for other in sorted({*folder.iterdir()} - {*files["person_keypoints"], *files["instances"]}):
        yield LeftOut(str(other), "is not read: only person_keypoints_*.json and instances_*.json are")
    splits = sorted({file.stem.removeprefix(f"{kind}_") for kind in _KINDS for file in files[kind]})
    for split in splits:
        tables = {kind: _read(file) for kind in _KINDS if (file := folder / f"{kind}_{split}.json") in files[kind]}
        if "instances" in tables:
            yield Categories(tables["instances"].categories)
        yield from _split(src, split, tables)
    named = (path for name in ("annotations", *splits) for path in (src / name).rglob("*"))
    yield from unread(src, named)


def _split(src: Path, split: str, tables: Mapping[str, _Table]) -> Iterator[Imported | LeftOut]:
    first = next(iter(tables.values()))
    names: dict[int, str] = {}
    for table in tables.values():
        for image, name in table.images.items():
            if names.setdefault(image, name) != name:
                raise CorruptDataError(f"{table.file}: image {image} is {name}, elsewhere {names[image]}")
    numbers = sorted({*names, *(image for table in tables.values() for image in table.annotations)})
    shown = set()
    for image in numbers:
        name = names.get(image, "")
        path = (src / split / name).resolve()
        if not name or not path.is_relative_to(src.resolve()):
            raise CorruptDataError(f"{first.file}: image {image} is {name or 'not listed'}, no file of {src / split}")
        shown.add(path)
        rgb = read_rgb(path)[None]
        people, objects = tables.get("person_keypoints"), tables.get("instances")
        truth = None
        if objects is not None:
            truth, left_out = _objects(objects, image, rgb)
            yield from left_out
        yield Imported(
            f"coco-{Path(name).stem}",
            rgb,
            1.0,
            segmentation=truth,
            skeleton=None if people is None else _skeleton(people.file, image, people.annotations.get(image, []), rgb),
            number=image,
        )
    unlisted = [path for path in sorted((src / split).iterdir()) if path.resolve() not in shown]
    if unlisted:
        yield LeftOut(f"{count(len(unlisted), 'file')} of {src / split} ({unlisted[0].name}, …)", "in no table")


def _read(file: Path) -> _Table:
    data = coco_truth.load(file)
    try:
        images = {int(row["id"]): str(row["file_name"]) for row in data["images"]}
        annotations = defaultdict[int, Rows](list)
        for row in data["annotations"]:
            annotations[int(row["image_id"])].append(row)
        masked = any(row.get("segmentation") for row in data["annotations"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(f"{file} is not a table of COCO's annotations: {error!r}") from error
    if file.stem.startswith("person_keypoints"):
        return _Table(file, images, annotations)
    return _Table(file, images, annotations, coco_truth.categories(data, file), masked)


def _objects(table: _Table, image: int, rgb: npt.NDArray[np.uint8]) -> tuple[Segmentation, list[LeftOut]]:
    rows = table.annotations.get(image, [])
    masks = [[row.get("segmentation") or None] for row in rows]
    where = f"{table.file}, image {image}"
    truth = coco_truth.segmentation(rows, masks, table.categories, where, rgb.shape[:3], masked=table.masked)
    without = [row.get("id") for row, parts in zip(rows, masks, strict=True) if table.masked and parts == [None]]
    return truth, [LeftOut(f"the mask of annotation {number}", "is not there; its box counts") for number in without]


def _skeleton(table: Path, image: int, rows: Rows, rgb: npt.NDArray[np.uint8]) -> Skeleton:
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
