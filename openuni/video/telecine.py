"""Undoes 3:2 pulldown (telecine), which spreads four frames of film over five frames of interlaced video.

Fields that belong together are joined again (FFmpeg's `fieldmatch`, after Donald Graft and Kevin Stone). The doubled
frame of every five is left out, and the other four share its time. From lossless video, the joined frame is the film's,
bit for bit. Five frames without a double are video that was cut in, and are all kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import av
import av.error
import numpy as np
import numpy.typing as npt

from openuni.video import filtering
from openuni.video.clock import Timed
from openuni.video.container import Source, open_stream, remembered
from openuni.video.limits import Limits

CYCLE = 5
"""Frames of video that show four of film."""
LEAD = 12
"""How many frames before the wanted one decoding must begin, to give the same result as from the file's beginning."""
_SETTLED = 4  # frames until matching, deinterlacing and the search for the double know all their neighbours
_LOOKED_AT = 150  # frames at the beginning of a file
_ENOUGH = 20  # frames in a row, four cycles: ordinary video never looks like that many
_DOUBLE = 0.35  # a double differs from its neighbour by less than this share of the usual difference
_STILL = 0.6  # levels; a picture whose mean difference is below this does not move
_FORMATS = frozenset({"yuv420p", "yuv422p", "yuv444p", "yuv410p", "yuv411p", "gray"})
"""What fieldmatch takes without a conversion."""


@dataclass(frozen=True, slots=True)
class Pulldown:
    """How film lies in a file's video."""

    order: Literal["tff", "bff"]
    """Which field is the earlier one, as seen; files may flag the other."""
    double: int
    """Of five matched frames, counted from the file's first, which repeats the one before."""
    rate: Fraction
    """Frames of video a second."""


@remembered
def examine(source: Source, limits: Limits) -> Pulldown | None:
    """The pulldown of a file where 20 of its first 150 frames show one, else None. To be asked of interlaced ones only.

    The answer is remembered. Raises BadVideoError as `open_stream` does.
    """
    container, stream = open_stream(source, limits)
    with container:
        rate = Fraction(stream.average_rate or 0)
        if rate <= 0 or stream.codec_context.pix_fmt not in _FORMATS:
            return None
        try:
            frames = itertools.islice(container.decode(stream), _LOOKED_AT)
            timed = (Timed(frame, Fraction(0), Fraction(0)) for frame in frames)
            seen = [frame.metadata for _, frame in filtering.through(timed, "idet", "")]
        except (av.error.FFmpegError, ValueError):
            return None  # damaged; decoding it in earnest will say where
    orders = [one.get("lavfi.idet.multiple.current_frame") for one in seen]
    order: Literal["tff", "bff"] = "bff" if orders.count("bff") > orders.count("tff") else "tff"
    double = _double([one.get("lavfi.idet.repeated.current_frame", "neither") for one in seen], order)
    return None if double is None else Pulldown(order, double, rate)


def _double(repeated: Sequence[str], order: Literal["tff", "bff"]) -> int | None:
    """Which of five frames repeats the earlier field, where for 20 frames fields repeat as 3:2 has them, else None.

    Of five frames one repeats the earlier field of the frame before, the second after it the later field, no other any.
    """
    earlier, later = ("top", "bottom") if order == "tff" else ("bottom", "top")
    for begin in range(len(repeated) - _ENOUGH + 1):
        cycle = list(repeated[begin : begin + CYCLE])
        if cycle == [earlier, "neither", later, "neither", "neither"] and all(
            repeated[k] == cycle[(k - begin) % CYCLE] for k in range(begin, begin + _ENOUGH)
        ):
            return begin % CYCLE
    return None


def match(frames: Iterable[Timed], pulldown: Pulldown) -> Iterator[Timed]:
    """`frames` with each picture made of the two fields that belong together; `comb` that stays is flagged."""
    for shown, frame in filtering.through(frames, "fieldmatch", f"order={pulldown.order}:mode=pc_n"):
        yield replace(shown, frame=frame)


def film(frames: Iterable[Timed], pulldown: Pulldown) -> Iterator[Timed]:
    """Of every five matched frames the four that differ, evenly over the time of the five, marked `detelecined`.

    Fives are counted from the file's first frame by their times. Where `frames` begin later, those until the first
    five that is sure to come out as it does from the file's beginning are left out.
    """
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        return
    begin = _number(first, pulldown)
    if begin > 0:
        begin = -(-(begin + _SETTLED) // CYCLE) * CYCLE
    last: Timed | None = None
    for cycle, shown in itertools.groupby(
        itertools.chain([first], stream), lambda shown: _number(shown, pulldown) // CYCLE
    ):
        five = list(shown)
        if cycle * CYCLE >= begin:
            yield from _four(five, last, pulldown.double)
        last = five[-1]


def _number(shown: Timed, pulldown: Pulldown) -> int:
    return round(shown.time * pulldown.rate)


def _four(five: list[Timed], before: Timed | None, double: int) -> Iterator[Timed]:
    """A five, of which the file's end may cut off some, without its double; as it is where none of it is one."""
    pictures = [_luma(shown.frame) for shown in five]
    first = np.inf if before is None else _change(_luma(before.frame), pictures[0])
    changes = [first, *(_change(a, b) for a, b in itertools.pairwise(pictures))]
    if not _repeats(changes, double):
        double = int(np.argmin(changes))  # the film was cut after it was telecined, or this is no film
        if len(five) < CYCLE or changes[double] > _DOUBLE * sorted(changes)[CYCLE // 2]:
            yield from five
            return
    kept = five[:double] + five[double + 1 :]
    begin, end = five[0].time, five[-1].time + five[-1].duration
    each = (end - begin) / max(len(kept), 1)
    for k, shown in enumerate(kept):
        yield replace(shown, time=begin + k * each, duration=each, detelecined=True)


def _repeats(changes: list[float], double: int) -> bool:
    """Whether the frame at this place is that before it again, as far as the others tell, which may stand still too."""
    if double >= len(changes):
        return False
    others = sorted(changes[:double] + changes[double + 1 :])
    usual = others[-2] if len(others) > 1 else 0.0  # the second largest: one may be a cut
    return changes[double] <= max(_DOUBLE * usual, _STILL)


def _change(before: npt.NDArray[np.int16], after: npt.NDArray[np.int16]) -> float:
    """Levels by which two pictures differ on average."""
    return float(np.abs(after - before).mean())


def _luma(frame: av.VideoFrame) -> npt.NDArray[np.int16]:
    plane = frame.planes[0]
    rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width].astype(np.int16)
