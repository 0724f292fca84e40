"""A bucket that misbehaves: what was put is whole and counted once, or there is one sentence and nothing."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import openuni
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.shards import bucket, catalog, columns, layout, lease, verify
from openuni.shards.lock import HeldError, Holder
from openuni.shards.parts import Part
from openuni.storage import MARKER, LocalStore, is_object_url, objects, open_store
from openuni.storage.objects import ObjectStore
from tests.s3 import BUCKET, Server

URL = f"s3://{BUCKET}/d"
Write = Callable[..., Path]


@pytest.fixture
def store(s3: Server) -> ObjectStore:
    return ObjectStore(URL)


@pytest.fixture
def root(tmp_path: Path, write_data_set: Write) -> Path:
    return write_data_set(tmp_path / "data")


def test_a_store_is_what_every_store_is(store: ObjectStore) -> None:
    store.put("a/x", b"12345", "run")
    with store.create("a/y", "run") as file:
        file.write(b"abc")
    assert store.list("a") == ["a/x", "a/y"]
    assert store.list("nothing") == []
    assert (store.size("a/x"), store.exists("a/x"), store.exists("a")) == (5, True, False)
    assert store.read("a/x", at_most=5) == b"12345"
    assert pickle.loads(pickle.dumps(store)).read_range("a/x", 1, 3) == b"234"  # noqa: S301
    for offset, size in ((3, 3), (9, 1)):
        with pytest.raises(CorruptDataError, match=r"ends before byte"):
            store.read_range("a/x", offset, size)
    with pytest.raises(CorruptDataError, match="has more than 4 bytes"):
        store.read("a/x", at_most=4)
    with pytest.raises(FileExistsError):
        store.put("a/x", b"other", "run", create_only=True)
    with pytest.raises(FileNotFoundError):
        store.read("a/z", at_most=9)
    store.delete("a/x")
    store.delete("a/x")
    assert store.list("a") == ["a/y"]
    assert isinstance(open_store(URL), ObjectStore)
    assert not is_object_url("s3:/bucket/typed-wrongly")


@pytest.mark.parametrize("fault", ["503", "cut", "slow"])
def test_a_column_gets_there_once_through_a_server_that_fails_now_and_then(
    s3: Server, store: ObjectStore, root: Path, tmp_path: Path, fault: str
) -> None:
    """`cut`: the put is done and its answer lost, so the next try meets what the first has created."""
    for column in ("rgb", "depth"):
        s3.misbehave(fault, "PUT", 2)
        record = bucket.push(store, root, 0, column)
        assert s3.times == 0
        assert record == columns.committed(root, 0, column)
        assert bucket.pull(store, 0, column, tmp_path / "back", "run") == record
    assert not verify.verify_column(root, 0, "rgb").problems
    assert len(store.list("shards/000")) == 2


def test_a_server_that_is_gone_is_one_sentence(s3: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "RETRY_SECONDS", 1.0)
    store = ObjectStore(URL)
    s3.misbehave("503", "PUT", 10**6)
    with pytest.raises(OpenUniError, match=r"cannot be reached .* run the same command again"):
        bucket.push(store, root, 0, "rgb")
    s3.misbehave("", "", 0)
    assert bucket.committed(store) == set()
    bucket.push(store, root, 0, "rgb")
    assert bucket.committed(store) == {(0, "rgb")}


def test_a_store_is_asked_again_as_long_as_is_said_not_ten_times(
    s3: Server, monkeypatch: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    """The library's own ten retries were over in two seconds: any short outage ended a build."""
    monkeypatch.setattr(objects, "_RETRY_WAITS", (0.001, 0.01))
    patient = ObjectStore(URL)
    s3.misbehave("503", "", 60)
    patient.put("x", b"data", "run", create_only=True)
    s3.misbehave("503", "", 60)
    assert patient.read("x", at_most=10) == b"data"
    assert s3.times == 0


