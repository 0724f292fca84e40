"""`table`: any CSV, JSON lines or Parquet whose rows name videos; chosen by SQL before a video is touched.

    openuni build --source table --metadata rows.parquet --videos clips \\
        --map video=path,caption=text,start=t0,end=t1 --where "aesthetic > 5 and length(text) > 40" --sample 10000

DuckDB does the work, in bounded memory. A row keeps its numbers as scores. `--where` is SQL over the table's own
columns; `x > quantile_cont(x, .9) over ()` makes a threshold of a quantile. Rows of one id are one clip: the first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from openuni.errors import PlanError
from openuni.sample import Clip, make_key
from openuni.sources.base import Entry, Request, Skipped, Source
from openuni.sources.folder import video_root, videos_below
from openuni.storage import open_regular

if TYPE_CHECKING:
    import duckdb

FIELDS = ("video", "id", "caption", "start", "end", "license", "video_id")
"""What a column may stand for; `video` is needed, the others where there are any."""
_READERS = {
    ".csv": "read_csv({}, store_rejects = true, all_varchar = false)",
    ".tsv": "read_csv({}, store_rejects = true, all_varchar = false)",
    ".jsonl": "read_json({}, format = 'newline_delimited', ignore_errors = true)",
    ".ndjson": "read_json({}, format = 'newline_delimited', ignore_errors = true)",
    ".parquet": "read_parquet({})",
}
_MEMORY = "1GiB"
_REJECTED = "(SELECT line_byte_position AS place, max(error_type) AS kind FROM reject_errors GROUP BY ALL)"
"""One row a malformed row, which may have several faults."""
_ROWS = 4096
"""Fetched at once."""
_MOST_REJECTED = 0.2
"""Share of malformed rows from which on the file is taken for another kind of file."""
_CLOCK = re.compile(r"(?:([0-9]{1,3}):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]{1,9})?)")


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many rows were left after each step."""

    rows: int
    malformed: int
    chosen: int


class Table(Source):
    """One row a clip: its video below `--videos` by path, name or stem, cut from `start` to `end` where those are."""

    name: ClassVar[str] = "table"
    opens_videos: ClassVar[bool] = False

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        root, columns = video_root(self.name, request), _columns(request.columns)
        videos: dict[str, str] = {}
        for found in videos_below(root):
            if isinstance(found, Skipped):
                yield found
                continue
            for name in (found, PurePosixPath(found).name, PurePosixPath(found).stem):
                videos.setdefault(name, found)
        with _connect() as database:
            funnel = _choose(database, request, columns)
            if funnel.malformed:
                yield from _rejected(database, funnel)
            left = funnel.rows - funnel.chosen
            if left:
                yield Skipped(f"{left:,} of {funnel.rows:,} rows", "not chosen by --where and --sample")
            seen: set[str] = set()
            for row in _rows(database, request.metadata):
                yield _entry(row, videos, seen)

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        """The first `clip_seconds` of the row's span."""
        start, end = entry.fields["start"], entry.fields["end"]
        if end is not None and end - start < request.min_seconds:
            return [Skipped(entry.id, "clip shorter than the shortest clip")]
        longest = start + request.clip_seconds
        return [
            Clip(
                key=make_key(entry.id),
                video=str(video_root(self.name, request) / entry.fields["video"]),
                start=start,
                end=longest if end is None else min(end, longest),
                caption=entry.fields["caption"],
                source=self.name,
                source_id=entry.id,
                video_id=entry.fields["video_id"],
                license=entry.fields["license"],
                scores=entry.fields["scores"],
            )
        ]


def _columns(pairs: tuple[str, ...]) -> dict[str, str]:
    """What each field is called in the table; a field that `--map` does not name is called as it is."""
    named = dict(pair.partition("=")[::2] for pair in pairs)
    if unknown := [name for name in named if name not in FIELDS or not named[name]]:
        raise PlanError(f"--map {', '.join(unknown)}: give FIELD=COLUMN; fields are {', '.join(FIELDS)}")
    return {name: named.get(name, name) for name in FIELDS}


def _connect() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 2; SET preserve_insertion_order = true")
    return connection


def _choose(database: duckdb.DuckDBPyConnection, request: Request, columns: Mapping[str, str]) -> Funnel:
    """Make the table `chosen`, in the order of ids. Raises PlanError on a table or a condition that cannot be."""
    import duckdb

    source = _reader(request.metadata)
    try:
        database.execute(f"CREATE TEMP VIEW everything AS SELECT * FROM {source}")
        known = {name: kind for name, kind, *_ in database.execute("DESCRIBE everything").fetchall()}
        if columns["video"] not in known:
            raise PlanError(
                f"{request.metadata} has no column {columns['video']!r} for the video; it has {', '.join(known)}; "
                "name it with --map video=COLUMN"
            )
        fields = [
            f"{_quoted(column)} AS field_{name}" if column in known else f"NULL AS field_{name}"
            for name, column in columns.items()
        ]
        numbers = [name for name, kind in known.items() if _is_number(kind) and name not in columns.values()]
        scores = ", ".join(f"{_quoted(name)}::DOUBLE AS {_quoted('score_' + name)}" for name in numbers)
        row = "coalesce(field_id::VARCHAR, concat(field_video, field_start))"
        chosen = f"SELECT *, hash(concat_ws('/', {row}, {request.sample_seed})) AS draw FROM ({{}})"
        inner = f"SELECT {', '.join([*fields, scores] if scores else fields)} FROM everything"
        condition = f" WHERE {request.where}" if request.where.strip() else ""
        # QUALIFY takes windows too, so that quantiles can be thresholds.
        condition = condition.replace(" WHERE ", " QUALIFY ", 1) if "over (" in condition.lower() else condition
        limit = f" ORDER BY draw LIMIT {request.sample}" if request.sample else ""
        database.execute(f"CREATE TEMP TABLE chosen AS {chosen.format(inner + condition)}{limit}")
        rows = _count(database, "everything")
        malformed = _count(database, _REJECTED) if source.startswith("read_csv") else 0
        return Funnel(rows, malformed, _count(database, "chosen"))
    except duckdb.Error as error:
        said = str(error).split("\n", 1)[0]
        raise PlanError(f"{request.metadata}: its rows cannot be chosen: {said}; check --where and --map") from error


