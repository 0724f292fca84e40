"""`koala36m`: rows of Koala-36M's published CSV files (Wang et al., CVPR 2025) whose videos lie in a folder.

`--metadata` is one CSV or a folder of `Koala_36M_*.csv`; `--videos` holds, at any depth, either clips already cut
(`<videoID>.mp4`) or whole source videos (`<youtubeID>.mp4`), with any known video suffix. A cut clip is preferred.
"""

from __future__ import annotations

import ast
import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources import text
from openuni.sources.base import Entry, Request, Skipped, Source
from openuni.sources.folder import video_root, videos_below
from openuni.sources.text import UnknownEncodingError

SCORES = ("clarity_score", "aesthetic_score", "motion_score", "video_training_suitability_score")
COLUMNS = ("videoID", "url", "timestamp", "caption", *SCORES)
FIELD_CHARACTERS = 1 << 20
"""The longest field that is read; a longer one (a lost quote) is a malformed row."""

_VIDEO_ID = re.compile(r"(?P<source>[A-Za-z0-9_-]{1,56})_[0-9]{1,7}")
_UNDECODED = re.compile("[\udc80-\udcff]")
"""Bytes that are not in the table's encoding, as `surrogateescape` leaves them."""
_TIME = re.compile(r"(?:([0-9]{1,3}):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]{1,9})?)")


class _MalformedRowError(ValueError):
    """The message, one of a few, is the reason to skip the row."""


class Koala36M(Source):
    """One row a clip, keyed by its videoID; rows whose video is not there, or malformed, are skipped and counted."""

    name: ClassVar[str] = "koala36m"
    license: ClassVar[str] = "Koala-36M: non-commercial research only"
    opens_videos: ClassVar[bool] = False

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        tables = _tables(request.metadata)
        root = video_root(self.name, request)
        videos: dict[str, str] = {}
        for found in videos_below(root):
            if isinstance(found, Skipped):
                yield found
            elif videos.setdefault(Path(found).stem, found) != found:
                yield Skipped(found, "another video of this name is used")
        for table in tables:
            encoding = _encoding(table)
            if encoding not in text.UTF8:
                yield Skipped(table.name, f"table is not UTF-8 and was read as {encoding}")
            for place, row in _rows(table, encoding):
                if isinstance(row, _MalformedRowError):
                    yield Skipped(place, str(row))
                    continue
                try:
                    yield _entry(row, videos)
                except _MalformedRowError as error:
                    yield Skipped(place, str(error))

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        """The first `clip_seconds` of the row's span: the caption tells of the clip, and the key is the row's."""
        start, end = entry.fields["start"], entry.fields["end"]
        if end is not None and end - start < request.min_seconds:
            return [Skipped(entry.id, "clip shorter than the shortest clip")]
        longest = start + request.clip_seconds
        return [
            Clip(
                key=entry.id,
                video=str(video_root(self.name, request) / entry.fields["video"]),
                start=start,
                end=longest if end is None else min(end, longest),
                caption=entry.fields["caption"],
                source=self.name,
                source_id=entry.id,
                video_id=entry.fields["video_id"],
                license=self.license,
                scores=entry.fields["scores"],
            )
        ]


def _tables(metadata: Path | None) -> list[Path]:
    """The CSV files in the order of their numbers."""
    if metadata is None:
        raise PlanError("source koala36m needs its tables: give --metadata a CSV or the folder of Koala_36M_*.csv")
    if metadata.is_file():
        return [metadata]
    numbered = re.compile(r"Koala_36M_([0-9]+)\.csv")
    found = [
        (int(match[1]), path) for path in metadata.glob("Koala_36M_*.csv") if (match := numbered.fullmatch(path.name))
    ]
    if not found:
        raise PlanError(f"{metadata} holds no Koala_36M_<number>.csv; download the tables there, or name one CSV")
    return [path for _, path in sorted(found)]


def _encoding(table: Path) -> str:
    """Raises PlanError where it cannot be told."""
    with table.open("rb") as file:
        sample = file.read(text.SAMPLE_BYTES)
    try:
        return text.encoding_of(sample)
    except UnknownEncodingError as error:
        raise PlanError(f"{table}: {error}") from error


def _rows(table: Path, encoding: str) -> Iterator[tuple[str, Mapping[str, str] | _MalformedRowError]]:
    """Each row with its place (`file:line` of its last line). Raises PlanError where the columns are other ones."""
    # A byte that is not in the encoding becomes half a surrogate pair, by which its row is known.
    with table.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        # The csv module has one limit for the process. Lines are read in bounded pieces: a file may have none.
        csv.field_size_limit(max(csv.field_size_limit(), FIELD_CHARACTERS))
        reader = csv.reader(iter(lambda: file.readline(FIELD_CHARACTERS), ""), strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise PlanError(f"{table} is not a Koala-36M table: {error}") from error
        if absent := [name for name in COLUMNS if name not in header]:
            raise PlanError(f"{table} is not a Koala-36M table: it has no column {', '.join(absent)}")
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield f"{table.name}:{reader.line_num}", _MalformedRowError("row is not CSV")
                continue
            except UnicodeDecodeError:
                yield f"{table.name}:{reader.line_num}", _MalformedRowError(f"from here on the table is not {encoding}")
                return
            place = f"{table.name}:{reader.line_num}"
            if any(map(_UNDECODED.search, cells)):
                yield place, _MalformedRowError("row is not in the table's encoding; save it as UTF-8")
            elif len(cells) == len(header):
                yield place, dict(zip(header, cells, strict=True))
            elif cells:
                yield place, _MalformedRowError("row has too many or too few fields")


def _entry(row: Mapping[str, str], videos: Mapping[str, str]) -> Entry | Skipped:
    name = row["videoID"]
    match = _VIDEO_ID.fullmatch(name)
    if match is None:
        raise _MalformedRowError("videoID is not <youtubeID>_<number>")
    span = _span(row["timestamp"])
    scores = {column: _score(row[column], column) for column in SCORES if row[column].strip()}
    source = match["source"]
    if name in videos:
        video, start, end = videos[name], 0.0, None if span is None else span[1] - span[0]
    elif source not in videos:
        return Skipped(name, "video missing")
    elif span is None:
        return Skipped(name, "no timestamp to cut the whole video by")
    else:
        video, (start, end) = videos[source], span
    fields = {
        "video": video,
        "start": start,
        "end": end,
        "caption": row["caption"],
        "video_id": source,
        "scores": scores,
    }
    return Entry(name, fields)


def _span(text: str) -> tuple[float, float] | None:
    """Start and end in seconds of `"['0:00:05.005000', '0:00:11.011000']"`; None where blank."""
    if not text.strip():
        return None
    try:
        first, second = ast.literal_eval(text[:200].strip())
        start, end = _seconds(first), _seconds(second)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _MalformedRowError("timestamp is not a pair of H:MM:SS.ffffff") from error
    if end <= start:
        raise _MalformedRowError("timestamp ends before it starts")
    return start, end


def _seconds(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])


def _score(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise _MalformedRowError(f"{column} is not a number") from error
    if not math.isfinite(value):
        raise _MalformedRowError(f"{column} is not a number")
    return value
