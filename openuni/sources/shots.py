"""Shots of a video, by PySceneDetect, on presentation times.

`AdaptiveDetector` (PySceneDetect ≥ 0.7) compares each frame's change in hue, saturation and brightness with that of its
neighbours, so that a fast pan is not taken for a cut, as `ContentDetector`'s fixed threshold does. Frames come from our
own reader with their PTS: on a variable frame rate a frame number says nothing about time.

A fade through black is a cut in the middle of the black, as `ThresholdDetector` has it, on presentation times. A
dissolve, for which PySceneDetect has no detector, is where the frames between two different pictures are mixtures of
the two, of ever more of the second. A flash is no cut: what is seen after it was seen before it.

That leaves dissolves in which things move. TransNetV2 (`openuni.sources.transnet`), where it is asked for, looks at
videos in which one picture gives way to another without a cut, and what it sees is added.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import BadVideoError
from openuni.sources import transnet
from openuni.video import Limits, PresentedFrame, presented_frames

Thumbnail = npt.NDArray[np.uint8]

# Cuts of all clips tried are the same at 256 and 320 pixels; PySceneDetect itself shrinks to 256 and more.
_LONG_SIDE = 320
_BLACK = 12.0
"""Mean level of 255 below which a frame may be black: PySceneDetect's own threshold of fades."""
_PLAIN = 8.0
"""Standard deviation of a thumbnail below which it shows nothing. A film's dark scene of mean 11 has 19, a title on
black 4 to 5."""
_NOMINAL_RATE = Fraction(30)  # PySceneDetect wants a rate; with lengths in seconds nothing is computed from it


_NEAREST = 1 / 16
"""Seconds that two cuts are apart at least, even where clips may be shorter: what is nearer is a flash or a fade."""


