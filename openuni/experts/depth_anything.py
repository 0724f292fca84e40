"""Production depth: Depth Anything V2 (Yang et al., NeurIPS 2024, arXiv:2406.09414), by transformers.

The paper's annotator. It sees one frame at a time; `temporal.align` takes the wavering of scale and shift out. Small is
Apache-2.0; Base and Large are CC-BY-NC-4.0 and stay out of what is published or sold.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.errors import AssetError
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.temporal import align
from openuni.modalities.depth import Depth
from openuni.sample import Annotation

LARGE = (
    Asset(
        name="depth-anything-v2-large",
        filename="depth_anything_v2_large/model.safetensors",
        license="CC-BY-NC-4.0",
        sha256="4e01e34ed5549b529b70b92d53226bc370f03041977b390d3dde45d47f516cf9",
        size=1_341_322_868,
        sources=(
            HubFile(
                "depth-anything/Depth-Anything-V2-Large-hf",
                "7581137eff8d4e94f6e796d3baea0e9fa79b22d2",
                "model.safetensors",
            ),
        ),
    ),
)
BASE = (
    Asset(
        name="depth-anything-v2-base",
        filename="depth_anything_v2_base/model.safetensors",
        license="CC-BY-NC-4.0",
        sha256=None,  # published by nobody
        size=389_916_980,
        sources=(
            HubFile(
                "depth-anything/Depth-Anything-V2-Base-hf",
                "b1958afc87fb45a9e3746cb387596094de553ed8",
                "model.safetensors",
            ),
        ),
    ),
)
_REPOSITORY, _COMMIT = "depth-anything/Depth-Anything-V2-Small-hf", "5426e4f0f36572d16453bbda7a8389317b1bef99"
SMALL = (
    Asset(
        name="depth-anything-v2-small",
        filename="depth_anything_v2_small/model.safetensors",
        license="Apache-2.0",
        sha256="3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
        size=99_173_660,
        sources=(HubFile(_REPOSITORY, _COMMIT, "model.safetensors"),),
    ),
    Asset(
        name="depth-anything-v2-small-config",
        filename="depth_anything_v2_small/config.json",
        license="Apache-2.0",
        sha256="c56698d3643dde1f83ea2212759e6b31a22b8f827246a36dd007ee8a22b3ff75",
        size=950,
        sources=(HubFile(_REPOSITORY, _COMMIT, "config.json"),),
    ),
    Asset(
        name="depth-anything-v2-small-preprocessor",
        filename="depth_anything_v2_small/preprocessor_config.json",
        license="Apache-2.0",
        sha256="d41175c0d889477ca8fc67191e540faef14baf6275157b3fdecf78469e6bbf84",
        size=775,
        sources=(HubFile(_REPOSITORY, _COMMIT, "preprocessor_config.json"),),
    ),
)
"""Weights, configuration of the network and of its input, as `assets` of the expert has them."""

SIDE, PATCH = 518, 14
"""Pixels of the shorter side that the network sees, and of which every side is a multiple."""


class DepthAnythingV2(Expert):
    """Disparity up to scale and shift (larger is nearer), `Depth(kind="affine_disparity")`, one scale and shift a clip.

    The confidence is not estimated: the network gives none, and agreement with itself does not follow its error.
    """

    modality = "depth"
    license = "Apache-2.0"
    training_data = "synthetic depth and unlabelled pictures of many sets, each with terms of its own"
    packages = ("torch", "transformers", "safetensors")
    installed_by = "openuni[production]"
    concurrent = True
    batch: ClassVar[int] = 8
    """Frames at once, until the card is full."""

    def setup(self) -> None:
        """Load the network. Raises AssetError if a file is missing or does not fit."""
        from transformers import DepthAnythingForDepthEstimation

        from openuni.experts.weights import Batches, published

        file = assets.path(self.assets[0])
        config, self._processor = self._configured()
        self._model = published(DepthAnythingForDepthEstimation, config, file)
        self._batches = Batches(self.batch, half=True)

    @abstractmethod
    def _configured(self) -> tuple[Any, Any]:
        """The network's configuration, and what prepares its images."""

    def annotate(self, clip: DecodedClip) -> Annotation[Depth]:
        """Disparity `[T, H, W]` of the frames."""
        depth = Depth(align(self._disparity(clip.frames)), "affine_disparity")
        return Annotation(depth, provenance=self._batches.provenance)

    def teardown(self) -> None:
        del self._model, self._processor

    def _disparity(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Disparity `[T, H, W]` of RGB frames, resized as the library does."""
        import torch
        from torch.nn.functional import interpolate

        predicted = self._batches.run(lambda part: self._model(part).predicted_depth, self.prepared(frames))
        values = interpolate(predicted[:, None], size=frames.shape[1:3], mode="bicubic", align_corners=False)[:, 0]
        disparity: npt.NDArray[np.float32] = torch.clamp(values, min=0).numpy()
        return disparity

    def prepared(self, frames: npt.NDArray[np.uint8]) -> Any:
        """RGB frames `[T, H, W, 3]` as the network takes them, `[T, 3, h, w]`: the library's, but for their size.

        The library takes the scale that is nearer to 1, which for 640×360 is 518×294, a third of the published pixels.
        """
        height, width = input_size(frames.shape[1], frames.shape[2], self._processor.size["height"])
        return self._processor(
            images=list(frames),
            size={"height": height, "width": width},
            keep_aspect_ratio=False,
            return_tensors="pt",
            input_data_format="channels_last",
        ).pixel_values


def input_size(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Height and width that frames are resized to: `side` on the shorter side, every side a multiple of 14.

    As in the published code (`lower_bound` in `depth_anything_v2/util/transform.py` of
    `DepthAnything/Depth-Anything-V2`, and in that of Video Depth Anything).

    Example:
        >>> input_size(480, 640), input_size(360, 640), input_size(854, 480)
        ((518, 686), (518, 924), (924, 518))
    """
    scale = max(side / height, side / width)
    return _multiple(scale * height, side), _multiple(scale * width, side)


def _multiple(length: float, least: int) -> int:
    nearest = int(np.round(length / PATCH)) * PATCH
    return nearest if nearest >= least else int(np.ceil(length / PATCH)) * PATCH


class DepthAnythingV2Small(DepthAnythingV2):
    name = "depth_anything_v2_small"
    version = 2
    assets = SMALL
    resources = Resources(cpus=1, gpus=0.25, memory_gib=3)
    seconds_per_frame = 1.5
    frames_per_second = (
        125.0  # 8 ms on an A100, as the first version of this network (LiheYoung/Depth-Anything, README)
    )

    def _configured(self) -> tuple[Any, Any]:
        from transformers import DepthAnythingConfig, DPTImageProcessor

        _, config, images = (assets.path(asset) for asset in self.assets)
        try:
            return DepthAnythingConfig.from_json_file(str(config)), DPTImageProcessor.from_json_file(str(images))
        except (OSError, ValueError, TypeError) as error:
            raise AssetError(f"{config.parent} has no configuration of Depth Anything: {error}") from error


class DepthAnythingV2Base(DepthAnythingV2):
    """Four times the parameters of Small, for research only."""

    name = "depth_anything_v2_base"
    version = 2
    noncommercial = "its weights are CC-BY-NC-4.0"
    assets = BASE
    resources = Resources(cpus=1, gpus=0.5, memory_gib=4)
    seconds_per_frame = 4.0
    batch = 4

    def _configured(self) -> tuple[Any, Any]:
        """DINOv2 ViT-B, four of its twelve layers: the names, shapes and types fill a file of the published size."""
        return _network(768, 12, 12, [3, 6, 9, 12], [96, 192, 384, 768], 128), _images()


class DepthAnythingV2Large(DepthAnythingV2):
    """Thirteen times the parameters of Small, for research only."""

    name = "depth_anything_v2_large"
    version = 2
    noncommercial = "its weights are CC-BY-NC-4.0"
    assets = LARGE
    resources = Resources(cpus=1, gpus=0.5, memory_gib=6)
    seconds_per_frame = 12.0
    frames_per_second = 77.0  # 13 ms on an A100, likewise
    batch = 4

    def _configured(self) -> tuple[Any, Any]:
        """As the published `config.json` has them: DINOv2 ViT-L, four of its 24 layers."""
        return _network(1024, 24, 16, [5, 12, 18, 24], [256, 512, 1024, 1024], 256), _images()


def _network(width: int, layers: int, heads: int, taken: list[int], necks: list[int], fusion: int) -> Any:
    """The configuration of a network over DINOv2, which is shown what leaves the layers `taken`, counted from 1."""
    from transformers import DepthAnythingConfig, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
        out_indices=taken,
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=necks,
        fusion_hidden_size=fusion,
    )


def _images() -> Any:
    """What prepares images, as published."""
    from transformers import DPTImageProcessor

    return DPTImageProcessor(
        size={"height": SIDE, "width": SIDE},
        ensure_multiple_of=PATCH,
        keep_aspect_ratio=True,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        do_pad=False,
    )
