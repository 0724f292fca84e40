"""When each frame is on screen: by the file's own presentation times (PTS) where they can be trusted, else by count.

FFmpeg gives every frame in order of presentation, but not always a time to go with it:

- AVI stores frame numbers in order of *decoding*. What FFmpeg makes of them is wrong as soon as there are B-frames
  (H.264, packed B-frames of DivX). The k-th frame presented then takes the k-th time stored: clock `counted`.
- Transport streams joined by `cat` start their clock again, or jump ahead. It is carried on over the join from the last
  frame: clock `joined`.
- Program streams may give a PTS to few pictures only. The gaps are filled from the frame before; the clock is `pts`.

Only what is indexed or read once more without decoding (`examine`) says which; no pixel is looked at.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import av.error
from av.container import InputContainer

from openuni.video.container import Source, open_stream, remembered
from openuni.video.limits import Limits

ClockKind = Literal["pts", "counted", "joined"]
"""`pts`: the file's own times; `counted`: the k-th frame takes the k-th time; `joined`: carried on over a join."""

_UNINDEXED = frozenset({"mpegts", "mpeg", "flv"})
"""Containers that can be joined by `cat`: their clock is known only once all of it was read."""
_LONGEST_GAP = 10  # seconds; MPEG asks for a time every 0.7 s, so what jumps further is another recording
_GLITCH = Fraction(1, 2)  # seconds that a PTS may step back before that is an error rather than a frame not shown
_PEEK = 64  # packets, or frames, that tell whether an indexed file's times follow its B-frames


@dataclass(frozen=True, slots=True)
class Clock:
    """How to tell the time of frames in one file; all but `kind` is for `counted` ones only."""

    kind: ClockKind
    ticks: tuple[int, ...] = ()
    """Stored times, ascending, from zero; also those of the packets, in order of decoding, where there are `keys`."""
    zero: int = 0
    """The first stored time on the file's own clock."""
    keys: tuple[int, ...] = ()
    """Numbers of the packets where decoding may begin."""

    def number(self, time: int) -> int:
        """Of the packet with this decoding time."""
        return bisect.bisect_left(self.ticks, time - self.zero)

    def entry(self, tick: int) -> Entry | None:
        """Where to begin for the frame on screen at `tick`; None for the file's begin."""
        shown = bisect.bisect_right(self.ticks, tick) - 1
        key = bisect.bisect_right(self.keys, shown) - 1
        if key < 1:
            return None
        before, first = self.keys[key - 1], self.keys[key]
        return Entry(self.zero + self.ticks[before], before, first)


@dataclass(frozen=True, slots=True)
class Entry:
    """A way into a file whose frames are counted.

    All packets before a key frame's are presented before all from it on, so the first frame out of these has the number
    of that packet. Its B-frames may need the group of pictures before, where decoding begins.
    """

    time: int
    """Decoding time, on the file's own clock, to seek to."""
    packet: int
    """Number of the packet that is to come then, at the latest."""
    first: int
    """Number of the first packet, and of the first frame, to be used."""


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """A decoded frame, on screen from `time` for `duration`: exact seconds since the first frame."""

    frame: av.VideoFrame
    time: Fraction
    duration: Fraction
    deinterlaced: bool = False
    detelecined: bool = False

    @property
    def interlaced(self) -> bool:
        """Whether the frame is made of two fields of different moments, as the file says."""
        return bool(self.frame.interlaced_frame)


class ClockError(Exception):
    """Presentation times that cannot be followed; the message says where, and the remedy."""


