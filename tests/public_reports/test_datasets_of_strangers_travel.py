"""A dataset of a stranger's that is pushed: whatever it links to stays here, and what is missing is not pushed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.shards import catalog, layout
from openuni.storage.remote import RemoteStore
from openuni_pipelines.engine import copying
from openuni_pipelines.engine.run import describe
from tests.hub import Hub, in_use
from tests.openuni.shards.conftest import write_data_set as write_data_set

pytest.importorskip("huggingface_hub")
URL = "hf://datasets/me/films"
Write = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_data_set: Write) -> Path:
    root = write_data_set(tmp_path / "data")
    describe(root, "run")
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with in_use(monkeypatch) as served:
        yield served


@pytest.mark.parametrize("name", ["skipped.parquet", catalog.TABLE, layout.FAILURES])
def test_no_file_is_copied_through_a_link(hub: Hub, root: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "id_ed25519"
    secret.write_bytes(b"my private key")
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(secret)
    with pytest.raises(PlanError, match=f"{name} is a link"):
        copying.push(root, URL)
    assert not any(b"private" in data for files in hub.repositories.values() for data in files.values())
    assert secret.read_bytes() == b"my private key"


def test_a_tar_that_is_a_hole_is_not_hashed(hub: Hub, root: Path) -> None:
    with (root / layout.tar_name(0, "rgb")).open("wb") as file:
        file.truncate(1 << 38)
    with pytest.raises(CorruptDataError, match="is not what its commit record says"):
        copying.push(root, URL)


def test_a_repository_that_lists_a_path_is_pushed_to(hub: Hub, root: Path) -> None:
    hub.repositories["me/films"] = {".openuni": b"ours", "shards/../../escaped": b"x"}
    assert copying.push(root, URL).columns == 9
    assert hub.repositories["me/films"].keys() >= {layout.MANIFEST, "shards/../../escaped"}


def test_a_dataset_that_lacks_records_is_not_pulled(root: Path, tmp_path: Path) -> None:
    """It came as no column of no shard, with status 0."""
    (root / layout.commit_name(1, "depth")).unlink()
    (root / catalog.HEAD).unlink()
    with pytest.raises(PlanError, match="is not whole: 8 of its 9 commit records are there"):
        copying.pull(str(root), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    class Down:
        def cat_file(self, path: str, *, start: int, end: int) -> bytes:
            raise ConnectionError("Name or service not known")

    with pytest.raises(OpenUniError, match=r"films/dataset\.json cannot be read: Name or service not known; check"):
        RemoteStore(Down(), "films").read("dataset.json", at_most=9)
