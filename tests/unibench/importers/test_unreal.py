"""Movie Render Queue: written from exact truth in every reading of its motion vectors, and its traps."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from openuni.errors import CorruptDataError, InvalidAnnotationError
from tests.unibench.importers.clips import Clip, panning, reprojection
from unibench.importers import read
from unibench.importers.checks import invert_flow, static_flow
from unibench.importers.unreal import CALIBRATION, calibrate, unreal_axes
from unibench.rendering.shaded import decode_srgb

OpenEXR = pytest.importorskip("OpenEXR")
FLIP = np.diag([1.0, -1.0, 1.0])


def rotator(turn: np.ndarray) -> tuple[float, float, float]:
    """Pitch, yaw and roll (radians) of a camera-to-world rotation in OpenUni's axes."""
    right, up, forward = FLIP @ turn[:, 0], FLIP @ -turn[:, 1], FLIP @ turn[:, 2]
    return (
        float(np.arcsin(forward[2])),
        float(np.arctan2(forward[1], forward[0])),
        float(np.arctan2(-right[2], up[2])),
    )


def write_clip(
    src: Path,
    clip: Clip,
    *,
    scale: tuple[float, float] = (-2.0, 2.0),
    to_next: bool = False,
    depth_type: type = np.float32,
    flow: np.ndarray | None = None,
) -> None:
    """Frames as Movie Render Queue writes them; `flow` replaces the true backward (or forward) flow."""
    src.mkdir(parents=True, exist_ok=True)
    truth, camera = clip.truth, clip.truth.camera
    height, width = camera.height, camera.width
    if flow is None:
        flow = truth.forward if to_next else truth.backward
    padded = np.pad(flow, ((0, 1) if to_next else (1, 0), (0, 0), (0, 0), (0, 0)))
    for t in range(len(clip.rgb)):
        linear = decode_srgb(clip.rgb[t])
        vectors = padded[t] / (np.array(scale) * [width, height]) + 0.5
        hashes = (truth.ids[t].astype(np.uint64) * 2654435761 % 2**32).astype(np.uint32) & np.uint32(0x7F7FFFFF)
        names = {f"{thing.name}_{thing.id}": thing.id for thing in truth.things}
        manifest = {n: f"{(k * 2654435761 % 2**32) & 0x7F7FFFFF:08x}" for n, k in names.items()}
        pitch, yaw, roll = np.degrees(rotator(camera.pose[t, :3, :3]))
        place = FLIP @ camera.pose[t, :3, 3] * 100
        header = {
            "compression": OpenEXR.ZIP_COMPRESSION,
            "type": OpenEXR.scanlineimage,
            **{f"unreal/camera/curPos/{a}": repr(float(v)) for a, v in zip("xyz", place, strict=True)},
            "unreal/camera/curRot/pitch": repr(float(pitch)),
            "unreal/camera/curRot/yaw": repr(float(yaw)),
            "unreal/camera/curRot/roll": repr(float(roll)),
            "unreal/camera/FinalImage/fov": repr(
                float(np.degrees(2 * np.arctan(width / 2 / camera.intrinsics[t, 0, 0])))
            ),
            "cryptomatte/5ee4a01/name": "ActorHitProxyMask",
            "cryptomatte/5ee4a01/manifest": json.dumps(manifest),
        }
        channels = {letter: linear[..., k].astype(np.float16) for k, letter in enumerate("RGB")}
        prefix = "FinalImageMovieRenderQueue_"
        centimetres = np.nan_to_num(truth.depth[t] * 100, nan=1e8).astype(np.float32)
        with np.errstate(over="ignore"):
            channels[f"{prefix}WorldDepth.R"] = centimetres.astype(depth_type)
        channels[f"{prefix}MotionVectors.R"] = vectors[..., 0].astype(np.float32)
        channels[f"{prefix}MotionVectors.G"] = vectors[..., 1].astype(np.float32)
        channels["ActorHitProxyMask00.R"] = hashes.view(np.float32)
        channels["ActorHitProxyMask00.G"] = np.ones((height, width), np.float32)
        OpenEXR.File(header, channels).write(str(src / f"shot.{t:04d}.exr"))


@pytest.mark.parametrize(
    ("x", "y", "to_next"), list(itertools.product((-2.0, -1.0, 1.0, 2.0), (-2.0, 1.0, 2.0), (False, True)))
)
def test_calibration_finds_every_reading(tmp_path: Path, x: float, y: float, to_next: bool) -> None:
    write_clip(tmp_path, panning("fly"), scale=(x, y), to_next=to_next)
    found = calibrate(tmp_path)
    assert (found.x, found.y) == (x, y)
    assert found.direction == ("to the next frame" if to_next else "to the previous frame")
    assert found.error < 1e-3 < found.rival
    assert json.loads((tmp_path / CALIBRATION).read_text())["x"] == x


