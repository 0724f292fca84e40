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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from openuni import choosing, source_fields
from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources import selection, text
from openuni.sources.base import Entry, Request, Skipped, Source
from openuni.sources.folder import video_root, videos_below
from openuni.sources.records import delimiter_of, head_of, looks_like, parted_by
from openuni.sources.selection import Choice, ChosenRows, Fields, Relation
from openuni.sources.text import UnknownEncodingError
from openuni.storage import open_regular

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Of tables; text may be compressed (`.csv.gz`)."""
_PACKED = (".gz",)
LONGEST_ROW = 2 << 20
"""Bytes of a row; a longer one (a lost quote) is malformed."""
_GUESSED = ("BOOLEAN", "BIGINT", "DOUBLE", "DATE", "TIMESTAMP", "VARCHAR")
"""All types that DuckDB guesses but TIME: it takes `0:05` for five minutes past midnight, here it is five seconds."""


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
            selection.select(database, rows, fields, self.choice, request, listing, self.name, at_hand=False)
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
            yield selection.select(
                database, rows, fields, self.choice, request, listing, self.name, limit=limit, known=known
            )

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
    files: list[Path], scratch: Path, named: Path, types: Mapping[str, str] | None = None, delimiter: str = ","
) -> Relation:
    """CSV files of one kind. `types` are those of columns that are no text; None lets DuckDB look at the rows.

    `delimiter` is the usual one: where a file's line of names has only another, that is taken, and said. Files that are
    not UTF-8 are rewritten into `scratch`, and said. Raises PlanError where files differ, or an encoding is unknown.
    """
    paths, remarks = [], []
    delimiters = {file: delimiter_of(_first_line(file), delimiter) for file in files}
    for file, found in delimiters.items():
        if found != delimiter:
            remarks.append(Skipped(file.name, f"table was read as parted by {parted_by(found)}"))
    if len({*delimiters.values()}) > 1:
        said = ", ".join(f"{file.name} by {parted_by(found)}" for file, found in list(delimiters.items())[:4])
        raise PlanError(f"{named}: its files are parted differently ({said}); write them all as one kind of table")
    delimiter = next(iter(delimiters.values()), delimiter)
    for number, file in enumerate(files):
        encoding = "utf-8" if file.suffix in _PACKED else _encoding(file)
        if encoding in text.UTF8:
            paths.append(file)
            continue
        remarks.append(Skipped(file.name, f"table is not UTF-8 and was read as {encoding}"))
        paths.append(_rewritten(file, encoding, scratch / f"{number}-{file.name}"))
    listed = selection.listed(paths)
    # Where the types are known nothing is guessed from the first rows.
    if types is None:
        looked = f", auto_type_candidates = [{', '.join(map(choosing.text, _GUESSED))}]"
    else:
        looked = f", auto_detect = false, columns = {_columns(paths, types)}"
    sql = (
        f"read_csv({listed}, header = true, delim = {choosing.text(delimiter)}, quote = '\"', escape = '\"', "
        f"store_rejects = true, rejects_limit = 0, max_line_size = {LONGEST_ROW}{looked})"
    )
    return Relation(sql, named, is_csv=True, remarks=tuple(remarks))


def _columns(files: list[Path], types: Mapping[str, str]) -> str:
    """The columns of the files and their types as SQL. Raises PlanError where files differ in them."""
    headers = [header(file) for file in files]
    for file, found in zip(files, headers, strict=True):
        if found != headers[0]:
            raise PlanError(f"{file} has columns {', '.join(found)}, {files[0]} has {', '.join(headers[0])}")
    pairs = (f"{choosing.text(column)}: {choosing.text(types.get(column, 'VARCHAR'))}" for column in headers[0])
    return f"{{{', '.join(pairs)}}}"


def header(file: Path) -> list[str]:
    """The names of a CSV file's columns. Raises PlanError where it has none."""
    first = _first_line(file)
    try:
        found = next(csv.reader([first], delimiter=delimiter_of(first, ",")), [])
    except csv.Error as error:
        raise PlanError(f"{file} is not a CSV file: {error}") from error
    if not found or len({*found}) != len(found):
        raise PlanError(f"{file} has no line of column names, or one that names a column twice")
    return found


def _first_line(file: Path) -> str:
    encoding = "utf-8" if file.suffix in _PACKED else _encoding(file)
    opened = gzip.open if file.suffix in _PACKED else Path.open
    with opened(file, "rt", encoding="utf-8-sig" if encoding in text.UTF8 else encoding, errors="replace") as lines:
        return lines.readline(text.SAMPLE_BYTES)


def table_files(metadata: Path, scratch: Path) -> Relation:
    """A table of any kind, a file or a folder of files of one kind. Raises PlanError where it is none."""
    files = [metadata] if metadata.is_file() else sorted(path for path in metadata.rglob("*") if suffix(path))
    kinds = {suffix(path) for path in files}
    if len(kinds) != 1 or "" in kinds:
        said = ", ".join(sorted(kind or Path(metadata).suffix or "no suffix" for kind in kinds)) or "nothing"
        raise PlanError(f"{metadata} holds {said}; a table is one kind of {', '.join(SUFFIXES)}")
    kind = kinds.pop()
    if kind in (".csv", ".tsv"):
        return csv_files(files, scratch, metadata, delimiter="," if kind == ".csv" else "\t")
    listed = selection.listed(files)
    if kind == ".parquet":
        return Relation(f"read_parquet({listed}, union_by_name = true)", metadata)
    return replace(_json_lines(listed, scratch, metadata), json_lines=tuple(files))


def _json_lines(listed: str, scratch: Path, named: Path) -> Relation:
    """JSON lines, times in them as text (`_GUESSED`): not to guess TIME, DuckDB must be told all columns."""
    read = f"read_json({listed}, format = 'newline_delimited', ignore_errors = true"
    guessed = Relation(f"{read})", named)
    with selection.connected(scratch) as database:
        columns = selection.describe(database, guessed)
    if set(columns) == {"json"} and columns["json"] != "VARCHAR":  # DuckDB's own name for what is no object
        raise PlanError(f"{named} is not JSON lines: write one object on each line")
    if "TIME" not in columns.values():
        return guessed
    pairs = (
        f"{choosing.quoted(column)}: {choosing.text('VARCHAR' if kind == 'TIME' else kind)}"
        for column, kind in columns.items()
    )
    return Relation(f"{read}, columns = {{{', '.join(pairs)}}})", named)


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
        raise PlanError(
            f"{file} is not {what}: it has no column {', '.join(absent)}; it has {', '.join(columns)}"
            f"{and_looks_like(file)}"
        )


def and_looks_like(file: Path) -> str:
    """The end of a sentence on what a table has: what kind of file it seems to be, where it is none."""
    tables = [file] if file.is_file() else sorted(path for path in file.rglob("*") if suffix(path) and path.is_file())
    looks = looks_like(head_of(tables[0])) if tables else ""
    return f" and looks like {looks}" if looks else ""


def _encoding(table: Path) -> str:
    with open_regular(table) as file:  # a pipe would be waited for
        sample = file.read(text.SAMPLE_BYTES)
    try:
        return text.encoding_of(sample)
    except UnknownEncodingError as error:
        raise PlanError(f"{table}: {error}") from error


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
