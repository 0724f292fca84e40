"""How many of the parts painted on a person are right, from what can be seen: the confidence of light DensePose.

Five signals of 0 to 1 a person and frame, joined by a logistic curve as those of masks are (`mask_quality`), times the
belief that it is a person. The weights are fitted on rendered crowds and walkers, of whom it is firmly believed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from openuni.experts import mask_quality, pose_quality
from openuni.experts.mask_quality import logistic
from openuni.experts.people import TrackedPeople

Floats = npt.NDArray[np.float64]

SIGNALS = ("steady pose", "steady mask", "set off", "size", "fit")
"""`steady` of `pose_quality`; `steady`, `set off` and `size` of `mask_quality`; how well the body fits landmarks and
mask. What wavers from frame to frame is wrong in some of them: front taken for back, or two people for one."""
_WEIGHTS = (1.24, 0.72, 0.62, 0.9, 0.55)
_OFFSET = -1.77


def signals(people: TrackedPeople, frames: npt.NDArray[np.uint8], fit: Floats) -> Floats:
    """The signals `[T, P, 5]` in the order of `SIGNALS`, NaN where there is no pose or no mask.

    `frames` uint8 `[T, H, W, 3]`; `fit` `[T, P]`, 0 to 1: how well the fitted body agrees with what was seen.
    """
    pose, mask = pose_quality.signals(people), mask_quality.signals(people, people.masks, frames)
    of_mask = [mask[..., mask_quality.SIGNALS.index(name)] for name in ("steady", "set off", "size")]
    return np.stack([pose[..., pose_quality.SIGNALS.index("steady")], *of_mask, fit], axis=-1)


def predicted_share(found: Floats, belief: npt.NDArray[np.floating]) -> Floats:
    """The share of painted pixels whose part is right to expect of such signals `[T, P, 5]`, `[T, P]`.

    `belief` `[P]`: how far it is believed that they are people.
    """
    share: Floats = logistic(found @ np.array(_WEIGHTS) + _OFFSET) * belief
    return share
