"""Depth from stereo disparity as others measured it: Middlebury 2014 and 2021 (.pfm), KITTI 2012 and 2015 (PNG / 256).

Scharstein et al. 2014 (calib.txt: Z = baseline · f / (d + doffs)); Geiger et al. 2012 and Menze and Geiger 2015
(stereo development kits: disparity 0 is unknown; Z = baseline · f / d).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.depth import Depth
from openuni.storage import open_regular
from unibench.camera import Camera
from unibench.formats.bounded import check_size, read_png, read_rgbs, read_text
from unibench.importers.base import Imported, LeftOut, unread

Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def read_pfm(path: Path) -> Singles:
    """A portable float map of one channel `[H, W]`, first row on top."""
    with open_regular(path) as file:
        head = re.match(rb"Pf\s+(\d{1,9})\s+(\d{1,9})\s+(-?[0-9.eE+-]{1,20})\s", file.read(128))
        if head is None:
            raise CorruptDataError(f"{path} is not a PFM of one channel; the file is damaged or misnamed")
        width, height, scale = int(head[1]), int(head[2]), float(head[3])
        check_size(path, width, height)
        if path.stat().st_size - head.end() != 4 * width * height:
            raise CorruptDataError(f"{path}: {width} × {height} take {4 * width * height} bytes; the file is cut short")
        file.seek(head.end())
        rows = np.fromfile(file, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return np.ascontiguousarray(rows[::-1], np.float32)


def read_disparity(path: Path) -> Singles:
    """KITTI's disparity `[H, W]` in pixels to 1/512; NaN where there is none."""
    stored = read_png(path, np.uint16, 1)
    return np.where(stored > 0, stored.astype(np.float32) / 256, np.float32(np.nan))


def read_middlebury_stereo(src: Path) -> Iterator[Imported | LeftOut]:
    """Scenes of Middlebury stereo: `<scene>/im0.png`, `disp0.pfm` or `disp0GT.pfm` (infinite: unknown), `calib.txt`."""
    names = ("disp0.pfm", "disp0GT.pfm")
    found = sorted(path for scene in (src, *src.iterdir()) for name in names if (path := scene / name).is_file())
    if not found:
        raise CorruptDataError(f"{src} holds no <scene>/disp0.pfm; point to the folder of Middlebury's stereo scenes")
    for path in found:
        scene = path.parent
        K, numbers = _calibration(scene / "calib.txt")
        disparity = read_pfm(path)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = numbers["baseline"] / 1000 * K[0, 0] / (disparity.astype(np.float64) + numbers["doffs"])
        name = scene.resolve().name
        yield _clip(f"middlebury-{name}", scene / "im0.png", np.isfinite(disparity), depth, K, name)
    beside = [path.parent / name for path in found for name in ("im0.png", "calib.txt")]
    yield from unread(src, [*found, *beside])


def read_kitti_stereo(root: Path) -> Iterator[tuple[Imported, list[Path]]]:
    """Frames of KITTI's stereo benchmarks, each with its files: `disp_occ_0` with `image_2`, or `disp_occ` with
    `colored_0`, and projections of the cameras in `calib_cam_to_cam/` or `calib/`."""
    new = (root / "disp_occ_0").is_dir()
    for path in sorted((root / ("disp_occ_0" if new else "disp_occ")).glob("*_10.png")):
        stem = path.stem.removesuffix("_10")
        tables = [root / folder / f"{stem}.txt" for folder in ("calib_cam_to_cam", "calib")]
        table = next((file for file in tables if file.is_file()), None)
        if table is None:
            raise CorruptDataError(
                f"{path} has disparity and no camera; unpack the benchmark's calibration files ({tables[0]}): without "
                "focal length and baseline a disparity is not depth"
            )
        left, right = _projections(table)
        baseline = (left[0, 3] - right[0, 3]) / left[0, 0]
        disparity = read_disparity(path)
        picture = root / ("image_2" if new else "colored_0") / path.name
        depth = baseline * left[0, 0] / disparity.astype(np.float64)
        clip = _clip(f"kitti-{stem}-stereo", picture, np.isfinite(disparity), depth, left[:, :3].copy(), stem)
        yield clip, [path, picture, table]


def _clip(key: str, picture: Path, known: npt.NDArray[np.bool_], depth: Floats, K: Floats, video: str) -> Imported:
    K[:2, 2] += 0.5  # both count pixel centres from 0
    values = np.where(known & np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float32)[None]
    camera = Camera(K[None], np.eye(4)[None], *values.shape[1:])
    return Imported(
        key, read_rgbs([picture]), 10.0, depth=Depth(values, "metric", exact=True), camera=camera, video=video
    )


def _calibration(path: Path) -> tuple[Floats, dict[str, float]]:
    """Intrinsics `[3, 3]` of the left camera, and `baseline` (mm) and `doffs` (px)."""
    text = read_text(path, "replace") if path.is_file() else ""
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        K = np.array([float(word) for word in lines["cam0"].strip("[] ").replace(";", " ").split()]).reshape(3, 3)
        return K, {name: float(lines[name]) for name in ("baseline", "doffs")}
    except (KeyError, ValueError) as error:
        raise CorruptDataError(f"{path} does not say cam0, baseline and doffs: {error!r}") from error


def _projections(path: Path) -> tuple[Floats, Floats]:
    """Projections `[3, 4]` of the left and right colour cameras."""
    lines = dict(line.split(":", 1) for line in read_text(path, "replace").splitlines() if ":" in line)
    pairs = (("P_rect_02", "P_rect_03"), ("P2", "P3"))
    for pair in pairs:
        if all(name in lines for name in pair):
            try:
                left, right = (np.array([float(w) for w in lines[name].split()]).reshape(3, 4) for name in pair)
            except ValueError as error:
                raise CorruptDataError(f"{path}: {pair[0]} is not 12 numbers: {error}") from error
            return left, right
    raise CorruptDataError(f"{path} has neither P_rect_02 and P_rect_03 nor P2 and P3")
