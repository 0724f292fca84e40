"""`koala36m`: rows of Koala-36M's published CSV files (Wang et al., CVPR 2025) whose videos lie in a folder.

`--metadata` is one CSV or a folder of `Koala_36M_*.csv`; `--videos` holds, at any depth, either clips already cut
(`<videoID>.mp4`) or whole source videos (`<youtubeID>.mp4`), with any known video suffix. A cut clip is preferred.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from openuni.choosing import text
from openuni.errors import PlanError
from openuni.sources.base import Request
from openuni.sources.hub import Hub
from openuni.sources.original import as_json
from openuni.sources.rows import RowSource, csv_files, header, need
from openuni.sources.selection import Fields, Relation, Rule

SCORES = ("clarity_score", "aesthetic_score", "motion_score", "video_training_suitability_score")
COLUMNS = ("videoID", "url", "timestamp", "caption", *SCORES)
_DERIVED = ("is_plain", "span", "span_start", "span_end")
_TEXTS = ("videoID", "url", "timestamp", "caption")
_CLOCK = r"(?:([0-9]{1,3}):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]{1,9})?)"
_SPAN = rf"^\s*[\[(]\s*[''\"]{_CLOCK}[''\"]\s*,\s*[''\"]{_CLOCK}[''\"]\s*[\])]\s*$"
_PARTS = "['h0', 'm0', 's0', 'h1', 'm1', 's1']"
_MICROSECONDS = r"[0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{6}"
_AS_PUBLISHED = rf"\[''{_MICROSECONDS}'', ''{_MICROSECONDS}''\]"
"""Nearly all timestamps: both times have a fixed place. To extract the parts of any other costs three times as much."""
_PLACES = (3, 21)
_LENGTH = 14


@dataclass(frozen=True)
class Koala36M(RowSource):
    """One row a clip, keyed by its videoID; rows whose video is not there, or malformed, are skipped and counted."""

    name: ClassVar[str] = "koala36m"
    has_urls: ClassVar[bool] = True
    license: ClassVar[str] = "Koala-36M: non-commercial research only"
    hub: ClassVar[Hub | None] = Hub("Koala-36M/Koala-36M-v1")

    def rows(self, request: Request, scratch: Path) -> Relation:
        if request.metadata is None:
            raise PlanError("source koala36m needs its tables: give --metadata a CSV or the folder of Koala_36M_*.csv")
        types = {**dict.fromkeys(_TEXTS, "VARCHAR"), **dict.fromkeys(SCORES, "DOUBLE")}
        tables = _tables(request.metadata)
        need(header(tables[0]), COLUMNS, tables[0], "a Koala-36M table")
        table = csv_files(tables, scratch, request.metadata, types)
        # Looked at once: a pattern costs more than all the rest of a row, and DuckDB shares nothing that is in a CASE.
        plain = f"coalesce(regexp_full_match(timestamp, '{_AS_PUBLISHED}'), false) AS is_plain"
        span = f"CASE WHEN NOT is_plain THEN regexp_extract(timestamp, '{_SPAN}', {_PARTS}) END AS span"
        told = f"SELECT *, {span} FROM (SELECT *, {plain} FROM {table.sql})"
        return replace(table, sql=f"(SELECT *, {_time(0)} AS span_start, {_time(1)} AS span_end FROM ({told}))")

    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        return Fields(
            id="videoID",
            cut="videoID",
            by_stem=True,
            takes_paths=True,  # what is wrong with an id is said below
            video=_VIDEO,
            video_id=_VIDEO,
            url="url",
            start="span_start",
            end="span_end",
            caption="caption",
            license=text(self.license),
            scores={score: score for score in SCORES},
            source_fields=as_json(columns, (*COLUMNS, *_DERIVED)),
            faults=(
                Rule(
                    "videoID is not <youtubeID>_<number>",
                    r"NOT coalesce(regexp_full_match(videoID, '[A-Za-z0-9_-]{1,56}_[0-9]{1,7}'), false)",
                ),
                Rule(
                    "timestamp is not a pair of H:MM:SS.ffffff",
                    "coalesce(trim(timestamp), '') <> '' AND span.m0 = ''",
                ),
                Rule("timestamp ends before it starts", "coalesce(span_end <= span_start, false)"),
                *(Rule(f"{score} is not a number", f"coalesce(NOT isfinite({score}), false)") for score in SCORES),
            ),
        )


_VIDEO = "left(videoID, greatest(length(videoID) - strpos(reverse(videoID), '_'), 0))"
"""What stands before the last `_`."""


def _time(end: int) -> str:
    """SQL for the seconds of one end of a timestamp."""
    return (
        f"CASE WHEN is_plain THEN epoch(substr(timestamp, {_PLACES[end]}, {_LENGTH})::INTERVAL) "
        f"ELSE try_cast(span.m{end} AS INTEGER) * 60 + try_cast(span.s{end} AS DOUBLE) "
        f"+ coalesce(try_cast(span.h{end} AS INTEGER), 0) * 3600 END"
    )


def _tables(metadata: Path) -> list[Path]:
    """The CSV files in the order of their numbers."""
    if metadata.is_file():
        return [metadata]
    numbered = re.compile(r"Koala_36M_([0-9]+)\.csv")
    found = [
        (int(match[1]), path) for path in metadata.rglob("Koala_36M_*.csv") if (match := numbered.fullmatch(path.name))
    ]
    if not found:
        raise PlanError(f"{metadata} holds no Koala_36M_<number>.csv; download the tables there, or name one CSV")
    return [path for _, path in sorted(found)]