def _reader(metadata: Path | None) -> str:
    if metadata is None:
        raise PlanError(
            "source table needs its rows: give --metadata a .csv, .tsv, .jsonl or .parquet file, or a folder"
        )
    files = (
        [metadata] if metadata.is_file() else sorted(path for path in metadata.rglob("*") if path.suffix in _READERS)
    )
    kinds = {path.suffix for path in files}
    if len(kinds) != 1 or not kinds <= set(_READERS):
        said = ", ".join(sorted(kinds)) or "nothing"
        raise PlanError(f"{metadata} holds {said}; a table is one kind of {', '.join(_READERS)}")
    for path in files:
        open_regular(path).close()  # DuckDB would wait at a pipe
    listed = ", ".join(_literal(path) for path in files)
    return _READERS[kinds.pop()].format(f"[{listed}]")


def _literal(path: Path) -> str:
    """A file's name in SQL. DuckDB takes names for patterns: as it stands, `rows[1].csv` would read `rows1.csv`."""
    name = re.sub(r"[*?\[]", r"[\g<0>]", str(path))
    return "'" + name.replace("'", "''") + "'"


def _rejected(database: duckdb.DuckDBPyConnection, funnel: Funnel) -> Iterator[Skipped]:
    """Malformed rows by their place in bytes. Raises PlanError where they are too many for a slip."""
    rows = database.execute(f"SELECT place, kind FROM {_REJECTED} ORDER BY place LIMIT 100").fetchall()
    total = funnel.rows + funnel.malformed
    if funnel.malformed > _MOST_REJECTED * total:
        place, kind = rows[0]
        raise PlanError(
            f"{funnel.malformed:,} of {total:,} rows are malformed (the first at byte {place}, {kind.lower()}): "
            "this is not a table of that kind"
        )
    for place, kind in rows:
        yield Skipped(f"row at byte {place}", f"malformed row: {kind.lower()}")
    if funnel.malformed > len(rows):
        yield Skipped(f"{funnel.malformed - len(rows):,} more rows", "malformed rows")


def _rows(database: duckdb.DuckDBPyConnection, metadata: Path | None) -> Iterator[dict[str, Any]]:
    """The chosen rows, in the order of ids. Raises PlanError where one holds what Python has no value for."""
    import duckdb

    try:
        found = database.execute("SELECT * EXCLUDE (draw) FROM chosen ORDER BY field_id, field_video, field_start")
        names = [column[0] for column in found.description or ()]
        while rows := found.fetchmany(_ROWS):
            yield from [dict(zip(names, row, strict=True)) for row in rows]
    except (duckdb.Error, ValueError, OverflowError) as error:
        said = str(error).split("\n", 1)[0]
        raise PlanError(f"{metadata}: its rows cannot be read: {said}; map other columns with --map") from error


def _entry(row: Mapping[str, Any], videos: Mapping[str, str], seen: set[str]) -> Entry | Skipped:
    name = str(row["field_video"] or "")
    start, end = _seconds(row["field_start"]), _seconds(row["field_end"])
    key = str(row["field_id"]) if row["field_id"] is not None else _unnamed(name, start)
    if key in seen:
        return Skipped(key, "two rows of one id")
    seen.add(key)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return Skipped(key, "path leaves the folder")
    video = videos.get(name) or videos.get(path.name)
    if video is None:
        return Skipped(key, "video missing")
    if (start is not None and not 0 <= start < math.inf) or (end is not None and not (start or 0.0) < end < math.inf):
        return Skipped(key, "start and end are not a span of seconds")
    scores = {
        name.removeprefix("score_"): float(value)
        for name, value in row.items()
        if name.startswith("score_") and value is not None and math.isfinite(value)
    }
    fields = {
        "video": video,
        "start": start or 0.0,
        "end": end,
        "caption": str(row["field_caption"] or ""),
        "license": str(row["field_license"] or "unknown"),
        "video_id": str(row["field_video_id"] or video),
        "scores": scores,
    }
    return Entry(key, fields)


def _unnamed(video: str, start: float | None) -> str:
    """An id for a row that has none: its video, and where it begins."""
    stem = PurePosixPath(video).with_suffix("").as_posix()
    return stem if start is None else f"{stem}-{start:g}"


def _seconds(value: Any) -> float | None:
    """Seconds of a number, of `H:MM:SS.fff` or of a time; None where there is none, NaN where it is not a time."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    match = _CLOCK.fullmatch(str(value).strip())
    if match:
        return 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def _count(database: duckdb.DuckDBPyConnection, table: str) -> int:
    counted = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert counted is not None
    return int(counted[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_number(kind: str) -> bool:
    return kind.split("(")[0] in {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL", "UBIGINT"}
