"""The Parquet index: one row a sample and column, with the place, size and SHA-256 of every member."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from openuni import source_fields
from openuni.errors import CorruptDataError, OpenUniError
from openuni.sample import Record, Status, check_key
from openuni.shards import layout, tables

_MEMBER = pa.struct([("field", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("sha256", pa.binary(32))])
_COLUMN_FIELDS = [
    pa.field("key", pa.string(), nullable=False),
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("present", pa.bool_(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("expert", pa.string()),
    pa.field("confidence", pa.float64()),
    pa.field("scores", pa.map_(pa.string(), pa.float64())),
    pa.field("members", pa.list_(_MEMBER)),
]
_RECORD_FIELDS = [
    pa.field("frames", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("fps", pa.float64(), nullable=False),
    pa.field("caption", pa.string()),
    pa.field("subset", pa.string()),
    pa.field("split", pa.string()),
    pa.field("source", pa.string()),
    pa.field("source_id", pa.string()),
    pa.field("video_id", pa.string()),
    pa.field("license", pa.string()),
    pa.field("start", pa.float64()),
    pa.field("end", pa.float64()),
    tables.later("source_fields", pa.string()),
]
_HASHES = pa.field("hashes", pa.list_(pa.uint64()))

MOST_BYTES = 1 << 30
"""Of an index file; a larger one is not read."""
MOST_SAMPLE = (8 << 30) - 1
"""Bytes of one sample in one column, and what one tar header can say; an index that claims more is not believed."""
_MOST_MEMBERS = 64
_FIELD = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_HEADER = 512
_RECORD = TypeAdapter(Record)


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of one field lie in the column's tar: offset of the data, size, SHA-256."""

    field: str
    offset: int
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One sample in one column. `record` is known to RGB's index only."""

    key: str
    shard: int
    status: Status
    members: tuple[Member, ...]
    scores: dict[str, float] = field(default_factory=dict)
    record: Record | None = None
    hashes: tuple[int, ...] = ()
    """Numbers of 64 bits by which clips are compared; known to the indices of columns of numbers only."""


def schema(column: str) -> pa.Schema:
    more = _RECORD_FIELDS if column == "rgb" else [_HASHES] if layout.holds_numbers(column) else []
    return pa.schema(_COLUMN_FIELDS + more)


def encode(rows: Sequence[Row], column: str) -> bytes:
    """The index file's bytes; the same rows always give the same bytes in one environment."""
    sink, flat = io.BytesIO(), [_flat(row) for row in rows]
    written = tables.having(schema(column), later=any(row.get("source_fields") for row in flat))
    pq.write_table(pa.Table.from_pylist(flat, written), sink, compression="zstd")
    return sink.getvalue()


def decode(data: bytes, column: str, where: str) -> list[Row]:
    """Rows in stored order. Raises CorruptDataError naming `where`."""
    rows: list[Row] = []
    for number, fields in enumerate(tables.rows(io.BytesIO(data), schema(column), where)):
        try:
            rows.append(_row(fields, column))
        except (OpenUniError, ValidationError, TypeError, ValueError) as error:
            what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise CorruptDataError(f"{where}: row {number} is not a sample: {what}") from None
    if len({row.key for row in rows}) != len(rows):
        raise CorruptDataError(f"{where} names a key twice")
    return rows


def keys_sha256(keys: Sequence[str]) -> str:
    """A fingerprint of which samples, in which order."""
    return hashlib.sha256("".join(key + "\n" for key in keys).encode()).hexdigest()


def _flat(row: Row) -> dict[str, Any]:
    status, record = row.status, row.record
    fields: dict[str, Any] = {
        "key": row.key,
        "shard": row.shard,
        "present": status.present,
        "reason": status.reason,
        "expert": status.expert,
        "confidence": status.confidence,
        "scores": sorted(row.scores.items()),
        "members": [{"field": m.field, "offset": m.offset, "size": m.size, "sha256": m.sha256} for m in row.members],
    }
    if record is not None:
        fields |= {f.name: getattr(record, f.name) for f in _RECORD_FIELDS}
        fields["source_fields"] = source_fields.indexed(record.source_fields)
    return fields | {"hashes": row.hashes}


def _row(fields: dict[str, Any], column: str) -> Row:
    """Raises OpenUniError, ValidationError, TypeError or ValueError on what no writer of ours wrote."""
    key, shard, present = check_key(fields["key"]), layout.check_shard(fields["shard"]), fields["present"]
    if present is None:
        raise ValueError("it is neither present nor absent")
    scores = dict(fields["scores"] or ())
    status = Status(present, fields["reason"] or "", fields["expert"] or "", fields["confidence"])
    members = tuple(_member(member) for member in fields["members"] or ())
    if not 1 <= len(members) <= _MOST_MEMBERS or len({member.field for member in members}) != len(members):
        raise ValueError(f"it has {len(members)} members, or two of one name")
    record = None
    if column == "rgb":
        known = {f.name: fields.get(f.name) for f in _RECORD_FIELDS}
        known["source_fields"] = source_fields.decode(known["source_fields"] or "{}")
        record = _RECORD.validate_python({"key": key, "scores": scores, **known})
        if min(record.frames, record.height, record.width) < 0 or not 1e-6 < record.fps < 1e6:
            raise ValueError("its frames, size or rate are not numbers of a video")
    return Row(key, shard, status, members, scores, record, tuple(fields.get("hashes") or ()))


def _member(fields: dict[str, Any]) -> Member:
    member = Member(**fields)
    if not _FIELD.fullmatch(member.field) or len(member.field) > 35:
        raise ValueError(f"{member.field!r} cannot name a member")
    if member.offset < _HEADER or not 0 <= member.size <= MOST_SAMPLE or len(member.sha256) != 32:
        raise ValueError(f"{member.field} lies at {member.offset}, with {member.size} bytes")
    return member


def sha256(data: bytes) -> bytes:
    """A member's hash as the index stores it, 32 bytes."""
    return hashlib.sha256(data).digest()
