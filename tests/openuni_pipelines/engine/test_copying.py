"""A dataset goes to a bucket and comes back as the same bytes, also when it is stopped on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

import openuni
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.shards import bucket, layout, revisions, verify
from openuni.storage import MARKER
from openuni.storage.objects import ObjectStore
from openuni_pipelines.cli import openuni as command
from openuni_pipelines.engine import changes, copying
from openuni_pipelines.engine.run import Execution, describe
from openuni_pipelines.engine.verifying import check
from tests.openuni.shards.conftest import write_data_set as write_data_set
from tests.s3 import BUCKET, Server

URL = f"s3://{BUCKET}/d"
Write = Callable[..., Path]
Digests = Callable[[Path], dict[str, str]]


@pytest.fixture
def root(tmp_path: Path, write_data_set: Write) -> Path:
    root = write_data_set(tmp_path / "data")
    describe(root, "run")
    return root


def test_a_dataset_comes_back_as_it_went(s3: Server, root: Path, tmp_path: Path, digests: Digests) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(command, list(map(str, words)))
        assert done.exit_code == 0, done.output
        return str(done.output)

    assert "9 columns of 3 shards" in run("push", root, URL, "--dry-run")
    store = ObjectStore(URL)
    assert store.first() is None
    s3.misbehave("cut", "PUT", 3)
    assert "put: s3://" in run("push", root, URL)
    assert "0 columns of 3 shards (0 bytes) put: s3://openuni-test/d; 9 are there" in run("push", root, URL)
    assert [sample.caption for sample in openuni.open(URL)] == [sample.caption for sample in openuni.open(root)]
    assert "are as committed" in run("verify", URL)
    assert "9 columns" in run("pull", URL, tmp_path / "back", "--dry-run")
    assert not (tmp_path / "back").exists()
    run("pull", URL, tmp_path / "back")
    back = digests(tmp_path / "back")
    del back[MARKER]
    assert back == digests(root)
    assert not check(tmp_path / "back", verify.manifest(root), Execution(workers=0)).problems
    # What has changed since is put as the next revision, and what it replaced is gone.
    changes.drop(root, "flow")
    assert "0 columns of 3 shards" in run("push", root, URL)
    assert openuni.open(URL).columns == ["rgb", "depth"]
    assert revisions.latest(store) == 2
    assert not [name for name in store.walk("shards") if "flow" in name]
    some = tmp_path / "some"
    run("pull", URL, some, "--columns", "depth")
    assert openuni.open(some).columns == ["rgb", "depth"]
    with pytest.raises(PlanError, match="other columns of this; choose another folder"):
        copying.pull(URL, tmp_path / "back")


def test_what_was_stopped_goes_on(s3: Server, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, pushed, push = ObjectStore(URL), [], bucket.push

    def stopping(*args: object) -> object:
        pushed.append(args[2:4])
        if len(pushed) == 5:
            raise OpenUniError("the line is cut")
        return push(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "_AT_ONCE", 1)
    monkeypatch.setattr(bucket, "push", stopping)
    with pytest.raises(OpenUniError, match="the line is cut"):
        copying.push(root, URL)
    assert not store.exists(layout.MANIFEST)
    assert 0 < copying.push(root, URL).columns < 9
    tars = store.walk("shards")
    victim = next(name for name in tars if ".depth." in name)
    whole = store.read(victim, at_most=1 << 30)
    store.put(victim, whole[:-1] + b"x", "vandal")
    with pytest.raises(CorruptDataError, match="is not what its commit record says"):
        copying.pull(URL, tmp_path / "back")
    store.put(victim, whole, "owner")
    assert copying.pull(URL, tmp_path / "back").there > 0
    assert not check(tmp_path / "back", verify.manifest(root), Execution(workers=0)).problems


def test_what_cannot_be_pushed_is_one_sentence(s3: Server, root: Path, tmp_path: Path, write_data_set: Write) -> None:
    copying.push(root, URL)
    other = write_data_set(tmp_path / "other")
    manifest = layout.dump_checked(layout.Manifest({"source": "x"}, verify.manifest(other).columns, 12, 3, ""))
    (other / layout.MANIFEST).write_bytes(manifest)
    with pytest.raises(PlanError, match="holds another dataset; choose another place"):
        copying.push(other, URL)
    (other / layout.commit_name(1, "depth")).unlink()
    with pytest.raises(PlanError, match="is not finished"):
        copying.push(other, f"s3://{BUCKET}/other")
    tar = root / layout.tar_name(0, "rgb")
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptDataError, match="openuni verify --repair"):
        copying.push(root, f"s3://{BUCKET}/third")


def test_a_dataset_of_plain_names_is_pulled_from_any_url(root: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(root), "/hub/d", recursive=True)
    copying.pull("memory://hub/d", tmp_path / "back")
    assert not check(tmp_path / "back", verify.manifest(root), Execution(workers=0)).problems
    assert list(openuni.open(tmp_path / "back").keys()) == list(openuni.open(root).keys())
    files.rm("/hub/d", recursive=True)
