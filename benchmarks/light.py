"""How well the light path's confidence predicts its quality: flow on made pairs, depth on rendered scenes.

    unibench render --out data/light --scenes 60 --frames 12 --size 192 --seed 7000
    python benchmarks/light.py --scenes data/light

Flow: five families of pairs (an affine motion, a large one, squares over a ground, noise, low contrast), the share of
pixels within 1 px from forward–backward agreement. Depth: the clips whose camera moves, rank correlation with the truth
within a frame from the gain by parallax. Each curve is fitted on all families but one, and judged on that one. Prints
rank correlation (Spearman) and calibration error (mean gap over bins of equal count) over all, and the curve fitted on
all families, which the expert holds. People: see `light_people.py`. Without `--scenes` it is flow alone. `--real` adds
the pairs of FlyingChairs and the frames of TUM and ICL in a folder, by the curves as the experts hold them. `--out`
writes all rows and their pictures (`calibration.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import light_people
import numpy as np
import numpy.typing as npt
from calibration import Judged, Panel, report, save
from scipy.optimize import nnls
from scipy.stats import spearmanr

import openuni
from openuni.experts.base import DecodedClip
from openuni.experts.dis import dis_flow, predicted_quality, round_trip
from openuni.experts.fastdepth import FastDepth
from unibench.formats.flo import read_flo

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]
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


def pair(family: str, seed: int) -> tuple[Frame, Frame, Floats]:
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


def measured(first: Frame, second: Frame, motion: Floats) -> tuple[float, float]:
    """Share of pixels that agree forward and backward, and of those within 1 px of the truth."""
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


def judged(what: str, family: Names, clips: Sequence[str], seen: Floats, true: Floats, knots: Floats) -> list[Judged]:
    """Each row with the confidence that the curve of the other families gives it; printed, with the curve of all."""
    predicted = left_out(family, seen, true, knots)
    rows = [Judged(*row) for row in zip(family.tolist(), clips, predicted.tolist(), true.tolist(), strict=True)]
    report(f"{what}, each family left out of its own fit", rows)
    print(f"  curve at {knots.tolist()}: {fitted(seen, true, knots).round(2).tolist()}")
    return rows


def flow(real: Path | None) -> Panel:
    table = np.array([measured(*pair(family, seed)) for family in FAMILIES for seed in range(PAIRS)])
    family = np.repeat(np.array(FAMILIES), PAIRS)
    clips = [f"{name}-{number % PAIRS}" for number, name in enumerate(family)]
    rows = judged("flow, pairs", family, clips, table[:, 0], table[:, 1], KNOTS)
    beside = []
    for truth in sorted((real / "flow" / "flyingchairs").glob("*-gt.flo")) if real else ():
        first, second = (cv2.imread(str(truth).replace("gt.flo", f"img{k}.ppm"), cv2.IMREAD_GRAYSCALE) for k in (0, 1))
        agreeing, within = measured(first, second, read_flo(truth).astype(np.float64))
        beside.append(Judged("chairs", truth.stem, predicted_quality(agreeing), within))
        print(f"  {truth.stem}: confidence {beside[-1].confidence:.2f}, within 1 px {within:.2f}")
    return Panel("flow: made pairs, families left out", "share of pixels within 1 px", rows, beside, "FlyingChairs")


def depth(scenes: Path, real: Path | None) -> list[Panel]:
    expert = FastDepth()
    expert.setup()
    rows: list[tuple[str, str, float, float]] = []
    still: list[Judged] = []
    for sample in openuni.open(scenes):
        clip = DecodedClip(sample.key, sample.rgb.frames, sample.record.fps, {})
        annotation = expert.annotate(clip)
        gain = annotation.scores.get("depth_parallax_gain")
        right = max(0.0, order(annotation.value.values, sample.depth.values))
        family = sample.key.split("-")[1]
        if gain is None:
            still.append(Judged(family, sample.key, annotation.confidence or 0.0, right))
        else:
            rows.append((family, sample.key, gain, right))
    family, clips, gains, right_ones = zip(*rows, strict=True)
    seen, true = np.array(gains, np.float64), np.array(right_ones, np.float64)
    moving = judged("depth, clips with parallax", np.array(family), clips, seen, true, GAINS)
    report("depth, clips without parallax, unverified", still)
    frames = [_looked_at(expert, name, *files) for name, files in sensed(real).items()] if real else []
    expert.teardown()
    quality = "rank correlation with the truth in a frame"
    return [
        Panel("depth: rendered, the camera moves, families left out", quality, moving),
        Panel("depth: rendered, no parallax, unverified", quality, still, frames, "frames of TUM and ICL"),
    ]


def sensed(real: Path) -> dict[str, tuple[Path, Path]]:
    """Pictures of rooms and their depths, by name."""
    folder = real / "depth"
    return {f"icl {i}": (folder / f"icl/color/{i}.png", folder / f"icl/depth/{i}.png") for i in range(1, 6)} | {
        f"tum {i}": (folder / f"tum/{i}.png", folder / f"tum/{i}_depth.png") for i in (1, 2)
    }


def _looked_at(expert: FastDepth, name: str, colours: Path, depths: Path) -> Judged:
    rgb = np.ascontiguousarray(cv2.imread(str(colours))[None, ..., ::-1])
    true = cv2.imread(str(depths), cv2.IMREAD_UNCHANGED).astype(np.float32)[None]
    annotation = expert.annotate(DecodedClip(name, rgb, 16.0, {}))
    right = max(0.0, order(annotation.value.values, np.where(true > 0, true, np.nan)))
    row = Judged("rooms", name, annotation.confidence or 0.0, right)
    print(f"  {name}: confidence {row.confidence:.2f}, order of surfaces {right:.2f}")
    return row


def order(predicted: Image, true: Image) -> float:
    """Mean rank correlation within a frame of two depths `[T, H, W]`, every seventh pixel."""
    known = np.isfinite(predicted) & np.isfinite(true)
    return float(
        np.mean([spearmanr(p[k][::7], t[k][::7])[0] for p, t, k in zip(predicted, true, known, strict=True) if k.any()])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="a dataset of rendered scenes, for depth and people")
    parser.add_argument("--real", type=Path, help="a folder with flow/flyingchairs and depth/tum, depth/icl")
    parser.add_argument("--out", type=Path, help="folder for light.csv and light.png")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    panels = [flow(arguments.real)]
    if arguments.scenes is not None:
        panels += depth(arguments.scenes, arguments.real)
        panels += light_people.measure(arguments.scenes)
    if arguments.out is not None:
        save(panels, arguments.out, "light")


if __name__ == "__main__":
    main()
