"""Unreal Engine's Movie Render Queue: multilayer EXR with WorldDepth, MotionVectors and the object-id Cryptomatte.

Depth is planar, in centimetres. Poses are in the header: left-handed, x forward, y right, z up, centimetres, degrees.
Motion vectors lie in [0, 1], .5 is still; their scale, sign and direction are told differently by different sources, so
`calibrate` measures them on what the depth and the camera say of static pixels, and nothing is guessed.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.sample import make_key
from openuni.shards import layout
from openuni.storage import DOCUMENT, LocalStore
from unibench.camera import Camera
from unibench.formats.bounded import same_size, sequence
from unibench.formats.exr import Exr, cryptomatte, read_exr
from unibench.formats.srgb import encode_srgb
from unibench.importers.base import Imported, LeftOut, unread
from unibench.importers.checks import camera_only, check_depth, check_not_half, invert_flow, static_flow
from unibench.importers.poses import pose

Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Direction = Literal["to the previous frame", "to the next frame"]

CALIBRATION = "motion_vectors.json"
"""Where `calibrate` stores its result, beside the frames."""
_FAR = 1e4
"""Metres beyond which the depth is the sky's."""
_FLIP = np.diag([1.0, -1.0, 1.0])
"""Unreal's left-handed world to a right-handed one with z up."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a motion vector is: x · W · (R − .5) and y · H · (G − .5) pixels, towards `direction`.

    `error` is the median end-point error in pixels against what the camera alone would do, `rival` that of the best
    other reading.
    """

    x: float
    y: float
    direction: Direction
    error: float
    rival: float


def calibrate(src: Path) -> Calibration:
    """Settle scale, sign and direction of the motion vectors of a clip, and store them in `motion_vectors.json` there.

    Every reading of scale ±1, ±2 and either direction is compared with `static_flow` from depth and camera. Raises
    InvalidAnnotationError where the camera moves too little to tell, or no reading stands out (moving objects cover
    most of the picture, anti-aliasing is on, or the vectors are not what they claim).
    """
    clip = _read(src)
    readings: dict[tuple[float, float, Direction], float] = {}
    scales = (-2.0, -1.0, 1.0, 2.0)
    still = _still(clip)
    moving = max(float(np.nanmedian(np.linalg.norm(f, axis=-1))) for f in still["to the previous frame"])
    if not moving > 0.5:
        raise InvalidAnnotationError(
            f"{src}: the camera moves the picture by {moving:.2f} px; calibrate on a clip that pans"
        )
    for direction, flows in still.items():
        vectors = clip.vectors[1:] if direction == "to the previous frame" else clip.vectors[:-1]
        for x, y in itertools.product(scales, scales):
            off = np.linalg.norm(_pixels(vectors, x, y) - np.stack(flows), axis=-1)
            readings[x, y, direction] = float(np.nanmedian(off))
    ranked = sorted(readings.items(), key=lambda item: item[1])
    (x, y, direction), error = ranked[0]
    result = Calibration(x, y, direction, error, ranked[1][1])
    if error > 0.1 or error > 0.25 * result.rival:
        raise InvalidAnnotationError(
            f"{src}: no reading of the motion vectors agrees with depth and camera (best {error:.2f} px, next "
            f"{result.rival:.2f} px); are anti-aliasing and motion blur off, and is most of the scene still?"
        )
    LocalStore(src).put(CALIBRATION, (json.dumps(asdict(result), indent=1) + "\n").encode(), "calibrate")
    return result


def read_unreal(src: Path) -> Iterator[Imported | LeftOut]:
    """One clip: a folder of numbered multilayer EXR. Uses the stored calibration, or makes it.

    Unreal's vectors point to one neighbour; the other direction is their inverse, NaN where a point has no counterpart.
    """
    clip = _read(src)
    stored = src / CALIBRATION
    known = _stored(stored) if stored.is_file() else calibrate(src)
    motion = _pixels(clip.vectors, known.x, known.y)
    if known.direction == "to the previous frame":
        backward = motion[1:]
        forward = np.stack([invert_flow(m) for m in backward])
    else:
        forward = motion[:-1]
        backward = np.stack([invert_flow(m) for m in forward])
    notes = [
        f"motion vectors: {known.x:+g}·W, {known.y:+g}·H, {known.direction} "
        f"(median error {known.error:.3f} px, next reading {known.rival:.2f} px)",
        check_depth(clip.camera, clip.depth, str(src)),
    ]
    ids, rows = _ids(clip.frames)
    stored_backward = known.direction == "to the previous frame"
    given = backward if stored_backward else forward
    lost = camera_only(clip.camera, clip.depth, ids, given, backward=stored_backward)
    if lost:
        names = [row.class_name for row in rows if row.id in lost]
        raise InvalidAnnotationError(
            f"{src}: {', '.join(names[:5])} move, but their motion vectors are the camera's alone; "
            "turn on velocity output for every object (r.Velocity.ForceOutput 1) and render again"
        )
    yield Imported(
        make_key(f"unreal-{src.resolve().name}"),
        clip.rgb,
        clip.fps,
        depth=Depth(clip.depth, "metric", exact=True),
        flow=Flow(forward.astype(np.float32), None, backward.astype(np.float32), None, exact=True),
        segmentation=Segmentation(ids, rows),
        camera=clip.camera,
        notes=tuple(notes),
    )
    yield from unread(src, [*(frame.path for frame in clip.frames), stored])


@dataclass(frozen=True, slots=True, eq=False)
class _Clip:
    """What a folder holds: frames, linear pictures, depth in metres, raw vectors and the camera."""

    frames: tuple[Exr, ...]
    rgb: npt.NDArray[np.uint8]
    depth: Singles
    vectors: Singles
    camera: Camera
    fps: float


