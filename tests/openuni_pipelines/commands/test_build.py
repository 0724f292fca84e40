"""`openuni build`, run as a user runs it: plan, annotate, commit, resume, refuse."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import openuni
import openuni_pipelines
from openuni import modalities
from openuni.errors import AbsentModalityError
from openuni.sample import Clip
from openuni.shards import columns, failures, layout, plan, verify
from openuni.video import encode_video
from openuni_pipelines.engine.build import BuildConfig
from openuni_pipelines.engine.run import Execution

Command = Callable[..., subprocess.CompletedProcess[str]]
Digests = Callable[[Path], dict[str, str]]
NAMES = [f"c{number:02d}" for number in range(10)]
pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., Path]) -> Path:
    return make_clips(tmp_path_factory.mktemp("videos"), NAMES)


def ok(done: subprocess.CompletedProcess[str], status: int = 0) -> subprocess.CompletedProcess[str]:
    assert done.returncode == status, done.stderr + done.stdout
    return done


def test_plan_is_sorted_by_key_whatever_the_order_of_the_source(tmp_path: Path) -> None:
    clips = [Clip(key, f"/v/{key}.mp4") for key in ("b", "a", "c", "a")]
    tally = plan.write(tmp_path / "plan.parquet", clips, 2, "run")
    frozen = plan.Plan(tmp_path / "plan.parquet")
    assert [clip.key for clip in frozen] == ["a", "b", "c"]
    assert [[clip.key for clip in frozen.shard(number)] for number in range(frozen.shards)] == [["a", "b"], ["c"]]
    assert tally.skipped == {plan.DUPLICATE: 1}


@pytest.mark.slow
def test_same_plan_gives_same_bytes_in_process_and_on_ray_with_one_and_two_workers(
    build: Command, videos: Path, tmp_path: Path, digests: Digests
) -> None:
    ok(build(videos, tmp_path / "here", "toy_thermal,dis"))
    expected = digests(tmp_path / "here")
    assert (
        len([name for name in expected if name.endswith((".tar", ".parquet"))]) == 3 * 3 * 2 + 3
    )  # plan, skipped, catalog
    for workers in (1, 2):
        env = {"OPENUNI_TOY_SETUPS": str(tmp_path / f"setups{workers}")}
        ok(build(videos, tmp_path / f"ray{workers}", "toy_thermal,dis", "--workers", workers, ray=True, env=env))
        assert digests(tmp_path / f"ray{workers}") == expected
        # A model is loaded once a worker, not once a clip.
        setups = (tmp_path / f"setups{workers}").read_text().split()
        assert len(setups) == len(set(setups)) <= workers


def test_a_changed_configuration_or_expert_is_refused_by_name(build: Command, videos: Path, tmp_path: Path) -> None:
    ok(build(videos, tmp_path / "d", "toy_thermal", "--limit", 3))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d" / "shards").iterdir()}
    done = ok(build(videos, tmp_path / "d", "toy_thermal", "--limit", 3, "--fps", 8), 1)
    assert "normalisation was" in done.stderr
    assert "choose another --out" in done.stderr
    done = ok(build(videos, tmp_path / "d", "toy_thermal,toy_depth", "--limit", 3), 1)
    assert "openuni add" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "d" / "shards").iterdir()} == before


def test_clips_keep_the_rate_of_their_video_where_that_is_asked_for(build: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = np.kron(noise, np.ones((16, 16, 1), np.uint8))
    (tmp_path / "v").mkdir()
    for fps in (3, 25):
        frames = [np.roll(picture, 2 * k, axis=1) for k in range(12)]
        (tmp_path / "v" / f"{fps}.mp4").write_bytes(encode_video(frames, float(fps)))
    for _ in range(2):  # the second goes on with what is there
        ok(build(tmp_path / "v", tmp_path / "d", "toy_thermal", "--fps", "source"))
    records = [sample.record for sample in openuni.open(tmp_path / "d")]
    assert {record.source_id: (record.fps, record.frames) for record in records} == {
        "25": (25.0, 12),
        "3": (3.0, 12),
    }
    refused = ok(build(tmp_path / "v", tmp_path / "e", "toy_thermal", "--fps", "native"), 2)
    assert "'native' is neither a number nor 'source'" in refused.stderr


def test_an_option_that_is_no_longer_given_is_a_change_too(build: Command, videos: Path, tmp_path: Path) -> None:
    ok(build(videos, tmp_path / "d", "toy_thermal", "--keep-doubtful"))
    done = ok(build(videos, tmp_path / "d", "toy_thermal"), 1)
    assert "keep_doubtful was True, now None" in done.stderr


def test_predicted_depth_is_compact_and_an_older_dataset_goes_on_as_it_began(videos: Path, tmp_path: Path) -> None:
    """A dataset of a version that knew 16 bits alone says nothing of compact storage: it never gets some of each."""
    root = tmp_path / "d"
    config = BuildConfig(
        source="toy", videos=videos, out=root, experts=("toy_depth",), limit=2, execution=Execution(workers=0)
    )
    openuni_pipelines.build(config)

    def stored() -> list[bool]:
        data = openuni.open(str(root))
        return ["bits" in data.result(sample.key, "depth").note.meta for sample in data]

    assert stored() == [True, True]
    manifest = verify.manifest(root)
    older = {name: value for name, value in manifest.configuration.items() if name != "compact"}
    (root / layout.MANIFEST).write_bytes(layout.dump_checked(replace(manifest, configuration=older)))
    columns.uncommit(root, 0, "depth")
    openuni_pipelines.build(config)
    assert stored() == [False, False]
    assert openuni.open(str(root))[0].depth.kind == "relative"


def test_videos_are_what_they_are_and_not_how_they_are_spelled(
    openuni_command: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    """The same folder by another name goes on, another folder of the same name is refused, new files are named."""

    def built(videos: Path | str, cwd: Path, status: int = 0) -> str:
        options = (
            "--source",
            "toy",
            "--experts",
            "toy_depth",
            "--min-free",
            0,
            "--workers",
            0,
            "--out",
            tmp_path / "d",
        )
        return ok(openuni_command("build", *options, "--videos", videos, cwd=cwd), status).stderr

    make_clips(tmp_path / "here" / "v", ["a", "b"])
    make_clips(tmp_path / "there" / "v", ["a", "b"])
    built("v", tmp_path / "here")
    assert "came after the plan" not in built(tmp_path / "here" / "v", tmp_path)
    assert "videos was" in built("v", tmp_path / "there", 1)
    make_clips(tmp_path / "here" / "v", ["c"])
    assert "1 video that came after the plan, and so not in it (c.mp4)" in built("../here/v", tmp_path / "there")
    assert list(openuni.open(str(tmp_path / "d")).keys()) == ["a", "b"]


def test_extend_adds_shards_and_leaves_the_old_ones_as_they_are(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path, digests: Digests
) -> None:
    videos, root = make_clips(tmp_path / "v", ["c", "d", "e", "f", "g"]), tmp_path / "d"
    ok(build(videos, root, "toy_thermal"))
    before = digests(root)
    make_clips(videos, ["a", "z"])
    assert "--extend" in ok(build(videos, root, "toy_thermal")).stderr
    # Killed between the new plan and the manifest that names it: the next run plans again.
    (root / plan.name_of(1)).write_bytes(b"half a plan")
    ok(build(videos, root, "toy_thermal", "--extend"))
    manifest, after = verify.manifest(root), digests(root)
    assert [(made.clips, made.shards) for made in plan.generations(manifest)] == [(5, 2), (2, 1)]
    changed = {name for name, sha256 in before.items() if after[name] != sha256}
    assert changed <= {layout.MANIFEST, "catalog.json", "catalog.parquet"}
    assert list(openuni.open(str(root)).keys()) == ["c", "d", "e", "f", "g", "a", "z"]
    assert not verify.verify_plan(root)
    # Interrupted before a commit: the same command finishes it, equal in every byte; with nothing new it is idle.
    layout.LocalStore(root).delete(layout.commit_name(2, "rgb"))
    layout.LocalStore(root).delete(layout.commit_name(2, "thermal"))
    ok(build(videos, root, "toy_thermal", "--extend"))
    ok(build(videos, root, "toy_thermal", "--extend"))
    assert digests(root) == after


def test_a_folder_of_something_else_is_left_alone(build: Command, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("mine")
    assert "not empty and not a dataset" in ok(build(videos, tmp_path / "d", "toy_thermal"), 1).stderr
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_one_sentence(build: Command, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "d").write_text("a file")
    for out in (tmp_path / "d", tmp_path / "d" / "below"):
        done = ok(build(videos, out, "toy_thermal"), 1)
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_second_run_does_nothing_again(
    build: Command, videos: Path, tmp_path: Path, digests: Digests, calls: Callable[[], list[str]]
) -> None:
    env = {"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}
    ok(build(videos, tmp_path / "d", "toy_thermal", env=env))
    first = digests(tmp_path / "d")
    commits = {path.name: path.read_bytes() for path in (tmp_path / "d" / "commits").iterdir()}
    ok(build(videos, tmp_path / "d", "toy_thermal", env=env))
    assert Counter(calls()) == {f"toy_thermal {name}": 1 for name in NAMES}
    assert digests(tmp_path / "d") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "d" / "commits").iterdir()} == commits
    assert not (tmp_path / "d" / "work").exists()


def test_a_lost_commit_record_costs_one_column_of_one_shard(
    build: Command, videos: Path, tmp_path: Path, digests: Digests, calls: Callable[[], list[str]]
) -> None:
    env = {"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}
    ok(build(videos, tmp_path / "d", "toy_thermal,toy_depth", env=env))
    first = digests(tmp_path / "d")
    (tmp_path / "d" / layout.commit_name(1, "depth")).unlink()
    ok(build(videos, tmp_path / "d", "toy_thermal,toy_depth", env=env))
    assert digests(tmp_path / "d") == first
    again = {line for line, count in Counter(calls()).items() if count > 1}
    assert again == {f"toy_depth {name}" for name in NAMES[4:8]}


def test_a_sixth_modality_goes_from_build_to_reader_and_model_picture(
    build: Command, videos: Path, tmp_path: Path
) -> None:
    ok(build(videos, tmp_path / "d", "toy_thermal"))
    sample = openuni.open(str(tmp_path / "d"))["c03"]
    kelvin = sample.rgb.frames.mean(axis=-1) / 255 * 150 + 200
    assert np.abs(sample.thermal.kelvin - kelvin).max() < 200 / 65535
    picture = modalities.get("thermal").to_picture(sample.thermal)
    assert picture.shape == sample.rgb.frames.shape
    assert np.abs(modalities.get("thermal").from_picture(picture).kelvin - sample.thermal.kelvin).max() < 1e-3
    assert sample.statuses["thermal"].confidence == 0.5


def test_an_expert_uses_what_another_found_once_a_clip(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path, calls: Callable[[], list[str]]
) -> None:
    folder = make_clips(tmp_path / "v", ["a", "nobox-b", "z"])
    ok(build(folder, tmp_path / "d", "toy_boxes", env={"OPENUNI_TOY_CALLS": str(tmp_path / "calls")}))
    assert sorted(calls()) == [
        "toy_boxes a",
        "toy_boxes z",
        "toy_finder a",
        "toy_finder nobox-b",
        "toy_finder z",
    ]
    data = openuni.open(str(tmp_path / "d"))
    assert data["a"].thermal.kelvin.max() == pytest.approx(310, abs=0.01)
    assert data["a"].record.subset == "single_person"
    assert "thermal" not in data["nobox-b"]
    with pytest.raises(AbsentModalityError, match="needs toy_finder, which is absent"):
        data["nobox-b"].thermal  # noqa: B018
    assert data.columns == ["rgb", "thermal"]
    assert verify.verify_column(tmp_path / "d", 0, "thermal").problems == ()


def test_require_drops_a_clip_and_says_why_and_how_many(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "v", ["a", "nobox-b", "z"])
    done = ok(build(folder, tmp_path / "d", "toy_boxes", "--require", "thermal"), 3)
    assert "2 samples" in done.stderr
    assert "1 clip dropped" in done.stderr
    assert list(openuni.open(str(tmp_path / "d")).keys()) == ["a", "z"]
    (row,) = failures.read(tmp_path / "d")
    assert (row.key, row.stage, row.kind) == ("nobox-b", "toy_boxes", "refused")
    assert "needs toy_finder" in row.error


def test_a_video_that_cannot_be_read_is_dropped_with_the_reason(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "v", ["a"])
    (folder / "bad.mp4").write_bytes(b"not a video at all")
    ok(build(folder, tmp_path / "d", "toy_depth"), 3)
    (row,) = failures.read(tmp_path / "d")
    assert (row.key, row.stage, row.kind) == ("bad", "rgb", "refused")
    assert row.error


def test_two_experts_of_one_modality_and_unknown_names_are_refused(
    build: Command, videos: Path, tmp_path: Path
) -> None:
    assert "both make thermal" in ok(build(videos, tmp_path / "d", "toy_thermal,toy_boxes"), 1).stderr
    assert "there is no expert nobody; sets: light" in ok(build(videos, tmp_path / "d", "nobody"), 1).stderr
    assert "--require flow" in ok(build(videos, tmp_path / "d", "toy_depth", "--require", "flow"), 1).stderr
    assert not (tmp_path / "d").exists()


def test_missing_assets_are_named_before_anything_is_made(build: Command, videos: Path, tmp_path: Path) -> None:
    env = {"OPENUNI_HOME": str(tmp_path / "empty")}
    done = ok(build(videos, tmp_path / "d", "fastdepth", env=env), 1)
    assert "openuni assets fetch" in done.stderr
    assert not (tmp_path / "d").exists()
    done = ok(build(videos, tmp_path / "d", "fastdepth", "--dry-run", env=env))
    assert "missing" in done.stdout


def test_dry_run_says_what_it_would_make_and_writes_nothing(build: Command, videos: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = ok(build(videos, tmp_path / "out" / "d", "toy_thermal", "--dry-run"))
    assert "10 clips in 3 shards" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_source_without_a_clip_is_an_error(build: Command, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    assert "no usable clip" in ok(build(tmp_path / "v", tmp_path / "d", "toy_depth"), 1).stderr
    assert not (tmp_path / "d").exists()


def test_skipped_rows_are_listed_with_their_reasons(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clips(tmp_path / "v", ["a", "skip-b"])
    ok(build(folder, tmp_path / "d", "toy_depth"))
    (row,) = plan.skipped(tmp_path / "d" / layout.PLAN)
    assert (row.id, row.reason) == ("skip-b", "asked to be skipped")
    assert verify.manifest(tmp_path / "d").skipped == {"asked to be skipped": 1}


def test_the_log_is_json_lines_that_tell_the_story(build: Command, videos: Path, tmp_path: Path) -> None:
    ok(build(videos, tmp_path / "d", "toy_depth"))
    events = [json.loads(line) for line in (tmp_path / "d" / layout.LOG).read_text().splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["started", "finished"]
    assert Counter(event["event"] for event in events)["commit"] == 6


@pytest.mark.slow
def test_memory_of_the_build_does_not_grow_with_the_number_of_clips(
    build: Command, make_clips: Callable[..., Path], tmp_path: Path
) -> None:
    """Peak resident memory of the whole build in one process, at 20 and at 200 clips."""

    def peak(count: int) -> int:
        folder = tmp_path / f"v{count}"
        (clip,) = make_clips(tmp_path / "one", ["c"]).iterdir()
        folder.mkdir()
        for number in range(count):
            (folder / f"c{number:04d}.mp4").hardlink_to(clip)
        ok(build(folder, tmp_path / f"d{count}", "toy_depth", env={"OPENUNI_TOY_PEAK": str(tmp_path / f"p{count}")}))
        return int((tmp_path / f"p{count}").read_text())

    assert peak(200) < 1.15 * peak(20)
