"""Clips that were taken down are in no file any more, whatever happened on the way; all others are as they were."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import openuni
from openuni.errors import PlanError
from openuni.shards import columns, facts, layout, plan, takedown, verify, view
from openuni_pipelines.engine.removing import Removal, RemoveConfig, remove
from openuni_pipelines.engine.run import Execution
from openuni_pipelines.engine.selecting import SelectConfig, select
from openuni_pipelines.engine.verifying import check
from openuni_pipelines.engine.viewing.flags import Flags

Command = Callable[..., subprocess.CompletedProcess[str]]
Digests = Callable[[Path], dict[str, str]]
NAMES = [f"zoo{number:02d}" for number in range(9)]  # no digits of a hash
EXPERTS = "toy_thermal,dis,scores"
GONE = "zoo05"
pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Path]) -> Path:
    return make_clips(tmp_path_factory.mktemp("videos"), NAMES)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """Three shards of at most four clips, with facts, flags, a view and a contact sheet beside them."""
    from openuni_pipelines.engine.build import BuildConfig, build

    root = tmp_path_factory.mktemp("built") / "d"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "plugins"))
        execution = Execution(workers=0, min_free=0.0)
        names = tuple(EXPERTS.split(","))
        build(BuildConfig(source="toy", videos=videos, out=root, experts=names, shard_size=4, execution=execution))
    data = openuni.open(root)
    for _ in range(2):
        with facts.table(data):
            pass
    Flags(root / "flags.jsonl").set(GONE, "a face")
    Flags(root / "flags.jsonl").set("zoo06", "blurred")
    select(data, [], SelectConfig(), root / "all.json")
    select(data, [], SelectConfig(), root / "all.parquet")
    (root / "contact_sheet.png").write_bytes(b"a picture")
    return root


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "d"))


def traces(root: Path, needles: list[bytes]) -> list[str]:
    """Files of which a byte run, a text of a Parquet table, or the name is one of `needles`."""
    found = []
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        contents = [path.name.encode(), path.read_bytes()]
        if path.suffix == ".parquet":
            contents.append(repr(pq.read_table(path).to_pylist()).encode())
            contents.append(repr(pq.read_schema(path).metadata).encode())
        if any(needle in content for needle in needles for content in contents):
            found.append(path.relative_to(root).as_posix())
    return sorted(found)


def needles_of(root: Path, key: str) -> list[bytes]:
    """The clip's name, and a piece of every payload that is its own."""
    opened = openuni.open(root)
    payloads = [data for name in opened.manifest.columns for data in opened.result(key, name).members.values()]
    return [key.encode(), *(data[len(data) // 2 :][:64] for data in payloads)]


def problems(root: Path) -> list[object]:
    return list(check(root, verify.manifest(root), Execution(workers=0)).problems)


def test_a_removed_clip_is_in_no_byte_of_the_folder_and_the_other_shards_are_untouched(
    data: Path, build: Command, videos: Path, openuni_command: Command
) -> None:
    needles = needles_of(data, GONE)
    assert len(needles) >= 4
    assert len(traces(data, needles)) > 8
    others = {path: path.stat().st_mtime_ns for path in (data / "shards").iterdir() if path.name[:6] != "000001"}
    before = {key: openuni.open(data).result(key, "thermal") for key in NAMES}
    done = openuni_command("remove", data, "--key", GONE, "--reason", "its maker asked")
    assert done.returncode == 0, done.stderr
    assert traces(data, needles) == []
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert problems(data) == []
    opened = openuni.open(data)
    assert list(opened.keys()) == [key for key in NAMES if key != GONE]
    assert GONE not in opened
    for key in opened.keys():  # noqa: SIM118
        assert opened.result(key, "thermal") == before[key]
    (entry,) = takedown.read(data).entries
    assert (entry.clips, entry.reason, entry.done) == (1, "its maker asked", True)
    assert takedown.digest("key", GONE) in entry.digests
    assert Flags(data / "flags.jsonl").reasons == {"zoo06": "blurred"}
    for name in ("all.json", "all.parquet"):
        assert GONE not in view.read(data / name).keys
        assert len(openuni.open(data / name)) == 8
    assert not (data / "contact_sheet.png").exists()
    assert "8 clips" in (data / "README.md").read_text()
    # A build that is asked again, also to grow, does not bring it back.
    for more in ([], ["--extend"], ["--retry-failed"]):
        done = build(videos, data, EXPERTS, *more)
        assert done.returncode == 0, done.stderr
        assert traces(data / "shards", needles) == []
        assert list(openuni.open(data).keys()) == [key for key in NAMES if key != GONE]
    # Nor does another column.
    done = openuni_command("add", data, "toy_depth", "--workers", 0, "--min-free", 0)
    assert done.returncode == 0, done.stderr
    assert problems(data) == []


def test_dry_run_names_clips_and_shards_and_changes_nothing(data: Path, openuni_command: Command) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    done = openuni_command("remove", data, "--key", GONE, "--key", "nobody", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.split() == [GONE]
    assert "not in the dataset: key nobody" in done.stderr
    assert "1 clip to be removed, of 1 shard of" in done.stderr
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    with pytest.raises(PlanError, match="no clip of key nobody"):
        remove(data, RemoveConfig(keys=("nobody",)))
    with pytest.raises(PlanError, match="say what is to go"):
        RemoveConfig()


def test_whole_shards_and_source_videos_go_too(data: Path, tmp_path: Path) -> None:
    video_ids = {sample.key: sample.record.video_id for sample in openuni.open(data)}
    listed = tmp_path / "keys.txt"
    removal = remove(data, RemoveConfig(keys=("zoo00", "zoo01", "zoo02"), video_ids=(video_ids["zoo03"],)))
    assert removal.keys == ["zoo00", "zoo01", "zoo02", "zoo03"]
    assert removal.shards == [0]
    assert problems(data) == []
    assert list(openuni.open(data).keys()) == NAMES[4:]
    listed.write_text("zoo08")
    remove(data, RemoveConfig(keys=("zoo08",)))
    assert list(openuni.open(data).keys()) == NAMES[4:8]
    assert traces(data, [b"zoo00", b"zoo08"]) == []


def test_source_fields_and_rows_that_became_no_clip_go_with_their_video(
    videos: Path, tmp_path: Path, openuni_command: Command
) -> None:
    """Of one video a clip was made, and two rows were refused; its row said more than a clip has."""
    table = tmp_path / "rows.jsonl"
    rows = [{"id": f"{name}_0", "video": name, "video_id": name, "maker": f"maker of {name}"} for name in NAMES[:3]]
    rows += [{"id": f"zoo01_{n}", "video": "absent", "video_id": "zoo01"} for n in (1, 2)]
    rows += [{"id": "zoo07_1", "video": "absent", "video_id": "zoo07"}, {"id": "other", "video": "absent"}]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    root = tmp_path / "fields"
    asked = ("--source", "table", "--metadata", table, "--videos", videos, "--experts", "scores", "--workers", 0)
    done = openuni_command("build", *asked, "--min-free", 0, "--out", root)
    assert done.returncode == 0, done.stderr
    assert traces(root, [b"maker of zoo01"])
    assert {row.id for row in plan.skipped(root / layout.PLAN)} == {"zoo01_1", "zoo01_2", "zoo07_1", "other"}
    assert remove(root, RemoveConfig(video_ids=("zoo01",))).keys == ["zoo01_0"]
    assert traces(root, [b"zoo01", b"maker of zoo01"]) == []
    assert problems(root) == []
    kept = openuni.open(root)["zoo02_0"].record
    assert kept.source_fields == {"video": "zoo02", "maker": "maker of zoo02"}
    # A video of which there are refused rows only is no unknown one.
    removal = remove(root, RemoveConfig(video_ids=("zoo07",)))
    assert (removal.keys, removal.unknown) == ([], [])
    assert {row.id for row in plan.skipped(root / layout.PLAN)} == {"other"}
    # The table has them all still.
    done = openuni_command("build", *asked, "--min-free", 0, "--out", root, "--extend")
    assert traces(root, [b"zoo01", b"zoo07"]) == []


def test_a_foreign_file_that_names_a_clip_is_told_of(data: Path, openuni_command: Command) -> None:
    (data / "notes.txt").write_text(f"{GONE} is my favourite")
    done = openuni_command("remove", data, "--key", GONE)
    assert done.returncode == 1
    assert "notes.txt still names a clip" in done.stderr


def test_damage_in_what_is_to_stay_stops_before_anything_of_the_shard_is_lost(data: Path) -> None:
    tar = data / layout.tar_name(1, "thermal")
    row = next(row for row in columns.rows(data, 1, "thermal") if row.key == "zoo06")
    broken = bytearray(tar.read_bytes())
    broken[row.members[-1].offset] ^= 1
    tar.write_bytes(bytes(broken))
    with pytest.raises(PlanError, match="--repair"):
        remove(data, RemoveConfig(keys=(GONE,)))
    assert {problem.key for problem in problems(data)} == {"zoo06"}  # type: ignore[attr-defined]


@pytest.mark.timeout(900)
def test_a_removal_that_is_killed_at_any_step_goes_on_and_ends_the_same(
    built: Path, tmp_path: Path, digests: Digests
) -> None:
    """SIGKILL before every sixth rename or unlink of a removal; then the same command again."""
    needles = needles_of(built, GONE)
    whole = Path(shutil.copytree(built, tmp_path / "whole"))
    assert removed(whole).still_named_in == ()
    expected = without_takedowns(digests(whole))
    strikes = 0
    for step in range(1, 240, 6):
        root = Path(shutil.copytree(built, tmp_path / f"k{step}"))
        if not killed(root, step):
            break
        strikes += 1
        entries = takedown.read(root).entries
        if not entries or not entries[-1].done:  # else only the lock was left to let go
            assert removed(root).still_named_in in ((), [])
        assert traces(root, needles) == [], step
        assert without_takedowns(digests(root)) == expected, step
        assert not (root / "work").exists()
        assert all(entry.done for entry in takedown.read(root).entries)
        shutil.rmtree(root)
    assert strikes >= 6
    assert problems(whole) == []
    assert plan.generations(verify.manifest(whole))[0].clips == 9


def removed(root: Path) -> Removal:
    removal = remove(root, RemoveConfig(keys=(GONE,)))
    return Removal(removal.keys, removal.shards, removal.unknown, removal.resumed, tuple(removal.still_named_in))


def without_takedowns(of: dict[str, str]) -> dict[str, str]:
    """When it was is in the record; a catalog's table has no run in it, its head names the manifest.

    Without the lock too, which one that was killed at its very end has not let go; the next run takes it over.
    """
    return {name: sha for name, sha in of.items() if name not in (takedown.FILE, "run.lock", ".run.lock")}


def killed(root: Path, step: int) -> bool:
    """Remove the clip in a child that dies before its `step`-th change of a name; False where it came to its end."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(change: Callable[..., None]) -> Callable[..., None]:
            def once(*arguments: object, **more: object) -> None:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                change(*arguments, **more)

            return once

        os.replace, os.unlink = dying(os.replace), dying(os.unlink)  # type: ignore[assignment]
        try:
            remove(root, RemoveConfig(keys=(GONE,)))
        except BaseException:  # noqa: BLE001  nothing of the parent's may run on in the child
            os._exit(2)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), status
    return os.WIFSIGNALED(status)
