"""Predictions in a plain folder, two runs against each other, and the samples of a training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import openuni
import unibench
from openuni.errors import OpenUniError
from openuni.sample import Record
from openuni.shards import view, writer
from openuni_pipelines.engine.viewing import scores
from openuni_pipelines.engine.viewing.catalogue import Query
from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.opening import names, opened
from openuni_pipelines.engine.viewing.publishing import publish
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background
from openuni_pipelines.engine.viewing.sources import Plain, Steps, open_source
from tests.openuni_pipelines.engine.viewing.bars import COLUMNS, H, T, W, burnt, get, settled
from unibench.report import report


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("truth") / "truth"
    for key in ("one", "two"):
        record = Record(key, T, H, W, 12.0, caption=f"clip {key}", source="toy", source_id=key, video_id=key)
        writer.save_sample(root, 0, record, burnt(12.0), COLUMNS, "run")
    writer.commit_shard(root, 0, ["one", "two"], COLUMNS, "run")
    writer.write_manifest(root, {"source": "toy"}, COLUMNS, 2, 1, "run")
    return root


def predict(folder: Path, truth: Path, factors: dict[str, float]) -> Path:
    """A plain folder of depth: the truth's times a ramp, worse with a larger factor."""
    (folder / "depth").mkdir(parents=True)
    for key, factor in factors.items():
        values = openuni.open(truth)[key].depth.values
        ramp = 1 + factor * np.linspace(0, 1, W, dtype=np.float32)
        np.savez(folder / "depth" / f"{key}.npz", depth=values * ramp)
    (folder / "predictions.json").write_text('{"depth": {"kind": "metric"}}')
    config = unibench.ScoreConfig(tasks=("depth",), out=folder / "score", page=False)
    unibench.score(folder, str(truth), config=config)
    return folder


WHERE = """name => { const { left, top } = [...document.querySelectorAll('.pane')]
  .find(pane => pane.getAttribute('aria-label').startsWith(name)).getBoundingClientRect(); return [left, top] }"""


def test_a_plain_folder_stands_beside_its_truth_worst_first(truth: Path, tmp_path: Path, page: Any) -> None:
    a = predict(tmp_path / "a", truth, {"one": 0.1, "two": 0.9})
    b = predict(tmp_path / "b", truth, {"one": 0.5, "two": 0.2})
    shown = [str(a), str(b)]
    clips, others = opened(shown, str(truth))
    reports = [report.read(a / "score"), report.read(b / "score")]
    scored = scores.of_runs(dict(zip(names(shown), reports, strict=True)))
    viewer = Viewer(clips, Flags(tmp_path / "flags.jsonl"), others, scored)
    open_in_background(viewer)
    about = get(viewer, "/api/about")[1]
    assert about["columns"] == ["depth"]
    assert about["others"] == ["truth", "error", "b", "error of b"]
    assert {row["name"] for row in about["compared"]} >= {about["begin"]["sort"]}
    assert list(about["runs"]) == ["a", "b"]
    first, second = get(viewer, "/api/clip", key="two")[1]["scores"][about["begin"]["sort"]]
    assert first > second > 0
    query = json.dumps(about["begin"])
    cards = get(viewer, "/api/cards", query=query, first=0, count=9)[1]["cards"]
    assert [card["key"] for card in cards] == ["two", "one"]
    assert cards[0]["value"] > cards[1]["value"]
    difference = about["begin"]["sort"] + ": b − a"
    cards = get(viewer, "/api/cards", query=json.dumps({"sort": difference}), first=0, count=9)[1]["cards"]
    assert cards[0]["value"] < 0 < cards[1]["value"]
    read = {
        source: get(viewer, "/api/readings", key="two", column="depth", source=source, frame=7, y=3, x=W - 1)[1]
        for source in ("", "truth", "b")
    }
    true = read["truth"][0]["value"]
    assert read[""][0]["value"] == pytest.approx(true * 1.9, rel=1e-5)
    assert read["b"][0]["value"] == pytest.approx(true * 1.2, rel=1e-5)
    for source in ("", "truth", "error", "b", "error of b"):
        assert get(viewer, "/api/frame", key="two", column="depth", source=source, frame=7)[0] == 200
    assert get(viewer, "/api/thumbnail", key="two")[0] == 200
    page.goto(f"{viewer.url}#clip=two&frame=7")
    settled(page, 7)
    # The truth stays in its place in a row that the runs have nothing for.
    assert page.evaluate(WHERE, "truth: flow")[0] == page.evaluate(WHERE, "truth: depth")[0]
    assert page.evaluate(WHERE, "b: depth")[1] == page.evaluate(WHERE, "truth: depth")[1]
    assert page.locator("#scores tr").first.inner_text().split() == ["score", "a", "b", "difference"]
    viewer.close()


