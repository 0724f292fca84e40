"""Truth and predictions in OpenUni's columns: rendered truth, scored against what the light experts see in its RGB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from openuni.errors import AbsentModalityError, OpenUniError
from openuni.experts import Footage
from openuni.experts.dis import Dis
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Segmentation
from openuni.sample import Annotation, Record
from openuni.shards import writer
from openuni_pipelines.score import score_command
from unibench.predictions import open_run
from unibench.protocol import Protocol
from unibench.render import modalities, render_scene
from unibench.scenes.families import Spec
from unibench.scoring import Collector, score_sample, truth_digest

SPECS = [Spec("fall", 1, frames=5, height=64, width=64), Spec("collide", 2, frames=5, height=64, width=64)]


def write(root: Path, samples: dict[str, dict[str, Any]], subset: str = "general") -> Path:
    columns = dict.fromkeys(next(iter(samples.values())), "test-1")
    for key, values in sorted(samples.items()):
        record = Record(key, 5, 64, 64, 16.0, caption="a scene", subset=subset)  # type: ignore[arg-type]
        annotations = {name: v if isinstance(v, str) else Annotation(v) for name, v in values.items()}
        writer.save_sample(root, 0, record, annotations, columns, "run")
    writer.commit_shard(root, 0, sorted(samples), columns, "run")
    writer.write_manifest(root, {"source": "test"}, columns, len(samples), 1, "run")
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Exact truth, and what is predicted for it: flow by DIS, depth as it is stored, one depth absent."""
    root = tmp_path_factory.mktemp("columns")
    truth, predicted = {}, {}
    for number, spec in enumerate(SPECS):
        rendered = render_scene(spec)
        values = modalities(rendered.truth)
        rgb = Rgb(rendered.rgb, 16.0, exact=True)
        truth[rendered.key] = {
            "rgb": rgb,
            "depth": values.depth,
            "flow": values.flow,
            "segmentation": values.segmentation,
        }
        footage = Footage(rendered.key, rendered.rgb, 16.0, {})
        predicted[rendered.key] = {
            "rgb": rgb,
            "depth": "the lens was dirty" if number else type(values.depth)(values.depth.values, "relative"),
            "flow": Dis().annotate(footage).value,
            "segmentation": Segmentation(values.segmentation.ids, values.segmentation.instances),
        }
    return write(root / "truth", truth), write(root / "predicted", predicted)


def test_columns_are_scored_and_an_absent_one_is_missing(sets: tuple[Path, Path]) -> None:
    truth, predicted = (open_run(path) for path in sets)
    assert truth.values() == ["depth", "flow", "segmentation", "video"]
    assert len(predicted.keys("depth")) == 1
    protocol = Protocol(("depth", "flow", "segmentation"), truth_digest(truth, ("depth",)), "k")
    collected = Collector(protocol)
    for key in truth.keys("depth"):
        for task in protocol.tasks:
            collected.add(score_sample(task, key, predicted, truth, protocol))
    assert collected.counts("depth").missing == 1
    assert "the lens was dirty" in next(r.reason for r in collected.of("depth") if r.status == "missing")
    assert collected.values("depth")["disparity/absrel"] < 1e-3
    assert "metric/absrel" not in collected.values("depth")
    assert 0 < collected.values("flow")["epe"] < 3
    assert "occluded/epe" in collected.values("flow")
    assert collected.values("segmentation")["tube_ap"] == pytest.approx(1, abs=1e-12)


def test_the_command_scores_columns_by_subset_and_views_for_consistency(
    sets: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = ["--pred", str(sets[1]), "--gt", str(sets[0]), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(score_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert list(json.loads((tmp_path / "out" / "report.json").read_text())["tasks"]) == [
        "depth",
        "flow",
        "segmentation",
    ]
    more = [*arguments, "--tasks", "depth,consistency,physics"]
    done = CliRunner().invoke(score_command, more, catch_exceptions=False)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["tasks"]) == ["depth", "consistency", "physics"]
    assert report["tasks"]["physics"]["columns"]["spatiotemporal"]["value"] == 1  # the predicted RGB is the true one
    consistency = report["tasks"]["consistency"]["columns"]
    assert consistency["warp_gain"]["value"] > 0
    assert consistency["ids_along_flow"]["value"] > 0.8
    assert report["tasks"]["depth"]["counts"] == {"scored": 1, "missing": 1, "unusable": 0, "penalised": 0}
    with pytest.raises(OpenUniError, match="nothing to score"):
        CliRunner().invoke(score_command, [*arguments, "--subset", "two_person"], catch_exceptions=False)


def test_an_absent_truth_is_no_sample(sets: tuple[Path, Path]) -> None:
    predicted = open_run(sets[1])
    (absent,) = set(predicted.keys("flow")) - set(predicted.keys("depth"))
    with pytest.raises(AbsentModalityError, match="the lens was dirty"):
        predicted.load("depth", absent)