_THUMBNAIL = (32, 18)
"""Width and height at which mixtures are looked for: what moves within a picture is nearly gone there."""
_FLASH = 0.125
"""Seconds before and after a cut in which no two frames may be alike: a flash lasts for a frame or two."""
_ALIKE = 0.5
"""Difference of such two, as a share of that at the cut, below which they are alike."""
_SAME = 0.9
"""Correlation of such two from which they are one picture, and not two with a white frame between."""
_DISSOLVES = (0.4, 0.8, 1.6)
"""Seconds over which dissolves are looked for."""
_SAMPLES = 9
"""Frames looked at over such a span."""
_DIFFERENT = 12.0
"""Root mean square, in levels of 255, from which two thumbnails are two pictures."""
_UNLIKE = 0.7
"""Correlation of two thumbnails from which they are one picture in another light."""
_PURE = 0.05
"""Share of the other picture up to which a frame of a dissolve is still, or already, one picture."""
_MIXED = 0.2
"""Most that frames between may lie off the line from one picture to the other, over its length."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A span without a cut: seconds of presentation time since the video's first frame, `end` exclusive."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


_SHORT_BLACK = 1.0
"""Seconds of black between two shots that are shared between them, and no shot of its own."""
_SAME_CUT = 0.125
"""Seconds within which what TransNetV2 sees, on fewer frames, is a cut that is known to the frame."""

Detector = Literal["adaptive", "transnetv2"]
"""What finds cuts and dissolves: PySceneDetect and what is named above, or TransNetV2, too, which needs its package."""


def find_shots(
    video: Path | str, min_seconds: float = 0.5, limits: Limits | None = None, detector: Detector = "adaptive"
) -> list[Shot]:
    """The shots of `video`, which together cover it; two cuts are at least `min_seconds` apart.

    A fade through black is a cut, and so is a dissolve from one picture into another. The whole video is decoded, one
    frame held at a time; by TransNetV2 a second time, 100 small frames held. Raises BadVideoError where the video
    cannot be read to its end, shows no frame, or exceeds `limits`.
    """
    min_seconds = max(min_seconds, _NEAREST)
    end: float | None = None

    def frames() -> Iterator[PresentedFrame]:
        nonlocal end
        for frame in presented_frames(video, long_side=_LONG_SIDE, limits=limits):
            end = float(frame.time + frame.duration)
            yield frame

    looked = _adaptive(frames(), min_seconds)
    if end is None:
        raise BadVideoError(f"{video}: it has no frame that is ever shown; its times or its edit list are damaged")
    cuts = looked.cuts
    if detector == "transnetv2" and (unexplained := _merged(looked.unexplained)):
        small = presented_frames(video, long_side=_LONG_SIDE, limits=limits)
        seen = transnet.cuts(((float(frame.time), frame.rgb) for frame in small), lambda time: _in(unexplained, time))
        cuts = _with_seen(looked, seen, min_seconds)
    bounds = [0.0, *_with_gradual(cuts, [*looked.blacks, *looked.dissolves], end, min_seconds), end]
    return [Shot(start, end) for start, end in itertools.pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class _Looked:
    """What one look at all frames of a video says."""

    cuts: list[float]
    blacks: list[Shot]
    dissolves: list[Shot]
    changes: list[Shot]
    """Spans at whose ends are two pictures, neither of them black."""

    @property
    def unexplained(self) -> list[Shot]:
        """The changes without a cut or a fade."""
        known = sorted([*((cut, cut) for cut in self.cuts), *((black.start, black.end) for black in self.blacks)])
        starts, reach = [start for start, _ in known], list(itertools.accumulate((end for _, end in known), max))

        def known_in(change: Shot) -> bool:
            at = bisect_right(starts, change.end)
            return at > 0 and reach[at - 1] >= change.start

        return [change for change in self.changes if not known_in(change)]


def _merged(spans: Iterable[Shot]) -> list[Shot]:
    """Spans in the order of their ends, those that overlap as one."""
    found: list[Shot] = []
    for span in spans:
        start = span.start
        while found and start <= found[-1].end:
            start = min(start, found.pop().start)
        found.append(Shot(start, span.end))
    return found


def _in(spans: Sequence[Shot], time: float) -> bool:
    """Whether a time lies in one of some spans, which are in order and apart."""
    at = bisect_right(spans, time, key=lambda span: span.start) - 1
    return at >= 0 and time <= spans[at].end


def _with_seen(looked: _Looked, transitions: Iterable[float], min_seconds: float) -> list[float]:
    """Cuts, with the middles of transitions that TransNetV2 sees, but for those of one picture, as in half of a fade.

    A cut beside such a middle is the same one, known to the frame, or else an end of a dissolve that looked like a cut.
    """
    seen: list[float] = []
    changes = _merged(looked.changes)
    for time in transitions:
        fades = any(black.start - min_seconds < time < black.end + min_seconds for black in looked.blacks)
        if not fades and _in(changes, time) and time - (seen[-1] if seen else 0.0) >= min_seconds:
            seen.append(next((cut for cut in looked.cuts if abs(cut - time) <= _SAME_CUT), time))
    others = [cut for cut in looked.cuts if all(abs(cut - time) >= min_seconds for time in seen)]
    return sorted({*seen, *others})


def _adaptive(frames: Iterable[PresentedFrame], min_seconds: float) -> _Looked:
    """Cuts, and the spans that are black or a dissolve, by PySceneDetect and by ourselves."""
    from scenedetect.common import FrameTimecode, Timecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(min_scene_len=0.0)  # or a flash hides the cut after it
    cuts = _Cuts(min_seconds)
    blacks: list[Shot] = []
    dark: tuple[float, float] | None = None  # since when, and the least contrast
    dissolves = _Dissolves()
    for frame in frames:
        tick = Fraction(1, frame.time.denominator)
        time = FrameTimecode(Timecode(frame.time.numerator, tick), _NOMINAL_RATE)
        bgr = np.ascontiguousarray(frame.rgb[:, :, ::-1])
        thumbnail = cv2.resize(bgr, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        cuts.look(float(frame.time), thumbnail, [float(cut.seconds) for cut in detector.process_frame(time, bgr)])
        dissolves.look(float(frame.time), thumbnail)
        if bgr.mean() < _BLACK:
            since, contrast = dark or (float(frame.time), math.inf)
            dark = since, min(contrast, float(thumbnail.std()))
        elif dark is not None:
            if dark[1] < _PLAIN:
                blacks.append(Shot(dark[0], float(frame.time)))
            dark = None
    return _Looked(_without_ends(cuts.all(), blacks), blacks, dissolves.clearest(), dissolves.changes)


def _without_ends(cuts: list[float], blacks: list[Shot]) -> list[float]:
    """Cuts, but for those at both ends of a short black, which would leave a clip of nothing: see `_with_gradual`."""
    short = [black for black in blacks if black.seconds < _SHORT_BLACK]
    ends = [[cut for cut in cuts if black.start <= cut <= black.end] for black in short]
    return [cut for cut in cuts if not any(cut in both and len(both) > 1 for both in ends)]


class _Cuts:
    """Cuts that a detector sees, without flashes and without what follows another too soon."""

    def __init__(self, min_seconds: float) -> None:
        self._min_seconds = min_seconds
        self._times: deque[float] = deque()
        self._thumbnails: deque[Thumbnail] = deque()
        self._waiting: deque[float] = deque()
        self._kept: list[float] = []
        self._begin: float | None = None

    def look(self, time: float, thumbnail: Thumbnail, cuts: list[float]) -> None:
        """Take the next frame, and the cuts that the detector knows of since: they lie some frames back."""
        self._begin = time if self._begin is None else self._begin
        self._times.append(time)
        self._thumbnails.append(thumbnail)
        self._waiting += cuts
        while self._waiting and time - self._waiting[0] > _FLASH:
            self._decide(self._waiting.popleft())
        needed = min([time, *self._waiting]) - 4 * _FLASH
        while self._times[0] < needed:
            self._times.popleft()
            self._thumbnails.popleft()

    def all(self) -> list[float]:
        """The cuts, once the last frame has been looked at."""
        while self._waiting:
            self._decide(self._waiting.popleft())
        return self._kept

    def _decide(self, cut: float) -> None:
        last = self._kept[-1] if self._kept else self._begin
        if last is not None and cut - last >= self._min_seconds and not self._is_flash(cut):
            self._kept.append(cut)

    def _is_flash(self, cut: float) -> bool:
        """Whether just before and just after two frames show one picture, much more alike than the two at the cut."""
        seen = [
            (time, each.ravel().astype(np.float64)) for time, each in zip(self._times, self._thumbnails, strict=True)
        ]
        before = [each for time, each in seen if cut - _FLASH <= time < cut]
        after = [each for time, each in seen if cut <= time <= cut + _FLASH]
        if not before or not after:
            return False
        most = _ALIKE * float(np.linalg.norm(before[-1] - after[0]))
        pairs = itertools.product(before, after)
        return any(float(np.linalg.norm(a - b)) < most and _correlation(a, b) > _SAME for a, b in pairs)


class _Dissolves:
    """Looks for dissolves that end at each frame, with the thumbnails of the last seconds at hand."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._thumbnails: deque[Thumbnail] = deque()
        self._found: list[tuple[float, Shot, Shot]] = []
        self.changes: list[Shot] = []

    def look(self, time: float, thumbnail: Thumbnail) -> None:
        self._times.append(time)
        self._thumbnails.append(thumbnail)
        while time - self._times[0] > 1.1 * _DISSOLVES[-1]:
            self._times.popleft()
            self._thumbnails.popleft()
        times = np.array(self._times)
        self._compare(times)
        for length in _DISSOLVES:
            at = np.unique(np.searchsorted(times, np.linspace(time - length, time, _SAMPLES)))
            if time - times[0] < length or len(at) < _SAMPLES:
                continue
            seen = np.stack([self._thumbnails[k] for k in at])
            if (off := _off_the_line(seen)) is not None:
                first, last = at[list(_mixed(seen))]
                mixed = Shot(float(times[first]), float(times[last]))
                self._found.append((off, Shot(float(times[at[0]]), time), mixed))

    def _compare(self, times: npt.NDArray[np.float64]) -> None:
        """Remember the shortest span that ends here and begins with another picture."""
        last = self._thumbnails[-1].ravel().astype(np.float64)
        for length in _DISSOLVES:
            first = int(np.searchsorted(times, times[-1] - length))
            if _differ(self._thumbnails[first].ravel().astype(np.float64), last):
                self.changes.append(Shot(float(times[first]), float(times[-1])))
                return

    def clearest(self) -> list[Shot]:
        """The spans of mixed frames of the dissolves found, of those that overlap the clearest."""
        kept: list[tuple[Shot, Shot]] = []
        for _, span, mixed in sorted(self._found, key=lambda each: each[0]):
            if all(span.end <= other.start or other.end <= span.start for other, _ in kept):
                kept.append((span, mixed))
        return [mixed for _, mixed in kept]


