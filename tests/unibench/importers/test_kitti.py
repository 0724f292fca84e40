"""KITTI's 16-bit PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError
from tests.unibench.importers.clips import panning
from unibench.importers import read
from unibench.importers.kitti import read_depth, read_flow


def write_flow(path: Path, flow: np.ndarray, valid: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.zeros((*valid.shape, 3), np.uint16)
    stored[..., :2] = np.clip(np.round(flow.astype(np.float64) * 64 + 32768), 0, 65535)
    stored[..., 2] = valid
    stored[~valid] = 0
    cv2.imwrite(str(path), stored[..., ::-1])  # OpenCV writes B, G, R


def test_a_pair_comes_back_within_half_a_step(tmp_path: Path) -> None:
    clip = panning()
    truth = clip.truth
    valid = ~np.isnan(truth.forward[0]).any(-1)
    write_flow(tmp_path / "training/flow_occ/000007_10.png", truth.forward[0], valid)
    write_flow(tmp_path / "training/flow_noc/000007_10.png", truth.forward[0], valid & ~truth.occluded[0])
    (tmp_path / "training/image_2").mkdir()
    for n, rgb in zip((10, 11), clip.rgb, strict=False):
        cv2.imwrite(str(tmp_path / f"training/image_2/000007_{n}.png"), rgb[..., ::-1])
    (found,) = read("kitti", tmp_path)
    np.testing.assert_array_equal(found.rgb, clip.rgb[:2])
    np.testing.assert_allclose(found.flow.forward[0], truth.forward[0], atol=1 / 128 + 1e-5)
    np.testing.assert_array_equal(found.flow.occluded[0], truth.occluded[0])


def test_depth_comes_back_within_half_a_step(tmp_path: Path) -> None:
    depth = panning().truth.depth[0]
    (tmp_path / "groundtruth_depth").mkdir()
    (tmp_path / "image").mkdir()
    (tmp_path / "intrinsics").mkdir()
    name = "2011_09_26_drive_0002_sync_{}_0000000005_image_02"
    stored = np.nan_to_num(np.round(depth * 256)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "groundtruth_depth" / (name.format("groundtruth_depth") + ".png")), stored)
    cv2.imwrite(str(tmp_path / "image" / (name.format("image") + ".png")), panning().rgb[0][..., ::-1])
    (tmp_path / "intrinsics" / (name.format("image") + ".txt")).write_text("100 0 63.5 0 100 47.5 0 0 1")
    (found,) = read("kitti", tmp_path)
    np.testing.assert_allclose(found.depth.values[0], depth, atol=1 / 512 + 1e-5)
    assert found.camera.intrinsics[0, 0, 2] == 64


def test_eight_bits_and_swapped_files_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(CorruptDataError, match="8 bits"):
        read_flow(tmp_path / "a.png")
    with pytest.raises(CorruptDataError, match="3"):
        read_depth(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\x7f\xff\xff\xff" * 2 + b"\x10\0\0\0\0")
    with pytest.raises(CorruptDataError, match="claims"):
        read_depth(tmp_path / "b.png")
