"""Production DensePose (Güler et al., CVPR 2018): the published TorchScript export of detectron2's R50-FPN network.

Its file is a program: it runs only with the pinned hash and the user's `--trust`. The license of its weights is
contested: the hub says Apache-2.0, detectron2, where they are from, CC-BY-SA-3.0 (`DENSEPOSE_IUV.md`); the training
data is not for profit.

The file is detectron2's `GeneralizedRCNN` of `densepose_rcnn_R_50_FPN_DL_s1x.yaml`, traced (Fannovel16's
comfyui_controlnet_aux, pull request 144; it shows in the program's own tracebacks). So what detectron2 does before that
network is done here: it takes BGR (`INPUT.FORMAT`), 800 pixels on the shorter side (`INPUT.MIN_SIZE_TEST`). Those who
use this file in ComfyUI give it RGB, in any size. A program of one's own may take RGB: the means that it has tell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.errors import AssetError
from openuni.experts import tracking
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.mediapipe_pose import people_in
from openuni.modalities.densepose import PARTS, DensePose
from openuni.sample import Annotation

Floats = npt.NDArray[np.float32]

WEIGHTS = Asset(
    name="densepose-r50",
    filename="densepose_r50_fpn_dl.torchscript",
    license="contested: Apache-2.0 says the hub, CC-BY-SA-3.0 detectron2",
    sha256="4f7260daa498ce8d4b4679f0692ef2f1f426e39121a907181eab37b8b0585878",
    size=None,
    sources=(
        HubFile(
            "LayerNorm/DensePose-TorchScript-with-hint-image",
            "779f2015fc24435eee3ff8da3e8706d610a6b935",
            "densepose_r50_fpn_dl.torchscript",
        ),
    ),
)
_SHORTER, _LONGER = 800, 1333
"""Pixels of the shorter side that the network sees, and of the longer one at most: as where the published errors come
from (`INPUT.MIN_SIZE_TEST`, `INPUT.MAX_SIZE_TEST` of detectron2)."""
_NEARER = 0.05
"""By how much of the frame's height somebody's feet must be lower than another's for them to be in front."""


class DensePoseTorchscript(Expert):
    """Body part, U and V of each tracked person, in DensePose's own charts (`densepose-24`).

    A person of `rf_detr` is drawn where the network has a box on them (one to one, by overlap), with the detector's
    score as their confidence, 0 where it has none. Where people overlap the nearer one is in front: whose feet are
    lower, and where that does not tell, of whom the detector is surer.
    """

    name = "densepose_torchscript"
    version = 3
    modality = "densepose"
    license = "Apache-2.0"
    training_data = "DensePose-COCO: not for profit"
    noncommercial = "its training data, DensePose-COCO, is not for profit, and the license of its weights is contested"
    runs_code = "densepose_r50_fpn_dl.torchscript is a program that is run"
    requires = ("rf_detr",)
    assets = (WEIGHTS,)
    packages = ("scipy", "torch", "torchvision")
    installed_by = "openuni[production]"
    resources = Resources(cpus=1, gpus=0.5, memory_gib=4)
    seconds_per_frame = 6.0
    frames_per_second = 14.0  # .07 s a picture on a V100 (detectron2, `DENSEPOSE_IUV.md`)

    def setup(self) -> None:
        """Load the program. Raises AssetError where it is none, or answers otherwise than the published one."""
        from openuni.experts.weights import scripted

        file = assets.path(self.assets[0])
        self._model = scripted(file)
        self._rgb = takes_rgb(self._model)
        try:
            self._look(np.zeros((64, 64, 3), np.uint8))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise AssetError(f"{file} does not answer as the published DensePose program does: {reason}") from error

    def annotate(self, clip: DecodedClip) -> Annotation[DensePose]:
        """Body surfaces of the clip; of nobody, with confidence 0, where nobody is tracked."""
        from openuni.experts.weights import provenance

        people = people_in(clip, "rf_detr")
        frames, height, width, _ = clip.frames.shape
        values = np.zeros((frames, height, width, 4), np.uint8)
        confidence = np.where(np.isnan(people.scores), np.nan, 0).astype(np.float32)
        for t, frame in enumerate(clip.frames):
            here = np.flatnonzero(~np.isnan(people.boxes[t, :, 0]))
            if not len(here):
                continue
            boxes, bodies = self._look(frame)
            drawn = {int(here[i]): bodies[j] for i, j in tracking.pairs(people.boxes[t, here], boxes).items()}
            for p in front_last(list(drawn), people.boxes[t], people.scores[t], height):
                draw(values[t], drawn[p], p + 1)
                confidence[t, p] = np.clip(people.scores[t, p], 0, 1)
        known = confidence[~np.isnan(confidence)]
        mean = float(known.mean()) if len(known) else 0.0
        return Annotation(DensePose(values, "densepose-24", confidence), mean, provenance=provenance())

    def teardown(self) -> None:
        del self._model

    def _look(self, frame: npt.NDArray[np.uint8]) -> tuple[Floats, list[Body]]:
        """Boxes `[N, 4]` of everybody whom the network sees in a frame, and their bodies."""
        import torch

        from openuni.experts.weights import device

        image = prepare(frame, rgb=self._rgb)
        with torch.inference_mode():
            answer = self._model(torch.from_numpy(image).to(device()))
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise ValueError("its answer is not boxes, coarse and fine segmentation, U and V")
        boxes, coarse, fine, u, v = (part.float().cpu() for part in answer)
        if not len(boxes):
            return np.zeros((0, 4), np.float32), []
        if boxes.shape[1:] != (4,) or fine.shape[1] != len(PARTS) or not fine.shape == u.shape == v.shape:
            raise ValueError(f"its answer has boxes {tuple(boxes.shape)} and parts {tuple(fine.shape)}")
        boxes = boxes * torch.tensor([frame.shape[1] / image.shape[2], frame.shape[0] / image.shape[1]] * 2)
        return boxes.numpy(), [decode(*each) for each in zip(boxes, coarse, fine, u, v, strict=True)]


