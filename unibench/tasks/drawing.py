"""Colours of panels: errors as heat, agreement of labels, objects in a palette. Pictures are RGB uint8 `[H, W, 3]`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""RGB `[H, W, 3]`."""
UNKNOWN = (90, 90, 90)
"""The grey of what is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One picture and what it shows."""

    caption: str
    image: Image


def heat(error: npt.NDArray[np.floating], top: float, valid: npt.NDArray[np.bool_] | None = None) -> Image:
    """Errors `[H, W]` from 0 (black) to `top` and above (white) over red and yellow; grey where not valid."""
    level = np.nan_to_num(np.clip(error / top, 0, 1), nan=1.0)
    image = cv2.cvtColor(cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_HOT), cv2.COLOR_BGR2RGB)
    if valid is not None:
        image[~valid] = UNKNOWN
    return np.asarray(image, dtype=np.uint8)


def agreement(there: npt.NDArray[np.integer], here: npt.NDArray[np.integer]) -> Panel:
    """Where two maps of labels, 0 the background, agree (truth first)."""
    image = np.zeros((*there.shape, 3), np.uint8)
    image[(there != here) & (there > 0)] = (220, 60, 60)
    image[(there != here) & (there == 0)] = (70, 110, 230)
    image[(there == here) & (there > 0)] = (200, 200, 200)
    return Panel("right grey, wrong red, too much blue", image)


def difference(there: Image, here: Image) -> Panel:
    """How far two pictures are apart, in the channel where they differ most."""
    return Panel("difference", heat(np.abs(there.astype(np.int16) - here).max(axis=-1), 255))
