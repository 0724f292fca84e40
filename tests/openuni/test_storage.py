"""The store of a folder that is somebody else's: no link is passed, no pipe waited for, no size believed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from openuni import storage
from openuni.errors import CorruptDataError, PlanError
from openuni.shards import layout
from openuni.shards.lock import RunLock
from openuni.storage import LocalStore, open_store


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a precious file, beside the store."""
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    (tmp_path / "outside" / "precious").write_text("precious")
    (tmp_path / "outside" / "inner" / "photo.jpg").write_text("photo")
    return tmp_path / "outside"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    (tmp_path / "root").mkdir()
    return LocalStore(tmp_path / "root")


def untouched(outside: Path) -> bool:
    names = sorted(str(path.relative_to(outside)) for path in outside.rglob("*"))
    return names == ["inner", "inner/photo.jpg", "precious"] and (outside / "precious").read_text() == "precious"


def test_what_is_put_comes_back_whole_and_in_ranges(store: LocalStore) -> None:
    store.put("a/b/c", b"0123456789", "run")
    assert store.read("a/b/c", at_most=10) == b"0123456789"
    assert store.read_range("a/b/c", 3, 4) == b"3456"
    assert (store.size("a/b/c"), store.list("a/b"), store.exists("a/x")) == (10, ["a/b/c"], False)
    with pytest.raises(FileExistsError):
        store.put("a/b/c", b"another", "run", create_only=True)
    store.put("a/b/c", b"new", "run")
    assert store.read("a/b/c", at_most=10) == b"new"
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert [path.name for path in store.root.rglob("*")] == ["a", "b"]
    with pytest.raises(FileNotFoundError):
        store.read("a/b/c", at_most=10)


def test_of_two_writers_that_may_only_create_one_wins(store: LocalStore) -> None:
    won: list[int] = []

    def race(number: int) -> None:
        try:
            store.put("commits/x", str(number).encode(), f"r{number}", create_only=True)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("commits/x", at_most=9) == str(*won).encode()
    assert [path.name for path in store.root.rglob("*")] == ["commits", "x"]


def test_a_writer_that_fails_leaves_what_was_there(store: LocalStore) -> None:
    store.put("x", b"old", "run")
    with pytest.raises(ValueError, match="half way"), store.create("x", "run") as file:
        assert not file.write(b"half") or int("half way")
    assert store.read("x", at_most=9) == b"old"
    assert [path.name for path in store.root.iterdir()] == ["x"]