def takes_rgb(program: Any) -> bool:
    """Whether a program of detectron2's subtracts means in the order of red, green and blue."""
    means = [values.flatten() for name, values in program.named_buffers() if name.rpartition(".")[2] == "pixel_mean"]
    return any(len(mean) == 3 and float(mean[0]) > float(mean[2]) for mean in means)


def prepare(frame: npt.NDArray[np.uint8], *, rgb: bool = False) -> npt.NDArray[np.uint8]:
    """An RGB frame `[H, W, 3]` as detectron2 gives it to the network (`DefaultPredictor`): BGR, or else RGB, planes
    first, resized by PIL's bilinear filter.
    """
    from PIL import Image

    size = input_size(*frame.shape[:2])
    resized = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))
    return np.ascontiguousarray((resized if rgb else resized[..., ::-1]).transpose(2, 0, 1))


def input_size(height: int, width: int) -> tuple[int, int]:
    """Height and width that the network sees.

    Example:
        >>> input_size(480, 640), input_size(360, 640), input_size(1280, 720)
        ((800, 1067), (750, 1333), (1333, 750))
    """
    scale = min(_SHORTER / min(height, width), _LONGER / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


Body = tuple[int, int, npt.NDArray[np.uint8]]
"""Where a body's first pixel lies, x and y, perhaps outside the frame; and its part, U and V, `[h, w, 3]`."""


def decode(box: Any, coarse: Any, fine: Any, u: Any, v: Any) -> Body:
    """One person of the network's answer, as detectron2 decodes it (`densepose/converters`, Apache-2.0).

    Tensors: box `[4]` x0, y0, x1, y1; coarse `[2 or more, S, S]`, 0 the background; fine, u and v `[25, S, S]`.
    """
    import torch
    from torch.nn.functional import interpolate

    # Of a box's corner and sides the fractions are cut off.
    x0, y0 = box[:2].long().tolist()
    width, height = (box[2:] - box[:2]).long().tolist()
    size = max(height, 1), max(width, 1)

    def resized(maps: Any) -> Any:
        return interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]

    part = resized(fine).argmax(0) * (resized(coarse).argmax(0) > 0)
    charts = [resized(chart).gather(0, part[None])[0].clamp(0, 1) * 255 for chart in (u, v)]
    body = torch.stack([part.float(), *(torch.where(part > 0, chart, 0) for chart in charts)], -1)
    # Cut off rather than rounded, as detectron2 stores them.
    return x0, y0, body.to(torch.uint8).numpy()


def front_last(people: list[int], boxes: Floats, scores: Floats, height: int) -> list[int]:
    """People in the order in which they are drawn, the one in front last, from all boxes `[P, 4]` and scores `[P]`.

    Whose box ends lower stands nearer; where two end within a twentieth of the frame of each other, both below the
    frame for instance, the surer one is in front.

    Example:
        >>> boxes = np.array([[0, 0, 9, 99], [5, 0, 12, 60], [7, 0, 13, 98]], np.float32)
        >>> front_last([0, 1, 2], boxes, np.array([0.6, 0.9, 0.8], np.float32), height=100)
        [1, 0, 2]
    """
    by_feet = sorted(people, key=lambda p: float(boxes[p, 3]))
    ordered: list[int] = []
    while by_feet:
        # All who end near the farthest one: the surer of them, the later.
        level = [p for p in by_feet if boxes[p, 3] - boxes[by_feet[0], 3] < _NEARER * height]
        ordered += sorted(level, key=lambda p: float(scores[p]))
        by_feet = by_feet[len(level) :]
    return ordered


def draw(frame: npt.NDArray[np.uint8], body: Body, number: int) -> None:
    """Draw a body into values `[H, W, 4]`, over whom it covers; what lies outside the frame is left out."""
    x, y, values = body
    height, width = frame.shape[:2]
    top, left = max(-y, 0), max(-x, 0)
    values = values[top : max(height - y, 0), left : max(width - x, 0)]
    window = frame[y + top : y + top + len(values), x + left : x + left + values.shape[1]]
    there = values[..., 0] > 0
    window[there] = np.concatenate([values[there], np.full((int(there.sum()), 1), number, np.uint8)], 1)
