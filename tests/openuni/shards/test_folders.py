"""A dataset of more than a thousand shards: its files lie in a folder for each thousand, or all in one as of old."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import openuni
from openuni.errors import CorruptDataError
from openuni.shards import catalog, columns, index, layout, results, verify, writer
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.storage import LocalStore

COLUMNS = {"rgb": "test-1", "depth": "test-1"}
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, write_data_set: Write) -> Path:
    return write_data_set(tmp_path_factory.mktemp("one") / "d", shards=1, per_shard=1)


def multiply(one: Path, root: Path, shards: int, naming: str | None) -> Path:
    """The only clip of `one` as the clip of each of many shards, under a key of its own; not synced, so it is fast."""
    (root / layout.MANIFEST).parent.mkdir(parents=True)
    told = {"source": "test"} | ({layout.NAMING: naming} if naming else {})
    for column in COLUMNS:
        row = columns.rows(one, 0, column)[0]
        stored = columns.read_stored(one, 0, column, row)
        for shard in range(shards):
            key = f"clip-{shard:06d}"
            record = row.record and replace(row.record, key=key)
            note = replace(stored.note, record=record)
            fields = {results.note_field(column): results.encode_note(note), **stored.members}
            with io.BytesIO() as sink:
                with results.open_tar_for_writing(sink) as tar:
                    made = [
                        index.Member(
                            name, results.add_member(tar, f"{key}.{name}", data), len(data), index.sha256(data)
                        )
                        for name, data in fields.items()
                    ]
                tarred = sink.getvalue()
            rows = [replace(row, key=key, shard=shard, members=tuple(made), record=record)]
            files = {layout.tar_name: tarred, layout.index_name: index.encode(rows, column)}
            tar_record, index_record = (FileRecord(len(data), layout.digest(data)) for data in files.values())
            keys = index.keys_sha256([key])
            committed = CommitRecord(shard, column, "test-1", "run", 1, 1, key, key, keys, tar_record, index_record)
            for name_of, data in (*files.items(), (layout.commit_name, layout.dump_checked(committed))):
                path = root / name_of(shard, column, naming)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    manifest = Manifest(told, COLUMNS, shards, shards, "", openuni="test")
    (root / layout.MANIFEST).write_bytes(layout.dump_checked(manifest))
    return root


@pytest.mark.parametrize("naming", [layout.FOLDERS, None], ids=["folders", "flat"])
def test_a_dataset_of_2500_shards_opens_either_way(one: Path, tmp_path: Path, naming: str | None) -> None:
    root = multiply(one, tmp_path / "d", 2500, naming)
    for folder in ("shards", "index", "commits"):
        entries = {path.name for path in (root / folder).iterdir()}
        assert len(entries) == (2002 if naming else 5000)
        assert {"001", "002"} <= entries or naming is None
        assert not naming or {p.name[:6] for p in (root / folder / "002").iterdir()} == {
            f"{n:06d}" for n in range(2000, 2500)
        }
    data = openuni.open(root)  # from the records
    assert len(data) == 2500
    assert catalog.write(root, "run") == 5000
    data = openuni.open(root)  # from the catalog
    for number in (0, 999, 1000, 2499):
        assert (data[number].depth.values == openuni.open(one)[0].depth.values).all()
        assert not verify.verify_column(root, number, "depth").problems
    assert not verify.verify_catalog(root)
    # A record that comes later makes the catalog stale, in a folder of its own too.
    (root / layout.commit_name(2499, "depth", naming)).unlink()
    assert "depth" not in openuni.open(root).shards[2499].columns
    # What is committed again lies where the rest does.
    clip = [(row.key, columns.read_stored(root, 1500, "depth", row)) for row in columns.rows(root, 1500, "depth")]
    before = {path: path.read_bytes() for path in (root / "shards").rglob("001500.*")}
    columns.uncommit(root, 1500, "depth")
    assert columns.committed(root, 1500, "depth") is None
    columns.commit(root, 1500, "depth", "test-1", clip, "again")
    assert {path: path.read_bytes() for path in (root / "shards").rglob("001500.*")} == before


def test_a_dataset_says_so_from_its_1001st_shard_on(tmp_path: Path) -> None:
    for shards, told in ((1000, None), (1001, layout.FOLDERS)):
        root = tmp_path / str(shards)
        assert layout.naming_of(root) == layout.FOLDERS  # nothing is planned: a new one
        manifest = writer.write_manifest(root, {"source": "test"}, COLUMNS, shards, shards, "run")
        assert manifest.configuration.get(layout.NAMING) == told
        assert layout.naming_of(root) == told


def test_a_way_to_name_files_that_is_not_known_is_refused(tmp_path: Path) -> None:
    manifest = Manifest({layout.NAMING: "by-colour"}, COLUMNS, 1, 1, "")
    LocalStore(tmp_path).put(layout.MANIFEST, layout.dump_checked(manifest), "run")
    with pytest.raises(CorruptDataError, match=r"does not know \(naming: 'by-colour'\); upgrade openuni"):
        columns.committed(tmp_path, 0, "rgb")
    with pytest.raises(CorruptDataError, match="upgrade openuni"):
        len(openuni.open(tmp_path))


def test_temporary_files_of_killed_runs_are_swept_in_every_folder(tmp_path: Path) -> None:
    left = tmp_path / "shards" / "012" / ".012345.rgb.tar.run.0a.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    layout.sweep(tmp_path)
    assert not left.exists()
