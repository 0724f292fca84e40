"""Runs scored end to end in one process: statuses, penalties, pooling, order, protocols and truth digests."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from openuni.errors import InvalidAnnotationError
from unibench import tasks
from unibench.metrics.depth import DepthMetric, DepthTruth
from unibench.scoring.protocol import Protocol, differences
from unibench.scoring.runs import Folder, open_run
from unibench.scoring.samples import Collector, SampleResult, score_sample, truth_digest
from unibench.tasks import Info
from unibench.tasks.depth import DepthOptions

METRIC = Info(tasks={"depth": DepthOptions("metric")})
PROTOCOL = Protocol(("depth", "flow", "segmentation"), truth="t", keys="k")


def write_run(root: Path, seed: int, noise: float, keys: list[str]) -> Folder:
    for number, key in enumerate(keys):
        rng = np.random.default_rng([7, number])
        depth = rng.uniform(1, 20, (3, 12, 16)).astype(np.float32)
        flow = rng.normal(0, 5, (2, 12, 16, 2)).astype(np.float32)
        ids = np.zeros((3, 12, 16), np.uint8)
        ids[:, 2:6, 2:7], ids[:, 7:11, 8:14] = 1, 2
        error = np.random.default_rng([seed, number])
        values = {
            "depth": depth * error.lognormal(0, noise, depth.shape).astype(np.float32),
            "flow": flow + error.normal(0, 10 * noise, flow.shape).astype(np.float32),
            "segmentation": np.roll(ids, int(noise * 10), axis=2),
        }
        for task, value in values.items():
            (root / task).mkdir(parents=True, exist_ok=True)
            np.save(root / task / f"{key}.npy", value)
    return Folder(root, METRIC)


KEYS = ["a", "b", "c", "d"]


def score(predictions: Folder, truth: Folder, protocol: Protocol = PROTOCOL, keys: list[str] = KEYS) -> Collector:
    collected = Collector(protocol)
    for key in keys:
        for task in protocol.tasks:
            collected.add(score_sample(task, key, predictions, truth, protocol))
    return collected


def test_truth_against_itself_is_perfect(tmp_path: Path) -> None:
    truth = write_run(tmp_path / "truth", 0, 0.0, KEYS)
    collected = score(truth, truth)
    assert collected.values("depth")["metric/absrel"] == 0
    assert collected.values("depth")["disparity/absrel"] < 1e-7
    assert collected.values("flow")["epe"] == 0
    assert collected.values("segmentation")["miou"] == 1
    assert collected.values("segmentation")["tube_ap"] == pytest.approx(1, abs=1e-12)


def test_results_survive_json_and_any_order_gives_the_same_numbers(tmp_path: Path) -> None:
    truth = write_run(tmp_path / "truth", 0, 0.0, KEYS)
    found = write_run(tmp_path / "found", 1, 0.1, KEYS)
    adapter = TypeAdapter(SampleResult)
    forward, backward = Collector(PROTOCOL), Collector(PROTOCOL)
    lines = [
        adapter.dump_json(score_sample(task, key, found, truth, PROTOCOL)) for key in KEYS for task in PROTOCOL.tasks
    ]
    for line in lines:
        forward.add(adapter.validate_json(line))
    for line in reversed(lines):
        backward.add(adapter.validate_json(line))
    for task in PROTOCOL.tasks:
        assert forward.values(task) == backward.values(task) == score(found, truth).values(task)


def test_missing_and_unusable_predictions_are_counted_and_left_out(tmp_path: Path) -> None:
    truth = write_run(tmp_path / "truth", 0, 0.0, KEYS)
    found = write_run(tmp_path / "found", 1, 0.1, KEYS)
    (tmp_path / "found" / "depth" / "a.npy").unlink()
    np.save(tmp_path / "found" / "depth" / "b.npy", np.ones((2, 12, 16)))
    collected = score(Folder(Path(found.path), METRIC), truth)
    counts = collected.counts("depth")
    assert asdict(counts) == {"scored": 2, "missing": 1, "unusable": 1, "penalised": 0}
    reasons = {r.key: r.reason for r in collected.of("depth")}
    assert "2 frames predicted, the truth has 3" in reasons["b"]
    alone = score(found, truth, keys=["c", "d"])
    assert collected.values("depth") == alone.values("depth")


def test_penalised_predictions_are_scored_as_if_nothing_were_there(tmp_path: Path) -> None:
    truth = write_run(tmp_path / "truth", 0, 0.0, KEYS)
    found = write_run(tmp_path / "found", 1, 0.1, KEYS)
    for task in PROTOCOL.tasks:
        (tmp_path / "found" / task / "a.npy").unlink()
    found = Folder(Path(found.path), METRIC)
    left_out = score(found, truth)
    penalised = score(found, truth, replace(PROTOCOL, missing="penalise"))
    assert penalised.counts("flow").penalised == 1
    for task, column, worse in (
        ("depth", "disparity/absrel", 1),
        ("flow", "epe", 1),
        ("segmentation", "miou", -1),
        ("segmentation", "frame_ap", -1),
    ):
        assert worse * penalised.values(task)[column] > worse * left_out.values(task)[column], column
    true = truth.load("depth", "a")
    expected = DepthMetric().update("a", tasks.get("depth").nothing(true), DepthTruth(true.values))
    result = next(r for r in penalised.of("depth") if r.key == "a")
    assert result.scores["disparity/absrel"] == expected["disparity/absrel"]


def test_a_truth_that_is_no_truth_is_refused(tmp_path: Path) -> None:
    truth = write_run(tmp_path / "truth", 0, 0.0, ["a"])
    relative = Folder(Path(truth.path), Info(tasks={"depth": DepthOptions("relative")}))
    with pytest.raises(InvalidAnnotationError, match="scores need metres"):
        score_sample("depth", "a", truth, relative, PROTOCOL)


def test_the_fingerprint_changes_with_every_decision() -> None:
    changed = [
        replace(PROTOCOL, tasks=("depth",)),
        replace(PROTOCOL, truth="u"),
        replace(PROTOCOL, keys="l"),
        replace(PROTOCOL, max_depth=10.0),
        replace(PROTOCOL, alignments=("scale",)),
        replace(PROTOCOL, missing="penalise"),
        replace(PROTOCOL, measures={"imaging_quality": "abc"}),
        replace(PROTOCOL, version=0),
    ]
    prints = {p.fingerprint() for p in (PROTOCOL, *changed)}
    assert len(prints) == 1 + len(changed)
    assert PROTOCOL.fingerprint() == TypeAdapter(Protocol).validate_json(json.dumps(asdict(PROTOCOL))).fingerprint()
    assert differences(PROTOCOL, changed[3]) == ["max_depth: 80.0 and 10.0"]


def test_the_truth_digest_names_the_true_bytes(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", 0, 0.0, KEYS)
    same = write_run(tmp_path / "same", 0, 0.0, KEYS)
    other = write_run(tmp_path / "other", 1, 0.1, KEYS)
    tasks = PROTOCOL.tasks
    assert truth_digest(one, tasks) == truth_digest(same, tasks) != truth_digest(other, tasks)
    assert truth_digest(one, ["flow"]) != truth_digest(one, ["depth"])


def test_undefined_scores_are_left_out_of_results(tmp_path: Path) -> None:
    truth = write_run(tmp_path / "truth", 0, 0.0, ["a"])
    result = score_sample("flow", "a", truth, truth, PROTOCOL)
    assert "occluded/epe" not in result.scores
    assert not any(math.isnan(value) for value, _ in result.scores.values())
    assert open_run(tmp_path / "truth", METRIC).values() == ["depth", "flow", "segmentation"]


def test_the_camera_of_the_truth_gives_temporal_errors_on_what_stands_still(tmp_path: Path) -> None:
    from unibench.rendering.render import modalities, render_scene
    from unibench.scenes.families import Spec

    rendered = render_scene(Spec("collide", 3, frames=5, height=64, width=64))
    values = modalities(rendered.truth)
    for task in ("depth", "flow", "camera"):
        (tmp_path / task).mkdir()
    np.save(tmp_path / "depth" / "a.npy", values.depth.values)
    np.savez(tmp_path / "flow" / "a.npz", flow=values.flow.forward, occluded=values.flow.occluded)
    camera = rendered.truth.camera
    np.savez(tmp_path / "camera" / "a.npz", intrinsics=camera.intrinsics, poses=camera.pose)
    run = Folder(tmp_path, METRIC)
    true = tasks.get("depth").load_truth(run, "a")
    moving = np.isin(rendered.truth.ids[:-1], [t.id for t in rendered.truth.things if t.thing])
    assert true.static is not None
    assert true.static[:-1][~moving & np.isfinite(true.values[:-1])].mean() > 0.99
    assert true.static[:-1][moving].mean() < 0.7
    scores = score_sample("depth", "a", run, run, PROTOCOL).scores
    assert 0 <= scores["tae"][0] < scores["tae_published"][0] < 20
