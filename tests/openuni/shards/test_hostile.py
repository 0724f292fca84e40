"""A dataset that a stranger made: whatever its files claim ends in one sentence, and nothing outside it is touched.

Every file gets its checksum again after it was changed: checksums prove that nothing was damaged, not who wrote it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import openuni
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import Clip
from openuni.shards import columns, failures, index, layout, plan, results, verify
from openuni.shards.failures import Failure
from openuni.shards.index import Row
from openuni.shards.layout import CommitRecord, FileRecord
from openuni.shards.lock import RunLock
from openuni.shards.plan import Plan

from .conftest import COLUMNS, key_of

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, write_data_set: Callable[..., Path]) -> Path:
    return write_data_set(tmp_path_factory.mktemp("written") / "d", 1, 2)


@pytest.fixture
def root(tmp_path: Path, written: Path) -> Path:
    """A fresh copy, with a folder `outside` beside it whose content must stay."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    shutil.copytree(written, tmp_path / "d")
    return tmp_path / "d"


def rewrite_checked(root: Path, column: str, data: bytes, changed: dict[str, Any] | None = None) -> None:
    """Put an index in place and write a commit record that vouches for it."""
    (root / layout.index_name(0, column)).write_bytes(data)
    record = columns.committed(root, 0, column)
    assert record is not None
    record = replace(record, index=FileRecord(len(data), layout.digest(data)))
    bare = dataclasses.asdict(record) | (changed or {})
    (root / layout.commit_name(0, column)).write_text(json.dumps(bare | {"checksum": _checksum(bare)}))


def _checksum(fields: dict[str, Any]) -> str:
    """The checksum of a commit record, also of one whose fields the class would refuse."""
    record = object.__new__(CommitRecord)
    for name, value in fields.items():
        object.__setattr__(record, name, FileRecord(**value) if name in ("tar", "index") else value)
    return layout.digest(layout._adapter(CommitRecord).dump_json(record))


def rows_of(root: Path, column: str = "rgb") -> list[Row]:
    return list(columns.rows(root, 0, column))


def outside(root: Path) -> dict[str, str]:
    """Everything beside the dataset."""
    beside = [path for path in root.parent.rglob("*") if root not in (path, *path.parents) and path.is_file()]
    return {str(path.relative_to(root.parent)): path.read_text() for path in beside}


KEYS = ["../../../escaped", "/etc/cron.d/x", "a/b", "..", "", "a.b", "k" * 65, "a\x1b[31m", "a\nb", "é"]


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_a_key_in_an_index_is_checked_where_it_is_read(root: Path, key: str) -> None:
    first, *rest = rows_of(root)
    record = first.record
    assert record is not None
    rewrite_checked(root, "rgb", index.encode([replace(first, key=key, record=replace(record, key=key)), *rest], "rgb"))
    with pytest.raises(CorruptDataError, match=r"rgb\.parquet: row 0 is not a sample: .* cannot be a sample key"):
        openuni.open(str(root))[0]
    with pytest.raises(CorruptDataError, match="cannot be a sample key"):
        columns.rows(root, 0, "rgb")
    assert "cannot be a sample key" in verify.verify_column(root, 0, "rgb").problems[0].what


MEMBERS = [
    ({"field": "../x"}, "cannot name a member"),
    ({"field": "/x"}, "cannot name a member"),
    ({"field": "x" * 36}, "cannot name a member"),
    ({"field": ""}, "cannot name a member"),
    ({"offset": -1}, "lies at -1"),
    ({"offset": 0}, "lies at 0"),
    ({"size": -1}, "-1 bytes"),
    ({"size": 1 << 62}, "bytes"),
    ({"sha256": b""}, None),
]


@pytest.mark.parametrize(("changed", "words"), MEMBERS, ids=lambda value: ascii(value))
def test_a_member_is_checked_where_it_is_read(root: Path, changed: dict[str, Any], words: str | None) -> None:
    first, *rest = rows_of(root)
    bad = replace(first, members=(replace(first.members[0], **changed), *first.members[1:]))
    try:
        data = index.encode([bad, *rest], "rgb")
    except pa.ArrowInvalid:
        return  # no file can say that
    rewrite_checked(root, "rgb", data)
    with pytest.raises(CorruptDataError, match=words or ""):
        openuni.open(str(root))[0]


