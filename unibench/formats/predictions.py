"""Ordinary files of predictions and truth: one value of one task from a file or a folder.

| task | files |
|---|---|
| video | mp4, webm, gif, mov, mkv, avi; or png/jpg frames |
| depth | npz, npy `[T, H, W]`; png (grey, `metres` a code); exr; mp4 (grey, 8 bits). The kind must be said |
| flow | flo or KITTI png for each pair of frames; npz, npy `[T-1, H, W, 2]` or `[T-1, 2, H, W]`, x and y in pixels;
  of truth also `occluded` `[T-1, H, W]` in the npz |
| segmentation | png (palette or grey: ids; colour: one instance a colour); npz, npy `[T, H, W]`; `instances.json` |
| skeleton | npz: `keypoints` `[T, P, K, 3]` in pixels, `size` (height, width) and, where known, `boxes` `[T, P, 4]` and
  the detector's `scores` `[T, P]` of people |
| camera | of truth: `camera/<key>.npz` with `intrinsics` `[T, 3, 3]` and `poses` `[T, 4, 4]`, camera to world |
| densepose | npz with `values` `[T, H, W, 4]`, or `iuv` `[T, H, W, 3]` of one person; png (R part, G U, B V; or
  Facebook's: B part, G U, R V) |

`predictions.json` in the run's folder says what files cannot: {"depth": {"kind": "metric" | "relative" |
"affine_disparity", "metres": 0.001}, "fps": 16, "skeleton": {"layout": "coco17"}, "densepose": {"layout": "anny-24"},
"segmentation": {"ignore": 255}} (the id of pixels that the truth leaves undecided).
Nothing is unpickled, and no array is read that says it is larger than 8 GiB.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from openuni.errors import AbsentModalityError, InvalidAnnotationError, OpenUniError
from openuni.modalities.densepose import PARTS, DensePose
from openuni.modalities.depth import Depth, DepthKind
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.video import decode_video
from unibench.formats import colormaps, prompts
from unibench.metrics.consistency import Camera
from unibench.metrics.video import Video

_LARGEST = 8 << 30
_VIDEO = frozenset({".mp4", ".webm", ".gif", ".mov", ".mkv", ".avi"})
WHOLE_CLIP = frozenset({*_VIDEO, ".npz", ".npy"})
_ONE_FRAME = frozenset({".png", ".pgm", ".jpg", ".jpeg", ".exr", ".flo", ".npy"})


@dataclass(frozen=True, slots=True)
class DepthInfo:
    """What depth files mean. `metres` is the value of one step of a png's code."""

    kind: DepthKind | None = None
    metres: float = 1.0


@dataclass(frozen=True, slots=True)
class LayoutInfo:
    """The layout of joints or charts."""

    layout: str


@dataclass(frozen=True, slots=True)
class MaskInfo:
    """The id that marks pixels of truth as undecided: 255 in DAVIS 2017, VOC and Cityscapes."""

    ignore: int | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """`predictions.json`: what the files of a plain folder cannot say themselves."""

    depth: DepthInfo = field(default_factory=DepthInfo)
    fps: float | None = None
    skeleton: LayoutInfo = LayoutInfo("coco17")
    densepose: LayoutInfo = LayoutInfo("anny-24")
    segmentation: MaskInfo = MaskInfo()


def read_info(folder: Path) -> Info:
    """`predictions.json` of a plain folder, or its defaults. Raises OpenUniError where it says something unknown."""
    file = folder / "predictions.json"
    if not file.is_file():
        return Info()
    try:
        known = {"depth", "fps", "skeleton", "densepose", "segmentation"}
        data = json.loads(file.read_text("utf-8"))
        if not isinstance(data, dict) or set(data) - known:
            raise OpenUniError(f"{file} has unknown entries; it may have {', '.join(sorted(known))}")
        return TypeAdapter(Info).validate_python(data)
    except (ValueError, ValidationError) as error:
        raise OpenUniError(f"{file} cannot be used: {error}") from error


