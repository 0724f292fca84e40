"""Sources whose rows are a table: what a source says of its columns, and how its files are read.

A source of this kind is one file of a few lines: `rows` names the files, `fields` says in SQL what a clip's fields are
called there. Choosing, joining with the videos at hand, judging and sorting are `selection.select`'s.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, ClassVar

from openuni import choosing, source_fields
from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources import selection, text
from openuni.sources.base import Entry, Request, Skipped, Source
from openuni.sources.folder import video_root, videos_below
from openuni.sources.records import BROKEN_GZIP, delimiter_of, head_of, looks_like, parted_by
from openuni.sources.selection import Choice, ChosenRows, Fields, Relation
from openuni.sources.text import UnknownEncodingError
from openuni.sources.unreadable import unreadable
from openuni.storage import open_regular

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Of tables; text may be compressed (`.csv.gz`)."""
_PACKED = (".gz",)
LONGEST_ROW = 2 << 20
"""Bytes of a row; a longer one (a lost quote) is malformed."""
_TYPES = {
    "BOOLEAN": "lower({}) IN ('true', 'false')",
    "BIGINT": "regexp_full_match({}, '[-+]?[0-9]{{1,18}}')",
    "DOUBLE": "try_cast({} AS DOUBLE) IS NOT NULL",
    "DATE": "regexp_full_match({0}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') AND try_cast({0} AS DATE) IS NOT NULL",
    "TIMESTAMP": "regexp_matches({0}, '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T]') AND "
    "try_cast({0} AS TIMESTAMP) IS NOT NULL",
}
"""What a column may hold but text, and what is true then of each of its values."""
_LOOKED_AT = 20_480
"""Rows by which types are told; DuckDB looks at as many."""
_LOOKS_OF_TEXT = ("DATE", "TIMESTAMP", "TIME", "UUID")
"""What DuckDB takes text in JSON for, and would write in a form of its own."""


@dataclass(frozen=True)
class RowSource(Source):
    """A source whose rows are chosen in SQL. Subclasses are frozen dataclasses too where they have more options."""

    name: ClassVar[str]
    opens_videos: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("metadata", "videos")
    choice: Choice = field(default=Choice(), kw_only=True)
    """Which of the rows; an option each, its own."""

    @abstractmethod
    def rows(self, request: Request, scratch: Path) -> Relation:
        """The source's files as DuckDB reads them. Raises PlanError naming what is missing and where to put it."""

    @abstractmethod
    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        """What a clip's fields are, over `columns` (names and types). Raises PlanError where a column is missing."""

    def wanted(self, request: Request, scratch: Path) -> Iterator[Wanted]:
        """The videos of the chosen rows, at hand or not, by name; files go to the folder `scratch`."""
        with selection.connected(scratch) as database:
            rows = self.rows(request, scratch)
            fields = self.fields(selection.describe(database, rows), rows)
            listing = self.listing(request) if request.videos and request.videos.is_dir() else ()
            chosen = selection.select(database, rows, fields, self.choice, request, listing, self.name, at_hand=False)
            _check_has_rows(chosen, rows)
            found = database.execute("SELECT name, url, is_here FROM asked")
            while some := found.fetchmany(1024):
                for name, url, is_here in some:
                    yield Wanted(name, url, is_here)

    def listing(self, request: Request) -> Iterator[str | Skipped]:
        """The videos at hand."""
        return videos_below(video_root(self.name, request))

    def check(self, request: Request) -> None:
        with scratch_folder() as scratch, selection.connected(scratch) as database:
            rows = self.rows(request, scratch)
            self.fields(selection.describe(database, rows), rows)
        video_root(self.name, request)

    @contextmanager
    def select(
        self, request: Request, scratch: Path, limit: int | None = None, known: tuple[Path, ...] = ()
    ) -> Iterator[ChosenRows]:
        """Choose rows; files go to the folder `scratch`. `known` are plans whose keys are not to come again.

        Raises PlanError where a table cannot be read or a condition cannot be evaluated.
        """
        with selection.connected(scratch) as database:
            rows = self.rows(request, scratch)
            fields = self.fields(selection.describe(database, rows), rows)
            listing = self.listing(request)
            chosen = selection.select(
                database, rows, fields, self.choice, request, listing, self.name, limit=limit, known=known
            )
            _check_has_rows(chosen, rows)
            yield chosen

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        """The chosen rows, for those who want to look at them one by one; a plan is made of `select`."""
        with scratch_folder() as scratch, self.select(request, scratch) as selected:
            for fields in _dictionaries(selected, "left_out"):
                yield Skipped(**fields)
            for fields in _dictionaries(selected, "clips"):
                yield Entry(fields["key"], fields)

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        """The one clip of a row."""
        fields = dict(entry.fields)
        crop, scores, own = fields.pop("crop"), fields.pop("scores"), fields.pop("source_fields", None)
        return [
            Clip(
                **fields,
                crop=tuple(crop) if crop else None,
                scores=dict(scores),
                source_fields=source_fields.decode(own or "{}"),
            )
        ]


