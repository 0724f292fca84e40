"""YouTube-VIS (Yang et al. 2019, 2021): videos as folders of JPEG, masks of every object as run lengths a frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openuni.errors import CorruptDataError
from unibench.formats import coco_truth
from unibench.formats.bounded import picture_size, read_rgbs
from unibench.importers.base import Categories, Imported, LeftOut, unread

_FPS = 6.0
"""Every fifth frame of a video at 30 a second is annotated, and given."""
Rows = list[dict[str, Any]]


def read_youtube_vis(src: Path) -> Iterator[Imported | LeftOut | Categories]:
    """Videos of `<split>/instances.json` or `<split>.json` (also `annotations/instances_<split>.json`), pictures in
    `<split>/JPEGImages/` or `JPEGImages/`.

    An object keeps its id over the video. Tables without annotations (validation and test are not published) are left
    out.
    """
    tables = sorted({*src.glob("*.json"), *src.glob("*/instances*.json")})
    if not tables:
        raise CorruptDataError(f"{src} holds no instances.json; point to the folder that has train/ or valid/")
    used = {table.resolve() for table in tables}
    for table in tables:
        data = coco_truth.load(table)
        if not data.get("annotations") or "videos" not in data:
            yield LeftOut(str(table), "has no annotations of videos")
            continue
        yield Categories(coco_truth.categories(data, table))
        for item, files in _videos(src, table, data):
            yield item
            used |= {*files}
    yield from unread(src.resolve(), used)


def _videos(src: Path, table: Path, data: dict[str, Any]) -> Iterator[tuple[Imported | LeftOut, list[Path]]]:
    names = coco_truth.categories(data, table)
    pictures = _pictures(src, table)
    try:
        videos = {int(row["id"]): [str(name) for name in row["file_names"]] for row in data["videos"]}
        objects = defaultdict[int, Rows](list)
        for row in data["annotations"]:
            objects[int(row["video_id"])].append(row)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(f"{table} is not a table of YouTube-VIS: {error!r}") from error
    if strays := sorted(set(objects) - set(videos)):
        raise CorruptDataError(f"{table}: video {strays[0]} has annotations and is not listed")
    for video, files in sorted(videos.items()):
        paths = [(pictures / name).resolve() for name in files]
        if not paths or not all(path.is_relative_to(pictures.resolve()) for path in paths):
            raise CorruptDataError(f"{table}: video {video} has no frames in {pictures}")
        if not paths[0].is_file() and not paths[0].parent.is_dir():
            yield LeftOut(f"video {video} of {table}", f"has no folder {paths[0].parent}"), []
            continue
        rows = objects.get(video, [])
        size = (len(paths), *picture_size(paths[0]))
        masks = [_masks(table, row, len(paths)) for row in rows]
        truth = coco_truth.segmentation(rows, masks, names, f"{table}, video {video}", size)
        key = f"ytvis-{Path(files[0]).parent.name or video}"
        yield Imported(key, read_rgbs(paths), _FPS, segmentation=truth, number=video), paths


def _masks(table: Path, row: dict[str, Any], frames: int) -> list[Any]:
    masks = row.get("segmentations")
    if not isinstance(masks, list) or len(masks) != frames:
        raise CorruptDataError(f"{table}: annotation {row.get('id')} does not have a mask (or null) for each frame")
    return masks


def _pictures(src: Path, table: Path) -> Path:
    split = table.stem.removeprefix("instances").strip("_")
    for place in (table.parent / "JPEGImages", src / split / "JPEGImages", src / "JPEGImages"):
        if place.is_dir():
            return place
    raise CorruptDataError(f"{table} has no JPEGImages beside it; unpack the pictures too")
