"""Kubric's files of one scene."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError
from tests.unibench.importers.clips import Clip, panning, quaternion, reprojection
from unibench.formats.palette import read_indices
from unibench.importers import read

BLENDER = np.diag([1.0, -1.0, -1.0])


def write_palette(path: Path, ids: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(ids.astype(np.uint8), mode="P")
    picture.putpalette(list(np.random.default_rng(0).integers(0, 255, 768)))
    picture.save(path)


def write_scene(src: Path, clip: Clip) -> dict[str, float]:
    truth, camera = clip.truth, clip.truth.camera
    length = np.linalg.norm(camera.rays(0, camera.pixels()), axis=1).reshape(camera.height, camera.width)
    whole = {"forward_flow": np.pad(truth.forward, ((0, 1), (0, 0), (0, 0), (0, 0))),
             "backward_flow": np.pad(truth.backward, ((1, 0), (0, 0), (0, 0), (0, 0)))}  # fmt: skip
    ranges = {}
    for name, flow in whole.items():
        low, high = float(flow.min()), float(flow.max())
        ranges[name] = {"min": low, "max": high}
        scaled = ((flow.astype(np.float64) - low) * 65535 / (high - low)).astype(np.uint16)
        for t, frame in enumerate(scaled):
            stored = np.zeros((*frame.shape[:2], 3), np.uint16)
            stored[..., 0], stored[..., 1] = frame[..., 1], frame[..., 0]  # red: rows, green: columns
            cv2.imwrite(str(src / f"{name}_{t:05d}.png"), stored[..., ::-1])
    for t, rgb in enumerate(clip.rgb):
        rgba = np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 255, np.uint8)])
        cv2.imwrite(str(src / f"rgba_{t:05d}.png"), rgba)
        cv2.imwrite(
            str(src / f"depth_{t:05d}.tiff"), np.nan_to_num(truth.depth[t] * length, nan=1e10).astype(np.float32)
        )
        write_palette(src / f"segmentation_{t:05d}.png", truth.ids[t])
    turns = [quaternion(pose[:3, :3] @ BLENDER)[[3, 0, 1, 2]].tolist() for pose in camera.pose]
    meta = {
        "camera": {
            "focal_length": float(camera.intrinsics[0, 0, 0] / camera.width * 36),
            "sensor_width": 36.0,
            "positions": camera.pose[:, :3, 3].tolist(),
            "quaternions": turns,
        },
        "instances": [{"category": thing.class_name} for thing in truth.things],
    }
    (src / "metadata.json").write_text(json.dumps(meta))
    (src / "data_ranges.json").write_text(json.dumps(ranges))
    return {name: (r["max"] - r["min"]) / 65535 for name, r in ranges.items()}


def test_a_scene_comes_back_within_its_steps(tmp_path: Path) -> None:
    clip = panning("collide")
    steps = write_scene(tmp_path, clip)
    (found,) = read("kubric", tmp_path)
    truth = clip.truth
    np.testing.assert_array_equal(found.rgb, clip.rgb)
    # Kubric writes distances to the camera; planar depth comes back to float32.
    np.testing.assert_allclose(found.depth.values, truth.depth, rtol=3e-7)
    np.testing.assert_allclose(found.flow.forward, truth.forward, atol=1.01 * steps["forward_flow"])
    np.testing.assert_allclose(found.flow.backward, truth.backward, atol=1.01 * steps["backward_flow"])
    np.testing.assert_array_equal(found.segmentation.ids, truth.ids)
    assert {i.id: i.class_name for i in found.segmentation.instances}[1] == "floor"
    assert reprojection(truth, found.camera, found.depth.values) < 2e-3


def test_missing_ranges_are_named(tmp_path: Path) -> None:
    write_scene(tmp_path, panning("collide"))
    (tmp_path / "data_ranges.json").write_text("{}")
    with pytest.raises(CorruptDataError, match="forward_flow"):
        list(read("kubric", tmp_path))


def test_palette_indices_agree_with_another_reader(tmp_path: Path) -> None:
    """All PNG line filters: Pillow chooses them, Pillow reads them back."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    for kind in range(4):
        ids = rng.integers(0, 200, (37, 53)) if kind == 0 else np.add.outer(np.arange(37) * kind, np.arange(53)) % 200
        write_palette(tmp_path / "a.png", ids)
        np.testing.assert_array_equal(read_indices(tmp_path / "a.png"), np.asarray(image.open(tmp_path / "a.png")))


@pytest.mark.parametrize("kind", range(5))
def test_every_line_filter_is_undone(tmp_path: Path, kind: int) -> None:
    """A file written line by line with one filter, by the definitions of the PNG specification."""
    import struct
    import zlib

    ids = np.random.default_rng(kind).integers(0, 256, (9, 11))
    raw = b""
    for y in range(9):
        line = []
        for x in range(11):
            left = int(ids[y, x - 1]) if x else 0
            up = int(ids[y - 1, x]) if y else 0
            corner = int(ids[y - 1, x - 1]) if x and y else 0
            p = left + up - corner
            paeth = min((abs(p - left), 0, left), (abs(p - up), 1, up), (abs(p - corner), 2, corner))[2]
            guess = [0, left, up, (left + up) // 2, paeth][kind]
            line.append((int(ids[y, x]) - guess) % 256)
        raw += bytes([kind, *line])

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 11, 9, 8, 3, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"PLTE", bytes(768))
    (tmp_path / "a.png").write_bytes(data + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_indices(tmp_path / "a.png"), ids)