class Reading:
    """The times of one pass over the frames of a file, which come in order of presentation.

    `first_pts` (None where it has none) and `tick` are the PTS of the first frame and its unit, seconds; `average`
    is a frame's usual duration. A pass over counted frames says the number of the one it `begin`s with.
    """

    def __init__(
        self, clock: Clock, first_pts: int | None, tick: Fraction, average: Fraction, *, begin: int = 0
    ) -> None:
        self._clock = clock
        self._tick = tick
        self._average = average
        self._offset = None if first_pts is None else -first_pts * tick
        self._count = begin
        self._next: Fraction | None = None
        self._last: Fraction | None = None

    def place(self, frame: av.VideoFrame) -> tuple[Fraction, Fraction] | None:
        """Time and duration, s; None where the frame has no time on screen, so that the one before it stays.

        Raises ClockError where the clock steps back although it was to be trusted.
        """
        duration = frame.duration * self._tick if frame.duration and frame.duration > 0 else self._average
        time = self._counted() if self._clock.kind == "counted" else self._read(frame)
        if time is None:
            return None
        self._last, self._next = time, time + duration
        return time, duration

    def _counted(self) -> Fraction:
        ticks, k = self._clock.ticks, self._count
        self._count += 1
        if k < len(ticks):
            return ticks[k] * self._tick
        return self._next if self._next is not None else Fraction(0)

    def _read(self, frame: av.VideoFrame) -> Fraction | None:
        expected = self._next if self._next is not None else Fraction(0)
        if frame.pts is None:
            return expected
        if self._offset is None:
            self._offset = expected - frame.pts * self._tick
        time = frame.pts * self._tick + self._offset
        if self._last is None:
            return time
        if self._clock.kind == "joined" and not self._last < time <= self._last + _LONGEST_GAP:
            self._offset += expected - time
            return expected
        if time > self._last:
            return time
        if self._last - time > _GLITCH:
            raise ClockError(
                f"its clock steps back from {float(self._last):.2f} s to {float(time):.2f} s; split the file there, or "
                "write it anew with `ffmpeg -fflags +genpts`"
            )
        return None


@remembered
def examine(source: Source, limits: Limits) -> Clock:
    """Which clock to read a file by. Packets are looked at, none is decoded unless times look invented.

    The answer is remembered: clips of one video share it. Raises BadVideoError as `open_stream` does.
    """
    container, stream = open_stream(source, limits)
    with container:
        reorders = bool(stream.codec_context.has_b_frames)
        if container.format.name == "avi":
            return _counted(container, stream, limits) if reorders else Clock("pts")
        if container.format.name in _UNINDEXED:
            return Clock("joined" if _is_joined(container, stream, limits) else "pts")
        if not (reorders and _looks_invented(container, stream)):
            return Clock("pts")
    if not _is_out_of_order(source, limits):
        return Clock("pts")
    container, stream = open_stream(source, limits)
    with container:
        return _counted(container, stream, limits)


def _counted(container: InputContainer, stream: av.VideoStream, limits: Limits) -> Clock:
    packets = itertools.islice(_packets(container, stream), limits.frames)
    stored = [(packet.dts, packet.is_keyframe) for packet in packets if packet.dts is not None]
    times = sorted(time for time, _ in stored)
    in_order = all(time == sorted_ for (time, _), sorted_ in zip(stored, times, strict=True))
    keys = tuple(number for number, (_, is_key) in enumerate(stored) if is_key) if in_order else ()
    return Clock("counted", tuple(time - times[0] for time in times), times[0] if times else 0, keys)


def _is_joined(container: InputContainer, stream: av.VideoStream, limits: Limits) -> bool:
    """Whether decoding times, which only ever grow in one recording, step back or leap."""
    gap = _LONGEST_GAP / Fraction(stream.time_base or 1)
    times = itertools.islice(_decoding_times(container, stream), limits.frames)
    return any(not 0 <= after - before <= gap for before, after in itertools.pairwise(times))


def _looks_invented(container: InputContainer, stream: av.VideoStream) -> bool:
    """Whether PTS ascend in order of decoding, though the codec may reorder frames: without B-frames they do, too."""
    times = (packet.pts for packet in _packets(container, stream) if packet.pts is not None)
    return _ascend(itertools.islice(times, _PEEK))


def _is_out_of_order(source: Source, limits: Limits) -> bool:
    """Whether the first frames that the decoder gives have times that step back."""
    container, stream = open_stream(source, limits)
    with container:
        try:
            times = [frame.pts for frame in itertools.islice(container.decode(stream), _PEEK)]
        except av.error.FFmpegError:
            return False  # damaged; decoding it in earnest will say where
    return not _ascend(time for time in times if time is not None)


def _ascend(times: Iterable[int]) -> bool:
    return all(before < after for before, after in itertools.pairwise(times))


def _decoding_times(container: InputContainer, stream: av.VideoStream) -> Iterator[int]:
    for packet in _packets(container, stream):
        if (time := packet.dts if packet.dts is not None else packet.pts) is not None:
            yield time


def _packets(container: InputContainer, stream: av.VideoStream) -> Iterator[av.Packet[av.VideoStream]]:
    """Packets of the stream, in order of decoding, as far as the file can be read: decoding will say what is wrong."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.error.FFmpegError:
        return
