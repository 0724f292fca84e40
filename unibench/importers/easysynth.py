"""EasySynth (YDrive, an Unreal plug-in): one folder a target, 16-bit EXR, poses and classes as CSV.

Three numbers are nowhere in its output: the depth range, the flow scale and the field of view that were typed into the
plug-in. They are asked for in `easysynth.json` beside `CameraPoses.csv`:
`{"depth_range": 100.0, "flow_scale": 1.0, "fov": 90.0, "fps": 30.0}` (metres, factor, degrees across, frames a second).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import make_key
from unibench.camera import Camera
from unibench.formats.bounded import read_bytes, read_png, read_rgbs, read_text, same_size, sequence
from unibench.formats.exr import read_exr
from unibench.importers.base import Imported, LeftOut, unread
from unibench.importers.checks import check_depth, static_flow
from unibench.importers.poses import change_axes, pose, rotation

Singles = npt.NDArray[np.float32]

_UNREAL_WORLD = np.diag([1.0, -1.0, 1.0])
_UNREAL_CAMERA = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Right, down, forward to forward, right, up."""
_OPENCV_WORLD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Right, down, forward of the world's origin to x, y, z with z up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was typed into the plug-in; see the module."""

    depth_range: float
    flow_scale: float
    fov: float
    fps: float = 30.0


def read_flow(path: Path, scale: float) -> Singles:
    """Motion `[H, W, 2]` in pixels from the previous to this frame, on the pixels of this one.

    Hue is the angle, saturation the length in unit-square coordinates times the plug-in's flow scale.
    """
    planes = _planes(path)
    hsv = cv2.cvtColor(planes, cv2.COLOR_RGB2HSV)
    angle, length = np.radians(hsv[..., 0].astype(np.float64)), hsv[..., 1].astype(np.float64) / scale
    height, width = length.shape
    return np.stack([width * length * np.cos(angle), height * length * np.sin(angle)], axis=-1).astype(np.float32)


def read_easysynth(src: Path) -> Iterator[Imported | LeftOut]:
    """One camera's folder: `ColorImage`, `DepthImage`, `OpticalFlowImage`, `SemanticImage`, `CameraPoses.csv`.

    The plug-in's flow is the camera's alone and points from the previous frame; the forward flow is computed from depth
    and camera under the same assumption.
    """
    settings = _settings(src / "easysynth.json")
    frames = next((s for s in ("png", "jpeg", "jpg") if list((src / "ColorImage").glob(f"*.{s}"))), "png")
    pictures = sequence(src / "ColorImage", f"*.{frames}")
    rgb = read_rgbs(pictures)
    height, width = rgb.shape[1:3]
    depths = sequence(src / "DepthImage", "*.exr")
    shares = same_size([_planes(path)[..., 0] for path in depths], depths)
    depth = np.where(shares < 1, shares * np.float32(settings.depth_range), np.float32(np.nan))
    poses = _poses(src / "CameraPoses.csv")[: len(rgb)]
    focal = width / 2 / np.tan(np.radians(settings.fov) / 2)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    camera = Camera(np.tile(K, (len(poses), 1, 1)), poses, height, width)
    flows = sequence(src / "OpticalFlowImage", "*.exr")[1:]
    backward = -same_size([read_flow(path, settings.flow_scale) for path in flows], flows)
    forward = np.stack([static_flow(camera, depth[t], t, t + 1) for t in range(len(depth) - 1)])
    yield Imported(
        make_key(f"easysynth-{src.resolve().name}"),
        rgb,
        settings.fps,
        depth=Depth(depth, "metric"),
        flow=Flow(forward, None, backward),
        segmentation=_segmentation(src),
        camera=camera,
        notes=(
            "depth went through half precision: 4.9e-4 of itself",
            "flow is the camera's alone: it ignores what moves; forward is computed from depth and camera",
            check_depth(camera, depth, str(src)),
        ),
    )
    tables = (src / name for name in ("easysynth.json", "CameraPoses.csv", "SemanticClasses.csv"))
    maps = [*(src / "OpticalFlowImage").glob("*.exr"), *(src / "SemanticImage").glob("*.png")]
    yield from unread(src, [*pictures, *depths, *maps, *tables])


def _planes(path: Path) -> Singles:
    """R, G and B `[H, W, 3]` of an EXR as float32."""
    exr = read_exr(path)[0]
    missing = [letter for letter in "RGB" if letter not in exr.channels]
    if missing:
        raise CorruptDataError(f"{path} has no channel {missing[0]}; EasySynth writes R, G and B")
    return np.stack([exr.channels[letter].astype(np.float32) for letter in "RGB"], axis=-1)


def _poses(path: Path) -> npt.NDArray[np.float64]:
    """Poses `[T, 4, 4]`. The order of columns tells the version: qx first is Unreal's axes in centimetres, qw first is
    right, down, forward in metres."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        columns = list(rows[0]) if rows else []
        place = np.array([[float(row[k]) for k in ("tx", "ty", "tz")] for row in rows])
        turn = np.array([[float(row[k]) for k in ("qx", "qy", "qz", "qw")] for row in rows])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"{path}: no table of id, tx, ty, tz, qx, qy, qz, qw, t: {error}") from error
    if not rows:
        raise CorruptDataError(f"{path} lists no pose")
    if columns.index("qw") < columns.index("qx"):
        return change_axes(pose(rotation(turn), place), _OPENCV_WORLD, np.eye(3))
    # A left-handed quaternion turns the same components of vectors, so its matrix needs no other formula.
    return change_axes(pose(rotation(turn), place / 100), _UNREAL_WORLD, _UNREAL_CAMERA)


def _segmentation(src: Path) -> Segmentation | None:
    if not (src / "SemanticImage").is_dir():
        return None
    paths = sequence(src / "SemanticImage", "*.png")
    colours = same_size([read_png(path, np.uint8, 3) for path in paths], paths).astype(np.int32)
    packed = (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]
    table = src / "SemanticClasses.csv"
    try:
        lines = csv.reader(io.StringIO(read_text(table), newline=""))
        rows = [row for row in lines if len(row) == 4 and row[1].strip().isdigit()]
        classes = {(int(r) << 16) | (int(g) << 8) | int(b): name for name, r, g, b in rows}
    except (OSError, ValueError) as error:
        raise CorruptDataError(f"{table} is not a table of name, R, G, B: {error}") from error
    ids = np.zeros(packed.shape, np.int32)
    instances = []
    for k, (colour, name) in enumerate(sorted(classes.items()), 1):
        if colour:  # black is what has no class
            ids[packed == colour] = k
            instances.append(Instance(k, name))
    return Segmentation(ids, tuple(instances))


def _settings(path: Path) -> Settings:
    try:
        settings = Settings(**json.loads(read_bytes(path)))
        good = settings.depth_range > 0 and settings.flow_scale > 0 and 1 < settings.fov < 179 and settings.fps > 0
    except (OSError, ValueError, TypeError) as error:
        raise CorruptDataError(
            f'{path} is missing or incomplete ({error}): write {{"depth_range": 100.0, "flow_scale": 1.0, "fov": 90.0}}'
            " with the numbers typed into EasySynth"
        ) from error
    if not good:
        raise CorruptDataError(f"{path}: {settings} has a number out of range")
    return settings