def test_who_waits_for_a_server_that_does_not_answer_is_told(
    s3: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ObjectStore(URL)
    assert not caplog.records
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ObjectStore(URL)
    assert "http://127.0.0.1:9 does not answer" in caplog.text


def test_a_wrong_bucket_and_missing_rights_are_one_sentence(s3: Server, store: ObjectStore) -> None:
    with pytest.raises(PlanError, match="there is no bucket nobodys; make it, or correct s3://nobodys/d"):
        bucket.claim(ObjectStore("s3://nobodys/d"))
    s3.misbehave("refuse", "PUT", 9)
    with pytest.raises(PlanError, match=r"/d/\.openuni is refused to these credentials \(403 AccessDenied\); ask"):
        bucket.claim(store)
    s3.misbehave("skew", "GET", 9)
    with pytest.raises(PlanError, match="is refused: this machine's clock is wrong; set it"):
        openuni.open(URL)
    s3.misbehave("skew", "", 9)  # also where a HEAD comes first, whose answer says nothing
    with pytest.raises(PlanError, match="is refused: this machine's clock is wrong; set it"):
        bucket.claim(store)
    s3.misbehave("", "", 0)
    store.put("x", b"data", "run")
    s3.misbehave("refuse", "HEAD", 9)
    with pytest.raises(PlanError, match=r"/x is refused to these credentials \(403 Forbidden\); ask"):
        store.exists("x")
    for url in ("s3://", "s3:///d"):
        with pytest.raises(PlanError, match="names no bucket"):
            ObjectStore(url)


def test_a_store_that_creates_over_what_is_there_is_refused(s3: Server, store: ObjectStore) -> None:
    s3.misbehave("overwrite", MARKER, 9)
    with pytest.raises(PlanError, match="ignores If-None-Match"):
        bucket.claim(store)


def test_a_strangers_prefix_is_refused(store: ObjectStore) -> None:
    store.put("work/thesis.tex", b"years of work", "run")
    with pytest.raises(PlanError, match=r"is not empty and not openuni's: it holds work/thesis\.tex"):
        bucket.claim(store)
    assert store.list("") == []


def test_bytes_that_changed_in_the_bucket_are_named(store: ObjectStore, root: Path, tmp_path: Path) -> None:
    record = bucket.push(store, root, 0, "rgb")
    tar = layout.tar_at(record, layout.HASHED)
    data = bytearray(store.read(tar, at_most=1 << 30))
    data[600] ^= 1
    store.put(tar, bytes(data), "vandal")
    with pytest.raises(CorruptDataError, match=f"{tar} is not what its commit record says"):
        bucket.pull(store, 0, "rgb", tmp_path / "back", "run")
    assert not (tmp_path / "back" / layout.tar_name(0, "rgb")).exists()


def test_the_reader_opens_it_in_three_requests_also_as_a_copy_in_a_folder(
    s3: Server, store: ObjectStore, root: Path, tmp_path: Path
) -> None:
    manifest = verify.manifest(root)
    named = replace(manifest, configuration={**manifest.configuration, layout.NAMING: layout.HASHED})
    store.put(layout.MANIFEST, layout.dump_checked(named), "run")
    for shard in range(manifest.shards):
        for column in manifest.columns:
            bucket.push(store, root, shard, column)
    bucket.describe(store, manifest, "run")
    s3.asked.clear()
    far, near = openuni.open(URL), openuni.open(root)
    assert len(far) == len(near)
    assert len(s3.asked) == 3
    copied = tmp_path / "copied"
    for name in [name for folder in ("", "shards/000", "index/000", "commits") for name in store.list(folder)]:
        LocalStore(copied).put(name, store.read(name, at_most=1 << 30), "copy")
    for data in (far, openuni.open(copied)):
        assert list(data.keys()) == list(near.keys())
        assert (data[0].depth.values == near[0].depth.values).all()
    assert catalog.read(store, manifest, layout.digest(store.read(layout.MANIFEST, at_most=1 << 20))) is not None


def test_a_lease_of_another_machine_is_watched_and_taken_when_it_is_silent(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    part, name = Part.parse("1/2"), "leases/1-of-2.json"
    theirs = lease.Lease(Holder("theirs", "another-host", 1, "x"))
    store.put(name, layout.dump_json(theirs), "theirs")
    stop = threading.Event()

    def beat() -> None:
        number = 0
        while not stop.wait(0.05):
            number += 1
            store.put(name, layout.dump_json(replace(theirs, beat=number)), "theirs")

    living = threading.Thread(target=beat)
    living.start()
    with pytest.raises(HeldError, match=r"by run theirs .* on another-host"), lease.holding(store, "mine", part):
        pytest.fail("the lease of the living was taken")
    with lease.holding(store, "mine", Part.parse("2/2")):
        assert set(lease.all_leases(store)) == {"1-of-2", "2-of-2"}
    stop.set()
    living.join()
    with lease.holding(store, "mine", part):
        deadline = time.monotonic() + 60
        while lease.all_leases(store)["1-of-2"].beat == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert lease.all_leases(store)["1-of-2"].holder.run == "mine"
    assert store.list("leases") == []
