"""Rendered crowds, where people hide one another, are cut off by the frame, small, or badly seen.

    python benchmarks/crowds.py --out data/crowds --scenes 5
    python benchmarks/crowds.py --out data/crowds --scenes 6 --harsh
    python benchmarks/crowd_confidence.py --crowds data/crowds

Six families, each scene with noise, blur and light of its own: a row side by side, a throng at all depths, people who
meet in the middle, people so close that the frame cuts them off, a crowd far away, and people behind crates.

Everything is drawn from the seed, so that the same command gives the same pixels (as one environment renders them).

Each scene is a file `FAMILY-SEED.npz` (`FAMILY-hSEED.npz` of the harsh ones): `rgb` uint8 `[T, H, W, 3]`, `person`
uint8 `[T, H, W]` (index + 1; 0 nobody), `parts` uint8 `[T, H, W]` (1–24; 0 nobody), `joints` float32 `[T, P, 17, 3]`
and `boxes` float32 `[T, P, 4]` as in `unibench.rendering.truth.People`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from unibench.camera import Camera, intrinsics, look_at
from unibench.rendering.shaded import shade
from unibench.rendering.truth import trace
from unibench.scenes import meshes, textures
from unibench.scenes.families import Spec, build
from unibench.scenes.graph import Instance, Scene, still
from unibench.scenes.people import Gesture, Walk, person

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

FAMILIES = ("row", "throng", "meet", "close", "far", "crates")
FRAMES, HEIGHT, WIDTH, FPS = 6, 180, 320, 8.0
_GESTURES: tuple[Gesture, ...] = ("none", "none", "wave", "raise", "carry")


def places(family: str, rng: Rng) -> Iterator[tuple[float, float, float]]:
    """Depth and side (metres from the camera, which looks along x) and heading of each person."""
    ahead, turned = float(rng.uniform(-0.3, 0.3)), float(rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]))
    match family:
        case "row":
            depth = rng.uniform(4, 6)
            for k in range(5):
                yield depth + rng.uniform(-0.4, 0.4), (k - 2) * rng.uniform(0.35, 0.7), turned + ahead
        case "throng":
            for _ in range(7):
                depth = rng.uniform(3, 10)
                yield depth, depth * rng.uniform(-0.5, 0.5), rng.uniform(0, 2 * np.pi)
        case "meet":
            for sign in (-1, 1, -1, 1):
                yield rng.uniform(3.5, 6), sign * rng.uniform(0, 0.5), -sign * np.pi / 2 + rng.uniform(-0.3, 0.3)
        case "close":
            for k in range(3):
                yield rng.uniform(1.3, 2.6), (k - 1) * rng.uniform(0.4, 1.0), np.pi + rng.uniform(-1.5, 1.5)
        case "far":
            for _ in range(6):
                depth = rng.uniform(9, 16)
                yield depth, depth * rng.uniform(-0.4, 0.4), rng.uniform(0, 2 * np.pi)
        case _:
            for k in range(3):
                yield rng.uniform(3.5, 6), (k - 1) * rng.uniform(0.6, 1.2), rng.uniform(0, 2 * np.pi)


def scene_of(family: str, seed: int, harsh: bool) -> Scene:
    """People before a standing camera at the height of a person's, a wall behind them, crates before them."""
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    base = build(Spec("walk", seed, FRAMES, HEIGHT, WIDTH, FPS))
    people, depths = [], []
    for k, (depth, side, heading) in enumerate(places(family, rng), 1):
        gesture = _GESTURES[rng.integers(len(_GESTURES))]
        walk = Walk(
            (depth, side), heading, float(rng.choice([0.0, 0.9, 1.2])), rng.uniform(-0.3, 0.3), rng.uniform(), gesture
        )
        people.append(person(f"person {k}", walk, rng.normal(0, 0.8, 6), FRAMES, FPS, rng))
        depths.append(depth)
    stage = [instance for instance in base.instances if instance.name == "floor"]
    colours = (
        rng.uniform(0.1, 0.9, (2, 3)) if harsh else rng.uniform(0.25, 0.75, (2, 1)) + rng.uniform(-0.1, 0.1, (2, 3))
    )
    papers = [textures.draw(textures.PATTERNS[rng.integers(4)], *colours, rng) for _ in range(2)]
    behind = max(depths) + rng.uniform(1, 3)
    stage.append(_box("wall", "wall", np.array([0.1, 40, rng.uniform(1, 6)]), (behind, 0.0), papers[0]))
    if family == "crates":
        for side in rng.uniform(-1, 1, 3):
            size = rng.uniform(0.4, 1.1, 3)
            stage.append(_box("crate", "crate", size, (min(depths) - 1.2, float(side)), papers[1]))
    eye = np.array([0.0, 0.0, rng.uniform(1.0, 2.2)])
    pose = look_at(eye, np.array([float(np.median(depths)), 0.0, 0.9]))
    matrix = intrinsics(rng.uniform(0.8, 1.1), HEIGHT, WIDTH)
    camera = Camera(np.tile(matrix, (FRAMES, 1, 1)), np.tile(pose, (FRAMES, 1, 1)), HEIGHT, WIDTH)
    return replace(base, instances=(*stage, *people), camera=camera)


def _box(name: str, kind: str, size: Floats, at: tuple[float, float], picture: textures.Picture) -> Instance:
    mesh, pose = meshes.box(size), np.eye(4)
    pose[:3, 3] = (*at, size[2] / 2)
    return Instance(name, kind, mesh, still(mesh, pose, FRAMES), picture, thing=kind == "crate")


def badly_seen(frames: npt.NDArray[np.uint8], rng: Rng, harsh: bool) -> npt.NDArray[np.uint8]:
    """Frames through a lens out of focus, in less light, with noise: each scene in its own measure, some hardly."""
    strength = rng.uniform(0, 1) ** 2
    light = 1 - (0.7 if harsh else 0.6) * strength * rng.uniform()
    sharp = frames.astype(np.float32) * light
    blur = (2.5 if harsh else 2) * strength * rng.uniform()
    if blur > 0.3:
        sharp = np.stack([cv2.GaussianBlur(frame, (0, 0), blur) for frame in sharp])
    noisy = sharp + rng.normal(0, 2 + (25 if harsh else 12) * strength * rng.uniform(), sharp.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def render(family: str, seed: int, harsh: bool, to: Path) -> None:
    scene = scene_of(family, seed, harsh)
    truth = trace(scene)
    assert truth.people is not None
    rgb = badly_seen(shade(scene), np.random.default_rng([seed, 1]), harsh)
    surface, joints, boxes = truth.people.surface, truth.people.keypoints, truth.people.boxes
    np.savez_compressed(to, rgb=rgb, person=surface[..., 3], parts=surface[..., 0], joints=joints, boxes=boxes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=8, help="scenes a family")
    parser.add_argument("--harsh", action="store_true", help="garish walls, and twice the noise")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.scenes):
        for family in FAMILIES:
            to = arguments.out / f"{family}-{'h' * arguments.harsh}{seed:03}.npz"
            if not to.exists():
                render(family, seed, arguments.harsh, to)


if __name__ == "__main__":
    main()
