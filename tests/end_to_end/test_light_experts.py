"""The light experts over rendered truth, by the commands of docs/scoring.md: render, take the videos, build, score."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("mediapipe")

from openuni import assets

RENDER = ("--scenes", 3, "--frames", 8, "--size", 128, "--families", "fly,collide,play", "--workers", 2)


def run(program: str, *arguments: object) -> str:
    """A command in a process of its own, as a user runs it (each starts its own Ray)."""
    code = f"from openuni_pipelines.cli import {program}; {program}()"
    done = subprocess.run(
        [sys.executable, "-c", code, *(str(a) for a in arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_light_experts_are_scored_on_rendered_truth(tmp_path: Path, asset: Callable[[str], Path]) -> None:
    for name, entry in assets.installed().items():
        if entry.asset.light:
            asset(name)
    truth, videos, built = tmp_path / "truth", tmp_path / "videos", tmp_path / "light"
    run("unibench", "render", "--out", truth, *RENDER)
    for shard in sorted(truth.glob("shards/*.rgb.tar")):
        with tarfile.open(shard) as tar:
            tar.extractall(videos, [m for m in tar if m.name.endswith(".mp4")], filter="data")
    run("openuni", "build", "--source", "folder", "--videos", videos, "--out", built, "--size", 128)
    run("unibench", "score", "--pred", built, "--gt", truth, "--missing", "penalise")

    report = json.loads((built / "score" / "report.json").read_text())
    assert list(report["tasks"]) == ["depth", "flow", "segmentation", "skeleton", "densepose"]
    for task, found in report["tasks"].items():
        people = task in ("skeleton", "densepose")
        assert found["counts"] == {"scored": 1 if people else 3, "missing": 0, "unusable": 0, "penalised": 0}, task
    value = {task: {k: c["value"] for k, c in found["columns"].items()} for task, found in report["tasks"].items()}
    # Far better than nothing, far from perfect: what small networks do on drawings.
    assert 0.02 < value["depth"]["disparity/absrel"] < 0.6
    assert value["depth"]["tae"] is not None, "the side-cars' cameras are read"
    assert 0.01 < value["flow"]["epe"] < 3
    assert value["flow"]["visible/epe"] < value["flow"]["occluded/epe"]
    assert 0.02 < value["segmentation"]["jf"] < 0.95
    assert value["skeleton"]["pck_bbox@0.2"] > 0.5
    assert value["densepose"]["part_accuracy"] > 0.3
    assert (built / "score" / "report.html").stat().st_size > 10_000