def _frames_of(entry: Path) -> list[Path]:
    """The files of a folder, one a frame, in natural order of names (frame2 before frame10)."""
    files = [p for p in entry.iterdir() if p.suffix.lower() in _ONE_FRAME]
    if not files:
        raise AbsentModalityError(f"{entry} has no file that is a frame ({', '.join(sorted(_ONE_FRAME))})")
    kinds = {p.suffix.lower() for p in files}
    if len(kinds) > 1:
        raise InvalidAnnotationError(f"{entry} mixes {', '.join(sorted(kinds))}; keep one kind of file a frame")
    return sorted(files, key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", p.name)])


def _whole(entry: Path) -> Path | None:
    """The one file that holds the whole clip: `entry` itself, or the only npz, npy or video in it."""
    if entry.is_file():
        return entry
    files = [p for p in entry.iterdir() if p.suffix.lower() in WHOLE_CLIP]
    return files[0] if len(files) == 1 else None


def load_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an npz by name, or of an npy as ``. Never unpickles. Raises InvalidAnnotationError on anything else."""
    try:
        if file.suffix.lower() == ".npy":
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
            if mapped.nbytes > _LARGEST:
                raise InvalidAnnotationError(f"{file} holds {mapped.nbytes} bytes, more than {_LARGEST}")
            return {"": np.array(mapped)}
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST:
                raise InvalidAnnotationError(f"{file} unpacks to more than {_LARGEST} bytes")
        with np.load(file, allow_pickle=False) as archive_of_arrays:
            return {name: archive_of_arrays[name] for name in archive_of_arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InvalidAnnotationError(f"{file} is not an npy or npz of plain arrays: {error}") from error


def _one_of(arrays: Mapping[str, npt.NDArray[Any]], names: Sequence[str], file: Path) -> npt.NDArray[Any]:
    """The array with one of these names, or the only one."""
    for name in names:
        if name in arrays:
            return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise InvalidAnnotationError(f"{file} has arrays {', '.join(arrays)}; expected one named {' or '.join(names)}")


def read_depth(entry: Path, info: Info) -> Depth:
    """`[T, H, W]`; zeros and negatives of a depth kind become NaN. Raises where the kind was not said."""
    if info.depth.kind is None:
        raise OpenUniError(
            f"{entry}: say what these numbers are, by --depth-kind or in predictions.json: "
            '{"depth": {"kind": "metric"}} (metres), "relative" (up to scale) or "affine_disparity" (larger is nearer)'
        )
    file = _whole(entry)
    if file is None:
        values = np.stack([_depth_frame(frame, info.depth.metres) for frame in _frames_of(entry)])
    elif file.suffix.lower() in _VIDEO:
        values = colormaps.grey(decode_video(file)[0], file).astype(np.float32)
    else:
        values = _one_of(load_arrays(file), ("depth", "depths", "disparity", "values"), file)
    values = np.squeeze(values, axis=-1) if values.ndim == 4 and values.shape[-1] == 1 else values
    values = np.squeeze(values, axis=1) if values.ndim == 4 and values.shape[1] == 1 else values
    if values.ndim != 3:
        raise InvalidAnnotationError(f"{entry}: depth has shape {values.shape}; it must be [T, H, W]")
    values = values.astype(np.float32)
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(values) if info.depth.kind == "affine_disparity" else ~(np.isfinite(values) & (values > 0))
    return Depth(np.where(bad, np.float32(np.nan), values), info.depth.kind)


def _depth_frame(frame: Path, metres: float) -> npt.NDArray[np.float32]:
    if frame.suffix.lower() == ".npy":
        return load_arrays(frame)[""].astype(np.float32)
    if frame.suffix.lower() == ".exr":
        return _read_exr(frame)
    image = _read_image(frame, cv2.IMREAD_UNCHANGED)
    image = image[..., 2::-1] if image.ndim == 3 else image  # OpenCV reads B, G, R
    return np.asarray(colormaps.grey(image, frame), dtype=np.float32) * np.float32(metres)


def _read_exr(file: Path) -> npt.NDArray[np.float32]:
    """The depth channel of an EXR: Z, depth.Z, V, Y or R."""
    import OpenEXR

    try:
        channels = OpenEXR.File(str(file), separate_channels=True).channels()
    except (RuntimeError, ValueError, OSError) as error:
        raise InvalidAnnotationError(f"{file} is not a readable EXR: {error}") from error
    for name in ("Z", "depth.Z", "V", "Y", "R"):
        if name in channels:
            return np.asarray(channels[name].pixels, dtype=np.float32)
    raise InvalidAnnotationError(f"{file} has channels {', '.join(channels)}; expected depth in Z, V, Y or R")


def _read_image(file: Path, flags: int) -> npt.NDArray[Any]:
    image = cv2.imread(str(file), flags)
    if image is None:
        raise InvalidAnnotationError(f"{file} is not a readable picture")
    return np.asarray(image)


def read_flow(entry: Path, info: Info) -> Flow:
    """Forward flow `[T-1, H, W, 2]`; vectors above 1e9 (Middlebury) or not finite become NaN."""
    del info
    file = _whole(entry)
    occluded = None
    if file is None:
        motion = np.stack([_flow_frame(frame) for frame in _frames_of(entry)])
    else:
        arrays = load_arrays(file)
        motion = _one_of(arrays, ("flow", "forward", "flows"), file)
        occluded = arrays["occluded"].astype(np.bool_) if "occluded" in arrays else None
    if motion.ndim == 4 and motion.shape[-1] != 2 and motion.shape[1] == 2:
        motion = motion.transpose(0, 2, 3, 1)
    if motion.ndim != 4 or motion.shape[-1] != 2:
        raise InvalidAnnotationError(f"{entry}: flow has shape {motion.shape}; it must be [T-1, H, W, 2]")
    motion = motion.astype(np.float32)
    with np.errstate(invalid="ignore"):
        known = (np.abs(motion) <= 1e9).all(axis=-1, keepdims=True)
    return Flow(np.where(known, motion, np.float32(np.nan)), occluded)


def _flow_frame(frame: Path) -> npt.NDArray[np.float32]:
    if frame.suffix.lower() == ".flo":
        data = frame.read_bytes()
        size = np.frombuffer(data[4:12], "<i4")
        if data[:4] != b"PIEH" or len(size) < 2 or size.min() <= 0 or len(data) != 12 + 8 * int(size[0]) * int(size[1]):
            raise InvalidAnnotationError(f"{frame} is not a Middlebury .flo file")
        return np.frombuffer(data, "<f4", offset=12).reshape(int(size[1]), int(size[0]), 2).astype(np.float32)
    if frame.suffix.lower() == ".npy":
        return load_arrays(frame)[""].astype(np.float32)
    image = _read_image(frame, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[-1] < 3:
        drawn = " but flow drawn in colours, for people: save the vectors as flo, npy or npz"
        raise InvalidAnnotationError(
            f"{frame} is not KITTI's 16-bit flow png{drawn if image.dtype == np.uint8 else ''}"
        )
    motion = (image[..., 2:0:-1].astype(np.float32) - 32768) / 64  # OpenCV reads B, G, R; u is R, v is G, B is valid
    motion[image[..., 0] == 0] = np.nan
    return np.asarray(motion, dtype=np.float32)


def read_segmentation(entry: Path, info: Info) -> Segmentation:
    """Ids `[T, H, W]`; classes and scores from `instances.json` beside them, else every instance is an `object`."""
    file = _whole(entry)
    if file is None:
        ids = _join_colours([_index_image(frame) for frame in _frames_of(entry)], entry)
    else:
        ids = _one_of(load_arrays(file), ("ids", "masks", "segmentation"), file)
    if ids.ndim != 3 or ids.dtype.kind not in "iub":
        raise InvalidAnnotationError(f"{entry}: masks have shape {ids.shape} {ids.dtype}; they must be ids [T, H, W]")
    if ids.size and (ids.min() < 0 or ids.max() > 65535):
        raise InvalidAnnotationError(f"{entry}: ids run from {ids.min()} to {ids.max()}; use 0 to 65535")
    labels = ids.astype(np.int32)
    ignored = None if info.segmentation.ignore is None else labels == info.segmentation.ignore
    if ignored is not None:
        labels[ignored] = 0
    table = (entry if entry.is_dir() else entry.with_suffix("")) / "instances.json"
    if not table.is_file():
        return Segmentation(labels, tuple(Instance(int(i), "object") for i in np.unique(labels) if i), ignored)
    try:
        rows = TypeAdapter(tuple[Instance, ...]).validate_json(table.read_bytes())
    except ValidationError as error:
        raise InvalidAnnotationError(f"{table} cannot be used: {error}") from error
    return Segmentation(labels, rows, ignored)


def _index_image(frame: Path) -> npt.NDArray[Any]:
    """Palette indices or grey levels `[H, W]`, or packed colours as negative numbers −1 − 0xRRGGBB (black: 0)."""
    colormaps.check_lossless(frame, "ids")
    try:
        with av.open(str(frame)) as container:
            decoded = next(container.decode(video=0))
    except (av.error.FFmpegError, StopIteration) as error:
        raise InvalidAnnotationError(f"{frame} is not a readable picture: {error}") from error
    if decoded.format.name == "pal8":
        plane = decoded.planes[0]
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(decoded.height, plane.line_size)
        return np.asarray(rows[:, : decoded.width], dtype=np.int64)
    if decoded.format.name.startswith(("gray", "mono")):
        wide = "gray16le" if "16" in decoded.format.name else "gray"
        return np.asarray(decoded.to_ndarray(format=wide)).astype(np.int64)
    rgb = decoded.to_ndarray(format="rgb24").astype(np.int64)
    packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    return np.where(packed == 0, 0, -1 - packed)


def _join_colours(frames: list[npt.NDArray[Any]], entry: Path) -> npt.NDArray[np.int64]:
    ids = np.stack(frames) if len({f.shape for f in frames}) == 1 else np.empty(0)
    if ids.size == 0:
        raise InvalidAnnotationError(f"{entry}: its frames differ in size")
    colours = np.unique(ids[ids < 0])
    if colours.size > 65535:
        raise InvalidAnnotationError(f"{entry}: more than 65535 colours; masks need one flat colour an instance")
    return np.where(ids < 0, np.searchsorted(colours, ids) + 1, ids) if colours.size else ids.astype(np.int64)


def read_skeleton(entry: Path, info: Info) -> Skeleton:
    """Joints; boxes, where not given, are those of the joints."""
    file = _whole(entry)
    if file is None:
        raise InvalidAnnotationError(f"{entry}: a skeleton is one npz a clip")
    arrays = load_arrays(file)
    points = _one_of(arrays, ("keypoints",), file).astype(np.float32)
    if points.ndim != 4 or points.shape[-1] != 3:
        raise InvalidAnnotationError(f"{file}: keypoints have shape {points.shape}; they must be [T, P, K, 3]")
    with np.errstate(invalid="ignore"):
        missing = ~(np.isfinite(points).all(axis=-1) & (points[..., 2] > 0))
    points[missing] = (np.nan, np.nan, 0)
    # People rank by the scores as they are: heat maps' peaks (RTMPose, MMPose) go above 1.
    scores = arrays["scores"].astype(np.float32) if "scores" in arrays else _mean_scores(points)
    points[..., 2] = np.clip(points[..., 2], 0, 1)
    boxes = arrays["boxes"].astype(np.float32) if "boxes" in arrays else _boxes_of(points)
    if "size" not in arrays or arrays["size"].shape != (2,):
        raise InvalidAnnotationError(f"{file} has no `size`: say the height and width its joints are in pixels of")
    height, width = (int(side) for side in arrays["size"])
    tracks = np.arange(points.shape[1], dtype=np.int32)
    return Skeleton(points, boxes, tracks, height, width, info.skeleton.layout, scores=scores)


def _mean_scores(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean score `[T, P]` of each person's joints; NaN where there is none."""
    total, number = points[..., 2].sum(axis=-1, dtype=np.float64), (points[..., 2] > 0).sum(axis=-1)
    mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return np.asarray(mean, np.float32)


def _boxes_of(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low = np.where(np.isnan(points[..., :2]), np.inf, points[..., :2]).min(axis=2, initial=np.inf)
    high = np.where(np.isnan(points[..., :2]), -np.inf, points[..., :2]).max(axis=2, initial=-np.inf)
    boxes = np.concatenate([low, high], axis=-1)
    boxes[~np.isfinite(boxes).all(axis=-1)] = np.nan
    return boxes.astype(np.float32)


def read_densepose(entry: Path, info: Info) -> DensePose:
    """Part, U, V and person `[T, H, W, 4]`; a file without people is of one person. Facebook's pictures, which have the
    part in blue, are known by it and have the charts `densepose-24`."""
    layout = info.densepose.layout
    file = _whole(entry)
    if file is None:
        iuv = np.stack([_read_image(frame, cv2.IMREAD_COLOR)[..., ::-1] for frame in _frames_of(entry)])
        if iuv[..., 0].max() >= len(PARTS) > iuv[..., 2].max():
            # Facebook's own IUV pictures are written as if they were B, G, R: the part lies in blue, V in red.
            iuv, layout = iuv[..., ::-1], "densepose-24"
    else:
        iuv = _one_of(load_arrays(file), ("values", "iuv"), file)
    if iuv.ndim != 4 or iuv.shape[-1] not in (3, 4) or iuv.dtype != np.uint8:
        raise InvalidAnnotationError(f"{entry}: {iuv.shape} {iuv.dtype}; DensePose is uint8 [T, H, W, 3 or 4]")
    if iuv.shape[-1] == 3:
        iuv = np.concatenate([iuv, (iuv[..., :1] > 0).astype(np.uint8)], axis=-1)
    return DensePose(np.where(iuv[..., :1] > 0, iuv, np.uint8(0)), layout)


def read_video(entry: Path, info: Info) -> Video:
    """Frames; the prompt as `unibench.formats.prompts` finds it."""
    file = _whole(entry)
    if file is None:
        frames = np.stack([_read_image(frame, cv2.IMREAD_COLOR)[..., ::-1] for frame in _frames_of(entry)])
        if info.fps is None:
            raise OpenUniError(f'{entry}: frames have no rate; say it in predictions.json: {{"fps": 16}}')
        return Video(np.ascontiguousarray(frames), info.fps, prompts.prompt_of(entry))
    frames, fps = decode_video(file)
    return Video(frames, fps, prompts.prompt_of(entry))


def read_camera(file: Path) -> Camera:
    """`intrinsics` `[T, 3, 3]` and `poses` `[T, 4, 4]` (camera to world) of an npz."""
    arrays = load_arrays(file)
    for name, side in (("intrinsics", 3), ("poses", 4)):
        if name not in arrays or arrays[name].ndim != 3 or arrays[name].shape[1:] != (side, side):
            raise InvalidAnnotationError(f"{file} must have `{name}` [T, {side}, {side}]")
    return Camera(arrays["intrinsics"].astype(np.float64), arrays["poses"].astype(np.float64))


READERS: Mapping[str, Callable[[Path, Info], Any]] = {
    "depth": read_depth,
    "flow": read_flow,
    "segmentation": read_segmentation,
    "skeleton": read_skeleton,
    "densepose": read_densepose,
    "video": read_video,
}
