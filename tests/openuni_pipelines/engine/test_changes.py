"""Changing what is committed: failed clips tried again, damage found and repaired, columns added and dropped."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import openuni
from openuni import experts
from openuni.errors import CorruptDataError
from openuni.shards import catalog, columns, failures, index, layout, results, verify
from openuni_pipelines.cli import openuni as openuni_cli

Command = Callable[..., subprocess.CompletedProcess[str]]
Digests = Callable[[Path], dict[str, str]]
Calls = Callable[[], list[str]]
NAMES = [f"c{number:02d}" for number in range(10)]
pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Path]) -> Path:
    return make_clips(tmp_path_factory.mktemp("videos"), NAMES)


@pytest.fixture
def data(tmp_path: Path, build: Command, videos: Path) -> Path:
    """A finished dataset of three shards, with thermal and depth."""
    ok(build(videos, tmp_path / "d", "toy_thermal,toy_depth"))
    return tmp_path / "d"


def ok(done: subprocess.CompletedProcess[str], status: int = 0) -> subprocess.CompletedProcess[str]:
    assert done.returncode == status, done.stderr + done.stdout
    return done


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(bytes(data))


def test_add_writes_its_column_only_and_drop_removes_it(
    data: Path, openuni_command: Command, build: Command, videos: Path, tmp_path: Path, digests: Digests
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (data / "shards").iterdir()}
    ok(openuni_command("add", data, "dis", "--workers", 0, "--min-free", 0))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    ok(build(videos, tmp_path / "whole", "toy_thermal,toy_depth,dis"))
    assert digests(data) == digests(tmp_path / "whole")
    assert openuni.open(str(data)).columns == ["rgb", "thermal", "depth", "flow"]
    ok(openuni_command("drop", data, "flow"))
    assert {path: path.stat().st_mtime_ns for path in (data / "shards").iterdir()} == before
    ok(openuni_command("verify", data))
    whole = (data / catalog.HEAD).read_bytes()
    catalog.retire(data)  # as a `drop` that was killed at its very end leaves it
    assert "no column 'flow'" in ok(openuni_command("drop", data, "flow"), 1).stderr
    assert (data / catalog.HEAD).read_bytes() == whole
    assert "annotates rgb" in ok(openuni_command("drop", data, "rgb"), 1).stderr


def test_another_expert_of_a_modality_replaces_the_column_and_its_fingerprint(
    data: Path, openuni_command: Command
) -> None:
    ok(openuni_command("add", data, "toy_boxes", "--workers", 0, "--min-free", 0))
    made = verify.manifest(data).columns
    assert made["thermal"].startswith("toy_boxes-1-")
    assert made["depth"].startswith("toy_depth-1-")
    ok(openuni_command("verify", data))
    assert openuni.open(str(data))["c00"].thermal.kelvin.max() == pytest.approx(310, abs=0.01)


def test_the_reader_leaves_out_shards_of_the_version_before_and_refuses_foreign_keys(data: Path) -> None:
    record = columns.committed(data, 1, "thermal")
    assert record is not None
    old = layout.CommitRecord(**{f: getattr(record, f) for f in record.__dataclass_fields__} | {"fingerprint": "x-0-0"})
    (data / layout.commit_name(1, "thermal")).write_bytes(layout.dump_checked(old))
    opened = openuni.open(str(data))
    assert "thermal" in opened["c00"]
    assert "thermal" not in opened["c05"]
    shutil.copy(data / layout.index_name(0, "depth"), data / layout.index_name(1, "depth"))
    foreign = columns.committed(data, 0, "depth")
    assert foreign is not None
    moved = layout.CommitRecord(**{f: getattr(foreign, f) for f in foreign.__dataclass_fields__} | {"shard": 1})
    (data / layout.commit_name(1, "depth")).write_bytes(layout.dump_checked(moved))
    with pytest.raises(CorruptDataError, match="other keys"):
        openuni.open(str(data))["c05"]


def test_any_flipped_bit_is_found_and_put_down_to_its_clip(data: Path) -> None:
    """Two hundred random bits in tars, indices, commit records, manifest and plan, one at a time."""
    rng = random.Random(3)
    files = [path for kind in ("shards", "index", "commits") for path in sorted((data / kind).iterdir())]
    files += [data / layout.MANIFEST, data / layout.PLAN]
    for number in range(200):
        path = files[number % len(files)]
        good = path.read_bytes()
        at = rng.randrange(len(good))
        flip(path, at, rng.randrange(8))
        problems = _problems(data)
        assert problems, f"{path.name} byte {at}"
        if path.suffix == ".tar":
            shard, column = int(path.name[:6]), path.name.split(".")[1]
            expected = _owner(columns.rows(data, shard, column), at)
            assert {p.key for p in problems if p.column == column} == {expected}, f"{path.name} byte {at}"
        path.write_bytes(good)
    assert not _problems(data)


def _problems(root: Path) -> list[verify.Problem]:
    try:
        manifest = verify.manifest(root)
    except CorruptDataError as error:
        return [verify.Problem(-1, "", "", layout.MANIFEST, str(error))]
    work = [(shard, column) for shard in range(manifest.shards) for column in manifest.columns]
    found = [p for shard, column in work for p in verify.verify_column(root, shard, column, decode=False).problems]
    return verify.verify_plan(root) + found


def _owner(rows: list[index.Row], at: int) -> str:
    """The clip whose header, data or padding holds byte `at`; none for the zeros at the end of the archive."""
    for row in rows:
        for member in row.members:
            if member.offset - 512 <= at < member.offset + -(-member.size // 512) * 512:
                return row.key
    return ""


def test_repair_makes_only_what_is_damaged_again(
    data: Path, openuni_command: Command, digests: Digests, tmp_path: Path, calls: Calls
) -> None:
    good = digests(data)
    depth = next(row for row in columns.rows(data, 1, "depth") if row.key == "c06")
    flip(data / layout.tar_name(1, "depth"), depth.members[1].offset + 5)
    whole = data / layout.tar_name(2, "thermal")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    flip(data / layout.tar_name(0, "rgb"), 700)
    done = ok(openuni_command("verify", data), 1)
    assert "(clip c06)" in done.stdout
    assert "(clip c00)" in done.stdout
    assert "(clip c09)" in done.stdout
    sample = openuni.open(str(data))["c06"]
    with pytest.raises(CorruptDataError, match=r"c06\.depth\.mkv does not match its hash"):
        sample.depth  # noqa: B018
    flip(data / layout.commit_name(1, "thermal"), 40)
    env = {"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}
    ok(openuni_command("verify", data, "--repair", "--workers", 0, "--min-free", 0, env=env))
    assert digests(data) == good
    # One sample of depth, the cut tail of thermal, and the shard whose commit record could no longer be believed.
    assert Counter(calls()) == Counter(
        ["toy_depth c06", "toy_thermal c09", *(f"toy_thermal c{number:02d}" for number in range(4, 8))]
    )


def test_repair_runs_no_program_without_trust(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column whose expert's model file is a program is made again only with --trust; others as ever."""
    monkeypatch.setattr(experts.get("toy_depth"), "runs_code", "toy.torchscript is a program that is run")
    repair = ["verify", str(data), "--repair", "--workers", "0", "--min-free", "0"]
    flip(data / layout.tar_name(0, "thermal"), 700)
    assert CliRunner().invoke(openuni_cli, repair).exit_code == 0
    flip(data / layout.tar_name(0, "depth"), 700)
    before = (data / layout.tar_name(0, "depth")).read_bytes()
    refused = CliRunner().invoke(openuni_cli, repair)
    assert refused.exit_code == 1
    assert "toy_depth: toy.torchscript is a program that is run" in refused.output
    assert "--trust" in refused.output
    assert (data / layout.tar_name(0, "depth")).read_bytes() == before
    assert CliRunner().invoke(openuni_cli, [*repair, "--trust"]).exit_code == 0