def _check_has_rows(chosen: ChosenRows, rows: Relation) -> None:
    if not chosen.funnel[0].left:
        raise PlanError(f"{rows.file} has no rows, only names of columns; download or write it again")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A video that chosen rows are cut from."""

    name: str
    """As the rows name it: a path below the folder of videos, or a file's name with or without its suffix."""
    url: str
    """A file or a page on the web; empty where the rows do not say."""
    is_here: bool = False


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what DuckDB keeps, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="openuni-rows-") as folder:
        yield Path(folder)


def csv_files(
    files: list[Path],
    scratch: Path,
    named: Path,
    types: Mapping[str, str] | None = None,
    delimiter: str = ",",
    texts: Collection[str] = (),
) -> Relation:
    """CSV files of one kind. `types` are those of columns that are no text; None looks at the first rows for them.

    Columns `texts` stay text, whatever is in them. `delimiter` is the usual one: where a file's line of names has only
    another, that is taken, and said. Files that are not UTF-8 are rewritten into `scratch`, and said. Raises PlanError
    where files differ, cannot be read, or an encoding is unknown.
    """
    _check_not_empty(files)
    paths, remarks = _as_utf8(files, scratch)
    delimiters = {file: delimiter_of(_first_line(file), delimiter) for file in paths}
    for file, found in zip(files, delimiters.values(), strict=True):
        if found != delimiter:
            remarks.append(Skipped(file.name, f"table was read as parted by {parted_by(found)}"))
    if len({*delimiters.values()}) > 1:
        said = ", ".join(f"{file.name} by {parted_by(found)}" for file, found in list(delimiters.items())[:4])
        raise PlanError(f"{named}: its files are parted differently ({said}); write them all as one kind of table")
    delimiter = next(iter(delimiters.values()), delimiter)
    listed = selection.listed(paths)
    names = _names(paths, delimiter)

    def read(types: Mapping[str, str]) -> Relation:
        # All is told, nothing guessed by DuckDB: where it guesses, one odd row among the first refuses the whole file.
        columns = ", ".join(f"{choosing.text(name)}: {choosing.text(types.get(name, 'VARCHAR'))}" for name in names)
        sql = (
            f"read_csv({listed}, header = true, delim = {choosing.text(delimiter)}, quote = '\"', escape = '\"', "
            f"store_rejects = true, rejects_limit = 0, max_line_size = {LONGEST_ROW}, auto_detect = false, "
            f"columns = {{{columns}}})"
        )
        return Relation(sql, named, is_csv=True, remarks=tuple(remarks))

    if types is None:
        types = _guessed(read({}), [name for name in names if name not in texts], scratch)
    return read(types)


def _names(files: list[Path], delimiter: str) -> list[str]:
    """The columns of the files. Raises PlanError where files differ in them."""
    headers = [header(file, delimiter) for file in files]
    for file, found in zip(files, headers, strict=True):
        if found != headers[0]:
            raise PlanError(f"{file} has columns {some(found)}, {files[0]} has {some(headers[0])}")
    return headers[0]


def _guessed(rows: Relation, names: list[str], scratch: Path) -> dict[str, str]:
    """Types of the columns that are no text as far as the first rows tell. Raises PlanError where they cannot be read.

    No TIME: DuckDB takes `0:05` for five minutes past midnight, here it is five seconds.
    """
    import duckdb

    if not names:
        return {}
    tests = [f"count_if({test.format(choosing.quoted(name))})" for name in names for test in _TYPES.values()]
    counts = ", ".join([*(f"count({choosing.quoted(name)})" for name in names), *tests])
    with selection.connected(scratch) as database:
        try:
            found = database.execute(f"SELECT {counts} FROM (SELECT * FROM {rows.sql} LIMIT {_LOOKED_AT})").fetchall()
        except duckdb.Error as error:
            raise unreadable(rows.file, error) from error
    values, fitting = found[0][: len(names)], found[0][len(names) :]
    types: dict[str, str] = {}
    for number, (name, there) in enumerate(zip(names, values, strict=True)):
        fits = fitting[number * len(_TYPES) :]
        kind = next((kind for kind, count in zip(_TYPES, fits, strict=False) if there and count == there), None)
        if kind is not None:
            types[name] = kind
    return types


