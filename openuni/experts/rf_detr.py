"""The production detector: RF-DETR (Robinson et al., arXiv:2511.09554), by transformers; it finds what others look at.

Medium, Apache-2.0 in code and weights. It sees every frame; who is who over the clip is told by place and clothes, as
for the light expert `people` (see `tracking`). Boxes only: outlines are SAM's and joints are ViTPose's or DWPose's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.experts import tracking
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.people import MOST_PEOPLE, PeopleFinder, TrackedPeople, collect, continued, look_of
from openuni.experts.tracking import Sighting, Track
from openuni.sample import Annotation

WEIGHTS = Asset(
    name="rf-detr-medium",
    filename="rf_detr_medium/model.safetensors",
    license="Apache-2.0",
    sha256="e52098adc46969794fbdd16e0548a62b81ba0c0f4b14392676edba50be9a69f6",
    size=None,
    sources=(HubFile("Roboflow/rf-detr-medium", "1b5b672408f86dd38e05dd3cf3f2e0834e545a59", "model.safetensors"),),
)

NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 classes, in the order of their ids."""
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Ids below 91 that COCO gives to nothing."""
CLASSES = dict(zip((i for i in range(1, 91) if i not in _UNUSED), NAMES, strict=True))
"""Class by COCO's id, which is its place among the network's 91 scores."""

_SIDE = 576
"""Of the square that the frame is stretched to."""
_LEAST = 0.2
"""Least score of what is looked at; `continued` keeps things below .4 only beside surer sightings of them."""
_PERSON = 0.4
"""Least score of a person."""
_TWICE = 0.85
"""Overlap from which two boxes are one thing that was found twice."""
_PATIENCE = 1.5
"""Seconds after which somebody unseen is no longer expected where they were."""
_FEWEST = 0.2
"""Seconds a person must be seen for in all."""
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class RfDetr(Expert):
    """People, followed over the clip, and things of COCO's other 79 classes, in every frame: `TrackedPeople`.

    People have no poses and no masks; `support` is the mean of their three best scores. Nobody found is a finding.
    """

    name = "rf_detr"
    version = 2
    modality = None
    license = "Apache-2.0"
    training_data = "COCO, Objects365, each with terms of its own"
    assets = (WEIGHTS,)
    packages = ("PIL", "safetensors", "scipy", "torch", "transformers")
    installed_by = "openuni[production]"
    resources = Resources(cpus=1, gpus=0.25, memory_gib=3)
    seconds_per_frame = 1.5
    frames_per_second = 221.0  # 4.52 ms on a T4 with TensorRT in float16 (roboflow/rf-detr, README)

    encode_findings = staticmethod(PeopleFinder.encode_findings)
    decode_findings = staticmethod(PeopleFinder.decode_findings)

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        from transformers import RfDetrForObjectDetection

        from openuni.experts.weights import Batches, published

        self._model = published(RfDetrForObjectDetection, self._config(), assets.path(self.assets[0]))
        self._batches = Batches(8, half=True)

    @staticmethod
    def _config() -> Any:
        """The published medium size."""
        from transformers import RfDetrConfig
        from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

        backbone = RfDetrDinov2Config(
            hidden_size=384,
            num_attention_heads=6,
            image_size=_SIDE,
            patch_size=16,
            num_windows=2,
            out_features=["stage3", "stage6", "stage9", "stage12"],
        )
        return RfDetrConfig(backbone_config=backbone, decoder_layers=4, decoder_n_points=2, num_labels=91)

    def annotate(self, clip: DecodedClip) -> Annotation[TrackedPeople]:
        """Who and what is in the clip, and which people are the same."""
        patience = max(1, round(_PATIENCE * clip.fps))
        tracks: list[Track] = []
        things: list[tuple[int, Sighting, str]] = []
        for t, (frame, found) in enumerate(zip(clip.frames, self._outputs(clip.frames), strict=True)):
            seen = [(_sighting(frame, box, score), name) for box, score, name in decode(found, *frame.shape[:2])]
            people = [s for s, name in seen if name == "person" and s.score >= _PERSON]
            things += [(t, s, name) for s, name in seen if name != "person"]
            live = [track for track in tracks if track.gap(t) <= patience]
            joined = tracking.assign(live, people, t)
            for i, j in joined.items():
                live[i].sightings[t] = people[j]
            tracks += [Track({t: people[j]}) for j in sorted(set(range(len(people))) - set(joined.values()))]
        least = min(max(1, round(_FEWEST * clip.fps)), len(clip.frames))
        kept = [k for k in tracking.rejoined(tracks, clip.frames.shape[1:3]) if len(k.sightings) >= least]
        kept = sorted(kept, key=lambda k: -sum(s.size for s in k.sightings.values()))[:MOST_PEOPLE]
        value = collect(sorted(kept, key=lambda k: min(k.sightings)), continued(things, 1), clip, 1)
        return Annotation(value, float(value.support.mean()) if value.count else None)

    def teardown(self) -> None:
        del self._model

    def _outputs(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The network's answer, float32 `[T, Q, 95]`: for each query 91 logits and a box (middle, width, height)."""
        import torch

        def network(images: torch.Tensor) -> torch.Tensor:
            out = self._model(images)
            return torch.cat([out.logits, out.pred_boxes], -1)

        outputs: npt.NDArray[np.float32] = self._batches.run(network, torch.from_numpy(prepare(frames))).numpy()
        return outputs


