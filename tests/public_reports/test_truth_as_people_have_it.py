"""Stereo disparity of Middlebury and KITTI becomes depth in metres, TUM-like folders have other names, and flow that
Sintel marks as invalid is not truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError
from tests.unibench.importers.clips import panning
from tests.unibench.importers.test_middlebury import write_sintel
from unibench.importers import read
from unibench.importers.tum import _intrinsics

DEPTH = np.random.default_rng(0).uniform(2, 9, (12, 16))


def test_middlebury_stereo_is_depth_in_metres(tmp_path: Path) -> None:
    scene = tmp_path / "Piano"
    scene.mkdir()
    cv2.imwrite(str(scene / "im0.png"), np.zeros((12, 16, 3), np.uint8))
    (scene / "calib.txt").write_text(
        "cam0=[200 0 7.5; 0 200 5.5; 0 0 1]\ncam1=[200 0 9; 0 200 5.5; 0 0 1]\ndoffs=1.5\nbaseline=250\nwidth=16\n"
    )
    disparity = (0.25 * 200 / DEPTH - 1.5).astype(np.float32)
    disparity[0, 0] = np.inf
    (scene / "disp0.pfm").write_bytes(b"Pf\n16 12\n-1\n" + disparity[::-1].astype("<f4").tobytes())
    (clip,) = read("middlebury-stereo", tmp_path)
    assert np.isnan(clip.depth.values[0, 0, 0])
    np.testing.assert_allclose(clip.depth.values[0].ravel()[1:], DEPTH.ravel()[1:], rtol=1e-5)
    assert clip.camera.intrinsics[0, 0, 2] == 8


def test_kitti_stereo_is_depth_in_metres_and_needs_the_camera(tmp_path: Path) -> None:
    root = tmp_path / "training"
    for folder in ("disp_occ_0", "image_2", "calib_cam_to_cam"):
        (root / folder).mkdir(parents=True)
    stored = np.rint(0.5 * 100 / DEPTH * 256).astype(np.uint16)
    stored[0, 0] = 0
    cv2.imwrite(str(root / "disp_occ_0/000003_10.png"), stored)
    cv2.imwrite(str(root / "image_2/000003_10.png"), np.zeros((12, 16, 3), np.uint8))
    with pytest.raises(CorruptDataError, match="no camera"):
        list(read("kitti", tmp_path))
    (root / "calib_cam_to_cam/000003.txt").write_text(
        "P_rect_02: 100 0 7 10 0 100 5 0 0 0 1 0\nP_rect_03: 100 0 7 -40 0 100 5 0 0 0 1 0\n"
    )
    (clip,) = read("kitti", tmp_path)
    assert np.isnan(clip.depth.values[0, 0, 0])
    np.testing.assert_allclose(clip.depth.values[0].ravel()[1:], DEPTH.ravel()[1:], rtol=1e-3)


def test_a_tum_like_folder_may_say_its_camera(tmp_path: Path) -> None:
    with pytest.raises(CorruptDataError, match=r"camera\.txt"):
        list(read("tum", tmp_path))
    (tmp_path / "camera.txt").write_text("# fx fy cx cy\n500 501 320 240\n")
    assert _intrinsics(tmp_path) == (500, 501, 320, 240)


def test_invalid_flow_of_sintel_is_nan(tmp_path: Path) -> None:
    clip = panning()
    write_sintel(tmp_path, clip)
    mask = np.zeros(clip.rgb.shape[1:3], np.uint8)
    mask[3:7, 10:20] = 255
    (tmp_path / "invalid/alley").mkdir(parents=True)
    for t in range(1, len(clip.rgb)):
        cv2.imwrite(str(tmp_path / f"invalid/alley/frame_{t:04d}.png"), mask)
    (found,) = read("sintel", tmp_path)
    assert np.isnan(found.flow.forward[:, mask > 0]).all()
    assert np.isfinite(found.flow.forward[:, mask == 0]).any()