def header(file: Path, delimiter: str = "") -> list[str]:
    """The names of a CSV file's columns, each another one. Raises PlanError where it has none, or cannot be read."""
    delimiter = delimiter or delimiter_of(_first_line(file), ",")
    with _lines(file) as lines:
        try:
            found = next(csv.reader(iter(lambda: lines.readline(text.SAMPLE_BYTES), ""), delimiter=delimiter), [])
        except csv.Error as error:
            raise PlanError(f"{file} has no line of column names: {looks_instead(file) or error}") from error
    if not found:
        raise PlanError(f"{file} has no line of column names; {looks_instead(file) or 'write one, as its first'}")
    return _distinct(found)


def _distinct(names: list[str]) -> list[str]:
    """Names as DuckDB, which tells no `A` from an `a`, makes them different.

    Example:
        >>> _distinct(["", "video", "Video"])
        ['column0', 'video', 'Video_1']
    """
    distinct, taken, used = list[str](), {name.lower() for name in names}, set[str]()
    for number, name in enumerate(names):
        unique, more = name or f"column{number}", 0
        while unique.lower() in used or (unique != name and unique.lower() in taken):
            more += 1
            unique = f"{name or f'column{number}'}_{more}"
        used.add(unique.lower())
        distinct.append(unique)
    return distinct


def some(names: Iterable[str]) -> str:
    """Names of columns as messages have them: not without end, where the file is none.

    Example:
        >>> some(["video", "caption"])
        'video, caption'
    """
    cut = [name if len(name) <= 60 else f"{name[:60]}…" for name in names]
    return ", ".join(cut[:24]) + (f" and {len(cut) - 24} more" if len(cut) > 24 else "")


def _first_line(file: Path) -> str:
    with _lines(file) as lines:
        return lines.readline(text.SAMPLE_BYTES)


@contextmanager
def _lines(file: Path) -> Iterator[IO[str]]:
    """A text file, unpacked. Raises PlanError where it cannot be unpacked."""
    is_packed = file.suffix in _PACKED
    encoding = "utf-8" if is_packed else _encoding(file)
    opened: Any = gzip.open if is_packed else Path.open
    try:
        with opened(file, "rt", encoding="utf-8-sig" if encoding in text.UTF8 else encoding, errors="replace") as lines:
            yield lines
    except BROKEN_GZIP as error:
        raise unreadable(file, error) from error


def table_files(metadata: Path, scratch: Path, texts: Collection[str] = ()) -> Relation:
    """A table of any kind, a file or a folder of files of one kind; its columns `texts` stay text.

    Raises PlanError where it is none.
    """
    files = [metadata] if metadata.is_file() else sorted(path for path in metadata.rglob("*") if suffix(path))
    kinds = {suffix(path) for path in files}
    if len(kinds) != 1 or "" in kinds:
        said = ", ".join(sorted(kind or Path(metadata).suffix or "no suffix" for kind in kinds)) or "nothing"
        raise PlanError(f"{metadata} holds {said}; a table is one kind of {', '.join(SUFFIXES)}")
    kind = kinds.pop()
    if kind in (".csv", ".tsv"):
        return csv_files(files, scratch, metadata, delimiter="," if kind == ".csv" else "\t", texts=texts)
    _check_not_empty(files)
    if kind == ".parquet":
        return Relation(f"read_parquet({selection.listed(files)}, union_by_name = true)", metadata)
    return _json_lines(files, scratch, metadata, texts)


def _json_lines(files: list[Path], scratch: Path, named: Path, texts: Collection[str]) -> Relation:
    """JSON lines, times in them as text (`_guessed`): not to guess TIME, DuckDB must be told all columns."""
    paths, remarks = _as_utf8(files, scratch)
    read = f"read_json({selection.listed(paths)}, format = 'newline_delimited', ignore_errors = true"
    rows = Relation(f"{read})", named, json_lines=tuple(paths), remarks=tuple(remarks))
    with selection.connected(scratch) as database:
        columns = selection.describe(database, rows)
    if set(columns) == {"json"} and columns["json"] != "VARCHAR":  # DuckDB's own name for what is no object
        is_array = looks_like(head_of(paths[0])) == "JSON"
        how = f" (jq -c '.[]' {files[0].name} does so of an array)" if is_array else ""
        raise PlanError(f"{named} is not JSON lines: write one object on each line{how}")
    told = {
        column: "VARCHAR" if kind == "TIME" or (column in texts and kind.startswith(_LOOKS_OF_TEXT)) else kind
        for column, kind in columns.items()
    }
    if told == columns:
        return rows
    pairs = ", ".join(f"{choosing.quoted(column)}: {choosing.text(kind)}" for column, kind in told.items())
    return replace(rows, sql=f"{read}, columns = {{{pairs}}})")


