"""Production optical flow: RAFT (Teed & Deng, ECCV 2020, arXiv:2003.12039), torchvision's network and weights.

The paper's annotator. Good on large motion; 47 s a 480p pair on a CPU core, so use a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, Url
from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.dis import round_trip
from openuni.modalities.flow import Flow
from openuni.sample import Annotation

Motion = npt.NDArray[np.float32]

WEIGHTS = Asset(
    name="raft-large",
    filename="raft_large_C_T_SKHT_V2-ff5fadd5.pth",
    license="BSD-3-Clause",
    sha256="ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322",
    size=21_106_607,
    sources=(Url("https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth"),),
)

_LEAST = 128
"""Shorter side that the network's four-level correlation pyramid needs."""
_STRIDE = 8
_STEPS = 12
"""Updates of the flow: torchvision's default."""


class RaftLarge(Expert):
    """Forward flow of every pair of neighbouring frames; what going back does not confirm is marked as occluded.

    Frames are padded at the right and the bottom, by repeating their edges, to multiples of 8 and at least 128 pixels;
    the padding is cut off again. The confidence is the share of pixels that come back (`dis.round_trip`) among those
    whose target lies inside the next frame.
    """

    name = "raft_large"
    version = 1
    modality = "flow"
    license = "BSD-3-Clause"
    packages = ("torch", "torchvision")
    installed_by = "openuni[paper]"
    assets = (WEIGHTS,)
    resources = Resources(cpus=1, gpus=0.5, memory_gib=4)
    concurrent = True
    seconds_per_frame = 30.0

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from openuni.experts.weights import Batches, fill, tensors

        file = assets.path(WEIGHTS)
        self._model = fill(self._network(), tensors(file), file)
        self._batches = Batches(4)

    @staticmethod
    def _network() -> Any:
        """The network without weights."""
        from torchvision.models.optical_flow import raft_large

        return raft_large(weights=None)

    def annotate(self, clip: DecodedClip) -> Annotation[Flow]:
        """Flow of the clip. Raises OpenUniError for a clip of one frame."""
        frames = len(clip.frames)
        if frames < 2:
            raise OpenUniError(f"{clip.key}: flow needs two frames, the clip has {frames}")
        images = padded(clip.frames)
        height, width = clip.frames.shape[1:3]
        forward = self._flow(images[:-1], images[1:])[:, :height, :width]
        backward = self._flow(images[1:], images[:-1])[:, :height, :width]
        occluded = np.empty(forward.shape[:3], np.bool_)
        staying = consistent = 0
        for t in range(frames - 1):
            inside, agrees = round_trip(forward[t], np.ascontiguousarray(backward[t]))
            occluded[t] = ~(inside & agrees)
            staying += int(np.count_nonzero(inside))
            consistent += int(np.count_nonzero(inside & agrees))
        confidence = consistent / staying if staying else 0.0
        flow = Flow(np.ascontiguousarray(forward), occluded)
        return Annotation(flow, confidence, provenance=self._batches.provenance)

    def teardown(self) -> None:
        del self._model

    def _flow(self, first: Any, second: Any) -> Motion:
        """Flow `[N, H, W, 2]` in pixels between padded images `[N, 3, H, W]`."""
        flow = self._batches.run(lambda a, b: self._model(a, b, num_flow_updates=_STEPS)[-1], first, second)
        motion: Motion = flow.permute(0, 2, 3, 1).numpy()
        return motion


def padded(frames: npt.NDArray[np.uint8]) -> Any:
    """Frames uint8 `[T, H, W, 3]` as torchvision's RAFT takes them: float32 `[T, 3, H', W']` in [−1, 1]."""
    import torch
    from torch.nn.functional import pad

    height, width = frames.shape[1:3]
    down = max(_LEAST - height, -height % _STRIDE)
    right = max(_LEAST - width, -width % _STRIDE)
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() * (2 / 255) - 1
    return pad(images, (0, right, 0, down), mode="replicate")