def test_a_full_disk_names_the_file_and_leaves_what_was_there(store: LocalStore) -> None:
    """A quota on the size of files stands for the disk: it needs no privilege."""
    code = (
        "import resource, sys; from pathlib import Path; from openuni.storage import LocalStore;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "LocalStore(Path(sys.argv[1])).put('a/x', b'new' * 5000, 'run')"
    )
    store.put("a/x", b"old", "run")
    done = subprocess.run([sys.executable, "-c", code, store.root], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == f"OSError: [Errno 27] File too large: '{store.root / 'a/x'}'"
    assert store.read("a/x", at_most=9) == b"old"
    assert [path.name for path in store.root.rglob("*")] == ["a", "x"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a/", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(store: LocalStore, name: str) -> None:
    for act in (store.exists, store.size, store.delete, store.delete_folder, store.list, store.append):
        with pytest.raises(CorruptDataError, match="is not the name of a file"):
            act(name)
    with pytest.raises(CorruptDataError, match="is not the name of a file"):
        store.put(name, b"x", "run")


@pytest.mark.parametrize("where", ["folder", "folder/deeper"])
def test_no_link_on_the_way_is_passed_in_writing_or_deleting(store: LocalStore, outside: Path, where: str) -> None:
    (store.root / where).parent.mkdir(exist_ok=True)
    (store.root / where).symlink_to(outside)
    for act in (
        lambda: store.put(f"{where}/new", b"x", "run"),
        lambda: store.append(f"{where}/precious"),
        lambda: store.delete(f"{where}/precious"),
        lambda: store.delete_folder(f"{where}/inner"),
        lambda: store.make_folder(f"{where}/made"),
    ):
        with pytest.raises(PlanError, match=r"is a link to .*nothing is written through links"):
            act()
    store.sweep(("", "folder"))
    store.delete_folder(where)  # the link itself is not a folder of ours
    assert untouched(outside)


def test_a_linked_file_is_replaced_or_refused_and_its_target_stays(store: LocalStore, outside: Path) -> None:
    for name in ("put", "append", "delete"):
        (store.root / name).symlink_to(outside / "precious")
    store.put("put", b"mine", "run")
    assert (store.root / "put").read_bytes() == b"mine"
    with pytest.raises(PlanError, match="is a link"):
        store.append("append")
    with pytest.raises(PlanError, match="is a link"), store.guard("append"):
        pytest.fail("a link was locked")
    store.delete("delete")
    assert not (store.root / "delete").is_symlink()
    assert untouched(outside)


def test_links_of_ones_own_are_followed_where_asked_for(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "shards").symlink_to(tmp_path / "disk")
    LocalStore(tmp_path / "root", follow_links=True).put("shards/x", b"x", "run")
    assert (tmp_path / "disk" / "x").read_bytes() == b"x"
    assert LocalStore(tmp_path / "root").read("shards/x", at_most=9) == b"x"


@pytest.mark.timeout(20)
def test_pipes_devices_and_folders_are_not_waited_for(store: LocalStore) -> None:
    os.mkfifo(store.root / "pipe")
    (store.root / "zero").symlink_to("/dev/zero")
    (store.root / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        for act in (store.size, lambda name: store.read(name, at_most=9), lambda name: store.read_range(name, 0, 1)):
            with pytest.raises(CorruptDataError, match=f"{name} is not a regular file"):
                act(name)
    with pytest.raises(OSError, match="No such device"), store.append("pipe"):  # nobody reads it
        pytest.fail("a pipe was written to")
    with pytest.raises(PlanError, match="pipe is not a regular file"), store.guard("pipe"):
        pytest.fail("a pipe was locked")


def test_a_size_is_known_before_memory_is_taken(store: LocalStore) -> None:
    with (store.root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptDataError, match="more than such a file ever has"):
        store.read("sparse", at_most=storage.DOCUMENT)
    store.put("small", b"small", "run")
    for offset, size in ((0, 6), (1 << 60, 1), (-1, 2), (0, 1 << 60), (2, -1)):
        with pytest.raises(CorruptDataError, match="ends at 5"):
            store.read_range("small", offset, size)
    with store.open("small") as file:
        assert file.read(1 << 60) == b"small"


def test_a_url_reads_and_says_that_it_does_not_write(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/d/f/x", b"12345")
    remote = open_store("memory://d")
    assert (remote.read("f/x", at_most=5), remote.read_range("f/x", 1, 2)) == (b"12345", b"23")
    assert (remote.list("f"), remote.list("g"), remote.size("f/x")) == (["f/x"], [], 5)
    with pytest.raises(CorruptDataError, match="more than 4 bytes"):
        remote.read("f/x", at_most=4)
    with pytest.raises(CorruptDataError, match="ends before byte 9"):
        remote.read_range("f/x", 4, 5)
    with pytest.raises(PlanError, match="read only"):
        remote.put("x", b"", "run")
    with pytest.raises(PlanError, match="cannot be opened"):
        open_store("nonesuch://d")
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store(f"file://{tmp_path}"), LocalStore)


STRANGERS = [["thesis.txt"], [".draft.tmp"], ["commits/mine.json"], ["a/b"], ["dataset.json"], ["run.lock", "notes"]]


@pytest.mark.parametrize("names", STRANGERS, ids=str)
def test_a_folder_with_other_files_is_refused_before_any_lock_and_stays_as_it_is(
    tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"labels": []}')
    before = sorted(tmp_path.rglob("*"))
    for claim in (storage.claim, lambda root: RunLock(root, "run").__enter__()):
        with pytest.raises(PlanError, match=r"is not empty and not .* choose a new or an empty folder"):
            claim(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_missing_empty_or_ours_is_taken(tmp_path: Path) -> None:
    root = tmp_path / "new" / "folder"
    assert storage.claim(root)
    (root / "anything").write_text("x")
    assert not storage.claim(root)
    (tmp_path / "killed").mkdir()  # a run that was killed while it took its lock
    for name in ("run.lock", ".run.lock", ".run.lock.20260101T000000-abc.0011aabb.tmp"):
        (tmp_path / "killed" / name).write_text("")
    assert storage.claim(tmp_path / "killed")
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)  # the root of a new disk
    (tmp_path / "disk" / ".DS_Store").write_text("")
    assert storage.claim(tmp_path / "disk")
    (tmp_path / "before").mkdir()  # a dataset from before there was a marker
    (tmp_path / "before" / layout.MANIFEST).write_text('{"clips": 1, "openuni": "0.1.0"}')
    assert not storage.claim(tmp_path / "before")
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match=r"file cannot be written: .*is a file"):
        storage.claim(tmp_path / "file")
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "predictions.json").write_text("{}")
    assert not storage.claim(tmp_path / "older", marks=["predictions.json"])


def test_a_link_in_a_folder_of_ours_is_named_before_any_lock(tmp_path: Path, outside: Path) -> None:
    storage.claim(tmp_path / "d")
    (tmp_path / "d" / "shards").symlink_to(outside)
    with pytest.raises(PlanError, match="d/shards is a link"), RunLock(tmp_path / "d", "run"):
        pytest.fail("it was taken")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [".openuni", "shards"]


def test_a_path_below_a_folder_of_ours_passes_no_link_and_one_that_the_user_named_may(
    tmp_path: Path, outside: Path
) -> None:
    root = tmp_path / "d"
    storage.claim(root)
    (root / "truth").mkdir()
    (root / "truth" / "key").symlink_to(outside)
    with pytest.raises(PlanError, match="truth/key is a link"):
        storage.write_atomic(root / "truth" / "key" / "camera.npz", b"x", "run")
    (tmp_path / "named").symlink_to(root)
    storage.write_atomic(tmp_path / "named" / "truth" / "other" / "camera.npz", b"x", "run")
    assert (root / "truth" / "other" / "camera.npz").read_bytes() == b"x"
    (tmp_path / "mine").symlink_to(tmp_path / "plain")
    (tmp_path / "plain").mkdir()
    storage.write_atomic(tmp_path / "mine" / "sheet.png", b"x", "run")
    assert (tmp_path / "plain" / "sheet.png").exists()
    assert untouched(outside)


def test_a_default_place_in_a_folder_of_somebody_elses_is_no_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "predictions").mkdir()
    storage.claim(outside / "report")  # a report of one's own, which must not be overwritten
    (tmp_path / "predictions" / "score").symlink_to(outside / "report")
    with pytest.raises(PlanError, match="score is a link"):
        storage.claim(tmp_path / "predictions" / "score", below=tmp_path / "predictions")
    (tmp_path / "predictions" / "score").unlink()
    assert storage.claim(tmp_path / "predictions" / "score", below=tmp_path / "predictions")


def test_the_sweep_takes_only_what_is_named_as_ours(tmp_path: Path) -> None:
    ours = [".dataset.json.20260101T000000-abcdef.00112233.tmp", "shards/.000000.rgb.tar.run.0a.tmp"]
    theirs = [".draft.tmp", ".tmp", "shards/.x.tmp", "x.tmp", "shards/.~lock.tar.tmp", "other/.a.b.00112233.tmp"]
    for name in [*ours, *theirs]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    layout.sweep(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(theirs)


def test_the_sweep_goes_through_the_folders_that_a_command_names(tmp_path: Path) -> None:
    left = ["video/a/.a.mp4.generate.00112233.tmp", "checkpoints/.00000004.train.00.tmp/weights/x"]
    kept = ["video/a/a.mp4", "other/.a.b.00112233.tmp"]
    for name in [*left, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    layout.sweep(tmp_path, ["video", "checkpoints", "missing"])
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
