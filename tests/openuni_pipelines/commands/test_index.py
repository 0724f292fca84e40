"""`openuni index`: a dataset without a catalog gets one; what cannot have one is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

import openuni
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import catalog, layout, verify, writer
from openuni.storage import LocalStore
from openuni_pipelines.cli import openuni as command


def run(root: Path) -> Result:
    return CliRunner().invoke(command, ["index", str(root)])


def dataset(root: Path) -> Path:
    columns = {"rgb": "test-1"}
    rgb = Annotation(Rgb(np.zeros((2, 16, 16, 3), np.uint8), 8.0))
    writer.save_sample(root, 0, Record("clip", 2, 16, 16, 8.0), {"rgb": rgb}, columns, "run")
    writer.commit_shard(root, 0, ["clip"], columns, "run")
    writer.write_manifest(root, {"source": "test"}, columns, 1, 1, "run")
    return root


def test_a_dataset_without_a_catalog_gets_one(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d")
    assert not (root / catalog.HEAD).exists()
    assert run(root).exit_code == 0
    records = catalog.read(LocalStore(root), verify.manifest(root), layout.file_record(root / layout.MANIFEST).sha256)
    assert records is not None
    assert [record.last_key for record in records] == ["clip"]
    assert openuni.open(root)[0].key == "clip"


def test_a_folder_that_is_none_and_a_damaged_record_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty")
    assert result.exit_code == 1
    assert "is not a dataset" in result.stderr
    assert list((tmp_path / "empty").iterdir()) == []
    root = dataset(tmp_path / "d")
    record = root / layout.commit_name(0, "rgb")
    record.write_bytes(record.read_bytes().replace(b'"samples": 1', b'"samples": 2'))
    result = run(root)
    assert result.exit_code == 1
    assert "its checksum does not match" in result.stderr
    assert not (root / catalog.HEAD).exists()
