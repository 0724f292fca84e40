"""sRGB: light to the codes of a picture (IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def encode_srgb(linear: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """sRGB bytes of linear light, clipped to [0, 1] (IEC 61966-2-1)."""
    x = np.clip(linear, 0, 1)
    curved = np.where(x <= 0.0031308, x * 12.92, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    return np.asarray(curved * 255 + 0.5).astype(np.uint8)
