"""Every ordinary file that is read, and the rules by which predictions come onto the truth's frames."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from openuni.errors import AbsentModalityError, InvalidAnnotationError, OpenUniError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.video import encode_video
from unibench import tasks
from unibench.metrics.video import Video
from unibench.scoring.runs import open_run, read_info
from unibench.tasks import Info
from unibench.tasks.depth import DepthOptions

METRIC = Info(tasks={"depth": DepthOptions("metric")})


def resample(task: str, value: Any, frames: int, height: int, width: int, rates: Any) -> Any:
    return tasks.get_stored(task).resample(value, (frames, height, width), rates or (None, None))


@pytest.fixture
def depth() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 9, (3, 6, 8)).astype(np.float32)


def test_depth_of_every_kind_of_file(tmp_path: Path, depth: np.ndarray) -> None:
    folder = tmp_path / "depth"
    (folder / "c").mkdir(parents=True)
    (folder / "d").mkdir()
    (folder / "e").mkdir()
    np.savez(folder / "a_depths.npz", depths=depth, other=depth)
    np.save(folder / "b.npy", depth[..., None])
    for t in (0, 1, 2):
        np.save(folder / "c" / f"f{t * 5}.npy", depth[t])  # f0, f5, f10: natural order
        cv2.imwrite(str(folder / "d" / f"{t:03d}.png"), np.rint(depth[t] * 1000).astype(np.uint16))
        import OpenEXR

        OpenEXR.File({}, {"Z": np.ascontiguousarray(depth[t])}).write(str(folder / "e" / f"{t}.exr"))
    run = open_run(tmp_path, Info(tasks={"depth": DepthOptions("metric", 0.001)}))
    assert run.values() == ["depth"]
    assert run.keys("depth") == ["a", "b", "c", "d", "e"]
    for key in "abce":
        assert np.array_equal(run.load("depth", key).values, depth), key
    assert np.abs(run.load("depth", "d").values - depth).max() <= 0.00051


def test_a_depth_without_a_kind_says_how_to_say_it(tmp_path: Path, depth: np.ndarray) -> None:
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "a.npy", depth)
    with pytest.raises(OpenUniError, match="--depth-kind"):
        open_run(tmp_path).load("depth", "a")
    (tmp_path / "predictions.json").write_text('{"depth": {"kind": "affine_disparity"}, "fps": 12}')
    run = open_run(tmp_path)
    assert run.load("depth", "a").kind == "affine_disparity"
    assert run.fps("a") == 12


@pytest.mark.parametrize("text", ["[]", "{", '{"dept": {}}', '{"depth": {"kind": "inverse"}}', '{"fps": "fast"}'])
def test_a_bad_predictions_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "predictions.json").write_text(text)
    with pytest.raises(OpenUniError, match=r"predictions\.json"):
        read_info(tmp_path)


def test_depths_that_are_no_depths_become_nan(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "a.npy", np.array([[[0.0, -1, np.inf, 2]]]))
    assert np.isnan(open_run(tmp_path, METRIC).load("depth", "a").values).ravel().tolist() == [True, True, True, False]


def test_flow_of_every_kind_of_file(tmp_path: Path) -> None:
    motion = np.random.default_rng(1).normal(0, 3, (2, 5, 7, 2)).astype(np.float32)
    folder = tmp_path / "flow"
    (folder / "flo").mkdir(parents=True)
    (folder / "kitti").mkdir()
    for t in range(2):
        header = b"PIEH" + struct.pack("<ii", 7, 5)
        (folder / "flo" / f"{t}.flo").write_bytes(header + motion[t].tobytes())
        codes = np.rint(motion[t] * 64 + 32768).astype(np.uint16)
        valid = np.ones((5, 7, 1), np.uint16)
        valid[0, 0] = 0
        cv2.imwrite(str(folder / "kitti" / f"{t}.png"), np.concatenate([valid, codes[..., ::-1]], axis=-1))
    np.save(folder / "first.npy", motion.transpose(0, 3, 1, 2))
    run = open_run(tmp_path)
    assert np.array_equal(run.load("flow", "flo").forward, motion)
    assert np.array_equal(run.load("flow", "first").forward, motion)
    kitti = run.load("flow", "kitti").forward
    assert np.isnan(kitti[:, 0, 0]).all()
    assert np.nanmax(np.abs(kitti - motion)) <= 1 / 128 + 1e-5


def test_a_real_flo_file_reads_as_opencv_reads_it(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "flow" / "flyingchairs" / "0000000-gt.flo"
    (tmp_path / "flow" / "chairs").mkdir(parents=True)
    (tmp_path / "flow" / "chairs" / "0.flo").write_bytes(file.read_bytes())
    assert np.array_equal(open_run(tmp_path).load("flow", "chairs").forward[0], cv2.readOpticalFlow(str(file)))


def test_masks_from_palette_grey_and_colour_pictures(tmp_path: Path) -> None:
    from PIL import Image

    ids = np.zeros((2, 6, 9), np.uint8)
    ids[:, 1:3, 1:4], ids[:, 3:5, 4:8] = 1, 7
    for name in ("palette", "grey", "colour"):
        folder = tmp_path / "segmentation" / name
        folder.mkdir(parents=True)
        for t in range(2):
            if name == "palette":
                image = Image.fromarray(ids[t], mode="P")
                image.putpalette([c for k in range(256) for c in (k, 255 - k, k // 2)])
            elif name == "grey":
                image = Image.fromarray(ids[t])
            else:
                colours = np.array([[0, 0, 0]] + [[k * 20, 30, 200] for k in range(1, 8)], np.uint8)
                image = Image.fromarray(colours[ids[t]])
            image.save(folder / f"{t:05d}.png")
    table = [{"id": 1, "class_name": "person", "score": 0.5}, {"id": 7, "class_name": "ball"}]
    (tmp_path / "segmentation" / "grey" / "instances.json").write_text(json.dumps(table))
    run = open_run(tmp_path)
    assert np.array_equal(run.load("segmentation", "palette").ids, ids)
    grey = run.load("segmentation", "grey")
    assert np.array_equal(grey.ids, ids)
    assert grey.instances == (Instance(1, "person", 0.5), Instance(7, "ball"))
    colour = run.load("segmentation", "colour").ids
    assert len(np.unique(colour)) == 3
    assert ((colour == 0) == (ids == 0)).all()
    assert len(np.unique(colour[ids == 7])) == 1


def test_skeletons_and_densepose(tmp_path: Path) -> None:
    points = np.random.default_rng(2).uniform(1, 50, (3, 2, 17, 3)).astype(np.float32)
    points[..., 2] = 0.5
    points[0, 1] = (np.nan, np.nan, 0)
    (tmp_path / "skeleton").mkdir()
    (tmp_path / "densepose").mkdir()
    np.savez(tmp_path / "skeleton" / "a.npz", keypoints=points, size=np.array([60, 80]))
    np.savez(tmp_path / "skeleton" / "b.npz", keypoints=points)
    iuv = np.zeros((3, 5, 5, 3), np.uint8)
    iuv[:, 2, 2] = (3, 10, 20)
    iuv[:, 0, 0] = (0, 9, 9)
    np.save(tmp_path / "densepose" / "a.npy", iuv)
    run = open_run(tmp_path)
    skeleton = run.load("skeleton", "a")
    assert (skeleton.height, skeleton.width) == (60, 80)
    assert np.array_equal(skeleton.boxes[1, 0], [*points[1, 0, :, :2].min(0), *points[1, 0, :, :2].max(0)])
    assert np.isnan(skeleton.boxes[0, 1]).all()
    with pytest.raises(InvalidAnnotationError, match="size"):
        run.load("skeleton", "b")
    values = run.load("densepose", "a").values
    assert values[0, 2, 2].tolist() == [3, 10, 20, 1]
    assert values[0, 0, 0].tolist() == [0, 0, 0, 0]


def test_of_133_predicted_joints_the_body_ranks_people(tmp_path: Path) -> None:
    points = np.random.default_rng(2).uniform(1, 50, (3, 2, 133, 3)).astype(np.float32)
    points[..., 2] = np.random.default_rng(3).uniform(0.1, 1.5, points.shape[:3])
    (tmp_path / "skeleton").mkdir()
    np.savez(tmp_path / "skeleton" / "a.npz", keypoints=points, size=np.array([60, 80]))
    (tmp_path / "predictions.json").write_text('{"skeleton": {"layout": "coco_wholebody133"}}')
    skeleton = open_run(tmp_path).load("skeleton", "a")
    assert skeleton.layout == "coco_wholebody133"
    np.testing.assert_allclose(skeleton.scores, points[:, :, :17, 2].mean(axis=-1), rtol=1e-6)


def test_vbench_file_names_carry_the_prompt(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "a toilet, frozen in time-3.mp4").write_bytes(encode_video(list(frames), 8.0, lossless=True))
    run = open_run(tmp_path)
    (key,) = run.keys("video")
    video = run.load("video", key)
    assert video.prompt == "a toilet, frozen in time"
    assert video.fps == 8
    assert np.array_equal(video.frames, frames)


@pytest.mark.parametrize("name", ["pickle.npz", "cut.npz", "text.npy", "pickle.npy"])
def test_hostile_arrays_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "flow"
    folder.mkdir()
    file = folder / name
    evil = np.array([{"a": 1}], dtype=object)
    if name == "pickle.npz":
        np.savez(file, evil)
    elif name == "pickle.npy":
        np.save(file, evil)
    elif name == "cut.npz":
        np.savez(file, np.zeros((2, 4, 4, 2)))
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.write_bytes(b"not an array at all")
    with pytest.raises(InvalidAnnotationError, match="plain arrays"):
        open_run(tmp_path).load("flow", file.stem)


def test_what_is_missing_is_absent_not_an_error_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    with pytest.raises(AbsentModalityError):
        open_run(tmp_path, METRIC).load("depth", "nobody")
    with pytest.raises(OpenUniError, match="not a folder"):
        open_run(tmp_path / "nowhere")


# ── resampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_longer_predictions_are_cut_and_shorter_ones_refused(depth: np.ndarray) -> None:
    value = Depth(depth, "metric")
    assert np.array_equal(resample("depth", value, 2, 6, 8, None).values, depth[:2])
    assert resample("depth", value, 3, 6, 8, (16.0, 16.0)) is value
    with pytest.raises(InvalidAnnotationError, match="3 frames predicted, the truth has 4"):
        resample("depth", value, 4, 6, 8, None)


def test_another_frame_rate_takes_the_frame_shown_at_the_middle() -> None:
    values = np.arange(1, 9, dtype=np.float32).reshape(8, 1, 1)
    half = resample("depth", Depth(values, "metric"), 4, 1, 1, (16.0, 8.0))
    assert half.values.ravel().tolist() == [2, 4, 6, 8]
    double = resample("depth", Depth(values[:4], "metric"), 8, 1, 1, (8.0, 16.0))
    assert double.values.ravel().tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(InvalidAnnotationError, match="end before"):
        resample("depth", Depth(values[:3], "metric"), 8, 1, 1, (8.0, 16.0))
    with pytest.raises(InvalidAnnotationError, match="flow at"):
        resample("flow", Flow(np.zeros((3, 4, 4, 2), np.float32)), 8, 4, 4, (8.0, 16.0))


def test_depth_is_resized_bilinearly_and_keeps_what_is_known_beside_nan(depth: np.ndarray) -> None:
    larger = resample("depth", Depth(depth, "metric"), 3, 12, 16, None)
    reference = np.stack([cv2.resize(f, (16, 12), interpolation=cv2.INTER_LINEAR) for f in depth])
    assert np.array_equal(larger.values, reference)
    hole = depth.copy()
    hole[:, 2, 3] = np.nan
    filled = resample("depth", Depth(hole, "metric"), 3, 12, 16, None).values
    assert np.isnan(filled).sum() == 3 * 4


def test_vectors_joints_and_ids_scale_with_the_frame() -> None:
    flow = resample("flow", Flow(np.ones((1, 4, 4, 2), np.float32)), 2, 8, 12, None)
    assert np.allclose(flow.forward, [3, 2])
    ids = np.array([[[0, 1], [2, 3]]], np.int32)
    table = tuple(Instance(k, "x") for k in (1, 2, 3))
    larger = resample("segmentation", Segmentation(ids, table), 1, 4, 4, None)
    assert np.array_equal(larger.ids[0], np.kron(ids[0], np.ones((2, 2), int)))
    joints = np.full((1, 1, 17, 3), 0.5, np.float32)
    skeleton = Skeleton(joints, np.ones((1, 1, 4), np.float32), np.zeros(1, np.int32), 10, 10)
    assert resample("skeleton", skeleton, 1, 20, 40, None).keypoints[0, 0, 0].tolist() == [2, 1, 0.5]
    video = Video(np.zeros((3, 4, 4, 3), np.uint8), 8.0)
    assert resample("video", video, 3, 4, 4, None) is video


@pytest.mark.parametrize("fps", ["1e999", "0", "-16", '"fast"'])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, fps: str) -> None:
    (tmp_path / "predictions.json").write_text(f'{{"fps": {fps}}}')
    with pytest.raises(OpenUniError, match=r"predictions\.json cannot be used"):
        open_run(tmp_path)


def test_a_file_too_large_to_be_read_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    with (tmp_path / "depth" / "a.npy").open("wb") as file:
        file.truncate(1 << 40)
    assert len(open_run(tmp_path).digest("depth", "a")) == 64
