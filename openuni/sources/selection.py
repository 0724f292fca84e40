"""Rows become clips in SQL: chosen, judged, joined with the videos at hand and sorted, in bounded memory.

DuckDB reads the source's own files and keeps what it works on in a scratch file; no Python object is made of a row.
What comes out is the view `clips` (one row a clip, in key order, no key twice), the view `left_out` (rows that became
none, each with its reason) and the funnel: how many rows were left after each step.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from openuni.choosing import Step, in_words, quoted, text
from openuni.errors import PlanError
from openuni.source_fields import MOST_BYTES, TOO_LARGE
from openuni.sources.base import Request, Skipped
from openuni.sources.languages import is_in
from openuni.sources.records import head_of, looks_like, no_objects, records_at
from openuni.sources.text import CONTROLS, CONTROLS_REMOVED
from openuni.sources.unreadable import unreadable
from openuni.storage import open_regular

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

MEMORY = "1536MiB"
"""What DuckDB may take for a plan: a million rows with their captions are brought into order without the disk."""
MOST_THREADS = 4
"""Each holds buffers of its own, which count."""
MOST_MALFORMED = 0.2
"""Share of malformed rows from which on the file is taken for another kind of file."""
FEW_MALFORMED = 10
"""So many are left out of any table, however short."""
PLANNED_BEFORE = "planned before"
"""The reason of rows whose clip a dataset has already."""
SLACK_SECONDS = 0.5
"""By how much a span may pass the stated duration of its video, which is often rounded."""
MOST_LISTED = 2 << 30
"""Bytes of a list of ids: seventy million of thirty letters."""
MISSING = "video missing"
SEVERAL = "several videos of this name: name its path"
NO_OBJECT = "malformed row: no JSON object with a value in it"
_OF_FILES = (MISSING, SEVERAL)
"""What is no fault of a row whose video is yet to come."""
_LISTED = 1 << 15
_MANY_READERS = "store_rejects = true"
_ONE_READER = "store_rejects = true, parallel = false"
_NAMED_MALFORMED = 1000
_THRESHOLD = re.compile(r"(?P<column>.+?)=(?P<number>[-+]?[0-9.]+(?:e[-+]?[0-9]+)?)(?P<share>%?)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which rows of a table become clips; decided before a video is touched.

    Example:
        >>> Choice(at_least=("aesthetic_score=90%",), sample=10_000).sample_seed
        0
    """

    at_least: tuple[str, ...] = ()
    """COLUMN=NUMBER, comma-separated: only rows with at least that score. COLUMN=90% means the value that 90% of
    all rows lie below."""
    at_most: tuple[str, ...] = ()
    """COLUMN=NUMBER or COLUMN=SHARE%, comma-separated: only rows with at most that score."""
    min_caption: int | None = None
    """Shortest caption, in characters."""
    max_caption: int | None = None
    """Longest caption, in characters."""
    languages: tuple[str, ...] = ()
    """Only captions in these languages, comma-separated (en, de, es, fr, it, nl, pt, ar, el, he, hi, ja, ko, ru, th,
    zh). A language is told by its script and its most common words."""
    min_duration: float | None = None
    """Shortest span of a row, in seconds."""
    max_duration: float | None = None
    """Longest span of a row, in seconds."""
    licenses: tuple[str, ...] = ()
    """Only rows with these licenses, comma-separated, spelled as in the rows."""
    include: Path | None = field(default=None, metadata={"exists": True})
    """Only rows in this text file: an id, or the id of a source video, on each line."""
    exclude: Path | None = field(default=None, metadata={"exists": True})
    """Leave out the rows in this text file, of the same form."""
    where: str = ""
    """Only rows for which this SQL over the source's own columns is true."""
    balance: str = ""
    """Equally many clips of each value of this SQL over the source's own columns: as many as the rarest value has, or,
    with --sample, that many clips in all, as evenly as possible."""
    sample: int | None = field(default=None, metadata={"min": 1, "shown": "all"})
    """Choose this many of the remaining clips at random."""
    sample_seed: int = 0
    """Seed of --sample and --balance."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason to leave a row out, and the SQL that is true of such rows."""

    reason: str
    leaves_out: str
    is_choice: bool = False
    """The user's choice, not a fault of the row: counted, but not listed row by row."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A source's own rows: what follows FROM."""

    sql: str
    file: Path
    """The table, or its folder, as messages name it."""
    is_csv: bool = False
    """Whether DuckDB keeps malformed rows aside."""
    json_lines: tuple[Path, ...] = ()
    """Files of which DuckDB makes a row without any value where a line is no object."""
    remarks: tuple[Skipped, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """What a clip needs, each as SQL over the source's own columns; NULL where a row has it not."""

    id: str
    video: str
    """Which video: its path below the folder, its file name, or that without the suffix."""
    cut: str = "NULL"
    """The name of a file that holds this row's span alone; it is preferred where it is at hand."""
    start: str = "NULL"
    end: str = "NULL"
    """Seconds in `video`; NaN where what is written there is no time."""
    duration: str = "NULL"
    """Seconds of the whole `video`."""
    crop: str = "NULL"
    """INTEGER[]: x0, y0, x1, y1."""
    width: str = "NULL"
    height: str = "NULL"
    """Pixels of `video`."""
    caption: str = "NULL"
    license: str = "NULL"
    video_id: str = "NULL"
    url: str = "NULL"
    """Where `video` can be downloaded: a file, or a page that shows it."""
    scores: Mapping[str, str] = field(default_factory=dict)
    source_fields: str = "NULL"
    """What the row says beside all this: an object of JSON, as text (`original.as_json`)."""
    faults: tuple[Rule, ...] = ()
    """What else makes a row unusable, over its own columns."""
    remarks: tuple[Rule, ...] = ()
    """What is to be said of a row though it is kept."""
    by_stem: bool = False
    """Whether videos are known by their stems alone: of two of one name the first is used, and the other said."""
    takes_paths: bool = False
    """Whether an id may look like a path (ids that are made of one)."""


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """What was chosen; valid until its database is closed."""

    database: duckdb.DuckDBPyConnection
    clips: int
    seconds: float
    left_out: Mapping[str, int]
    """Rows that became no clip, by reason."""
    funnel: tuple[Step, ...]

    @property
    def columns(self) -> list[str]:
        """Those of the view `clips`."""
        return [column for column, *_ in self.database.execute("DESCRIBE clips").fetchall()]


def listed(files: Iterable[Path]) -> str:
    """Files as an SQL list. Raises PlanError for what is no regular file: DuckDB would wait at a pipe.

    DuckDB takes names for patterns: as it stands, `rows[1].csv` would read `rows1.csv`.
    """
    names = []
    for file in files:
        open_regular(file).close()
        names.append(text(re.sub(r"[*?\[]", r"[\g<0>]", str(file))))
    return f"[{', '.join(names)}]"


def clock(value: str) -> str:
    """SQL for the seconds of `H:MM:SS.fff`, `MM:SS` or a number of seconds; NULL of nothing, NaN of anything else."""
    return f"seconds_of({value}::VARCHAR)"


def describe(database: duckdb.DuckDBPyConnection, rows: Relation) -> dict[str, str]:
    """The source's columns and their types. Raises PlanError where the files cannot be read."""
    import duckdb

    try:
        found = database.execute(f"DESCRIBE SELECT * FROM {rows.sql}").fetchall()
    except duckdb.Error as error:
        raise unreadable(rows.file, error) from error
    return {column: kind for column, kind, *_ in found}


def is_number(kind: str) -> bool:
    """Whether a column of this type can be a score."""
    return kind.split("(")[0] in {
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
        "DOUBLE", "DECIMAL",
    }  # fmt: skip


@contextmanager
def connected(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in the folder `scratch`, with the functions that sources use."""
    import duckdb

    with duckdb.connect() as database:
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        database.execute(f"SET memory_limit = '{MEMORY}'; SET threads = {threads}")
        database.execute(f"SET temp_directory = {text(str(scratch))}; SET enable_progress_bar = false")
        # The videos at hand are always the smaller side; guessed sizes of text files are not to be trusted.
        database.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        for macro in _MACROS:
            database.execute(f"CREATE TEMP MACRO {macro}")
        yield database


_CLOCK = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)"
_MACROS = (
    f"clock_parts(t) AS regexp_extract(t, '^\\s*{_CLOCK}\\s*$', ['h', 'm', 's'])",
    "clock_sum(p) AS coalesce(try_cast(p.h AS INTEGER), 0) * 3600.0 + try_cast(p.m AS INTEGER) * 60 "
    "+ try_cast(p.s AS DOUBLE)",
    "seconds_of(t) AS CASE WHEN trim(t) = '' THEN NULL "
    "ELSE coalesce(try_cast(t AS DOUBLE), clock_sum(clock_parts(t)), 'nan'::DOUBLE) + CASE WHEN t IS NULL THEN NULL "
    "ELSE 0 END END",
    # Most captions are ASCII without control characters. JSON, which escapes most of these, tells so in a third of the
    # time of a pattern.
    "is_plain(t) AS strlen(t) = length(t) AND NOT contains(t, chr(8)) AND NOT contains(t, chr(12)) "
    "AND NOT contains(t, chr(127)) AND NOT contains(to_json(t), '\\u')",
    f"plain_of(t) AS CASE WHEN is_plain(t) THEN t ELSE regexp_replace(t, '{CONTROLS}', '', 'g') END",
    # `sample.make_key`.
    "key_of(t) AS CASE WHEN regexp_full_match(t, '[A-Za-z0-9_-]{1,64}') THEN t ELSE "
    "left(trim(regexp_replace(t, '[^A-Za-z0-9_-]+', '_', 'g'), '_'), 55) || '-' || left(sha256(t), 8) END",
)


def select(
    database: duckdb.DuckDBPyConnection,
    rows: Relation,
    fields: Fields,
    choice: Choice,
    request: Request,
    listing: Iterable[str | Skipped],
    source: str,
    limit: int | None = None,
    known: tuple[Path, ...] = (),
    at_hand: bool = True,
) -> ChosenRows:
    """Choose rows and make the views `clips` and `left_out`.

    `listing` are the videos at hand, as `folder.videos_below` names them. `known` are plans whose keys are not to come
    again. Where clips need not be `at_hand`, the view `asked` lists their videos: `name`, `url`, `is_here`. Raises
    PlanError where a table cannot be read or a condition cannot be evaluated.
    """
    import duckdb

    try:
        database.execute("CREATE TABLE said (id VARCHAR, reason VARCHAR)")
        _keep_said(database, rows.remarks)
        _list_videos(database, listing, fields.by_stem)
        if rows.json_lines:
            no_value = " AND ".join(f"{quoted(column)} IS NULL" for column in describe(database, rows))
            fields = replace(fields, faults=(Rule(NO_OBJECT, no_value), *fields.faults))
        rules = _rules(database, rows, fields, choice, request, known)
        if not at_hand:
            rules = [rule for rule in rules if rule.reason not in _OF_FILES]
            fields = replace(fields, source_fields="NULL", remarks=())
        _judge(database, rows, fields, rules, choice, at_hand)
        malformed = _malformed(database, rows)
        named = fields.license if _is_constant(fields.license) else "license"
        remarks = [Rule(CONTROLS_REMOVED, "had_controls")]
        remarks += [Rule(said.reason, f"remark_{number}") for number, said in enumerate(fields.remarks)]
        if fields.source_fields != "NULL":
            remarks.append(Rule(TOO_LARGE, "had_large"))
        return _selected(database, rules, remarks, choice, request, source, named, limit, malformed, at_hand)
    except duckdb.Error as error:
        if isinstance(error, duckdb.OutOfMemoryException):
            raise PlanError(
                f"{rows.file}: choosing its rows takes more disk or memory than there is: {in_words(error)}; "
                "let TMPDIR name a folder on a larger disk"
            ) from error
        _check_readable(database, rows)
        raise PlanError(
            f"{rows.file}: its rows cannot be chosen: {in_words(error)}; check --where, --balance and names of columns"
        ) from error


def _check_readable(database: duckdb.DuckDBPyConnection, rows: Relation) -> None:
    """Raise PlanError where the rows themselves cannot be read, whatever is asked of them."""
    import duckdb

    try:
        # Not a count, which Parquet answers without its values.
        database.execute(f"SELECT max(hash(COLUMNS(*))) FROM {rows.sql}")
    except duckdb.Error as error:
        raise unreadable(rows.file, error) from error


def _keep_said(database: duckdb.DuckDBPyConnection, said: Iterable[Skipped]) -> None:
    import pyarrow as pa

    for some in _batches(said):
        batch = pa.table({"id": [one.id for one in some], "reason": [one.reason for one in some]})
        database.execute("INSERT INTO said SELECT * FROM batch")
        del batch


def _list_videos(database: duckdb.DuckDBPyConnection, listing: Iterable[str | Skipped], by_stem: bool) -> None:
    """The table `videos`: a file under each of its names, the full path first."""
    import pyarrow as pa

    database.execute("CREATE TABLE files (file VARCHAR)")
    for some in _batches(listing):
        batch = pa.table({"file": pa.array([one for one in some if isinstance(one, str)], pa.string())})
        database.execute("INSERT INTO files SELECT * FROM batch")
        del batch
        _keep_said(database, (one for one in some if isinstance(one, Skipped)))
    last = "regexp_extract(file, '[^/]*$')"
    names = [rf"regexp_replace({last}, '\.[^.]*$', '')"]
    if not by_stem:
        names += ["file", f"CASE WHEN contains(file, '/') THEN {last} END"]
    named = " UNION ALL ".join(f"SELECT {name} AS name, file, rowid AS place FROM files" for name in names)
    # A file's names differ, so that each row is another file.
    database.execute(f"""
        CREATE TABLE videos AS SELECT name, arg_min(file, place) AS file, count(*) AS files
        FROM ({named}) WHERE name IS NOT NULL GROUP BY name""")
    if by_stem:
        database.execute("""
            INSERT INTO said SELECT files.file, 'another video of this name is used' FROM files JOIN videos
            ON regexp_replace(regexp_extract(files.file, '[^/]*$'), '\\.[^.]*$', '') = videos.name
            WHERE files.file <> videos.file""")


def _rules(
    database: duckdb.DuckDBPyConnection,
    rows: Relation,
    fields: Fields,
    choice: Choice,
    request: Request,
    known: tuple[Path, ...],
) -> list[Rule]:
    """All reasons to leave a row out, in the order in which they are asked; over the fields of `_judge`."""
    rules = [Rule(fault.reason, f"fault_{number}") for number, fault in enumerate(fields.faults)]
    rules.append(Rule("row has no id", "coalesce(id, '') = ''"))
    if not fields.takes_paths:
        rules.append(Rule("id has path characters", "regexp_matches(id, '[/\\\\\\x00-\\x1f]') OR id IN ('.', '..')"))
    rules.append(
        Rule(
            "start and end are not a span of seconds",
            "NOT (coalesce(start, 0) >= 0 AND isfinite(coalesce(start, 0)) AND isfinite(coalesce(stop, 0)) "
            "AND coalesce(stop > coalesce(start, 0), true))",
        )
    )
    # Whatever is asked of every row costs, though the source says nothing of it.
    if fields.duration != "NULL":
        outside = f"coalesce(start >= duration OR stop > duration + {SLACK_SECONDS}, false)"
        rules.append(Rule("timestamp outside the video", outside))
    if fields.crop != "NULL":
        outside = (
            "crop IS NOT NULL AND NOT coalesce(len(crop) = 4 AND 0 <= crop[1] AND crop[1] < crop[3] AND 0 <= crop[2] "
            "AND crop[2] < crop[4] AND crop[3] <= coalesce(width, crop[3]) AND crop[4] <= coalesce(height, crop[4]), "
            "false)"
        )
        rules.append(Rule("crop outside the frame", outside))
    span = "coalesce(stop - coalesce(start, 0), duration)"
    wishes = {
        f"caption shorter than {choice.min_caption} characters": _asked(choice.min_caption, "length(caption) >= {}"),
        f"caption longer than {choice.max_caption} characters": _asked(choice.max_caption, "length(caption) <= {}"),
        f"caption not in {', '.join(choice.languages)}": is_in("caption", choice.languages) if choice.languages else "",
        f"span shorter than {choice.min_duration} s": _asked(choice.min_duration, span + " >= {}"),
        f"span longer than {choice.max_duration} s": _asked(choice.max_duration, span + " <= {}"),
        "license not in --licenses": f"license IN ({', '.join(map(text, choice.licenses))})" if choice.licenses else "",
        "not in --include": _listed(database, choice.include, "included"),
        "in --exclude": "NOT " + excluded if (excluded := _listed(database, choice.exclude, "excluded")) else "",
        "not chosen by --where": "wanted" if choice.where.strip() else "",
        **_thresholds(database, rows, choice),
    }
    rules += [Rule(why, f"NOT coalesce({kept}, false)", True) for why, kept in wishes.items() if kept]
    if known:
        plans = listed(known)
        database.execute(f"CREATE TABLE known AS SELECT key AS name FROM read_parquet({plans}, union_by_name = true)")
        rules.append(Rule(PLANNED_BEFORE, "key_of(id) IN (SELECT name FROM known)", True))
    rules.append(Rule("path leaves the folder", "starts_with(video, '/') OR contains(concat('/', video, '/'), '/../')"))
    if not fields.by_stem:
        rules.append(Rule(SEVERAL, "file IS NOT NULL AND NOT is_cut AND files > 1"))
    rules += [
        Rule(MISSING, "file IS NULL"),
        Rule("no timestamp to cut the whole video by", "has_cut AND NOT is_cut AND start IS NULL"),
        Rule(
            "clip shorter than the shortest clip", f"coalesce(stop - coalesce(start, 0) < {request.min_seconds}, false)"
        ),
    ]
    return rules


def _asked(value: float | None, condition: str) -> str:
    return "" if value is None else condition.format(value)


def _listed(database: duckdb.DuckDBPyConnection, path: Path | None, table: str) -> str:
    if path is None:
        return ""
    with open_regular(path) as file:
        if file.size > MOST_LISTED:
            raise PlanError(f"{path} has {file.size:,} bytes, more than a list of ids ever has; name the list itself")
    import duckdb

    listing = (
        f"CREATE TABLE {table} AS SELECT DISTINCT trim(line) AS name FROM read_csv({listed([path])}, header = false, "
        "columns = {'line': 'VARCHAR'}, delim = '\\x01', quote = '', escape = '', auto_detect = false) "
        "WHERE trim(line) <> ''"
    )
    try:
        database.execute(listing)
    except duckdb.InvalidInputException as error:
        raise PlanError(f"{path} is no list of ids in UTF-8, one on each line; save it as that") from error
    return f"(id IN (SELECT name FROM {table}) OR coalesce(video_id IN (SELECT name FROM {table}), false))"


def _thresholds(database: duckdb.DuckDBPyConnection, rows: Relation, choice: Choice) -> dict[str, str]:
    """What --at-least and --at-most ask, as reason and SQL. Shares of rows become numbers in one pass over the rows."""
    asked = [(">=", "below", pair) for pair in choice.at_least] + [("<=", "above", pair) for pair in choice.at_most]
    if not asked:
        return {}
    columns = describe(database, rows)
    matches = []
    for sign, side, pair in asked:
        match = _THRESHOLD.fullmatch(pair.strip())
        if match is None:
            raise PlanError(f"{pair!r} is no threshold: give COLUMN=NUMBER or COLUMN=90%")
        if match["column"] not in columns:
            raise PlanError(f"{rows.file} has no column {match['column']!r}; it has {', '.join(columns)}")
        matches.append((sign, side, match))
    shares = {match["column"] for _, _, match in matches if match["share"]}
    if shares:
        numbers = ", ".join(f"try_cast({quoted(column)} AS DOUBLE) AS {quoted(column)}" for column in shares)
        database.execute(f"CREATE TABLE numbers AS SELECT {numbers} FROM {rows.sql}")
    found: dict[str, str] = {}
    for sign, side, match in matches:
        number = float(match["number"])
        if match["share"]:
            if not 0 <= number <= 100:
                raise PlanError(f"{match[0]!r} is no threshold: a share lies between 0% and 100%")
            column = quoted(match["column"])
            (value,) = _one(
                database, f"SELECT quantile_cont({column}, {number / 100}) FROM numbers WHERE isfinite({column})"
            )
            number = math.nan if value is None else float(value)
        column = quoted(match["column"])
        found[f"{match['column']} {side} {number:g}"] = f"try_cast({column} AS DOUBLE) {sign} {number!r}"
    if shares:
        database.execute("DROP TABLE numbers")
    return found


def _judge(
    database: duckdb.DuckDBPyConnection,
    rows: Relation,
    fields: Fields,
    rules: list[Rule],
    choice: Choice,
    at_hand: bool,
) -> None:
    """The table `judged`: a row of the source each, with the number of the rule that leaves it out.

    Rows that are left out keep an id at most: what is not needed is not stored.
    """
    import duckdb

    wanted = f", ({choice.where}) AS wanted" if choice.where.strip() else ""
    bucket = f", ({choice.balance})::VARCHAR AS bucket" if choice.balance.strip() else ""
    faults = "".join(f", ({fault.leaves_out}) AS fault_{n}" for n, fault in enumerate(fields.faults))
    scores = "".join(f", ({sql})::DOUBLE AS {quoted('score_' + label)}" for label, sql in sorted(fields.scores.items()))
    thresholds = [rule for rule in rules if rule.leaves_out.startswith("NOT coalesce(try_cast(")]
    tested = "".join(f", ({rule.leaves_out}) AS {_threshold(rules.index(rule))}" for rule in thresholds)
    url = "" if at_hand else f", ({fields.url})::VARCHAR AS url"
    has_fields = fields.source_fields != "NULL"
    own_fields = f", ({fields.source_fields})::VARCHAR AS source_fields" if has_fields else ""
    remarks = "".join(f", coalesce({said.leaves_out}, false) AS remark_{n}" for n, said in enumerate(fields.remarks))
    own = f"""
        SELECT ({fields.id})::VARCHAR AS id, ({fields.video})::VARCHAR AS video, ({fields.cut})::VARCHAR AS cut,
            ({fields.start})::DOUBLE AS start, ({fields.end})::DOUBLE AS stop,
            ({fields.duration})::DOUBLE AS duration, ({fields.crop})::INTEGER[] AS crop,
            ({fields.width})::DOUBLE AS width, ({fields.height})::DOUBLE AS height,
            coalesce(({fields.caption})::VARCHAR, '') AS caption,
            coalesce(nullif(trim(({fields.license})::VARCHAR), ''), 'unknown') AS license,
            ({fields.video_id})::VARCHAR AS video_id{url}{own_fields}{remarks}{scores}{faults}{tested}{wanted}{bucket}
        FROM {rows.sql}"""
    # A path whose folders are other ones is still known by its last part.
    nearest = (
        ""
        if fields.by_stem
        else "LEFT JOIN videos nearest ON regexp_extract(own.video, '[^/]*$') = nearest.name AND wholes.file IS NULL"
    )
    file, files = ("wholes.file", "wholes.files") if fields.by_stem else (
        "coalesce(wholes.file, nearest.file)", "coalesce(wholes.files, nearest.files)"
    )  # fmt: skip
    joined = f"""
        SELECT own.*, {fields.cut != "NULL"} AS has_cut, cuts.file IS NOT NULL AS is_cut,
            coalesce(cuts.file, {file}) AS file, {files} AS files
        FROM ({own}) own LEFT JOIN videos cuts ON own.cut = cuts.name LEFT JOIN videos wholes ON own.video = wholes.name
        {nearest}"""
    cases = "".join(
        f" WHEN {_threshold(n) if rule in thresholds else f'({rule.leaves_out})'} THEN {n}"
        for n, rule in enumerate(rules)
    )
    listed = ", ".join(str(n) for n, rule in enumerate(rules) if not rule.is_choice)
    kept = {
        "key": "key_of(id)",
        "file": "file",
        "crop": "crop",
        "caption": "plain",
        "video_id": "coalesce(video_id, file)",
    }
    if not _is_constant(fields.license):
        kept["license"] = "license"
    if has_fields:
        kept["source_fields"] = f"CASE WHEN strlen(source_fields) <= {MOST_BYTES} THEN source_fields END"
    if not at_hand:
        kept |= {"asked": "video", "url": "url"}
    if bucket:
        kept["bucket"] = "bucket"
    texts = ", ".join(f"CASE WHEN rule IS NULL THEN {value} END AS {name}" for name, value in kept.items())
    # A number takes its place in a row that is left out, too.
    numbers = ", ".join(
        (
            "CASE WHEN is_cut THEN 0.0 ELSE coalesce(start, 0.0) END AS start",
            "CASE WHEN is_cut THEN stop - coalesce(start, 0.0) ELSE stop END AS stop",
            "strlen(plain) <> strlen(caption) AS had_controls",
            *((f"coalesce(strlen(source_fields) > {MOST_BYTES}, false) AS had_large",) if has_fields else ()),
            *(f"remark_{n}" for n in range(len(fields.remarks))),
            *(quoted("score_" + label) for label in sorted(fields.scores)),
        )
    )
    # The plan is sorted in the end; in no order, threads need not wait for each other.
    database.execute("SET preserve_insertion_order = false")
    judged = f"""
        CREATE TABLE judged AS
        SELECT rule, CASE WHEN rule IS NULL OR rule IN ({listed}) THEN left(id, 200) END AS id, {texts}, {numbers}
        FROM (
            SELECT *, CASE WHEN rule IS NULL THEN plain_of(caption) END AS plain
            FROM (SELECT *, (CASE{cases} END)::UTINYINT AS rule FROM ({joined})))"""
    try:
        database.execute(judged)
    except duckdb.NotImplementedException:
        # Some files of quoted lines cannot be read by several threads at once; only their end tells.
        database.execute(judged.replace(_MANY_READERS, _ONE_READER))
    database.execute("SET preserve_insertion_order = true")


def _threshold(number: int) -> str:
    return f"rule_{number}"


def _malformed(database: duckdb.DuckDBPyConnection, rows: Relation) -> int:
    """Name the rows that DuckDB could not read by file and byte; how many. Raises PlanError where they are too many."""
    if rows.json_lines:
        return _malformed_lines(database, rows)
    if not rows.is_csv:
        return 0
    shape = "min('malformed row: ' || lower(error_type::VARCHAR)) FILTER (error_type <> 'CAST')"
    value = "min(column_name || ' is not a number') FILTER (error_type = 'CAST')"
    database.execute(f"""
        CREATE TABLE malformed AS
        SELECT file_path AS file, line_byte_position AS place, coalesce({shape}, {value}) AS kind
        FROM reject_errors JOIN reject_scans USING (scan_id, file_id)
        WHERE scan_id = (SELECT max(scan_id) FROM reject_scans) GROUP BY ALL""")
    (count,) = _one(database, "SELECT count(*) FROM malformed")
    (read,) = _one(database, "SELECT count(*) FROM judged")
    is_other = _is_other(count, read + count)
    named = _named_malformed(database, 1 if is_other else _NAMED_MALFORMED)
    if is_other:
        (file, name, kind), *_ = named
        looks = looks_like(head_of(file))
        raise PlanError(
            f"{rows.file}: {count:,} of {read + count:,} rows are malformed ({kind} in {name}, the first): this is not "
            f"a table of that kind{f'; it looks like {looks}' if looks else ''}"
        )
    _name_malformed(database, [row[1:] for row in named])
    return int(count)


def _malformed_lines(database: duckdb.DuckDBPyConnection, rows: Relation) -> int:
    """Take the rows of lines that are no objects out of `judged`, and name them; as `_malformed`."""
    (count,) = _one(database, "SELECT count(*) FROM judged WHERE rule = 0")
    if not count:
        return 0
    (read,) = _one(database, "SELECT count(*) FROM judged")
    names = (f"{file.name}, line {at.record:,}, byte {at.byte}" for file in rows.json_lines for at in no_objects(file))
    if _is_other(count, read):
        raise PlanError(
            f"{rows.file}: {count:,} of {read:,} lines hold no JSON object with a value in it ({next(names, '')}, the "
            "first): this is not a table of that kind"
        )
    database.execute("DELETE FROM judged WHERE rule = 0")
    database.execute(f"CREATE TABLE malformed AS SELECT {text(NO_OBJECT)} AS kind FROM range({count})")
    _name_malformed(database, [(name, NO_OBJECT) for name in islice(names, min(count, _NAMED_MALFORMED))])
    return int(count)


def _is_other(malformed: int, rows: int) -> bool:
    """Whether a file with so many malformed rows of all is taken for one of another kind."""
    return malformed > FEW_MALFORMED and malformed > MOST_MALFORMED * rows


def _name_malformed(database: duckdb.DuckDBPyConnection, named: list[tuple[str, str]]) -> None:
    database.execute("CREATE TABLE named_malformed (name VARCHAR, kind VARCHAR)")
    if named:
        database.executemany("INSERT INTO named_malformed VALUES (?, ?)", named)


def _named_malformed(database: duckdb.DuckDBPyConnection, most: int) -> list[tuple[Path, str, str]]:
    """The first so many malformed rows: file, name in words, and kind. DuckDB numbers lines otherwise."""
    found = database.execute(f"SELECT file, place, kind FROM malformed ORDER BY file, place LIMIT {most}").fetchall()
    named = []
    for file, rows in groupby(found, key=lambda row: Path(row[0])):
        kinds = {place: kind for _, place, kind in rows}
        for at, kind in zip(records_at(file, list(kinds)), kinds.values(), strict=True):
            named.append((file, f"{file.name}, record {at.record:,}, byte {at.byte}", kind))
    return named


def _selected(
    database: duckdb.DuckDBPyConnection,
    rules: list[Rule],
    remarks: list[Rule],
    choice: Choice,
    request: Request,
    source: str,
    license: str,
    limit: int | None,
    malformed: int,
    at_hand: bool,
) -> ChosenRows:
    """Leave out what comes twice, draw the sample, and define the views."""
    counts = dict(database.execute("SELECT rule, count(*) FROM judged GROUP BY rule").fetchall())
    twice = _leave_out_twice(database, rules)
    for number, count in twice.items():
        counts[number] = count
        counts[None] = counts.get(None, 0) - count
    kept = counts.get(None, 0)
    total = sum(counts.values()) + malformed
    steps = [Step("rows", total)]
    left_out: dict[str, int] = {}

    def leave(reason: str, count: int) -> None:
        if count:
            left_out[reason] = left_out.get(reason, 0) + count
            steps.append(Step(reason, steps[-1].left - count))

    leave("malformed rows", malformed)
    for number, rule in enumerate(rules):
        leave(rule.reason, counts.get(number, 0))
    if malformed:
        # In the funnel they are one step; what is counted has the kinds, as they are listed.
        del left_out["malformed rows"]
        for kind, count in database.execute("SELECT kind, count(*) FROM malformed GROUP BY kind").fetchall():
            left_out[kind] = left_out.get(kind, 0) + count
    condition = "rule IS NULL"
    draw = f"md5_number(concat({choice.sample_seed}, '/', key))"
    if choice.balance.strip():
        balanced = _balance(database, draw, choice.sample)
        condition += " AND key IN (SELECT key FROM balanced)"
        leave(f"balance over {choice.balance}", kept - balanced)
        kept = balanced
    elif choice.sample is not None and choice.sample < kept:
        drawn, last = _one(
            database,
            f"SELECT {draw} AS draw, key FROM judged WHERE rule IS NULL ORDER BY draw, key "
            f"LIMIT 1 OFFSET {choice.sample - 1}",
        )
        condition += f" AND ({draw}, key) <= ({drawn}::HUGEINT, {text(last)})"
        leave(f"not in the sample of {choice.sample:,}", kept - choice.sample)
        kept = choice.sample
    if limit is not None and limit < kept:
        (last,) = _one(database, f"SELECT key FROM judged WHERE {condition} ORDER BY key LIMIT 1 OFFSET {limit - 1}")
        condition += f" AND key <= {text(last)}"
        leave(f"beyond --limit {limit:,}", kept - limit)
        kept = limit
    steps.append(Step("clips", kept))
    for said in remarks:
        told = f"SELECT id, {text(said.reason)} FROM judged WHERE {condition} AND {said.leaves_out}"
        database.execute(f"INSERT INTO said {told}")
    for reason, count in database.execute("SELECT reason, count(*) FROM said GROUP BY reason").fetchall():
        left_out[reason] = left_out.get(reason, 0) + count
    _make_views(database, rules, condition, request, source, license, bool(malformed))
    if not at_hand:
        database.execute(f"""
            CREATE VIEW asked AS
            SELECT asked AS name, coalesce(min(url), '') AS url, bool_and(file IS NOT NULL) AS is_here
            FROM judged WHERE {condition} AND asked <> '' GROUP BY asked ORDER BY name""")
    (seconds,) = _one(database, 'SELECT coalesce(sum("end" - start), 0.0) FROM spans')
    return ChosenRows(database, kept, float(seconds), left_out, tuple(steps))


def _balance(database: duckdb.DuckDBPyConnection, draw: str, sample: int | None) -> int:
    """The table `balanced` of the keys that are kept, drawn bucket by bucket; how many. None without a value."""
    ranked = (
        f"SELECT key, {draw} AS draw, row_number() OVER (PARTITION BY bucket ORDER BY {draw}, key) AS place "
        "FROM judged WHERE rule IS NULL AND bucket IS NOT NULL"
    )
    rarest = "SELECT count(*) AS size FROM judged WHERE rule IS NULL AND bucket IS NOT NULL GROUP BY bucket"
    chosen = (
        f"WHERE place <= (SELECT min(size) FROM ({rarest}))"
        if sample is None
        else f"ORDER BY place, draw, key LIMIT {sample}"
    )
    database.execute(f"CREATE TABLE balanced AS SELECT key FROM ({ranked}) {chosen}")
    return int(_one(database, "SELECT count(*) FROM balanced")[0])


def _leave_out_twice(database: duckdb.DuckDBPyConnection, rules: list[Rule]) -> dict[int, int]:
    """Of rows with one key keep the first by file and time; add the rules that leave out the others."""
    same, other = len(rules), len(rules) + 1
    rules += [Rule("same id and span twice", ""), Rule("two rows of one id", "")]
    # Rows that are the same in all of this are the same: which of them is first says nothing.
    more = "".join(
        f", {quoted(name)}" for name in _stored(database) if name.startswith(("score_", "license", "source_fields"))
    )
    database.execute(f"""
        CREATE TABLE again AS
        WITH keys AS (SELECT key FROM judged WHERE rule IS NULL GROUP BY key HAVING count(*) > 1)
        SELECT rowid AS row, row_number() OVER one_key AS place,
            (file, start, stop) IS NOT DISTINCT FROM first_value((file, start, stop)) OVER one_key AS is_same
        FROM judged WHERE rule IS NULL AND key IN (SELECT key FROM keys)
        WINDOW one_key AS (PARTITION BY key ORDER BY file, start, stop, caption{more})""")
    database.execute(
        f"UPDATE judged SET rule = CASE WHEN is_same THEN {same} ELSE {other} END FROM again "
        "WHERE judged.rowid = again.row AND place > 1"
    )
    rows = database.execute("SELECT is_same, count(*) FROM again WHERE place > 1 GROUP BY is_same").fetchall()
    return {same if is_same else other: count for is_same, count in rows}


def _make_views(
    database: duckdb.DuckDBPyConnection,
    rules: list[Rule],
    condition: str,
    request: Request,
    source: str,
    license: str,
    malformed: bool,
) -> None:
    stored = _stored(database)
    scores = _scores_map([column for column in stored if column.startswith("score_")])
    own_fields = ", source_fields" if "source_fields" in stored else ""
    longest = f"start + {request.clip_seconds!r}"
    database.execute(f"""
        CREATE VIEW spans AS
        SELECT * EXCLUDE (stop), CASE WHEN stop IS NULL THEN {longest} ELSE least(stop, {longest}) END AS "end"
        FROM judged WHERE {condition}""")
    root = "" if request.videos is None else str(request.videos.resolve()).rstrip("/") + "/"
    database.execute(f"""
        CREATE VIEW clips AS
        SELECT key, {text(root)} || file AS video, start, "end", crop, caption, {text(source)} AS source,
            id AS source_id, video_id, {license} AS license, 'general' AS subset, {scores} AS scores{own_fields}
        FROM (SELECT * FROM spans ORDER BY key)""")
    listed = [(n, rule.reason) for n, rule in enumerate(rules) if not rule.is_choice]
    reasons = ", ".join(f"({n}, {text(reason)})" for n, reason in listed)
    bytes_ = "UNION ALL SELECT name, kind FROM named_malformed" if malformed else ""
    database.execute(f"""
        CREATE VIEW left_out AS
        SELECT * FROM (
            SELECT id, reason FROM said UNION ALL SELECT coalesce(nullif(judged.id, ''), '(no id)'), reason
            FROM judged JOIN (VALUES {reasons}) rules(number, reason) ON rule = number {bytes_}
        ) ORDER BY reason, id""")


def _is_constant(sql: str) -> bool:
    """Whether it is a text, the same for every row, that need not be stored and sorted with them."""
    return len(sql) > 2 and sql[0] == sql[-1] == "'" and text(sql[1:-1].replace("''", "'")) == sql


def _stored(database: duckdb.DuckDBPyConnection) -> list[str]:
    return [column for column, *_ in database.execute("DESCRIBE judged").fetchall()]


def _scores_map(columns: list[str]) -> str:
    """SQL for the finite scores of a row by name."""
    if not columns:
        return "MAP([]::VARCHAR[], []::DOUBLE[])"
    names = {quoted(column): text(column.removeprefix("score_")) for column in columns}
    are_all = " AND ".join(f"coalesce(isfinite({column}), false)" for column in names)
    struct = ", ".join(f"{name}: {column}" for column, name in names.items())
    entries = ", ".join(f"struct_pack(k := {name}, v := {column})" for column, name in names.items())
    some = f"map_from_entries(list_filter([{entries}], lambda e: e.v IS NOT NULL AND isfinite(e.v)))"
    # Nearly every row has them all, and a map made of a struct costs a fifth of one made of lists.
    return f"CASE WHEN {are_all} THEN {{{struct}}}::MAP(VARCHAR, DOUBLE) ELSE {some} END"


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, _LISTED)):
        yield some


def _one(database: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = database.execute(query).fetchone()
    assert row is not None
    return tuple(row)
