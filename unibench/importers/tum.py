"""TUM RGB-D and ICL-NUIM: 16-bit PNG depth, 5000 a metre, with a list of poses.

Sturm et al. 2012; Handa et al. 2014. ICL's focal length in y is −480: its camera has y up and its world is left-handed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.modalities.depth import Depth
from openuni.sample import make_key
from unibench.camera import Camera
from unibench.formats.bounded import read_numbers, read_png, read_rgbs, read_text, same_size
from unibench.importers.base import Imported, LeftOut, unread
from unibench.importers.checks import check_depth
from unibench.importers.poses import change_axes, pose, rotation

Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_APART = 0.02
"""Seconds between a picture and the depth or pose that still belongs to it (the tools of the TUM benchmark)."""
_TUM = {"freiburg1": (517.3, 516.5, 318.6, 255.3), "freiburg2": (520.9, 521.0, 325.1, 249.7),
        "freiburg3": (535.4, 539.2, 320.1, 247.6),
        "rgbd_bonn": (542.822841, 542.576870, 315.593520, 237.756098)}  # fmt: skip
"""fx, fy, cx, cy of TUM's three cameras and Bonn's, for 640 × 480, pixel centres at whole numbers."""
_CAMERA = ("camera.txt", "calibration.txt", "intrinsics.txt")
"""Where a sequence of another name may say fx, fy, cx, cy."""
_ICL = (481.2, -480.0, 319.5, 239.5)


def read_depth(path: Path, per_metre: float = 5000.0) -> Singles:
    """Planar depth `[H, W]` in metres; NaN where the sensor has none."""
    stored = read_png(path, np.uint16, 1)
    return np.where(stored > 0, stored / np.float32(per_metre), np.float32(np.nan)).astype(np.float32)


def icl_camera(quaternions: Floats, positions: Floats, height: int, width: int) -> Camera:
    """The camera of ICL-NUIM from its quaternions (x, y, z, w) `[T, 4]` and positions `[T, 3]`.

    Its y points up, so both its camera and its world are mirrored to be OpenCV's and right-handed.
    """
    mirror = np.diag([1.0, -1.0, 1.0])
    fx, fy, cx, cy = _ICL
    return _camera(
        (fx, -fy, cx, cy), change_axes(pose(rotation(quaternions), positions), mirror, mirror), height, width
    )


def read_tum(src: Path) -> Iterator[Imported | LeftOut]:
    """One TUM sequence: `rgb.txt`, `depth.txt`, `groundtruth.txt` associated by time. Depth has the sensor's noise.

    A folder under another name says its camera in `camera.txt`: fx fy cx cy, pixel centres at whole numbers.
    """
    intrinsics = _intrinsics(src)
    pictures, depths = _stamps(src / "rgb.txt"), _stamps(src / "depth.txt")
    truth = read_numbers(src / "groundtruth.txt", 8)
    rows = []
    for time, picture in pictures:
        near = min(depths, key=lambda row: abs(row[0] - time))
        at = int(np.abs(truth[:, 0] - time).argmin())
        if max(abs(near[0] - time), abs(truth[at, 0] - time)) <= _APART:
            rows.append((picture, near[1], truth[at, 1:]))
    if not rows:
        raise CorruptDataError(
            f"{src}: no picture has depth and a pose within {_APART} s; do the lists belong together?"
        )
    if len(rows) < len(pictures):
        yield LeftOut(
            f"{len(pictures) - len(rows)} of {len(pictures)} pictures", f"no depth and pose within {_APART} s"
        )
    numbers = np.array([row[2] for row in rows])
    rgb = read_rgbs([row[0] for row in rows])
    depth = _depths([row[1] for row in rows])
    camera = _camera(intrinsics, pose(rotation(numbers[:, 3:]), numbers[:, :3]), *rgb.shape[1:3])
    seconds = float(np.median(np.diff([time for time, _ in pictures]))) if len(pictures) > 1 else 1 / 30
    yield _clip(src, rgb, depth, camera, 1 / seconds)
    if idle := {path for _, path in depths} - {row[1] for row in rows}:
        yield LeftOut(f"{len(idle)} of {len(depths)} depth maps ({min(idle).name}, …)", "belong to no picture")
    tables = (src / name for name in ("rgb.txt", "depth.txt", "groundtruth.txt", *_CAMERA))
    yield from unread(
        src.resolve(), [*(path for _, path in (*pictures, *depths)), *(path.resolve() for path in tables)]
    )


def _intrinsics(src: Path) -> tuple[float, float, float, float]:
    table = next((src / name for name in _CAMERA if (src / name).is_file()), None)
    if table is not None:
        rows = read_numbers(table, 4)
        if len(rows) != 1:
            raise CorruptDataError(f"{table} has {len(rows)} lines of numbers; it must have one, fx fy cx cy")
        fx, fy, cx, cy = rows[0].tolist()
        return fx, fy, cx, cy
    name = next((key for key in _TUM if key in src.resolve().name), None)
    if name is None:
        raise CorruptDataError(
            f"{src}: whose camera is it? Name the folder after freiburg1, freiburg2 or freiburg3, or put fx fy cx cy "
            f"into {src / _CAMERA[0]}"
        )
    return _TUM[name]


def read_icl(src: Path) -> Iterator[Imported | LeftOut]:
    """One ICL-NUIM trajectory: `associations.txt`, `rgb/`, `depth/` and a `*.gt.freiburg` list of poses."""
    lists = sorted(src.glob("*.gt.freiburg"))
    if len(lists) != 1:
        raise CorruptDataError(f"{src} needs one *.gt.freiburg list of poses, it has {len(lists)}")
    numbers = read_numbers(lists[0], 8)
    by_frame = {int(row[0]): row[1:] for row in numbers}
    rows, unposed = [], []
    for line in read_text(src / "associations.txt").splitlines():
        words = line.split()
        if len(words) == 4 and int(words[0]) in by_frame:
            rows.append((_inside(src, words[3]), _inside(src, words[1]), by_frame[int(words[0])]))
        elif words:
            unposed.append(line)
    if not rows:
        raise CorruptDataError(f"{src}: associations.txt names no frame of {lists[0].name}")
    poses = np.array([row[2] for row in rows])
    rgb = read_rgbs([row[0] for row in rows])
    camera = icl_camera(poses[:, 3:], poses[:, :3], *rgb.shape[1:3])
    yield _clip(src, rgb, _depths([row[1] for row in rows]), camera, 30.0)
    if unposed:
        yield LeftOut(f"{len(unposed)} lines of {src / 'associations.txt'} ({unposed[0][:40]!r}, …)", "have no pose")
    tables = [path.resolve() for path in (lists[0], src / "associations.txt")]
    yield from unread(src.resolve(), [*(path for row in rows for path in row[:2]), *tables])


def _clip(src: Path, rgb: npt.NDArray[np.uint8], depth: Singles, camera: Camera, fps: float) -> Imported:
    note = check_depth(camera, depth, str(src))
    key = make_key(src.resolve().name)
    return Imported(key, rgb, fps, depth=Depth(depth, "metric", exact=True), camera=camera, notes=(note,))


def _camera(numbers: tuple[float, float, float, float], poses: Floats, height: int, width: int) -> Camera:
    fx, fy, cx, cy = numbers
    K = np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])  # both count pixel centres from 0
    return Camera(np.tile(K, (len(poses), 1, 1)), poses, height, width)


def _depths(paths: list[Path]) -> Singles:
    return np.asarray(same_size([read_depth(path) for path in paths], paths))


def _stamps(path: Path) -> list[tuple[float, Path]]:
    rows = []
    for line in read_text(path).splitlines():
        words = line.split()
        if len(words) == 2 and not line.startswith("#"):
            rows.append((float(words[0]), _inside(path.parent, words[1])))
    if not rows:
        raise CorruptDataError(f"{path} lists no file")
    return rows


def _inside(root: Path, name: str) -> Path:
    """A file named in a list, refused where it leads out of the folder."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise CorruptDataError(f"{root}: a list names {name!r}, which leads out of the folder")
    return path
