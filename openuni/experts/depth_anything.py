"""Production depth: Depth Anything V2 (Yang et al., NeurIPS 2024, arXiv:2406.09414), by transformers.

The paper's annotator. It sees one frame at a time; `temporal.align` takes the wavering of scale and shift out. Small is
Apache-2.0; Base and Large are CC-BY-NC-4.0 and stay out of what is published or sold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.errors import AssetError
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.temporal import align
from openuni.modalities.depth import Depth
from openuni.sample import Annotation

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


class DepthAnythingV2(Expert):
    """Disparity up to scale and shift (larger is nearer), `Depth(kind="affine_disparity")`, one scale and shift a clip.

    The confidence is not estimated: the network gives none, and agreement with itself does not follow its error.
    """

    modality = "depth"
    packages = ("torch", "transformers", "safetensors")
    installed_by = "openuni[paper]"
    concurrent = True

    def setup(self) -> None:
        """Load the network. Raises AssetError if a file is missing or does not fit."""
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

        from openuni.experts.weights import Batches, published

        file, config, images = (assets.path(asset) for asset in self.assets)
        try:
            settings = DepthAnythingConfig.from_json_file(str(config))
            self._processor: Any = DPTImageProcessor.from_json_file(str(images))
        except (OSError, ValueError, TypeError) as error:
            raise AssetError(f"{config.parent} has no configuration of Depth Anything: {error}") from error
        self._model = published(DepthAnythingForDepthEstimation, settings, file)
        self._batches = Batches(8)

    def annotate(self, clip: DecodedClip) -> Annotation[Depth]:
        """Disparity `[T, H, W]` of the frames."""
        depth = Depth(align(self._disparity(clip.frames)), "affine_disparity")
        return Annotation(depth, provenance=self._batches.provenance)

    def teardown(self) -> None:
        del self._model, self._processor

    def _disparity(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Disparity `[T, H, W]` of RGB frames, prepared and resized as the library does."""
        import torch
        from torch.nn.functional import interpolate

        images = self._processor(images=list(frames), return_tensors="pt", input_data_format="channels_last")
        predicted = self._batches.run(lambda part: self._model(part).predicted_depth, images.pixel_values)
        values = interpolate(predicted[:, None], size=frames.shape[1:3], mode="bicubic", align_corners=False)[:, 0]
        disparity: npt.NDArray[np.float32] = torch.clamp(values, min=0).numpy()
        return disparity


class DepthAnythingV2Small(DepthAnythingV2):
    name = "depth_anything_v2_small"
    version = 1
    license = "Apache-2.0"
    assets = SMALL
    resources = Resources(cpus=1, gpus=0.25, memory_gib=3)
    seconds_per_frame = 1.5
