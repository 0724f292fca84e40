"""Results in `work/`: atomic, bounded by the shard's life, never believed when they are not whole."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from openuni.errors import CorruptDataError
from openuni.sample import Status
from openuni.shards import failures, layout, results
from openuni.shards.failures import Failure
from openuni.shards.results import ColumnNote, Result

RESULT = Result("depth", ColumnNote(Status(True, expert="e-1-0"), {"lo": 0.5}, {"x": 2.0}), {"depth.mkv": b"z" * 900})


def test_a_result_comes_back(tmp_path: Path) -> None:
    results.open_work(tmp_path, 7)
    results.save(tmp_path, 7, "k", "e-1-0", RESULT, "run")
    assert results.load(tmp_path, 7, "k", "e-1-0") == RESULT
    assert results.load_note(tmp_path, 7, "k", "e-1-0") == RESULT.note
    assert not results.exists(tmp_path, 7, "k", "e-2-0")
    assert not list(tmp_path.rglob("*.tmp"))


def test_two_writers_of_one_result_do_not_meet(tmp_path: Path) -> None:
    """A worker that was given up as hung and its successor may save the same result at once."""
    results.open_work(tmp_path, 0)
    threads = [
        threading.Thread(target=lambda: [results.save(tmp_path, 0, "k", "e-1-0", RESULT, "run") for _ in range(30)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.load(tmp_path, 0, "k", "e-1-0") == RESULT
    assert [path.name for path in (tmp_path / "work" / "000000").iterdir()] == ["k.e-1-0.tar"]


def test_a_late_writer_of_a_closed_shard_leaves_nothing_behind(tmp_path: Path) -> None:
    results.open_work(tmp_path, 7)
    results.close_work(tmp_path, 7)
    with pytest.raises(FileNotFoundError):
        results.save(tmp_path, 7, "k", "e-1-0", RESULT, "late")
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("size", [0, 100, 512, 1000, 1600, 2100])
def test_a_cut_file_is_not_believed(tmp_path: Path, size: int) -> None:
    results.open_work(tmp_path, 0)
    results.save(tmp_path, 0, "k", "e-1-0", RESULT, "run")
    path = tmp_path / layout.result_name(0, "k", "e-1-0")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptDataError):
        results.load(tmp_path, 0, "k", "e-1-0")


def test_failures_come_back_sorted_and_the_last_one_counts(tmp_path: Path) -> None:
    rows = [Failure("b", 0, "dis", "raised", 3, "x"), Failure("a", 1, "rgb", "died", 3, "y")]
    failures.write(tmp_path, [*rows, Failure("b", 0, "dis", "hung", 3, "z")], "run")
    assert failures.read(tmp_path) == [Failure("b", 0, "dis", "hung", 3, "z"), rows[1]]
    results.open_work(tmp_path, 0)
    failures.save(tmp_path, rows[0], "dis-1-0", "run")
    assert failures.saved(tmp_path, 0) == [rows[0]]
    (tmp_path / layout.FAILURES).write_bytes(b"PAR1nonsense")
    with pytest.raises(CorruptDataError, match=r"failures\.parquet"):
        failures.read(tmp_path)


def test_temporary_files_of_dead_runs_are_swept_when_they_are_old(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    old = [tmp_path / "shards" / ".000000.rgb.tar.dead.tmp", tmp_path / ".plan.parquet.dead.tmp"]
    fresh, mine = tmp_path / "shards" / ".1.tar.dead.tmp", tmp_path / "shards" / ".2.tar.mine.0a.tmp"
    for path in (*old, fresh, mine):
        path.write_bytes(b"x")
    for path in (*old, mine):
        os.utime(path, (time.time() - 100, time.time() - 100))
    layout.sweep(tmp_path, "mine", 60.0)
    assert [path.exists() for path in (*old, fresh, mine)] == [False, False, True, True]
