"""A dataset goes to a hub with the real client, also when the hub fails on the way, and reads as it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import openuni
from openuni.errors import PlanError
from openuni.shards import layout, verify
from openuni.shards.layout import Manifest
from openuni_pipelines.cli import openuni as command
from openuni_pipelines.engine import changes, on_hub
from openuni_pipelines.engine.run import Execution, describe
from openuni_pipelines.engine.verifying import check
from tests.hub import Hub, in_use
from tests.openuni.shards.conftest import write_data_set as write_data_set

pytest.importorskip("huggingface_hub")
URL = "hf://datasets/me/films"
Write = Callable[..., Path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with in_use(monkeypatch) as served:
        monkeypatch.setattr(on_hub, "_FILES_AT_ONCE", 12)  # four columns a commit
        yield served


@pytest.fixture
def root(tmp_path: Path, write_data_set: Write) -> Path:
    root = write_data_set(tmp_path / "data")
    describe(root, "run")
    return root


def push(root: Path, *more: str, url: str = URL) -> Result:
    return CliRunner().invoke(command, ["push", str(root), url, *more])


def download(hub: Hub, root: Path) -> Path:
    for name, data in hub.repositories["me/films"].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_dataset_without_a_catalog_gets_one(hub: Hub, tmp_path: Path, write_data_set: Write) -> None:
    """`unibench render` and `import` write none into a folder."""
    root = write_data_set(tmp_path / "rendered")
    done = push(root)
    assert done.exit_code == 0, done.output
    assert list(openuni.open(download(hub, tmp_path / "copy")).keys()) == list(openuni.open(root).keys())


def test_a_dataset_goes_to_the_hub_and_what_has_changed_later(hub: Hub, root: Path, tmp_path: Path) -> None:
    assert "9 columns of 3 shards" in push(root, "--dry-run").output
    assert hub.repositories == {}
    done = push(root)
    assert done.exit_code == 0, done.output
    assert "9 columns of 3 shards" in done.output
    # Card and mark first, four columns at once, what describes the dataset last and together.
    assert [len(commit) for commit in hub.commits] == [2, 12, 12, 3, 5]
    assert layout.MANIFEST in hub.commits[-1]
    there = hub.repositories["me/films"]
    for path in (path for folder in ("shards", "index", "commits") for path in (root / folder).rglob("*.*")):
        assert there[path.relative_to(root).as_posix()] == path.read_bytes()
    copy = openuni.open(download(hub, tmp_path / "copy"))
    assert [sample.caption for sample in copy] == [sample.caption for sample in openuni.open(root)]
    assert not verify.verify_catalog(tmp_path / "copy")

    again = push(root)
    assert "0 columns of 3 shards (0 bytes) put" in again.output
    assert len(hub.commits) == 5
    changes.drop(root, "flow")
    assert push(root).exit_code == 0
    assert not [name for name in hub.repositories["me/films"] if ".flow." in name]
    assert openuni.open(download(hub, tmp_path / "dropped")).columns == ["rgb", "depth"]
    assert sum(name.startswith("facts.") for name in hub.repositories["me/films"]) == 1


def test_a_dataset_comes_back_from_the_hub(hub: Hub, root: Path, tmp_path: Path) -> None:
    """In a process of its own: what reads `hf://` takes HF_ENDPOINT when it is imported."""
    assert push(root).exit_code == 0
    words = [Path(sys.executable).with_name("openuni"), "pull", URL, tmp_path / "back", "--columns", "depth"]
    told = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(words, env=os.environ | told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert openuni.open(tmp_path / "back").columns == ["rgb", "depth"]
    assert not check(tmp_path / "back", verify.manifest(tmp_path / "back"), Execution(workers=0)).problems
    tar = layout.tar_name(2, "depth")
    assert (tmp_path / "back" / tar).read_bytes() == (root / tar).read_bytes()


def test_the_card_names_what_the_viewer_shows(hub: Hub, root: Path) -> None:
    yaml = pytest.importorskip("yaml")
    assert push(root).exit_code == 0
    there = hub.repositories["me/films"]
    told = yaml.safe_load(there[layout.CARD].decode().split("---\n")[1])
    configs = {config["config_name"]: config for config in told["configs"]}
    assert list(configs) == ["clips", "rgb", "depth", "flow"]
    assert configs["clips"]["default"] is True
    assert configs["depth"]["data_files"] == ["shards/*.depth.tar"]


def test_croissants_own_reader_reads_the_clips(hub: Hub, root: Path, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    assert push(root).exit_code == 0
    there = hub.repositories["me/films"]
    document = json.loads(there["croissant.json"])
    table = next(name for name in there if name.startswith("facts."))
    (tmp_path / table).write_bytes(there[table])
    data = mlcroissant.Dataset(jsonld=document, mapping={"facts": tmp_path / table})
    assert not data.metadata.ctx.issues.errors
    rows = list(data.records("clips"))
    samples = list(openuni.open(root))
    assert [row["clips/key"].decode() for row in rows] == [sample.key for sample in samples]
    assert [row["clips/caption"].decode() for row in rows] == [sample.caption for sample in samples]
    assert [row["clips/depth.present"] for row in rows] == [sample.statuses["depth"].present for sample in samples]
    urls = {file["@id"]: file["contentUrl"] for file in document["distribution"] if "contentUrl" in file}
    assert urls["facts"] == f"{hub.url}/datasets/me/films/resolve/main/{table}"
    assert push(root).exit_code == 0  # and the document is the same again
    assert len(hub.commits) == 5


@pytest.mark.parametrize("fault", ["503", "cut"])
@pytest.mark.parametrize("where", ["/commit/main", "PUT /lfs/", "/preupload/", "/objects/batch"])
def test_a_hub_that_fails_is_asked_again(
    hub: Hub, root: Path, fault: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.misbehave(fault, where, 2)
    done = push(root)
    assert done.exit_code == 0, done.output
    assert layout.MANIFEST in hub.repositories["me/films"]
    assert sum(name.endswith(".tar") for name in hub.repositories["me/films"]) == 9


def test_a_push_that_ends_in_the_middle_resumes_and_shows_nothing_before(hub: Hub, root: Path) -> None:
    real = on_hub.Repository.commit
    done = []

    def breaks(self: on_hub.Repository, *arguments: object) -> None:
        done.append(arguments)
        if len(done) == 4:
            raise KeyboardInterrupt
        real(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(on_hub.Repository, "commit", breaks)
        assert push(root).exit_code != 0
    assert layout.MANIFEST not in hub.repositories["me/films"]
    assert sum(name.endswith(".tar") for name in hub.repositories["me/films"]) == 8
    before = hub.count("PUT /lfs/")
    again = push(root)
    assert "1 column of 3 shards" in again.output
    assert "8 are there" in again.output
    assert hub.count("PUT /lfs/") - before <= 2 + 2  # its tar and index, catalog and facts
    assert layout.MANIFEST in hub.repositories["me/films"]


def test_what_cannot_be_pushed_is_one_sentence(
    hub: Hub, root: Path, tmp_path: Path, write_data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "write hf://datasets/OWNER/NAME" in push(root, url="hf://me/films").output
    hub.repositories["me/films"] = {".gitattributes": b"", "train.csv": b"a"}
    assert "is not empty and not openuni's: it holds train.csv" in push(root).output
    del hub.repositories["me/films"]
    assert push(root).exit_code == 0
    other = write_data_set(tmp_path / "other", 1, 2)
    manifest = Manifest({"source": "other"}, verify.manifest(other).columns, 2, 1, "")
    (other / layout.MANIFEST).write_bytes(layout.dump_checked(manifest))
    describe(other, "run")
    assert "me/films holds another dataset" in push(other).output
    tar = root / layout.tar_name(0, "rgb")
    tar.write_bytes(b"x" * tar.stat().st_size)
    del hub.repositories["me/films"][layout.tar_name(0, "rgb")]
    assert f"{tar} is not what its commit record says" in push(root).output
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    refused = push(root)
    assert "cannot be had from the hub" in refused.output
    assert len(refused.output.strip().splitlines()) == 1


def test_more_files_than_the_hub_takes_are_refused_before_anything_is_sent() -> None:
    def files(shards: int, names: tuple[str, ...], naming: str | None) -> list[str]:
        return [name for shard in range(shards) for column in names
                for name in (layout.tar_name(shard, column, naming), layout.index_name(shard, column, naming),
                             layout.commit_name(shard, column, naming))]  # fmt: skip

    six = ("rgb", "depth", "flow", "segmentation", "densepose", "skeleton")
    manifest = Manifest({}, dict.fromkeys(six, "x-1"), 10**6, 5000, "")
    on_hub.check_counts(Path("d"), manifest, files(5000, six, layout.FOLDERS))
    with pytest.raises(PlanError, match=r"has 12,000 files in shards/, and the hub wants .* \(--shard-bytes"):
        on_hub.check_counts(Path("d"), manifest, files(2000, six, None))
    with pytest.raises(PlanError, match=r"has 108,000 files, and the hub wants fewer than 100,000 in a repository"):
        on_hub.check_counts(Path("d"), manifest, files(6000, six, layout.FOLDERS))
