"""`table`: any CSV, TSV, JSON lines or Parquet whose rows name videos; chosen by SQL before a video is touched.

    openuni build --source table --metadata rows.parquet --videos clips \\
        --map video=path,caption=text,start=t0,end=t1 --at-least aesthetic=90% --min-caption 40 --sample 10000

A row keeps its numbers as scores, and its other columns as source fields. Of rows of one id the first by file and time
is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from openuni.choosing import quoted
from openuni.errors import PlanError
from openuni.sources.base import Request
from openuni.sources.original import as_json
from openuni.sources.rows import RowSource, some, table_files, what_it_has
from openuni.sources.selection import Fields, Relation, clock, is_number

FIELDS = (
    "video", "id", "caption", "start", "end", "duration", "width", "height", "x0", "y0", "x1", "y1", "license",
    "video_id", "url",
)  # fmt: skip
"""What a column may stand for; `video` is needed, the others where there are any."""
_CROP = ("x0", "y0", "x1", "y1")
_TEXTS = ("video", "id", "caption", "license", "video_id", "url")
_NESTED = ("STRUCT", "MAP", "UNION", "BLOB")
"""Types, besides lists, that DuckDB would print rather than take for text: a caption would have brackets in it."""


@dataclass(frozen=True)
class Table(RowSource):
    """One row a clip: its video below `--videos` by path, name or stem, cut from `start` to `end` where those are."""

    name: ClassVar[str] = "table"
    has_urls: ClassVar[bool] = True
    map: tuple[str, ...] = ()
    """FIELD=COLUMN, comma-separated, for video, id, caption, start, end, duration, width, height, x0, y0, x1, y1 (the
    crop), license, video_id, url; a field that is not named is called as it is."""

    def rows(self, request: Request, scratch: Path) -> Relation:
        if request.metadata is None:
            raise PlanError(
                f"source {self.name} needs its rows: give --metadata a .csv, .tsv, .jsonl or .parquet file, or a folder"
            )
        named = self._named()
        return table_files(request.metadata, scratch, texts={named[field] for field in _TEXTS})

    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        named = self._named()
        if named["video"] not in columns:
            raise PlanError(
                f"{rows.file} has no column {named['video']!r} for the video; "
                f"{what_it_has(columns, rows.file)}; name it with --map video=COLUMN"
            )
        if missing := [pair for pair in self.map if pair.partition("=")[2] not in columns]:
            raise PlanError(f"--map {', '.join(missing)}: {rows.file} has no such column; it has {some(columns)}")
        for field in _TEXTS:
            if (kind := columns.get(named[field], "VARCHAR")).endswith("]") or kind.startswith(_NESTED):
                raise PlanError(
                    f"{rows.file}: column {named[field]!r} holds {kind} and not text: write one {field} a row, or name "
                    f"another column with --map {field}=COLUMN"
                )
        has = {field: column in columns for field, column in named.items()}
        sql = {field: quoted(column) if has[field] else "NULL" for field, column in named.items()}
        start = _seconds(sql["start"], columns.get(named["start"], ""))
        stem = rf"regexp_replace({sql['video']}::VARCHAR, '\.[^./]*$', '')"
        unnamed = f"{stem} || CASE WHEN {start} IS NOT NULL THEN printf('-%g', {start}) ELSE '' END"
        scores = [column for column, kind in columns.items() if is_number(kind) and column not in {*named.values()}]
        # The file's own name is the `video_id` where no column gives another.
        said = {"id", "caption", "start", "license", "video_id"} | ({"video"} if not has["video_id"] else set())
        return Fields(
            id=sql["id"] if has["id"] else unnamed,
            takes_paths=not has["id"],
            video=sql["video"],
            start=start,
            end=_seconds(sql["end"], columns.get(named["end"], "")),
            duration=_seconds(sql["duration"], columns.get(named["duration"], "")),
            crop=f"[{', '.join(f'try_cast({sql[side]} AS INTEGER)' for side in _CROP)}]"
            if all(has[c] for c in _CROP)
            else "NULL",
            width=f"try_cast({sql['width']} AS DOUBLE)",
            height=f"try_cast({sql['height']} AS DOUBLE)",
            caption=sql["caption"],
            license=sql["license"],
            video_id=sql["video_id"],
            url=sql["url"],
            scores={column: quoted(column) for column in scores},
            source_fields=as_json(columns, {named[field] for field in said}, scores),
        )

    def _named(self) -> dict[str, str]:
        """What each field is called in the table."""
        named = dict(pair.partition("=")[::2] for pair in self.map)
        if unknown := [field for field in named if field not in FIELDS or not named[field]]:
            raise PlanError(f"--map {', '.join(unknown)}: give FIELD=COLUMN; fields are {', '.join(FIELDS)}")
        return {field: named.get(field, field) for field in FIELDS}


def _seconds(column: str, kind: str) -> str:
    return f"{column}::DOUBLE" if is_number(kind) else clock(column)
