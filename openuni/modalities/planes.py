"""The one lossless codec of dense annotations: FFV1 (RFC 9043) in Matroska, gray of 8, 10, 12 or 16 bits.

Several planes of a frame (u, v and occlusion of a flow) are stacked into one tall frame: FFV1 compresses them better
so than as colour channels, and one stream is one seek. Every frame is a key frame, which for FFV1 costs nothing.
"""

from __future__ import annotations

import io
from typing import Any, TypeVar

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags

from openuni.errors import CorruptDataError

P = TypeVar("P", np.uint8, np.uint16)

_FORMATS = {8: "gray", 10: "gray10le", 12: "gray12le", 16: "gray16le"}
"""Pixel format by bits of a sample."""


def encode_planes(array: npt.NDArray[P], bits: int | None = None) -> bytes:
    """Losslessly encode uint8 or uint16 `[T, H, W]`, T, H, W ≥ 1. Equal arrays give equal bytes in one environment.

    `bits`: 10 or 12 of uint16, where no sample has more; else those of its type.

    Without the bit-exact flags on both container and codec the bytes would carry a random id and a version; slices
    and threads are fixed because both change the stream.
    """
    height, width = _coded_size(*array.shape[1:])
    bits = bits or 8 * array.itemsize
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska", options={"fflags": "bitexact"}) as container:
        # The encoder wants at least four slices (two by two) for frames larger than CIF, and at most one a pixel.
        slices = "4" if width > 352 or height > 288 else "1"
        # Measured: for 8 bits the range coder's default table takes a third off the bytes of labels (against Golomb
        # codes), for 10 bits 2 % off those of depth; for 16 bits FFmpeg's other table does that.
        coder = "range_tab" if bits == 16 else "range_def"
        options = {"level": "3", "coder": coder, "slices": slices, "slicecrc": "1"}
        stream: Any = container.add_stream("ffv1", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, _FORMATS[bits]
        stream.codec_context.gop_size = 1
        stream.codec_context.flags |= Flags.bitexact
        stream.codec_context.thread_count = 1
        for index, plane in enumerate(array):
            if plane.shape != (height, width):
                plane = np.pad(plane, ((0, height - plane.shape[0]), (0, width - plane.shape[1])), "edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(plane), format=_FORMATS[bits])
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decode_planes(
    data: bytes,
    frames: int,
    height: int,
    width: int,
    dtype: type[P],
    part: range | None = None,
    bits: int | None = None,
) -> npt.NDArray[P]:
    """The `[frames, height, width]` array of `encode_planes`, or of a part of its frames, which alone are decoded.

    Raises CorruptDataError where the bytes are not such a video or have another size, type or number of frames. The
    caller's size is compared with the stream's header before a frame is decoded, and no more than `frames` are, so
    a false header takes no memory. (A flipped bit inside a frame is not noticed here: the index has the hash.)
    """
    expected = ("ffv1", *_coded_size(height, width), _FORMATS[bits or 8 * np.dtype(dtype).itemsize])
    part = range(frames) if part is None else part
    array: npt.NDArray[P] = np.empty((len(part), height, width), dtype)
    count = 0
    try:
        # The format is named, so that bytes from outside cannot choose a demuxer (a playlist, say).
        with av.open(io.BytesIO(data), "r", format="matroska") as container:
            if len(container.streams.video) != 1:
                raise CorruptDataError("planes: no video stream")
            context = container.streams.video[0].codec_context
            found = (context.codec.name, context.height, context.width, context.pix_fmt)
            if found != expected:
                raise CorruptDataError(f"planes: stream is {found}, expected {expected}")
            context.thread_count = 1
            for packet in container.demux(video=0):
                if not packet.size:  # the end
                    break
                if count == frames:
                    raise CorruptDataError(f"planes: more than the {frames} frames expected")
                if count in part:  # every frame is a key frame: the others need not be decoded
                    (frame,) = packet.decode()
                    array[count - part.start] = frame.to_ndarray()[:height, :width]
                count += 1
    except (av.error.FFmpegError, ValueError) as error:
        raise CorruptDataError(f"planes: cannot be decoded: {error}") from error
    if count != frames:
        raise CorruptDataError(f"planes: {count} frames instead of {frames}")
    return array


def _coded_size(height: int, width: int) -> tuple[int, int]:
    """At least 2×2: four slices do not fit into a frame one pixel wide."""
    return max(height, 2), max(width, 2)
