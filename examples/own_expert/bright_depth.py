"""An expert of your own. After `pip install examples/own_expert`: `openuni build --experts bright_depth …`."""

import numpy as np

from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip, Expert
from openuni.modalities.depth import Depth
from openuni.sample import Annotation


class BrightDepth(Expert):
    """Bright is near: a depth that is wrong nearly everywhere, but shows all that an expert has to say."""

    name = "bright_depth"
    version = 1
    modality = "depth"
    license = "CC0-1.0"

    def annotate(self, clip: DecodedClip) -> Annotation[Depth]:
        """Relative depth `[T, H, W]` from 1 (white) to 2 (black)."""
        grey = clip.frames.mean(axis=-1, dtype=np.float32) / 255
        if grey.max() - grey.min() < 0.1:
            raise OpenUniError(f"{clip.key}: all of one brightness")
        return Annotation(Depth(2 - grey, "relative"), confidence=0.1)
