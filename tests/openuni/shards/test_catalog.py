"""The catalog: three reads open a dataset, and a stale or damaged one is never believed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import openuni
from benchmarks import opening
from openuni.errors import CorruptDataError
from openuni.shards import catalog, columns, layout, verify
from openuni.shards.layout import CommitRecord, FileRecord
from openuni.storage import LocalStore

from .conftest import COLUMNS

Write = Callable[..., Path]
_SUM = "0" * 64


@pytest.fixture
def root(tmp_path: Path, write_data_set: Write) -> Path:
    root = write_data_set(tmp_path / "data")
    catalog.write(root, "run")
    return root


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a store in memory is asked, one name a request."""
    asked: list[str] = []
    cat_file, ls = MemoryFileSystem.cat_file, MemoryFileSystem.ls

    def counted_cat(self: MemoryFileSystem, path: str, *args: object, **more: object) -> bytes:
        asked.append(path.rpartition("/")[2])
        data: bytes = cat_file(self, path, *args, **more)
        return data

    def counted_ls(self: MemoryFileSystem, path: str, *args: object, **more: object) -> object:
        asked.append(f"ls {path.rpartition('/')[2]}")
        return ls(self, path, *args, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted_cat)
    monkeypatch.setattr(MemoryFileSystem, "ls", counted_ls)
    yield asked
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def remote(root: Path) -> openuni.Dataset:
    """The dataset, copied to a store in memory."""
    files = MemoryFileSystem()
    for path in root.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/far/{path.relative_to(root)}", path.read_bytes())
    return openuni.open("memory://far")


def test_opening_takes_three_reads_and_a_sample_one_an_index(root: Path, requests: list[str]) -> None:
    data = remote(root)
    assert len(data) == 12
    assert requests == [layout.MANIFEST, catalog.HEAD, catalog.TABLE]
    data["clip-00005"]
    assert sorted(requests[3:]) == sorted(f"000001.{column}.parquet" for column in COLUMNS)


