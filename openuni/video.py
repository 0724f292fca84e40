"""Video in and out: frames by presentation time, the normalised clip, and one deterministic encode.

Everything is read through FFmpeg's libraries (PyAV). Times are seconds since the first frame's presentation time
(PTS). Frames are upright RGB, `[H, W, 3]` uint8, full range, in the video's own primaries and transfer (HDR is not
tone-mapped). A video that does not name its colour matrix and range is taken as BT.601, limited, as FFmpeg does.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import av.error
import cv2
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags as CodecFlags
from av.container import Flags as ContainerFlags
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from openuni.errors import BadVideoError
from openuni.sample import Clip

Frame = npt.NDArray[np.uint8]
"""One upright RGB frame, `[H, W, 3]` uint8."""

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "flv", "ivf", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "mxf", "ogv", "ts", "webm", "wmv"),
    )
)
"""File name suffixes (lower case) by which the sources recognise a video."""

# A play list or an image pattern named .mp4 would make FFmpeg open other files: only real containers are let in.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,ivf,mxf,nut,gif"
# Flat colours are exact to ±1 on every matrix and range tried, where FFmpeg's default fast path is off by up to 3.
# Chroma is taken as centred between its pixels, both ways, as all users of swscale without a filter graph do.
_SCALER = (
    Interpolation.AREA
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
_SMALLEST_SIDE = 16
_SEEK_AFTER = 2  # seconds; decoding two seconds is as quick as a seek that lands a key frame earlier


@dataclass(frozen=True, slots=True)
class Limits:
    """What a video may ask of this machine; whatever asks for more is a BadVideoError before memory is taken."""

    side: int = 16384
    """Width or height, pixels."""
    pixels: int = 8192 * 8192
    """Pixels of one frame."""
    seconds: float = 24 * 3600.0
    """Declared duration."""
    frames: int = 4_000_000
    """Frames decoded or sampled in one pass."""
    array_bytes: int = 4 << 30
    """Bytes of an array that holds a whole decoded video."""


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
    duration: float | None
    """Declared duration of the video stream, s."""
    frames: int | None
    """Declared number of frames."""
    codec: str
    pix_fmt: str
    first_pts: float
    """Presentation time of the first frame on the file's own clock, s."""


