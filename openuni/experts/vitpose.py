"""Production skeletons: ViTPose++ (Xu et al., TPAMI 2023, arXiv:2212.04246), small, by transformers.

Apache-2.0 in code and weights. It sees a crop around each person of the shared detector, and its mirror image, and
answers with a heatmap a joint; cropping and decoding (UDP with DARK's refinement) are the library's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.mediapipe_pose import of_tracked, people_in
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation

Floats = npt.NDArray[np.float32]

WEIGHTS = Asset(
    name="vitpose-plus-small",
    filename="vitpose_plus_small/model.safetensors",
    license="Apache-2.0",
    sha256="f7bad8ed09eeeb2a7de6b38faaa8a88d07838e23e9c06a2a782099bca7467cb9",
    size=132_619_932,
    sources=(
        HubFile("usyd-community/vitpose-plus-small", "0c30b6534bb621af0162b481176742577264e36e", "model.safetensors"),
    ),
)
_JOINTS = 17
_COCO = 0
"""Which of the six datasets that it was trained on is asked for its opinion."""
_PAIRS = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16]]
"""Joints that change places in a mirror."""


class VitPose(Expert):
    """COCO-17 joints of each tracked person, in pixels, with scores.

    A joint's score is the height of its heatmap's peak, at most 1: no probability. A joint outside the frame is absent.
    `people` counts as `mediapipe_pose` does, by the detector's support.
    """

    name = "vitpose"
    version = 2
    modality = "skeleton"
    license = "Apache-2.0"
    training_data = "COCO, AI Challenger, MPII, AP-10K, APT-36K, COCO-WholeBody: contested, some for research only"
    requires = ("rf_detr",)
    assets = (WEIGHTS,)
    packages = ("safetensors", "scipy", "torch", "torchvision", "transformers")
    installed_by = "openuni[production]"
    resources = Resources(cpus=1, gpus=0.25, memory_gib=2)
    seconds_per_frame = 0.8

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from transformers import VitPoseForPoseEstimation, VitPoseImageProcessor

        from openuni.experts.weights import Batches, published

        self._model = published(VitPoseForPoseEstimation, self._config(), assets.path(self.assets[0]))
        self._processor: Any = VitPoseImageProcessor()
        self._batches = Batches(16, half=True)

    @staticmethod
    def _config() -> Any:
        """The published small size, which has six experts in each block."""
        from transformers import VitPoseBackboneConfig, VitPoseConfig

        backbone = VitPoseBackboneConfig(
            hidden_size=384, num_attention_heads=12, num_experts=6, part_features=96, out_indices=[12]
        )
        return VitPoseConfig(backbone_config=backbone, num_labels=_JOINTS, use_simple_decoder=False)

    def annotate(self, clip: DecodedClip) -> Annotation[Skeleton]:
        """Skeletons of the clip; of nobody, with confidence 0, where nobody is tracked."""
        people = people_in(clip, "rf_detr")
        frames, height, width, _ = clip.frames.shape
        keypoints = np.full((frames, people.count, _JOINTS, 3), (np.nan, np.nan, 0), np.float32)
        for t, frame in enumerate(clip.frames):
            here = np.flatnonzero(~np.isnan(people.boxes[t, :, 0]))
            if len(here):
                keypoints[t, here] = _in_frame(self.joints(frame, people.boxes[t, here]), height, width)
        return replace(of_tracked(keypoints, people, height, width), provenance=self._batches.provenance)

    def joints(self, frame: npt.NDArray[np.uint8], boxes: Floats) -> Floats:
        """Joints `[N, 17, 3]` (x, y in pixels, score) of the people in boxes `[N, 4]`, x0, y0, x1, y1."""
        import torch
        from transformers.models.vitpose.modeling_vitpose import VitPoseEstimatorOutput

        # Boxes go in as they are, as in the library's examples; joints are counted from the first pixel's middle.
        places = [[[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.tolist()]]
        crops = self._processor([frame], boxes=places, return_tensors="pt", input_data_format="channels_last")
        heatmaps = self._batches.run(self._heatmaps, crops.pixel_values)
        output = VitPoseEstimatorOutput(heatmaps=heatmaps)
        found = self._processor.post_process_pose_estimation(output, boxes=places)[0]
        points = torch.stack([torch.cat([f["keypoints"] + 0.5, f["scores"][:, None]], 1) for f in found])
        joints: Floats = points.numpy().astype(np.float32)
        return joints

    def _heatmaps(self, crops: Any) -> Any:
        """The mean answer to the crops and to their mirror images, as in the published scores."""
        import torch

        dataset = torch.full((len(crops),), _COCO, device=crops.device)
        straight = self._model(crops, dataset_index=dataset).heatmaps
        pairs = torch.tensor(_PAIRS, device=crops.device)
        mirrored = self._model(crops.flip(3), dataset_index=dataset, flip_pairs=pairs).heatmaps
        return (straight + mirrored) / 2

    def teardown(self) -> None:
        del self._model, self._processor


def _in_frame(joints: Floats, height: int, width: int) -> Floats:
    """Scores within 0 to 1; absent where a joint lies outside the frame or has no score."""
    x, y, score = np.moveaxis(joints, -1, 0)
    there = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (score > 0)
    clipped = np.stack([x, y, np.clip(score, 0, 1)], -1)
    kept: Floats = np.where(there[..., None], clipped, np.array([np.nan, np.nan, 0], np.float32))
    return kept
