"""Production optical flow: RAFT (Teed & Deng, ECCV 2020, arXiv:2003.12039), torchvision's network and weights.

Good on large motion. `raft_large` takes some 105 s a 480p pair on a CPU core, so use a GPU.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, Url
from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.dis import repeated, round_trip
from openuni.modalities.flow import Flow
from openuni.sample import Annotation

Motion = npt.NDArray[np.float32]

LARGE = Asset(
    name="raft-large",
    filename="raft_large_C_T_SKHT_V2-ff5fadd5.pth",
    license="BSD-3-Clause",
    sha256="ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322",
    size=21_106_607,
    sources=(Url("https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth"),),
)
SMALL = Asset(
    name="raft-small",
    filename="raft_small_C_T_V2-01064c6d.pth",
    license="BSD-3-Clause",
    sha256="01064c6dba73b0fc9fc8edf772248560a00a3acfd62ac6677e9eeebad9680e27",
    size=4_006_189,
    sources=(Url("https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth"),),
)

_LEAST = 128
"""Shorter side that the network's four-level correlation pyramid needs."""
_STRIDE = 8
_STEPS = 32
"""Updates of the flow, as where the weights' published errors on Sintel come from (`references/optical_flow/train.py`
of pytorch/vision); torchvision's default of 12 is what they were trained with."""


class Raft(Expert):
    """Forward flow of every pair of neighbouring frames; what going back does not confirm is marked as occluded.

    Frames are padded on all sides, by repeating their edges, to multiples of 8 and at least 128 pixels, as for the
    published errors on Sintel; the padding is cut off again. In half precision the correlations and the coordinates
    stay in float32, as in the published code (`princeton-vl/RAFT`, `core/raft.py` with `mixed_precision`). The
    confidence is the share of pixels that come back (`dis.round_trip`) among those whose target lies inside the next
    frame.

    Where a slow source repeats a frame between others that move, nothing is known of the motion: such pairs are NaN,
    and the score `flow_repeated` is their share (`dis.repeated`).
    """

    version = 4
    modality = "flow"
    license = "BSD-3-Clause"
    training_data = "FlyingChairs, FlyingThings3D, Sintel, KITTI, HD1K: contested, for research"
    packages = ("torch", "torchvision")
    installed_by = "openuni[production]"
    concurrent = True

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from openuni.experts.weights import Batches, fill, in_full, tensors

        file = assets.path(self.assets[0])
        self._model = fill(self._network(), tensors(file), file)
        block = self._model.corr_block
        block.build_pyramid, block.index_pyramid = in_full(block.build_pyramid), in_full(block.index_pyramid)
        self._batches = Batches(4, half=True)

    @staticmethod
    @abstractmethod
    def _network() -> Any:
        """The network without weights."""

    def annotate(self, clip: DecodedClip) -> Annotation[Flow]:
        """Flow of the clip. Raises OpenUniError for a clip of one frame."""
        frames = len(clip.frames)
        if frames < 2:
            raise OpenUniError(f"{clip.key}: flow needs two frames, the clip has {frames}")
        images = padded(clip.frames)
        height, width = clip.frames.shape[1:3]
        rows, columns = inside(height), inside(width)
        repeats = repeated(clip.frames, clip.fps)
        looked = np.flatnonzero(~repeats)
        there = self._flow(images[looked], images[looked + 1])
        back = self._flow(images[looked + 1], images[looked])
        forward = np.full((frames - 1, height, width, 2), np.nan, np.float32)
        forward[looked] = there[:, rows, columns]
        occluded = np.zeros(forward.shape[:3], np.bool_)
        staying = consistent = 0
        for t, backward in zip(looked, back[:, rows, columns], strict=True):
            stays, agrees = round_trip(forward[t], np.ascontiguousarray(backward))
            occluded[t] = ~(stays & agrees)
            staying += int(np.count_nonzero(stays))
            consistent += int(np.count_nonzero(stays & agrees))
        confidence = consistent / staying if staying else 0.0
        scores = {"flow_repeated": float(repeats.mean())}
        return Annotation(Flow(forward, occluded), confidence, scores, self._batches.provenance)

    def teardown(self) -> None:
        del self._model

    def _flow(self, first: Any, second: Any) -> Motion:
        """Flow `[N, H, W, 2]` in pixels between padded images `[N, 3, H, W]`."""
        flow = self._batches.run(lambda a, b: self._model(a, b, num_flow_updates=_STEPS)[-1], first, second)
        motion: Motion = flow.permute(0, 2, 3, 1).numpy()
        return motion


class RaftLarge(Raft):
    """The paper's annotator."""

    name = "raft_large"
    assets = (LARGE,)
    resources = Resources(cpus=1, gpus=0.5, memory_gib=4)
    seconds_per_frame = 68.0
    frames_per_second = 5.0  # 10 pairs of 1088×436 on a 1080 Ti (the paper; of how many updates it is not known here)

    @staticmethod
    def _network() -> Any:
        from torchvision.models.optical_flow import raft_large

        return raft_large(weights=None)


class RaftSmall(Raft):
    """A fifth of the parameters; on Sintel's final pass 3.3 px of error where large has 2.7 (published)."""

    name = "raft_small"
    assets = (SMALL,)
    resources = Resources(cpus=1, gpus=0.25, memory_gib=3)
    seconds_per_frame = 4.0

    @staticmethod
    def _network() -> Any:
        from torchvision.models.optical_flow import raft_small

        return raft_small(weights=None)


def padding(side: int) -> tuple[int, int]:
    """How many pixels are added before a side of a frame and behind it.

    Example:
        >>> padding(436), padding(853), padding(90)
        ((2, 2), (1, 2), (19, 19))
    """
    missing = max(_LEAST - side, -side % _STRIDE)
    return missing // 2, missing - missing // 2


def inside(side: int) -> slice:
    """Where in the padded side the frame lies."""
    before, _ = padding(side)
    return slice(before, before + side)


def padded(frames: npt.NDArray[np.uint8]) -> Any:
    """Frames uint8 `[T, H, W, 3]` as torchvision's RAFT takes them: float32 `[T, 3, H', W']` in [−1, 1]."""
    import torch
    from torch.nn.functional import pad

    height, width = frames.shape[1:3]
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() * (2 / 255) - 1
    return pad(images, (*padding(width), *padding(height)), mode="replicate")
