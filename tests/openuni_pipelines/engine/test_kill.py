"""The kill harness (`benchmarks/kills.py`), 12 strikes of it; `make soak` has four times as many.

`docs/reliability.md` reports another run.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import kills
from openuni.shards import failures

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _leave_no_trace(toys: None) -> Iterator[None]:
    """The harness puts the toys on this process's path and its mark into its environment; later tests want neither.

    `toys` restores the path as it found it.
    """
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_builds_that_are_killed_end_in_the_bytes_of_an_undisturbed_build(tmp_path: Path) -> None:
    """Driver, worker, raylet and all at once, at every kind of moment; OPENUNI_KILLS asks for another number."""
    wanted = int(os.environ.get("OPENUNI_KILLS", "12"))
    report = kills.run(tmp_path, kills=wanted, nodes=1, seed=7)
    assert report.problems == []
    assert len(report.strikes) >= wanted


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_nodes_of_which_one_is_removed_midway_do_the_same(tmp_path: Path) -> None:
    report = kills.run(tmp_path, kills=3, nodes=3, seed=7)
    assert report.problems == []
    assert report.nodes_removed >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["add", "repair", "retry"])
def test_changes_of_a_finished_data_set_survive_kills_too(
    command: str,
    build: Command,
    make_clips: Callable[..., Path],
    digests: Callable[[Path], dict[str, str]],
    tmp_path: Path,
) -> None:
    """Eight kills of each at seeded moments; then the same command again, and the bytes of a build that never broke."""
    rng = random.Random(command)
    names = [f"c{number:02d}" for number in range(10)] + ["raise-1", "raise-2"]
    folder = make_clips(tmp_path / "v", names)
    root, whole = tmp_path / "d", tmp_path / "whole"
    cured = {"OPENUNI_TOY_CURED": "1"}
    assert build(folder, whole, "toy_poison,toy_depth", env=cured).returncode == 0
    if command == "add":
        assert build(folder, root, "toy_poison", env=cured).returncode == 0
        words = ["add", root, "toy_depth"]
    elif command == "repair":
        shutil.copytree(whole, root)
        for tar in sorted((root / "shards").glob("*.tar"))[::2]:
            data = bytearray(tar.read_bytes())
            for at in rng.sample(range(len(data)), 3):
                data[at] ^= 1
            tar.write_bytes(bytes(data))
        words = ["verify", root, "--repair"]
    else:
        assert build(folder, root, "toy_poison,toy_depth").returncode == 3
        words = ["build", "--source", "toy", "--videos", folder, "--out", root, "--shard-size", "4"]
        words += ["--experts", "toy_poison,toy_depth", "--retry-failed"]
    line = [Path(sys.executable).with_name("openuni"), *map(str, words), "--workers", "0", "--min-free", "0"]
    env = os.environ | cured | {"OPENUNI_TOY_SLEEP": "0.1", "OPENUNI_TOY_LINGER": "0.1"}
    for _ in range(8):
        run = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started = time.monotonic()
        while not (root / "run.lock").exists() and run.poll() is None and time.monotonic() - started < 60:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 1.2))
        run.kill()
        run.wait()
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert digests(root) == digests(whole)
    assert failures.read(root) == []
    assert not (root / "work").exists()
