"""Production skeletons: DWPose (Yang et al., ICCV 2023 workshops, arXiv:2307.15880), RTMPose-l distilled for the body.

The paper's annotator, by the ONNX export that its authors publish. It finds 133 points of COCO-WholeBody in a crop
around each person of the shared detector; the first 17 are COCO's (`Skeleton.body`). The decoding of its SimCC outputs
(Li et al., ECCV 2022, arXiv:2107.03332) is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, HubFile
from openuni.errors import AssetError
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.mediapipe_pose import of_tracked, people_in
from openuni.modalities.skeleton import LAYOUTS, Skeleton
from openuni.sample import Annotation

Floats = npt.NDArray[np.float32]

WEIGHTS = Asset(
    name="dwpose-384",
    filename="dw-ll_ucoco_384.onnx",
    license="Apache-2.0",
    sha256="724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
    size=134_399_116,
    sources=(HubFile("yzd-v/DWPose", "1a7144101628d69ee7a3768d1ee3a094070dc388", "dw-ll_ucoco_384.onnx"),),
)
HEIGHT, WIDTH = 384, 288
"""Of the network's input."""
LAYOUT = "coco_wholebody133"
POINTS = len(LAYOUTS[LAYOUT].joints)
"""COCO-WholeBody's: 17 of the body, 6 of the feet, 68 of the face, 21 of each hand."""
_SPLIT = 2
"""Bins of SimCC a pixel."""
_PADDING = 1.25
"""How much larger than the person the crop is, as in training."""
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_BATCH = 8


class DwPose(Expert):
    """The 133 joints of each tracked person (layout `coco_wholebody133`), in pixels, with scores.

    A joint's score is the lower of its two SimCC peaks, at most 1: a height of a distribution, and no probability. A
    joint outside the frame is absent. The confidence is that of the body's 17 joints. `people` counts as
    `mediapipe_pose` does, by the detector's support.
    """

    name = "dwpose"
    version = 3
    modality = "skeleton"
    license = "Apache-2.0"
    training_data = "COCO-WholeBody and UBody: non-commercial research"
    noncommercial = "its training data, COCO-WholeBody, is for non-commercial research"
    requires = ("rf_detr",)
    assets = (WEIGHTS,)
    packages = ("onnxruntime",)
    installed_by = "openuni[build,production]"
    resources = Resources(cpus=1, gpus=0.25, memory_gib=2)
    seconds_per_frame = 0.4

    def setup(self) -> None:
        """Load the network, onto the GPU where onnxruntime has one. Raises AssetError if it is missing or another."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.resources.cpus
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        file = assets.path(self.assets[0])
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in ort.get_available_providers()]
        try:
            self._session: Any = ort.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise AssetError(f"{file} is not an ONNX network that onnxruntime can load: {error}") from error
        self._input: str = self._session.get_inputs()[0].name
        outputs = [output.name for output in self._session.get_outputs()]
        if outputs != ["simcc_x", "simcc_y"]:
            raise AssetError(f"{file} has outputs {', '.join(outputs)}; DWPose's are simcc_x, simcc_y")

    def annotate(self, clip: DecodedClip) -> Annotation[Skeleton]:
        """Skeletons of the clip; of nobody, with confidence 0, where nobody is tracked."""
        people = people_in(clip, "rf_detr")
        frames, height, width, _ = clip.frames.shape
        keypoints = np.full((frames, people.count, POINTS, 3), (np.nan, np.nan, 0), np.float32)
        seen = np.argwhere(~np.isnan(people.boxes[..., 0]))
        for first in range(0, len(seen), _BATCH):
            places = seen[first : first + _BATCH]
            found = self.joints([clip.frames[t] for t, _ in places], people.boxes[places[:, 0], places[:, 1]])
            keypoints[places[:, 0], places[:, 1]] = _in_frame(found, height, width)
        device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        made: dict[str, str | int] = {"device": device, "batch": _BATCH, "precision": "float32"}
        return replace(of_tracked(keypoints, people, height, width, LAYOUT), provenance=made)

    def joints(self, frames: Sequence[npt.NDArray[np.uint8]], boxes: Floats) -> Floats:
        """Joints `[N, 133, 3]` (x, y in pixels, score) of N people, each in a frame and a box x0, y0, x1, y1."""
        crops = [crop(box) for box in boxes]
        inputs = [_prepare(frame, matrix) for frame, matrix in zip(frames, crops, strict=True)]
        found = decode(*self._session.run(None, {self._input: np.stack(inputs)}))
        for points, matrix in zip(found, crops, strict=True):
            points[:, :2] = (points[:, :2] - matrix[:, 2]) / matrix[0, 0] + np.float32(0.5)
        return found

    def teardown(self) -> None:
        del self._session


def crop(box: Floats) -> Floats:
    """The affine map `[2, 3]` from the frame's pixel indices to the network's, for a box x0, y0, x1, y1.

    The crop is centred on the box, 1.25 times as large, and widened to the input's shape: the published one
    (`annotator/dwpose/onnxpose.py` of `IDEA-Research/DWPose`), which takes a box's sides for pixel indices.
    """
    centre = np.array([box[0] + box[2], box[1] + box[3]], np.float64) / 2
    sides = np.array([box[2] - box[0], box[3] - box[1]], np.float64) * _PADDING
    scale = WIDTH / max(sides[0], sides[1] * WIDTH / HEIGHT, 1.0)
    shift = np.array([WIDTH, HEIGHT]) / 2 - scale * centre
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)


def decode(x: Floats, y: Floats) -> Floats:
    """Points `[N, K, 3]` (x, y in the input's pixel indices, score) from SimCC's `[N, K, 2W]` and `[N, K, 2H]`.

    Each coordinate is the bin of its highest value, half a pixel a bin; the score is the lower of the two heights.
    """
    places = np.stack([x.argmax(-1), y.argmax(-1)], -1) / np.float32(_SPLIT)
    score = np.minimum(x.max(-1), y.max(-1))
    return np.concatenate([places, score[..., None]], -1).astype(np.float32)


def _prepare(frame: npt.NDArray[np.uint8], matrix: Floats) -> Floats:
    """The crop as float32 `[3, H, W]`, RGB, normalised as in training (`bgr_to_rgb` in its configuration)."""
    cut = cv2.warpAffine(frame, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    prepared: Floats = ((cut - _MEAN) / _STD).transpose(2, 0, 1)
    return prepared


def _in_frame(joints: Floats, height: int, width: int) -> Floats:
    """Scores within 0 to 1; absent where a joint lies outside the frame or has no score."""
    score = np.clip(joints[..., 2], 0, 1)
    inside = ((joints[..., :2] >= 0) & (joints[..., :2] < (width, height))).all(axis=-1) & (score > 0)
    clipped = np.concatenate([joints[..., :2], score[..., None]], -1)
    kept: Floats = np.where(inside[..., None], clipped, np.array([np.nan, np.nan, 0], np.float32)).astype(np.float32)
    return kept