def test_the_indices_of_a_shard_are_asked_for_at_once(
    root: Path, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits until all are under way: a sample far away costs one wait, however many columns there are."""
    data = remote(root)
    together, counted = threading.Barrier(len(COLUMNS), timeout=60), MemoryFileSystem.cat_file

    def met(self: MemoryFileSystem, path: str, *args: object, **more: object) -> bytes:
        if path.endswith(".parquet") and "/index/" in path:
            together.wait()
        read: bytes = counted(self, path, *args, **more)
        return read

    monkeypatch.setattr(MemoryFileSystem, "cat_file", met)
    assert data["clip-00005"].key == "clip-00005"


def test_the_records_are_those_of_the_files_but_for_their_run(root: Path) -> None:
    store = LocalStore(root)
    records = catalog.read(store, verify.manifest(root), layout.file_record(root / layout.MANIFEST).sha256)
    assert records is not None
    places = [(shard, column) for shard in range(3) for column in sorted(COLUMNS)]
    assert [(record.shard, record.column) for record in records] == places
    for record in records:
        filed = columns.committed(root, record.shard, record.column)
        assert filed is not None
        assert (record.tar, record.index, record.keys_sha256) == (filed.tar, filed.index, filed.keys_sha256)
        assert (record.first_key, record.last_key, record.samples) == (filed.first_key, filed.last_key, filed.samples)


@pytest.mark.parametrize("name", [catalog.HEAD, catalog.TABLE])
@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "empty"])
def test_a_damaged_catalog_is_passed_over(root: Path, name: str, damage: str) -> None:
    path = root / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-9]), "empty": b""}[damage])
    assert (
        catalog.read(LocalStore(root), verify.manifest(root), layout.file_record(root / layout.MANIFEST).sha256) is None
    )
    assert len(openuni.open(root)) == 12


def test_a_column_that_is_removed_or_committed_retires_the_catalog(root: Path, requests: list[str]) -> None:
    columns.uncommit(root, 1, "depth")
    assert not (root / catalog.HEAD).exists()
    assert [list(shard.columns) for shard in remote(root).shards][1] == ["rgb", "flow"]
    assert catalog.write(root, "run") == 8
    depth = list(openuni.open(root).stored(0, ["depth"]))
    columns.commit(root, 1, "depth", "test-1", ((key, results[0]) for key, results in depth), "run")
    assert not (root / catalog.HEAD).exists()


def test_a_catalog_of_another_manifest_or_of_other_files_is_stale(root: Path, requests: list[str]) -> None:
    head, manifest = (root / catalog.HEAD).read_bytes(), root / layout.MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert len(remote(root)) == 12
    assert "ls commits" in requests
    catalog.write(root, "run")
    assert (root / catalog.HEAD).read_bytes() != head
    (root / layout.commit_name(2, "depth")).unlink()  # by hand
    assert [len(shard.columns) for shard in openuni.open(root).shards] == [3, 3, 2]


def test_a_record_that_was_written_by_hand_is_seen(root: Path) -> None:
    record = columns.committed(root, 1, "depth")
    assert record is not None
    other = replace(record, fingerprint="other-1")
    (root / layout.commit_name(1, "depth")).write_bytes(layout.dump_checked(other))
    assert [len(shard.columns) for shard in openuni.open(root).shards] == [3, 2, 3]


def test_two_catalogs_of_one_dataset_have_the_same_bytes(tmp_path: Path, write_data_set: Write) -> None:
    first, second = (write_data_set(tmp_path / name) for name in "ab")
    catalog.write(first, "one")
    catalog.write(second, "two")
    for name in (catalog.HEAD, catalog.TABLE):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_records_survive_the_table() -> None:
    file = FileRecord(7, _SUM)
    record = CommitRecord(3, "depth", "x-1", "", 2, 1, "a", "b", _SUM, file, FileRecord(1 << 40, _SUM))
    assert catalog.decode(catalog.encode([record]), "table") == [record]
    assert catalog.decode(catalog.encode([]), "table") == []


def test_a_catalog_that_tells_other_things_than_the_records_is_found_by_verify(root: Path) -> None:
    """Whole, vouched for by its own hashes and no older than the records: readers believe it."""
    assert verify.verify_catalog(root) == []
    store = LocalStore(root)
    manifest_sha256 = layout.digest((root / layout.MANIFEST).read_bytes())
    records = catalog.read(store, verify.manifest(root), manifest_sha256)
    assert records
    data = catalog.encode([replace(records[0], samples=records[0].samples + 1), *records[1:]])
    store.put(catalog.TABLE, data, "run")
    head = catalog.Head(manifest_sha256, FileRecord(len(data), layout.digest(data)))
    store.put(catalog.HEAD, layout.dump_checked(head), "run")
    (problem,) = verify.verify_catalog(root)
    assert "openuni index" in problem.what
    catalog.write(root, "run")
    assert verify.verify_catalog(root) == []
    catalog.retire(root)
    assert verify.verify_catalog(root) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"catalog.parquet": {"size": 9, "sha256": _SUM}}, "if the dataset was changed meanwhile, open it again"),
        ({"catalog.parquet": {"size": 9, "sha256": _SUM}, "../x": {"size": 9, "sha256": _SUM}}, "none of ours"),
        ({}, "none of ours"),
        ("x", "none of ours"),
    ],
)
def test_a_revision_is_believed_only_with_its_catalog(root: Path, files: object, said: str) -> None:
    manifest = verify.manifest(root)
    revised = replace(manifest, configuration={layout.REVISION: {"number": 1, "files": files}})
    (root / layout.MANIFEST).write_bytes(layout.dump_checked(revised))
    with pytest.raises(CorruptDataError, match=said):
        len(openuni.open(root))


def test_the_benchmark_of_a_million_clips_measures_what_its_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks/opening.py`, with shards enough for a second folder; the page has its numbers."""
    for name in ("cat_file", "size"):  # it replaces them
        monkeypatch.setattr(MemoryFileSystem, name, getattr(MemoryFileSystem, name))
    measured = opening.measure(layout.PER_FOLDER + 1, 2, latency=0.0)
    MemoryFileSystem().rm("/million", recursive=True)
    assert measured["requests_to_open"] == 3
    assert measured["requests_to_filter"] == 4
    assert measured["requests_for_a_clip"] == len(opening.COLUMNS)
    assert measured["epoch_exactly_once"]
