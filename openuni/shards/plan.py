"""The plan: which clips, in which order, in which shard. Made once, sorted by key, frozen; no expert runs."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from openuni import source_fields
from openuni.choosing import Step, text
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import Clip
from openuni.shards import layout, tables, takedown
from openuni.shards.layout import Manifest
from openuni.sources import Request, Skipped
from openuni.sources.rows import RowSource
from openuni.sources.selection import ChosenRows
from openuni.storage import open_regular

_BATCH = 4096
_BLOCK = 16384
"""Rows that are brought into order in memory at once, and that make a row group.

A row group a shard would cost every process that has the plan open a hundred bytes of Parquet metadata a clip.
"""
_FEW = 2048
"""Instead, where rows have source fields, which may be long; DuckDB makes no smaller group."""
_SHARD_SIZE = b"shard_size"
_MAX_REASONS = 32
DUPLICATE = "duplicate key"
REMOVED = ""
"""Key and video of a row whose clip was taken down: it keeps the places of the others."""
GENERATIONS = "generations"
"""In a manifest's configuration: a `Generation` for each time that the dataset was planned or extended."""
FUNNEL = "funnel"
"""In a manifest's configuration: a `Step` for each step of choosing rows."""
OTHER_REASONS = "other reasons, see skipped.parquet"
_FIELDS = "source_fields"
"""An object of JSON as text. A plan in which no row has any has not this column."""
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64()),
        pa.field("crop", pa.list_(pa.int32())),
        pa.field("caption", pa.string()),
        pa.field("source", pa.string()),
        pa.field("source_id", pa.string()),
        pa.field("video_id", pa.string()),
        pa.field("license", pa.string()),
        pa.field("subset", pa.string()),
        pa.field("scores", pa.map_(pa.string(), pa.float64())),
        tables.later(_FIELDS, pa.string()),
    ]
)

_SKIPPED_SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("reason", pa.string())])


@dataclass
class Tally:
    """What a plan holds: clips, their seconds (of those whose end is known), and why rows were skipped."""

    clips: int = 0
    seconds: float = 0.0
    open_ended: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    funnel: tuple[Step, ...] = ()
    """The rows that were left after each step; none of sources that choose no rows."""

    def skip(self, reason: str, count: int = 1) -> None:
        """Count by reason; reasons beyond the first few dozen are in `skipped.parquet` only."""
        reason = reason if reason in self.skipped or len(self.skipped) < _MAX_REASONS else OTHER_REASONS
        self.skipped[reason] = self.skipped.get(reason, 0) + count


class NoClipsError(PlanError):
    """A source gave no clip; why is in the message."""

    def __init__(self, tally: Tally) -> None:
        why = "; ".join(f"{count} {reason}" for reason, count in sorted(tally.skipped.items()))
        super().__init__(f"the source gave no usable clip ({why or 'it has no rows'})")


def write(path: Path, clips: Iterable[Clip | Skipped], shard_size: int, run: str) -> Tally:
    """Sort `clips` by key and write them to `path`, for shards of `shard_size` clips.

    The rows go through a memory-mapped Arrow file beside the plan, so only the keys are held in memory: less than a
    hundred bytes a clip, while they are sorted. A key that comes twice is kept once, the first one, and counted. Rows
    that became no clip are listed in `skipped.parquet` beside the plan, each with its reason. Raises PlanError when no
    clip is left.
    """
    tally = Tally()
    path.parent.mkdir(parents=True, exist_ok=True)
    with layout.temporary_folder(path, run) as scratch:
        unsorted = scratch / "clips.arrow"
        skipped = scratch / layout.SKIPPED
        with pq.ParquetWriter(skipped, _SKIPPED_SCHEMA, compression="zstd") as skipped_writer:
            has_fields = _spill(unsorted, skipped_writer, clips, tally)
            with pa.memory_map(str(unsorted)) as source:
                order = _unique_order(pa.ipc.open_file(source), tally, skipped_writer)
        with pa.memory_map(str(unsorted)) as source:
            reader = pa.ipc.open_file(source)
            if tally.clips == 0:
                raise NoClipsError(tally)
            temporary = scratch / path.name
            schema = tables.having(SCHEMA, later=has_fields).with_metadata({_SHARD_SIZE: str(shard_size)})
            block = _FEW if has_fields else _BLOCK
            with pq.ParquetWriter(temporary, schema, compression="zstd", write_statistics=False) as writer:
                for begin in range(0, len(order), block):
                    taken = _take(reader, order[begin : begin + block]).select(schema.names)
                    writer.write_table(taken, row_group_size=block)
        _publish(skipped, temporary, path)
    return tally


