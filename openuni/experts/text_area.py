"""Where text is: the detector of PP-OCRv4 (Differentiable Binarization, Liao et al., AAAI 2020, arXiv:1911.08947)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, PackageMember
from openuni.experts.base import DecodedClip, Expert, Measured, Resources
from openuni.experts.scores import spread
from openuni.modalities import Frames
from openuni.sample import Annotation

Mask = npt.NDArray[np.bool_]

WEIGHTS = Asset(
    name="text-detector",
    filename="ch_PP-OCRv4_det_infer.onnx",
    license="Apache-2.0",
    sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    size=4_745_517,
    sources=(
        PackageMember(
            "pypi", "rapidocr-onnxruntime", "1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
        ),
    ),
)

_SHORT_SIDE, _LONGEST = 736, 2016
"""Pixels to which a frame's shorter side is enlarged, and what its longer one may have: as rapidocr does."""
_TEXT = 0.3
"""Probability from which a pixel belongs to the core of a line of text."""
_SURE = 0.5
"""Mean probability of a line."""
_UNCLIP = 1.6
"""The network marks the core of a line: its outline lies farther out by this times area over circumference."""
_SMALLEST = 3
_SAMPLED = 5


class TextArea(Expert):
    """`text_area`, share of the frame, 0–1: what lines of text cover, the mean over five frames spread over the clip.

    Also `text_lines`: their number in a frame, on average. Subtitles, logos and signs count alike.
    """

    name = "scores_text"
    version = 1
    modality = "scores_text"
    license = "Apache-2.0"
    training_data = "pictures of its authors' own and public ones"
    resources = Resources(cpus=1, memory_gib=1.5)
    packages = ("onnxruntime",)
    assets = (WEIGHTS,)
    seconds_per_frame = 0.05

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are not in the cache."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.resources.cpus
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = ort.InferenceSession(
            str(assets.path(WEIGHTS)), options, providers=["CPUExecutionProvider"]
        )
        self._input: str = self._session.get_inputs()[0].name

    def annotate(self, clip: DecodedClip) -> Annotation[Measured]:
        cv2.setNumThreads(self.resources.cpus)
        masks = [self.find(frame) for frame in clip.frames[spread(len(clip.frames), _SAMPLED)]]
        area = float(np.mean([mask.mean() for mask, _ in masks]))
        lines = float(np.mean([lines for _, lines in masks]))
        return Annotation(Measured(), scores={"text_area": area, "text_lines": lines})

    def teardown(self) -> None:
        del self._session

    def find(self, frame: Frames) -> tuple[Mask, int]:
        """Which pixels of a frame `[H, W, 3]` text covers, `[H, W]`, and the number of lines."""
        height, width, _ = frame.shape
        scale = min(max(1.0, _SHORT_SIDE / min(height, width)), _LONGEST / max(height, width))
        tall, wide = (max(32, round(side * scale / 32) * 32) for side in (height, width))
        # BGR, as the network was trained; so are the means and deviations.
        seen = cv2.resize(np.ascontiguousarray(frame[..., ::-1]), (wide, tall)).astype(np.float32) / 127.5 - 1
        probability = self._session.run(None, {self._input: seen.transpose(2, 0, 1)[None]})[0][0, 0]
        core = (probability > _TEXT).astype(np.uint8)
        outlines, _ = cv2.findContours(core, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        covered = np.zeros((tall, wide), np.uint8)
        lines = 0
        for outline in outlines:
            (x, y), (w, h), angle = cv2.minAreaRect(outline)
            if min(w, h) < _SMALLEST or _mean_inside(probability, outline) < _SURE:
                continue
            out = 2 * _UNCLIP * w * h / (2 * (w + h))
            corners = cv2.boxPoints(((x, y), (w + out, h + out), angle))
            cv2.fillPoly(covered, [np.rint(corners).astype(np.int32)], 1)
            lines += 1
        mask = cv2.resize(covered, (width, height), interpolation=cv2.INTER_NEAREST)
        return mask.astype(np.bool_), lines


def _mean_inside(probability: npt.NDArray[np.float32], outline: npt.NDArray[np.int32]) -> float:
    x, y, w, h = cv2.boundingRect(outline)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [outline - (x, y)], 1)
    return float(cv2.mean(probability[y : y + h, x : x + w], inside)[0])
