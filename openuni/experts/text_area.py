"""Where text is: PP-OCRv4's detector (Differentiable Binarization, Liao et al., AAAI 2020, arXiv:1911.08947) says where
a line may be, its reader (SVTR, Du et al., IJCAI 2022, arXiv:2205.00159) whether letters stand there.

The detector alone is as sure of fur, faces and stones as it is of letters.
"""

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
Corners = npt.NDArray[np.float32]

DETECTOR = Asset(
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
READER = Asset(
    name="text-reader",
    filename="ch_PP-OCRv4_rec_infer.onnx",
    license="Apache-2.0",
    sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    size=10_857_958,
    sources=(
        PackageMember(
            "pypi", "rapidocr-onnxruntime", "1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
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
_READ = 1.5
"""Letters that make text, each counted as the square of its probability: of 411 boxes around what was none, in 50 clips
of 15 videos, the most had 1.42; the number 42 has 1.9, and a word in a script that the reader does not know 2.9."""
_LONG, _CERTAIN = 8.0, 0.95
"""A line so many times longer than thick, of at least this mean probability, is text unread: the reader knows neither
Hangul nor kana. Of the same 411 boxes, the longest of that probability had 5.7."""
_READ_HEIGHT, _READ_WIDTHS = 48, (320, 1280)
"""Pixels of a line as the reader sees it: shorter ones are padded, longer ones squeezed."""
_GREY = (127.5, 127.5, 127.5)
_UPRIGHT = 1.5
"""Times taller than wide, from which a line is turned to the left before it is read."""
_SAMPLED = 5


class TextArea(Expert):
    """`text_area`, share of the frame, 0–1: what lines of text cover, the mean over five frames spread over the clip.

    Also `text_lines`: their number in a frame, on average. Subtitles, logos and signs count alike: lines in which
    letters can be read, and long ones in scripts that the reader does not know.
    """

    name = "scores_text"
    version = 2
    modality = "scores_text"
    license = "Apache-2.0"
    training_data = "pictures of its authors' own and public ones"
    resources = Resources(cpus=1, memory_gib=1.5)
    packages = ("onnxruntime",)
    assets = (DETECTOR, READER)
    seconds_per_frame = 0.06

    def setup(self) -> None:
        """Load the networks. Raises AssetError if weights are not in the cache."""
        self._detector, self._reader = self._load(DETECTOR), self._load(READER)
        known = self._reader.get_modelmeta().custom_metadata_map["character"].splitlines()
        # Class 0 is "no letter", the last one a space.
        self._letters = np.array([False, *(character.isalnum() for character in known), False])

    def _load(self, weights: Asset) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.resources.cpus
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return ort.InferenceSession(str(assets.path(weights)), options, providers=["CPUExecutionProvider"])

    def annotate(self, clip: DecodedClip) -> Annotation[Measured]:
        cv2.setNumThreads(self.resources.cpus)
        masks = [self.find(frame) for frame in clip.frames[spread(len(clip.frames), _SAMPLED)]]
        area = float(np.mean([mask.mean() for mask, _ in masks]))
        lines = float(np.mean([lines for _, lines in masks]))
        return Annotation(Measured(), scores={"text_area": area, "text_lines": lines})

    def teardown(self) -> None:
        del self._detector, self._reader

    def find(self, frame: Frames) -> tuple[Mask, int]:
        """Which pixels of a frame `[H, W, 3]` text covers, `[H, W]`, and the number of lines."""
        height, width, _ = frame.shape
        scale = min(max(1.0, _SHORT_SIDE / min(height, width)), _LONGEST / max(height, width))
        tall, wide = (max(32, round(side * scale / 32) * 32) for side in (height, width))
        # The networks were trained on BGR.
        picture = np.ascontiguousarray(frame[..., ::-1])
        probability = _run(self._detector, cv2.resize(picture, (wide, tall)))[0]
        core = (probability > _TEXT).astype(np.uint8)
        outlines, _ = cv2.findContours(core, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        covered = np.zeros((tall, wide), np.uint8)
        in_picture = np.array([width / wide, height / tall], np.float32)
        lines = 0
        for outline in outlines:
            (x, y), (w, h), angle = cv2.minAreaRect(outline)
            if min(w, h) < _SMALLEST or (sure := _mean_inside(probability, outline)) < _SURE:
                continue
            out = 2 * _UNCLIP * w * h / (2 * (w + h))
            corners = np.asarray(cv2.boxPoints(((x, y), (w + out, h + out), angle)), np.float32)
            is_long = sure >= _CERTAIN and max(w, h) >= _LONG * min(w, h)
            if is_long or self._read(picture, corners * in_picture) >= _READ:
                cv2.fillPoly(covered, [np.rint(corners).astype(np.int32)], 1)
                lines += 1
        mask = cv2.resize(covered, (width, height), interpolation=cv2.INTER_NEAREST)
        return mask.astype(np.bool_), lines

    def _read(self, picture: Frames, corners: Corners) -> float:
        """How many letters stand between four corners of a picture in BGR, each as the square of its probability."""
        line = _line(picture, corners)
        padding = max(0, _READ_WIDTHS[0] - line.shape[1])
        said = _run(self._reader, cv2.copyMakeBorder(line, 0, 0, 0, padding, cv2.BORDER_CONSTANT, value=_GREY))
        best = said.argmax(axis=1)
        begins = self._letters[best] & np.concatenate([[True], best[1:] != best[:-1]])
        return float((said.max(axis=1)[begins] ** 2).sum())


def _run(network: Any, picture: Frames) -> npt.NDArray[np.float32]:
    """What a network says of a picture in BGR, whose values it takes from -1 to 1."""
    seen = (picture.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    said: npt.NDArray[np.float32] = network.run(None, {network.get_inputs()[0].name: seen})[0][0]
    return said


def _line(picture: Frames, corners: Corners) -> Frames:
    """The line of text between four corners, given clockwise, laid flat."""
    corners = np.roll(corners, -int(corners.sum(axis=1).argmin()), axis=0)
    across, down = (float(np.linalg.norm(corners[n] - corners[0])) for n in (1, 3))
    if down >= _UPRIGHT * across:
        corners, across, down = np.roll(corners, -1, axis=0), down, across
    wide = min(max(1, round(_READ_HEIGHT * across / down)), _READ_WIDTHS[1])
    flat = np.array([[0, 0], [wide, 0], [wide, _READ_HEIGHT]], np.float32)
    turn, size = cv2.getAffineTransform(corners[:3], flat), (wide, _READ_HEIGHT)
    line: Frames = cv2.warpAffine(picture, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return line


def _mean_inside(probability: npt.NDArray[np.float32], outline: npt.NDArray[np.int32]) -> float:
    x, y, w, h = cv2.boundingRect(outline)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [outline - (x, y)], 1)
    return float(cv2.mean(probability[y : y + h, x : x + w], inside)[0])