def write_rows(
    path: Path,
    source: RowSource,
    request: Request,
    shard_size: int,
    run: str,
    limit: int | None = None,
    known: tuple[Path, ...] = (),
    taken_down: Collection[str] = (),
) -> Tally:
    """As `write`, of a source whose rows are chosen in SQL: rows go from its files to the plan without Python.

    At most `limit` clips, the first by key; none whose key is in one of the plans `known`, and none whose key or id has
    a digest in `taken_down` (`takedown.digest`). Memory is bounded whatever
    the number of rows. Raises PlanError as the source does, and NoClipsError when no clip is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with layout.temporary_folder(path, run) as scratch:
        with source.select(request, scratch, limit, known) as chosen:
            tally = _tally(chosen)
            clips = "clips"
            if taken_down:
                clips = _but(chosen.database, taken_down)
                counted = f'SELECT count(*), coalesce(sum("end" - start), 0) FROM {clips}'
                tally.clips, tally.seconds = chosen.database.execute(counted).fetchall()[0]
                if tally.clips == 0:
                    raise NoClipsError(tally)
            skipped, temporary = scratch / layout.SKIPPED, scratch / path.name
            columns = ", ".join(f'"{column}"' for column in SCHEMA.names if column in chosen.columns)
            block = _FEW if _FIELDS in chosen.columns else _BLOCK
            # The disk is cheaper than the time: level 3 takes a tenth more.
            # Dictionaries are for texts that are the same everywhere; of keys and captions they save nothing.
            written = (
                f"FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {block}, "
                "DICTIONARY_SIZE_LIMIT 100"
            )
            size = f"KV_METADATA {{{_SHARD_SIZE.decode()}: '{shard_size}'}}"
            for query, target, more in (
                (f"SELECT {columns} FROM {clips}", temporary, f", {size}"),
                ("SELECT id, reason FROM left_out", skipped, ""),
            ):
                chosen.database.execute(f"COPY ({query}) TO {text(str(target))} ({written}{more})")
            if taken_down:
                everything = skipped.rename(scratch / f"all-{layout.SKIPPED}")
                gone = frozenset(taken_down)
                write_skipped_without(everything, skipped, lambda name: not gone.isdisjoint(takedown.digests_in(name)))
        _publish(skipped, temporary, path)
    return tally


def count_rows(source: RowSource, request: Request, scratch: Path, limit: int | None = None) -> Tally:
    """What `write_rows` would plan: rows are chosen as there, and not brought into order or written.

    Files go to the folder `scratch`. Raises PlanError as the source does, and NoClipsError when no clip is left.
    """
    with source.select(request, scratch, limit) as chosen:
        return _tally(chosen)


def _tally(chosen: ChosenRows) -> Tally:
    tally = Tally(chosen.clips, chosen.seconds, funnel=chosen.funnel)
    for reason, count in chosen.left_out.items():
        tally.skip(reason, count)
    if tally.clips == 0:
        raise NoClipsError(tally)
    return tally


def _but(database: Any, taken_down: Collection[str]) -> str:
    """The clips that were not taken down, as the source of a query."""
    database.execute("CREATE TEMP TABLE taken_down AS SELECT unnest(?) AS digest", [sorted(taken_down)])
    named = " AND ".join(
        f"sha256('{kind}/' || coalesce({kind}, '')) NOT IN (SELECT digest FROM taken_down)"
        for kind in ("key", "source_id", "video_id")
    )
    return f"(SELECT * FROM clips WHERE {named} ORDER BY key)"


def _publish(skipped: Path, plan: Path, path: Path) -> None:
    """Put both in place, the plan last."""
    for finished, final in ((skipped, skipped_beside(path)), (plan, path)):
        with finished.open("rb") as file:
            os.fsync(file.fileno())
        layout.publish(finished, final)


@dataclass(frozen=True, slots=True)
class Generation:
    """One plan of a dataset: the first, or what `--extend` added. Its shards follow those of the one before."""

    clips: int
    shards: int
    plan_sha256: str


def generations(manifest: Manifest) -> list[Generation]:
    """The plans of a dataset in order; one for a dataset that was never extended, none without a plan."""
    written = manifest.configuration.get(GENERATIONS)
    if written is None:
        first = Generation(manifest.clips, manifest.shards, manifest.plan_sha256)
        return [first] if manifest.plan_sha256 else []
    try:
        made = TypeAdapter(list[Generation]).validate_python(written)
    except ValidationError:
        made = []
    if not made or (sum(g.clips for g in made), sum(g.shards for g in made)) != (manifest.clips, manifest.shards):
        raise CorruptDataError(f"{layout.MANIFEST} has {GENERATIONS} that do not add up to its clips and shards")
    return made


def unchanging(manifest: Manifest) -> dict[str, Any]:
    """The configuration without what changes when a dataset grows, or lies elsewhere: what makes it this dataset."""
    grows = (GENERATIONS, FUNNEL, "listing", layout.NAMING, layout.REVISION)
    return {name: said for name, said in manifest.configuration.items() if name not in grows}


def funnel(manifest: Manifest) -> tuple[Step, ...]:
    """How the rows of a dataset were chosen; empty where its source chooses none. Raises CorruptDataError."""
    try:
        return tuple(TypeAdapter(list[Step]).validate_python(manifest.configuration.get(FUNNEL, [])))
    except ValidationError as error:
        raise CorruptDataError(f"{layout.MANIFEST} has a {FUNNEL} that openuni did not write") from error


def starts(manifest: Manifest) -> list[int]:
    """The first shard of each generation; keys ascend from there to the next."""
    return list(itertools.accumulate((made.shards for made in generations(manifest)[:-1]), initial=0))


def name_of(generation: int) -> str:
    """The file of a generation's plan: `plan.parquet`, `plan.0001.parquet`, …"""
    return layout.PLAN if generation == 0 else f"plan.{generation:04d}.parquet"


