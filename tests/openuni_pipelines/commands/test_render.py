"""`unibench render` and `unibench import` as a user calls them, read back by the dataset's own reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from openuni.errors import AbsentModalityError, CorruptDataError, OpenUniError, PlanError
from openuni.shards import layout
from openuni.shards.reader import Dataset
from openuni.video import decode_video
from openuni_pipelines.commands.import_truth import import_command
from openuni_pipelines.commands.render import render_command
from openuni_pipelines.engine.rendering import SceneSet
from unibench import standard
from unibench.formats.sidecar import SideCar, read_camera
from unibench.rendering.render import modalities, render_scene
from unibench.scenes.families import Spec

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
    data = Dataset(str(rendered))
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


def test_side_cars_read_back_as_they_were_written(rendered: Path) -> None:
    for sample in Dataset(str(rendered)):
        side = SideCar.of(rendered, sample.key)
        family, seed = sample.record.source_id.split(":")
        again = render_scene(Spec(family, int(seed), 3, 32, 32))
        np.testing.assert_array_equal(side.camera.intrinsics, again.truth.camera.intrinsics)
        np.testing.assert_array_equal(side.normals, again.truth.normals)
        for name in ("position", "rotation", "velocity", "angular_velocity", "mass", "restitution", "gravity"):
            np.testing.assert_array_equal(getattr(side.state, name), getattr(again.state, name), err_msg=name)
        assert side.state.names == again.state.names
        assert side.state.contacts == again.state.contacts


def test_a_damaged_or_missing_side_car_is_named(rendered: Path, tmp_path: Path) -> None:
    key = next(iter(Dataset(str(rendered)))).key
    side = SideCar.of(tmp_path, key)
    with pytest.raises(AbsentModalityError, match=r"camera\.npz"):
        _ = side.camera
    side.folder.mkdir(parents=True)
    for name in ("camera.npz", "normals.npz", "state.json"):
        whole = (rendered / "truth" / key / name).read_bytes()
        (side.folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CorruptDataError, match=name):
            getattr(side, name.partition(".")[0])
    with pytest.raises(OpenUniError, match="key"):
        SideCar.of(tmp_path, "../elsewhere")


def test_the_documented_way_to_read_truth_works(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "ground_truth.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "unibench").symlink_to(rendered)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["normals"].shape == (3, 32, 32, 3)
    assert names["flow"].occluded.shape == names["flow"].backward.shape[:3]
    assert names["state"].velocity.shape[0] == names["pose"].shape[0] == 3
    seen = np.isfinite(names["points"]).all(axis=1)
    assert names["points"][seen][:, 2].min() > -1e-5  # nothing lies below the floor


def test_every_scene_leaves_a_contact_sheet_and_a_film_of_all_its_views(rendered: Path) -> None:
    for sample in Dataset(str(rendered)):
        sheet = cv2.imread(str(rendered / "previews" / f"{sample.key}.png"))
        assert sheet.shape[1] > 6 * 200  # RGB and five views
        film, fps = decode_video(rendered / "previews" / f"{sample.key}.mp4")
        views = 7 if "skeleton" in sample else 5  # RGB, depth, flow, ids, normals; of people also joints and parts
        assert film.shape == (3, 32, 32 * views, 3)
        assert fps == 16
        # Four by four pixels share a colour sample and the codec loses some: the picture is still that of the clip.
        assert np.abs(film[:, :, :32].astype(int) - sample.rgb.frames).mean() < 12


def test_training_data_have_another_split_than_truth_to_score_on(tmp_path: Path) -> None:
    recipe = SceneSet(200, 2, 16, 16.0, 0, ("fall",), "shaded", 64)
    assert {recipe.split(scene) for scene in range(200)} == {"test"}
    splits = [replace(recipe, purpose="train").split(scene) for scene in range(200)]
    assert set(splits) == {"train", "val"}
    assert 3 <= splits.count("val") <= 20
    small = ["--scenes", "2", "--frames", "2", "--size", "16", "--families", "fall", "--for", "train", "--no-previews"]
    run(render_command, "--out", str(tmp_path / "t"), *small, "--workers", "0")
    assert {sample.record.split for sample in Dataset(str(tmp_path / "t"))} <= {"train", "val"}
    assert not (tmp_path / "t" / "previews").exists()


def test_a_standard_set_is_rendered_by_name_and_compared_with_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(standard.get("ci"), scenes=3, frames=2, size=16)
    monkeypatch.setattr("unibench.standard.get", lambda name: small)
    record = {standard.key(spec): standard.fingerprint(spec) for spec in small.specs()}
    monkeypatch.setattr("unibench.standard.recorded", lambda wanted: record)
    monkeypatch.chdir(tmp_path)
    output = run(render_command, "--standard", "ci", "--workers", "0")
    assert "all 3 scenes" in output
    assert len(Dataset("data/unibench-ci")) == 3
    with pytest.raises(OpenUniError, match="--seed"):
        run(render_command, "--standard", "ci", "--seed", "4")
    record["bounce-1000001"] = "another"
    with pytest.raises(CorruptDataError, match=r"1 of 3 scenes .*bounce-1000001"):
        run(render_command, "--standard", "ci", "--workers", "0")


@pytest.mark.slow
def test_the_standard_set_for_ci_is_as_recorded(tmp_path: Path) -> None:
    output = run(render_command, "--standard", "ci", "--out", str(tmp_path / "ci"), "--workers", "0")
    assert "all 28 scenes" in output


def test_a_second_run_changes_nothing_and_another_recipe_is_refused(rendered: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (rendered / "shards").iterdir()}
    run(render_command, "--out", str(rendered), *SMALL, "--workers", "0")
    assert {path: path.stat().st_mtime_ns for path in (rendered / "shards").iterdir()} == before
    with pytest.raises(PlanError, match="seed"):
        run(render_command, "--out", str(rendered), *SMALL, "--workers", "0", "--seed", "9")


def test_a_scene_is_made_again_from_its_key(rendered: Path, tmp_path: Path) -> None:
    one = ["--scenes", "1", "--families", "walk", "--seed", "1", "--frames", "3", "--size", "32"]
    run(render_command, "--out", str(tmp_path / "one"), *one, "--workers", "0")
    (again,) = Dataset(str(tmp_path / "one"))
    np.testing.assert_array_equal(again.rgb.frames, Dataset(str(rendered))["000001-walk-1"].rgb.frames)


def test_nothing_of_the_work_is_left_when_a_set_is_complete(rendered: Path) -> None:
    assert not (rendered / layout.WORK).exists()
    (rendered / layout.work_name(1)).mkdir(parents=True)  # as a kill just after the shard's commit leaves it
    run(render_command, "--out", str(rendered), *SMALL, "--workers", "0")
    assert not (rendered / layout.WORK).exists()


def test_a_damaged_manifest_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"configuration"')
    with pytest.raises(CorruptDataError, match=r"dataset\.json"):
        run(render_command, "--out", str(tmp_path), *SMALL, "--workers", "0")


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
    assert "1 clip:" in output
    (sample,) = Dataset(str(tmp_path / "gt"))
    np.testing.assert_array_equal(sample.depth.values, clip.truth.depth)
    np.testing.assert_array_equal(sample.rgb.frames, clip.rgb)
    assert "sintel has none" in sample.statuses["skeleton"].reason
