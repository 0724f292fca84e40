"""Pictures that are for people and not to be measured: colour-mapped depth, flow as colours, masks as JPEG.

Averaged over their channels they would be scored as if they were values, in silence; so they are refused by name.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError

_MAPS = ("inferno", "jet", "viridis", "magma", "plasma", "turbo", "hot", "bone", "cividis", "rainbow")
_SAME = 24
"""Grey levels by which channels of a grey picture may differ after 4:2:0 and compression: what is beyond is colour."""
_COLOURED = 0.02
"""Share of pixels from which a picture counts as coloured."""
_NEAR = 20.0
"""Mean distance in RGB from the colours of a map within which it is named."""
_SAMPLED = 4096
_LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


def grey(picture: npt.NDArray[np.generic], path: Path) -> npt.NDArray[np.generic]:
    """The one channel `[…, H, W]` of a picture `[…, H, W]` or `[…, H, W, C]` (RGB, C of 1, 3 or 4) that is grey.

    Raises InvalidAnnotationError where the channels differ, naming the colour map that the picture was likely drawn in.
    """
    if picture.shape[-1] not in (1, 3, 4) or picture.ndim < 3:
        return picture
    colours = picture[..., :3]
    if coloured(colours):
        likely = name(colours)
        raise InvalidAnnotationError(
            f"{path} is a picture in colours{f' (likely the colour map {likely})' if likely else ''}, not values: "
            "its channels differ; save the depth itself as npy, npz, exr or a grey 16-bit png"
        )
    # The three differ by compression alone, if at all.
    return np.asarray(colours[..., 0] if (colours == colours[..., :1]).all() else colours.mean(axis=-1))


def coloured(rgb: npt.NDArray[np.generic]) -> bool:
    """Whether the channels of `[…, C]` differ by more than compression does."""
    if rgb.shape[-1] == 1:
        return False
    values = rgb.astype(np.float64)
    step = 1 if rgb.dtype == np.uint8 else 257
    spread = values.max(axis=-1) - values.min(axis=-1)
    return bool((spread > _SAME * step).mean() > _COLOURED)


def name(rgb: npt.NDArray[np.generic]) -> str | None:
    """The colour map on whose colours the pixels of `[…, 3]` lie, or None where no known one is near."""
    pixels = rgb.reshape(-1, 3).astype(np.float32) / (1 if rgb.dtype == np.uint8 else 257)
    pixels = pixels[:: max(1, len(pixels) // _SAMPLED)]
    distances = {}
    for known in _MAPS:
        ramp = np.arange(256, dtype=np.uint8)[:, None]
        table = cv2.applyColorMap(ramp, getattr(cv2, f"COLORMAP_{known.upper()}"))[:, 0, ::-1].astype(np.float32)
        gap = np.linalg.norm(pixels[:, None] - table[None], axis=-1).min(axis=1)
        distances[known] = float(gap.mean())
    best = min(distances, key=lambda known: distances[known])
    return best if distances[best] < _NEAR else None


def check_lossless(path: Path, what: str) -> None:
    """Raise InvalidAnnotationError for a lossy picture, in which `what` do not survive: edges get values of nothing."""
    if path.suffix.lower() in _LOSSY:
        raise InvalidAnnotationError(
            f"{path} is a {path.suffix[1:].upper()}, whose compression invents {what}; save {what} as png, npy or npz"
        )
