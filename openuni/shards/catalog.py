"""The catalog: every commit record of a dataset in one Parquet file, so that opening it takes three reads.

    catalog.write(root, run)                  # at the end of every run, and by `openuni index`
    catalog.read(store, manifest, its_sha256)  # the records, or None: list `commits/` instead

It is derived and may be deleted at any time. `catalog.json` is written last; it names the bytes of `dataset.json` and
of `catalog.parquet` that belong together, and whoever commits or removes a column deletes it first (`retire`). So a
catalog that is missing, stale or damaged is passed over, and the records themselves are read.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openuni.errors import CorruptDataError
from openuni.shards import layout, tables
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.storage import DOCUMENT, LocalStore, Store

HEAD = "catalog.json"
TABLE = "catalog.parquet"
_MOST_BYTES = 1 << 30
_FILE = pa.struct([("size", pa.int64()), ("sha256", pa.string())])
_KINDS = {
    **dict.fromkeys(("shard", "samples", "present", "schema"), pa.int64()),
    **dict.fromkeys(("tar", "index"), _FILE),
}
_FIELDS = [field.name for field in fields(CommitRecord) if field.name != "run"]
"""Without the run: two builds of one plan have the same catalog, byte for byte."""
_SCHEMA = pa.schema([pa.field(name, _KINDS.get(name, pa.string()), nullable=False) for name in _FIELDS])


@dataclass(frozen=True, slots=True)
class Head:
    """`catalog.json`: which `dataset.json` the catalog was made for, and the table that belongs to it."""

    manifest_sha256: str
    table: FileRecord


def write(root: Path, run: str) -> int:
    """Fold the commit records of a local dataset; returns how many. Raises CorruptDataError where one is damaged.

    For the holder of the dataset: nobody may commit meanwhile.
    """
    store = LocalStore(root)
    retire(root)
    manifest = _manifest(store)
    naming = layout.naming(manifest)
    names = (layout.commit_name(*place, naming) for place in places(store, manifest))
    records = [record for name in names if (record := commit_record(store, name)) is not None]
    put(store, records, run)
    return len(records)


def put(store: Store, records: Sequence[CommitRecord], run: str) -> None:
    """Write the catalog of these records, which are all that the dataset has, by shard and column."""
    data = encode(records)
    store.put(TABLE, data, run)
    manifest = store.read(layout.MANIFEST, at_most=DOCUMENT)
    head = Head(layout.digest(manifest), FileRecord(len(data), layout.digest(data)))
    store.put(HEAD, layout.dump_checked(head), run)


def retire(root: Path) -> None:
    """Delete the catalog's head, before anything that it tells of is changed."""
    LocalStore(root).delete(HEAD)


def read(store: Store, manifest: Manifest, manifest_sha256: str) -> list[CommitRecord] | None:
    """The records, sorted by shard and column, their `run` empty; None where there is no catalog of just this dataset.

    In a folder a look at each file costs little: there, a record that was removed, added or written by hand since is
    seen too.
    """
    try:
        head = layout.parse_checked(Head, store.read(HEAD, at_most=DOCUMENT), store.where(HEAD))
        if head.manifest_sha256 != manifest_sha256 or head.table.size > _MOST_BYTES:
            return None
        data = store.read(TABLE, at_most=head.table.size)
        if layout.digest(data) != head.table.sha256:
            return None
        records = decode(data, store.where(TABLE))
    except (FileNotFoundError, CorruptDataError):
        return None
    if isinstance(store, LocalStore):
        known = [(record.shard, record.column) for record in records]
        naming = layout.naming(manifest)
        if known != places(store, manifest) or _is_newer(store, [layout.commit_name(*p, naming) for p in known]):
            return None
    return records


def read_named(store: Store, file: FileRecord) -> list[CommitRecord]:
    """The records of one revision of a dataset in a bucket. Raises CorruptDataError: no other file has them."""
    name = layout.hashed(TABLE, file.sha256)
    try:
        data = store.read(name, at_most=min(file.size, _MOST_BYTES))
    except FileNotFoundError:
        raise CorruptDataError(
            f"{store.where(name)} is missing; if the dataset was changed meanwhile, open it again"
        ) from None
    if layout.digest(data) != file.sha256:
        raise CorruptDataError(f"{store.where(name)} is not what {layout.MANIFEST} says; restore it from a copy")
    return decode(data, store.where(name))


def encode(records: Sequence[CommitRecord]) -> bytes:
    """The table's bytes."""
    sink = io.BytesIO()
    rows = [{name: getattr(record, name) for name in _FIELDS} for record in records]
    for row in rows:
        row |= {name: asdict(row[name]) for name in ("tar", "index")}
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def decode(data: bytes, where: str) -> list[CommitRecord]:
    """Raises CorruptDataError naming `where`."""
    table = tables.read(io.BytesIO(data), _SCHEMA, where)
    try:
        # A column at a time: rows as dictionaries take thrice as long, and a million clips have 50,000 records.
        known = {name: table[name].to_pylist() for name in _FIELDS if _KINDS.get(name) is not _FILE}
        for name in ("tar", "index"):
            parts = (pc.struct_field(table[name], part).to_pylist() for part in ("size", "sha256"))
            known[name] = list(map(FileRecord, *parts))
        return [CommitRecord(run="", **dict(zip(known, row, strict=True))) for row in zip(*known.values(), strict=True)]
    except (TypeError, ValueError) as error:
        raise CorruptDataError(f"{where} holds something that is not a commit record: {error}") from None


def places(store: Store, manifest: Manifest) -> list[tuple[int, str]]:
    """Shard and column of every commit record of a dataset, in order."""
    names = (store.list(folder) for folder in layout.commit_folders(layout.naming(manifest), manifest.shards))
    return sorted(place for some in names for place in map(layout.parse_commit_name, some) if place)


def commit_record(store: Store, name: str) -> CommitRecord | None:
    """One record from its own file, or None where it was never committed. Raises CorruptDataError."""
    path = store.where(name)
    try:
        data = store.read(name, at_most=DOCUMENT)
    except FileNotFoundError:
        return None
    record = layout.parse_checked(CommitRecord, data, path)
    if (record.shard, record.column) != layout.parse_commit_name(name):
        raise CorruptDataError(f"{path} is the record of shard {record.shard}, column {record.column!r}")
    return record


def _is_newer(store: LocalStore, names: Sequence[str]) -> bool:
    """Whether a record was written after the catalog."""
    try:
        written = store.path(HEAD).stat().st_mtime_ns
        return any(store.path(name).stat().st_mtime_ns > written for name in names)
    except FileNotFoundError:  # a run has begun to change the dataset
        return True


def _manifest(store: Store) -> Manifest:
    return layout.parse_json(Manifest, store.read(layout.MANIFEST, at_most=DOCUMENT), store.where(layout.MANIFEST))
