"""What it takes to open a dataset of a million clips that lies far away, and one clip of it: requests, seconds, memory.

    python benchmarks/opening.py --shards 7813 --latency 0.05

The dataset is made up: its manifest, catalog and facts are real, its tars are not there, and of its indices only those
of the last shard. Each request to the store in memory waits for the latency; a wait is as many requests as are
under way together.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.memory import MemoryFileSystem

import openuni
from openuni.sample import Record, Status
from openuni.shards import catalog, facts, index, layout
from openuni.shards.index import Member, Row
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.shards.reader import Order
from openuni_pipelines.engine.counting import count

COLUMNS = ("rgb", "depth", "flow", "segmentation", "densepose", "skeleton")


def make(files: MemoryFileSystem, shards: int, per_shard: int) -> None:
    """Put the manifest and the catalog of a made-up dataset."""
    naming = layout.in_bucket({}, shards)
    manifest = Manifest(naming, dict.fromkeys(COLUMNS, "made-1"), shards * per_shard, shards, "")
    document = layout.dump_checked(manifest)
    records = [_record(shard, column, per_shard) for shard in range(shards) for column in sorted(COLUMNS)]
    for place, record in enumerate(records):
        if record.shard == shards - 1:
            data = index.encode(_rows(record.shard, record.column, per_shard), record.column)
            record = records[place] = replace(record, index=FileRecord(len(data), layout.digest(data)))
            files.pipe_file(f"/million/{layout.index_at(record, layout.naming(manifest))}", data)
    table = catalog.encode(records)
    sink = io.BytesIO()
    pq.write_table(_facts(shards * per_shard), sink, compression="zstd")
    head = catalog.Head(layout.digest(document), FileRecord(len(table), layout.digest(table)))
    for name, data in {
        layout.MANIFEST: document,
        catalog.TABLE: table,
        catalog.HEAD: layout.dump_checked(head),
        facts.in_bucket(head.table.sha256): sink.getvalue(),
    }.items():
        files.pipe_file(f"/million/{name}", data)


def _facts(clips: int) -> pa.Table:
    numbers = pa.array(range(clips))
    captions = [f"somebody walks past house {number} of a long street with trees" for number in range(1000)]
    caption = pa.array(captions).take(pc.subtract(numbers, pc.multiply(pc.divide(numbers, 1000), 1000)))
    words = {"subset": "general", "split": "train", "license": "CC-BY-4.0"}
    whole = {"frames": 81, "width": 854, "height": 480}
    table = {
        "key": pa.array([f"clip-{number:09d}" for number in range(clips)]),
        **{name: pa.repeat(pa.scalar(value, pa.int32()), clips) for name, value in whole.items()},
        "fps": pa.repeat(16.0, clips),
        "caption": caption,
        **{name: pa.repeat(word, clips) for name, word in words.items()},
    }
    for column in COLUMNS:
        table[f"{column}.present"] = pa.repeat(True, clips)
        table[f"{column}.reason"] = pa.repeat("", clips)
        table[f"{column}.confidence"] = pc.divide(pc.cast(numbers, pa.float64()), float(clips))
    return pa.table(table)


def _record(shard: int, column: str, per_shard: int) -> CommitRecord:
    first, last = shard * per_shard, (shard + 1) * per_shard - 1
    file = FileRecord(50_000_000 + shard, _hash(shard, column))
    keys = (f"clip-{first:09d}", f"clip-{last:09d}", _hash(shard, "keys"))
    return CommitRecord(shard, column, "made-1", "", per_shard, per_shard, *keys, file, file)


def _rows(shard: int, column: str, per_shard: int) -> list[Row]:
    members = (Member("json", 512, 700, bytes(32)), Member("mkv", 2048, 3_000_000, bytes(32)))
    keys = [f"clip-{shard * per_shard + number:09d}" for number in range(per_shard)]
    records = [Record(key, 81, 480, 854, 16.0) if column == "rgb" else None for key in keys]
    return [Row(key, shard, Status(True), members, {}, record) for key, record in zip(keys, records, strict=True)]


def _waits(spans: list[tuple[float, float]]) -> int:
    """How often the reader waited: requests that overlap are one wait."""
    waits, end = 0, 0.0
    for first, last in sorted(spans):
        waits += first >= end
        end = max(end, last)
    return waits


def _hash(shard: int, what: str) -> str:
    return hashlib.sha256(f"{shard}.{what}".encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=7813)
    parser.add_argument("--per-shard", type=int, default=128)
    parser.add_argument("--latency", type=float, default=0.05)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="openuni-opening-") as scratch:
        facts.near_folder = lambda: Path(scratch)  # facts that an earlier run brought here would save requests
        print(json.dumps(measure(asked.shards, asked.per_shard, asked.latency), indent=1))


def measure(shards: int, per_shard: int, latency: float) -> dict[str, Any]:
    """What each step took."""
    make(MemoryFileSystem(), shards, per_shard)
    requests: list[str] = []
    spans: list[tuple[float, float]] = []
    cat_file, size_of = MemoryFileSystem.cat_file, MemoryFileSystem.size

    def far(self: MemoryFileSystem, path: str, *args: Any, **more: Any) -> bytes:
        requests.append(path)
        sent = time.perf_counter()
        time.sleep(latency)
        data: bytes = cat_file(self, path, *args, **more)
        spans.append((sent, time.perf_counter()))
        return data

    def size(self: MemoryFileSystem, path: str) -> int:
        requests.append(path)
        time.sleep(latency)
        return int(size_of(self, path))

    MemoryFileSystem.cat_file, MemoryFileSystem.size = far, size
    before, began, cpu = _resident_mib(), time.perf_counter(), time.process_time()
    data = openuni.open("memory://million")
    clips = len(data)
    opened, opened_cpu = time.perf_counter() - began, time.process_time() - cpu
    opening, open_mib = len(requests), _resident_mib()
    began, cpu = time.perf_counter(), time.process_time()
    sharp = len(data.filter(pc.field("depth.confidence") > 0.5))
    filtered, filtered_cpu, filtering = time.perf_counter() - began, time.process_time() - cpu, len(requests) - opening
    cpu = time.process_time()
    counted = count(data).samples
    counted_cpu, counting = time.process_time() - cpu, len(requests) - opening - filtering
    sent, spans[:] = len(requests), []
    data[f"clip-{(shards - 1) * per_shard:09d}"]
    taking, waiting = len(requests) - sent, _waits(spans)
    order = Order([shard.samples for shard in data.shards], seed=0)
    began, idle_mib = time.perf_counter(), _resident_mib()
    seen, most_mib = bytearray(clips), 0
    for position in range(clips):
        shard, row = order.locate(position)
        seen[shard * per_shard + row] += 1
        if position % 100_000 == 0:
            most_mib = max(most_mib, _resident_mib())
    epoch = time.perf_counter() - began
    return {
        "clips": clips,
        "requests_to_open": opening,
        "open_seconds": round(opened, 2),
        "open_cpu_seconds": round(opened_cpu, 2),
        "open_mib": open_mib - before,
        "requests_to_filter": filtering,
        "filter_seconds": round(filtered, 2),
        "filter_cpu_seconds": round(filtered_cpu, 2),
        "clips_that_pass": sharp,
        "requests_to_count": counting,
        "count_cpu_seconds": round(counted_cpu, 2),
        "clips_counted": counted,
        "requests_for_a_clip": taking,
        "waits_for_a_clip": waiting,
        "epoch_exactly_once": seen == b"\1" * clips,
        "epoch_order_seconds": round(epoch, 2),
        "epoch_mib": most_mib - idle_mib,
    }


def _resident_mib() -> int:
    """Memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


if __name__ == "__main__":
    main()
