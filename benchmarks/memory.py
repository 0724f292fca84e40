"""Memory of the reader at ten times more clips: it must not grow with their number.

    python benchmarks/memory.py [--clips 2000] [--times 10]

Writes two datasets of tiny clips (16×16, two frames), 32 a shard, and reads each in a process of its own: opened
and every sample of one epoch in training order, all modalities decoded. Prints resident memory before and after, the
ratio of what the two runs took, and what it costs a million clips (commit records are held: some hundred bytes a
column of a shard).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import openuni
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import columns, writer

PER_SHARD = 32
COLUMNS = {"rgb": "tiny-1", "depth": "tiny-1", "flow": "tiny-1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # what the child processes are told
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return
    table = Table("clips", "shards", "MiB when opened", "MiB at the peak of an epoch", "MiB it took")
    took = []
    with tempfile.TemporaryDirectory() as scratch:
        for clips in (arguments.clips, arguments.clips * arguments.times):
            root = write(Path(scratch) / str(clips), clips)
            before, peak = measure(root)
            took.append(peak - before)
            table.add_row(
                f"{clips:,}", f"{-(-clips // PER_SHARD):,}", f"{before:.1f}", f"{peak:.1f}", f"{peak - before:.1f}"
            )
    console = Console()
    console.print(table)
    more = arguments.clips * (arguments.times - 1)
    console.print(
        f"growth at {arguments.times} times the clips: {took[1] - took[0]:+.1f} MiB, "
        f"{(took[1] - took[0]) * 2**20 / more:.0f} bytes a clip"
    )


def write(root: Path, clips: int) -> Path:
    """A dataset of `clips` samples; all hold the same values under their own keys."""
    rng = np.random.default_rng(0)
    record = Record("x", 2, 16, 16, 8.0)
    values = {
        "rgb": Annotation(Rgb(rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8), 8.0)),
        "depth": Annotation(Depth(rng.uniform(1, 9, (2, 16, 16)).astype(np.float32), "metric"), 0.5),
        "flow": Annotation(Flow(rng.uniform(-3, 3, (1, 16, 16, 2)).astype(np.float32)), 0.5),
    }
    made = writer.encode_sample(record, values, COLUMNS)
    shards = -(-clips // PER_SHARD)
    for shard in range(shards):
        keys = [f"clip-{n:08d}" for n in range(shard * PER_SHARD, min(clips, (shard + 1) * PER_SHARD))]
        for column, result in made.items():
            named = ((key, replace(result, note=replace(result.note, record=replace(record, key=key)))) for key in keys)
            samples = named if column == "rgb" else ((key, result) for key in keys)
            columns.commit(root, shard, column, COLUMNS[column], samples, "benchmark")
    writer.write_manifest(root, {"source": "benchmark"}, COLUMNS, clips, shards, "benchmark")
    return root


def measure(root: Path) -> tuple[float, float]:
    """MiB resident before anything is opened, and at the peak of one epoch, in a fresh process."""
    command = [sys.executable, __file__, "--read", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak = map(float, done.stdout.split())
    return before, peak


def read(root: Path) -> None:
    """Take one epoch. One sample is decoded first, so that libraries and their buffers are there before the count."""
    data = openuni.open(str(root))
    warm = data[0]
    for modality in data.columns:
        warm[modality]
    before = _peak()
    data = openuni.open(str(root))
    total = len(data)
    for cursor, sample in data.samples(seed=0):
        for modality in data.columns:
            sample[modality]
        if cursor == total:
            break
    print(before, _peak())


def _peak() -> float:
    """The largest resident memory of this process so far, MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    main()
