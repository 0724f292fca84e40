"""`opens2v`: the JSON files of OpenS2V-5M (Yuan et al., 2025), a sample an entry, cut by frames and cropped.

`--metadata` is one `total_part<N>.json` or a folder of them; each is one object with millions of members and is
streamed. `--videos` holds the published videos as they are named in `metadata.path`. `face_cut` goes before `cut`.

Of one frame of each entry there are masks and boxes. What they are of is as in the authors' code (OpenS2V-Nexus,
data_process/step5-1_offload_frame.py): the frame with this number in the whole video, cut out by `crop`.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from openuni import rle
from openuni.choosing import text
from openuni.errors import AbsentModalityError, CorruptDataError, PlanError
from openuni.sample import Record, Sample
from openuni.source_fields import MOST_BYTES, encode
from openuni.sources import selection
from openuni.sources.base import Request
from openuni.sources.hub import Hub
from openuni.sources.rows import RowSource, need, one_table
from openuni.sources.selection import Fields, Relation, Rule
from openuni.storage import open_regular
from openuni.video.normalise import resized

SCORES = ("tech", "motion", "aesthetic")
_BATCH = 256
"""Entries are as long as their masks."""
_MOST_PIXELS = 1 << 26
"""Of a mask; who claims more is not believed."""


@dataclass(frozen=True)
class OpenS2V(RowSource):
    """Keyed by the sample's id. Frames become seconds by the entry's own `fps`; `crop` is x0, x1, y0, y1 there."""

    name: ClassVar[str] = "opens2v"
    license: ClassVar[str] = "CC-BY-4.0"
    hub: ClassVar[Hub | None] = Hub("BestWishYsh/OpenS2V-5M", "Jsons/total_part*.json")

    def rows(self, request: Request, scratch: Path) -> Relation:
        files = one_table(self.name, request, "*.json")
        parts = [_flattened(file, scratch / f"opens2v-{number}.parquet") for number, file in enumerate(files)]
        return Relation(f"read_parquet({selection.listed(parts)})", request.metadata or Path())

    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        need(columns, ("id", "path", "fps"), rows.file, "an OpenS2V-5M file")
        return Fields(
            id="id",
            takes_paths=False,
            video="path",
            video_id="path",
            start="first / fps",
            end="last / fps",
            crop="CASE WHEN crop IS NOT NULL THEN [crop[1], crop[3], crop[2], crop[4]] END",
            width="width",
            height="height",
            caption="caption",
            license=text(self.license),
            scores={score: score for score in SCORES},
            source_fields="source_fields",
            remarks=(Rule(f"masks left out: source fields larger than {MOST_BYTES} bytes", "masks_left_out"),),
            faults=(
                Rule("entry is malformed", "malformed"),
                Rule("no path of a video", "coalesce(path, '') = ''"),
                Rule("no frame rate to cut by", "NOT coalesce(fps > 0 AND isfinite(fps), false)"),
            ),
        )


def _flattened(file: Path, target: Path) -> Path:
    """What a plan needs of a JSON file, as Parquet. Raises PlanError where it is not one object of objects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = pa.float64()
    schema = pa.schema(
        {
            "id": pa.string(), "malformed": pa.bool_(),
            "path": pa.string(), "caption": pa.string(), "face_caption": pa.string(), "fps": number,
            "first": number, "last": number, "crop": pa.list_(pa.int32()), "width": number, "height": number,
            **dict.fromkeys(SCORES, number), "source_fields": pa.string(), "masks_left_out": pa.bool_(),
        }
    )  # fmt: skip
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        entries = (_entry(key, value) for key, value in _members(file))
        while batch := list(islice(entries, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return target


def _members(file: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a JSON file, streamed. Raises PlanError where it is not one object."""
    import ijson

    with open_regular(file) as source:
        if source.read(3) != codecs.BOM_UTF8:
            source.seek(0)
        if source.peek(64).lstrip()[:1] != b"{":
            raise PlanError(f"{file} is not a file of OpenS2V-5M: it is not one JSON object; download it again")
        try:
            yield from ijson.kvitems(source, "", use_float=True)
        except ijson.JSONError as error:
            why = str(error).partition("\n")[0]
            raise PlanError(f"{file} is not a file of OpenS2V-5M: {why}; download it again") from error


def _entry(key: str, value: Any) -> dict[str, Any]:
    """What a plan needs of an entry; one of another form is marked, and is a row that is left out."""
    try:
        return {"id": key, "malformed": False, **_fields(value["metadata"]), **_others(value)}
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return {"id": key, "malformed": True}


def _fields(about: Mapping[str, Any]) -> dict[str, Any]:
    cut, crop, size = about.get("face_cut") or about.get("cut"), about.get("crop"), about.get("resolution") or {}
    first, last = (None, None) if cut is None else map(float, _of(cut, 2))
    captions = about.get("cap") or [""]
    numbers = {"fps": about.get("fps"), "width": size.get("width"), "height": size.get("height")}
    numbers |= {score: about.get(score) for score in SCORES}
    texts = {
        "path": about.get("path"),
        "caption": captions[0] if isinstance(captions, list) else captions,
        "face_caption": about.get("face_cap_qwen"),
    }
    if not all(text is None or isinstance(text, str) for text in texts.values()):
        raise TypeError("text is something else")
    return {
        **texts,
        **{name: None if number is None else float(number) for name, number in numbers.items()},
        "first": first,
        "last": last,
        "crop": None if crop is None else [int(side) for side in _of(crop, 4)],
    }


def _others(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as published, as text, but for what a clip has as it is; without masks if those are too large."""
    about = {name: value for name, value in entry["metadata"].items() if name not in ("path", *SCORES)}
    if isinstance(about.get("cap"), str) or len(about.get("cap") or ()) == 1:
        del about["cap"]
    others = encode({**entry, "metadata": about})
    marked, is_large = entry.get("annotation"), len(others.encode()) > MOST_BYTES
    if is_large and isinstance(marked, Mapping):
        bare = {name: value for name, value in marked.items() if name != "mask_annotation"}
        others = encode({**entry, "metadata": about, "annotation": bare})
    return {"source_fields": others, "masks_left_out": is_large and len(others.encode()) <= MOST_BYTES}


def _of(numbers: Any, count: int) -> list[Any]:
    if not isinstance(numbers, list) or len(numbers) != count:
        raise ValueError(f"not {count} numbers")
    return numbers


@dataclass(frozen=True, slots=True)
class Segmented:
    """What is published of one frame of an entry: which things are seen, and where.

    `masks`: bool `[N, H, W]`; `boxes`: float64 `[N, 4]`, x0, y0, x1, y1 in their pixels, as the published detector
    found them (around the mask where it says none). `names` and `scores` (0–1, how sure the segmenter was) are
    of the same N things. The boxes and the masks are of two networks, and may differ by a few pixels.
    """

    id: str
    """The entry, as a clip's `source_id` names it."""
    frame: int
    """Its number: in the entry's whole video, or of `segmented_in` in the clip."""
    names: tuple[str, ...]
    scores: tuple[float, ...]
    masks: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.float64]


def segmented(file: Path) -> Iterator[Segmented]:
    """The masks in a JSON file of OpenS2V-5M, a frame at a time; entries without any are passed over.

    They are as published: of the frame as `crop` cuts it out. `segmented_in` has those of a clip in a dataset. Raises
    PlanError where the file is none of OpenS2V-5M, and CorruptDataError naming the entry whose masks are broken.

    Example:
        >>> for frame in segmented(Path("total_part1.json")):  # doctest: +SKIP
        ...     print(frame.id, frame.names, frame.masks.shape)
        gm1252760410-365677148_part2 ('white lace top', 'person') (2, 720, 1280)
    """
    for key, value in _members(file):
        try:
            yield from _segmented(key, value)
        except _BROKEN as error:
            raise CorruptDataError(f"{file}: the masks of entry {key} are broken: {error}; download it again") from None


def segmented_in(sample: Sample) -> Segmented:
    """The masks and boxes of a clip of OpenS2V-5M in a dataset, in the clip's own pixels and frames.

    They went the way of the frames: cropped if they were not before, and shrunk by area (a pixel is the thing's if at
    least half of it is). `frame` is the clip's frame that shows the published one, or is the nearest to it.

    Raises AbsentModalityError where the clip has no masks, or does not show their frame (a clip may be shorter than the
    entry), and CorruptDataError where they are broken.

    Example:
        >>> sample = openuni.open("data/opens2v")["gm1252760410-365677148_part2"]  # doctest: +SKIP
        >>> found = segmented_in(sample)  # doctest: +SKIP
        >>> sample.rgb.frames[found.frame][found.masks[0]]  # the pixels of the first thing  # doctest: +SKIP
    """
    record, entry = sample.record, sample.source_fields
    try:
        found = next(_segmented(record.source_id, entry), None)
        if found is None:
            raise AbsentModalityError(
                f"{sample.key}: its source says nothing of masks ({record.source or 'no source'})"
            )
        about = entry["metadata"]
        frame = _frame_in(record, found.frame, float(about["fps"]))
        masks, boxes = _cropped(found, about)
    except _BROKEN as error:
        raise CorruptDataError(f"{sample.key}: the masks of its source are broken: {error}") from None
    height, width = masks.shape[1:]
    size = record.height, record.width
    shrunk = [resized(mask.astype(np.uint8) * 255, *size) >= 128 for mask in masks]
    # What only loses an odd last row or column is not shrunk.
    is_cut = height - size[0] in (0, 1) and width - size[1] in (0, 1)
    scale = [1.0, 1.0] if is_cut else [size[1] / width, size[0] / height]
    limits = np.array([size[1], size[0]] * 2, np.float64)
    return replace(found, frame=frame, masks=np.stack(shrunk), boxes=np.clip(boxes * (scale * 2), 0, limits))


_BROKEN = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError)
"""What an entry of another form raises."""


def _segmented(key: str, entry: Mapping[str, Any]) -> Iterator[Segmented]:
    """What an entry says of its frame. Raises one of `_BROKEN` where it is broken."""
    about = entry.get("annotation") or {}
    boxes = [one["bbox"] for one in (about.get("ann_frame_data") or {}).get("annotations") or ()]
    for frame, things in (about.get("mask_annotation") or {}).items():
        numbers = sorted(things, key=int)
        names = tuple(str(about["mask_map"][number]["class_name"]) for number in numbers)
        masks = np.stack([_mask(things[number]) for number in numbers])
        scores = tuple(float(np.max(things[number]["score"])) for number in numbers)
        around = [
            np.array(_of(boxes[int(number) - 1], 4), np.float64) if int(number) <= len(boxes) else _box(mask)
            for number, mask in zip(numbers, masks, strict=True)
        ]
        yield Segmented(key, int(frame), names, scores, masks, np.stack(around))


def _frame_in(record: Record, frame: int, fps: float) -> int:
    """The clip's frame that shows frame number `frame` of a source video of `fps`."""
    if not (0 < fps < math.inf and frame >= 0):
        raise ValueError(f"frame {frame} at {fps} fps")
    place = (frame / fps - record.start) * record.fps
    near = [math.floor(place), math.ceil(place)]
    # On screen at a time is the last frame that began before.
    apart = [abs(math.floor((record.start + at / record.fps) * fps + 1e-3) - frame) for at in near]
    at = near[int(apart[1] < apart[0])]
    if not 0 <= at < record.frames:
        raise AbsentModalityError(
            f"{record.key}: its masks are of {frame / fps:.2f} s in the source video, which it does not show: it "
            f"begins at {record.start:.2f} s and has {record.frames} frames at {record.fps:g} fps"
        )
    return at


def _cropped(found: Segmented, about: Mapping[str, Any]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Masks and boxes of the cropped frame, as they are published; of the whole frame, if they are of that size."""
    height, width = found.masks.shape[1:]
    if about.get("crop") is None:
        return found.masks, found.boxes
    x0, x1, y0, y1 = (int(side) for side in _of(about["crop"], 4))
    if (height, width) == (y1 - y0, x1 - x0):
        return found.masks, found.boxes
    whole = about.get("resolution") or {}
    if (height, width) != (whole.get("height"), whole.get("width")) or not (
        0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    ):
        raise ValueError(f"they are of {width}×{height} pixels, which is neither the crop nor the frame")
    return found.masks[:, y0:y1, x0:x1], found.boxes - (x0, y0, x0, y0)


def _mask(thing: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask `[H, W]` of one thing. Raises ValueError where its runs do not fill it."""
    height, width = thing["size"]
    if not 0 < height * width <= _MOST_PIXELS:
        raise ValueError(f"a mask of {height}×{width} pixels")
    return rle.decode(rle.read(thing, height, width), height, width)


def _box(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1] if len(x) else [0, 0, 0, 0], np.float64)
