"""How rows of a table became clips, as a picture: a bar a step, as long as the rows that are left."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from openuni.choosing import Step

_LINE, _LABEL, _BAR, _NUMBER = 28, 420, 480, 180
_INK, _FILL = (40, 40, 40), (180, 130, 70)


def draw(funnel: Sequence[Step]) -> npt.NDArray[np.uint8]:
    """Uint8 `[H, W, 3]`, RGB.

    Example:
        >>> draw([Step("rows", 10), Step("clips", 5)]).shape
        (84, 1080, 3)
    """
    picture = np.full(((len(funnel) + 1) * _LINE, _LABEL + _BAR + _NUMBER, 3), 255, np.uint8)
    most = max(funnel[0].left, 1) if funnel else 1
    for number, step in enumerate(funnel):
        top = _LINE // 2 + number * _LINE
        _write(picture, step.what.encode("ascii", "replace").decode()[:48], 10, top + 19)
        long = round(_BAR * step.left / most)
        picture[top + 4 : top + _LINE - 4, _LABEL : _LABEL + long] = _FILL
        _write(picture, f"{step.left:,}  {step.left / most:.1%}", _LABEL + long + 8, top + 19)
    return picture


def _write(picture: npt.NDArray[np.uint8], said: str, x: int, y: int) -> None:
    cv2.putText(picture, said, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
