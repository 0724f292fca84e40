"""Shots of a video, by PySceneDetect, on presentation times.

`AdaptiveDetector` (PySceneDetect ≥ 0.7) compares each frame's change in hue, saturation and brightness with that of its
neighbours, so that a fast pan is not taken for a cut, as `ContentDetector`'s fixed threshold does. Frames come from our
own reader with their PTS: on a variable frame rate a frame number says nothing about time.

A fade through black is a cut in the middle of the black, as `ThresholdDetector` has it, on presentation times.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from openuni.errors import BadVideoError
from openuni.video import Limits, PresentedFrame, presented_frames

# Cuts of all clips tried are the same at 256 and 320 pixels; PySceneDetect itself shrinks to 256 and more.
_LONG_SIDE = 320
_BLACK = 12.0
"""Mean level of 255 below which a frame is black: PySceneDetect's own threshold of fades."""
_NOMINAL_RATE = Fraction(30)  # PySceneDetect wants a rate; with lengths in seconds nothing is computed from it


_NEAREST = 1 / 16
"""Seconds that two cuts are apart at least, even where clips may be shorter: what is nearer is a flash or a fade."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A span without a cut: seconds of presentation time since the video's first frame, `end` exclusive."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def find_shots(video: Path | str, min_seconds: float = 0.5, limits: Limits | None = None) -> list[Shot]:
    """The shots of `video`, which together cover it; two cuts are at least `min_seconds` apart.

    A fade through black is a cut, a dissolve from one picture into the next is none. The whole video is decoded, one
    frame held at a time. Raises BadVideoError where the video cannot be read to its end, shows no frame, or exceeds
    `limits`.
    """
    from scenedetect.common import FrameTimecode, Timecode
    from scenedetect.detectors import AdaptiveDetector

    min_seconds = max(min_seconds, _NEAREST)
    detector = AdaptiveDetector(min_scene_len=float(min_seconds))
    cuts: list[float] = []
    blacks: list[Shot] = []
    dark: float | None = None
    last: PresentedFrame | None = None
    for frame in presented_frames(video, long_side=_LONG_SIDE, limits=limits):
        tick = Fraction(1, frame.time.denominator)
        time = FrameTimecode(Timecode(frame.time.numerator, tick), _NOMINAL_RATE)
        bgr = np.ascontiguousarray(frame.rgb[:, :, ::-1])
        cuts += [float(cut.seconds) for cut in detector.process_frame(time, bgr)]
        if bgr.mean() < _BLACK:
            dark = float(frame.time) if dark is None else dark
        elif dark is not None:
            blacks.append(Shot(dark, float(frame.time)))
            dark = None
        last = frame
    if last is None:
        raise BadVideoError(f"{video}: it has no frame that is ever shown; its times or its edit list are damaged")
    end = float(last.time + last.duration)
    bounds = [0.0, *_with_fades(cuts, blacks, end, min_seconds), end]
    return [Shot(start, end) for start, end in itertools.pairwise(bounds)]


def _with_fades(cuts: list[float], blacks: list[Shot], end: float, min_seconds: float) -> list[float]:
    """Cuts, and the middles of blacks; a black that a cut begins, ends or lies near is not a fade but a shot."""
    found = [0.0, *cuts, end]
    for black in blacks:
        if all(not black.start - min_seconds < cut < black.end + min_seconds for cut in found):
            found.append((black.start + black.end) / 2)
    return sorted(found)[1:-1]


def windows(shot: Shot, longest: float, shortest: float = 0.0) -> list[Shot]:
    """`shot` in as few equal pieces as are at most `longest` seconds, so that no rest is left over.

    Where equal pieces would be below `shortest`, as many of `longest` as there are, and a last one that is too short.

    Example:
        >>> windows(Shot(0.0, 10.4), 5.0)
        [Shot(start=0.0, end=3.466...), Shot(start=3.466..., end=6.933...), Shot(start=6.933..., end=10.4)]
    """
    count = max(1, math.ceil(round(shot.seconds / longest, 6)))
    length = shot.seconds / count
    if count > 1 and length < shortest:
        length = longest
    starts = [shot.start + k * length for k in range(count)]
    return [Shot(start, end) for start, end in zip(starts, [*starts[1:], shot.end], strict=True)]
