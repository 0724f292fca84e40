"""`failures.parquet`: which clip failed in which stage, how often it was tried, and what the last error was."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openuni.errors import CorruptDataError, OpenUniError
from openuni.sample import check_key
from openuni.shards import layout, tables
from openuni.storage import DOCUMENT, LocalStore, open_regular

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

    def __post_init__(self) -> None:
        try:
            check_key(self.key)
            layout.check_shard(self.shard)
            layout.check_column(self.stage)
        except OpenUniError as error:  # as a dataclass's own checks raise it
            raise ValueError(str(error)) from None


def read(root: Path) -> list[Failure]:
    """All recorded failures, by shard, key and stage. Raises CorruptDataError."""
    path = root / layout.FAILURES
    try:
        with open_regular(path) as file:
            return [Failure(**fields) for fields in tables.rows(file, _SCHEMA, str(path))]
    except FileNotFoundError:
        return []
    except (CorruptDataError, ValueError, TypeError) as error:
        raise CorruptDataError(f"{path} is not a table of failures ({error}); delete it, the columns know") from error


def save(root: Path, failure: Failure, fingerprint: str, run: str) -> None:
    """Remember a failure beside the results of its shard, until the shard is committed and the table is written."""
    name = layout.result_name(failure.shard, failure.key, fingerprint).removesuffix(".tar") + _SUFFIX
    LocalStore(root).put(name, layout.dump_json(failure), run)


def saved(root: Path, shard: int) -> list[Failure]:
    """Failures of an unfinished shard, by key and stage."""
    store = LocalStore(root)
    names = [name for name in store.list(layout.work_name(shard)) if name.endswith(_SUFFIX)]
    return [layout.parse_json(Failure, store.read(name, at_most=DOCUMENT), store.where(name)) for name in names]


def write(root: Path, failures: Iterable[Failure], run: str) -> None:
    """Replace the table, atomically; the last failure of a clip in a stage is the one that counts.

    Raises OSError where the disk is full; then the table is as it was.
    """
    latest = {(failure.shard, failure.key, failure.stage): failure for failure in failures}
    table = pa.Table.from_pylist([asdict(latest[place]) for place in sorted(latest)], _SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    LocalStore(root).put(layout.FAILURES, sink.getvalue(), run)
