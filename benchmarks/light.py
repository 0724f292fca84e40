"""How well the light path's confidence predicts its quality: flow on made pairs, depth on rendered scenes.

    unibench render --out data/light --scenes 60 --frames 12 --size 192 --seed 7000
    python benchmarks/light.py --scenes data/light

Flow: five families of pairs (an affine motion, a large one, squares over a ground, noise, low contrast), the share of
pixels within 1 px from forward–backward agreement. Depth: the clips whose camera moves, rank correlation with the truth
within a frame from the gain by parallax. Each curve is fitted on all families but one, and judged on that one. Prints
rank correlation (Spearman) and calibration error (mean gap over bins of equal count) over all, and the curve fitted on
all families, which the expert holds. People: see `light_people.py`. Without `--scenes` it is flow alone.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import cv2
import light_people
import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.stats import spearmanr

import openuni
from openuni.experts.base import DecodedClip
from openuni.experts.dis import dis_flow, round_trip
from openuni.experts.fastdepth import FastDepth

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Names = npt.NDArray[np.str_]

FAMILIES = ("affine", "large", "layers", "noisy", "flat")
PAIRS = 24
HEIGHT, WIDTH, AROUND = 160, 240, 60
KNOTS = np.array([0, 0.4, 0.6, 0.8, 0.9, 1.0])
GAINS = np.array([-0.1, 0, 0.1, 0.2, 0.4])


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


def fitted(seen: Floats, true: Floats, knots: Floats) -> Floats:
    """Values of the rising curve at the knots, from 0: non-negative least squares over its steps."""
    steps = np.stack([np.clip((seen - a) / (b - a), 0, 1) for a, b in pairwise(knots)], axis=1)
    rises, _ = nnls(np.vstack([steps, np.full((1, len(knots) - 1), 1e-2)]), np.append(true, 1e-2))
    curve: Floats = np.clip(np.concatenate([[0], np.cumsum(rises)]), 0, 1)
    return curve


def left_out(family: Names, seen: Floats, true: Floats, knots: Floats) -> Floats:
    """Predictions of each family by the curve of all others."""
    predicted = np.empty_like(true)
    for name in np.unique(family):
        here = family == name
        predicted[here] = np.interp(seen[here], knots, fitted(seen[~here], true[~here], knots))
    return predicted


def calibration_error(predicted: Floats, true: Floats, bins: int = 10) -> float:
    rows = np.array_split(np.argsort(predicted), bins)
    return float(sum(len(row) * abs(predicted[row].mean() - true[row].mean()) for row in rows) / len(predicted))


def interval(predicted: Floats, true: Floats) -> tuple[float, float]:
    """95 % of Spearman's correlation, by resampling clips."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(true), (2000, len(true)))
    low, high = np.nanpercentile([spearmanr(predicted[i], true[i])[0] for i in chosen], [2.5, 97.5])
    return float(low), float(high)


def report(what: str, family: Names, seen: Floats, true: Floats, knots: Floats, bins: int) -> None:
    predicted = left_out(family, seen, true, knots)
    low, high = interval(predicted, true)
    print(f"{what}, each family left out of its own fit")
    print(f"  Spearman           {spearmanr(predicted, true)[0]:.3f} (95 %: {low:.2f} to {high:.2f})")
    print(f"  calibration error  {calibration_error(predicted, true, bins):.3f}")
    for name in np.unique(family):
        print(f"  {name:<10} predicted − true {(predicted - true)[family == name].mean():+.3f}")
    print(f"  curve at {knots.tolist()}: {fitted(seen, true, knots).round(2).tolist()}")


def flow() -> None:
    table = np.array([measured(family, seed) for family in FAMILIES for seed in range(PAIRS)])
    family = np.repeat(np.array(FAMILIES), PAIRS)
    report(f"flow, {len(table)} pairs", family, table[:, 0], table[:, 1], KNOTS, 10)


def depth(scenes: Path) -> None:
    expert = FastDepth()
    expert.setup()
    rows, families = [], []
    still = 0
    for sample in openuni.open(scenes):
        clip = DecodedClip(sample.key, sample.rgb.frames, sample.record.fps, {})
        annotation = expert.annotate(clip)
        gain = annotation.scores.get("depth_parallax_gain")
        if gain is None:
            still += 1
            continue
        rows.append((gain, max(0.0, order(annotation.value.values, sample.depth.values))))
        families.append(sample.key.split("-")[1])
    expert.teardown()
    table = np.array(rows)
    print(f"depth: {still} clips without parallax, unverified")
    report(f"depth, {len(rows)} clips with parallax", np.array(families), table[:, 0], table[:, 1], GAINS, 5)


def order(predicted: Image, true: Image) -> float:
    """Mean rank correlation within a frame of two depths `[T, H, W]`, every seventh pixel."""
    known = np.isfinite(predicted) & np.isfinite(true)
    return float(
        np.mean([spearmanr(p[k][::7], t[k][::7])[0] for p, t, k in zip(predicted, true, known, strict=True) if k.any()])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="a dataset of rendered scenes, for depth and people")
    scenes = parser.parse_args().scenes
    cv2.setNumThreads(1)
    flow()
    if scenes is not None:
        depth(scenes)
        light_people.measure(scenes)


if __name__ == "__main__":
    main()
