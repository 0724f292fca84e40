"""Frames out of a video: in order of presentation, each with its time, upright, in RGB.

Everything is read through FFmpeg's libraries (PyAV). Times are seconds since the first frame is presented, by the clock
of `openuni.video.clock`. Frames are upright RGB, `[H, W, 3]` uint8, full range: without comb where the source is
interlaced, those of the film where it is telecined, tone-mapped to BT.709 where it is HDR, else in the video's own
primaries and transfer. A video that does not name its colour matrix and range is taken as BT.601, limited, as FFmpeg
does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from openuni.errors import BadVideoError
from openuni.video import clock, colour, telecine
from openuni.video.clock import Clock, ClockError, ClockKind, Entry, Timed
from openuni.video.colour import Transfer
from openuni.video.container import Source, bad, check_size, open_stream, reason
from openuni.video.deinterlace import deinterlace
from openuni.video.limits import Limits

Frame = npt.NDArray[np.uint8]
"""One upright RGB frame, `[H, W, 3]` uint8."""

# Flat colours are exact to ±1 on every matrix and range tried, where FFmpeg's default fast path is off by up to 3.
# Chroma is taken as centred between its pixels, both ways, as all users of swscale without a filter graph do.
SCALER = (
    Interpolation.AREA
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
"""How swscale converts pixel formats, both ways."""
_DEEP_SCALER = SCALER & ~Interpolation.FULL_CHR_H_INT
"""The same to 16 bits a channel: with that flag, 4:2:0 of unchanged height gets the colours of another picture."""
_GAPS = Fraction(6, 5)
"""A sixth of the frames may be missing. If more are, times are of another rate: film by repeat flags lacks a fifth."""
_SEEK_AFTER = 2  # seconds; decoding two seconds is as quick as a seek that lands a key frame earlier


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file says of its video stream, and its first frame confirms."""

    width: int
    """Upright width, pixels, after rotation."""
    height: int
    """Upright height, pixels, after rotation."""
    rotation: int
    """Degrees counter-clockwise that make the stored frame upright: 0, 90, 180 or 270."""
    pixel_aspect: float
    """Width of an upright pixel over its height; 1 for square pixels."""
    fps: float
    """Average frame rate, 1/s; 0 where the file does not say."""
    own_fps: float
    """Pictures a second: the rate behind `fps` where a few frames are missing; the film's where pulldown is undone; 25
    where the file does not say."""
    duration: float | None
    """Declared duration of the video stream, s."""
    frames: int | None
    """Declared number of frames."""
    codec: str
    pix_fmt: str
    first_pts: float
    """Presentation time of the first frame on the file's own clock, s."""
    clock: ClockKind = "pts"
    """Where the times of frames come from."""
    interlaced: bool = False
    """Whether the first frame is interlaced."""
    transfer: Transfer = "sdr"
    """What the source's code values stand for; frames are read as SDR."""


@dataclass(frozen=True, slots=True)
class PresentedFrame:
    """A frame and when it is on screen: from `time` for `duration`, exact seconds since the first frame."""

    time: Fraction
    duration: Fraction
    rgb: Frame


@dataclass(frozen=True, slots=True)
class SampledFrame:
    """The frame on screen at one of the instants asked for."""

    rgb: Frame
    repeated: bool
    """Whether it is the source frame of the instant before, once more."""
    deinterlaced: bool
    detelecined: bool


def probe(path: Path | str, limits: Limits | None = None) -> VideoInfo:
    """What `path` holds, after decoding its first frame.

    Raises BadVideoError naming the file where it is absent, no video, has no video stream or exceeds `limits`.
    """
    with _Decoder(Path(path), limits or Limits()) as video:
        return video.info()


def presented_frames(
    path: Path | str, *, long_side: int | None = None, limits: Limits | None = None
) -> Iterator[PresentedFrame]:
    """Every frame in order of presentation, shrunk to `long_side` pixels where that is smaller. Nothing is resampled.

    Raises BadVideoError as `probe` does, and at the frame where a file turns out broken or truncated.
    """
    with _Decoder(Path(path), limits or Limits()) as video:
        longest = max(video.first.width, video.first.height)
        scale = 1.0 if long_side is None else min(1.0, long_side / longest)
        width, height = (max(1, round(side * scale)) for side in (video.first.width, video.first.height))
        for shown in video.frames():
            yield PresentedFrame(shown.time, shown.duration, video.rgb(shown.frame, width, height))


