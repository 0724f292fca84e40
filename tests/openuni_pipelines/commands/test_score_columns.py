"""Truth and predictions in OpenUni's columns: rendered truth, scored against what the light experts see in its RGB."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from openuni.errors import AbsentModalityError, CorruptDataError, InvalidAnnotationError, OpenUniError
from openuni.experts import DecodedClip
from openuni.experts.dis import Dis
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Segmentation
from openuni.sample import Annotation, Record
from openuni.shards import writer
from openuni_pipelines.cli import unibench
from openuni_pipelines.commands.score import score_command
from openuni_pipelines.engine.rendering import SceneSet
from unibench import standard, tasks
from unibench.camera import Camera
from unibench.formats import sidecar
from unibench.rendering.render import modalities, render_scene
from unibench.scenes.families import Spec
from unibench.scoring.plan import open_standard
from unibench.scoring.protocol import Protocol
from unibench.scoring.runs import open_run
from unibench.scoring.samples import Collector, score_sample, truth_digest

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
        clip = DecodedClip(rendered.key, rendered.rgb, 16.0, {})
        predicted[rendered.key] = {
            "rgb": rgb,
            "depth": "the lens was dirty" if number else type(values.depth)(values.depth.values, "relative"),
            "flow": Dis().annotate(clip).value,
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


def test_the_only_clip_of_a_video_stands_for_the_video(sets: tuple[Path, Path], tmp_path: Path) -> None:
    """Truth keyed `a` and `b`; predictions as a build names them: `a-0000` of a.mp4, and b.mp4 cut in two."""
    true = open_run(sets[0]).load("flow", open_run(sets[0]).keys("flow")[0])
    columns = {"flow": "test-1", "rgb": "test-1"}
    rgb = Rgb(np.zeros((5, 64, 64, 3), np.uint8), 16.0)
    clips = [("a-0000", "a.mp4"), ("b-0000", "b.mp4"), ("b-0001", "b.mp4")]
    for key, video in clips:
        record = Record(key, 5, 64, 64, 16.0, source="folder", video_id=video)
        writer.save_sample(tmp_path, 0, record, {"flow": Annotation(true), "rgb": Annotation(rgb)}, columns, "run")
    writer.commit_shard(tmp_path, 0, [key for key, _ in clips], columns, "run")
    writer.write_manifest(tmp_path, {"source": "test"}, columns, 3, 1, "run")
    run = open_run(tmp_path)
    assert run.has("flow", "a")
    assert run.has("flow", "b-0001")
    assert not run.has("flow", "b")
    assert not run.has("depth", "a")
    np.testing.assert_array_equal(run.load("flow", "a").forward, run.load("flow", "a-0000").forward)
    with pytest.raises(AbsentModalityError, match="'b' was cut into 2 clips"):
        run.load("flow", "b")
    with pytest.raises(AbsentModalityError, match="no sample 'c'"):
        run.fps("c")


def test_the_side_car_camera_gives_temporal_errors_and_names_the_truth(sets: tuple[Path, Path], tmp_path: Path) -> None:
    root = tmp_path / "truth"
    shutil.copytree(sets[0], root)
    rendered = render_scene(SPECS[1])
    without = open_run(root)
    assert without.camera(rendered.key) is None
    assert tasks.get("depth").load_truth(without, rendered.key).static is None
    before = truth_digest(without, ["depth"])
    folder = root / sidecar.FOLDER / rendered.key
    folder.mkdir(parents=True)
    (folder / "camera.npz").write_bytes(sidecar.encode_camera(rendered.truth.camera))
    truth = open_run(root)
    assert truth_digest(truth, ["depth"]) != before
    assert truth_digest(truth, ["segmentation"]) == truth_digest(without, ["segmentation"])
    true = tasks.get("depth").load_truth(truth, rendered.key)
    np.testing.assert_array_equal(true.poses, rendered.truth.camera.pose)
    moving = np.isin(rendered.truth.ids[:-1], [t.id for t in rendered.truth.things if t.thing])
    assert true.static[:-1][~moving & np.isfinite(true.values[:-1])].mean() > 0.99
    protocol = Protocol(("depth",), truth_digest(truth, ("depth",)), "k")
    assert 0 <= score_sample("depth", rendered.key, truth, truth, protocol).scores["tae"][0] < 20

    camera = rendered.truth.camera
    short = Camera(camera.intrinsics[:3], camera.pose[:3], camera.height, camera.width)
    (folder / "camera.npz").write_bytes(sidecar.encode_camera(short))
    with pytest.raises(InvalidAnnotationError, match="3 frames; the clip has 5"):
        tasks.get("depth").load_truth(truth, rendered.key)
    flat = Camera(camera.intrinsics, np.zeros_like(camera.pose), camera.height, camera.width)
    (folder / "camera.npz").write_bytes(sidecar.encode_camera(flat))
    with pytest.raises(InvalidAnnotationError, match="no inverse"):
        truth.camera(rendered.key)
    (folder / "camera.npz").write_bytes(b"no archive")
    with pytest.raises(CorruptDataError, match=r"camera\.npz"):
        truth.camera(rendered.key)


def test_without_gt_the_standard_set_is_found_or_the_command_that_renders_it_is_named(
    sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OpenUniError, match=r"unibench render --standard estimation"):
        open_standard()
    CliRunner().invoke(unibench, ["render", "--out", "data/unibench", "--scenes", "1", "--size", "32", "--frames", "2",
                                  "--families", "fall", "--workers", "0"])  # fmt: skip
    with pytest.raises(OpenUniError, match=r"another set .*scenes, frames, size, seed, families"):
        open_standard()
    small = replace(standard.get("estimation"), scenes=1, frames=2, size=32, seed=0, families=("fall",))
    monkeypatch.setattr("unibench.standard.get", lambda name: small)
    assert len(open_standard().keys("depth")) == 1


def test_the_command_in_the_message_renders_the_frozen_set() -> None:
    """The scenes of `unibench render --standard` are those of `unibench.standard`, in order."""
    for named in ("estimation", "ci"):
        wanted = standard.get(named)
        recipe = SceneSet.of(wanted, "shaded", 64)
        keys = [recipe.key(k).partition("-")[2] for k in range(recipe.scenes)]
        assert keys == [standard.key(spec) for spec in wanted.specs()]
