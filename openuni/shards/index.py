"""The Parquet index: one row a sample and column, with the place, size and SHA-256 of every member."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openuni.errors import CorruptDataError
from openuni.sample import Record, Status

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
]


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


def schema(column: str) -> pa.Schema:
    return pa.schema(_COLUMN_FIELDS + (_RECORD_FIELDS if column == "rgb" else []))


def encode(rows: Sequence[Row], column: str) -> bytes:
    """The index file's bytes; the same rows always give the same bytes in one environment."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_flat(row) for row in rows], schema(column)), sink, compression="zstd")
    return sink.getvalue()


def decode(data: bytes, column: str, where: str) -> list[Row]:
    """Rows in stored order. Raises CorruptDataError naming `where`."""
    try:
        rows = pq.read_table(io.BytesIO(data), schema=schema(column)).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorruptDataError(f"{where} is not an index of this schema: {error}") from error
    return [_row(fields, column) for fields in rows]


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
    return fields


def _row(fields: dict[str, Any], column: str) -> Row:
    scores = dict(fields["scores"] or ())
    status = Status(fields["present"], fields["reason"] or "", fields["expert"] or "", fields["confidence"])
    members = tuple(Member(**member) for member in fields["members"] or ())
    record = None
    if column == "rgb":
        known = {f.name: fields[f.name] for f in _RECORD_FIELDS}
        record = Record(key=fields["key"], scores=scores, **known)
    return Row(fields["key"], fields["shard"], status, members, scores, record)


def sha256(data: bytes) -> bytes:
    """A member's hash as the index stores it, 32 bytes."""
    return hashlib.sha256(data).digest()
