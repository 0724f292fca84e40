"""How small predicted relative depth can be stored, at a relative error below half a percent; what it does to scores.

    python benchmarks/depth_codecs.py --video a.mp4 b.mp4 [--frames 6] [--expert fastdepth]
    python benchmarks/depth_codecs.py --far

Depth is what the expert sees: bytes on the videos, scores (aligned in disparity, as UniBench does) on rendered clips
whose depth and cameras are known. Builds store relative depth as `log .25 %` and affine disparity as `companded 10`;
before, both as `linear 16`. `--far` has no expert: it shows what the codes of affine disparity leave of far depth.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from openuni.modalities import Frames
from openuni.modalities.depth import Depth, DepthModality
from openuni.modalities.planes import encode_planes
from openuni.video import decode_video
from unibench.metrics.depth import MAX_DEPTH, apply_fit, depth_errors, fit, temporal_alignment_error, valid_truth
from unibench.rendering.render import render_scene
from unibench.scenes.families import Spec

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint16]
Codec = Callable[[Floats], "Stored"]
RENDERED = (("fly", 3), ("fly", 5), ("roll", 3), ("bounce", 2))


@dataclass(frozen=True, slots=True)
class Stored:
    """What a codec makes of depth: its bytes, and the depth that comes back; NaN is unknown."""

    size: int
    depth: Floats


def linear(depth: Floats, *, bits: int) -> Stored:
    """Codes linear in inverse depth, in FFV1; what affine disparity can have as well."""
    codes, low, step = quantised(1 / depth, steps=2**bits - 2)
    return Stored(len(encode_planes(codes, bits)), 1 / unquantised(codes, low, step))


def companded(depth: Floats) -> Stored:
    """What builds store of affine disparity."""
    value = Depth((1 / depth).astype(np.float32), "affine_disparity")
    made = DepthModality().encode_compact(value)
    return Stored(len(made.members["depth.mkv"]), 1 / DepthModality().decode(made).values.astype(np.float64))


def log_ffv1(depth: Floats, *, error: float) -> Stored:
    codes, low, step = quantised(np.log(depth), step=2 * np.log1p(error))
    return Stored(len(encode_planes(codes, 10)), np.exp(unquantised(codes, low, step)))


def log_x265(depth: Floats, *, error: float = 0.0, quantiser: int = 0) -> Stored:
    """Lossless codes of that error; or 12 bits over the range of log depth, and errors are what they are."""
    if quantiser:
        codes, low, step = quantised(np.log(depth), steps=4094)
    else:
        codes, low, step = quantised(np.log(depth), step=2 * np.log1p(error))
    rate = f"qp={quantiser}" if quantiser else "lossless=1"
    options = {"x265-params": f"{rate}:log-level=none:pools=1", "preset": "medium"}
    data = video(codes, "libx265", "gray12le", options, 25)
    with av.open(io.BytesIO(data), "r") as container:
        frames: Any = container.decode(video=0)
        back = np.stack([frame.to_ndarray(format="gray12le") for frame in frames])
    return Stored(len(data), np.exp(low + (back - 1.0) * step))


def quantised(numbers: Floats, *, steps: int = 0, step: float = 0.0) -> tuple[Codes, float, float]:
    """Codes from 1 on, 0 for NaN; the smallest number, and the step."""
    low = float(np.nanmin(numbers))
    step = step or float(np.nanmax(numbers) - low) / steps
    return np.nan_to_num(np.rint((numbers - low) / step) + 1, nan=0).astype(np.uint16), low, step


def unquantised(codes: Codes, low: float, step: float) -> Floats:
    return np.where(codes > 0, low + (codes - 1.0) * step, np.nan)


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


CODECS: dict[str, Codec] = {
    "linear 16, FFV1": partial(linear, bits=16),
    "linear 12, FFV1": partial(linear, bits=12),
    "linear 10, FFV1": partial(linear, bits=10),
    "companded 10, FFV1": companded,
    "log .25 %, FFV1": partial(log_ffv1, error=0.0025),
    "log .5 %, FFV1": partial(log_ffv1, error=0.005),
    "log .25 %, x265 lossless": partial(log_x265, error=0.0025),
    "log 12, x265 qp 8": partial(log_x265, quantiser=8),
    "log 12, x265 qp 16": partial(log_x265, quantiser=16),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the expert sees of a rendered clip, beside its truth."""

    depth: Floats
    truth: Any

    @classmethod
    def of(cls, family: str, seed: int, seen: Callable[[Frames], Floats]) -> Rendered:
        made = render_scene(Spec(family, seed, 16, 256, 256))
        return cls(seen(made.rgb), made.truth)

    def scores(self, depth: Floats) -> tuple[float, float]:
        """AbsRel and TAE in percent, after alignment in disparity."""
        predicted, true = Depth(depth.astype(np.float32), "relative"), self.truth.depth
        valid = valid_truth(true)
        fitted = fit(predicted, true, valid, "disparity")
        assert fitted is not None
        aligned = apply_fit(predicted, fitted)
        camera = self.truth.camera
        absrel = depth_errors(aligned[valid], true[valid].astype(np.float64)).absrel
        return absrel, temporal_alignment_error(aligned, camera.intrinsics, camera.pose, valid)


