"""`unibench render` and `import` into a bucket: the truth that a folder would hold, whoever is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import openuni
from openuni.errors import PlanError
from openuni.shards import bucket, layout
from openuni.storage.objects import ObjectStore
from openuni_pipelines.commands.import_truth import import_command
from openuni_pipelines.commands.render import render_command
from tests.s3 import BUCKET, Server
from unibench.scoring.runs import Columns

URL = f"s3://{BUCKET}/sets/gt"
SMALL = ("--scenes", 4, "--frames", 2, "--size", 32, "--families", "fall,bounce", "--shard-size", 2, "--workers", 0)


class Killed(BaseException):
    """What no code catches."""


def run(command: Any, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(word) for word in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def write_kitti(root: Path) -> Path:
    """Two frames with depth and intrinsics."""
    for number in (5, 6):
        name, depth = f"2011_09_26_drive_000{number}_sync_{{}}_0000000005_image_02", np.full((32, 48), number * 256)
        for kind, data in (("groundtruth_depth", depth.astype(np.uint16)), ("image", depth.astype(np.uint8))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / kind / f"{name.format(kind)}.png"), data)
        (root / "intrinsics").mkdir(exist_ok=True)
        (root / "intrinsics" / f"{name.format('image')}.txt").write_text("100 0 23.5 0 100 15.5 0 0 1")
    return root


def assert_same(store: ObjectStore, local: Path) -> None:
    """Every tar and index, every side-car and preview has the bytes of the local set."""
    there = openuni.open(local)
    far = {name: size for name, size in store.walk().items() if not name.startswith("leases/")}
    for shard in there.shards:
        for column, record in shard.columns.items():
            for name, plain in (
                (layout.tar_at(record, layout.HASHED), layout.tar_name(shard.number, column)),
                (layout.index_at(record, layout.HASHED), layout.index_name(shard.number, column)),
            ):
                assert store.read(name, at_most=1 << 30) == (local / plain).read_bytes()
                del far[name]
    for path in (p for name in ("truth", "previews", "truth.json") for p in [local / name, *(local / name).rglob("*")]):
        if path.is_file():
            name = path.relative_to(local).as_posix()
            assert store.read(name, at_most=1 << 30) == path.read_bytes(), name
            del far[name]
    assert {name.split("/")[0] for name in far} == {
        ".openuni", ".identity", "catalog.json", "catalog.parquet", "commits", "dataset.json",
    }  # fmt: skip
    assert list(openuni.open(store.url).keys()) == list(there.keys())


def test_a_set_that_is_killed_again_and_again_is_the_one_of_a_folder(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, store = tmp_path / "local", ObjectStore(URL)
    run(render_command, "--out", local, *SMALL)
    put = ObjectStore.put
    for number, puts in enumerate((5, 12, 20)):
        left = [puts]

        def counted(self: ObjectStore, *arguments: Any, left: list[int] = left, **more: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            put(self, *arguments, **more)

        with monkeypatch.context() as patched:
            patched.setattr(ObjectStore, "put", counted)
            with pytest.raises(Killed):
                run(render_command, "--out", URL, "--staging", tmp_path / f"staging{number // 2}", *SMALL)
    s3.misbehave("cut", "PUT", 2)
    staging = tmp_path / "fresh"
    run(render_command, "--out", URL, "--staging", staging, *SMALL)
    assert_same(store, local)
    assert not [path for path in staging.rglob("*.*") if path.suffix in (".tar", ".npz", ".mp4")]
    near, far = Columns(str(local)), Columns(URL)
    key = near.keys("depth")[0]
    assert far.digest("camera", key) == near.digest("camera", key) != ""
    np.testing.assert_array_equal(far.camera(key).pose, near.camera(key).pose)  # type: ignore[union-attr]
    s3.asked.clear()
    run(render_command, "--out", URL, "--staging", staging, *SMALL)  # nothing is left to do
    assert not [path for method, path in s3.asked if method == "PUT" and "/leases/" not in path and "/." not in path
                and not path.endswith("dataset.json")]  # fmt: skip
    with pytest.raises(PlanError, match="holds a set of another recipe"):
        run(render_command, "--out", URL, "--staging", tmp_path / "other", *SMALL, "--seed", 7)


def test_imported_truth_in_a_bucket_is_that_of_a_folder(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_kitti(tmp_path / "kitti")
    words = (source, "--format", "kitti", "--shard-size", 1)
    run(import_command, *words, "--out", tmp_path / "local")
    with monkeypatch.context() as patched:
        patched.setattr(bucket, "forget", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(import_command, *words, "--out", URL, "--staging", tmp_path / "a")
    assert not ObjectStore(URL).exists("dataset.json")  # of what is half there nobody reads
    run(import_command, *words, "--out", URL, "--staging", tmp_path / "b")
    assert_same(ObjectStore(URL), tmp_path / "local")
    far = json.loads(ObjectStore(URL).read("dataset.json", at_most=1 << 20))
    assert far["configuration"] == {"source": "unibench import kitti", "naming": "hashed"}
    with pytest.raises(PlanError, match="holds a dataset already"):
        run(import_command, *words, "--out", URL, "--staging", tmp_path / "b")
    with pytest.raises(PlanError, match="there is no bucket openuni-other"):
        run(import_command, *words, "--out", "s3://openuni-other/x", "--staging", tmp_path / "c")
