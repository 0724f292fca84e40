"""Parts of one plan, built by processes that share nothing but the folder: together the bytes of one build."""

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
from click.testing import CliRunner

from openuni.errors import PlanError
from openuni.shards import failures, layout, lock
from openuni.shards.lock import HeldError, RunLock
from openuni.shards.parts import Part
from openuni.storage import MARKER
from openuni_pipelines.cli import openuni as command

Command = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.usefixtures("toys")
NAMES = [f"c{number:02d}" for number in range(9)] + ["raise-1"]


def line(videos: Path, out: Path, *more: object, verb: str = "build") -> list[str]:
    options = ("--source", "toy", "--videos", videos, "--out", out, "--experts", "toy_poison,toy_depth")
    own = ("--shard-size", 2, "--workers", 0, "--min-free", 0)
    return [str(Path(sys.executable).with_name("openuni")), verb, *map(str, (*options, *own, *more))]


def run(words: list[str], status: int = 0) -> str:
    done = CliRunner().invoke(command, words[1:])
    assert done.exit_code == status, done.output
    return done.output


def test_four_parts_of_which_one_is_killed_and_taken_over_are_one_build(
    make_clips: Callable[..., Path], digests: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    videos, whole, out = make_clips(tmp_path / "v", NAMES), tmp_path / "whole", tmp_path / "d"
    run(line(videos, whole), status=3)
    assert "has no plan that could be divided" in run(line(videos, out, "--part", "1/4"), status=1)
    assert not out.exists()
    run(line(videos, out, verb="plan"))
    # Parts 1 and 3 at once, in processes of their own; part 3 is killed in the middle of its shard.
    slow = os.environ | {"OPENUNI_TOY_SLEEP": "0.3"}
    lost = subprocess.Popen(line(videos, out, "--part", "3/4"), env=slow, stderr=subprocess.DEVNULL)
    first = subprocess.Popen(line(videos, out, "--part", "1/4"), stderr=subprocess.DEVNULL)
    try:
        while not list((out / "work" / "000002").glob("*.toy_*.tar")):
            assert lost.poll() is None
            time.sleep(0.01)
        refused = run(line(videos, out), status=1)
        assert f"part 3/4 of {out} is being written by run" in refused or "part 1/4" in refused
        assert "is being built in 4 parts; go on with --part i/4" in run(line(videos, out, "--part", "2/5"), status=1)
        assert f"(process {lost.pid} on " in run(line(videos, out, "--part", "3/4"), status=1)
    finally:
        os.kill(lost.pid, signal.SIGKILL)
        lost.wait()
        assert first.wait() == 3  # it has the clip that fails
    run(line(videos, out, "--part", "2/4"))
    state = json.loads(run(["openuni", "status", str(out), "--json"]))
    assert [one["part"] for one in state["parts"]] == ["1/4", "2/4", "3/4"]
    assert not any(one["running"] for one in state["parts"])
    assert state["parts"][1]["progress"]["finished"]
    assert state["failures"] == [{"stage": "toy_poison", "kind": "raised", "count": 1}]
    text = run(["openuni", "status", str(out)])
    assert "LOST: run it again" in text
    assert "not begun, of 4: 4" in text
    assert "other parts are not through yet" in run(line(videos, out, "--part", "4/4"))
    assert not (out / "catalog.json").exists()
    taken = run(line(videos, out, "--part", "3/4"))
    assert "next: openuni verify" in taken
    assert digests(out) == digests(whole)
    assert not (out / "parts").exists()
    assert not (out / "work").exists()
    assert failures.read(out) == failures.read(whole)
    events = [json.loads(row)["event"] for row in (out / layout.LOG).read_text().splitlines()]
    assert events.count("finished") == 4
    run(["openuni", "verify", str(out)])


def test_a_part_is_held_beside_others_and_the_whole_waits_for_all(tmp_path: Path) -> None:
    one, two = Part.parse("1/2"), Part.parse("2/2")
    (tmp_path / MARKER).touch()
    with RunLock(tmp_path, "a", part=one), RunLock(tmp_path, "b", part=two):
        lock.check(tmp_path / one.folder, "a")
        for asked in (None, two):
            with pytest.raises(HeldError, match="is being written by run"), RunLock(tmp_path, "c", part=asked):
                pytest.fail("it is held")
        with pytest.raises(PlanError, match="in 2 parts"), RunLock(tmp_path, "c", part=Part.parse("1/3")):
            pytest.fail("it is divided otherwise")
    with RunLock(tmp_path, "whole"), pytest.raises(HeldError, match="run whole"), RunLock(tmp_path, "a", part=one):
        pytest.fail("it is held as a whole")


def test_who_takes_over_takes_the_locks_of_the_dead(tmp_path: Path) -> None:
    """So that a worker that outlives its killed run publishes nothing."""
    part = Part.parse("1/2")
    dead = lock.Holder("dead", os.uname().nodename, 1, "another-boot/1")
    for home, asked in ((tmp_path, part), (tmp_path / part.folder, None)):
        home.mkdir(parents=True, exist_ok=True)
        (home / layout.LOCK).write_bytes(layout.dump_json(dead))
        (tmp_path / MARKER).touch()
        lock.check(home, "dead")
        with RunLock(tmp_path, "mine", part=asked), pytest.raises(PlanError, match="no longer holds"):
            lock.check(home, "dead")


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "1/-1"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        Part.parse(text)