def read_frames(
    path: Path | str, start: float = 0.0, end: float | None = None, *, fps: float, limits: Limits | None = None
) -> Iterator[Frame]:
    """The frames on screen at `start + k / fps` seconds, k = 0, 1, …, before `end` (or the video's end).

    A late `start` is reached by seeking and gives the very frames that decoding from the beginning would. A stored
    PTS is a true time rounded to the stream's clock, so a frame counts as on screen half a tick (at most ½ ms) early.
    At most two frames are held. Raises BadVideoError as `presented_frames` does, and where `start` is past the end.
    """
    return (sampled.rgb for sampled in sample_frames(path, start, end, fps=fps, limits=limits))


def sample_frames(
    path: Path | str,
    start: float = 0.0,
    end: float | None = None,
    *,
    fps: float,
    limits: Limits | None = None,
    undo_pulldown: bool = True,
    centred: bool = False,
) -> Iterator[SampledFrame]:
    """As `read_frames`, with what became of each frame. Without `undo_pulldown`, film is only deinterlaced.

    `centred` is for the video's own rate: the instants begin in the middle of the frame that is on screen at `start`,
    so a clock that is uneven by less than half a frame gives every frame once.
    """
    limits = limits or Limits()
    with _Decoder(Path(path), limits, undo_pulldown=undo_pulldown) as video:
        begin, step = Fraction(start), 1 / rational(fps)
        stop = None if end is None else Fraction(end) - video.tolerance
        taken = itertools.count()
        first = instant = begin
        shown: Timed | None = None

        def samples_before(time: Fraction) -> Iterator[SampledFrame]:
            nonlocal instant
            rgb: Frame | None = None
            while shown is not None and instant < time and (stop is None or instant < stop):
                repeated = rgb is not None
                rgb = video.rgb(shown.frame) if rgb is None else rgb.copy()
                yield SampledFrame(rgb, repeated, shown.deinterlaced, shown.detelecined)
                if (k := next(taken) + 1) >= limits.frames:
                    raise video.bad(f"more than {limits.frames} frames are asked for at {fps:g} fps")
                instant = first + k * step

        for following in video.frames_from(begin):
            if centred and following.time - video.tolerance <= begin:
                first = instant = following.time + step / 2
            yield from samples_before(following.time - video.tolerance)
            if stop is not None and instant >= stop:
                return
            shown = following
        if shown is not None:
            last = shown.time + shown.duration
            yield from samples_before(last - video.tolerance)
            if next(taken) == 0:
                raise video.bad(f"the span starts at {start:g} s, but the video ends at {float(last):.3f} s")


def decode_video(source: bytes | Path, limits: Limits | None = None) -> tuple[npt.NDArray[np.uint8], float]:
    """All frames of a stored video, uint8 RGB `[T, H, W, 3]`, and its average frame rate.

    Exact for `encode_video(lossless=True)`. Raises BadVideoError where it is damaged, cut short, or larger than
    `limits.array_bytes` when decoded.
    """
    limits = limits or Limits()
    with _Decoder(source, limits) as video:
        info = video.info()
        room = limits.array_bytes // (info.height * info.width * 3)
        if (info.frames or 0) > room:
            raise video.bad(f"{info.frames} frames of {info.width}×{info.height} exceed {limits.array_bytes} bytes")
        frames: list[Frame] = []
        for shown in video.frames():
            if len(frames) >= room:
                raise video.bad(f"its frames of {info.width}×{info.height} exceed {limits.array_bytes} bytes")
            frames.append(video.rgb(shown.frame))
    return np.stack(frames), info.fps