@pytest.mark.parametrize("change", [{"offset": 1 << 40}, {"size": (8 << 30) - 1}, {"size": 6 << 30, "offset": 512}])
def test_bytes_that_are_not_in_the_tar_take_no_memory(root: Path, change: dict[str, int]) -> None:
    first, *rest = rows_of(root)
    rewrite_checked(
        root, "rgb", index.encode([replace(first, members=(replace(first.members[1], **change),)), *rest], "rgb")
    )
    with pytest.raises(CorruptDataError, match=r"ends at|claims"):
        openuni.open(str(root))[0]["rgb"]
    assert verify.verify_column(root, 0, "rgb").problems


COUNTS = [{"shard": -1}, {"samples": -1}, {"samples": 10**12}, {"present": 99}, {"column": "../x"}, {"fingerprint": ""}]


@pytest.mark.parametrize("changed", COUNTS, ids=str)
def test_a_commit_record_with_false_counts_or_names_is_refused(root: Path, changed: dict[str, Any]) -> None:
    rewrite_checked(root, "rgb", index.encode(rows_of(root), "rgb"), changed)
    with pytest.raises(CorruptDataError, match=r"is not a valid CommitRecord|is the record of"):
        openuni.open(str(root))[0]
    with pytest.raises(CorruptDataError, match=r"is not a valid CommitRecord|is the record of"):
        columns.committed(root, 0, "rgb")


NAMES = ["$(touch RAN)", "../x", "a/b", "", "x" * 33, "-rf", "a b", "[red]", "\x1b[2J"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_the_name_of_a_column_is_checked(root: Path, name: str) -> None:
    fields = json.loads((root / layout.MANIFEST).read_text())
    fields["columns"][name] = "x-1-2"
    (root / layout.MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(CorruptDataError, match=r"is not a valid Manifest.* cannot name a column"):
        openuni.open(str(root))
    for make in (layout.tar_name, layout.index_name, layout.commit_name):
        with pytest.raises(CorruptDataError, match="cannot name a column"):
            make(0, name)


@pytest.mark.parametrize("changed", [{"shards": 10**9}, {"clips": -1}, {"clips": 10**15}, {"shards": 3}], ids=str)
def test_a_manifest_with_false_counts_is_refused(root: Path, changed: dict[str, int]) -> None:
    fields = json.loads((root / layout.MANIFEST).read_text()) | changed
    (root / layout.MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(CorruptDataError, match=r"is not a valid Manifest.* clips in .* shards"):
        openuni.open(str(root))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 9, b"PAR1" + b"\xff\xff\xff\x7fPAR1", b"x" * 4096])
def test_what_is_no_parquet_is_refused_as_index_plan_and_failures(root: Path, data: bytes) -> None:
    rewrite_checked(root, "rgb", data)
    (root / layout.FAILURES).write_bytes(data)
    (root / layout.PLAN).write_bytes(data)
    with pytest.raises(CorruptDataError, match="is not a Parquet file"):
        openuni.open(str(root))[0]
    with pytest.raises(CorruptDataError, match="is not a table of failures"):
        failures.read(root)
    with pytest.raises(PlanError, match="is not a plan"):
        Plan(root / layout.PLAN)


def test_one_long_value_repeated_takes_no_memory_that_it_has_not_paid_for(root: Path) -> None:
    """A dictionary makes 2 MB into 2 TB: the file is small."""
    row = {"key": "k", "shard": 0, "stage": "dis", "kind": "x", "attempts": 1}
    many = {name: pa.array([value] * 1_000_000, failures._SCHEMA.field(name).type) for name, value in row.items()}
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 2_000_000]))
    pq.write_table(pa.table(many | {"error": long}), root / layout.FAILURES, compression="zstd", store_schema=False)
    assert (root / layout.FAILURES).stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptDataError, match="texts longer than any of ours"):
        failures.read(root)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB


