"""The quality floor: the confidence below which what an expert says of a clip is left out, and why there.

Only experts whose confidence predicts quality have one. What is below is absent, with the reason, the confidence and
the scores in the index; `openuni build --keep-doubtful` keeps it. A floor changes what a column holds, so it is part of
the column's fingerprint (`Expert.fingerprint`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from openuni.sample import Annotation


@dataclass(frozen=True, slots=True)
class Floor:
    """Least confidence of a clip, what one below it means, and whether 0 says that nothing is there to annotate."""

    least: float
    why: str
    empty_is_zero: bool = False

    def reason(self, annotation: Annotation[Any]) -> str:
        """Why this annotation is left out; empty where it is not.

        The same for every clip, so that reasons can be counted; how doubtful each is stands beside it in the index.

        Example:
            >>> FLOORS["dis"].reason(Annotation(None, confidence=0.1))
            'doubtful, confidence below 0.25: most of the flow is off by more than a pixel (--keep-doubtful keeps it)'
            >>> FLOORS["mediapipe_pose"].reason(Annotation(None, confidence=0.0))
            ''
        """
        confidence = annotation.confidence
        if confidence is None or confidence >= self.least or (confidence == 0 and self.empty_is_zero):
            return ""
        return f"doubtful, confidence below {self.least}: {self.why} (--keep-doubtful keeps it)"


FLOORS: Mapping[str, Floor] = MappingProxyType(
    {
        # A share of pixels within 1 px, calibrated within .02.
        "dis": Floor(0.25, "most of the flow is off by more than a pixel"),
        # Where the camera moves a rank correlation: below .2 the order of surfaces is next to arbitrary. Where it does
        # not, half of a share of pixels: below .2 the network contradicts its own mirrored answer on most of them.
        "fastdepth": Floor(0.2, "the order of surfaces is no better than a guess"),
        # Products of support and visibility or fit: .2 is a chance of one half on two of them and less on a third.
        # 0 is another matter: nobody was looked for in vain, and that is an answer.
        "mediapipe_segmentation": Floor(0.2, "nothing outlined is surely there", empty_is_zero=True),
        "mediapipe_pose": Floor(0.2, "nobody is surely a person, or most joints are out of sight", empty_is_zero=True),
        "body_fit": Floor(0.2, "the fitted bodies do not explain what is seen", empty_is_zero=True),
    }
)
"""By expert. Those that run on a GPU have none: their confidence is not yet known to predict quality."""