def decode_video_part(
    source: bytes | Path, part: range, limits: Limits | None = None
) -> tuple[npt.NDArray[np.uint8], float]:
    """Some frames of a stored video, as `decode_video(source)[0][part]`, and its average frame rate.

    Decoding begins at the key frame before them. Raises BadVideoError as `decode_video` does, and where it ends before.
    """
    limits = limits or Limits()
    with _Decoder(source, limits) as video:
        info = video.info()
        if len(part) * info.height * info.width * 3 > limits.array_bytes:
            raise video.bad(f"{len(part)} frames of {info.width}×{info.height} exceed {limits.array_bytes} bytes")
        shown = _from_key_frame(video, part, info) or list(itertools.islice(video.frames(), part.start, part.stop))
        if len(shown) != len(part):
            raise video.bad(f"it ends before frame {part.stop - 1}")
        return np.stack([video.rgb(timed.frame) for timed in shown]), info.fps


def _from_key_frame(video: _Decoder, part: range, info: VideoInfo) -> list[Timed]:
    """The frames `part` by seeking, told by their times; none where times do not tell numbers: the rate must be
    constant, as that of every stored clip is."""
    if not info.fps or info.duration is None or info.frames is None:
        return []
    rate = rational(info.fps)
    if abs(info.frames - float(rate) * info.duration) > 0.1 or part.stop > info.frames:
        return []
    shown: list[Timed] = []
    for timed in video.frames_from(Fraction(part.start) / rate):
        place = timed.time * rate
        number = round(place)
        if abs(place - number) > Fraction(1, 4) or number > part.start + len(shown):
            return []
        if number in part:
            shown.append(timed)
        if number == part.stop - 1:
            break
    return shown


