"""Near-duplicates and leaks, by the commands, on clips that were planted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import openuni
from openuni.shards import view
from openuni.video import decode_video, encode_video

Command = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.usefixtures("toys")


def ok(done: subprocess.CompletedProcess[str], status: int = 0) -> subprocess.CompletedProcess[str]:
    assert done.returncode == status, done.stderr + done.stdout
    return done


def film(seed: int, height: int, width: int, frames: int = 10) -> bytes:
    """One scene a seed, at any size."""
    rng = np.random.default_rng(seed)
    wide = sum(
        cv2.resize(rng.uniform(-1, 1, (n, n + 2, 3)), (400, 240), interpolation=cv2.INTER_CUBIC) / np.sqrt(n)
        for n in (3, 6, 12, 24)
    )
    wide = np.clip(128 + 90 * np.asarray(wide), 0, 255).astype(np.uint8)
    views = [
        cv2.resize(wide[:, 4 * t : 4 * t + 320], (width, height), interpolation=cv2.INTER_AREA) for t in range(frames)
    ]
    return encode_video(np.stack(views), 16.0)


@pytest.fixture
def data(tmp_path: Path, build: Command) -> Path:
    videos = tmp_path / "v"
    videos.mkdir()
    for seed in range(5):
        (videos / f"scene-{seed}.mp4").write_bytes(film(seed, 96, 128))
    (videos / "copy-of-1.mp4").write_bytes(film(1, 144, 192))
    (videos / "longer-2.mp4").write_bytes(film(2, 96, 128, frames=12))
    ok(build(videos, tmp_path / "d", "scores"))
    return tmp_path / "d"


def test_duplicates_are_listed_and_a_benchmark_s_clips_are_kept_out_of_training(
    data: Path, tmp_path: Path, build: Command, openuni_command: Command
) -> None:
    out, listing = tmp_path / "unique.json", tmp_path / "clusters.jsonl"
    done = ok(openuni_command("dedup", data, "--out", out, "--clusters", listing))
    assert "2 clusters, 2 clips left out, 5 kept" in done.stderr
    assert [json.loads(line) for line in listing.read_text().splitlines()] == [
        {"kept": "copy-of-1", "why": "the largest frame", "others": ["scene-1"]},
        {"kept": "longer-2", "why": "the most frames", "others": ["scene-2"]},
    ]
    assert list(openuni.open(out).keys()) == ["copy-of-1", "longer-2", "scene-0", "scene-3", "scene-4"]
    refused = ok(openuni_command("dedup", data, "--alike", 0.85), 1)
    assert "has no features to compare; run: openuni add" in refused.stderr

    bench = tmp_path / "bench"
    bench.mkdir()
    (bench / "scene-3.mp4").write_bytes(film(77, 96, 128))  # the same name, another picture
    (bench / "unheard-of.mp4").write_bytes(film(1, 64, 96))  # another name, the same picture
    ok(build(bench, tmp_path / "b", "toy_thermal"))
    train = tmp_path / "train.parquet"
    done = ok(openuni_command("select", data, "--disjoint-from", tmp_path / "b", "--out", train))
    assert list(openuni.open(train).keys()) == ["longer-2", "scene-0", "scene-2", "scene-4"]
    funnel = {step.what.split(" of ")[0]: step.left for step in view.read(train).funnel}
    assert funnel == {"all": 7, "no key": 6, "no source id": 6, "no video id": 6, "no near-duplicate": 4}

    # A view goes where a dataset goes.
    ok(openuni_command("stats", out, "--rows", 1))
    assert (tmp_path / "unique.contact_sheet.png").exists()
    ok(openuni_command("export", out, "--out", tmp_path / "x"))
    ok(openuni_command("select", out, "--where", "sharpness > 0", "--sample", 2, "--out", tmp_path / "two.json"))
    assert len(openuni.open(tmp_path / "two.json")) == 2
    refused = ok(openuni_command("select", data, "--where", "nonsense > 1"), 1)
    assert "hashes" not in refused.stderr
    assert refused.stderr.startswith("error: ")
    assert "known: key" in refused.stderr


def test_mirrored_copies_are_found_by_features(
    tmp_path: Path, build: Command, openuni_command: Command, asset: Callable[[str], Path]
) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    asset("efficientnet-lite0")
    videos = tmp_path / "v"
    videos.mkdir()
    for name in ("bikes", "carphone"):
        frames = decode_video(asset(f"demo-{name}").read_bytes())[0][:12]
        (videos / f"{name}.mp4").write_bytes(encode_video(frames, 25.0))
        if name == "bikes":
            (videos / "mirrored.mp4").write_bytes(encode_video(np.ascontiguousarray(frames[:, :, ::-1]), 25.0))
    ok(build(videos, tmp_path / "d", "scores,scores_features"))
    assert "0 clusters, 0 clips left out, 3 kept" in ok(openuni_command("dedup", tmp_path / "d")).stderr
    listing = tmp_path / "clusters.jsonl"
    done = ok(openuni_command("dedup", tmp_path / "d", "--alike", 0.85, "--clusters", listing))
    assert "1 cluster, 1 clip left out, 2 kept" in done.stderr
    (found,) = map(json.loads, listing.read_text().splitlines())
    assert {found["kept"], *found["others"]} == {"bikes", "mirrored"}
