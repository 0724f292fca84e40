"""Clips that break their expert or decoder: the run goes on, the row says who, where, how often and why."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import openuni
from openuni.shards import failures, layout, plan

Command = Callable[..., subprocess.CompletedProcess[str]]
MISDEEDS = {
    "raise": ("raised", "a bug in an expert"),
    "nonsense": ("raised", "thermal.kelvin must lie in"),
    "allocate": ("raised", "Unable to allocate"),
    "segfault": ("died", "the worker process died"),
    "abort": ("died", "the worker process died"),
    "exit": ("died", "the worker process died"),
    "hang": ("hung", "did not finish within 25 s"),
}
pytestmark = pytest.mark.usefixtures("toys")


@pytest.mark.slow
def test_every_misdeed_costs_one_modality_of_one_clip(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path, calls: Callable[[], list[str]]
) -> None:
    """Eight poisonous clips among innocent ones, on Ray; afterwards a cure, and `--retry-failed` takes up only them."""
    innocent = [f"c{number:02d}" for number in range(8)]
    folder = make_clips(tmp_path / "v", [*innocent, *(f"{name}-1" for name in MISDEEDS)])
    os.mkfifo(folder / "pipe.mp4")  # who opens it to decode it waits for ever
    env = {"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}
    options = ("--time-limit", 25, "--worker-memory", 1)
    done = build(folder, tmp_path / "d", "toy_poison,toy_depth", *options, ray=True, env=env)
    assert done.returncode == 3, done.stderr
    rows = {row.key.split("-")[0]: row for row in failures.read(tmp_path / "d")}
    assert set(rows) == {*MISDEEDS, "pipe"}
    for misdeed, (kind, error) in MISDEEDS.items():
        row = rows[misdeed]
        assert (row.stage, row.kind, row.attempts) == ("toy_poison", kind, 3), row
        assert error in row.error
    assert rows["pipe"].stage == "rgb"
    data = openuni.open(str(tmp_path / "d"))
    assert list(data.keys()) == sorted([*innocent, *(f"{name}-1" for name in MISDEEDS)])
    for sample in data:
        assert "depth" in sample
        assert ("thermal" in sample) == (sample.key in innocent)
        if sample.key not in innocent:
            assert sample.statuses["thermal"].reason.startswith("failed 3 times: ")
    counts = Counter(calls())
    assert all(counts[f"toy_depth {key}"] == 1 for key in data.keys())  # noqa: SIM118  a Dataset is not a dict
    assert all(counts[f"toy_poison {key}"] == (1 if key in innocent else 3) for key in data.keys())  # noqa: SIM118
    faults = [json.loads(line) for line in (tmp_path / "d" / layout.LOG).read_text().splitlines()]
    assert Counter(line["kind"] for line in faults if line["event"] == "fault")["hung"] >= 3

    before = len(calls())
    (folder / "pipe.mp4").unlink()
    done = build(
        folder, tmp_path / "d", "toy_poison,toy_depth", "--retry-failed", ray=True, env=env | {"OPENUNI_TOY_CURED": "1"}
    )
    assert done.returncode == 3, done.stderr
    assert sorted(calls()[before:]) == sorted(f"toy_poison {name}-1" for name in MISDEEDS)
    assert [(row.key, row.stage) for row in failures.read(tmp_path / "d")] == [("pipe", "rgb")]
    assert all("thermal" in sample for sample in openuni.open(str(tmp_path / "d")))


CRASHING_DECODER = """
import ctypes
import av

opened = av.open


def crash(file, *arguments, **options):
    if "crash" in str(getattr(file, "name", file)):
        ctypes.string_at(0)
    return opened(file, *arguments, **options)


av.open = crash
"""
"""A `sitecustomize`, which every Python process loads: opening a video whose name has `crash` in it is a segfault."""


@pytest.mark.slow
def test_a_decoder_that_segfaults_costs_the_clip_and_one_that_does_so_while_planning_the_row(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    """The toy source opens no video itself, so there the decoder dies as the clip is cut; `folder` opens it to plan."""
    folder = make_clips(tmp_path / "v", ["a", "crash-1", "z"], frames=24)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CRASHING_DECODER)
    env = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}"}
    done = build(folder, tmp_path / "d", "toy_depth", ray=True, env=env)
    assert done.returncode == 3, done.stderr
    (row,) = failures.read(tmp_path / "d")
    assert (row.key, row.stage, row.kind, row.attempts) == ("crash-1", "rgb", "died", 3)
    assert list(openuni.open(str(tmp_path / "d")).keys()) == ["a", "z"]
    done = build(folder, tmp_path / "d", "toy_depth", "--retry-failed", ray=True)
    assert done.returncode == 0, done.stderr
    assert list(openuni.open(str(tmp_path / "d")).keys()) == ["a", "crash-1", "z"]

    done = build(folder, tmp_path / "e", "toy_depth", "--source", "folder", ray=True, env=env)
    assert done.returncode == 0, done.stderr
    (skipped,) = plan.skipped(tmp_path / "e" / layout.PLAN)
    assert "crash-1" in skipped.id
    assert skipped.reason == "planning died: the worker process died"
    assert len(openuni.open(str(tmp_path / "e"))) == 2


@pytest.mark.slow
def test_require_drops_poisoned_clips_and_says_how_many(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "v", ["a", "exit-1", "raise-1", "z"])
    done = build(folder, tmp_path / "d", "toy_poison", "--require", "thermal", ray=True)
    assert done.returncode == 3, done.stderr
    assert "2 samples" in done.stderr
    assert "2 clips dropped" in done.stderr
    assert list(openuni.open(str(tmp_path / "d")).keys()) == ["a", "z"]
    assert {(row.key, row.kind) for row in failures.read(tmp_path / "d")} == {("exit-1", "died"), ("raise-1", "raised")}
