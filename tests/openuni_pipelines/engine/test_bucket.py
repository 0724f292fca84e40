"""Building into an object store: the same columns as in a folder, whoever is killed, and one winner a record."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import openuni
from openuni.shards import layout
from openuni.storage.objects import ObjectStore
from openuni_pipelines.cli import openuni as command
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
