"""`panda70m`: the CSV of Panda-70M (Chen et al., CVPR 2024), a row a source video with lists of its clips.

`--videos` holds clips already cut (`<videoID>_<n>.mp4`, n counted from 0) or whole source videos (`<videoID>.mp4`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from openuni.choosing import text
from openuni.sources.base import Request
from openuni.sources.original import as_json
from openuni.sources.rows import RowSource, csv_files, header, need, one_table
from openuni.sources.selection import Fields, Relation, Rule, clock

COLUMNS = ("videoID", "url", "timestamp", "caption", "matching_score", "desirable_filtering")
_SAID = ("videoID", "caption", "matching_score", "clip", "start", "end", "is_even")
"""Columns of `_exploded` that a clip has as they are, and those that are not the table's own."""
_LISTS = ("timestamp", "shot_boundary_detection")
"""Columns that are lists of lists, a list a clip."""
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
"""A string as Python writes it in a list."""


@dataclass(frozen=True)
class Panda70M(RowSource):
    """A clip each of a row's lists, keyed `<videoID>_<n>`; `desirable_filtering` is a column for `--where`."""

    name: ClassVar[str] = "panda70m"
    has_urls: ClassVar[bool] = True
    license: ClassVar[str] = "Panda-70M: non-commercial research only"

    def rows(self, request: Request, scratch: Path) -> Relation:
        files = one_table(self.name, request)
        columns = header(files[0])
        need(columns, COLUMNS, files[0], "a Panda-70M table")
        videos = csv_files(files, scratch, request.metadata or Path(), {})
        return replace(videos, sql=f"({_exploded(videos.sql, columns)})")

    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        return Fields(
            id="concat(videoID, '_', clip)",
            cut="concat(videoID, '_', clip)",
            by_stem=True,
            video="videoID",
            video_id="videoID",
            url="url",
            start=clock('"start"'),
            end=clock('"end"'),
            caption="caption",
            license=text(self.license),
            scores={"matching_score": "matching_score"},
            source_fields=as_json(columns, _SAID),
            faults=(
                Rule("videoID has other characters", "NOT regexp_full_match(videoID, '[A-Za-z0-9_-]{1,56}')"),
                Rule("its lists differ in length", "NOT is_even"),
            ),
        )  # fmt: skip


def _of_clip(column: str) -> str:
    """SQL for what a list of Python's says of a clip, as JSON; the whole text where it is none."""
    as_json = f"try_cast(replace({column}, '''', '\"') AS JSON)"
    return (
        f"CASE WHEN {as_json} IS NULL THEN to_json({column}) ELSE json_extract({as_json}, concat('$[', clip, ']')) END"
    )


def _exploded(videos: str, columns: Collection[str]) -> str:
    """SQL for a row a clip, of videos with these columns."""
    quoted = text(_QUOTED)
    lists = f"""
        SELECT *, regexp_extract_all(timestamp, '[0-9:.]+') AS times,
            regexp_extract_all(caption, {quoted}) AS captions,
            regexp_extract_all(matching_score, '[-+0-9.e]+') AS matches,
            regexp_extract_all(desirable_filtering, {quoted}) AS desirable
        FROM {videos}"""
    clips = (
        f"SELECT *, unnest(generate_series(0, greatest(len(times) // 2, len(captions), 1) - 1)) AS clip FROM ({lists})"
    )
    own = "".join(f", {_of_clip(column)} AS {column}" for column in _LISTS if column in columns)
    inner = r"regexp_replace(captions[clip + 1][2:-2], '\\([\\''\"])', '\1', 'g')"
    return f"""
        SELECT * EXCLUDE (times, captions, matches, desirable)
            REPLACE ({inner} AS caption, try_cast(matches[clip + 1] AS DOUBLE) AS matching_score,
                desirable[clip + 1][2:-2] AS desirable_filtering{own}),
            times[2 * clip + 1] AS "start", times[2 * clip + 2] AS "end",
            len(times) = 2 * len(captions) AND len(matches) = len(captions) AS is_even
        FROM ({clips})"""