class Plans:
    """All plans of a dataset as one: its shards in order, those of later generations after the earlier."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._plans = [Plan(root / name_of(number)) for number in range(len(generations(manifest)))]

    def shard(self, number: int) -> list[Clip]:
        """The clips of one shard, in key order; none where the dataset was not built from videos."""
        for plan in self._plans:
            if number < plan.shards:
                return plan.shard(number)
            number -= plan.shards
        return []

    def size(self, number: int) -> int:
        """Clips of one shard, without reading them."""
        for plan in self._plans:
            if number < plan.shards:
                return plan.size(number)
            number -= plan.shards
        return 0

    def spans(self) -> tuple[float, int]:
        """Seconds of the clips whose end is known, and how many have none."""
        each = [plan.spans() for plan in self._plans]
        return sum(seconds for seconds, _ in each), sum(count for _, count in each)

    def __iter__(self) -> Iterator[Clip]:
        for plan in self._plans:
            yield from plan


class Plan:
    """A frozen plan, read a shard at a time. Raises PlanError where the file is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = tables.open_table(open_regular(path), SCHEMA, str(path))
        except (CorruptDataError, OSError) as error:
            raise PlanError(f"{path} is not a plan ({error}); delete it and plan again") from error
        size = (self._file.schema_arrow.metadata or {}).get(_SHARD_SIZE, b"")
        groups = self._file.num_row_groups
        self._group_size = self._file.metadata.row_group(0).num_rows if groups else 0
        is_ours = size.isdigit() and len(size) < 10 and int(size) > 0 and 0 < self._group_size <= _BLOCK
        if not is_ours or groups != -(-self.clips // self._group_size):
            raise PlanError(f"{path} was written by another version of OpenUni; plan again into a new folder")
        self._shard_size = int(size)
        self._group = -1
        self._rows = pa.table({})
        """The row group that was read last: shards are read in order."""

    @property
    def shards(self) -> int:
        return -(-self.clips // self._shard_size)

    @property
    def clips(self) -> int:
        return int(self._file.metadata.num_rows)

    def size(self, number: int) -> int:
        """Clips of one shard."""
        return max(0, min(self._shard_size, self.clips - number * self._shard_size))

    def shard(self, number: int) -> list[Clip]:
        """The clips of one shard, in key order, but for those that were taken down."""
        first = number * self._shard_size
        last = first + self.size(number)
        clips: list[Clip] = []
        while first < last:
            group, offset = divmod(first, self._group_size)
            if group != self._group:
                self._rows, self._group = self._read_group(group), group
            rows = self._rows.slice(offset, last - first)
            if not len(rows):
                raise PlanError(f"{self._path} has fewer clips than it says; delete it and plan again")
            clips += [self._clip(fields) for fields in rows.to_pylist() if not _is_removed(fields)]
            first += len(rows)
        return clips

    def spans(self) -> tuple[float, int]:
        """Seconds of the clips whose end is known, and how many have none."""
        seconds, open_ended = 0.0, 0
        for number in range(self._file.num_row_groups):
            rows = self._read_group(number)
            seconds += pc.sum(pc.subtract(rows["end"], rows["start"])).as_py() or 0.0
            open_ended += rows["end"].null_count
        return seconds, open_ended

    def _read_group(self, number: int) -> pa.Table:
        try:
            return tables.read_group(self._file, number, str(self._path))
        except CorruptDataError as error:
            raise PlanError(f"{error}; delete it and plan again") from error

    def _clip(self, fields: dict[str, object]) -> Clip:
        try:
            return _clip(fields)
        except (OpenUniError, TypeError, ValueError) as error:
            raise PlanError(
                f"{self._path} holds something that is not a clip ({error}); delete it and plan again"
            ) from error

    def __iter__(self) -> Iterator[Clip]:
        for number in range(self.shards):
            yield from self.shard(number)


def _is_removed(fields: dict[str, object]) -> bool:
    """An empty key beside a video is no clip that was taken down, but a plan that somebody changed."""
    return fields["key"] == REMOVED == fields["video"]


def write_without(path: Path, target: Path, is_removed: Callable[[str], bool]) -> bool:
    """Write the plan at `path` to `target` with nothing in the rows whose key is removed. False where there is none.

    The rows stay, so that every other clip keeps its place.
    """
    found = False
    with open_regular(path) as file:
        table = tables.open_table(file, SCHEMA, str(path))
        has_fields = _FIELDS in table.schema_arrow.names
        schema = tables.having(SCHEMA, later=has_fields).with_metadata(table.schema_arrow.metadata)
        with pq.ParquetWriter(target, schema, compression="zstd", write_statistics=False) as writer:
            for number in range(table.num_row_groups):
                rows = tables.read_group(table, number, str(path)).select(schema.names).cast(schema)
                removed = pa.array([key != REMOVED and is_removed(key) for key in rows["key"].to_pylist()])
                if pc.any(removed).as_py():
                    found = True
                    rows = pa.table([_emptied(rows[field.name], field, removed) for field in schema], schema)
                writer.write_table(rows, row_group_size=_BLOCK)
    return found


def _emptied(values: pa.ChunkedArray, field: pa.Field, removed: pa.Array) -> pa.ChunkedArray:
    nothing = None if field.nullable else 0.0 if pa.types.is_floating(field.type) else REMOVED
    if pa.types.is_map(field.type) or pa.types.is_list(field.type):
        return pa.array(
            [None if gone else value for gone, value in zip(removed.to_pylist(), values.to_pylist(), strict=True)],
            field.type,
        )
    return pc.if_else(removed, pa.scalar(nothing, field.type), values)


def write_skipped(path: Path, rows: Iterable[Skipped], run: str) -> None:
    """Replace the table of rows that became no clip, beside the plan at `path`."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], _SKIPPED_SCHEMA), sink, compression="zstd")
    layout.write_atomic(skipped_beside(path), sink.getvalue(), run)


def write_skipped_without(table: Path, target: Path, is_removed: Callable[[str], bool]) -> bool:
    """Write the table of rows that became no clip to `target` without those whose name is removed. False if none is."""
    found = False
    with open_regular(table) as file, pq.ParquetWriter(target, _SKIPPED_SCHEMA, compression="zstd") as writer:
        rows = tables.rows(file, _SKIPPED_SCHEMA, str(table))
        while some := list(itertools.islice(rows, _BATCH)):
            kept = [row for row in some if not is_removed(row["id"])]
            found |= len(kept) < len(some)
            writer.write_table(pa.Table.from_pylist(kept, _SKIPPED_SCHEMA))
    return found


def skipped_names(path: Path) -> Iterator[str]:
    """The names of the rows that became no clip, from the table beside the plan at `path`."""
    table = skipped_beside(path)
    with open_regular(table) as file:
        for row in tables.rows(file, _SKIPPED_SCHEMA, str(table)):
            yield row["id"]


def skipped_beside(path: Path) -> Path:
    """The table of rows that became no clip, of the plan at `path`."""
    return path.with_name(f"skipped{path.name.removeprefix('plan')}")


def skipped(path: Path) -> list[Skipped]:
    """The rows that became no clip, from the table beside the plan at `path`."""
    table = skipped_beside(path)
    with open_regular(table) as file:
        return [Skipped(**fields) for fields in tables.rows(file, _SKIPPED_SCHEMA, str(table))]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that share a reason: how many, and the names of the first few."""

    reason: str
    count: int
    names: tuple[str, ...]


def left_out(path: Path, counts: Mapping[str, int], names: int = 3) -> list[LeftOut]:
    """What became no clip, the most frequent reason first; `counts` by reason, as a `Tally` or the manifest has them.

    Names come from the first 100,000 rows of the table beside the plan at `path`: it may have millions.
    """
    table = skipped_beside(path)
    first: dict[str, list[str]] = {reason: [] for reason in counts}
    with open_regular(table) as file:
        for row in itertools.islice(tables.rows(file, _SKIPPED_SCHEMA, str(table)), 100_000):
            shown = first.get(row["reason"])
            if shown is not None and len(shown) < names:
                shown.append(row["id"])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [LeftOut(reason, count, tuple(first[reason])) for reason, count in ordered]


def _spill(path: Path, skipped_writer: pq.ParquetWriter, clips: Iterable[Clip | Skipped], tally: Tally) -> bool:
    """Write clips as they come to an Arrow file in batches of `_BATCH`, and skipped rows to a table of their own.

    Returns whether a clip has source fields. Those that are too large are left out, and that is said.
    """
    batch: list[dict[str, object]] = []
    has_fields = False
    skipped: list[dict[str, str]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for clip in clips:
            if isinstance(clip, Skipped):
                tally.skip(clip.reason)
                skipped.append(asdict(clip))
            else:
                try:
                    fields = source_fields.encode(clip.source_fields) if clip.source_fields else None
                except ValueError as error:
                    raise PlanError(f"source {clip.source} gave clip {clip.key} {error}; give JSON's values") from error
                if fields is not None and len(fields.encode()) > source_fields.MOST_BYTES:
                    tally.skip(source_fields.TOO_LARGE)
                    skipped.append(asdict(Skipped(clip.source_id or clip.key, source_fields.TOO_LARGE)))
                    fields = None
                has_fields |= fields is not None
                batch.append(asdict(clip) | {"scores": sorted(clip.scores.items()), _FIELDS: fields})
                tally.seconds += 0.0 if clip.end is None else clip.end - clip.start
                tally.open_ended += clip.end is None
            if len(batch) == _BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, SCHEMA))
                batch.clear()
            if len(skipped) == _BATCH:
                skipped_writer.write_table(pa.Table.from_pylist(skipped, _SKIPPED_SCHEMA))
                skipped.clear()
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, SCHEMA))
        if skipped:
            skipped_writer.write_table(pa.Table.from_pylist(skipped, _SKIPPED_SCHEMA))
    return has_fields


