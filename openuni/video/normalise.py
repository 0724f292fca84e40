"""The normalised clip: what is stored, and what every expert sees."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np

from openuni.errors import BadVideoError
from openuni.sample import Clip
from openuni.video.clock import ClockKind
from openuni.video.colour import Transfer
from openuni.video.decode import Frame, probe, sample_frames
from openuni.video.encode import encode
from openuni.video.limits import Limits

_SMALLEST_SIDE = 16


FASTEST = 240.0
"""Most frames a second of a stored clip."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How a clip is stored."""

    fps: float | None = 16.0
    """Times are sampled at this rate, so a slower source repeats frames. None: at the video's own rate."""
    short_side: int = 480
    """Shorter side, pixels; a smaller source keeps its size. Sides are made even, as 4:2:0 colour needs."""
    max_frames: int = 81
    min_frames: int = 8
    crf: int = 18
    """x264 constant rate factor; 18 is visually transparent."""
    undo_pulldown: bool = True
    """Whether telecined film comes back as the film's own frames. Datasets begun before that could be done go on
    without, so that no dataset has clips of both kinds."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a stored clip was made from, kept in its record."""

    clock: ClockKind
    """Where the times of its frames come from."""
    deinterlaced: bool
    """Whether a frame of it was interlaced in the source."""
    detelecined: bool
    """Whether a frame of it is one of film that lay in the source by 3:2 pulldown."""
    transfer: Transfer
    """`pq` and `hlg` were tone-mapped to BT.709."""


@dataclass(frozen=True, slots=True)
class NormalisedVideo:
    """A stored clip: the bytes of an H.264 mp4 of `frames` frames, `height` × `width` pixels, at `fps`."""

    mp4: bytes
    frames: int
    height: int
    width: int
    fps: float
    origin: Origin
    repeated_frames: float
    """Share of the stored frames that repeat the source frame before: near 1 for a still, or a slow source."""


def normalise(clip: Clip, settings: Normalisation | None = None, limits: Limits | None = None) -> NormalisedVideo:
    """The stored form of `clip`: cut, turned upright, cropped, sampled, shrunk by area, encoded once.

    Non-square pixels are made square by shrinking. A span that shows one source frame throughout is an image where
    clips of one frame are welcome (`min_frames` 1), and stored as that: repeated, it would pass for a scene at rest.
    The same file gives the same bytes in one environment. Raises BadVideoError where the video cannot be read, the crop
    leaves the frame, fewer than `min_frames` come out, or its own rate is wanted and is none of a film.
    """
    settings, limits = settings or Normalisation(), limits or Limits()
    info = probe(clip.video, limits)
    x0, y0, x1, y1 = clip.crop or (0, 0, info.width, info.height)
    if not (0 <= x0 < x1 <= info.width and 0 <= y0 < y1 <= info.height):
        raise BadVideoError(
            f"{clip.video}: crop {x0},{y0},{x1},{y1} of {clip.key} leaves the frame of {info.width}×{info.height}"
        )
    height, width = _stored_size(y1 - y0, x1 - x0, info.pixel_aspect, settings.short_side)
    if min(height, width) < _SMALLEST_SIDE:
        raise BadVideoError(
            f"{clip.video}: {clip.key} would be {width}×{height}; a side needs {_SMALLEST_SIDE} pixels at least"
        )

    fps = settings.fps or info.own_fps
    if not fps <= FASTEST:
        raise BadVideoError(f"{clip.video}: it gives its rate as {fps:g} frames a second; name one with --fps")
    repeated = 0
    deinterlaced = detelecined = False

    def pictures() -> Iterator[Frame]:
        nonlocal repeated, deinterlaced, detelecined
        frames = sample_frames(
            clip.video,
            clip.start,
            clip.end,
            fps=fps,
            limits=limits,
            undo_pulldown=settings.undo_pulldown,
            centred=settings.fps is None,
        )
        for frame in itertools.islice(frames, settings.max_frames):
            repeated += frame.repeated
            deinterlaced |= frame.deinterlaced
            detelecined |= frame.detelecined
            yield resized(frame.rgb[y0:y1, x0:x1], height, width)

    mp4, count = encode(pictures(), fps, lossless=False, crf=settings.crf)
    if settings.min_frames == 1 and repeated > 0 and repeated == count - 1:
        return normalise(clip, replace(settings, max_frames=1), limits)
    if count < settings.min_frames:
        raise BadVideoError(
            f"{clip.video}: {clip.key} has {count} frames at {fps:g} fps; {settings.min_frames} are needed"
        )
    origin = Origin(info.clock, deinterlaced, detelecined, info.transfer)
    return NormalisedVideo(mp4, count, height, width, fps, origin, repeated / max(count, 1))


def _stored_size(height: int, width: int, pixel_aspect: float, short_side: int) -> tuple[int, int]:
    """Even height and width, none larger than the source's, of square pixels."""
    square_h, square_w = height / max(pixel_aspect, 1.0), width * min(pixel_aspect, 1.0)
    scale = min(1.0, short_side / min(square_h, square_w))
    return 2 * min(round(square_h * scale / 2), height // 2), 2 * min(round(square_w * scale / 2), width // 2)


def resized(frame: Frame, height: int, width: int) -> Frame:
    """As the frames of a stored clip are: area-averaged to `height` × `width`; an odd last row or column is dropped
    rather than resampled. Also of one channel, `[H, W]`."""
    if (frame.shape[0] - height, frame.shape[1] - width) in ((0, 0), (0, 1), (1, 0), (1, 1)):
        return np.ascontiguousarray(frame[:height, :width])
    return cast(Frame, cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
