"""Production depth that is steady over time: Video Depth Anything, small (Chen et al., CVPR 2025, arXiv:2501.12375).

Windows of 32 frames, of which ten are known from the window before; the network is a port with the published parameter
names (`video_depth_network`). Small is Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.depth_anything import PATCH, SIDE, input_size
from openuni.modalities.depth import Depth
from openuni.sample import Annotation

Disparity = npt.NDArray[np.float32]

SMALL = Asset(
    name="video-depth-anything-small",
    filename="video_depth_anything_vits.pth",
    license="Apache-2.0",
    sha256="13379300b739e659f076a59d52e9801bd8d38c541a7e71f73bbca4dcfb013609",
    size=116_440_756,
    sources=(
        HubFile(
            "depth-anything/Video-Depth-Anything-Small",
            "a396fdd839642f9bb4d08d54cae9fbf43ca13388",
            "video_depth_anything_vits.pth",
        ),
    ),
)

WINDOW, OVERLAP, BLENDED = 32, 10, 8
"""Frames of a window, those of them that the window before has seen, and those of these that fade into each other."""
KEYS = (0, 12, 24, 25, 26, 27, 28, 29, 30, 31)
"""Frames of the window before that stand for the first ten of a window: two from far back, and the last eight."""
_WIDEST = 1.78
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class VideoDepthAnythingSmall(Expert):
    """Disparity up to scale and shift (larger is nearer), `Depth(kind="affine_disparity")`, one of each for a clip.

    In float32 on a CPU, in half precision on a GPU, as the published programme. The confidence is not estimated.
    """

    name = "video_depth_anything_small"
    version = 1
    modality = "depth"
    license = "Apache-2.0"
    training_data = "synthetic depth and unlabelled video of many sets, each with terms of its own"
    packages = ("torch",)
    installed_by = "openuni[production]"
    assets = (SMALL,)
    resources = Resources(cpus=1, gpus=0.5, memory_gib=6)
    concurrent = True
    seconds_per_frame = 4.0
    frames_per_second = 133.0  # 7.5 ms on an A100 in float16 (its README)

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from openuni.experts.weights import Batches, fill, tensors

        file = assets.path(SMALL)
        self._model = fill(self._network(), tensors(file), file)
        self._batches = Batches(1, half=True)

    @staticmethod
    def _network() -> Any:
        """The network without weights."""
        from openuni.experts.video_depth_network import VideoDepthAnything

        return VideoDepthAnything()

    def annotate(self, clip: DecodedClip) -> Annotation[Depth]:
        """Disparity `[T, H, W]` of the frames."""
        depth = Depth(self._disparity(clip.frames), "affine_disparity")
        return Annotation(depth, provenance=self._batches.provenance)

    def teardown(self) -> None:
        del self._model

    def _disparity(self, frames: npt.NDArray[np.uint8]) -> Disparity:
        import torch
        from torch.nn.functional import interpolate

        images = torch.from_numpy(prepared(frames))
        seen: list[Disparity] = []
        for places in windows(len(frames)):
            depth = self._batches.run(lambda window: self._model(window[0])[None], images[places][None])[0]
            large = interpolate(depth[:, None], size=frames.shape[1:3], mode="bilinear", align_corners=True)[:, 0]
            seen.append(large.numpy())
        return joined(seen)[: len(frames)]


def prepared(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """RGB frames `[T, H, W, 3]` as the network takes them, `[T, 3, h, w]`: as published, 518 pixels on the shorter side
    (less where the frame is wider than 16:9), sides multiples of 14, bicubic, normalised as ImageNet."""
    height, width = frames.shape[1:3]
    side, ratio = SIDE, max(height, width) / min(height, width)
    if ratio > _WIDEST:
        side = round(int(SIDE * 1.777 / ratio) / PATCH) * PATCH
    high, wide = input_size(height, width, side)
    images = np.empty((len(frames), 3, high, wide), np.float32)
    for image, frame in zip(images, frames, strict=True):
        resized = cv2.resize(frame.astype(np.float32) / 255, (wide, high), interpolation=cv2.INTER_CUBIC)
        image[:] = ((resized - _MEAN) / _DEVIATION).transpose(2, 0, 1)
    return images


def windows(frames: int) -> list[list[int]]:
    """Which frames each window sees; past the end the last one stands for those that are missing.

    Example:
        >>> [window[:11] for window in windows(40)]
        [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0, 12, 24, 25, 26, 27, 28, 29, 30, 31, 32]]
    """
    made: list[list[int]] = []
    for start in range(0, frames, WINDOW - OVERLAP):
        window = [min(t, frames - 1) for t in range(start, start + WINDOW)]
        if made:
            window[:OVERLAP] = [made[-1][key] for key in KEYS]
        made.append(window)
    return made


def joined(seen: Sequence[Disparity]) -> Disparity:
    """Windows `[32, H, W]` as one clip: each is brought to the scale and shift of the frames before by the two of its
    frames that are far back, and the eight after them fade in over the last eight there are."""
    out = list(seen[0])
    held = [seen[0][KEYS[0]], seen[0][KEYS[1]]]
    fade = np.linspace(0, 1, BLENDED, dtype=np.float32)[:, None, None]
    ends = OVERLAP - BLENDED
    for window in seen[1:]:
        scale, shift = _fit(window[:ends], np.stack(held))
        fitted = np.maximum(np.float32(scale) * window + np.float32(shift), 0)
        out[-BLENDED:] = np.stack(out[-BLENDED:]) * (1 - fade) + fitted[ends:OVERLAP] * fade
        out.extend(fitted[OVERLAP:])
        held = [held[0], fitted[KEYS[1]]]
    return np.stack(out)


def _fit(values: Disparity, target: Disparity) -> tuple[float, float]:
    """Scale and shift that bring values to the target, by least squares; (1, 0) where nothing varies."""
    x, y = values.ravel().astype(np.float64), target.ravel().astype(np.float64)
    spread = float(np.square(x - x.mean()).sum())
    if spread == 0:
        return 1.0, 0.0
    scale = float((x - x.mean()) @ (y - y.mean())) / spread
    return scale, float(y.mean() - scale * x.mean())