def prepare(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Frames uint8 `[T, H, W, 3]` as the network takes them, `[T, 3, 576, 576]`.

    Stretched by PIL's bilinear filter, as where its published answers come from; the processor of transformers does
    not smooth while it shrinks.
    """
    from PIL import Image

    square = [Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR) for frame in frames]
    scaled = np.stack([np.asarray(image) for image in square]).astype(np.float32) / np.float32(255)
    images: npt.NDArray[np.float32] = np.ascontiguousarray(((scaled - _MEAN) / _STD).transpose(0, 3, 1, 2))
    return images


def decode(found: npt.NDArray[np.float32], height: int, width: int) -> list[tuple[tracking.Floats, float, str]]:
    """Boxes x0, y0, x1, y1 in pixels, inside the frame, with score and class, the surest first, of `[Q, 95]`.

    A query is one thing, of its best class; of two boxes at the same place the surer one is kept.

    Example:
        >>> found = np.full((2, 95), -9, np.float32)
        >>> found[:, 91:] = 0.5, 0.5, 0.2, 0.4
        >>> found[0, 17], found[1, 75] = 2, 1
        >>> [(box.tolist(), round(score, 2), name) for box, score, name in decode(found, 100, 200)]
        [([80.0, 30.0, 120.0, 70.0], 0.88, 'cat')]
    """
    ids = np.array(list(CLASSES))
    scores = 1 / (1 + np.exp(-found[:, ids].astype(np.float64)))
    best = scores.argmax(1)
    surest = scores[np.arange(len(found)), best]
    size = np.array([width, height] * 2, np.float64)
    kept: list[tuple[tracking.Floats, float, str]] = []
    for q in np.argsort(-surest, kind="stable").tolist():
        if surest[q] < _LEAST:
            break
        middle, half = found[q, 91:93].astype(np.float64), found[q, 93:95].astype(np.float64) / 2
        box = np.clip(np.round(np.concatenate([middle - half, middle + half]) * size, 3), 0, size)
        if (box[2:] - box[:2] >= 2).all() and all(tracking.overlap(box, other) < _TWICE for other, _, _ in kept):
            kept.append((box, float(surest[q]), CLASSES[int(ids[best[q]])]))
    return kept


def _sighting(frame: npt.NDArray[np.uint8], box: tracking.Floats, score: float) -> Sighting:
    return Sighting(box, score, look_of(frame, box), detected=score)
