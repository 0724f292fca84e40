"""Every command that changes a dataset, on one with more shards than a folder takes: each file lies where it should.

A folder takes two shards here. `flat`: a dataset of the time when all shards lay in one; it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import openuni
from openuni.shards import catalog, layout, revisions, verify
from openuni.storage import MARKER
from openuni.storage.objects import ObjectStore
from tests.openuni_pipelines.engine.test_bucket import line, run
from tests.s3 import BUCKET, Server

pytestmark = pytest.mark.usefixtures("toys")
URL = f"s3://{BUCKET}/d"
Digests = Callable[[Path], dict[str, str]]


def plain(files: dict[str, str]) -> dict[str, str]:
    """Digests of tars and indices by name, wherever they lie."""
    return {name.rpartition("/")[2]: made for name, made in files.items() if name.startswith(("shards/", "index/"))}


@pytest.mark.parametrize("naming", [layout.FOLDERS, None], ids=["folders", "flat"])
def test_a_large_dataset_is_changed_in_place(
    naming: str | None,
    s3: Server,
    tmp_path: Path,
    make_clips: Callable[..., Path],
    digests: Digests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lies_right() -> None:
        """Every tar, index and record lies where `layout` says, and nowhere else."""
        for folder, name_of in (
            ("shards", layout.tar_name),
            ("index", layout.index_name),
            ("commits", layout.commit_name),
        ):
            there = {path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()}
            made = verify.manifest(root)
            assert there == {name_of(n, column, naming) for n in range(made.shards) for column in made.columns}
        assert layout.naming_of(root) == naming
        assert "are as committed" in run(["openuni", "verify", str(root)])

    videos, root = make_clips(tmp_path / "v", [f"clip-{letter}" for letter in "cdefg"]), tmp_path / "d"
    words = line(videos, root, "--experts", "toy_thermal,toy_depth", "--shard-size", 1)
    monkeypatch.setattr(layout, "PER_FOLDER", 2 if naming else 1000)
    run(words)
    monkeypatch.setattr(layout, "PER_FOLDER", 2)
    lies_right()
    assert (root / "shards" / "002" / "000004.rgb.tar").exists() == bool(naming)
    built = digests(root)

    make_clips(videos, ["clip-a"])
    run([*words, "--extend"])
    lies_right()
    assert plain(built).items() <= plain(digests(root)).items()  # no file was moved or changed
    run(["openuni", "drop", str(root), "depth"])
    lies_right()
    run(["openuni", "add", str(root), "toy_depth", "--workers", "0", "--min-free", "0"])
    lies_right()
    assert plain(built).items() <= plain(digests(root)).items()
    tar = root / layout.tar_name(4, "depth", naming)
    whole = tar.read_bytes()
    tar.write_bytes(whole[:600] + b"x" + whole[601:])
    run(["openuni", "verify", str(root), "--repair", "--workers", "0", "--min-free", "0"])
    assert tar.read_bytes() == whole
    run(["openuni", "remove", str(root), "--key", openuni.open(root)[4].key, "--reason", "asked"])
    lies_right()
    assert len(openuni.open(root)) == 5
    (root / catalog.HEAD).unlink()
    run(["openuni", "index", str(root)])
    run(["openuni", "export", str(root), "--out", str(tmp_path / "merged")])
    assert sum(path.suffix == ".tar" for path in (tmp_path / "merged").rglob("*")) in (5, 6)

    run(["openuni", "push", str(root), URL])
    assert "0 columns" in run(["openuni", "push", str(root), URL])
    revisions = openuni.open(URL).store.list("revisions")
    assert revisions == ["revisions/000001.done", "revisions/000001.json"]  # the same dataset again is no change
    run(["openuni", "pull", URL, str(tmp_path / "back")])
    back, here = digests(tmp_path / "back"), digests(root)
    assert plain(back) == plain(here)
    assert layout.naming_of(tmp_path / "back") == layout.FOLDERS
    if naming:
        assert {name for name in back if name != MARKER} == set(here) - {MARKER}


@pytest.mark.parametrize("naming", [layout.HASHED_FOLDERS, layout.HASHED], ids=["folders", "flat"])
def test_a_large_dataset_in_a_bucket_has_no_large_folder(
    naming: str, s3: Server, tmp_path: Path, make_clips: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built in parts, verified, and changed by a run that is killed before it publishes; `flat` stays as it is."""
    videos, store = make_clips(tmp_path / "v", [f"c{number}" for number in range(4)] + ["raise-1"]), ObjectStore(URL)

    def words(verb: str, *more: object) -> list[str]:
        own = ("--experts", "toy_poison", "--shard-size", 1, "--staging", tmp_path / "s")
        return line(videos, URL, *own, *more, verb=verb)

    def records(folder: str, columns: Iterable[str]) -> set[str]:
        return {layout.commit_name(n, column, naming, folder) for n in range(5) for column in columns}

    monkeypatch.setattr(layout, "PER_FOLDER", 2 if naming == layout.HASHED_FOLDERS else 1000)
    run(words("plan"))
    monkeypatch.setattr(layout, "PER_FOLDER", 2)
    run(words("build", "--part", "1/2"), status=3)
    assert f"{URL} is not finished" in run(["openuni", "index", URL], status=1)
    run(words("build", "--part", "2/2"))
    made = openuni.open(URL)
    assert layout.naming(made.manifest) == naming
    assert set(store.walk("commits")) == records("commits", made.manifest.columns)
    assert {name.rpartition("/")[0] for name in store.walk("failures")} == {"failures/002"}
    assert "are as committed" in run(["openuni", "verify", URL])
    store.delete(catalog.HEAD)
    assert len(openuni.open(URL)) == 5  # from the records
    assert "10 commit records" in run(["openuni", "index", URL])
    s3.asked.clear()
    assert len(openuni.open(URL)) == 5
    assert len(s3.asked) == 3

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    add = ["openuni", "add", URL, "toy_depth", "--workers", "0", "--min-free", "0", "--staging", str(tmp_path / "c")]
    with monkeypatch.context() as patched:
        patched.setattr(revisions, "publish", killed)
        run(add, status=130)
    (folder,) = {"/".join(name.split("/")[:2]) for name in store.walk("changes")}
    assert set(store.walk(folder)) == records(folder, ["depth"])
    s3.asked.clear()
    run(add, status=3)  # of the failure that it was built with
    assert not any(method == "PUT" and "/shards/" in path for method, path in s3.asked)  # all of it was there
    assert "are as committed" in run(["openuni", "verify", URL])
    assert openuni.open(URL).columns == ["rgb", "thermal", "depth"]
    assert set(store.walk("commits")) | set(store.walk("changes")) == set()