@dataclass(frozen=True, slots=True)
class PresentedFrame:
    """A frame and when it is on screen: from `time` for `duration`, exact seconds since the first frame."""

    time: Fraction
    duration: Fraction
    rgb: Frame


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How a clip is stored. Times are sampled at `fps`, so a slower source repeats frames."""

    fps: float = 16.0
    short_side: int = 480
    """Shorter side, pixels; a smaller source keeps its size. Sides are made even, as 4:2:0 colour needs."""
    max_frames: int = 81
    min_frames: int = 8
    crf: int = 18
    """x264 constant rate factor; 18 is visually transparent."""


@dataclass(frozen=True, slots=True)
class NormalisedVideo:
    """A stored clip: the bytes of an H.264 mp4 of `frames` frames, `height` × `width` pixels, at `fps`."""

    mp4: bytes
    frames: int
    height: int
    width: int
    fps: float


# ---------------------------------------------------------------------------------------------------------- reading


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
        for frame in video.frames():
            yield PresentedFrame(video.time(frame), video.duration(frame), video.rgb(frame, width, height))


def read_frames(
    path: Path | str, start: float = 0.0, end: float | None = None, *, fps: float, limits: Limits | None = None
) -> Iterator[Frame]:
    """The frames on screen at `start + k / fps` seconds, k = 0, 1, …, before `end` (or the video's end).

    A late `start` is reached by seeking and gives the very frames that decoding from the beginning would. A stored
    PTS is a true time rounded to the stream's clock, so a frame counts as on screen half a tick (at most ½ ms) early.
    At most two frames are held. Raises BadVideoError as `presented_frames` does, and where `start` is past the end.
    """
    limits = limits or Limits()
    with _Decoder(Path(path), limits) as video:
        begin, step = Fraction(start), 1 / _rational(fps)
        stop = None if end is None else Fraction(end) - video.tolerance
        taken = itertools.count()
        instant = begin
        shown: av.VideoFrame | None = None

        def samples_before(time: Fraction) -> Iterator[Frame]:
            nonlocal instant
            while shown is not None and instant < time and (stop is None or instant < stop):
                yield video.rgb(shown)
                if (k := next(taken) + 1) >= limits.frames:
                    raise video.bad(f"more than {limits.frames} frames are asked for at {fps:g} fps")
                instant = begin + k * step

        for frame in video.frames_from(begin):
            yield from samples_before(video.time(frame) - video.tolerance)
            if stop is not None and instant >= stop:
                return
            shown = frame
        if shown is not None:
            last = video.time(shown) + video.duration(shown)
            yield from samples_before(last - video.tolerance)
            if instant == begin:
                raise video.bad(f"the span starts at {start:g} s, but the video ends at {float(last):.3f} s")


class _Decoder:
    """One open video stream: its frames in order of presentation, their times, and their upright RGB."""

    def __init__(self, source: Path | bytes, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._reformatter = VideoReformatter()
        self._open()
        # What the first frame says (PTS, orientation) holds for all; a reopened file starts there again.
        self.first = self._first_frame()
        self.first_pts = self._pts(self.first)
        self._matrix = _display_matrix(self.first)
        duration = self._declared_duration()
        if duration is not None and duration > limits.seconds:
            self.close()
            raise self.bad(f"it lasts {float(duration):.0f} s, more than the limit of {limits.seconds:.0f} s")

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def bad(self, problem: str) -> BadVideoError:
        """The error to raise: the file and what is wrong with it."""
        name = self._source if isinstance(self._source, Path) else "video in memory"
        return BadVideoError(f"{name}: {problem}")

    @property
    def tolerance(self) -> Fraction:
        """How far a stored PTS may lie from the true time: half a tick of the stream's clock, ½ ms at most."""
        return min(self._tick / 2, Fraction(1, 2000))

    def time(self, frame: av.VideoFrame) -> Fraction:
        """Seconds from the first frame's presentation to this one's."""
        return (self._pts(frame) - self.first_pts) * self._tick

    def duration(self, frame: av.VideoFrame) -> Fraction:
        """Seconds on screen as the file says it, else one average frame interval (1/25 s where unknown)."""
        if frame.duration and frame.duration > 0:
            return frame.duration * self._tick
        return 1 / self._rate() if self._rate() > 0 else Fraction(1, 25)

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
            duration=None if duration is None else float(duration),
            frames=self._stream.frames or None,
            codec=self._stream.codec_context.codec.canonical_name,
            pix_fmt=self.first.format.name,
            first_pts=float(self.first_pts * self._tick),
        )

    def rgb(self, frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> Frame:
        """Upright RGB of a decoded frame, scaled to `width` × `height` as stored (before rotation)."""
        try:
            plain = self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format="rgb24",
                interpolation=_SCALER,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        except av.error.FFmpegError as error:
            raise self.bad(f"pixel format {frame.format.name} cannot be shown as RGB ({error})") from error
        return _upright(cast(Frame, plain.to_ndarray()), self._matrix)

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames from the first."""
        self._reopen()
        return self._decode()

    def frames_from(self, time: Fraction) -> Iterator[av.VideoFrame]:
        """Frames in order of presentation, beginning at or before the one on screen at `time`."""
        target = self.first_pts + math.floor((time + self.tolerance) / self._tick)
        # Some indices are wrong and some containers only guess: a seek counts when its first frame is early enough.
        for seconds_back in (0, 2, 8, 32):
            offset = target - math.ceil(seconds_back / self._tick)
            if offset <= self.first_pts + _SEEK_AFTER / self._tick:
                break
            try:
                self._container.seek(offset, stream=self._stream, backward=True)
                frames = self._decode()
                first = next(frames, None)
            except (av.error.FFmpegError, BadVideoError):
                continue  # not seekable here; decoding from the beginning below will tell what is wrong, if anything
            if first is not None and self._pts(first) <= target:
                return itertools.chain([first], frames)
        return self.frames()

    def _open(self) -> None:
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        source: Any
        if isinstance(self._source, Path):
            if not self._source.is_file():
                raise self.bad("there is no such file")
            if self._source.stat().st_size == 0:
                raise self.bad("the file is empty; fetch or copy it again")
            # `file:` keeps FFmpeg from taking a name like `concat:…` for a protocol.
            source = f"file:{self._source.absolute()}"
        else:
            source = io.BytesIO(self._source)
        try:
            container = av.open(source, options=options, metadata_errors="ignore")
        except (av.error.FFmpegError, UnicodeError) as error:
            raise self.bad(f"not a video that can be read, or cut short ({_reason(error)})") from error
        try:
            self._container = container
            self._stream = self._choose_stream(container)
        except BadVideoError:
            container.close()
            raise

    def _choose_stream(self, container: InputContainer) -> av.VideoStream:
        """FFmpeg's best video stream, cover pictures left out; its size checked before a decoder is set up."""
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            others = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
            raise self.bad(f"it has no video stream (found: {others})")
        best = container.streams.best("video")
        stream = next((s for s in streams if best is not None and s.index == best.index), streams[0])
        if stream.codec_context is None:
            raise self.bad("this FFmpeg has no decoder for its codec")
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        if stream.time_base is None:
            raise self.bad("its video stream has no time base")
        self._tick = Fraction(stream.time_base)
        # Jobs run side by side, so a decoder takes one thread. FFmpeg itself refuses frames that grow on the way.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(self._limits.pixels)}
        return stream

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _check_size(self, width: int, height: int) -> None:
        limits = self._limits
        if max(width, height) > limits.side or width * height > limits.pixels:
            raise self.bad(
                f"its frames of {width}×{height} exceed the limit of {limits.side} a side, {limits.pixels} pixels"
            )

    def _first_frame(self) -> av.VideoFrame:
        try:
            frame = next(self._decode(), None)
            if frame is None:
                raise self.bad("no frame of it can be decoded; it is cut short or damaged")
        except BadVideoError:
            self.close()
            raise
        return frame

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Frames from where the file stands. Raises BadVideoError where it is damaged or ends before it should."""
        last: av.VideoFrame | None = None
        count = 0
        try:
            for frame in self._container.decode(self._stream):
                # A damaged frame, or one that steps back in time, is not shown: the one before it stays on screen.
                if frame.is_corrupt or (last is not None and self._pts(frame) <= self._pts(last)):
                    continue
                self._check_size(frame.width, frame.height)
                if last is not None and (frame.width, frame.height) != (last.width, last.height):
                    raise self.bad(
                        f"the frame size changes from {last.width}×{last.height} to {frame.width}×{frame.height}; "
                        "split the file there"
                    )
                count += 1
                if count > self._limits.frames:
                    raise self.bad(f"it has more than {self._limits.frames} frames")
                last = frame
                yield frame
        except av.error.FFmpegError as error:
            raise self.bad(f"damaged after {count} frames ({_reason(error)})") from error
        declared = self._declared_duration()
        if last is not None and declared is not None:
            shown = self.time(last) + self.duration(last)
            if declared - shown > max(Fraction(1, 4), 3 * self.duration(last)):
                raise self.bad(
                    f"cut short: it should last {float(declared):.2f} s, but its frames end at {float(shown):.2f} s"
                )

    def _pts(self, frame: av.VideoFrame) -> int:
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            raise self.bad("its frames carry no presentation times; remux it, for example with `ffmpeg -c copy`")
        return int(pts)

    def _rate(self) -> Fraction:
        return Fraction(self._stream.average_rate or self._stream.guessed_rate or 0)

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


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _rational(fps: float) -> Fraction:
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


# -------------------------------------------------------------------------------------------------------- normalising


def normalise(clip: Clip, settings: Normalisation | None = None, limits: Limits | None = None) -> NormalisedVideo:
    """The stored form of `clip`: cut, turned upright, cropped, sampled, shrunk by area, encoded once.

    Non-square pixels are made square by shrinking. The same file gives the same bytes in one environment. Raises
    BadVideoError where the video cannot be read, the crop leaves the frame, or fewer than `min_frames` come out.
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

    def pictures() -> Iterator[Frame]:
        frames = read_frames(clip.video, clip.start, clip.end, fps=settings.fps, limits=limits)
        for frame in itertools.islice(frames, settings.max_frames):
            yield _resize(frame[y0:y1, x0:x1], height, width)

    mp4, count = _encode(pictures(), settings.fps, lossless=False, crf=settings.crf)
    if count < settings.min_frames:
        raise BadVideoError(
            f"{clip.video}: {clip.key} has {count} frames at {settings.fps:g} fps; {settings.min_frames} are needed"
        )
    return NormalisedVideo(mp4, count, height, width, settings.fps)


def _stored_size(height: int, width: int, pixel_aspect: float, short_side: int) -> tuple[int, int]:
    """Even height and width, none larger than the source's, of square pixels."""
    square_h, square_w = height / max(pixel_aspect, 1.0), width * min(pixel_aspect, 1.0)
    scale = min(1.0, short_side / min(square_h, square_w))
    return 2 * min(round(square_h * scale / 2), height // 2), 2 * min(round(square_w * scale / 2), width // 2)


def _resize(frame: Frame, height: int, width: int) -> Frame:
    """Area-averaged to `height` × `width`; an odd last row or column is dropped rather than resampled."""
    if (frame.shape[0] - height, frame.shape[1] - width) in ((0, 0), (0, 1), (1, 0), (1, 1)):
        return np.ascontiguousarray(frame[:height, :width])
    return cast(Frame, cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))


# ----------------------------------------------------------------------------------------------------------- encoding


def encode_video(frames: Iterable[Frame], fps: float, *, lossless: bool = False, crf: int = 18) -> bytes:
    """An H.264 mp4 of RGB frames `[H, W, 3]` uint8, index first; the same frames give the same bytes.

    Lossy: 4:2:0, BT.709, limited range, tagged so; even sides. Lossless: RGB 4:4:4 (High 4:4:4 Predictive), which
    round-trips exactly; any sides. Closed groups of pictures of at most a second, so a seek decodes no more than that.
    Raises ValueError on no frames, odd sides (lossy), or frames that differ in shape.
    """
    mp4, count = _encode(iter(frames), fps, lossless=lossless, crf=crf)
    if count == 0:
        raise ValueError("there are no frames to encode")
    return mp4


def _encode(frames: Iterator[Frame], fps: float, *, lossless: bool, crf: int) -> tuple[bytes, int]:
    """The bytes and how many frames went in; no bytes where none did."""
    first = next(frames, None)
    if first is None:
        return b"", 0
    height, width = first.shape[:2]
    if not lossless and (height % 2 or width % 2):
        raise ValueError(f"4:2:0 colour needs even sides, not {width}×{height}; crop, or encode losslessly")
    rate = _rational(fps)
    buffer = io.BytesIO()
    with av.open(
        buffer, "w", format="mp4", options={"movflags": "+faststart"}, io_open=_reader_over(buffer)
    ) as container:
        # Without both flags the muxer writes its version and the time of day.
        container.flags |= cast(int, ContainerFlags.bitexact.value)
        quality = {"qp": "0"} if lossless else {"crf": str(crf)}
        stream = container.add_stream(
            "libx264rgb" if lossless else "libx264",
            rate=rate,
            # x264's macroblock tree reads memory it has not written: its bytes change with what lay there before.
            options={"preset": "fast", "mbtree": "0", **quality},
        )
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        codec = stream.codec_context
        codec.flags |= CodecFlags.bitexact.value | CodecFlags.closed_gop.value
        codec.thread_count = 1  # x264's bytes depend on the number of threads
        codec.gop_size = max(1, round(rate))
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        if not lossless:
            codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        reformatter = VideoReformatter()
        count = 0
        for frame in itertools.chain([first], frames):
            if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
                raise ValueError(f"frame {count} is {frame.dtype} {frame.shape}, not uint8 {(height, width, 3)}")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if not lossless:
                picture = reformatter.reformat(
                    picture,
                    format="yuv420p",
                    interpolation=_SCALER,
                    src_color_range=ColorRange.JPEG,
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range=ColorRange.MPEG,
                    threads=1,
                )
            picture.pts, picture.time_base = count, 1 / rate
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode(None))
    return buffer.getvalue(), count


def _reader_over(buffer: io.BytesIO) -> Callable[[str, int, dict[str, str]], io.RawIOBase]:
    """What the mp4 muxer needs to move the index to the front: a second, reading handle on what it has written."""
    return lambda _url, _flags, _options: _SecondHandle(buffer)


class _SecondHandle(io.RawIOBase):
    """Reads a BytesIO that another is writing, with a position of its own."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = (0, self._at, self._buffer.getbuffer().nbytes)[whence]
        self._at = origin + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        with self._buffer.getbuffer() as view:
            chunk = bytes(view[self._at : None if size < 0 else self._at + size])
        self._at += len(chunk)
        return chunk


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
        for frame in video.frames():
            if len(frames) >= room:
                raise video.bad(f"its frames of {info.width}×{info.height} exceed {limits.array_bytes} bytes")
            frames.append(video.rgb(frame))
    return np.stack(frames), info.fps
