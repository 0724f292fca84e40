"""Kubric (Greff et al. 2022), as its workers write one scene: numbered pictures, `metadata.json`, `data_ranges.json`.

Depth is the distance to the camera's centre (`z_to_depth` in Kubric's cameras), not along its axis: made planar here.
Flow is (row, column) scaled into 16 bits by `data_ranges.json`. The camera looks along −z with y up, as Blender's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import make_key
from unibench.camera import Camera, intrinsics
from unibench.formats.bounded import check_size, read_bytes, read_png, same_size, sequence
from unibench.formats.palette import read_indices
from unibench.importers.base import Imported, LeftOut, unread
from unibench.importers.checks import check_depth, planar
from unibench.importers.poses import change_axes, pose, rotation

Singles = npt.NDArray[np.float32]

_BACKGROUND = 1e9
"""Distances beyond are Blender's 1e10 for nothing hit."""
_BLENDER = np.diag([1.0, -1.0, -1.0])


def read_depth(path: Path) -> Singles:
    """Distance `[H, W]` to the camera's centre in metres from a float32 TIFF; NaN where nothing was hit."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.float32:
        raise CorruptDataError(f"{path} is not a float32 TIFF; Kubric writes depth so")
    values = image.reshape(image.shape[0], image.shape[1], -1)[..., 0]
    check_size(path, values.shape[1], values.shape[0])
    return np.where(values < _BACKGROUND, values, np.float32(np.nan))


def read_flow(path: Path, low: float, high: float) -> Singles:
    """Flow `[H, W, 2]` in pixels, x before y, to (high − low)/65535: red is rows, green columns."""
    stored = read_png(path, np.uint16, 3)[..., [1, 0]].astype(np.float64)
    return (stored / 65535 * (high - low) + low).astype(np.float32)


def read_kubric(src: Path) -> Iterator[Imported | LeftOut]:
    """One scene. Raises CorruptDataError naming what `metadata.json` or `data_ranges.json` lack."""
    meta, ranges = (_json(src / name) for name in ("metadata.json", "data_ranges.json"))
    frames = sequence(src, "rgba_*.png")
    numbers = [path.stem.removeprefix("rgba_") for path in frames]
    rgb = same_size([read_png(path, np.uint8, 4)[..., :3] for path in frames], frames)
    height, width = rgb.shape[1:3]
    camera = _camera(src, meta, height, width)
    depths = [src / f"depth_{n}.tiff" for n in numbers]
    depth = planar(camera, same_size([read_depth(path) for path in depths], depths))
    forward = _flows(src, "forward_flow", numbers, ranges)
    backward = _flows(src, "backward_flow", numbers, ranges)
    notes = (check_depth(camera, depth, str(src)),)
    yield Imported(
        make_key(f"kubric-{src.resolve().name}"),
        rgb,
        float(meta.get("flags", {}).get("frame_rate", 12)),
        depth=Depth(depth, "metric", exact=True),
        flow=None
        if forward is None
        else Flow(forward[:-1], None, None if backward is None else backward[1:], exact=True),
        segmentation=_segmentation(src, numbers, meta),
        camera=camera,
        notes=notes,
    )
    maps = [src / f"{name}_{n}.png" for name in ("forward_flow", "backward_flow", "segmentation") for n in numbers]
    yield from unread(src, [*frames, *depths, *maps, src / "metadata.json", src / "data_ranges.json"])


def _camera(src: Path, meta: dict[str, Any], height: int, width: int) -> Camera:
    try:
        numbers = meta["camera"]
        positions = np.array(numbers["positions"], np.float64)
        w, x, y, z = np.array(numbers["quaternions"], np.float64).T
        focal = float(numbers["focal_length"]) / float(numbers["sensor_width"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(
            f"{src}/metadata.json: its camera has no usable {error}; render the scene again"
        ) from error
    blender = pose(rotation(np.stack([x, y, z, w], axis=1)), positions)
    poses = change_axes(blender, np.eye(3), _BLENDER)
    return Camera(np.tile(intrinsics(focal, height, width), (len(poses), 1, 1)), poses, height, width)


def _flows(src: Path, name: str, numbers: list[str], ranges: dict[str, Any]) -> Singles | None:
    paths = [src / f"{name}_{n}.png" for n in numbers]
    if not paths[0].is_file():
        return None
    try:
        low, high = float(ranges[name]["min"]), float(ranges[name]["max"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(
            f"{src}/data_ranges.json has no min and max of {name}; its pixels mean nothing"
        ) from error
    return np.asarray(same_size([read_flow(path, low, high) for path in paths], paths))


def _segmentation(src: Path, numbers: list[str], meta: dict[str, Any]) -> Segmentation | None:
    paths = [src / f"segmentation_{n}.png" for n in numbers]
    if not paths[0].is_file():
        return None
    ids = same_size([read_indices(path) for path in paths], paths).astype(np.int32)
    listed = meta.get("instances", [])
    names = {k: str(row.get("category") or row.get("asset_id") or f"object {k}") for k, row in enumerate(listed, 1)}
    return Segmentation(ids, tuple(Instance(int(k), names.get(int(k), f"object {k}")) for k in np.unique(ids) if k))


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_bytes(path))
    except (OSError, ValueError) as error:
        raise CorruptDataError(f"{path} is missing or no JSON: {error}") from error
    if not isinstance(data, dict):
        raise CorruptDataError(f"{path} holds no table")
    return data
