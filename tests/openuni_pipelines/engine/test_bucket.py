"""Building into an object store: the same columns as in a folder, whoever is killed, and one winner a record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import openuni
from openuni.shards import bucket, catalog, columns, layout
from openuni.storage.objects import ObjectStore
from openuni_pipelines.cli import openuni as command
from openuni_pipelines.engine import stages
from tests.s3 import BUCKET, Server

pytestmark = pytest.mark.usefixtures("toys")
URL = f"s3://{BUCKET}/sets/d"
NAMES = [f"c{number:02d}" for number in range(5)] + ["raise-1"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Path]) -> Path:
    return make_clips(tmp_path_factory.mktemp("videos"), NAMES)


def line(videos: Path, out: object, *more: object, verb: str = "build") -> list[str]:
    options = ("--source", "toy", "--videos", videos, "--out", out, "--experts", "toy_poison,toy_depth")
    own = ("--shard-size", 2, "--workers", 0, "--min-free", 0)
    return [str(Path(sys.executable).with_name("openuni")), verb, *map(str, (*options, *own, *more))]


def run(words: list[str], status: int = 0) -> str:
    done = CliRunner().invoke(command, words[1:])
    assert done.exit_code == status, done.output
    return done.output


def assert_same(store: ObjectStore, local: Path) -> None:
    """Every column has the bytes of the local build: tar, index, and the record but for its run."""
    there = openuni.open(local)
    for shard in there.shards:
        for column, record in shard.columns.items():
            assert (
                store.read(layout.tar_at(record, layout.HASHED), at_most=1 << 30)
                == (local / layout.tar_name(shard.number, column)).read_bytes()
            )
            far = json.loads(store.read(layout.commit_name(shard.number, column), at_most=1 << 20))
            near = json.loads((local / layout.commit_name(shard.number, column)).read_bytes())
            assert {**far, "run": "", "checksum": ""} == {**near, "run": "", "checksum": ""}
    assert store.read("catalog.parquet", at_most=1 << 30) == (local / "catalog.parquet").read_bytes()
    assert store.read(layout.FAILURES, at_most=1 << 30) == (local / layout.FAILURES).read_bytes()


def test_a_bucket_holds_what_a_folder_would(s3: Server, videos: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    run(line(videos, local), status=3)
    staging = tmp_path / "staging"
    run(line(videos, URL, "--staging", staging, verb="plan"))
    words = line(videos, URL, "--staging", staging)
    assert "other parts are not through yet" in run([*words, "--part", "1/2"], status=3)
    assert "next: openuni verify s3://" in run([*words, "--part", "2/2"])
    assert_same(ObjectStore(URL), local)
    assert not list(staging.rglob("*.tar"))
    assert "are as committed" in run(["openuni", "verify", URL])
    assert "complete" in run(["openuni", "status", URL])
    near, far = openuni.open(local), openuni.open(URL)
    assert list(far.keys()) == list(near.keys())
    assert (far["c01"].depth.values == near["c01"].depth.values).all()
    stats = [json.loads(run(["openuni", "stats", str(place), "--json", "--rows", "0"])) for place in (URL, local)]
    assert stats[0] == stats[1]
    s3.asked.clear()
    len(openuni.open(URL))
    assert len(s3.asked) == 3


def test_of_two_drivers_one_is_told_who_works(s3: Server, videos: Path, tmp_path: Path) -> None:
    """The other takes over when the first is killed: by its process on this machine, by its beat on another."""
    local = tmp_path / "local"
    run(line(videos, local), status=3)
    slow = os.environ | {"OPENUNI_TOY_SLEEP": "0.4"}
    first = subprocess.Popen(line(videos, URL, "--staging", tmp_path / "a"), env=slow, stderr=subprocess.DEVNULL)
    store = ObjectStore(URL)
    try:
        while not bucket.committed(store):
            assert first.poll() is None
            time.sleep(0.05)
        told = run(line(videos, URL, "--staging", tmp_path / "b"), status=1)
        assert "is being written by run 2" in told
        assert f"(process {first.pid} on " in told
        assert "whole: run" in run(["openuni", "status", URL])
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before = {name: store.read(name, at_most=1 << 20) for name in store.list("commits")}
    run(line(videos, URL, "--staging", tmp_path / "b"), status=3)
    assert before.items() <= {name: store.read(name, at_most=1 << 20) for name in store.list("commits")}.items()
    assert_same(store, local)
    assert store.list("leases") == []


def test_a_driver_that_is_killed_again_and_again_ends_in_the_same_bytes(
    s3: Server, videos: Path, tmp_path: Path
) -> None:
    """Six kills at moments that the bucket's state names, half of them with the staging folder lost as well."""
    local, store = tmp_path / "local", ObjectStore(URL)
    run(line(videos, local), status=3)
    slow = os.environ | {"OPENUNI_TOY_SLEEP": "0.05", "OPENUNI_TOY_LINGER": "0.1"}
    for number in range(6):
        words = line(videos, URL, "--staging", tmp_path / f"staging{number // 2}")
        s3.asked.clear()
        driver = subprocess.Popen(words, env=slow, stderr=subprocess.DEVNULL)
        puts = 2 + 4 * number
        while driver.poll() is None and sum(method == "PUT" for method, _ in s3.asked) < puts:
            time.sleep(0.005)
        driver.kill()
        driver.wait()
    run(line(videos, URL, "--staging", tmp_path / "staging2"), status=3)
    assert_same(store, local)
    assert "are as committed" in run(["openuni", "verify", URL])


