"""Bytes, worst error and decoding time of each modality's storage against fp16 npz and PNG, in one run.

    python benchmarks/modality_codecs.py [--video clip.mp4] [--frames 16] [--width 832] [--height 480]

With `--video` flow is what DIS sees in the clip, and labels and depth are made of its pictures; without it the clip is
a textured scene in which things move. DensePose and skeleton are drawn in both cases. One thread throughout. PNG is
what OpenCV writes by default, PNG-9 at zlib's highest level.
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

from openuni import modalities
from openuni.modalities.densepose import DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import Skeleton

Array = npt.NDArray[Any]
PNG_9 = [cv2.IMWRITE_PNG_COMPRESSION, 9]


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. `array` goes into the npz as it is, `pngs` are its pictures."""

    modality: str
    what: str
    value: Any
    array: Array
    pngs: list[Array]
    error: Callable[[Any], str]
    """The worst error of the decoded value, in words."""
    target: float
    """The most that the ratio of bytes may be, to npz for flow and to PNG for labels; 0: none is set."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="a real clip; default: a synthetic one")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--height", type=int, default=480)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    size = (options.height, options.width)
    frames = read_clip(options.video, options.frames, size) if options.video else make_clip(options.frames, size)

    origin = options.video.name if options.video else "synthetic"
    table = Table(title=f"{len(frames)} frames of {size[1]}×{size[0]}, {origin}; bytes a frame, decoding in ms a frame")
    for column in ("modality", "stored", "fp16 npz", "PNG", "npz ÷ stored", "PNG ÷ stored", "PNG-9 ÷ stored", "target",
                   "worst error", "decode", "npz decode", "encode"):  # fmt: skip
        table.add_column(column, justify="right" if column not in ("modality", "worst error") else "left")
    for case in (
        flow_case(frames),
        depth_case(frames),
        labels_case(frames),
        densepose_case(frames),
        skeleton_case(frames),
    ):
        table.add_row(*measure(case, len(frames)))
    Console(width=180).print(table)


def measure(case: Case, frames: int) -> list[str]:
    modality = modalities.get(case.modality)
    encoded = modality.encode(case.value)
    stored = sum(map(len, encoded.members.values())) / frames
    buffer = io.BytesIO()
    np.savez_compressed(buffer, case.array)
    npz = len(buffer.getvalue()) / frames
    png, png9 = (sum(len(cv2.imencode(".png", p, level)[1]) for p in case.pngs) / frames for level in ([], PNG_9))

    def load_npz() -> Array:
        with np.load(io.BytesIO(buffer.getvalue())) as file:
            array: Array = file["arr_0"]
        return array.astype(np.float32) if array.dtype == np.float16 else array

    target = {"flow": f"npz ≥ {case.target:g}", "segmentation": f"PNG ≥ {case.target:g}"}.get(case.modality, "")
    return [
        f"{case.modality}: {case.what}",
        f"{stored:,.0f}",
        f"{npz:,.0f}",
        f"{png:,.0f}" if png else "–",
        f"{npz / stored:.1f}",
        f"{png / stored:.1f}" if png else "–",
        f"{png9 / stored:.1f}" if png else "–",
        target,
        case.error(modality.decode(encoded)),
        f"{seconds(lambda: modality.decode(encoded)) / frames * 1e3:.1f}",
        f"{seconds(load_npz) / frames * 1e3:.1f}",
        f"{seconds(lambda: modality.encode(case.value)) / frames * 1e3:.1f}",
    ]


def seconds(work: Callable[[], Any]) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def read_clip(path: Path, count: int, size: tuple[int, int]) -> Array:
    frames: list[Array] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(cv2.resize(frame.to_ndarray(format="rgb24"), size[::-1], interpolation=cv2.INTER_AREA))
            if len(frames) == count:
                break
    return np.stack(frames)


def make_clip(count: int, size: tuple[int, int]) -> Array:
    """Textured discs over a textured background, each on its way, with the noise of a camera."""
    rng = np.random.default_rng(0)
    height, width = size
    texture = [
        cv2.GaussianBlur(rng.integers(0, 256, (height + 99, width + 99, 3), np.uint8), (0, 0), s) for s in (1.5, 4)
    ]
    texture = [cv2.normalize(t, None, 0, 255, cv2.NORM_MINMAX) for t in texture]
    starts, speeds = rng.uniform(0, 1, (6, 2)) * (width, height), rng.uniform(-8, 8, (6, 2))
    y, x = np.mgrid[:height, :width]
    frames = []
    for t in range(count):
        frame = texture[1][t : t + height, 2 * t : 2 * t + width].copy()
        for start, speed in zip(starts, speeds, strict=True):
            cx, cy = start + t * speed
            disc = (x - cx) ** 2 + (y - cy) ** 2 < (height / 7) ** 2
            moved = np.roll(texture[0][:height, :width], np.rint(t * speed).astype(int)[::-1], (0, 1))
            frame[disc] = moved[disc]
        noisy = frame.astype(np.float32) + rng.normal(0, 2, frame.shape).astype(np.float32)
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return np.stack(frames)


def flow_case(frames: Array) -> Case:
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward, backward = (
        np.stack([dis.calc(a, b, None) for a, b in zip(first, second, strict=True)])
        for first, second in ((grey[:-1], grey[1:]), (grey[1:], grey[:-1]))
    )
    y, x = np.mgrid[: grey[0].shape[0], : grey[0].shape[1]].astype(np.float32)
    returned = np.stack(
        [cv2.remap(b, x + f[..., 0], y + f[..., 1], cv2.INTER_LINEAR) for f, b in zip(forward, backward, strict=True)]
    )
    gap = np.linalg.norm(forward + returned, axis=-1)
    occluded = gap > 1 + 0.05 * np.linalg.norm(forward, axis=-1)
    # KITTI's PNG: v and u in 1/64 px and validity (blue, green, red as OpenCV writes them).
    kitti = [np.dstack([np.ones_like(f[..., 0]), f[..., 1] * 64 + 2**15, f[..., 0] * 64 + 2**15]) for f in forward]

    def error(back: Flow) -> str:
        return f"{np.abs(back.forward - forward).max():.4f} px"

    pngs = [np.rint(picture).astype(np.uint16) for picture in kitti]
    return Case("flow", "DIS and occlusion", Flow(forward, occluded), forward.astype(np.float16), pngs, error, 25)


def depth_case(frames: Array) -> Case:
    """No depth is at hand: smoothed brightness stands for disparity, 0.5 to 50 m."""
    bright = np.stack(
        [cv2.GaussianBlur(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 3) for f in frames]
    )
    disparity = 0.02 + 1.98 * (bright - bright.min()) / np.ptp(bright)
    values = (1 / disparity).astype(np.float32)

    def error(back: Depth) -> str:
        return f"{np.abs(back.values / values - 1).max():.2e} of the depth"

    pngs = list(np.rint((disparity - 0.02) / 1.98 * 65535).astype(np.uint16))
    return Case("depth", "brightness as disparity", Depth(values, "metric"), values.astype(np.float16), pngs, error, 0)


def labels_case(frames: Array) -> Case:
    """Regions of similar brightness, with borders as SAM draws them: a mask of a quarter of the size, smoothly
    enlarged (its decoder's logits are 256² for a picture of 1024²)."""
    height, width = frames.shape[1:3]
    ids = np.zeros(frames.shape[:3], np.int32)
    for t, frame in enumerate(frames):
        small = cv2.resize(
            cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (width // 4, height // 4), interpolation=cv2.INTER_AREA
        )
        smooth = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 3)
        level = (cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR) // 43).astype(np.uint8)
        for value in range(6):
            _, components, stats, _ = cv2.connectedComponentsWithStats((level == value).astype(np.uint8))
            for part in np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] > level.size / 400) + 1:
                # The same place and brightness keep their number over the clip.
                column, row = (stats[part, :2] * 4 // level.shape[::-1]).tolist()
                ids[t][components == part] = 1 + value * 16 + row * 4 + column
    table = tuple(Instance(int(i), "region") for i in np.unique(ids) if i)

    def error(back: Segmentation) -> str:
        return f"{int((back.ids != ids).sum())} pixels differ"

    narrow = ids.astype(np.uint8)
    return Case("segmentation", f"{len(table)} regions", Segmentation(ids, table), narrow, list(narrow), error, 2)


def densepose_case(frames: Array) -> Case:
    """Two upright bodies of 24 plates with ramps of U and V, walking."""
    count, height, width, _ = frames.shape
    values = np.zeros((count, height, width, 4), np.uint8)
    rows, columns = height // 10, width // 32
    v, u = np.mgrid[:rows, :columns].astype(np.float32)
    for t in range(count):
        for person in (1, 2):
            for part in range(1, 25):
                y, x = (
                    height // 8 + (part - 1) // 4 * rows,
                    (person * 3 - 2) * width // 6 + (part - 1) % 4 * columns + 2 * t,
                )
                plate = np.dstack([np.full_like(u, part), u / columns * 255, v / rows * 255, np.full_like(u, person)])
                values[t, y : y + rows, x : x + columns] = plate.astype(np.uint8)

    def error(back: DensePose) -> str:
        return f"{int((back.values != values).any(axis=-1).sum())} pixels differ"

    return Case("densepose", "drawn", DensePose(values), values, list(values), error, 0)


def skeleton_case(frames: Array) -> Case:
    count, height, width, _ = frames.shape
    rng = np.random.default_rng(0)
    walk = rng.normal(0, 1, (count, 2, 17, 2)).cumsum(axis=0)
    xy = rng.uniform(0.2, 0.8, (1, 2, 17, 2)) * (width, height) + walk
    keypoints = np.concatenate([xy, rng.uniform(0.3, 1, (count, 2, 17, 1))], axis=-1).astype(np.float32)
    boxes = np.concatenate([keypoints[..., :2].min(axis=2), keypoints[..., :2].max(axis=2)], axis=-1)
    value = Skeleton(keypoints, boxes, np.arange(2, dtype=np.int32), height, width)

    def error(back: Skeleton) -> str:
        return f"{np.abs(back.keypoints - keypoints).max():g} px"

    return Case("skeleton", "two people, drawn", value, keypoints.astype(np.float16), [], error, 0)


if __name__ == "__main__":
    main()
