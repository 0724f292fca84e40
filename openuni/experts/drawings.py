"""Is somebody drawn, or a whole frame? Their pixels are of one colour, or an edge, and hardly anything between.

Skin, hair and cloth vary a little from pixel to pixel wherever they are seen. Flat colours do not, and a line drawing
is paper and strokes. What is drawn with texture, as a film's photograph filtered to look painted, varies as cloth does:
it is not told from a person here.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]

_LOOKS = 5
"""Frames in which somebody is looked at, spread over those they are in."""
_SIDE = 640
"""Longer side, in pixels, at which the pixels are looked at."""
_FLAT, _TEXTURE = 1.0, (1.5, 8.0)
"""Deviation of brightness about a pixel (5×5, levels of 255) up to which it is flat, and that of texture."""
_DARK = 25
"""Brightness below which a pixel tells nothing: a silhouette is flat, too."""
_MOST_TEXTURE, _LEAST_FLAT = 0.15, 0.15
"""Share of the pixels of somebody drawn that have texture, at most, and that are flat, at least. Of real people .35 and
more had texture (27 people of five clips); of flat and of line drawings of the same .11 at most."""
_FEWEST = 200
"""Pixels from which a share is one."""
_CARD_SIDE, _PATCH = 224, 9
"""Height and width at which a card is looked for, and the side of a patch there."""
_PLAIN = 0.5
"""Standard deviation, in levels, below which a patch is of one colour: a camera's noise is more, coded too."""
_CARD = 0.45
"""Share of plain patches from which a frame is a card, a title or a drawing. The cards at hand have .50 and more,
filmed and rendered frames at most .07, but for one before a black sky (.34)."""


def is_card(frame: npt.NDArray[np.uint8]) -> bool:
    """Whether an RGB frame `[H, W, 3]` is a test card, a title or a flat drawing: most patches are of one colour.

    Example:
        >>> is_card(np.full((90, 160, 3), 200, np.uint8))
        True
        >>> is_card(np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8))
        False
    """
    small = cv2.resize(frame, (_CARD_SIDE, _CARD_SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean, square = (cv2.blur(values, (_PATCH, _PATCH)) for values in (gray, gray * gray))
    return bool(np.mean(square - mean * mean < _PLAIN * _PLAIN) > _CARD)


def drawn(frames: Images, masks: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.bool_]:
    """Who of `count` people is drawn, `[P]`: by their masks `[T, H, W]` (index + 1; 0 nobody) in RGB frames.

    Example:
        >>> frames = np.full((1, 60, 60, 3), 200, np.uint8)
        >>> frames[:, ::12] = 30
        >>> drawn(frames, np.ones((1, 60, 60), np.uint8), 1).tolist()
        [True]
    """
    found = np.zeros(count, np.bool_)
    if not count:
        return found
    shares = np.zeros((count, 3))
    there = np.stack([np.bincount(mask.ravel(), minlength=count + 1)[1:] > 0 for mask in masks])  # [T, P]
    for t in sorted({k for p in range(count) for k in _spread(np.flatnonzero(there[:, p]))}):
        deviation, bright, mask = _seen(frames[t], masks[t])
        for p in np.flatnonzero(there[t]).tolist():
            inner = cv2.erode((mask == p + 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            mine = deviation[inner & bright]
            texture = (mine > _TEXTURE[0]) & (mine < _TEXTURE[1])
            shares[p] += len(mine), (mine < _FLAT).sum(), texture.sum()
    enough = shares[:, 0] >= _FEWEST
    flat, textured = (shares[:, k] / np.maximum(shares[:, 0], 1) for k in (1, 2))
    return np.asarray(enough & (textured < _MOST_TEXTURE) & (flat >= _LEAST_FLAT))


def _spread(frames: npt.NDArray[np.intp]) -> list[int]:
    if not len(frames):
        return []
    chosen: list[int] = np.unique(frames[np.linspace(0, len(frames) - 1, _LOOKS).round().astype(int)]).tolist()
    return chosen


def _seen(
    frame: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Deviation about each pixel of a frame, whether it is bright enough to tell, and the mask, all at one size."""
    height, width = mask.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = round(width * scale), round(height * scale)
    gray = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean = cv2.blur(gray, (5, 5))
    deviation = np.sqrt(np.maximum(cv2.blur(gray * gray, (5, 5)) - mean * mean, 0))
    return deviation, mean >= _DARK, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