def test_of_two_versions_the_first_record_counts_and_the_rest_follows_its_rgb(
    s3: Server, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another library version stores other bytes: its driver loses, says who won, and annotates the winner's clips."""
    theirs, store = tmp_path / "theirs", ObjectStore(URL)
    normalise, push = stages.normalise, bucket.push
    with monkeypatch.context() as patched:
        patched.setattr(
            stages, "normalise", lambda *args: replace(v := normalise(*args), mp4=v.mp4 + b"\0\0\0\x08free")
        )
        run(line(videos, theirs), status=3)

    def late(store: ObjectStore, root: Path, shard: int, column: str, folder: str) -> layout.CommitRecord:
        """The other driver commits the RGB of shard 1 in the moment before we do."""
        if (shard, column) == (1, "rgb") and not store.exists(layout.commit_name(1, "rgb")):
            push(store, theirs, 1, "rgb")
        return push(store, root, shard, column, folder)

    monkeypatch.setattr(bucket, "push", late)
    run(line(videos, URL, "--staging", tmp_path / "staging"), status=3)
    log = [json.loads(row) for row in (tmp_path / "staging" / layout.LOG).read_text().splitlines()]
    (beaten,) = [row for row in log if row["event"] == "fault" and row["kind"] == "beaten"]
    won = catalog.commit_record(store, layout.commit_name(1, "rgb"))
    assert won is not None
    assert f"was committed by run {won.run} first" in beaten["error"]
    assert won == columns.committed(theirs, 1, "rgb")
    tars = [name for name in store.list("shards/000") if ".rgb." in name]
    assert len(tars) == 3  # the loser's is gone
    assert "are as committed" in run(["openuni", "verify", URL])
    assert push(store, theirs, 1, "rgb") == won  # a put whose answer was lost finds itself


def test_what_a_bucket_cannot_do_is_one_sentence(s3: Server, videos: Path, tmp_path: Path) -> None:
    words = line(videos, URL, "--staging", tmp_path / "s")
    assert "they take no --part" in run([*words, "--retry-failed", "--part", "1/2"], status=1)
    assert "has no plan that could be divided" in run([*words, "--part", "1/2"], status=1)
    assert "--staging is for an --out in an object store" in run(
        line(videos, tmp_path / "d", "--staging", "x"), status=1
    )
    assert "neither a folder nor s3://" in run(line(videos, "ftp://x/y"), status=2)
    assert f"{URL} is not a dataset" in run(["openuni", "verify", URL], status=1)


@pytest.mark.slow
def test_ray_workers_put_the_same_bytes(s3: Server, videos: Path, tmp_path: Path) -> None:
    run(line(videos, tmp_path / "local"), status=3)
    words = [*line(videos, URL, "--staging", tmp_path / "staging"), "--workers", "2"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert_same(ObjectStore(URL), tmp_path / "local")


@pytest.mark.slow
def test_ray_workers_change_a_bucket_to_the_same_bytes(s3: Server, videos: Path, tmp_path: Path) -> None:
    run(line(videos, tmp_path / "local"), status=3)
    run(line(videos, URL, "--staging", tmp_path / "staging"), status=3)
    words = [*line(videos, URL)[:1], "add", "", "toy_thermal", "--min-free", "0"]
    run([*words[:2], str(tmp_path / "local"), *words[3:], "--workers", "0"])
    far = [*words[:2], URL, *words[3:], "--workers", "2", "--staging", str(tmp_path / "change")]
    done = subprocess.run(far, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there, store = openuni.open(tmp_path / "local"), ObjectStore(URL)
    assert "thermal" in there.manifest.columns
    assert list(openuni.open(URL).keys()) == list(there.keys())
    for shard in there.shards:
        for column, record in shard.columns.items():
            tar = (tmp_path / "local" / layout.tar_name(shard.number, column)).read_bytes()
            assert store.read(layout.tar_at(record, layout.HASHED), at_most=1 << 30) == tar
