"""Decoding a sample, modality by modality: our columns against the same arrays as npz (and mp4) in plain WebDataset.

    python benchmarks/decode.py DATASET [--rounds 3]

Both sides read from the page cache and decode on one thread, in turn, in one run; ratios are of the medians.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import webdataset
from rich.console import Console
from rich.table import Table

import openuni
from openuni.shards.reader import Dataset
from openuni.video import decode_video, encode_video

_BOUND = {
    "rgb": "H.264 on both sides",
    "depth": "FFV1's range coder, 16 bit; npz: inflate",
    "flow": "FFV1's range coder, 3 planes of 16 bit; npz: inflate",
    "segmentation": "FFV1 8 bit; npz: inflate",
    "densepose": "FFV1 8 bit; npz: inflate",
    "skeleton": "npz on both sides",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_set")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = openuni.open(arguments.data_set)
    frames = sum(sample.record.frames for sample in data)
    table = Table(
        "modality", "ours ms/frame", "npz + mp4 ms/frame", "time ratio", "ours KiB", "theirs KiB", "bounded by"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for modality in data.columns:
            tar = Path(scratch) / f"{modality}.tar"
            theirs_bytes = _write_plain(data, modality, tar)
            ours_bytes = sum(shard.columns[modality].tar.size for shard in data.shards if modality in shard.columns)
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(arguments.rounds):
                ours.append(_timed(lambda name=modality: _read_ours(arguments.data_set, name)))
                theirs.append(_timed(lambda name=modality, path=tar: _read_plain(path, name)))
            a, b = statistics.median(ours) / frames * 1e3, statistics.median(theirs) / frames * 1e3
            table.add_row(
                modality,
                f"{a:.2f}",
                f"{b:.2f}",
                f"{a / b:.2f}",
                f"{ours_bytes / 1024:,.0f}",
                f"{theirs_bytes / 1024:,.0f} ({theirs_bytes / ours_bytes:.1f}×)",
                _BOUND.get(modality, ""),
            )
    console = Console()
    console.print(f"{arguments.data_set}: {len(data)} clips, {frames} frames, {data[0].record}", highlight=False)
    console.print(table)


def _timed(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _read_ours(path: str, modality: str) -> None:
    for sample in openuni.open(path):
        if modality in sample:
            _ = sample[modality]


def _read_plain(tar: Path, modality: str) -> None:
    for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
        if "mp4" in sample:
            decode_video(sample["mp4"])
        if "npz" in sample:
            with np.load(io.BytesIO(sample["npz"]), allow_pickle=False) as arrays:
                for name in arrays.files:
                    _ = arrays[name]


def _write_plain(data: Dataset, modality: str, path: Path) -> int:
    """The arrays as people store them: RGB as mp4, the rest as compressed npz, floats in half precision."""
    with webdataset.TarWriter(str(path)) as sink:
        for sample in data:
            if modality not in sample:
                continue
            if modality == "rgb":
                sink.write({"__key__": sample.key, "mp4": encode_video(sample.rgb.frames, sample.rgb.fps)})
                continue
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **_arrays(sample[modality], modality))
            sink.write({"__key__": sample.key, "npz": buffer.getvalue()})
    return path.stat().st_size


def _arrays(value: Any, modality: str) -> dict[str, np.ndarray]:
    """A value's arrays. What storage rounded off flow is put back as noise: rounded numbers deflate too well."""
    found = {f.name: getattr(value, f.name) for f in fields(value)}
    arrays = {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    if modality == "flow":
        noise = np.random.default_rng(0).uniform(-1 / 32, 1 / 32, arrays["forward"].shape)
        arrays["forward"] = arrays["forward"] + noise.astype(np.float32)
    return {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in arrays.items()}


if __name__ == "__main__":
    main()
