"""Changing a dataset in a bucket ends as the same change of a folder does, whoever is killed; nothing is left over."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import openuni
from openuni.shards import bucket, layout, lease, revisions, view
from openuni.shards.bucket import BeatenError
from openuni.shards.lock import HeldError
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine import revising
from tests.openuni_pipelines.engine.test_bucket import line, run
from tests.s3 import BUCKET, Server

pytestmark = pytest.mark.usefixtures("toys")
URL = f"s3://{BUCKET}/sets/d"
NAMES = [f"zoo{number:02d}" for number in range(5)] + ["raise-1"]
GONE = "zoo02"
RUN = ("--workers", "0", "--min-free", "0")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Path]) -> Path:
    return make_clips(tmp_path_factory.mktemp("videos"), [*NAMES, "zzz-new"])


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """The folder `source` with the videos, and the dataset `d` built from them, without the last."""
    folder = tmp_path_factory.mktemp("before")
    shutil.copytree(videos, folder / "source")
    (folder / "source" / "zzz-new.mp4").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "plugins"))
        run(line(folder / "source", folder / "d"), status=3)
    return folder


@dataclass(frozen=True)
class Change:
    """Words of a command that changes a dataset, and with which status it ends."""

    name: str
    words: tuple[str, ...]
    more: tuple[str, ...] = RUN
    status: int = 0
    puts: tuple[int, ...] = field(default=(1, 4))
    """Kills come after so many puts and deletions of the command."""

    def line(self, where: object, source: Path) -> list[str]:
        if self.name == "extend":
            return line(source, where, "--extend")
        return ["openuni", self.words[0], str(where), *self.words[1:], *self.more]


CHANGES = (
    Change("add", ("add", "dis"), status=3, puts=(3, 9, 14)),
    Change("upgrade", ("add", "toy_thermal"), puts=(9,)),
    Change("drop", ("drop", "depth"), (), puts=(2, 4)),
    Change("remove", ("remove", "--key", GONE, "--reason", "asked"), (), puts=(3, 8, 14)),
    Change("extend", ("build",), status=3, puts=(3, 9, 13)),
)


def far(source: Path, before: Path, tmp_path: Path) -> ObjectStore:
    """The dataset `before`, in the bucket."""
    store = ObjectStore(URL)
    shutil.copytree(before / "d", tmp_path / "local")
    run(line(source, URL, "--staging", tmp_path / "staged"), status=3)
    return store


def assert_same(store: ObjectStore, local: Path) -> None:
    """Every column, plan and record is the folder's, and the bucket holds nothing else."""
    now = revisions.current(store)
    assert now is not None
    there, near = openuni.open(URL), openuni.open(local)
    assert list(there.keys()) == list(near.keys())
    own = {layout.MANIFEST, layout.CARD, ".openuni"}
    expected = set(own)
    for shard in range(now.manifest.shards):
        for column in now.manifest.columns:
            record = now.records[shard, column]
            tar, index = bucket.names(record)
            expected |= {tar, index}
            for name, plain in ((tar, layout.tar_name(shard, column)), (index, layout.index_name(shard, column))):
                assert store.read(name, at_most=1 << 30) == (local / plain).read_bytes()
    manifests = [{**vars_of(one), "openuni": ""} for one in (now.manifest, near.manifest)]
    assert manifests[0] == manifests[1]
    for name in ("plan.parquet", "plan.0001.parquet", "catalog.parquet", layout.FAILURES):
        assert (name in now.files) == (local / name).exists(), name
        if name in now.files:
            assert store.read(now.files[name], at_most=1 << 30) == (local / name).read_bytes(), name
    derived = {now.facts}
    found = {name for name in store.walk() if not name.startswith("revisions/")}
    assert found - derived == expected | set(now.files.values())
    assert "are as committed" in run(["openuni", "verify", URL])


def vars_of(manifest: layout.Manifest) -> dict[str, object]:
    return {name: getattr(manifest, name) for name in layout.Manifest.__dataclass_fields__}


@pytest.fixture
def changed(before: Path, tmp_path: Path, videos: Path) -> Callable[[Change], Path]:
    """The folder after the change."""

    def apply(change: Change) -> Path:
        local = tmp_path / "local"
        new = before / "source" / "zzz-new.mp4"
        if change.name == "extend":
            shutil.copy(videos / "zzz-new.mp4", new)
        run(change.line(local, before / "source"), change.status)
        return local

    yield apply  # type: ignore[misc]
    (before / "source" / "zzz-new.mp4").unlink(missing_ok=True)


