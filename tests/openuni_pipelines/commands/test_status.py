"""`openuni status`, while a build runs, when it was killed, and after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openuni.shards import layout
from openuni_pipelines.engine.monitor import RunProgress, StageProgress

Command = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.usefixtures("toys")


def test_a_build_can_be_watched_from_outside(
    openuni_command: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "v", [f"c{number:02d}" for number in range(24)])
    root = tmp_path / "d"
    command = [Path(sys.executable).with_name("openuni"), "build", "--source", "toy", "--videos", folder, "--out", root]
    command += ["--experts", "toy_depth,toy_thermal", "--shard-size", "4", "--min-free", "0", "--workers", "0"]
    run = subprocess.Popen(command, env=os.environ | {"OPENUNI_TOY_SLEEP": "0.5"}, stderr=subprocess.DEVNULL)
    try:
        while not list(root.glob("commits/*.depth.json")):
            assert run.poll() is None
            time.sleep(0.05)
        # Progress is written down every two seconds, so what is committed may not be in it yet.
        while (state := json.loads(openuni_command("status", root, "--json").stdout))["seconds_left"] is None:
            assert run.poll() is None
        assert state["running"]["pid"] == run.pid
        assert state["progress"]["stages"]["toy_depth"]["worked"] > 0
        assert state["seconds_left"] > 0
        assert state["progress"]["running"] > 0
        text = openuni_command("status", root).stdout
        assert "is at work" in text
        assert "minutes left" in text
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 1
        assert f"process {run.pid} on" in refused.stderr
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    text = openuni_command("status", root).stdout
    assert "run the same `openuni build` again" in text
    assert "stopped" in text
    assert (
        subprocess.run(command, env=os.environ | {"OPENUNI_TOY_SLEEP": "0"}, stderr=subprocess.DEVNULL).returncode == 0
    )
    done = openuni_command("status", root)
    assert "complete" in done.stdout
    assert "finished" in done.stdout


def test_failures_are_counted_by_stage_and_kind(
    build: Command, openuni_command: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "v", ["a", "raise-1", "raise-2", "nonsense-1"])
    assert build(folder, tmp_path / "d", "toy_poison").returncode == 3
    state = json.loads(openuni_command("status", tmp_path / "d", "--json").stdout)
    assert state["failures"] == [{"stage": "toy_poison", "kind": "raised", "count": 3}]
    assert state["progress"]["faults"] == {"raised": 9}
    assert "3 clips failed in toy_poison (raised)" in openuni_command("status", tmp_path / "d").stdout


def test_the_log_can_be_followed_by_a_person(build: Command, make_clips: Callable[..., Path], tmp_path: Path) -> None:
    build(make_clips(tmp_path / "v", ["a", "raise-1"]), tmp_path / "d", "toy_poison")
    lines = [json.loads(line) for line in (tmp_path / "d" / layout.LOG).read_text().splitlines()]
    fault = next(line for line in lines if line["event"] == "fault")
    assert (fault["stage"], fault["key"], fault["kind"]) == ("toy_poison", "raise-1", "raised")
    assert "a bug in an expert" in fault["error"]


def test_time_left_is_what_is_left_at_the_price_of_what_was_done() -> None:
    """Two workers busy for 10 s: 4 s a clip in one stage, 1 s in the other; 5 and 8 clips are left: 28 s of work."""
    stages = {
        "rgb": StageProgress(total=12, done=4, worked=4, seconds=4.0),
        "dis": StageProgress(total=9, done=4, worked=4, seconds=16.0),
    }
    progress = RunProgress("r", started=0.0, updated=10.0, shards=1, columns=("rgb",), stages=stages)
    assert progress.seconds_left() == pytest.approx(28 / 2)
    stages["dis"].worked = 0
    assert progress.seconds_left() is None
