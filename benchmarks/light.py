"""How well the light path's confidence predicts its quality: flow, on made pairs of known motion.

    python benchmarks/light.py

Five families of pairs (an affine motion, a large one, squares over a ground, noise, low contrast). For each family the
curve from forward–backward agreement to the share of pixels within 1 px is fitted on the other four, and judged on it.
Prints rank correlation (Spearman) and calibration error (mean gap over ten bins of equal count) over all, the gap of
each family, and the curve fitted on all five, which `openuni.experts.dis` holds.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.stats import spearmanr

from openuni.experts.dis import dis_flow, round_trip

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

FAMILIES = ("affine", "large", "layers", "noisy", "flat")
PAIRS = 24
HEIGHT, WIDTH, AROUND = 160, 240, 60
KNOTS = np.array([0, 0.4, 0.6, 0.8, 0.9, 1.0])


def texture(seed: int, height: int, width: int, sigma: float, contrast: float) -> Image:
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.clip(128 + contrast * smooth / smooth.std(), 0, 255).astype(np.float32)


def pair(family: str, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], Floats]:
    """Two gray frames and the motion from the first to the second."""
    rng = np.random.default_rng([seed, len(family)])
    sigma, contrast = rng.uniform(0.8, 4), rng.uniform(8, 50)
    ground = texture(seed, HEIGHT + 2 * AROUND, WIDTH + 2 * AROUND, sigma, contrast)
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).astype(np.float64)
    if family in ("affine", "large"):
        way = rng.uniform(1, 8) if family == "affine" else rng.uniform(10, 45)
        direction = rng.normal(size=2)
        shift = direction / np.linalg.norm(direction) * way
        linear = rng.normal(0, 0.02 if family == "affine" else 0.05, (2, 2))
    else:
        shift, linear = rng.normal(size=2) * rng.uniform(0, 6), np.zeros((2, 2))
    middle = np.array([WIDTH / 2, HEIGHT / 2])
    motion = (grid - middle) @ linear.T + shift
    before = (grid - middle - shift) @ np.linalg.inv(np.eye(2) + linear).T + middle
    first, second = (
        cv2.remap(ground, (at + AROUND).astype(np.float32), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        for at in (grid, before)
    )
    if family in ("layers", "noisy", "flat"):
        _add_squares(family, seed, rng, (sigma, contrast), (first, second, motion))
    if family == "flat":
        share = rng.uniform(0.02, 0.3)
        first, second = 128 + share * (first - 128), 128 + share * (second - 128)
    spread = {"noisy": rng.uniform(2, 30), "flat": 1.5}.get(family, 0.0)
    seen = [np.clip(np.rint(i + rng.normal(0, spread, i.shape)), 0, 255).astype(np.uint8) for i in (first, second)]
    return seen[0], seen[1], motion


def _add_squares(
    family: str, seed: int, rng: np.random.Generator, look: tuple[float, float], to: tuple[Image, Image, Floats]
) -> None:
    """Squares that move over the ground, later ones in front."""
    first, second, motion = to
    for k in range(int(rng.integers(1, 6))):
        side = int(rng.integers(12, 70))
        moved = np.rint(rng.normal(size=2) * rng.uniform(2, 25 if family == "layers" else 8)).astype(int)
        x, y = int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side))
        square = texture(seed * 31 + k, side, side, *look) + rng.uniform(-40, 40)
        first[y : y + side, x : x + side] = square
        motion[y : y + side, x : x + side] = moved
        left, top = x + moved[0], y + moved[1]
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, WIDTH), min(top + side, HEIGHT)
        if x1 > x0 and y1 > y0:
            second[y0:y1, x0:x1] = square[y0 - top : y1 - top, x0 - left : x1 - left]


def measured(family: str, seed: int) -> tuple[float, float]:
    """Share of pixels that agree forward and backward, and of those within 1 px of the truth."""
    first, second, motion = pair(family, seed)
    forward = dis_flow(first, second)
    _, agrees = round_trip(forward, dis_flow(second, first))
    return float(agrees.mean()), float((np.linalg.norm(forward - motion, axis=-1) < 1).mean())


def fitted(agreeing: Floats, within: Floats) -> Floats:
    """Values of the rising curve at the knots: non-negative least squares over its steps."""
    steps = np.stack([np.clip((agreeing - a) / (b - a), 0, 1) for a, b in pairwise(KNOTS)], axis=1)
    rises, _ = nnls(np.vstack([steps, np.full((1, len(KNOTS) - 1), 1e-2)]), np.append(within, 1e-2))
    return np.clip(np.concatenate([[0], np.cumsum(rises)]), 0, 1)


def calibration_error(predicted: Floats, true: Floats, bins: int = 10) -> float:
    rows = np.array_split(np.argsort(predicted), bins)
    return sum(len(row) * abs(predicted[row].mean() - true[row].mean()) for row in rows) / len(predicted)


def main() -> None:
    cv2.setNumThreads(1)
    table = np.array([measured(family, seed) for family in FAMILIES for seed in range(PAIRS)])
    family = np.repeat(np.arange(len(FAMILIES)), PAIRS)
    agreeing, within = table.T
    predicted = np.empty_like(within)
    for k in range(len(FAMILIES)):
        here = family == k
        predicted[here] = np.interp(agreeing[here], KNOTS, fitted(agreeing[~here], within[~here]))
    print(f"flow, {len(table)} pairs, each family left out of its own fit")
    print(f"  Spearman           {spearmanr(predicted, within)[0]:.3f}")
    print(f"  calibration error  {calibration_error(predicted, within):.3f}")
    for k, name in enumerate(FAMILIES):
        print(f"  {name:<8} predicted − true {(predicted - within)[family == k].mean():+.3f}")
    print(f"  curve at {KNOTS.tolist()}: {fitted(agreeing, within).round(2).tolist()}")


if __name__ == "__main__":
    main()
