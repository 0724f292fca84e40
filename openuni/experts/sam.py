"""Production segmentation: Segment Anything (Kirillov et al., ICCV 2023, arXiv:2304.02643), prompted with boxes.

The paper's annotator, by the `segment-anything` package. It outlines; what there is, and which id it keeps, come from
the shared detector and its tracks, as in the light expert. 51 s a frame on a CPU core: use a GPU.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.experts.base import Footage, Resources
from openuni.experts.mediapipe_segmentation import (
    Box,
    Frame,
    Mask,
    MediapipeSegmentation,
    is_held,
    main_pieces,
)
from openuni.experts.people import People
from openuni.modalities.segmentation import Segmentation
from openuni.sample import Annotation


class SamVitB(MediapipeSegmentation):
    """Instances of people and of COCO's other 79 classes, each outlined by SAM from its box.

    Person p of `people` has id p + 1 and is there in every frame in which their track is, with or without a pose; where
    two people overlap, a pixel is the one's whose mask SAM is surer of. Things follow, joined along the flow.
    """

    name = "sam_vit_b"
    version = 1
    license = "Apache-2.0"
    assets: ClassVar[tuple[str, ...]] = ("sam-vit-b",)
    packages = ("mediapipe", "segment_anything", "torch", "torchvision")
    installed_by = "openuni[paper,people]"
    resources = Resources(cpus=1, gpus=0.5, memory_gib=4)
    seconds_per_frame = 51.0

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from segment_anything import SamPredictor

        from openuni.experts.weights import fill, tensors

        file = assets.path("sam-vit-b")
        self._predictor: Any = SamPredictor(fill(self._network(), tensors(file), file))
        self._features: dict[int, Any] = {}

    @staticmethod
    def _network() -> Any:
        """The network without weights."""
        from segment_anything import sam_model_registry

        return sam_model_registry["vit_b"](checkpoint=None)

    def teardown(self) -> None:
        del self._predictor, self._features

    def annotate(self, footage: Footage) -> Annotation[Segmentation]:
        """Instances of the clip; none, with confidence 0, in a clip of nothing that is known."""
        self._features = {}
        try:
            return super().annotate(footage)
        finally:
            self._features = {}

    def _person_ids(self, footage: Footage, people: People) -> npt.NDArray[np.int32]:
        ids = np.zeros(footage.frames.shape[:3], np.int32)
        for t, frame in enumerate(footage.frames):
            surest = np.full(ids[t].shape, -np.inf, np.float32)
            for p in np.flatnonzero(~np.isnan(people.boxes[t, :, 0])).tolist():
                logits = self._logits(frame, people.boxes[t, p].astype(np.float64), t)
                mine = (logits > 0) & (logits > surest)
                ids[t][mine] = p + 1
                surest[mine] = logits[mine]
        return ids

    def _outline(self, frame: Frame, box: Box, name: str, people: People, t: int) -> tuple[Mask, float]:
        mask = self._logits(frame, box, t) > 0
        if not is_held(box, people, t):
            mask &= people.masks[t] == 0
        return main_pieces(mask), 1.0

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
