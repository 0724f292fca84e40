"""The plan: which clips, in which order, in which shard. Made once, sorted by key, frozen; no expert runs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.shards import layout
from openuni.sources import Skipped

_BATCH = 4096
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
        pa.field("licence", pa.string()),
        pa.field("subset", pa.string()),
        pa.field("scores", pa.map_(pa.string(), pa.float64())),
    ]
)


@dataclass
class Tally:
    """What a plan holds: clips, their seconds (of those whose end is known), and why rows were skipped."""

    clips: int = 0
    seconds: float = 0.0
    open_ended: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def write(path: Path, clips: Iterable[Clip | Skipped], shard_size: int, run: str) -> Tally:
    """Sort `clips` by key and write them to `path`, one row group a shard of `shard_size` clips.

    The rows go through a memory-mapped Arrow file beside the plan, so only the keys are held in memory. A key that
    comes twice is kept once, the first one, and counted. Raises PlanError when no clip is left.
    """
    tally = Tally()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".plan-") as scratch:
        unsorted = Path(scratch) / "clips.arrow"
        _spill(unsorted, clips, tally)
        with pa.memory_map(str(unsorted)) as source:
            table = pa.ipc.open_file(source).read_all()
            order = _unique_order(table, tally)
            if tally.clips == 0:
                why = "; ".join(f"{count} {reason}" for reason, count in sorted(tally.skipped.items()))
                raise PlanError(f"the source gave no usable clip ({why or 'it has no rows'})")
            temporary = path.with_name(f".{path.name}.{run}.tmp")
            with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
                for begin in range(0, len(order), shard_size):
                    rows = table.take(order.slice(begin, shard_size)).combine_chunks()
                    writer.write_table(rows, row_group_size=shard_size)
            layout.publish(temporary, path)
    return tally


class Plan:
    """A frozen plan, read a shard at a time."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise PlanError(f"{path} is not a plan ({error}); delete it and plan again") from error
        if not self._file.schema_arrow.equals(SCHEMA):
            raise PlanError(f"{path} was written by another version of OpenUni; plan again into a new folder")

    @property
    def shards(self) -> int:
        return int(self._file.num_row_groups)

    @property
    def clips(self) -> int:
        return int(self._file.metadata.num_rows)

    def shard(self, number: int) -> list[Clip]:
        """The clips of one shard, in key order."""
        return [_clip(fields) for fields in self._file.read_row_group(number).to_pylist()]

    def __iter__(self) -> Iterator[Clip]:
        for number in range(self.shards):
            yield from self.shard(number)


def sha256(path: Path) -> str:
    """Fingerprint of the plan's rows, so that it does not depend on the Parquet library's version."""
    total = hashlib.sha256()
    for clip in Plan(path):
        total.update(repr(sorted(asdict(clip).items())).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _spill(path: Path, clips: Iterable[Clip | Skipped], tally: Tally) -> None:
    batch: list[dict[str, object]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for clip in clips:
            if isinstance(clip, Skipped):
                tally.skip(clip.reason)
                continue
            batch.append(asdict(clip) | {"scores": sorted(clip.scores.items())})
            tally.seconds += 0.0 if clip.end is None else clip.end - clip.start
            tally.open_ended += clip.end is None
            if len(batch) == _BATCH:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch.clear()
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))


def _unique_order(table: pa.Table, tally: Tally) -> pa.Array:
    """Row numbers in key order, without later rows of a key that was seen before."""
    rows = pa.table({"key": table["key"], "row": pa.array(range(table.num_rows), pa.int64())})
    first = rows.group_by("key", use_threads=False).aggregate([("row", "min")]).sort_by("key")
    tally.clips = first.num_rows
    if duplicates := table.num_rows - first.num_rows:
        tally.skipped["duplicate key"] = tally.skipped.get("duplicate key", 0) + duplicates
    return pc.cast(first["row_min"].combine_chunks(), pa.int64())


def _clip(fields: dict[str, object]) -> Clip:
    crop, scores = fields.pop("crop"), fields.pop("scores")
    return Clip(
        **fields,  # type: ignore[arg-type]  # the schema gives the types
        crop=tuple(crop) if crop else None,  # type: ignore[arg-type]
        scores=dict(scores or ()),  # type: ignore[call-overload]
    )