def _off_the_line(seen: Thumbnail) -> float | None:
    """How far thumbnails lie off the line from the first to the last, over its length; None where that is no dissolve.

    A dissolve passes through every share of the second picture in turn. A cut jumps, a pan leaves the line, and where
    the light changes the two pictures are one. To and from black, or another plain colour, is a fade.
    """
    flat = seen.reshape(len(seen), -1).astype(np.float64)
    way = flat[-1] - flat[0]
    length = float(np.linalg.norm(way))
    if not _differ(flat[0], flat[-1]):
        return None
    share = _share(flat)
    steps = np.diff(share)
    if steps.min() < -0.02 or steps.max() > 3 / _SAMPLES:
        return None
    off = float(np.linalg.norm(flat - flat[0] - share[:, None] * way, axis=1).max()) / length
    return off if off < _MIXED else None


def _differ(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """Whether two thumbnails show two pictures, and neither nothing, as at the black end of a fade."""
    apart = float(np.linalg.norm(other - one)) >= _DIFFERENT * math.sqrt(one.size)
    return apart and min(one.std(), other.std()) >= _PLAIN and _correlation(one, other) <= _UNLIKE


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Of two pictures, -1 to 1; 0 where one of them is of a single colour."""
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _share(flat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much of the way from the first to the last each of some pictures `[N, values]` has gone."""
    way = flat[-1] - flat[0]
    share: npt.NDArray[np.float64] = (flat - flat[0]) @ way / (way @ way)
    return share


def _mixed(seen: Thumbnail) -> tuple[int, int]:
    """The last picture that is nearly the first one, and the first that is nearly the last, of those of a dissolve.

    A dissolve is shorter than the span it is found in: this leaves the rest to the shots before and after.
    """
    share = _share(seen.reshape(len(seen), -1).astype(np.float64))
    return int(np.flatnonzero(share < _PURE)[-1]), int(np.flatnonzero(share > 1 - _PURE)[0])


def _with_gradual(cuts: list[float], gradual: list[Shot], end: float, min_seconds: float) -> list[float]:
    """Cuts, and the middles of blacks and dissolves; one that a cut begins, ends or lies near is none."""
    found = [0.0, *cuts, end]
    for span in gradual:
        if all(not span.start - min_seconds < cut < span.end + min_seconds for cut in found):
            found.append((span.start + span.end) / 2)
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
