"""Results in `work/`: atomic, bounded by the shard's life, never believed when they are not whole."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openuni.errors import CorruptDataError
from openuni.sample import Status
from openuni.shards import failures, layout, results
from openuni.shards.failures import Failure
from openuni.shards.results import ColumnNote, DamagedResultError, Result

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


def test_any_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """Every 7th byte, one bit of it: the error is typed, or the result is the same."""
    results.open_work(tmp_path, 0)
    results.save(tmp_path, 0, "k", "e-1-0", RESULT, "run")
    path = tmp_path / layout.result_name(0, "k", "e-1-0")
    good = path.read_bytes()
    found = 0
    for at in range(0, len(good), 7):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        path.write_bytes(bad)
        try:
            loaded = results.load(tmp_path, 0, "k", "e-1-0")
        except DamagedResultError:
            found += 1
        else:
            assert loaded == RESULT  # padding, and the zeros at the end
    assert found > (3 * 512 + 900) // 7  # at least three headers and the payload


def test_a_flipped_bit_of_a_payload_is_found_wherever_it_is(tmp_path: Path) -> None:
    results.open_work(tmp_path, 0)
    results.save(tmp_path, 0, "k", "e-1-0", RESULT, "run")
    path = tmp_path / layout.result_name(0, "k", "e-1-0")
    good = path.read_bytes()
    begin = good.index(b"z" * 900)
    for at in (begin, begin + 450, begin + 899):
        path.write_bytes(good[:at] + b"y" + good[at + 1 :])
        assert results.load_note(tmp_path, 0, "k", "e-1-0") == RESULT.note
        with pytest.raises(DamagedResultError, match=r"depth\.mkv does not match its sum") as damaged:
            results.load(tmp_path, 0, "k", "e-1-0")
        assert (damaged.value.key, damaged.value.fingerprint) == ("k", "e-1-0")


def test_what_is_saved_is_listed_without_temporary_files_and_failures(tmp_path: Path) -> None:
    assert list(results.saved(tmp_path, 0)) == []
    results.open_work(tmp_path, 0)
    results.save(tmp_path, 0, "k", "e-1-0", RESULT, "run")
    failures.save(tmp_path, Failure("k", 0, "dis", "raised", 3, "x"), "e-1-0", "run")
    (tmp_path / layout.work_name(0) / ".k.e-1-0.tar.dead.0a.tmp").write_bytes(b"x")
    assert list(results.saved(tmp_path, 0)) == [("k", "e-1-0")]


@pytest.mark.parametrize("size", [0, 100, 512, 1000, 1600, 2100, 2600])
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


WRITE = """
import sys, time
from pathlib import Path
from openuni.shards import layout
path = Path(sys.argv[1]) / "shards" / "000000.rgb.tar"
with layout.temporary_file(path, "killed"), layout.temporary_folder(path.parents[1] / "plan.parquet", "killed") as plan:
    (plan / "clips.arrow").write_bytes(b"x")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is in the middle of writing a file and a folder."""
    (tmp_path / "shards").mkdir()
    with subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def test_what_another_run_left_behind_is_swept_as_soon_as_nobody_writes_to_it(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    """A late writer in a process of its own is let alone while it lives, and swept the moment it was killed."""
    old = tmp_path / "shards" / ".000001.rgb.tar.dead.0a.tmp"
    old.write_bytes(b"x")
    with layout.temporary_file(tmp_path / "shards" / "000002.rgb.tar", "mine") as mine:
        layout.sweep(tmp_path)
        assert not old.exists()
        assert len(list(tmp_path.rglob("*.killed.*.tmp"))) == 2
        writer.kill()
        writer.wait()
        layout.sweep(tmp_path)
        assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == [mine]
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []
