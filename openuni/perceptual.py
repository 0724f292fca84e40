"""Perceptual hashes: 64 bits a frame that stay nearly the same when it is encoded, scaled or cropped a little.

A frame's hash says which of its lowest frequencies lie above their median (the DCT hash of Zauner, 2010, as in the
library pHash). Two clips are near-duplicates where most of their hashed frames are.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from openuni.modalities import Box, Frames

Hashes = npt.NDArray[np.uint64]

FRAMES = 5
"""Frames of a clip that are hashed."""
NONE = 0
"""The hash of a frame that shows nothing: it is like no other."""
_SIDE = 32
_KEPT = 8
_FLAT = 2.0
"""Standard deviation, in levels of 255, below which a frame shows nothing."""
_INNER = 0.86
"""Side of the middle of a frame that is hashed too: what is left where some 7 % were cropped at each edge."""


def clip_hashes(frames: Frames, picture: Box) -> tuple[int, ...]:
    """Hashes of the picture in five frames `[T, H, W, 3]` spread over a clip, then of the middle of each: ten in all.

    Example:
        >>> frames = np.random.default_rng(0).integers(0, 256, (8, 36, 64, 3), np.uint8)
        >>> len(clip_hashes(frames, Box(0, 0, 64, 36)))
        10
    """
    inset_x = round((picture.x1 - picture.x0) * (1 - _INNER) / 2)
    inset_y = round((picture.y1 - picture.y0) * (1 - _INNER) / 2)
    middle = Box(picture.x0 + inset_x, picture.y0 + inset_y, picture.x1 - inset_x, picture.y1 - inset_y)
    places = ((np.arange(FRAMES) + 0.5) * len(frames) / FRAMES).astype(np.intp)
    return tuple(frame_hash(frames[t], box) for box in (picture, middle) for t in places)


def frame_hash(frame: Frames, box: Box) -> int:
    """The hash of what `box` shows of a frame `[H, W, 3]`; `NONE` of a picture of one colour."""
    part = np.ascontiguousarray(frame[box.y0 : box.y1, box.x0 : box.x1])
    if not part.size:
        return NONE
    gray = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return NONE
    low = cv2.dct(small)[1 : _KEPT + 1, 1 : _KEPT + 1].ravel()
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