def _read(src: Path) -> _Clip:
    paths = sequence(src, "*.exr")
    frames = tuple(read_exr(path)[0] for path in paths)
    centimetres = same_size([f.single("WorldDepth.R") for f in frames], paths)
    check_not_half(centimetres, src, "WorldDepth")
    depth = (centimetres / np.float32(100)).astype(np.float32)
    depth[~(depth < _FAR)] = np.nan
    vectors = same_size(
        [np.stack([f.single("MotionVectors.R"), f.single("MotionVectors.G")], axis=-1) for f in frames], paths
    )
    return _Clip(
        frames,
        np.stack([_picture(f) for f in frames]),
        depth,
        vectors,
        _camera(frames, *depth.shape[1:]),
        _number(frames[0], "frameRate", 24.0),
    )


def _picture(exr: Exr) -> npt.NDArray[np.uint8]:
    """sRGB of the linear FinalImage; half precision is enough for eight bits."""
    planes = []
    for letter in "RGB":
        name = next((c for c in (letter, f"FinalImage.{letter}") if c in exr.channels), None)
        if name is None:
            raise CorruptDataError(f"{exr.path} has no picture: channel {letter} or FinalImage.{letter} is missing")
        planes.append(exr.channels[name].astype(np.float32))
    return encode_srgb(np.nan_to_num(np.stack(planes, axis=-1)))


def _camera(frames: Sequence[Exr], height: int, width: int) -> Camera:
    matrices, poses = [], []
    for exr in frames:
        place = [_number(exr, f"curPos/{axis}") / 100 for axis in "xyz"]
        angles = [np.radians(_number(exr, f"curRot/{name}")) for name in ("pitch", "yaw", "roll")]
        fov = np.radians(_number(exr, "fov"))
        if not 0.01 < fov < np.pi - 0.01:
            raise CorruptDataError(f"{exr.path}: a field of view of {np.degrees(fov):g}° is impossible")
        focal = width / 2 / np.tan(fov / 2)
        matrices.append([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        forward, right, up = unreal_axes(*angles)
        turn = np.stack([right, -up, forward], axis=1)
        poses.append(pose((_FLIP @ turn)[None], (_FLIP @ np.array(place))[None])[0])
    return Camera(np.array(matrices), np.array(poses), height, width)


def unreal_axes(pitch: float, yaw: float, roll: float) -> Floats:
    """Forward, right and up `[3, 3]`, in Unreal's world, of an FRotator in radians (Unreal's FRotationMatrix)."""
    (sp, sy, sr), (cp, cy, cr) = np.sin([pitch, yaw, roll]), np.cos([pitch, yaw, roll])
    return np.array(
        [
            [cp * cy, cp * sy, sp],
            [sr * sp * cy - cr * sy, sr * sp * sy + cr * cy, -sr * cp],
            [-(cr * sp * cy + sr * sy), cy * sr - cr * sp * sy, cr * cp],
        ]
    )


def _number(exr: Exr, name: str, default: float | None = None) -> float:
    """A number of Unreal's metadata (`unreal/camera/…/name`), whatever the layer or camera between is called."""
    keys = [key for key in exr.header if key.startswith("unreal/") and key.endswith(f"/{name}")]
    if not keys:
        if default is not None:
            return default
        raise CorruptDataError(f"{exr.path}: its metadata has no unreal/camera/…/{name}; include it in the EXR output")
    try:
        return float(exr.header[min(keys, key=len)])
    except (TypeError, ValueError) as error:
        raise CorruptDataError(f"{exr.path}: {min(keys, key=len)} is not a number") from error


def _ids(frames: Sequence[Exr]) -> tuple[npt.NDArray[np.int32], tuple[Instance, ...]]:
    """Ids `[T, H, W]` and their table; an actor has one id over the clip, in the order of names."""
    layers = [cryptomatte(f, "ActorHitProxyMask") for f in frames]
    names = sorted({name for _, table in layers for name in table.values()})
    number = {name: k for k, name in enumerate(names, 1)}
    ids = []
    for hashes, table in layers:
        known = np.array(sorted(table), np.uint32)
        values = np.array([number[table[int(k)]] for k in known], np.int32)
        at = np.searchsorted(known, hashes).clip(0, len(known) - 1)
        ids.append(np.where(known[at] == hashes, values[at], 0))
    stacked = np.stack(ids).astype(np.int32)
    shown = np.unique(stacked)
    return stacked, tuple(Instance(number[n], re.sub(r"[_ ]?\d+$", "", n) or n) for n in names if number[n] in shown)


def _still(clip: _Clip) -> dict[Direction, list[Singles]]:
    """What the camera alone does to the picture, in both directions."""
    last = len(clip.depth) - 1
    return {
        "to the previous frame": [static_flow(clip.camera, clip.depth[t], t, t - 1) for t in range(1, last + 1)],
        "to the next frame": [static_flow(clip.camera, clip.depth[t], t, t + 1) for t in range(last)],
    }


def _pixels(vectors: Singles, x: float, y: float) -> Singles:
    height, width = vectors.shape[1:3]
    return (vectors - np.float32(0.5)) * np.array([x * width, y * height], np.float32)


def _stored(path: Path) -> Calibration:
    try:
        known = layout.parse_json(Calibration, LocalStore(path.parent).read(path.name, at_most=DOCUMENT), str(path))
    except CorruptDataError as error:
        raise CorruptDataError(f"{error}; delete it, or run `unibench calibrate`") from None
    if not (math.isfinite(known.x) and math.isfinite(known.y)):
        raise CorruptDataError(f"{path}: scales {known.x}, {known.y}; delete it, or run `unibench calibrate`")
    return known
