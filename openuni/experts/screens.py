"""Is somebody on a screen? They lie within a straight outline of four sides that the picture itself shows.

A talking head on a monitor, a photograph on a wall, a window of a video call: whatever shows somebody ends at four
straight edges. Whoever stands in a room before such a thing reaches beyond it. Somebody wholly within a window, or
before a panel that is larger than they are, cannot be told from them and is doubted, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_LOOKS = 5
"""Frames in which somebody is looked at, spread over those they are in."""
_MOSTLY = 0.5
"""Share of the looks from which somebody lies within an outline: 31 people of six real clips came to .2 at most,
on a real monitor to .6 at least, and mostly to 1."""
_SIDE = 320
"""Longer side, in pixels, at which lines are looked for."""
_TILT = np.tan(np.radians(15))
"""Most that a side of the outline leans."""
_SUPPORT, _OF_QUARTER = 0.75, 0.5
"""Share of each side, and of each quarter of it, along which the frame must have an edge in its direction."""
_EDGE = 8
"""Levels a pixel by which brightness changes across an edge."""
_CANDIDATES = 6
"""Lines looked at for each side, the longest first."""
_WHOLE = 0.9
"""Share of the frame above which the outline is the frame's own, as of a film with bars."""
_INSIDE = 0.03
"""How far somebody's box may reach beyond the outline, over the box's size."""


def on_screens(frames: Image, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Who is on a screen, `[P]`, of people with boxes `[T, P, 4]` (NaN: not there) in RGB frames `[T, H, W, 3]`."""
    found = np.zeros(boxes.shape[1], np.bool_)
    for p in range(boxes.shape[1]):
        there = np.flatnonzero(~np.isnan(boxes[:, p, 0]))
        looks = np.unique(there[np.linspace(0, len(there) - 1, _LOOKS).round().astype(int)]).tolist()
        found[p] = np.mean([framed(frames[t], boxes[t, p].astype(np.float64)) for t in looks]) >= _MOSTLY
    return found


def framed(frame: Image, box: Floats) -> bool:
    """Whether somebody in a box (x0, y0, x1, y1) of an RGB frame `[H, W, 3]` lies within an outline of four sides.

    Each side is a straight line with an edge of the picture along most of it.

    Example:
        >>> wall = np.full((180, 320, 3), 200, np.uint8)
        >>> wall[30:150, 60:260] = 40
        >>> framed(wall, np.array([120.0, 60, 180, 148])), framed(wall, np.array([120.0, 60, 180, 175]))
        (True, False)
    """
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    small = cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    gray = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (0, 0), 0.8)
    x0, y0, x1, y1 = box * scale
    slack = _INSIDE * float(np.sqrt((x1 - x0) * (y1 - y0))) + 1
    flat, upright = _lines(gray, lean=False), _lines(gray, lean=True)
    # A line v(u) = a + s·u, u along and v across it: `flat` has y over x, `upright` x over y.
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    above = [k for k in flat if k[0] + k[1] * middle_x <= y0 + slack]
    below = [k for k in flat if k[0] + k[1] * middle_x >= y1 - slack]
    left = [k for k in upright if k[0] + k[1] * middle_y <= x0 + slack]
    right = [k for k in upright if k[0] + k[1] * middle_y >= x1 - slack]
    edges = _edges(gray)
    sides = (each[:_CANDIDATES] for each in (above, below, left, right))
    return any(_is_outline(corners, edges) for corners in _outlines(*sides))


Line = tuple[float, float, float]
"""Where it meets the axis, its slope, and how long it is seen."""


def _lines(gray: Image, *, lean: bool) -> list[Line]:
    """Straight edges that are nearly level, or nearly upright (`lean`), the longest first."""
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(gray)[0]
    lines: list[Line] = []
    for a, b, c, d in np.zeros((0, 4)) if found is None else found.reshape(-1, 4).astype(np.float64):
        (u0, v0), (u1, v1) = ((b, a), (d, c)) if lean else ((a, b), (c, d))
        if abs(v1 - v0) > _TILT * abs(u1 - u0) or abs(u1 - u0) < 8:
            continue
        slope = (v1 - v0) / (u1 - u0)
        lines.append((v0 - slope * u0, slope, abs(u1 - u0)))
    return sorted(lines, key=lambda line: -line[2])


def _outlines(*sides: list[Line]) -> Iterator[Floats]:
    """Corners `[4, 2]` (x, y) of outlines with a line above, below, left and right each, clockwise from top left."""
    for above, below, left, right in product(*sides):
        yield np.array(
            [
                _corner(level, upright)
                for level, upright in ((above, left), (above, right), (below, right), (below, left))
            ]
        )


def _corner(level: Line, upright: Line) -> tuple[float, float]:
    """Where y = a + s·x meets x = b + r·y."""
    (a, s, _), (b, r, _) = level, upright
    y = (a + s * b) / (1 - s * r)
    return b + r * y, y


def _edges(gray: Image) -> tuple[Image, Image]:
    """Where the picture has an edge that is nearly level, and one that is nearly upright, a pixel to each side."""
    across, down = (np.abs(cv2.Sobel(gray, cv2.CV_32F, *way, scale=1 / 4)) for way in ((1, 0), (0, 1)))
    level, upright = (down > _EDGE) & (down > across), (across > _EDGE) & (across > down)
    return cv2.dilate(level.astype(np.uint8), np.ones((3, 1))), cv2.dilate(upright.astype(np.uint8), np.ones((1, 3)))


def _is_outline(corners: Floats, edges: tuple[Image, Image]) -> bool:
    """Whether an outline is smaller than the frame and the picture has an edge along each of its sides."""
    level, upright = edges
    height, width = level.shape
    if (corners < -1).any() or (corners > (width, height)).any():
        return False
    if cv2.contourArea(corners.astype(np.float32)) > _WHOLE * height * width:
        return False
    for k, seen in enumerate((level, upright, level, upright)):
        way = np.linspace(0.05, 0.95, 24)[:, None]
        x, y = (corners[k] * (1 - way) + corners[(k + 1) % 4] * way).round().astype(int).T
        along = seen[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)].reshape(4, 6).mean(axis=1)
        if along.mean() < _SUPPORT or along.min() < _OF_QUARTER:
            return False
    return True