def _check_not_empty(files: list[Path]) -> None:
    for file in files:
        with open_regular(file) as opened:
            first = opened.read(1)
        if not first:
            raise PlanError(f"{file} is empty; download or write it again")


def one_table(source: str, request: Request, pattern: str = "*.csv") -> list[Path]:
    """The file `--metadata`, or the files of that pattern in the folder. Raises PlanError where there is none."""
    metadata = request.metadata
    if metadata is None:
        raise PlanError(f"source {source} needs its table: give --metadata a file, or a folder of {pattern}")
    files = [metadata] if metadata.is_file() else sorted(metadata.rglob(pattern))
    if not files:
        raise PlanError(f"{metadata} holds no {pattern}; download the tables of {source} there, or name a file")
    return files


def suffix(path: Path) -> str:
    """The suffix of a table without that of its compression; "" for what is no table."""
    inner = Path(path.stem).suffix if path.suffix in _PACKED else path.suffix
    return inner.lower() if inner.lower() in SUFFIXES else ""


def need(columns: Iterable[str], wanted: tuple[str, ...], file: Path, what: str) -> None:
    """Raise PlanError where columns are missing, with those that are there."""
    if absent := [column for column in wanted if column not in columns]:
        raise PlanError(f"{file} is not {what}: it has no column {', '.join(absent)}; {what_it_has(columns, file)}")


def what_it_has(columns: Iterable[str], file: Path) -> str:
    """The end of a sentence on a table without a column: the columns that it has, or what it is where it is none."""
    looks = looks_instead(file)
    if looks and not looks.startswith("it looks like a table"):
        return looks
    return f"it has {some(columns)}{looks.replace('it', ' and', 1)}"


def looks_instead(file: Path) -> str:
    """What kind of file a table, or the first of a folder, seems to be, in words; "" where it may be a table."""
    tables = [file] if file.is_file() else sorted(path for path in file.rglob("*") if suffix(path) and path.is_file())
    looks = looks_like(head_of(tables[0])) if tables else ""
    return f"it looks like {looks}" if looks else ""


def _encoding(table: Path) -> str:
    with open_regular(table) as file:  # a pipe would be waited for
        sample = file.read(text.SAMPLE_BYTES)
    try:
        return text.encoding_of(sample)
    except UnknownEncodingError as error:
        if looks_like(sample):
            raise unreadable(table, error) from error
        raise PlanError(f"{table}: {error}") from error


def _as_utf8(files: list[Path], scratch: Path) -> tuple[list[Path], list[Skipped]]:
    """The files, those in another encoding as UTF-8 copies, and what is to be said of these."""
    paths, remarks = list[Path](), list[Skipped]()
    for number, file in enumerate(files):
        if file.suffix in _PACKED:
            _check_whole(file)
        encoding = "utf-8" if file.suffix in _PACKED else _encoding(file)
        if encoding in text.UTF8:
            paths.append(file)
            continue
        remarks.append(Skipped(file.name, f"table is not UTF-8 and was read as {encoding}"))
        paths.append(_rewritten(file, encoding, scratch / f"{number}-{file.name}"))
    return paths, remarks


def _check_whole(packed: Path) -> None:
    """Raise PlanError where a gzip file is damaged: DuckDB does not look at the checksum at its end."""
    try:
        with gzip.open(packed) as file:
            while file.read(text.SAMPLE_BYTES):
                pass
    except BROKEN_GZIP as error:
        raise unreadable(packed, error) from error


def _rewritten(table: Path, encoding: str, copy: Path) -> Path:
    """A UTF-8 copy; bytes that are not in the encoding stay so, and their rows are malformed."""
    with (
        table.open(encoding=encoding, errors="surrogateescape", newline="") as source,
        copy.open("w", encoding="utf-8", errors="surrogateescape", newline="") as target,
    ):
        shutil.copyfileobj(source, target, text.SAMPLE_BYTES)
    return copy


def _dictionaries(selected: ChosenRows, view: str) -> Iterator[dict[str, Any]]:
    found = selected.database.execute(f"SELECT * FROM {view}")
    names = [column[0] for column in found.description or ()]
    while some := found.fetchmany(1024):
        for values in some:
            yield dict(zip(names, values, strict=True))
