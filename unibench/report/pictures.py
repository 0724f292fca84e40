"""Pictures of a sample for people: its RGB, truth, prediction and where the two differ, side by side for one frame."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from unibench import tasks
from unibench.tasks import Setup
from unibench.tasks.drawing import Image, Panel

_EDGE = 320
"""Longer side of a panel, in pixels."""


def panels(task: str, predicted: Any, true: Any, rgb: Image | None, frame: int, max_depth: float) -> list[Panel]:
    """RGB (where known), truth, prediction and error of one frame; `predicted` is already resampled to the truth."""
    return in_frame(rgb, tasks.get(task).panels(predicted, true, frame, Setup(max_depth=max_depth)))


def in_frame(rgb: Image | None, drawn: list[Panel]) -> list[Panel]:
    """RGB where it is known, then what was drawn, in the size of a page."""
    shown = [] if rgb is None else [Panel("RGB", rgb)]
    return [Panel(p.caption, _fit_in(p.image)) for p in (*shown, *drawn)]


def _fit_in(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = _EDGE / max(height, width)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    resized = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=method)
    return np.asarray(resized, dtype=np.uint8)
