"""Plain folders of one sample: a file that holds the whole clip, or one file a frame in natural order of names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import AbsentModalityError, InvalidAnnotationError
from openuni.video import Limits, decode_video
from unibench.formats import colormaps
from unibench.formats.bounded import picture_size, read_rgb

VIDEO = frozenset({".mp4", ".webm", ".gif", ".mov", ".mkv", ".avi"})
WHOLE_CLIP = frozenset({*VIDEO, ".npz", ".npy"})
ONE_FRAME = frozenset({".png", ".pgm", ".jpg", ".jpeg", ".exr", ".flo", ".npy"})


def whole(entry: Path) -> Path | None:
    """The one file that holds the whole clip: `entry` itself, or the only npz, npy or video in it."""
    if entry.is_file():
        return entry
    files = [p for p in entry.iterdir() if p.suffix.lower() in WHOLE_CLIP]
    return files[0] if len(files) == 1 else None


def frames_of(entry: Path) -> list[Path]:
    """The files of a folder, one a frame, in natural order of names (frame2 before frame10).

    Raises AbsentModalityError where there is none, InvalidAnnotationError where kinds of files are mixed.
    """
    files = [p for p in entry.iterdir() if p.suffix.lower() in ONE_FRAME]
    if not files:
        raise AbsentModalityError(f"{entry} has no file that is a frame ({', '.join(sorted(ONE_FRAME))})")
    kinds = {p.suffix.lower() for p in files}
    if len(kinds) > 1:
        raise InvalidAnnotationError(f"{entry} mixes {', '.join(sorted(kinds))}; keep one kind of file a frame")
    return sorted(files, key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", p.name)])


def stacked(frames: list[npt.NDArray[np.generic]], entry: Path, most: int) -> npt.NDArray[np.generic]:
    """Frames of one size as one array. Raises InvalidAnnotationError where they differ or exceed `most`."""
    if len({frame.shape for frame in frames}) > 1:
        raise InvalidAnnotationError(f"{entry}: its frames differ in size")
    if sum(frame.nbytes for frame in frames) > most:
        raise InvalidAnnotationError(f"{entry} holds more than the {most} bytes that are read here")
    return np.stack(frames)


def read_video(file: Path, most: int) -> tuple[npt.NDArray[np.uint8], float]:
    """Frames `[T, H, W, 3]` RGB and their rate. Raises BadVideoError, before it is decoded where it says its length,
    for a video of more than `most` bytes of frames."""
    limits = Limits()
    return decode_video(file, replace(limits, array_bytes=min(limits.array_bytes, most)))


def read_rgb_frames(entry: Path, most: int) -> npt.NDArray[np.uint8]:
    """Pictures of a folder, `[T, H, W, 3]` RGB."""
    files = frames_of(entry)
    height, width = picture_size(files[0])
    if 3 * height * width * len(files) > most:
        raise InvalidAnnotationError(f"{entry} holds more than the {most} bytes that are read here")
    return np.asarray(stacked([read_rgb(file) for file in files], entry, most), np.uint8)


def read_grey(frame: Path) -> npt.NDArray[np.float32]:
    """A picture of one number a pixel, `[H, W]`, as its codes. Raises InvalidAnnotationError where it has colours."""
    picture_size(frame)
    image = cv2.imread(str(frame), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InvalidAnnotationError(f"{frame} is not a readable picture")
    image = image[..., 2::-1] if image.ndim == 3 else image  # OpenCV reads B, G, R
    return np.asarray(colormaps.grey(image, frame), dtype=np.float32)


def read_ids(frame: Path) -> npt.NDArray[np.int64]:
    """Palette indices or grey levels `[H, W]`, or packed colours as negative numbers −1 − 0xRRGGBB (black: 0)."""
    colormaps.check_lossless(frame, "ids")
    picture_size(frame)
    # The demuxer is said: by its bytes FFmpeg would also take a picture for a playlist that opens other files.
    demuxer = {".png": "png_pipe", ".pgm": "pgm_pipe"}.get(frame.suffix.lower(), "jpeg_pipe")
    try:
        with av.open(str(frame), format=demuxer) as container:
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
