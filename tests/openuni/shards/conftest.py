"""A small dataset on disk, written sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import writer

COLUMNS = {"rgb": "test-1", "depth": "test-1", "flow": "test-1"}
T, H, W = 4, 16, 24


def values_of(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, depth and flow of sample `number`: all different, all from its number."""
    rng = np.random.default_rng(number)
    frames = np.repeat(np.repeat(rng.integers(0, 256, (T, H // 8, W // 8, 3)), 8, axis=1), 8, axis=2)
    return (
        frames.astype(np.uint8),
        rng.uniform(1, 9, (T, H, W)).astype(np.float32),
        rng.uniform(-3, 3, (T - 1, H, W, 2)).astype(np.float32),
    )


def key_of(number: int) -> str:
    return f"clip-{number:05d}"


@pytest.fixture(scope="session")
def write_data_set() -> Callable[..., Path]:
    """`write_data_set(root, shards, per_shard)`; depth of every fifth sample is absent."""

    def write(root: Path, shards: int = 3, per_shard: int = 4) -> Path:
        for shard in range(shards):
            numbers = range(shard * per_shard, (shard + 1) * per_shard)
            for number in numbers:
                frames, depth, flow = values_of(number)
                record = Record(
                    key_of(number), T, H, W, 8.0, caption=f"sample {number}", video_id=f"video-{number // 2}"
                )
                annotations = {
                    "rgb": Annotation(Rgb(frames, 8.0, exact=True)),
                    "depth": "every fifth has none" if number % 5 == 4 else Annotation(Depth(depth, "metric"), 0.75),
                    "flow": Annotation(Flow(flow), 0.5, {"people": float(number % 3)}),
                }
                writer.save_sample(root, shard, record, annotations, COLUMNS, "run")
            writer.commit_shard(root, shard, [key_of(number) for number in numbers], COLUMNS, "run")
        writer.write_manifest(root, {"source": "test"}, COLUMNS, shards * per_shard, shards, "run")
        return root

    return write
