"""How small predicted relative depth could be stored, at a relative error below half a percent; what it does to TAE.

    python benchmarks/depth_codecs.py [--video clip.mp4] [--frames 16] [--expert fastdepth]

Depth is what the expert sees: bytes on the video, TAE on a rendered clip whose camera is known. `linear 16` is what
datasets store. `log` codes are as wide as the error allows, so a clip of depths 1 to 50 needs 393 of them: nine bits.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from openuni import experts
from openuni.experts import DecodedClip
from openuni.modalities.depth import Depth
from openuni.modalities.planes import encode_planes
from openuni.video import decode_video
from unibench.metrics.depth import temporal_alignment_error
from unibench.rendering.render import render_scene
from unibench.scenes.families import Spec

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint16]
ERROR = 0.005


@dataclass(frozen=True, slots=True)
class Stored:
    """What a codec makes of depth: its bytes, and the depth that comes back."""

    size: int
    depth: Floats


def linear(depth: Floats, *, bits: int) -> Stored:
    """Codes linear in inverse depth, in FFV1, every frame for itself; what affine disparity can have as well."""
    inverse, most = 1 / depth, 2**bits - 2
    low, step = inverse.min(), (inverse.max() - inverse.min()) / most
    codes = (np.rint((inverse - low) / step) + 1).astype(np.uint16)
    data = encode_planes(codes) if bits == 16 else ffv1(codes, f"gray{bits}le")
    return Stored(len(data), 1 / (low + (codes - 1.0) * step))


def log_codes(depth: Floats) -> tuple[Codes, float, float]:
    """The fewest codes whose error stays below ERROR: code 0 is free for what is invalid."""
    low, step = np.log(depth.min()), 2 * np.log1p(ERROR)
    return (np.rint((np.log(depth) - low) / step) + 1).astype(np.uint16), float(low), float(step)


def log_ffv1(depth: Floats) -> Stored:
    codes, low, step = log_codes(depth)
    return Stored(len(ffv1(codes, "gray10le")), np.exp(low + (codes - 1.0) * step))


def ffv1(codes: Codes, pixel_format: str) -> bytes:
    return video(codes, "ffv1", pixel_format, {"level": "3", "coder": "range_tab", "slicecrc": "1"}, 1)


def log_x265(depth: Floats, *, quantiser: int) -> Stored:
    """12 bits over the range of log depth. Lossless at quantiser 0; else errors are what they are."""
    log = np.log(depth)
    low, step = log.min(), (log.max() - log.min()) / 4095
    codes = np.rint((log - low) / step).astype(np.uint16)
    if quantiser == 0:
        codes, low, step = log_codes(depth)
    rate = "lossless=1" if quantiser == 0 else f"qp={quantiser}"
    options = {"x265-params": f"{rate}:log-level=none:pools=1", "preset": "medium"}
    data = video(codes, "libx265", "gray12le", options, 25)
    with av.open(io.BytesIO(data), "r") as container:
        frames: Any = container.decode(video=0)
        back = np.stack([frame.to_ndarray(format="gray12le") for frame in frames])
    return Stored(len(data), np.exp(low + (back - (quantiser == 0) * 1.0) * step))


def video(codes: Codes, codec: str, pixel_format: str, options: dict[str, str], gop: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = codes.shape[1:]
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        for plane in codes:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(plane, format=pixel_format)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


CODECS: dict[str, Callable[[Floats], Stored]] = {
    "linear 16, FFV1 (stored today)": lambda depth: linear(depth, bits=16),
    "linear 12, FFV1": lambda depth: linear(depth, bits=12),
    "linear 10, FFV1": lambda depth: linear(depth, bits=10),
    "log, FFV1": log_ffv1,
    "log, x265 lossless": lambda depth: log_x265(depth, quantiser=0),
    "log 12, x265 qp 8": lambda depth: log_x265(depth, quantiser=8),
    "log 12, x265 qp 16": lambda depth: log_x265(depth, quantiser=16),
    "log 12, x265 qp 24": lambda depth: log_x265(depth, quantiser=24),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--expert", default="fastdepth")
    options = parser.parse_args()
    expert = experts.get(options.expert)()
    expert.setup()

    def seen(frames: npt.NDArray[np.uint8]) -> Floats:
        value = expert.annotate(DecodedClip("clip", frames, 16.0, {})).value
        assert isinstance(value, Depth)
        assert value.kind == "relative"
        # Beside the point here: code 0 of what the network says nothing of costs the same in all.
        return np.nan_to_num(value.values.astype(np.float64), nan=float(np.nanmedian(value.values)))

    made = render_scene(Spec("fly", 3, options.frames, 256, 256))
    camera = made.truth.camera
    rendered = seen(made.rgb)
    stored = rendered
    if options.video:
        frames = decode_video(options.video)[0][: options.frames]
        width = 480 * frames.shape[2] // frames.shape[1] // 2 * 2
        stored = seen(np.stack([cv2.resize(frame, (width, 480), interpolation=cv2.INTER_AREA) for frame in frames]))
    before = temporal_alignment_error(rendered, camera.intrinsics, camera.pose)
    table = Table(
        "codec", "bytes a frame", "smaller", "95 % of errors", "largest", "of the range", "TAE %", "ms a frame"
    )
    first = 0
    for name, codec in CODECS.items():
        began = time.process_time()
        one = codec(stored)
        took = (time.process_time() - began) / len(stored) * 1e3
        first = first or one.size
        errors = np.abs(one.depth - stored) / stored
        share = np.abs(1 / one.depth - 1 / stored).max() / np.ptp(1 / stored)
        after = temporal_alignment_error(codec(rendered).depth, camera.intrinsics, camera.pose)
        table.add_row(
            name, f"{one.size / len(stored):,.0f}", f"{first / one.size:.1f} ×", f"{np.quantile(errors, 0.95):.3%}",
            f"{errors.max():.3%}", f"{share:.3%}", f"{after:.3f} ({after - before:+.3f})", f"{took:.0f}",
        )  # fmt: skip
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