def test_keys_and_stages_in_the_table_of_failures_are_checked(root: Path) -> None:
    good = {"key": "a", "shard": 0, "stage": "dis", "kind": "raised", "attempts": 1, "error": "x"}
    for changed in ({"key": "../../x"}, {"stage": "../x"}, {"shard": -1}, {"shard": 2**30}):
        table = pa.Table.from_pylist([good | changed], failures._SCHEMA)
        pq.write_table(table, root / layout.FAILURES)
        with pytest.raises(CorruptDataError, match=r"failures\.parquet is not a table of failures .*cannot"):
            failures.read(root)
    with pytest.raises(ValueError, match="cannot be a sample key"):
        Failure("../x", 0, "dis", "raised", 1, "x")


def test_keys_in_a_plan_are_checked(tmp_path: Path) -> None:
    path = tmp_path / layout.PLAN
    plan.write(path, [Clip("a", "a.mp4"), Clip("b", "b.mp4")], 2, "run")
    table = pq.read_table(path)
    for key in ("../../x", "a.b", ""):
        changed = table.set_column(0, plan.SCHEMA.field("key"), pa.array([key, "b"]))
        pq.write_table(changed.cast(table.schema), path)
        with pytest.raises(PlanError, match=r"holds something that is not a clip .* cannot be a sample key"):
            Plan(path).shard(0)


@pytest.mark.parametrize("name", ["../x", "k/../../x"])
def test_no_result_is_saved_under_a_key_that_is_a_path(tmp_path: Path, name: str) -> None:
    result = results.Result("depth", results.ColumnNote(openuni.sample.Status(False, "x")))
    with pytest.raises(OpenUniError, match="cannot be a sample key"):
        results.save(tmp_path, 0, name, "e-1-0", result, "run")
    with pytest.raises(CorruptDataError, match="cannot be a fingerprint"):
        results.save(tmp_path, 0, "k", name, result, "run")
    assert list(tmp_path.iterdir()) == []


def test_a_linked_lock_guard_or_log_is_refused_and_its_target_stays(root: Path) -> None:
    for name in (layout.LOCK, f".{layout.LOCK}", layout.LOG):
        (root / name).symlink_to(root.parent / "outside" / "precious")
        with pytest.raises(PlanError, match=f"{name} is a link"), RunLock(root, "run"):
            pytest.fail("it was locked")
        (root / name).unlink()
    assert outside(root) == {"outside/precious": "precious"}


@pytest.mark.parametrize("folder", ["work", "work/000000", "shards", "index", "commits"])
def test_nothing_is_written_or_deleted_through_a_linked_folder(root: Path, folder: str) -> None:
    target = root.parent / "outside"
    (target / "000000").mkdir()
    (target / "000000" / "photo.jpg").write_text("photo")
    shutil.rmtree(root / folder, ignore_errors=True)
    (root / folder).parent.mkdir(exist_ok=True)
    (root / folder).symlink_to(target)
    result = results.Result("depth", results.ColumnNote(openuni.sample.Status(False, "x")))

    def make() -> None:
        results.open_work(root, 0)
        results.save(root, 0, "k", "e-1-0", result, "run")
        columns.commit(root, 0, "depth", "e-1-0", [("k", result)], "run")
        columns.uncommit(root, 0, "depth")

    with pytest.raises(PlanError, match="is a link"):
        make()
    if folder != "work/000000":
        if folder == "work":
            with pytest.raises(PlanError, match="is a link"):
                results.close_work(root, 0)
        with pytest.raises(PlanError, match="is a link"), RunLock(root, "run"):
            pytest.fail("it was locked")
    else:
        results.close_work(root, 0)
    layout.sweep(root)
    assert outside(root) == {"outside/precious": "precious", "outside/000000/photo.jpg": "photo"}


