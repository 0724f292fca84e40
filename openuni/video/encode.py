"""One deterministic encode: the same frames give the same bytes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.container import Flags as ContainerFlags
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from openuni.video.decode import SCALER, Frame, rational


def encode_video(frames: Iterable[Frame], fps: float, *, lossless: bool = False, crf: int = 18) -> bytes:
    """An H.264 mp4 of RGB frames `[H, W, 3]` uint8, index first; the same frames give the same bytes.

    Lossy: 4:2:0, BT.709, limited range, tagged so; even sides. Lossless: RGB 4:4:4 (High 4:4:4 Predictive), which
    round-trips exactly; any sides. Closed groups of pictures of at most a second, so a seek decodes no more than that.
    Raises ValueError on no frames, odd sides (lossy), or frames that differ in shape.
    """
    mp4, count = encode(iter(frames), fps, lossless=lossless, crf=crf)
    if count == 0:
        raise ValueError("there are no frames to encode")
    return mp4


def encode(frames: Iterator[Frame], fps: float, *, lossless: bool, crf: int) -> tuple[bytes, int]:
    """The bytes and how many frames went in; no bytes where none did."""
    first = next(frames, None)
    if first is None:
        return b"", 0
    height, width = first.shape[:2]
    if not lossless and (height % 2 or width % 2):
        raise ValueError(f"4:2:0 colour needs even sides, not {width}×{height}; crop, or encode losslessly")
    rate = rational(fps)
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
                    interpolation=SCALER,
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
