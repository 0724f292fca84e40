"""`unibench render` and `unibench import` as a user calls them, read back by the data set's own reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from openuni.errors import PlanError
from openuni.shards.reader import DataSet
from openuni_pipelines.import_truth import import_command
from openuni_pipelines.render import render_command
from unibench.render import modalities, render_scene
from unibench.scenes.families import Spec
from unibench.sidecar import read_camera

SMALL = ["--scenes", "3", "--frames", "3", "--size", "32", "--families", "fall,walk", "--shard-size", "2"]


def run(command: object, *arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered") / "gt"
    run(render_command, "--out", str(out), *SMALL, "--workers", "0")
    return out


def test_samples_read_back_exactly_and_can_be_made_again_from_their_key(rendered: Path) -> None:
    data = DataSet(str(rendered))
    assert len(data) == 3
    for sample in data:
        key = sample.key
        family, seed = sample.record.source_id.split(":")
        again = render_scene(Spec(family, int(seed), 3, 32, 32))
        values = modalities(again.truth)
        np.testing.assert_array_equal(sample.rgb.frames, again.rgb)
        np.testing.assert_array_equal(sample.depth.values, values.depth.values)
        np.testing.assert_array_equal(sample.flow.forward, values.flow.forward)
        np.testing.assert_array_equal(sample.flow.backward_occluded, values.flow.backward_occluded)
        np.testing.assert_array_equal(sample.segmentation.ids, values.segmentation.ids)
        assert sample.caption == again.caption
        assert ("skeleton" in sample) == (family == "walk")
        if family == "walk":
            np.testing.assert_array_equal(sample.skeleton.keypoints, values.skeleton.keypoints)
            np.testing.assert_array_equal(sample.densepose.values, values.densepose.values)
            assert sample.record.subset == "single_person"
        folder = rendered / "truth" / key
        np.testing.assert_array_equal(read_camera(folder / "camera.npz").pose, again.truth.camera.pose)
        state = json.loads((folder / "state.json").read_text())
        assert state["truth_sha256"] == again.truth.digest() == json.loads((rendered / "truth.json").read_text())[key]
        np.testing.assert_array_equal(np.array(state["position"]).ravel(), again.state.position.ravel())


def test_a_second_run_changes_nothing_and_another_recipe_is_refused(rendered: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (rendered / "shards").iterdir()}
    run(render_command, "--out", str(rendered), *SMALL, "--workers", "0")
    assert {path: path.stat().st_mtime_ns for path in (rendered / "shards").iterdir()} == before
    with pytest.raises(PlanError, match="seed"):
        run(render_command, "--out", str(rendered), *SMALL, "--workers", "0", "--seed", "9")


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_as_none(rendered: Path, tmp_path: Path) -> None:
    run(render_command, "--out", str(tmp_path / "gt"), *SMALL, "--workers", "2")
    for path in (rendered / "shards").iterdir():
        assert (tmp_path / "gt" / "shards" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (tmp_path / "gt" / "truth.json").read_bytes() == (rendered / "truth.json").read_bytes()


def test_imported_truth_reads_back(tmp_path: Path) -> None:
    from tests.unibench.importers.clips import panning
    from tests.unibench.importers.test_middlebury import write_sintel

    clip = panning()
    write_sintel(tmp_path / "sintel" / "training", clip)
    output = run(import_command, str(tmp_path / "sintel"), "--format", "sintel", "--out", str(tmp_path / "gt"))
    assert "1 clips" in output
    (sample,) = DataSet(str(tmp_path / "gt"))
    np.testing.assert_array_equal(sample.depth.values, clip.truth.depth)
    np.testing.assert_array_equal(sample.rgb.frames, clip.rgb)
    assert "sintel has none" in sample.statuses["skeleton"].reason
