"""KITTI's 16-bit PNG of optical flow and of depth (Menze & Geiger 2015, development kit)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from unibench.formats.bounded import read_png

Singles = npt.NDArray[np.float32]


def read_flow(path: Path) -> Singles:
    """Flow `[H, W, 2]` in pixels to 1/128; NaN where the third channel says there is none."""
    stored = read_png(path, np.uint16, 3)
    flow = np.asarray((stored[..., :2].astype(np.float32) - 32768) / 64, np.float32)
    flow[stored[..., 2] == 0] = np.nan
    return flow


def read_depth(path: Path) -> Singles:
    """Planar depth `[H, W]` in metres to 1/512; NaN where there is none."""
    stored = read_png(path, np.uint16, 1)
    return np.where(stored > 0, stored.astype(np.float32) / 256, np.float32(np.nan))