FILES = [layout.MANIFEST, layout.commit_name(0, "rgb"), layout.index_name(0, "rgb"), layout.tar_name(0, "rgb")]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", [*FILES, layout.FAILURES, layout.PLAN, layout.LOCK])
def test_a_pipe_a_device_or_a_folder_in_a_files_place_is_named_at_once(root: Path, name: str, kind: str) -> None:
    path = root / name
    path.unlink(missing_ok=True)
    {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[kind]()
    if name == layout.FAILURES:
        with pytest.raises(CorruptDataError, match="is not a regular file"):
            failures.read(root)
    elif name == layout.PLAN:
        with pytest.raises(PlanError, match="is not a regular file"):
            Plan(path)
    elif name == layout.LOCK:
        with pytest.raises(PlanError, match=r"is not a lock|is a link"), RunLock(root, "run"):
            pytest.fail("it was locked")
    else:
        with pytest.raises(CorruptDataError, match="is not a regular file"):
            openuni.open(str(root))[0]["rgb"]
    if name not in (layout.MANIFEST, layout.PLAN):
        verify.verify_column(root, 0, "rgb")


# Nothing legitimate is refused.


def test_a_dataset_on_a_linked_disk_opens_and_is_verified(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its owner linked it; to write there too it takes a word of his."""
    disk = root.parent / "disk"
    (root / "shards").rename(disk)
    (root / "shards").symlink_to(disk)
    data = openuni.open(str(root))
    assert [sample.key for sample in data] == [key_of(0), key_of(1)]
    assert data[0].depth.values.shape == (4, 16, 24)
    assert verify.verify_column(root, 0, "depth").problems == ()
    with pytest.raises(PlanError, match="OPENUNI_FOLLOW_LINKS=1"), RunLock(root, "run"):
        pytest.fail("it was locked")
    monkeypatch.setenv("OPENUNI_FOLLOW_LINKS", "1")
    with RunLock(root, "run"):
        stored = [(row.key, columns.read_stored(root, 0, "depth", row)) for row in rows_of(root, "depth")]
        columns.commit(root, 0, "depth", COLUMNS["depth"], stored, "run")
    assert verify.verify_column(root, 0, "depth").problems == ()
    assert (disk / "000000.depth.tar").is_file()


def test_a_dataset_of_linked_files_as_a_hubs_cache_has_it_opens(root: Path) -> None:
    blobs = root.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert openuni.open(str(root))[1].rgb.frames.shape == (4, 16, 24, 3)
    assert verify.verify_column(root, 0, "flow").problems == ()


def test_a_folder_behind_a_link_is_a_folder(root: Path) -> None:
    """The user named it: only what lies below it is somebody else's."""
    link = root.parent / "data"
    link.symlink_to(root)
    with RunLock(link, "run"):
        columns.uncommit(link, 0, "depth")
    assert columns.committed(root, 0, "depth") is None


def test_a_shared_folder_with_other_users_files_below_a_new_one_is_used(root: Path) -> None:
    shared = root.parent / "shared"
    shared.mkdir()
    (shared / "somebody.txt").write_text("theirs")
    with RunLock(shared / "mine", "run"):
        (shared / "mine" / "log.jsonl").write_text("{}")
    with RunLock(shared / "mine", "again"):
        pass
    (root / "notes-of-mine.txt").write_text("a file beside a dataset's own")
    with RunLock(root, "run"):
        pass
    assert (root / "notes-of-mine.txt").exists()


@pytest.mark.parametrize("left", [0, 1, 511, 5000])
def test_a_download_that_was_cut_short_names_the_file_and_reads_what_is_whole(root: Path, left: int) -> None:
    path = root / layout.tar_name(0, "depth")
    path.write_bytes(path.read_bytes()[:left])
    data = openuni.open(str(root))
    assert data[0].rgb.frames.shape == (4, 16, 24, 3)
    with pytest.raises(CorruptDataError, match=r"000000\.depth\.tar"):
        data[1]["depth"]
    problems = verify.verify_column(root, 0, "depth").problems
    assert problems
    assert all("depth" in problem.file for problem in problems)
    (root / layout.tar_name(0, "depth")).unlink()
    with pytest.raises(CorruptDataError, match=r"000000\.depth\.tar"):
        data[0]["depth"]
    assert "is missing" in verify.verify_column(root, 0, "depth").problems[0].what