def _unique_order(
    reader: pa.ipc.RecordBatchFileReader, tally: Tally, skipped_writer: pq.ParquetWriter
) -> npt.NDArray[np.int64]:
    """Row numbers in key order, without later rows of a key that was seen before; those are listed as skipped."""
    batches = range(reader.num_record_batches)
    keys = pa.chunked_array([reader.get_batch(number).column("key") for number in batches], pa.string())
    rows = pa.table({"key": keys, "row": np.arange(len(keys))})
    order = pc.sort_indices(rows, [("key", "ascending"), ("row", "ascending")])
    ascending = keys.take(order)
    first = np.ones(len(order), bool)
    first[1:] = pc.not_equal(ascending[1:], ascending[:-1])
    tally.clips = int(first.sum())
    if duplicates := len(order) - tally.clips:
        tally.skip(DUPLICATE, duplicates)
        names = ascending.filter(pa.array(~first))
        skipped_writer.write_table(pa.table([names, pa.repeat(DUPLICATE, duplicates)], _SKIPPED_SCHEMA))
    return np.asarray(order, np.int64)[first]


def _take(reader: pa.ipc.RecordBatchFileReader, rows: npt.NDArray[np.int64]) -> pa.Table:
    """The rows with these numbers, in this order.

    Batch by batch: `Table.take` would copy the whole table at every call.
    """
    ascending = np.argsort(rows)
    numbers, offsets = np.divmod(rows[ascending], _BATCH)
    cuts = np.flatnonzero(np.diff(numbers)) + 1
    pieces = [
        reader.get_batch(int(number[0])).take(pa.array(offset))
        for number, offset in zip(np.split(numbers, cuts), np.split(offsets, cuts), strict=True)
    ]
    back = np.empty_like(ascending)
    back[ascending] = np.arange(len(ascending))
    return pa.Table.from_batches(pieces).combine_chunks().take(pa.array(back))


def _clip(fields: dict[str, object]) -> Clip:
    crop, scores, own = fields.pop("crop"), fields.pop("scores"), fields.pop(_FIELDS, None)
    return Clip(
        **fields,  # type: ignore[arg-type]  # the schema gives the types
        crop=tuple(crop) if crop else None,  # type: ignore[arg-type]
        scores=dict(scores or ()),  # type: ignore[call-overload]
        source_fields=source_fields.decode(own or "{}"),  # type: ignore[arg-type]
    )