def test_a_plain_folder_alone_has_what_its_files_say(truth: Path, tmp_path: Path) -> None:
    source = open_source(str(predict(tmp_path / "a", truth, {"one": 0.1})))
    assert isinstance(source, Plain)
    assert (len(source), source.columns, "one" in source, "two" in source) == (1, ["depth"], True, False)
    record = source.sample("one").record
    assert (record.frames, record.height, record.width) == (T, H, W)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OpenUniError, match="no folder of predictions"):
        open_source(str(tmp_path / "empty"))


def test_a_view_shows_its_clips_alone(truth: Path, tmp_path: Path) -> None:
    view.write(tmp_path / "chosen.json", view.View(str(truth), {}, [], ["two"]), "run")
    viewer = Viewer(Clips(open_source(str(tmp_path / "chosen.json"))), Flags(tmp_path / "flags.jsonl"))
    cards = viewer.catalogue.cards(viewer.catalogue.find(Query(sort="frames")), "frames")
    assert [(card.key, card.value) for card in cards] == [("two", T)]
    assert publish(viewer, tmp_path / "out") == 1
    assert (tmp_path / "out/data/two/clip.json").is_file()


def test_a_view_is_truth_for_scores_and_beside_a_run(truth: Path, tmp_path: Path) -> None:
    chosen = str(tmp_path / "chosen.json")
    view.write(chosen, view.View(str(truth), {}, [], ["two"]), "run")
    run = predict(tmp_path / "run", truth, {"one": 0.1, "two": 0.9})
    config = unibench.ScoreConfig(tasks=("depth",), out=tmp_path / "score", page=False)
    made = unibench.score(run, chosen, config=config)
    assert [sample.key for sample in made.samples] == ["two"]
    (whole,) = [sample for sample in report.read(run / "score").samples if sample.key == "two"]
    assert made.samples[0].scores == whole.scores
    clips, (true, error) = opened([str(run)], chosen)
    assert [("one" in one.data, "two" in one.data) for one in (clips, true)] == [(True, True), (False, True)]
    assert error.frame("two", "depth", 7) != error.frame("two", "depth", 0)
    with pytest.raises(OpenUniError, match=r"chosen\.json is a view, a file: name the folder of its report with --out"):
        unibench.score(chosen, str(truth), config=replace(config, out=None))
    of_view = unibench.score(chosen, chosen, config=config)  # a view may be both
    assert [sample.status for sample in of_view.samples] == ["scored"]


def test_the_samples_of_a_training_are_frames(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for step in (500, 1000):
        cv2.imwrite(str(tmp_path / "samples" / f"{step:08d}.png"), np.full((8, 12, 3), step // 10, np.uint8))
    source = open_source(str(tmp_path))
    assert isinstance(source, Steps)
    sample = source.sample("samples")
    assert sample.caption == "samples after 2 steps from 500 to 1000"
    assert Clips(source).facts("samples").moments == ["step 500", "step 1000"]
    assert sample.rgb.frames[:, 0, 0, 0].tolist() == [50, 100]
    assert source.table(0, 1)["frames"].to_pylist() == [2]


def test_the_report_says_how_to_look_at_each_sample_and_looks_like_the_viewer(truth: Path, tmp_path: Path) -> None:
    folder = predict(tmp_path / "a", truth, {"one": 0.1, "two": 0.9})
    config = unibench.ScoreConfig(tasks=("depth",), out=folder / "again", page=True)
    unibench.score(folder, str(truth), config=config)
    html = next((folder / "again").glob("*.html")).read_text("utf-8")
    command = f"openuni view --pred {folder} --gt {truth} --clip two"
    assert command in html
    clips, others = opened([str(folder)], str(truth))
    viewer = Viewer(clips, Flags(tmp_path / "flags.jsonl"), others)
    assert viewer.link("two") == f"{viewer.url}#clip=two"
    with pytest.raises(OpenUniError, match="three"):
        viewer.link("three")
    look = viewer.answer("/look.css", {}).body.decode()
    assert "--paper:" in look
    assert look in html