def show_far() -> None:
    """Perfect affine disparity of rendered clips whose sky is a far slope, below a strip that is infinitely far."""
    table = Table("farthest / nearest", "codec", "AbsRel", "of the far half", "largest error", "δ1", "within 1 %")
    truths = [render_scene(Spec(family, seed, 4, 256, 256)).truth.depth for family, seed in RENDERED]
    clips = [truth.astype(np.float64) for truth in truths if np.isnan(truth).any()]
    for ratio in (50, 100, 300):
        for name in ("linear 16, FFV1", "linear 12, FFV1", "linear 10, FFV1", "companded 10, FFV1"):
            errors = np.array([_far_errors(clip, ratio, CODECS[name]) for clip in clips])
            worst = [f"{number:.3%}" for number in errors.max(axis=0)[:3]]
            table.add_row(str(ratio), name, *worst, *(f"{share:.4f}" for share in errors.min(axis=0)[3:]))
    Console(width=130).print(table)


def _far_errors(depth: Floats, ratio: float, codec: Codec) -> list[float]:
    """Mean relative error, of all and of the far half, and the largest; the share of pixels below δ1 and 1 %."""
    farthest = MAX_DEPTH - 1
    slope = np.linspace(0.5, 1, depth.shape[1])[None, ::-1, None] * farthest
    true = np.where(np.isnan(depth), slope, depth * (farthest / ratio / np.nanmin(depth)))
    seen, valid = true.copy(), np.ones(true.shape, np.bool_)
    seen[:, : depth.shape[1] // 12] = np.inf
    valid[:, : depth.shape[1] // 12] = False
    with np.errstate(divide="ignore"):
        predicted = Depth((1 / codec(seen).depth).astype(np.float32), "affine_disparity")
    fitted = fit(predicted, true, valid, "disparity")
    assert fitted is not None
    aligned, known = apply_fit(predicted, fitted)[valid], true[valid]
    far = known > farthest / 2
    error = np.abs(aligned / known - 1)
    whole, beyond = depth_errors(aligned, known), depth_errors(aligned[far], known[far])
    return [whole.absrel, beyond.absrel, float(error.max()), whole.delta1, float(np.mean(error < 0.01))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, nargs="+", default=[])
    parser.add_argument("--far", action="store_true")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--expert", default="fastdepth")
    options = parser.parse_args()
    if options.far:
        show_far()
        return
    expert = experts.get(options.expert)()
    expert.setup()

    def seen(frames: Frames) -> Floats:
        value = expert.annotate(DecodedClip("clip", frames, 16.0, {})).value
        assert isinstance(value, Depth)
        assert value.kind == "relative"
        return value.values.astype(np.float64)

    clips = [seen(part(path, options.frames)) for path in options.video]
    rendered = [Rendered.of(family, seed, seen) for family, seed in RENDERED]
    before = [each.scores(each.depth) for each in rendered]
    table = Table("codec", "bytes a frame", "smaller", "largest error", "AbsRel", "TAE, points", "ms a frame")
    first: list[int] = []
    for name, codec in CODECS.items():
        began = time.process_time()
        made = [codec(clip) for clip in clips]
        took = (time.process_time() - began) / sum(map(len, clips)) * 1e3
        first = first or [one.size for one in made]
        ratios = [before / one.size for before, one in zip(first, made, strict=True)]
        errors = [np.nanmax(np.abs(one.depth - clip) / clip) for one, clip in zip(made, clips, strict=True)]
        after = [each.scores(codec(each.depth).depth) for each in rendered]
        changes = np.array(after) - np.array(before)
        mean = sum(one.size for one in made) / sum(map(len, clips))
        absrel, tae = np.abs(changes).max(axis=0)
        table.add_row(
            name, f"{mean:,.0f}", f"{min(ratios):.1f} to {max(ratios):.1f}", f"{max(errors):.3%}", f"±{absrel:.6f}",
            f"±{tae:.4f}", f"{took:.0f}",
        )  # fmt: skip
    said = Console(width=130)
    said.print(table)
    said.print("before:", ", ".join(f"AbsRel {absrel:.3f} TAE {tae:.2f} %" for absrel, tae in before))


def part(path: Path, count: int) -> Frames:
    """Frames from a third of the clip on, 480 pixels high."""
    frames = decode_video(path)[0]
    frames = frames[len(frames) // 3 :][:count]
    width = 480 * frames.shape[2] // frames.shape[1] // 2 * 2
    return np.stack([cv2.resize(frame, (width, 480), interpolation=cv2.INTER_AREA) for frame in frames])


if __name__ == "__main__":
    main()
