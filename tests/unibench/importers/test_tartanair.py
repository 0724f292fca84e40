"""TartanAir, both versions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError, InvalidAnnotationError
from tests.unibench.importers.clips import Clip, panning, quaternion, reprojection
from unibench.importers import read

# Camera axes right, down, forward and a world with z up, in north, east, down.
CAMERA = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
WORLD = np.diag([1.0, -1.0, -1.0])


def write_poses(path: Path, clip: Clip) -> None:
    rows = []
    for pose in clip.truth.camera.pose:
        turn = WORLD @ pose[:3, :3] @ CAMERA.T
        rows.append(np.concatenate([WORLD @ pose[:3, 3], quaternion(turn)]))
    np.savetxt(path, rows)


def write_v1(src: Path, clip: Clip) -> None:
    for folder in ("image_left", "depth_left", "flow", "seg_left"):
        (src / folder).mkdir(parents=True, exist_ok=True)
    truth = clip.truth
    for t, rgb in enumerate(clip.rgb):
        cv2.imwrite(str(src / f"image_left/{t:06d}_left.png"), rgb[..., ::-1])
        np.save(src / f"depth_left/{t:06d}_left_depth.npy", np.nan_to_num(truth.depth[t], nan=1e4))
        np.save(src / f"seg_left/{t:06d}_left_seg.npy", truth.ids[t].astype(np.uint8))
        if t < len(truth.forward):
            np.save(src / f"flow/{t:06d}_{t + 1:06d}_flow.npy", truth.forward[t])
            np.save(src / f"flow/{t:06d}_{t + 1:06d}_mask.npy", truth.occluded[t].astype(np.uint8) * 10)
    write_poses(src / "pose_left.txt", clip)


def write_v2(src: Path, clip: Clip) -> None:
    for folder in ("image", "depth", "flow", "seg"):
        (src / f"{folder}_lcam_front").mkdir(parents=True, exist_ok=True)
    truth = clip.truth
    for t, rgb in enumerate(clip.rgb):
        cv2.imwrite(str(src / f"image_lcam_front/{t:06d}_lcam_front.png"), rgb[..., ::-1])
        # As the set's own tools do it: OpenCV's four bytes are the float's.
        bytes_ = np.nan_to_num(truth.depth[t], nan=1e4).astype("<f4")[..., None].view(np.uint8)
        cv2.imwrite(str(src / f"depth_lcam_front/{t:06d}_lcam_front_depth.png"), bytes_)
        cv2.imwrite(str(src / f"seg_lcam_front/{t:06d}_lcam_front_seg.png"), truth.ids[t].astype(np.uint8))
        if t < len(truth.forward):
            stored = np.zeros((*rgb.shape[:2], 3), np.uint16)
            stored[..., :2] = np.round(truth.forward[t].astype(np.float64) * 64 + 32768)
            stored[..., 2] = truth.occluded[t] * 100
            cv2.imwrite(str(src / f"flow_lcam_front/{t:06d}_{t + 1:06d}_flow.png"), stored)
    write_poses(src / "pose_lcam_front.txt", clip)


def still_scene() -> Clip:
    return panning("fly", focal=0.5)


@pytest.mark.parametrize(("version", "write", "precision"), [("v1", write_v1, 0), ("v2", write_v2, 1 / 128)])
def test_a_trajectory_comes_back(tmp_path: Path, version: str, write: object, precision: float) -> None:
    clip = still_scene()
    write(tmp_path, clip)  # type: ignore[operator]
    (found,) = read(f"tartanair-{version}", tmp_path)
    truth = clip.truth
    np.testing.assert_array_equal(found.depth.values, truth.depth)
    np.testing.assert_allclose(found.flow.forward, truth.forward, atol=precision + 1e-6)
    np.testing.assert_array_equal(found.flow.occluded, truth.occluded)
    np.testing.assert_array_equal(found.segmentation.ids, truth.ids)
    assert reprojection(truth, found.camera, found.depth.values) < 2e-3
    assert any("camera's alone" in note for note in found.notes)


def test_radial_depth_is_named(tmp_path: Path) -> None:
    clip = still_scene()
    write_v1(tmp_path, clip)
    camera = clip.truth.camera
    length = np.linalg.norm(camera.rays(0, camera.pixels()), axis=1).reshape(camera.height, camera.width)
    for t in range(4):
        np.save(tmp_path / f"depth_left/{t:06d}_left_depth.npy", (clip.truth.depth[t] * length).astype(np.float32))
    with pytest.raises(InvalidAnnotationError, match="radial depth in metres"):
        list(read("tartanair-v1", tmp_path))


def test_depth_that_went_through_half_precision_is_named(tmp_path: Path) -> None:
    clip = still_scene()
    write_v1(tmp_path, clip)
    path = tmp_path / "depth_left/000000_left_depth.npy"
    np.save(path, np.load(path).astype(np.float16).astype(np.float32))
    with pytest.raises(InvalidAnnotationError, match="half precision"):
        list(read("tartanair-v1", tmp_path))


def test_pickles_and_huge_arrays_are_refused(tmp_path: Path) -> None:
    write_v1(tmp_path, still_scene())
    path = tmp_path / "depth_left/000001_left_depth.npy"
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(CorruptDataError, match="not a readable"):
        list(read("tartanair-v1", tmp_path))
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(CorruptDataError):
        list(read("tartanair-v1", tmp_path))
