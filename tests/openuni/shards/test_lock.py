"""One run at a time: a living holder is named, a dead one is recognised, a late writer is stopped."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from openuni.errors import PlanError
from openuni.shards import layout, lock
from openuni.shards.lock import Holder, RunLock

HOLD = """
import sys, time
from pathlib import Path
from openuni.shards.lock import RunLock
with RunLock(Path(sys.argv[1]), "other"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path):  # type: ignore[no-untyped-def]  # a generator of Popen
    """Another process that holds the dataset."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_told_who_holds_the_data_set(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(PlanError, match=rf"written by run other \(process {other.pid} on "), RunLock(tmp_path, "mine"):
        pytest.fail("two runs held one dataset")
    assert lock.read(tmp_path) is not None


def test_a_lock_left_by_a_killed_run_is_taken_over(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert (tmp_path / layout.LOCK).exists()
    with RunLock(tmp_path, "mine"):
        lock.check(tmp_path, "mine")
        with pytest.raises(PlanError, match="no longer holds"):
            lock.check(tmp_path, "other")
    assert not (tmp_path / layout.LOCK).exists()


def test_a_zombie_and_a_reused_process_id_are_dead(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    holder = lock.read(tmp_path)
    assert holder is not None
    assert lock.alive(tmp_path / layout.LOCK, holder)
    reborn = Holder(holder.run, holder.host, holder.pid, "another-boot/1")
    assert not lock.alive(tmp_path / layout.LOCK, reborn)
    os.kill(other.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and left a zombie
    assert not lock.alive(tmp_path / layout.LOCK, holder)


def test_a_holder_on_another_machine_lives_by_its_heartbeat(tmp_path: Path) -> None:
    away = Holder("away", "another-host", 1, "x")
    layout.write_atomic(tmp_path / layout.LOCK, layout.dump_json(away), "away")
    with pytest.raises(PlanError, match="another-host"), RunLock(tmp_path, "mine"):
        pytest.fail("the lock of a living machine was taken")
    silent = time.time() - lock.STALE_SECONDS - 1
    os.utime(tmp_path / layout.LOCK, (silent, silent))
    with RunLock(tmp_path, "mine"):
        lock.check(tmp_path, "mine")


def test_a_holder_in_another_container_of_this_machine_lives_by_its_heartbeat(tmp_path: Path) -> None:
    """Two containers may share a host's name; in each, the other's process ids mean nothing or somebody else."""
    mine = lock.born(os.getpid())
    boot, _, started = mine.split("/")
    inside = Holder("inside", socket.gethostname(), os.getpid(), f"{boot}/4026532999/{started}")
    layout.write_atomic(tmp_path / layout.LOCK, layout.dump_json(inside), "inside")
    with pytest.raises(PlanError, match="run inside"), RunLock(tmp_path, "mine"):
        pytest.fail("the lock of a living container was taken")
    silent = time.time() - lock.STALE_SECONDS - 1
    os.utime(tmp_path / layout.LOCK, (silent, silent))
    with RunLock(tmp_path, "mine"):
        lock.check(tmp_path, "mine")


def test_the_heartbeat_goes_on_when_the_file_server_did_not_answer_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    with RunLock(tmp_path, "mine"):
        read, failures = lock.read, iter([OSError(errno.ESTALE, "Stale file handle")])
        monkeypatch.setattr(lock, "read", lambda home: _or_raise(next(failures, None)) or read(home))
        os.utime(tmp_path / layout.LOCK, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / layout.LOCK).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / layout.LOCK).stat().st_mtime > 0


def _or_raise(error: OSError | None) -> None:
    if error is not None:
        raise error


def test_the_heartbeat_touches_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    with RunLock(tmp_path, "mine"):
        os.utime(tmp_path / layout.LOCK, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / layout.LOCK).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / layout.LOCK).stat().st_mtime > 0


def test_never_two_at_once(tmp_path: Path) -> None:
    """Threads of one process stand for runs: inside the lock, nobody else is inside."""
    inside, worst, entered = 0, 0, 0
    counter = threading.Lock()

    def attempt(number: int) -> None:
        nonlocal inside, worst, entered
        for turn in range(40):
            try:
                with RunLock(tmp_path, f"r{number}-{turn}"):
                    with counter:
                        inside += 1
                        entered += 1
                        worst = max(worst, inside)
                    time.sleep(0.001)
                    with counter:
                        inside -= 1
            except PlanError:
                time.sleep(0.002)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1
    assert entered >= 4


def test_nothing_of_a_lock_stays_behind_and_neither_does_a_folder_that_was_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for root in (tmp_path / "new", tmp_path / "mine"):
        with RunLock(root, "run"):
            assert (root / layout.LOCK).exists()
    with RunLock(tmp_path / "used", "run"):
        (tmp_path / "used" / "log.jsonl").write_text("{}")
    left = ["mine", "used", "used/.openuni", "used/log.jsonl"]  # the folder is marked as ours once something is in it
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == left


def test_a_file_that_is_no_lock_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / layout.LOCK).write_text("hello")
    with pytest.raises(PlanError, match="not a lock of this program"), RunLock(tmp_path, "mine"):
        pytest.fail("a foreign file was replaced")
