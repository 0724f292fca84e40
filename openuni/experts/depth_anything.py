"""Production depth: Depth Anything V2 (Yang et al., NeurIPS 2024, arXiv:2406.09414), by transformers.

The paper's annotator. It sees one frame at a time; `temporal.align` takes the wavering of scale and shift out. Small is
Apache-2.0; Base and Large are CC-BY-NC-4.0 and stay out of what is published or sold.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.errors import AssetError
from openuni.experts.base import Expert, Footage, Resources
from openuni.experts.temporal import align
from openuni.modalities.depth import Depth
from openuni.sample import Annotation


class DepthAnythingV2(Expert):
    """Disparity up to scale and shift (larger is nearer), `Depth(kind="affine_disparity")`, one scale and shift a clip.

    The confidence is not estimated: the network gives none, and agreement with itself does not follow its error.
    """

    modality = "depth"
    packages = ("torch", "transformers", "safetensors")
    installed_by = "openuni[paper]"
    weights: ClassVar[str]
    """Name of the asset with the weights. Beside it lie `-config` and `-preprocessor`, the published settings."""

    def setup(self) -> None:
        """Load the network. Raises AssetError if a file is missing or does not fit."""
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

        from openuni.experts.weights import Batches, fill, tensors

        file = assets.path(self.weights)
        config, images = assets.path(f"{self.weights}-config"), assets.path(f"{self.weights}-preprocessor")
        try:
            model = DepthAnythingForDepthEstimation(DepthAnythingConfig.from_json_file(str(config)))
            self._processor: Any = DPTImageProcessor.from_json_file(str(images))
        except (OSError, ValueError, TypeError) as error:
            raise AssetError(f"{config.parent} has no configuration of Depth Anything: {error}") from error
        self._model = fill(model, tensors(file), file)
        self._batches = Batches(8)

    def annotate(self, footage: Footage) -> Annotation[Depth]:
        """Disparity `[T, H, W]` of the frames."""
        return Annotation(Depth(align(self._disparity(footage.frames)), "affine_disparity"))

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
    assets: ClassVar[tuple[str, ...]] = (
        "depth-anything-v2-small",
        "depth-anything-v2-small-config",
        "depth-anything-v2-small-preprocessor",
    )
    weights = "depth-anything-v2-small"
    resources = Resources(cpus=1, gpus=0.25, memory_gib=3)
    seconds_per_frame = 1.5
