"""The bare command and `openuni sources`, against a local server with the hub's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("duckdb")
pytest.importorskip("huggingface_hub")

import openuni as package
from openuni.shards import layout, plan
from openuni.sources.download import files
from openuni_pipelines.cli import openuni
from openuni_pipelines.terminal import EXIT_WITH_FAILURES
from tests.web import Web, serving

NAMES = "videoID,url,timestamp,caption,clarity_score,aesthetic_score,motion_score,video_training_suitability_score\n"
ROWS = "".join(
    f'video{n}_1,https://x/{n},"[\'0:00:01\', \'0:00:04\']","A dog, ""{n}"".",0.9,{n},2.0,4.4\n' for n in range(10)
)
HUB = "Koala-36M/Koala-36M-v1"
TABLE = Web.published(HUB, "Koala_36M_1.csv")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("OPENUNI_SOURCES", str(tmp_path / "sources"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    with serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        publish(served, ROWS)
        yield served


def publish(hub: Web, rows: str) -> None:
    hub.publish(HUB, "cc-by-nc-4.0", {"Koala_36M_1.csv": (NAMES + rows).encode(), "README.md": b"x"})


def run(*arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(openuni, [*map(str, arguments)], input=answer)


def test_from_the_bare_command_to_a_plan(hub: Web, tmp_path: Path) -> None:
    bare = ("plan", "--source", "koala36m", "--experts", "dis", "--workers", "0", "--out", tmp_path / "d")
    lost = run(*bare)
    assert lost.exit_code == 1
    assert "next: openuni sources fetch koala36m" in lost.output
    assert not (tmp_path / "d").exists()

    refused = run("sources", "fetch", "koala36m", answer="n\n")
    assert refused.exit_code == 1
    assert "1 file, " in refused.output
    assert "non-commercial research only (its card: cc-by-nc-4.0)" in refused.output
    assert not any("resolve" in asked for asked, _ in hub.asked)

    fetched = run("sources", "fetch", "koala36m", "--yes")
    assert fetched.exit_code == 0, fetched.output
    table = tmp_path / "sources" / "koala36m" / "metadata" / "Koala_36M_1.csv"
    assert table.read_bytes() == hub.files[TABLE]

    lacking = run(*bare)
    assert "videos" in lacking.output
    assert "put the videos there" in " ".join(lacking.output.split())
    videos = table.parents[1] / "videos"
    videos.mkdir()
    for n in range(4):
        (videos / f"video{n}.mp4").touch()
    done = run(*bare, "--at-least", "aesthetic_score=2")
    assert done.exit_code == 0, done.output
    assert [clip.key for clip in plan.Plan(tmp_path / "d" / layout.PLAN)] == ["video2_1", "video3_1"]
    assert "koala36m" in run("sources", "list").output


def test_from_the_bare_command_to_verified_shards_against_faulty_servers(
    hub: Web, make_clips: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user does, and nothing else: every command is the one that the command before named."""
    monkeypatch.setattr(files, "SILENT_SECONDS", 0.2)
    answers: dict[str, list[tuple[int | str, dict[str, str]]]] = {
        "good": [],
        "later": [(429, {"Retry-After": "0"}), (503, {})],
        "slow": [("slow", {})],
        "halves": [("cut", {})],
        "gone": [(404, {})] * 9,
        "blocked": [(403, {})] * 9,
        "broken": [(500, {})] * 3,
    }
    made = make_clips(tmp_path / "made", list(answers), frames=24)
    hub.files |= {f"/{name}.mp4": (made / f"{name}.mp4").read_bytes() for name in answers}
    hub.before = {f"/{name}.mp4": faults for name, faults in answers.items()}
    hub.before[TABLE] = [("cut", {})]
    rows = [
        f"{name}_{n},{hub.address}/{name}.mp4,\"['0:00:00.{n}00000', '0:00:01.{n}00000']\",\"It, {n}\",.9,{n},2,4\n"
        for name in answers
        for n in (1, 4)
    ]
    rows.append(f"good_9,{hub.address}/good.mp4,\"['9:00:00.1', '9:00:01.1']\",After its end,.9,1,2,4\n")
    publish(hub, "".join(rows) + "lost,too,few\n")

    bare = ("build", "--source", "koala36m", "--experts", "dis", "--workers", "0")
    lost = run(*bare)
    assert (lost.exit_code, "next: openuni sources fetch koala36m" in lost.output) == (1, True)
    while run("sources", "fetch", "koala36m", "--yes").exit_code:
        assert hub.count(TABLE) < 9
    lost = run(*bare)
    assert (lost.exit_code, "openuni sources download --source koala36m" in lost.output) == (1, True)
    # Each video once and again: a server that throttles, and one that is broken for a while.
    asking = ("sources", "download", "--source", "koala36m", "--a-minute", 60_000, "--pause", "0.01")
    first = run(*asking)
    assert first.exit_code == 0, first.output
    assert "1 are open: run the same command again" in first.output
    second = run(*asking)
    assert second.exit_code == 0, second.output
    outcomes = dict(line.split()[:2] for line in second.output.splitlines() if line.startswith((" gone ", " blocked ")))
    assert outcomes == {"gone": "1", "blocked": "1"}
    built = run(*bare)
    assert built.exit_code == EXIT_WITH_FAILURES, built.output
    assert "the span starts at 32400.1 s" in " ".join(built.output.split())
    assert run("verify", "data/koala36m", "--workers", "0").exit_code == 0
    counted = json.loads(run("stats", "data/koala36m", "--json", "--rows", "1").stdout)
    assert counted["samples"] == 10
    assert [(step["what"], step["left"]) for step in counted["funnel"]] == [
        ("rows", 16), ("malformed rows", 15), ("video missing", 11), ("clips", 11), ("clips in the dataset", 10)
    ]  # fmt: skip
    assert (tmp_path / "data" / "koala36m" / "funnel.png").exists()
    data = package.open(tmp_path / "data" / "koala36m")
    assert [sample.key for sample in data] == sorted(
        f"{name}_{n}" for name in ("good", "later", "slow", "halves", "broken") for n in (1, 4)
    )
    sample = data[0]
    assert (sample.caption, sample.record.license) == ("It, 1", "Koala-36M: non-commercial research only")
    assert len(sample.rgb.frames) == 16


def test_a_download_that_is_cut_off_goes_on(hub: Web, tmp_path: Path) -> None:
    publish(hub, ROWS * 200)
    hub.before[TABLE] = [("cut", {})]
    for _ in range(2):
        done = run("sources", "fetch", "koala36m", "--yes")
        if done.exit_code == 0:
            break
        assert "run the same command again" in " ".join(done.output.split())
    table = tmp_path / "sources" / "koala36m" / "metadata" / "Koala_36M_1.csv"
    assert table.read_bytes() == hub.files[TABLE]
    hub.asked.clear()
    assert run("sources", "fetch", "koala36m", "--yes").exit_code == 0
    assert not any("resolve" in asked for asked, _ in hub.asked)  # what is there is kept


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    done = run("sources", "fetch", "koala36m", "--yes")
    assert done.exit_code == 1
    assert "cannot be had from the hub" in done.output
    none = run("sources", "fetch", "panda70m", "--yes")
    assert none.exit_code == 1
    assert "are not on the hub; put them into" in " ".join(none.output.split())
