"""Production segmentation: Segment Anything (Kirillov et al., ICCV 2023, arXiv:2304.02643), prompted with boxes.

The paper's annotator, by the `segment-anything` package. It outlines; what there is, and which id it keeps, come from
the shared detector and its tracks, as in the light expert. 51 s a frame on a CPU core: use a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, Url
from openuni.experts.base import DecodedClip, Resources
from openuni.experts.mediapipe_segmentation import (
    Box,
    Floats,
    Frame,
    Mask,
    MediapipeSegmentation,
    is_held,
    main_pieces,
)
from openuni.experts.people import TrackedPeople
from openuni.modalities.segmentation import Segmentation
from openuni.sample import Annotation

VIT_B = Asset(
    name="sam-vit-b",
    filename="sam_vit_b_01ec64.pth",
    license="Apache-2.0",
    sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    size=375_042_383,
    sources=(Url("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"),),
)
VIT_L = Asset(
    name="sam-vit-l",
    filename="sam_vit_l_0b3195.pth",
    license="Apache-2.0",
    sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    size=1_249_524_607,
    sources=(Url("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth"),),
)
VIT_H = Asset(
    name="sam-vit-h",
    filename="sam_vit_h_4b8939.pth",
    license="Apache-2.0",
    sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    size=2_564_550_879,
    sources=(Url("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth"),),
)


class SamVitB(MediapipeSegmentation):
    """Instances of people and of COCO's other 79 classes, each outlined by SAM from its box.

    Person p of `rf_detr` has id p + 1 and is there in every frame in which their track is; where
    two people overlap, a pixel is the one's whose mask SAM is surer of. Things follow, joined along the flow.
    """

    name = "sam_vit_b"
    version = 3
    license = "Apache-2.0"
    training_data = "SA-1B, for research; who owns it publishes the weights as Apache-2.0"
    requires = ("rf_detr",)
    otherwise = ("raft_large",)
    finder = "rf_detr"
    outlined_again = 0.0
    assets = (VIT_B,)
    packages = ("segment_anything", "torch", "torchvision")
    installed_by = "openuni[production]"
    resources = Resources(cpus=1, gpus=0.5, memory_gib=4)
    seconds_per_frame = 51.0

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from segment_anything import SamPredictor

        from openuni.experts.weights import Batches, device, fill, tensors

        file = assets.path(self.assets[0])
        model = fill(self._network(), tensors(file), file)
        self._predictor: Any = SamPredictor(model)
        self._batches = Batches(1, half=True)
        encode = model.image_encoder.forward
        # The encoder is nearly all of the work; prompts and the decoder stay in float32.
        model.image_encoder.forward = lambda images: self._batches.run(encode, images).to(device())
        self._features: dict[int, Any] = {}

    @staticmethod
    def _network() -> Any:
        """The network without weights."""
        from segment_anything import sam_model_registry

        return sam_model_registry["vit_b"](checkpoint=None)

    def teardown(self) -> None:
        del self._predictor, self._features

    def annotate(self, clip: DecodedClip) -> Annotation[Segmentation]:
        """Instances of the clip; none, with confidence 0, in a clip of nothing that is known."""
        self._features = {}
        try:
            return replace(super().annotate(clip), provenance=self._batches.provenance)
        finally:
            self._features = {}

    def _person_ids(self, clip: DecodedClip, people: TrackedPeople) -> npt.NDArray[np.int32]:
        ids = np.zeros(clip.frames.shape[:3], np.int32)
        for t, frame in enumerate(clip.frames):
            surest = np.full(ids[t].shape, -np.inf, np.float32)
            for p in np.flatnonzero(~np.isnan(people.boxes[t, :, 0])).tolist():
                logits = self._logits(frame, people.boxes[t, p].astype(np.float64), t)
                mine = (logits > 0) & (logits > surest)
                ids[t][mine] = p + 1
                surest[mine] = logits[mine]
        return ids

    def _outliner(self, frame: Frame, people: TrackedPeople, t: int) -> Callable[[Box, str], tuple[Mask, float]]:
        def outline(box: Box, name: str) -> tuple[Mask, float]:
            del name
            mask = self._logits(frame, box, t) > 0
            if not is_held(box, people, t):
                mask &= people.masks[t] == 0
            return main_pieces(mask), 1.0

        return outline

    def _person_scores(self, clip: DecodedClip, people: TrackedPeople, ids: npt.NDArray[np.int32]) -> Floats:
        """The detector's scores: what tells good light masks from bad ones was never measured on SAM's."""
        scores: Floats = np.nanmean(people.scores, axis=0) * people.belief
        return scores

    def _logits(self, frame: Frame, box: Box, t: int) -> npt.NDArray[np.float32]:
        """SAM's one mask for a box in frame t, before the threshold at 0: float32 `[H, W]`.

        A frame is encoded once, however many boxes are asked of it.
        """
        if t in self._features:
            self._predictor.features = self._features[t]
        else:
            self._predictor.set_image(frame)
            self._features[t] = self._predictor.features
        masks, _, _ = self._predictor.predict(box=box, multimask_output=False, return_logits=True)
        logits: npt.NDArray[np.float32] = masks[0]
        return logits


class SamVitL(SamVitB):
    """The middle encoder."""

    name = "sam_vit_l"
    assets = (VIT_L,)
    resources = Resources(cpus=1, gpus=0.5, memory_gib=6)
    seconds_per_frame = 160.0

    @staticmethod
    def _network() -> Any:
        from segment_anything import sam_model_registry

        return sam_model_registry["vit_l"](checkpoint=None)


class SamVitH(SamVitB):
    """The largest encoder: finer outlines at some seven times the cost."""

    name = "sam_vit_h"
    assets = (VIT_H,)
    resources = Resources(cpus=1, gpus=1, memory_gib=10)
    seconds_per_frame = 350.0
    frames_per_second = 6.7  # 0.15 s an encoded picture on an A100 (segment-anything.com)

    @staticmethod
    def _network() -> Any:
        from segment_anything import sam_model_registry

        return sam_model_registry["vit_h"](checkpoint=None)