class _Decoder:
    """One open video stream: its frames in order of presentation, their times, and their upright RGB."""

    def __init__(self, source: Source, limits: Limits, *, undo_pulldown: bool = True) -> None:
        self._source = source
        self._limits = limits
        self._reformatter = VideoReformatter()
        self._clock = Clock("pts")
        self._open()
        try:
            # What the first frame says (PTS, orientation) holds for all; a reopened file starts there again.
            self.first = self._first_frame()
            self._clock = clock.examine(source, limits)
            duration = self._declared_duration()
            if duration is not None and duration > limits.seconds:
                raise self.bad(f"it lasts {float(duration):.0f} s, more than the limit of {limits.seconds:.0f} s")
        except BadVideoError:
            self.close()
            raise
        # Film is looked for in interlaced video only: nothing else pays for it.
        is_asked = undo_pulldown and self.first.interlaced_frame
        self._pulldown = telecine.examine(source, limits) if is_asked else None
        self._first_pts = self.first.pts
        self._matrix = _display_matrix(self.first)

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def bad(self, problem: str) -> BadVideoError:
        """The error to raise: the file and what is wrong with it."""
        return bad(self._source, problem)

    @property
    def tolerance(self) -> Fraction:
        """How far a stored PTS may lie from the true time: half a tick of the stream's clock, ½ ms at most."""
        return min(self._tick / 2, Fraction(1, 2000))

    def info(self) -> VideoInfo:
        """See VideoInfo."""
        swapped = _swaps_axes(self._matrix)
        width, height = self.first.width, self.first.height
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        duration = self._declared_duration()
        return VideoInfo(
            width=height if swapped else width,
            height=width if swapped else height,
            rotation=round(self.first.rotation / 90) % 4 * 90,
            pixel_aspect=float(1 / aspect if swapped else aspect),
            fps=float(self._rate()),
            own_fps=float(self._own_rate()),
            duration=None if duration is None else float(duration),
            frames=self._stream.frames or None,
            codec=self._stream.codec_context.codec.canonical_name,
            pix_fmt=self.first.format.name,
            first_pts=float((self._first_pts or 0) * self._tick),
            clock=self._clock.kind,
            interlaced=bool(self.first.interlaced_frame),
            transfer=colour.transfer_of(self.first.color_trc),
        )

    def rgb(self, frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> Frame:
        """Upright RGB of a decoded frame, scaled to `width` × `height` as stored (before rotation)."""
        transfer = colour.transfer_of(frame.color_trc)
        try:
            plain = self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format="rgb24" if transfer == "sdr" else "rgb48le",
                interpolation=SCALER if transfer == "sdr" else _DEEP_SCALER,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        except av.error.FFmpegError as error:
            raise self.bad(f"pixel format {frame.format.name} cannot be shown as RGB ({error})") from error
        picture = plain.to_ndarray()
        if transfer != "sdr":
            picture = colour.tone_map(cast(npt.NDArray[np.uint16], picture), transfer, frame.color_primaries)
        return _upright(cast(Frame, picture), self._matrix)

    def frames(self) -> Iterator[Timed]:
        """All frames from the first."""
        self._reopen()
        return self._progressive(self._decode())

    def frames_from(self, time: Fraction) -> Iterator[Timed]:
        """Frames in order of presentation, beginning at or before the one on screen at `time`."""
        # An interlaced frame is made from its neighbours too: the one before must have been seen.
        neighbours = 0 if not self.first.interlaced_frame else 2 if self._pulldown is None else telecine.LEAD
        before = neighbours * self._average()
        tick = math.floor((time - before + self.tolerance) / self._tick)
        if self._clock.kind == "counted":
            return self._counted_from(tick)
        if self._clock.kind == "joined" or self._first_pts is None:
            return self.frames()  # a seek goes by the file's own times
        target = self._first_pts + tick
        # Some indices are wrong and some containers only guess: a seek counts when its first frame is early enough.
        for seconds_back in (0, 2, 8, 32):
            offset = target - math.ceil(seconds_back / self._tick)
            if offset <= self._first_pts + _SEEK_AFTER / self._tick:
                break
            try:
                self._container.seek(offset, stream=self._stream, backward=True)
                frames = self._decode()
                first = next(frames, None)
            except (av.error.FFmpegError, BadVideoError):
                continue  # not seekable here; decoding from the beginning below will tell what is wrong, if anything
            if first is not None and first.frame.pts is not None and first.frame.pts <= target:
                return self._progressive(itertools.chain([first], frames))
        return self.frames()

    def _progressive(self, frames: Iterator[Timed]) -> Iterator[Timed]:
        try:
            if self._pulldown is None:
                yield from deinterlace(frames)
            else:
                yield from telecine.film(deinterlace(telecine.match(frames, self._pulldown)), self._pulldown)
        except (av.error.FFmpegError, ValueError) as error:
            raise self.bad(f"it is interlaced and cannot be deinterlaced ({reason(error)})") from error

    def _counted_from(self, tick: int) -> Iterator[Timed]:
        """As `frames_from`: by way of the key frame before the last one, see `clock.Entry`."""
        entry = self._clock.entry(tick)
        if entry is None or entry.time - self._clock.zero <= _SEEK_AFTER / self._tick:
            return self.frames()
        try:
            self._container.seek(entry.time, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            first = next((packet for packet in packets if packet.dts is not None), None)
        except av.error.FFmpegError:
            return self.frames()
        if first is None or first.dts is None or self._clock.number(first.dts) > entry.packet:
            return self.frames()
        pictures = self._numbered(itertools.chain([first], packets), entry)
        return self._progressive(self._placed(self._checked(pictures), begin=entry.first))

    def _numbered(self, packets: Iterable[av.Packet[av.VideoStream]], entry: Entry) -> Iterator[av.VideoFrame]:
        """What the decoder gives from the frame `entry.first` on; a frame's PTS is the number of its packet."""
        begun = False
        for packet in packets:
            if packet.dts is not None:
                packet.pts = self._clock.number(packet.dts)
            for frame in packet.decode():
                begun = begun or (frame.pts is not None and frame.pts >= entry.first)
                if begun:
                    yield frame

    def _open(self) -> None:
        self._container, self._stream = open_stream(self._source, self._limits)
        self._tick = Fraction(self._stream.time_base or 1)

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _first_frame(self) -> av.VideoFrame:
        frame = next(self._checked(self._container.decode(self._stream)), None)
        if frame is None:
            raise self.bad("no frame of it can be decoded; it is cut short or damaged")
        if (matrix := colour.unreadable(frame.colorspace)) is not None:
            raise self.bad(f"its colours are coded as {matrix}, which is not read; convert it to BT.709 or BT.2020")
        return frame

    def _decode(self) -> Iterator[Timed]:
        """Frames from where the file stands. Raises BadVideoError where it is damaged or ends before it should."""
        return self._placed(self._checked(self._container.decode(self._stream)))

    def _placed(self, pictures: Iterator[av.VideoFrame], *, begin: int = 0) -> Iterator[Timed]:
        """Pictures with their times; `begin` is the number of the first, where they are counted."""
        reading = clock.Reading(self._clock, self._first_pts, self._tick, self._average(), begin=begin)
        last: Timed | None = None
        try:
            for frame in pictures:
                placed = reading.place(frame)
                # A damaged frame is not shown: the one before it stays on screen.
                if placed is not None and not frame.is_corrupt:
                    last = Timed(frame, *placed)
                    yield last
        except ClockError as error:
            raise self.bad(str(error)) from error
        declared = self._declared_duration()
        if last is not None and declared is not None and self._clock.kind != "joined":
            shown = last.time + last.duration
            if declared - shown > max(Fraction(1, 4), 3 * last.duration):
                raise self.bad(
                    f"cut short: it should last {float(declared):.2f} s, but its frames end at {float(shown):.2f} s"
                )

    def _checked(self, pictures: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """What the decoder gives, all of one size and within the limits; its faults as BadVideoError."""
        size: tuple[int, int] | None = None
        count = 0
        try:
            for frame in pictures:
                check_size(self._source, self._limits, frame.width, frame.height)
                size = size or (frame.width, frame.height)
                if size != (frame.width, frame.height):
                    raise self.bad(
                        f"the frame size changes from {size[0]}×{size[1]} to {frame.width}×{frame.height}; "
                        "split the file there"
                    )
                count += 1
                if count > self._limits.frames:
                    raise self.bad(f"it has more than {self._limits.frames} frames")
                yield frame
        except av.error.FFmpegError as error:
            raise self.bad(f"damaged after {count} frames ({reason(error)})") from error

    def _rate(self) -> Fraction:
        return Fraction(self._stream.average_rate or self._stream.guessed_rate or 0)

    def _average(self) -> Fraction:
        """Seconds a frame usually is on screen; 1/25 where the file does not say."""
        return 1 / self._rate() if self._rate() > 0 else Fraction(1, 25)

    def _own_rate(self) -> Fraction:
        """See `VideoInfo.own_fps`."""
        if self._pulldown is not None:
            return Fraction(telecine.CYCLE - 1, telecine.CYCLE) / self._average()
        average, clock = 1 / self._average(), Fraction(self._stream.base_rate or 0)
        return clock if average <= clock <= _GAPS * average else average

    def _declared_duration(self) -> Fraction | None:
        """Of the video stream; the container's stands in for it only where no longer sound track can be meant."""
        container, stream = self._container, self._stream
        if container.format.name == "avi" and stream.frames and self._rate() > 0:
            return stream.frames / self._rate()  # FFmpeg shortens the duration of an AVI to what the file holds
        if stream.duration is not None and stream.duration > 0:
            return stream.duration * self._tick
        if container.duration is None or len(container.streams) > 1:
            return None
        # Matroska counts from zero, the others from their first frame.
        origin = (container.start_time or 0) if "matroska" in container.format.name else 0
        return Fraction(container.duration - origin, av.time_base)


def rational(fps: float) -> Fraction:
    """The rate as an exact fraction: 29.97002997 is 30000/1001."""
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise ValueError(f"fps must be above 0 and at most 1000, not {fps}")
    return Fraction(fps).limit_denominator(1001)


_Matrix = tuple[int, int, int, int]


def _display_matrix(frame: av.VideoFrame) -> _Matrix:
    """a, b, c, d of the display matrix, which shows pixel (x, y) at (a·x + c·y, b·x + d·y), as quarter turns and flips.

    FFmpeg, libavutil/display.h. Turns by other angles are rounded to the nearest quarter.
    """
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return 1, 0, 0, 1
    values = np.frombuffer(cast(bytes, side), np.int32)
    a, b, c, d = (int(values[i]) for i in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0


def _swaps_axes(matrix: _Matrix) -> bool:
    return matrix[0] == 0


def _upright(stored: Frame, matrix: _Matrix) -> Frame:
    """A copy of `stored` as the display matrix shows it."""
    a, b, c, d = matrix
    picture = stored.swapaxes(0, 1) if _swaps_axes(matrix) else stored
    picture = picture[:, ::-1] if a + c < 0 else picture
    picture = picture[::-1] if b + d < 0 else picture
    return np.array(picture, order="C")
