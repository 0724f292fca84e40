"""Real clips as the experts get them."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from openuni.video import read_frames


def clip(path: Path, frames: int, fps: float) -> np.ndarray:
    """The first frames of a clip at a frame rate, 640 wide."""
    chosen = list(islice(read_frames(path, fps=fps), frames))
    height = round(640 / chosen[0].shape[1] * chosen[0].shape[0])
    return np.stack([cv2.resize(f, (640, height), interpolation=cv2.INTER_AREA) for f in chosen])
