"""Middlebury's flow data and what grew from its .flo: MPI Sintel (.flo, .dpt, .cam) and FlyingChairs.

Baker et al. 2011 (colour code of the Middlebury flow data); Butler et al. 2012, with the notes of Sintel's SDK.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from unibench.camera import Camera
from unibench.formats.bounded import read_bytes, read_png, read_rgbs, same_size, sequence
from unibench.formats.flo import TAG, read_flo, read_tagged
from unibench.importers.base import Imported, LeftOut, unread

Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


_SINTEL = {"depth": ".dpt", "flow": ".flo", "invalid": ".png", "occlusions": ".png", "camdata_left": ".cam"}
"""The truth beside Sintel's pictures: folders, and the suffix of a frame's file there."""


def read_dpt(path: Path) -> Singles:
    """Sintel's depth `[H, W]`: planar, metres."""
    return read_tagged(path, 1)[..., 0]


def read_cam(path: Path) -> tuple[Floats, Floats]:
    """Sintel's camera: intrinsics `[3, 3]`, with pixel centres at whole numbers, and world to camera `[3, 4]`."""
    data = read_bytes(path)
    if data[:4] != TAG or len(data) != 4 + 21 * 8:
        raise CorruptDataError(f"{path} is not a Sintel camera: it has {len(data)} bytes, 172 are expected")
    numbers = np.frombuffer(data, "<f8", offset=4)
    return numbers[:9].reshape(3, 3).copy(), numbers[9:].reshape(3, 4).copy()


def read_sintel(src: Path) -> Iterator[Imported | LeftOut]:
    """Clips of an MPI Sintel `training` folder: final (or clean) pictures with flow, occlusion, depth and camera.

    Flow that the masks in `invalid/` mark as no truth is NaN.
    """
    root = src / "training" if (src / "training").is_dir() else src
    pictures = next((root / name for name in ("final", "clean") if (root / name).is_dir()), None)
    if pictures is None:
        raise CorruptDataError(f"{root} has neither 'final' nor 'clean'; point to Sintel's training folder")
    used: list[Path] = []
    for folder in sorted(path for path in pictures.iterdir() if path.is_dir()):
        frames = sequence(folder, "frame_*.png")
        yield Imported(
            f"sintel-{folder.name}",
            read_rgbs(frames),
            24.0,
            depth=_sintel_depth(root / "depth" / folder.name, frames),
            flow=_sintel_flow(root, folder.name, frames),
            camera=_sintel_camera(root / "camdata_left" / folder.name, frames),
        )
        used += frames
        used += [root / name / folder.name / f"{f.stem}{suffix}" for name, suffix in _SINTEL.items() for f in frames]
    yield from unread(root, used)


def read_middlebury(src: Path) -> Iterator[Imported | LeftOut]:
    """Pairs of frames: `other-data/<scene>/frame10.png`, `frame11.png` and `other-gt-flow/<scene>/flow10.flo`.

    Frames are real or rendered, without a rate; 24 a second is put down. Unknown flow (beyond 1e9) is NaN.
    """
    flows = src / "other-gt-flow"
    if not flows.is_dir():
        raise CorruptDataError(f"{src} has no 'other-gt-flow'; unpack other-data.zip and other-gt-flow.zip into it")
    for scene in sorted((src / "other-data").glob("*/")):
        if not (flows / scene.name / "flow10.flo").is_file():
            yield LeftOut(str(scene), "has no flow10.flo")
    used = []
    for flow in sorted(flows.glob("*/flow10.flo")):
        pair = [src / "other-data" / flow.parent.name / f"frame{number}.png" for number in (10, 11)]
        value = Flow(read_flo(flow)[None], exact=True)
        yield Imported(f"middlebury-{flow.parent.name}", read_rgbs(pair), 24.0, flow=value)
        used += [flow, *pair]
    yield from unread(src, used)


def read_flying_chairs(src: Path) -> Iterator[Imported | LeftOut]:
    """FlyingChairs pairs, two frames each: `…_img1.ppm`, `…_img2.ppm`, `…_flow.flo`, or `-img0`, `-img1`, `-gt`."""
    used = []
    for flow in sorted([*src.glob("*_flow.flo"), *src.glob("*-gt.flo")]):
        names = ("_img1", "_img2") if flow.name.endswith("_flow.flo") else ("-img0", "-img1")
        stem = flow.name.removesuffix("_flow.flo").removesuffix("-gt.flo")
        pair = [flow.with_name(f"{stem}{name}.ppm") for name in names]
        yield Imported(f"chairs-{stem}", read_rgbs(pair), 24.0, flow=Flow(read_flo(flow)[None], exact=True))
        used += [flow, *pair]
    yield from unread(src, used)


def _sintel_depth(folder: Path, frames: list[Path]) -> Depth | None:
    if not folder.is_dir():
        return None
    paths = [folder / f"{frame.stem}.dpt" for frame in frames]
    return Depth(same_size([read_dpt(path) for path in paths], paths), "metric", exact=True)


def _sintel_flow(root: Path, name: str, frames: list[Path]) -> Flow | None:
    if not (root / "flow" / name).is_dir():
        return None
    paths = [root / "flow" / name / f"{frame.stem}.flo" for frame in frames[:-1]]
    forward = same_size([read_flo(path) for path in paths], paths)
    invalid = [root / "invalid" / name / f"{frame.stem}.png" for frame in frames[:-1]]
    if invalid[0].is_file():
        forward[same_size([read_png(path, np.uint8, 1) > 127 for path in invalid], invalid)] = np.nan
    masks = [root / "occlusions" / name / f"{frame.stem}.png" for frame in frames[:-1]]
    if not masks[0].is_file():
        return Flow(forward, exact=True)
    return Flow(forward, same_size([read_png(path, np.uint8, 1) > 127 for path in masks], masks), exact=True)


def _sintel_camera(folder: Path, frames: list[Path]) -> Camera | None:
    if not folder.is_dir():
        return None
    matrices, poses = [], []
    for frame in frames:
        K, outside = read_cam(folder / f"{frame.stem}.cam")
        K[:2, 2] += 0.5  # Sintel counts pixel centres from 0, OpenUni from .5
        pose = np.eye(4)
        pose[:3, :3] = outside[:, :3].T
        pose[:3, 3] = -outside[:, :3].T @ outside[:, 3]
        matrices.append(K)
        poses.append(pose)
    height, width = read_rgbs(frames[:1]).shape[1:3]
    return Camera(np.array(matrices), np.array(poses), height, width)
