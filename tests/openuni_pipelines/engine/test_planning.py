"""Planning: rows are expanded by workers, and the plan does not depend on which worker is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from openuni import assets, experts
from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources import Entry, Request, Skipped, Source
from openuni.video import Limits, Normalisation
from openuni_pipelines.cli import openuni
from openuni_pipelines.engine import planning
from openuni_pipelines.engine.build import BuildConfig
from openuni_pipelines.engine.executors import InProcess
from openuni_pipelines.engine.recipe import Recipe
from openuni_pipelines.engine.stages import Job


class Repeating(Source):
    """Gives the ids that it is told, also twice; each row becomes a clip named after its place."""

    name = "repeating"
    ids = ("b", "a", "b", "c", "c", "c", "d")

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        for place, name in enumerate(self.ids):
            yield Entry(name, {"place": place})

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        return [Clip(f"{entry.id}-{entry.fields['place']}", "v.mp4", license="CC0-1.0")]


@pytest.fixture
def executor(tmp_path: Path) -> InProcess:
    executor = InProcess(Job(tmp_path, "run", Recipe((), (), ()), Normalisation(), Limits()))
    executor.slots = 3  # several rows are under way at once
    return executor


def test_rows_come_in_the_order_of_the_source_and_a_second_row_of_one_id_does_not_hang(executor: InProcess) -> None:
    found = list(planning.clips(executor, Repeating(), Request(), None))
    assert [f.key for f in found if isinstance(f, Clip)] == ["b-0", "a-1", "c-3", "d-6"]
    assert [(f.id, f.reason) for f in found if isinstance(f, Skipped)] == [(i, "two rows of one id") for i in "bcc"]


def test_a_limit_stops_the_plan_and_leaves_no_row_under_way(executor: InProcess) -> None:
    found = list(planning.clips(executor, Repeating(), Request(), 2))
    assert [f.key for f in found if isinstance(f, Clip)] == ["b-0", "a-1"]
    assert executor.running == 0


def test_a_source_that_lacks_something_leaves_no_folder_behind(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        openuni, ["build", "--source", "koala36m", "--experts", "dis", "--out", str(tmp_path / "d")]
    )
    assert done.exit_code == 1
    assert "--metadata" in done.output
    assert not (tmp_path / "d").exists()


def test_shards_can_be_asked_for_in_bytes() -> None:
    """81 frames of flow at 480p are expected to take 3.7 MiB, RGB less; a shard never has less than a clip."""
    sized = BuildConfig(source="folder", experts=("dis",), shard_bytes=1 << 30)
    assert sized.clips_a_shard == (1 << 30) // round(81 * 45 * 1024 * (480 * 480 * 16 / 9) / (832 * 480)) == 280
    assert sized.recorded["shard_size"] == sized.clips_a_shard
    assert replace(sized, shard_bytes=1).clips_a_shard == 1
    assert replace(sized, shard_bytes=None).clips_a_shard == 128


def test_a_plan_says_how_many_cores_feed_a_card(
    make_clips: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    videos = make_clips(tmp_path / "videos", ["a"])
    where = ["--videos", str(videos), "--out", str(tmp_path / "d"), "--workers", "0"]
    plan = ["plan", "--source", "folder", *where, "--dry-run"]
    said = CliRunner().invoke(openuni, [*plan, "--experts", "production"]).output
    assert "on a GPU: raft_large, 5 frames a second (published; `openuni doctor --experts` measures it)" in said
    assert "CPU cores that feed it: 7\n" in said  # depth: 125 frames a second of 51 ms each
    assert "vitpose," not in said  # nobody publishes its speed
    assert "on a GPU" not in CliRunner().invoke(openuni, [*plan, "--experts", "light"]).output


def test_two_opencvs_are_told_before_any_clip_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mediapipe")
    versions = {"opencv-python": "5.1.0.95", "opencv-contrib-python": "5.0.0.93"}
    monkeypatch.setattr(planning.environment, "opencv_versions", lambda: versions)
    with pytest.raises(PlanError, match=r"expert people needs one OpenCV: .* pip install opencv-python==5\.0\.0\.93"):
        planning.check_ready((experts.get("people"),))
    planning.check_ready((experts.get("dis"),))


def test_a_model_file_that_is_not_the_pinned_one_is_told_before_any_clip_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_clips: Callable[..., Path]
) -> None:
    """Cut short, or of other bytes: which file, what is wrong, and what to run; nothing is begun."""
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    asset = assets.get("fastdepth")
    assets.place(asset).parent.mkdir(parents=True)
    videos = make_clips(tmp_path / "videos", ["a"])
    build = ["build", "--source", "folder", "--videos", str(videos), "--out", str(tmp_path / "d"), "--workers", "0"]
    for size, problem in ((1000, f"{asset.size} bytes, got 1000"), (asset.size, f"SHA-256 {asset.sha256}, got ")):
        assets.place(asset).write_bytes(bytes(size))
        result = CliRunner().invoke(openuni, [*build, "--experts", "fastdepth"])
        assert result.exit_code == 1
        said = " ".join(result.output.split())
        assert f"{assets.place(asset)} is not the pinned file: expected {problem}" in said
        assert "Run `openuni assets fetch fastdepth`" in said
        assert not (tmp_path / "d").exists()