def test_repair_drops_a_clip_whose_video_is_gone(
    build: Command, make_clips: Callable[..., Path], openuni_command: Command, tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "v", ["a", "b", "c"])
    ok(build(folder, tmp_path / "d", "toy_depth"))
    flip(tmp_path / "d" / layout.tar_name(0, "rgb"), columns.rows(tmp_path / "d", 0, "rgb")[1].members[1].offset)
    (folder / "b.mp4").unlink()
    repaired = openuni_command("verify", tmp_path / "d", "--repair", "--workers", 0, "--min-free", 0)
    assert repaired.returncode == 3  # not as it was committed, and not damaged any more
    assert "clip b could not be made again and was dropped: rgb: " in repaired.stderr
    ok(openuni_command("verify", tmp_path / "d"))
    assert list(openuni.open(str(tmp_path / "d")).keys()) == ["a", "c"]
    assert [(row.key, row.stage) for row in failures.read(tmp_path / "d")] == [("b", "rgb")]


def test_a_bit_that_flips_in_work_is_found_before_the_commit_and_costs_its_stage_only(
    data: Path, build: Command, videos: Path, tmp_path: Path, digests: Digests, calls: Calls
) -> None:
    """A shard as a killed run leaves it, all results made and none committed; five of them are damaged since."""
    good, made = digests(data), verify.manifest(data).columns
    results.open_work(data, 0)
    for column, fingerprint in made.items():
        assert columns.unpack(data, 0, column, fingerprint, (), "killed") == 4
        columns.uncommit(data, 0, column)

    def work(key: str, column: str) -> Path:
        return data / layout.result_name(0, key, made[column])

    flip(work("c00", "rgb"), work("c00", "rgb").stat().st_size // 2)
    flip(work("c01", "thermal"), work("c01", "thermal").stat().st_size // 2)
    flip(work("c02", "depth"), work("c02", "depth").read_bytes().index(b"present"))
    flip(work("c03", "rgb"), 0)
    work("c03", "depth").write_bytes(work("c03", "depth").read_bytes()[:1536])
    ok(build(videos, data, "toy_thermal,toy_depth", env={"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}))
    assert digests(data) == good
    assert sorted(calls()) == ["toy_depth c02", "toy_depth c03", "toy_thermal c01"]
    assert failures.read(data) == []


def test_the_failures_of_an_expert_go_with_the_column_that_another_has_made(
    build: Command, openuni_command: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    data = tmp_path / "d"
    ok(build(make_clips(tmp_path / "v", ["a", "raise-c"]), data, "toy_poison"), 3)
    ok(openuni_command("add", data, "toy_thermal", "--workers", 0, "--min-free", 0))
    assert failures.read(data) == []
    assert openuni.open(str(data))["raise-c"].statuses["thermal"].confidence == 0.5


def test_retry_failed_takes_up_only_the_failed_clips(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path, calls: Calls, digests: Digests
) -> None:
    folder = make_clips(tmp_path / "v", ["a", "b", "raise-c", "z"])
    (folder / "broken.mp4").write_bytes(b"nothing")
    env = {"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}
    ok(build(folder, tmp_path / "d", "toy_poison,toy_depth", env=env), 3)
    rows = {(row.key, row.stage): row for row in failures.read(tmp_path / "d")}
    assert set(rows) == {("raise-c", "toy_poison"), ("broken", "rgb")}
    poisoned = rows["raise-c", "toy_poison"]
    assert (poisoned.kind, poisoned.attempts) == ("raised", 3)
    assert "ValueError: a bug in an expert" in poisoned.error
    assert "failed 3 times" in openuni.open(str(tmp_path / "d"))["raise-c"].statuses["thermal"].reason
    shutil.copy(folder / "a.mp4", folder / "broken.mp4")
    before = len(calls())
    cured = env | {"OPENUNI_TOY_CURED": "1"}
    ok(build(folder, tmp_path / "d", "toy_poison,toy_depth", "--retry-failed", env=cured))
    # The clip that was dropped needs both experts; the poisoned one only the expert that failed.
    assert sorted(calls()[before:]) == ["toy_depth broken", "toy_poison broken", "toy_poison raise-c"]
    assert failures.read(tmp_path / "d") == []
    ok(build(folder, tmp_path / "fresh", "toy_poison,toy_depth", env={"OPENUNI_TOY_CURED": "1"}))
    assert digests(tmp_path / "d") == digests(tmp_path / "fresh")
