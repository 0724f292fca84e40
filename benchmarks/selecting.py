"""How long `openuni select` takes over a million clips and more, on facts that are made up.

python -m benchmarks.selecting 1300000
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import openuni
from openuni.shards import catalog, facts, layout, writer
from openuni.storage import LocalStore
from openuni_pipelines.engine.selecting import SelectConfig, select

_SCORES = ("motion", "static", "flicker", "sharpness", "aesthetic", "letterbox", "text_area", "people_mean")
_BATCH = 100_000


def make(root: Path, clips: int) -> None:
    """A dataset of which only what a choice reads is there."""
    writer.write_manifest(
        root, {"source": "made"}, {"rgb": "made-1", "scores": "made-1"}, clips, -(-clips // 128), "run"
    )
    catalog.write(root, "run")
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(root / facts.TABLE, _schema(), compression="zstd") as table:
        for first in range(0, clips, _BATCH):
            count = min(_BATCH, clips - first)
            numbers = np.arange(first, first + count)
            words = [f"a caption of clip {n}, " + "with words that nobody reads " * 8 for n in numbers]
            columns = [[f"clip-{n:08d}" for n in numbers], words, [f"video-{n // 3}" for n in numbers]]
            columns += [rng.gamma(2.0, 0.1, count) for _ in _SCORES]
            columns.append(list(rng.integers(0, 2**64, (count, 10), np.uint64)))
            table.write_table(pa.table(columns, _schema()))
    head = layout.parse_checked(catalog.Head, (root / catalog.HEAD).read_bytes(), "head")
    made = facts.Head(head.table.sha256, (root / facts.TABLE).stat().st_size)
    LocalStore(root).put(facts.HEAD, layout.dump_checked(made), "run")


def _schema() -> pa.Schema:
    texts = [(name, pa.string()) for name in ("key", "caption", "video_id")]
    return pa.schema([*texts, *((name, pa.float64()) for name in _SCORES), ("hashes", pa.list_(pa.uint64()))])


def main(clips: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "d"
        make(root, clips)
        print(f"{clips:,} clips, facts of {(root / facts.TABLE).stat().st_size / 2**20:,.0f} MiB")
        for where, rule in (
            (["motion > .1 and aesthetic > .2"], SelectConfig()),
            (["motion > quantile_cont(motion, .5) over ()", "sharpness > .1"], SelectConfig(sample=100_000)),
            (["text_area < .2"], SelectConfig(split="train", balance="floor(motion * 10)", sample=50_000)),
        ):
            for name in ("v.json", "v.parquet"):
                begin, busy = time.perf_counter(), time.process_time()
                made = select(openuni.open(root), where, rule, Path(scratch) / name)
                seconds, busy = time.perf_counter() - begin, time.process_time() - busy
                print(f"{seconds:5.1f} s, {busy:4.1f} s of a CPU: {len(made.view.keys):,} keys, {name}: {where}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_300_000)
