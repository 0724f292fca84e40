"""How rows of a table became clips, as a picture: a bar a step, as long as the rows that are left."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from openuni.choosing import Step

_LINE, _LABEL, _BAR, _NUMBER = 28, 430, 380, 330
_INK, _FAINT, _FILL, _DROPPED = (40, 40, 40), (120, 120, 120), (180, 130, 70), (236, 222, 204)
_SIZE = 0.45


def draw(funnel: Sequence[Step]) -> npt.NDArray[np.uint8]:
    """Uint8 `[H, W, 3]`, RGB. Pale is what a step dropped, its number with a minus.

    Example:
        >>> draw([Step("rows", 10), Step("clips", 5)]).shape
        (112, 1140, 3)
    """
    picture = np.full(((len(funnel) + 2) * _LINE, _LABEL + _BAR + _NUMBER, 3), 255, np.uint8)
    at = _LABEL + _BAR + 10
    for said, x in (("step", 10), ("left", at), ("of all", at + 110), ("dropped", at + 185)):
        _write(picture, said, x, _LINE // 2 + 14, _FAINT)
    before = most = max(funnel[0].left, 1) if funnel else 1
    for number, step in enumerate(funnel):
        top = _LINE // 2 + (number + 1) * _LINE
        _write(picture, _cut(step.what.encode("ascii", "replace").decode()), 10, top + 19)
        bar = slice(top + 4, top + _LINE - 4)
        picture[bar, _LABEL : _LABEL + _long(before, most)] = _DROPPED
        picture[bar, _LABEL : _LABEL + _long(step.left, most)] = _FILL
        _write(picture, f"{step.left:,}", at, top + 19)
        _write(picture, share(step.left, most), at + 110, top + 19)
        if step.left < before:
            _write(picture, f"-{before - step.left:,}", at + 185, top + 19)
        before = step.left
    return picture


def share(left: int, most: int) -> str:
    """What part of all is left; a few of millions are not nothing.

    Example:
        >>> share(1, 2), share(12, 36_000_000), share(0, 2)
        ('50.0%', '<0.1%', '0.0%')
    """
    return "<0.1%" if 0 < left < most / 2000 else f"{left / max(most, 1):.1%}"


def _long(left: int, most: int) -> int:
    """Pixels of a bar; something is left as long as one is seen."""
    return max(round(_BAR * left / most), int(left > 0))


def _cut(said: str) -> str:
    """As much of a text as has room, and that it goes on."""
    whole = said
    while cv2.getTextSize(said, cv2.FONT_HERSHEY_SIMPLEX, _SIZE, 1)[0][0] > _LABEL - 25:
        said = f"{whole[: len(said.removesuffix('...')) - 1]}..."
    return said


def _write(picture: npt.NDArray[np.uint8], said: str, x: int, y: int, ink: tuple[int, int, int] = _INK) -> None:
    cv2.putText(picture, said, (x, y), cv2.FONT_HERSHEY_SIMPLEX, _SIZE, ink, 1, cv2.LINE_AA)
