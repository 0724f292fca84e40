"""What it takes to open a dataset of a million clips that lies far away: requests, seconds, memory.

    python benchmarks/opening.py --shards 7813 --latency 0.05

The dataset is made up: its manifest and catalog are real, its tars and indices are not there. Each request to the store
in memory waits for the latency.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import time
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

import openuni
from openuni.shards import catalog, layout
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.shards.reader import Order

COLUMNS = ("rgb", "depth", "flow", "segmentation", "densepose", "skeleton")


def make(files: MemoryFileSystem, shards: int, per_shard: int) -> None:
    """Put the manifest and the catalog of a made-up dataset."""
    manifest = Manifest({}, dict.fromkeys(COLUMNS, "made-1"), shards * per_shard, shards, "")
    document = layout.dump_checked(manifest)
    table = catalog.encode([_record(shard, column, per_shard) for shard in range(shards) for column in sorted(COLUMNS)])
    head = catalog.Head(layout.digest(document), FileRecord(len(table), layout.digest(table)))
    for name, data in {
        layout.MANIFEST: document,
        catalog.TABLE: table,
        catalog.HEAD: layout.dump_checked(head),
    }.items():
        files.pipe_file(f"/million/{name}", data)


def _record(shard: int, column: str, per_shard: int) -> CommitRecord:
    first, last = shard * per_shard, (shard + 1) * per_shard - 1
    file = FileRecord(50_000_000 + shard, _hash(shard, column))
    keys = (f"clip-{first:09d}", f"clip-{last:09d}", _hash(shard, "keys"))
    return CommitRecord(shard, column, "made-1", "", per_shard, per_shard, *keys, file, file)


def _hash(shard: int, what: str) -> str:
    return hashlib.sha256(f"{shard}.{what}".encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=7813)
    parser.add_argument("--per-shard", type=int, default=128)
    parser.add_argument("--latency", type=float, default=0.05)
    asked = parser.parse_args()
    make(MemoryFileSystem(), asked.shards, asked.per_shard)
    requests: list[str] = []
    cat_file = MemoryFileSystem.cat_file

    def far(self: MemoryFileSystem, path: str, *args: Any, **more: Any) -> bytes:
        requests.append(path)
        time.sleep(asked.latency)
        data: bytes = cat_file(self, path, *args, **more)
        return data

    MemoryFileSystem.cat_file = far
    before, began, cpu = _peak(), time.perf_counter(), time.process_time()
    data = openuni.open("memory://million")
    clips = len(data)
    opened, opened_cpu = time.perf_counter() - began, time.process_time() - cpu
    order = Order([shard.samples for shard in data.shards], seed=0)
    began = time.perf_counter()
    taken = len({order.locate(position) for position in range(clips)})
    epoch = time.perf_counter() - began
    print(
        json.dumps(
            {
                "clips": clips,
                "requests": len(requests),
                "open_seconds": round(opened, 2),
                "open_cpu_seconds": round(opened_cpu, 2),
                "epoch_exactly_once": taken == clips,
                "epoch_order_seconds": round(epoch, 2),
                "peak_mib_before": before,
                "peak_mib": _peak(),
            },
            indent=1,
        )
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
