"""Steady depth from a network that sees one frame at a time: each frame's scale and shift fitted to the one before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Disparity = npt.NDArray[np.float32]

_GRID = 64
"""Rows and columns of the sample that scale and shift are fitted on."""
_ROUNDS = 5
_MOST = 2.0
"""Scale between two frames beyond which they show different things: a cut, or nothing to hold on to."""


def align(values: Disparity) -> Disparity:
    """Affine disparity `[T, H, W]` with every frame brought to the first one's scale and shift.

    Frame t is fitted to the aligned frame t − 1 pixel by pixel, by least squares made robust against what moves
    (Huber's weights, re-estimated five times); over a cut, or on a flat frame, it is left as it is. So slow drift of a
    network that errs independently in each frame is removed, and what moves keeps its own disparity.

    Example:
        >>> scene = np.linspace(1, 2, 64 * 64, dtype=np.float32).reshape(64, 64)
        >>> steady = align(np.stack([scene, 1.2 * scene + 0.3, 0.9 * scene - 0.1]))
        >>> bool(np.abs(steady - scene).max() < 1e-4)
        True
    """
    aligned = values.copy()
    for t in range(1, len(values)):
        scale, shift = _fit(_sample(values[t]), _sample(aligned[t - 1]))
        aligned[t] = np.float32(scale) * values[t] + np.float32(shift)
    return aligned


def _sample(frame: Disparity) -> npt.NDArray[np.float64]:
    rows = np.linspace(0, frame.shape[0] - 1, min(_GRID, frame.shape[0])).round().astype(int)
    columns = np.linspace(0, frame.shape[1] - 1, min(_GRID, frame.shape[1])).round().astype(int)
    sample: npt.NDArray[np.float64] = frame[np.ix_(rows, columns)].astype(np.float64).ravel()
    return sample


def _fit(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shift that bring x to y, or (1, 0) where there is nothing to fit."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 16 or x.std() < 1e-6 or y.std() < 1e-6:
        return 1.0, 0.0
    weights = np.ones_like(x)
    scale, shift = 1.0, 0.0
    for _ in range(_ROUNDS):
        total = weights.sum()
        mean_x, mean_y = (weights @ x) / total, (weights @ y) / total
        spread = weights @ np.square(x - mean_x)
        if spread <= 0:
            return 1.0, 0.0
        scale = float(weights @ ((x - mean_x) * (y - mean_y)) / spread)
        shift = float(mean_y - scale * mean_x)
        error = np.abs(scale * x + shift - y)
        bound = max(1.345 * 1.4826 * float(np.median(error)), 1e-9)
        weights = np.minimum(1.0, bound / np.maximum(error, bound))
    return (scale, shift) if 1 / _MOST <= scale <= _MOST else (1.0, 0.0)