@pytest.mark.parametrize("soak", range(int(os.environ.get("OPENUNI_SOAK", "1"))))
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_change_that_is_killed_again_and_again_ends_as_that_of_a_folder(
    s3: Server, before: Path, tmp_path: Path, changed: Callable[[Change], Path], change: Change, soak: int
) -> None:
    """Killed by the puts and deletions that the bucket has seen; answers are lost, and at times the staging too."""
    store = far(before / "source", before, tmp_path)
    local = changed(change)
    staging = () if change.name == "drop" else ("--staging", str(tmp_path / "staging"))
    words = [*change.line(URL, before / "source"), *staging]
    words[0] = line(before, URL)[0]
    rng = random.Random(f"{change.name}/{soak}")
    moments = [rng.randrange(1, max(change.puts) + 4) for _ in change.puts] if soak else change.puts
    slow = os.environ | {"OPENUNI_TOY_SLEEP": "0.02"}
    for puts in moments:
        s3.asked.clear()
        s3.misbehave("cut", "PUT", rng.randrange(2))
        driver = subprocess.Popen(words, env=slow, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while driver.poll() is None and sum(method != "GET" and method != "HEAD" for method, _ in s3.asked) < puts:
            time.sleep(0.002)
        driver.kill()
        driver.wait()
        assert len(openuni.open(URL)) in (len(NAMES), len(openuni.open(local)))  # readers see before or after
        if rng.random() < 0.5:
            shutil.rmtree(tmp_path / "staging", ignore_errors=True)
    is_over = change.name in ("drop", "remove") and revisions.latest(store) and revisions.is_settled(store)
    if not is_over:  # else there is nothing left to ask for
        run(words, change.status)
        assert store.list("leases") == []
        assert not (tmp_path / "staging" / "change").exists()
    assert_same(store, local)


def test_a_removed_clip_is_in_no_object(s3: Server, before: Path, tmp_path: Path) -> None:
    store = far(before / "source", before, tmp_path)
    store.put("notes.txt", f"{GONE} is my favourite".encode(), "somebody")
    data = openuni.open(URL)
    payloads = [piece for name in ("rgb", "depth") for piece in data.result(GONE, name).members.values()]
    needles = [GONE.encode(), *(piece[len(piece) // 2 :][:64] for piece in payloads)]
    assert len(traces(store, needles)) > 4
    assert run(["openuni", "remove", URL, "--key", GONE, "--dry-run"]).split()[0] == GONE
    others = {name for name in store.walk("shards") if "/000001." not in name}
    said = run(["openuni", "remove", URL, "--key", GONE, "--staging", str(tmp_path / "s")], status=1)
    assert "notes.txt still names a clip" in said
    store.delete("notes.txt")
    assert traces(store, needles) == []
    assert others <= set(store.walk("shards"))
    assert GONE not in openuni.open(URL)
    assert len(openuni.open(URL)) == len(data) - 1
    assert "has no clip of key" in run(["openuni", "remove", URL, "--key", GONE], status=1)
    # A build that is asked again, also to grow, does not bring it back; a staging folder of before is emptied.
    for more in ((), ("--extend",), ("--retry-failed",)):
        run(line(before / "source", URL, "--staging", tmp_path / "staged", *more), status=3)
        assert traces(store, needles) == []
    assert "are as committed" in run(["openuni", "verify", URL])


def traces(store: ObjectStore, needles: list[bytes]) -> list[str]:
    """Objects of which a byte run, a text of a Parquet table, or the name is one of `needles`."""
    found = []
    for name in store.walk():
        contents = [name.encode(), store.read(name, at_most=1 << 30)]
        if name.endswith(".parquet"):
            contents.append(repr(pq.read_table(io.BytesIO(contents[1])).to_pylist()).encode())
        if any(needle in content for needle in needles for content in contents):
            found.append(name)
    return found


@pytest.mark.parametrize("damage", ["byte of rgb", "tar is gone", "index is gone"])
def test_repair_brings_back_the_bytes_that_were_committed(
    s3: Server, before: Path, tmp_path: Path, damage: str
) -> None:
    store = far(before / "source", before, tmp_path)
    column = "rgb" if damage == "byte of rgb" else "depth"
    tar, index = bucket.names(openuni.open(URL).shards[1].columns[column])
    whole = {name: store.read(name, at_most=1 << 30) for name in (tar, index)}
    if damage == "byte of rgb":
        broken = bytearray(whole[tar])
        broken[700] ^= 1
        store.put(tar, bytes(broken), "vandal")
    else:
        store.delete(tar if damage == "tar is gone" else index)
    assert run(["openuni", "verify", URL], status=1)
    done = run(["openuni", "verify", URL, "--repair", "--staging", str(tmp_path / "s"), *RUN])
    assert "are as committed" in done
    assert {name: store.read(name, at_most=1 << 30) for name in whole} == whole
    assert_same(store, tmp_path / "local")


def test_views_and_numbers_come_from_a_few_reads(s3: Server, before: Path, tmp_path: Path) -> None:
    store = far(before / "source", before, tmp_path)
    local, out = tmp_path / "local", tmp_path / "view.json"
    run(["openuni", "add", str(local), "scores", *RUN], status=3)
    run(["openuni", "add", URL, "scores", "--staging", str(tmp_path / "s"), *RUN], status=3)
    assert_same(store, local)
    for words in (["select", "--where", "frames > 3", "--where", "sharpness > 0"], ["dedup"]):
        s3.asked.clear()
        run(["openuni", words[0], URL, *words[1:], "--out", str(out)])
        assert len(s3.asked) < 14
        mine = view.read(out)
        run(["openuni", words[0], str(local), *words[1:], "--out", str(out)])
        assert (mine.keys, mine.funnel) == (view.read(out).keys, view.read(out).funnel)
        assert mine.dataset == URL
    s3.asked.clear()
    numbers = [json.loads(run(["openuni", "stats", str(p), "--json", "--rows", "0"])) for p in (URL, local)]
    assert numbers[0] == numbers[1]
    assert len(s3.asked) < 10
    data = openuni.open(URL)
    s3.asked.clear()
    sharp = data.filter((pc.field("frames") > 3) & pc.field("depth.present"))
    assert list(data.only(["zoo01", "nobody"]).numbers) == [sorted(NAMES).index("zoo01")]
    assert list(data.keys()) == sorted(NAMES)
    assert len(s3.asked) < 18
    assert list(sharp.keys()) == list(openuni.open(local).filter(pc.field("depth.present")).keys())
    run(["openuni", "dedup", URL, "--out", f"{URL}/v.json"])
    assert len(view.read(f"{URL}/v.json").keys) == len(NAMES)


def test_of_two_changes_of_one_state_one_counts(s3: Server, before: Path, tmp_path: Path) -> None:
    """Although the lease, which is advice, was taken from the living."""
    store = far(before / "source", before, tmp_path)
    with revising.changing(URL, tmp_path / "s") as first:
        with pytest.raises(HeldError, match="is being written by run"):
            revising.drop(URL, "depth")
        manifest = first.base.manifest
        first.stage(manifest)
        for name in store.list("leases"):
            store.delete(name)
        revising.drop(URL, "depth")
        with pytest.raises(BeatenError, match="was changed by another run meanwhile; nothing of that was touched"):
            first.publish(manifest, {}, [])
    assert "depth" not in openuni.open(URL).columns
    assert revisions.latest(store) == 1
    store.put("leases/whole.json", layout.dump_json(lease.Lease(lease.Holder("theirs", "h", 1, "x"))), "theirs")
    with pytest.raises(HeldError, match="was taken over by run theirs"):
        lease.check(store, "mine")


def test_what_cannot_be_changed_is_one_sentence(s3: Server, before: Path, tmp_path: Path) -> None:
    assert f"{URL} is not a dataset" in run(["openuni", "drop", URL, "depth"], status=1)
    far(before / "source", before, tmp_path)
    assert "has no column 'flow'; it has rgb, " in run(["openuni", "drop", URL, "flow"], status=1)
    assert "every other column annotates rgb" in run(["openuni", "drop", URL, "rgb"], status=1)
    assert openuni.open(URL).manifest.configuration.get(layout.REVISION) is None
    s3.misbehave("refuse", "revisions/", 99)
    assert "is refused to these credentials" in run(["openuni", "drop", URL, "depth"], status=1)
