"""TartanAir, versions 1 and 2 (Wang et al. 2020): AirSim trajectories with depth, flow of the camera, and poses.

Both list poses of the camera in the world as north, east, down, in metres. The flow is computed from depth and camera,
so it is wrong on anything that moves; the sets' own masks say where a point is hidden or leaves the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import make_key
from unibench.camera import Camera
from unibench.formats.bounded import read_npy, read_numbers, read_png, read_rgbs, same_size, sequence
from unibench.importers.base import Imported, LeftOut, unread
from unibench.importers.checks import check_depth, check_not_half
from unibench.importers.poses import NED_CAMERA, NED_WORLD, change_axes, pose, rotation

Singles = npt.NDArray[np.float32]

_FAR = 1e4
"""Metres at which both sets put the sky."""
_FLOW_NOTE = "flow is the camera's alone: it ignores what moves"


def read_depth_v2(path: Path) -> Singles:
    """Depth `[H, W]`: the four bytes of a PNG's pixel, blue, green, red, alpha, are one little-endian float32."""
    return np.ascontiguousarray(read_png(path, np.uint8, 4)[..., [2, 1, 0, 3]]).view("<f4")[..., 0].astype(np.float32)


def read_flow_v2(path: Path) -> tuple[Singles, npt.NDArray[np.bool_]]:
    """Flow `[H, W, 2]` to 1/128 px and what is hidden `[H, W]`: u, v and mask are the PNG's blue, green and red."""
    stored = read_png(path, np.uint16, 3)
    flow = (stored[..., [2, 1]].astype(np.float32) - 32768) / np.float32(64)
    return flow.astype(np.float32), stored[..., 0] > 0


def read_tartanair_v1(src: Path) -> Iterator[Imported | LeftOut]:
    """One trajectory: `image_left`, `depth_left`, `seg_left`, `flow`, `pose_left.txt`; fx = fy = 320 at 640 × 480."""
    frames = sequence(src / "image_left", "*_left.png")
    stems = [path.stem.removesuffix("_left") for path in frames]
    flows = [src / "flow" / f"{a}_{b}_flow.npy" for a, b in pairwise(stems)]
    masks = [path.with_name(path.name.replace("_flow", "_mask")) for path in flows]
    depths = [src / "depth_left" / f"{stem}_left_depth.npy" for stem in stems]
    segments = [src / "seg_left" / f"{stem}_left_seg.npy" for stem in stems]
    yield _clip(
        src,
        frames,
        same_size([read_npy(path, np.float32, 2) for path in depths], depths),
        same_size([read_npy(path, np.float32, 3) for path in flows], flows),
        same_size([read_npy(path, np.uint8, 2) > 0 for path in masks], masks),
        [read_npy(path, np.uint8, 2) for path in segments] if segments[0].is_file() else [],
        src / "pose_left.txt",
    )
    yield from _rest(src, [*frames, *flows, *masks, *depths, *segments], src / "pose_left.txt", len(frames))


def read_tartanair_v2(src: Path) -> Iterator[Imported | LeftOut]:
    """One trajectory: `image_lcam_front`, `depth_lcam_front`, `flow_…`, `seg_…`, `pose_lcam_front.txt`."""
    frames = sequence(src / "image_lcam_front", "*_lcam_front.png")
    stems = [path.stem.removesuffix("_lcam_front") for path in frames]
    flows = [src / "flow_lcam_front" / f"{a}_{b}_flow.png" for a, b in pairwise(stems)]
    depths = [src / "depth_lcam_front" / f"{stem}_lcam_front_depth.png" for stem in stems]
    segments = [src / "seg_lcam_front" / f"{stem}_lcam_front_seg.png" for stem in stems]
    motion = [read_flow_v2(path) for path in flows]
    yield _clip(
        src,
        frames,
        same_size([read_depth_v2(path) for path in depths], depths),
        same_size([flow for flow, _ in motion], flows),
        same_size([mask for _, mask in motion], flows),
        [read_png(path, np.uint8, 1) for path in segments] if segments[0].is_file() else [],
        src / "pose_lcam_front.txt",
    )
    yield from _rest(src, [*frames, *flows, *depths, *segments], src / "pose_lcam_front.txt", len(frames))


def _rest(src: Path, used: list[Path], poses: Path, frames: int) -> Iterator[LeftOut]:
    if (more := len(read_numbers(poses, 7)) - frames) > 0:
        yield LeftOut(f"{more} poses of {poses}", "are beyond the last frame")
    yield from unread(src, [*used, poses])


def _clip(
    src: Path,
    frames: list[Path],
    depth: Singles,
    forward: Singles,
    occluded: npt.NDArray[np.bool_],
    segments: list[npt.NDArray[np.uint8]],
    poses: Path,
) -> Imported:
    rgb = read_rgbs(frames)
    height, width = rgb.shape[1:3]
    table = read_numbers(poses, 7)[: len(frames)]
    # 90° across: the focal length is half the width, and the axis passes through the middle of the image.
    K = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]])
    world = change_axes(pose(rotation(table[:, 3:]), table[:, :3]), NED_WORLD, NED_CAMERA)
    camera = Camera(np.tile(K, (len(table), 1, 1)), world, height, width)
    check_not_half(depth[0], src, "depth")
    depth = np.where(depth < _FAR, depth, np.float32(np.nan))
    segmentation = None
    if segments:
        ids = np.stack(segments).astype(np.int32)
        rows = tuple(Instance(int(k), f"mesh {k}") for k in np.unique(ids) if k)
        segmentation = Segmentation(ids, rows)
    return Imported(
        make_key(f"tartanair-{src.resolve().parent.name}-{src.resolve().name}"),
        rgb,
        10.0,
        depth=Depth(depth, "metric", exact=True),
        flow=Flow(forward, occluded, exact=True),
        segmentation=segmentation,
        camera=camera,
        notes=(_FLOW_NOTE, check_depth(camera, depth, str(src))),
    )
