"""KITTI: flow as 16-bit PNG with 1/64 px, depth as 16-bit PNG with 1/256 m.

Menze and Geiger 2015 (flow development kit); Uhrig et al. 2017 (depth development kit).
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
from unibench.formats.bounded import read_numbers, read_rgbs
from unibench.formats.kitti import read_depth, read_flow
from unibench.importers.base import Imported, LeftOut, unread
from unibench.importers.stereo import read_kitti_stereo

Singles = npt.NDArray[np.float32]


def read_kitti(src: Path) -> Iterator[Imported | LeftOut]:
    """Pairs of the flow benchmark (`image_2`, `flow_occ`, `flow_noc`), frames of the stereo benchmarks (`disp_occ_0` or
    `disp_occ`, by way of depth), or frames of the depth selection.

    Where `flow_noc` lacks a value that `flow_occ` has, the point is occluded or leaves the frame.
    """
    root = src / "training" if (src / "training").is_dir() else src
    readers = {
        "flow_occ": _pairs, "disp_occ_0": read_kitti_stereo, "disp_occ": read_kitti_stereo, "groundtruth_depth": _frames
    }  # fmt: skip
    there = [name for name in readers if (root / name).is_dir()]
    if not there:
        raise CorruptDataError(f"{root} has none of {', '.join(readers)}; point to a KITTI benchmark")
    used: set[Path] = set()
    for name in there:
        if name != "groundtruth_depth":
            others = [path for path in sorted((root / name).glob("*.png")) if not path.stem.endswith("_10")]
            yield from (LeftOut(str(path), "is not of a frame _10") for path in others)
            used |= {*others}
        for clip, files in readers[name](root):
            yield clip
            used |= {*files}
    yield from unread(root, used)


def _pairs(root: Path) -> Iterator[tuple[Imported, list[Path]]]:
    for path in sorted((root / "flow_occ").glob("*_10.png")):
        stem = path.stem.removesuffix("_10")
        pair = [root / "image_2" / f"{stem}_{n}.png" for n in (10, 11)]
        forward = read_flow(path)
        visible = root / "flow_noc" / path.name
        occluded = None
        if visible.is_file():
            occluded = np.any(np.isnan(read_flow(visible)) & ~np.isnan(forward), axis=-1)[None]
        flow = Flow(forward[None], occluded, exact=True)
        yield Imported(f"kitti-{stem}", read_rgbs(pair), 10.0, flow=flow), [path, visible, *pair]


def _frames(root: Path) -> Iterator[tuple[Imported, list[Path]]]:
    for path in sorted((root / "groundtruth_depth").glob("*.png")):
        picture = root / "image" / path.name.replace("groundtruth_depth", "image")
        depth = Depth(read_depth(path)[None], "metric", exact=True)
        camera = None
        table = root / "intrinsics" / f"{picture.stem}.txt"
        if table.is_file():
            K = read_numbers(table, 9).reshape(1, 3, 3)
            K[:, :2, 2] += 0.5  # KITTI counts pixel centres from 0
            camera = Camera(K, np.eye(4)[None], *depth.values.shape[1:])
        clip = Imported(
            f"kitti-{path.stem}", read_rgbs([picture]), 10.0, depth=depth, camera=camera, video=picture.stem
        )
        yield clip, [path, picture, table]