def test_a_clip_comes_back(tmp_path: Path) -> None:
    clip = panning("collide")
    write_clip(tmp_path, clip)
    (found,) = read("unreal", tmp_path)
    truth = clip.truth
    np.testing.assert_array_equal(found.rgb, clip.rgb)
    np.testing.assert_allclose(found.depth.values, truth.depth, rtol=2e-7)
    np.testing.assert_allclose(found.flow.backward, truth.backward, atol=1e-4)
    assert reprojection(truth, found.camera, found.depth.values) < 2e-3
    # The forward flow is the inverse of the stored one: known nearly everywhere that is seen in both frames.
    seen = ~truth.occluded
    known = ~np.isnan(found.flow.forward).any(-1)
    error = np.linalg.norm(found.flow.forward - truth.forward, axis=-1)
    assert known[seen].mean() > 0.9
    assert np.percentile(error[known & seen], 99) < 0.05
    names = {row.id: row.class_name for row in found.segmentation.instances}
    for thing in truth.things:
        here = truth.ids == thing.id
        if here.any():
            (number,) = np.unique(found.segmentation.ids[here])
            assert names[int(number)] == thing.name


def test_half_depth_is_refused_and_named(tmp_path: Path) -> None:
    write_clip(tmp_path, panning("fly"), depth_type=np.float16)
    with pytest.raises(InvalidAnnotationError, match=r"shot\.0000\.exr.*WorldDepth\.R is float16"):
        list(read("unreal", tmp_path))


def test_camera_only_vectors_on_moving_objects_are_named(tmp_path: Path) -> None:
    clip = panning("collide")
    truth = clip.truth
    still = np.stack([static_flow(truth.camera, truth.depth[t], t, t - 1) for t in range(1, len(truth.depth))])
    write_clip(tmp_path, clip, flow=np.nan_to_num(still))
    with pytest.raises(InvalidAnnotationError, match=r"ball.* move, but their motion vectors are the camera's"):
        list(read("unreal", tmp_path))


def test_vectors_that_agree_with_nothing_are_refused(tmp_path: Path) -> None:
    clip = panning("fly")
    write_clip(tmp_path, clip, flow=np.random.default_rng(0).normal(0, 5, clip.truth.backward.shape))
    with pytest.raises(InvalidAnnotationError, match="no reading"):
        calibrate(tmp_path)


def test_a_missing_pass_and_a_missing_frame_are_named(tmp_path: Path) -> None:
    write_clip(tmp_path, panning("fly"))
    file = OpenEXR.File(str(tmp_path / "shot.0001.exr"), separate_channels=True)
    kept = {n: c.pixels for n, c in file.channels().items() if "MotionVectors" not in n}
    OpenEXR.File({k: v for k, v in file.header().items() if k != "channels"}, kept).write(
        str(tmp_path / "shot.0001.exr")
    )
    with pytest.raises(CorruptDataError, match=r"shot\.0001\.exr: no channels end in 'MotionVectors\.R'"):
        list(read("unreal", tmp_path))
    (tmp_path / "shot.0001.exr").unlink()
    with pytest.raises(CorruptDataError, match="frame 1 "):
        list(read("unreal", tmp_path))


def test_unreals_axes_are_those_of_its_rotators() -> None:
    """Yaw turns x towards y, pitch lifts x towards z, roll tips z towards y: signs of FRotationMatrix."""
    np.testing.assert_allclose(unreal_axes(0, np.pi / 2, 0)[0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(unreal_axes(np.pi / 2, 0, 0)[0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(unreal_axes(0, 0, np.pi / 2)[1], [0, 0, -1], atol=1e-12)


def test_the_inverse_of_a_flow_undoes_it() -> None:
    y, x = np.mgrid[:64, :80].astype(np.float32)
    motion = np.stack([3 + 2 * np.sin(y / 15), -2 + np.cos(x / 20)], -1).astype(np.float32)
    inverse = invert_flow(motion)
    inside = inverse[12:-12, 12:-12]
    assert not np.isnan(inside).any()
    at = np.stack([x, y], -1)[12:-12, 12:-12] + inside
    there = np.stack([3 + 2 * np.sin(at[..., 1] / 15), -2 + np.cos(at[..., 0] / 20)], -1)
    np.testing.assert_allclose(inside, -there, atol=0.01)
