"""`failures.parquet`: which clip failed in which stage, how often it was tried, and what the last error was."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openuni.errors import CorruptDataError
from openuni.shards import layout

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
    ]
)

_SUFFIX = ".failure.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """`stage` is `rgb` or an expert's name; `kind` is refused (the clip was dropped for it), raised, died or hung."""

    key: str
    shard: int
    stage: str
    kind: str
    attempts: int
    error: str


def read(root: Path) -> list[Failure]:
    """All recorded failures, by shard, key and stage. Raises CorruptDataError."""
    path = root / layout.FAILURES
    if not path.exists():
        return []
    try:
        table = pq.read_table(path, schema=_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(f"{path} is not a table of failures ({error}); delete it, the columns know") from error
    return [Failure(**fields) for fields in table.to_pylist()]


def save(root: Path, failure: Failure, fingerprint: str, run: str) -> None:
    """Remember a failure beside the results of its shard, until the shard is committed and the table is written."""
    path = root / layout.result_name(failure.shard, failure.key, fingerprint)
    layout.write_atomic(path.with_suffix(_SUFFIX), layout.dump_json(failure), run)


def saved(root: Path, shard: int) -> list[Failure]:
    """Failures of an unfinished shard, by key and stage."""
    paths = sorted((root / layout.work_name(shard)).glob(f"*{_SUFFIX}"))
    return [layout.parse_json(Failure, path.read_bytes(), str(path)) for path in paths]


def write(root: Path, failures: Iterable[Failure], run: str) -> None:
    """Replace the table, atomically; the last failure of a clip in a stage is the one that counts.

    Raises OSError where the disk is full; then the table is as it was.
    """
    latest = {(failure.shard, failure.key, failure.stage): failure for failure in failures}
    table = pa.Table.from_pylist([asdict(latest[place]) for place in sorted(latest)], _SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    layout.write_atomic(root / layout.FAILURES, sink.getvalue(), run)
