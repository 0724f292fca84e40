"""Committing a column: the record comes last, a guard stops late writers, and everything can be unpacked again."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import Record, Status
from openuni.shards import columns, layout, results
from openuni.shards.results import ColumnNote, Result


def result(key: str, payload: bytes = b"frames") -> Result:
    record = Record(key, 3, 4, 5, 16.0, caption=f"clip {key}", scores={"s": 1.0})
    note = ColumnNote(Status(True, expert="rgb-1-0"), {"frames": 3}, {"s": 1.0}, record)
    return Result("rgb", note, {"mp4": payload})


def commit(root: Path, keys: str = "abc", run: str = "r1") -> layout.CommitRecord:
    return columns.commit(root, 0, "rgb", "rgb-1-0", [(key, result(key, key.encode() * 700)) for key in keys], run)


def test_what_was_committed_comes_back_and_is_plain_tar(tmp_path: Path) -> None:
    record = commit(tmp_path)
    assert columns.committed(tmp_path, 0, "rgb") == record
    assert (record.samples, record.present, record.first_key, record.last_key) == (3, 3, "a", "c")
    assert columns.read(tmp_path, 0, "rgb", "b") == result("b", b"b" * 700)
    with tarfile.open(tmp_path / layout.tar_name(0, "rgb")) as tar:
        assert tar.getnames() == ["a.json", "a.mp4", "b.json", "b.mp4", "c.json", "c.mp4"]
    for row in columns.rows(tmp_path, 0, "rgb"):
        data = (tmp_path / layout.tar_name(0, "rgb")).read_bytes()
        for member in row.members:
            assert layout.digest(data[member.offset : member.offset + member.size]) == member.sha256.hex()


def test_two_runs_write_the_same_bytes_but_for_the_run_in_the_record(tmp_path: Path) -> None:
    commit(tmp_path / "one", run="r1")
    commit(tmp_path / "two", run="r2")
    for name in (layout.tar_name(0, "rgb"), layout.index_name(0, "rgb")):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_guard_that_objects_leaves_no_commit_record_and_no_temporary_file(tmp_path: Path, allowed: int) -> None:
    calls = 0

    def guard() -> None:
        nonlocal calls
        calls += 1
        if calls > allowed:
            raise PlanError("another run holds the dataset")

    with pytest.raises(PlanError):
        columns.commit(tmp_path, 0, "rgb", "rgb-1-0", [("a", result("a"))], "late", guard)
    assert columns.committed(tmp_path, 0, "rgb") is None
    assert (tmp_path / layout.tar_name(0, "rgb")).exists() == (allowed > 0)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_failing_sample_leaves_what_was_there(tmp_path: Path) -> None:
    before = commit(tmp_path)

    def broken():  # type: ignore[no-untyped-def]
        yield "a", result("a", b"other")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        columns.commit(tmp_path, 0, "rgb", "rgb-1-0", broken(), "r2")
    assert columns.committed(tmp_path, 0, "rgb") == before
    assert columns.read(tmp_path, 0, "rgb", "a") == result("a", b"a" * 700)


def test_keys_that_could_leave_the_folder_are_refused(tmp_path: Path) -> None:
    for key in ("../x", "a.b", "", "a/b", "x" * 65):
        with pytest.raises(OpenUniError, match="cannot be a sample key"):
            columns.commit(tmp_path, 0, "rgb", "f", [(key, result("a"))], "r")


def test_a_record_that_was_changed_or_moved_is_not_believed(tmp_path: Path) -> None:
    commit(tmp_path)
    path = tmp_path / layout.commit_name(0, "rgb")
    good = path.read_text()
    path.write_text(good.replace('"present": 3', '"present": 2'))
    with pytest.raises(CorruptDataError, match="checksum"):
        columns.committed(tmp_path, 0, "rgb")
    (tmp_path / layout.commit_name(1, "rgb")).write_text(good)
    with pytest.raises(CorruptDataError, match="is the record of shard 0"):
        columns.committed(tmp_path, 1, "rgb")


def test_unpack_takes_over_what_is_whole(tmp_path: Path) -> None:
    commit(tmp_path)
    tar = tmp_path / layout.tar_name(0, "rgb")
    member = columns.rows(tmp_path, 0, "rgb")[1].members[1]
    data = bytearray(tar.read_bytes())
    data[member.offset] ^= 1
    tar.write_bytes(bytes(data))
    results.open_work(tmp_path, 0)
    assert columns.unpack(tmp_path, 0, "rgb", "rgb-1-0", {"c"}, "r2") == 1
    assert results.load(tmp_path, 0, "a", "rgb-1-0") == result("a", b"a" * 700)
    assert [results.exists(tmp_path, 0, key, "rgb-1-0") for key in "abc"] == [True, False, False]
    assert columns.unpack(tmp_path, 0, "rgb", "rgb-2-0", set(), "r2") == 0
    columns.uncommit(tmp_path, 0, "rgb")
    assert columns.committed(tmp_path, 0, "rgb") is None
