"""EasySynth: half-float depth, flow as colour, two versions of its poses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError, InvalidAnnotationError
from tests.unibench.importers.clips import Clip, panning, quaternion, reprojection
from unibench.importers import read
from unibench.importers.easysynth import read_flow

OpenEXR = pytest.importorskip("OpenEXR")
RANGE, SCALE = 50.0, 4.0


def write_exr(path: Path, planes: np.ndarray, dtype: type = np.float16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {c: np.ascontiguousarray(planes[..., k], dtype) for k, c in enumerate("RGB")}).write(str(path))


def flow_colours(backward: np.ndarray) -> np.ndarray:
    """Previous-to-current motion as hue (angle) and saturation (length in the unit square, scaled), full value."""
    height, width = backward.shape[:2]
    u, v = -backward[..., 0] / width, -backward[..., 1] / height
    hue = np.degrees(np.arctan2(v, u)) % 360
    hsv = np.stack([hue, np.hypot(u, v) * SCALE, np.ones_like(u)], axis=-1).astype(np.float32)
    assert hsv[..., 1].max() <= 1
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def write_clip(src: Path, clip: Clip, *, metres: bool) -> None:
    truth, camera = clip.truth, clip.truth.camera
    flip, local = np.diag([1.0, -1.0, 1.0]), np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])
    cv = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # x, y, z with z up to right, down, forward
    rows = ["id,tx,ty,tz,qw,qx,qy,qz,t" if metres else "id,tx,ty,tz,qx,qy,qz,qw,t"]
    (src / "ColorImage").mkdir(parents=True)
    (src / "SemanticImage").mkdir()
    colours = np.random.default_rng(0).integers(1, 255, (len(truth.things) + 1, 3)).astype(np.uint8)
    colours[0] = 0
    for t, rgb in enumerate(clip.rgb):
        cv2.imwrite(str(src / f"ColorImage/seq.{t:04d}.png"), rgb[..., ::-1])
        cv2.imwrite(str(src / f"SemanticImage/seq.{t:04d}.png"), colours[truth.ids[t]][..., ::-1])
        share = np.nan_to_num(truth.depth[t] / RANGE, nan=1.0).clip(0, 1)
        write_exr(src / f"DepthImage/seq.{t:04d}.exr", np.repeat(share[..., None], 3, -1))
        backward = truth.backward[t - 1] if t else np.zeros_like(truth.backward[0])
        write_exr(src / f"OpticalFlowImage/seq.{t:04d}.exr", flow_colours(backward))
        pose = camera.pose[t]
        if metres:
            place, (x, y, z, w) = cv @ pose[:3, 3], quaternion(cv @ pose[:3, :3])
            numbers = [*place, w, x, y, z]
        else:
            place, turn = flip @ pose[:3, 3] * 100, quaternion(flip @ pose[:3, :3] @ local.T)
            numbers = [*place, *turn]
        rows.append(f"{t}," + ",".join(f"{v:.9f}" for v in numbers) + f",{t / 30}")
    (src / "CameraPoses.csv").write_text("\n".join(rows))
    table = ["Class,R,G,B"] + [f"{th.name},{','.join(map(str, colours[th.id]))}" for th in truth.things]
    (src / "SemanticClasses.csv").write_text("\n".join(table))
    fov = np.degrees(2 * np.arctan(camera.width / 2 / camera.intrinsics[0, 0, 0]))
    (src / "easysynth.json").write_text(json.dumps({"depth_range": RANGE, "flow_scale": SCALE, "fov": fov}))


@pytest.mark.parametrize("metres", [False, True])
def test_a_sequence_comes_back_within_half_precision(tmp_path: Path, metres: bool) -> None:
    clip = panning("fly")
    truth = clip.truth
    write_clip(tmp_path / "cam", clip, metres=metres)
    (found,) = read("easysynth", tmp_path / "cam")
    near = truth.depth < RANGE * 0.999
    np.testing.assert_allclose(found.depth.values[near], truth.depth[near], rtol=2**-11 + 1e-6)
    np.testing.assert_allclose(found.camera.pose, truth.camera.pose, atol=1e-6)
    # Saturation near zero flow: 1 − min/max of half floats steps by 2⁻¹¹, in units of the image's side over the scale.
    step = 2**-11 * max(clip.rgb.shape[1:3]) / SCALE
    assert np.abs(found.flow.backward - truth.backward).max() < 3 * step
    wide = np.isin(truth.ids[:-1], [t.id for t in truth.things]) & near[:-1]
    assert np.abs(found.flow.forward - truth.forward)[wide].max() < 0.05
    names = {row.id: row.class_name for row in found.segmentation.instances}
    for thing in truth.things:
        if (truth.ids == thing.id).any():
            (number,) = np.unique(found.segmentation.ids[truth.ids == thing.id])
            assert names[int(number)] == thing.name
    assert any("half precision" in note for note in found.notes)
    assert reprojection(truth, found.camera, np.where(near, found.depth.values, np.nan)) < 0.05


def test_a_wrong_depth_range_is_named_by_the_poses(tmp_path: Path) -> None:
    write_clip(tmp_path / "cam", panning("fly"), metres=False)
    settings = json.loads((tmp_path / "cam/easysynth.json").read_text())
    (tmp_path / "cam/easysynth.json").write_text(json.dumps(settings | {"depth_range": RANGE * 100}))
    with pytest.raises(InvalidAnnotationError, match="centimetres"):
        list(read("easysynth", tmp_path / "cam"))


def test_missing_settings_say_what_to_write(tmp_path: Path) -> None:
    write_clip(tmp_path / "cam", panning("fly"), metres=False)
    (tmp_path / "cam/easysynth.json").unlink()
    with pytest.raises(CorruptDataError, match="depth_range"):
        list(read("easysynth", tmp_path / "cam"))


def test_hue_and_saturation_are_angle_and_length(tmp_path: Path) -> None:
    """Red is a motion to the right from the previous frame; full saturation at scale 4 is a quarter of the width."""
    red = np.zeros((4, 8, 3), np.float32)
    red[..., 0] = 1
    write_exr(tmp_path / "a.exr", red)
    np.testing.assert_allclose(read_flow(tmp_path / "a.exr", SCALE), np.broadcast_to([2.0, 0.0], (4, 8, 2)), atol=1e-6)
