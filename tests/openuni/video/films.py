"""Small films of the kinds that people have, made here: their frames carry their number as bars of black and white."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]
WIDTH, HEIGHT, BITS = 96, 64, 8
INTERLACED = (1 << 18) | (1 << 29)  # AV_CODEC_FLAG_INTERLACED_DCT, AV_CODEC_FLAG_INTERLACED_ME


def numbered(number: int) -> Rgb:
    """A frame that `number_of` reads, with a square that moves."""
    frame = np.full((HEIGHT, WIDTH, 3), 96, np.uint8)
    cell = WIDTH // BITS
    for bit in range(BITS):
        frame[:20, bit * cell : (bit + 1) * cell] = 235 if number >> bit & 1 else 16
    left = 3 * number % (WIDTH - 16)
    frame[32:48, left : left + 16] = (200, 60, 40)
    return frame


def number_of(frame: Rgb) -> int:
    cell = WIDTH // BITS
    middles = (frame[4:16, bit * cell + 4 : (bit + 1) * cell - 4].mean() > 127 for bit in range(BITS))
    return sum(int(lit) << bit for bit, lit in enumerate(middles))


def film(
    path: Path,
    count: int = 48,
    *,
    first: int = 0,
    start: float = 0.0,
    rate: int = 16,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    picture: Callable[[int], Rgb] = numbered,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
) -> Path:
    """`count` frames numbered from `first`, presented from `start` s on."""
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        prepare(stream)
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(picture(first + k), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = round(start * rate) + k, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def joined(path: Path, *parts: Path) -> Path:
    """The parts one after the other, as `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def packed(path: Path, count: int = 49) -> Path:
    """MPEG-4 in AVI as DivX packs it: a P frame and the B frame before it in one chunk, then an empty chunk."""
    options = {"bf": "1", "b_strategy": "0", "sc_threshold": "1000000000", "g": "100"}
    plain = film(path.with_suffix(".plain.avi"), count, codec="mpeg4", options=options)
    with av.open(str(plain)) as source, av.open(str(path), "w", format="avi") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        first, *rest = (bytes(packet) for packet in source.demux(video=0) if packet.size)
        first = re.sub(rb"Lavc[0-9.]+", b"DivX503b1393p", first)  # by its name a decoder knows what to expect
        empty = b"\0\0\1\xb6\x50\x7f"  # a P picture that is not coded
        pairs = [piece for p, b in zip(rest[::2], rest[1::2], strict=True) for piece in (p + b, empty)]
        for k, data in enumerate([first, *pairs]):
            packet = av.Packet(data)
            packet.pts = packet.dts = k
            packet.stream, packet.time_base = stream, Fraction(1, 16)
            output.mux(packet)
    return path


def combed(number: int) -> Rgb:
    """Two moments in one frame: a white block in the odd lines, and twelve pixels further in the even ones."""
    frame = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    left = 24 * number % 60
    frame[25:56:2, left : left + 30] = 255
    frame[24:56:2, left + 12 : left + 42] = 255
    return frame


def interlaced(path: Path, count: int = 50) -> Path:
    def prepare(stream: av.VideoStream) -> None:
        stream.codec_context.flags |= INTERLACED

    quality = {"qmin": "2", "qmax": "3"}
    return film(path, count, rate=25, codec="mpeg2video", options=quality, picture=combed, prepare=prepare)


def telecined(
    path: Path,
    count: int,
    *,
    order: str = "tff",
    skip: int = 0,
    codec: str = "mpeg2video",
    options: dict[str, str] | None = None,
    picture: Callable[[int], Rgb] = numbered,
    after: Sequence[Rgb] = (),
) -> Path:
    """`count` frames of film at 24 a second as interlaced video at 30: each lasts two fields and three in turn.

    `skip`: frames of the video that are cut off in front; `after`: frames of other video that follow.
    """
    pictures = [av.VideoFrame.from_ndarray(picture(k), format="rgb24").reformat(format="yuv420p") for k in range(count)]
    fields = [k for k in range(count) for _ in range(2 + k % 2)]
    pairs = list(zip(fields[::2], fields[1::2], strict=False))[skip:]
    pairs += [(count + k, count + k) for k in range(len(after))]
    pictures += [av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p") for rgb in after]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=30, options=options or {"qmin": "1", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.flags |= INTERLACED
        for number, (early, late) in enumerate(pairs):
            top, bottom = (early, late) if order == "tff" else (late, early)
            frame = weave(pictures[top], pictures[bottom])
            frame.pts, frame.time_base = number, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def weave(top: av.VideoFrame, bottom: av.VideoFrame) -> av.VideoFrame:
    """A frame of the even lines of one and the odd lines of the other, in every plane."""
    frame = av.VideoFrame(top.width, top.height, top.format.name)
    for plane, even, odd in zip(frame.planes, top.planes, bottom.planes, strict=True):
        rows = np.frombuffer(bytes(even), np.uint8).reshape(-1, even.line_size).copy()
        rows[1::2] = np.frombuffer(bytes(odd), np.uint8).reshape(rows.shape)[1::2]
        plane.update(rows.tobytes())
    return frame


def hdr(path: Path, codes: npt.NDArray[np.uint16], transfer: int, matrix: int = 9, chroma: int = 1) -> Path:
    """Eight frames of 10-bit Y'CbCr code values `[H, W, 3]` in BT.2020, lossless, tagged with H.273's numbers.

    `chroma` 2 stores every second one of Cb and Cr, both ways: 4:2:0, as films are.
    """
    pixels = "yuv420p10le" if chroma == 2 else "yuv444p10le"
    height, width = codes.shape[:2]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, matrix, 1
        for k in range(8):
            frame = av.VideoFrame(width, height, pixels)
            for channel, plane in enumerate(frame.planes):
                every = chroma if channel else 1
                rows = np.zeros((height // every, plane.line_size // 2), "<u2")
                rows[:, : width // every] = codes[::every, ::every, channel]
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = k, Fraction(1, 16)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path
