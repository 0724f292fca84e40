"""Exact clips that tests write in the encodings of others, and how far a reading is from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from unibench.camera import Camera, intrinsics
from unibench.rendering.shaded import shade
from unibench.rendering.truth import Truth, trace
from unibench.scenes.families import Spec, build


@dataclass(frozen=True, eq=False)
class Clip:
    rgb: np.ndarray
    truth: Truth


@cache
def panning(
    family: str = "fall",
    focal: float = 1.0,
    height: int = 96,
    width: int = 128,
    frames: int = 4,
    axis: tuple[float, float] | None = None,
) -> Clip:
    """A scene before a camera that moves sideways and turns a little; `focal` in image widths, `axis` in pixels."""
    scene = build(Spec(family, 0, frames, height, width, 16.0))
    pose = scene.camera.pose.copy()
    for t in range(frames):
        angle = 0.006 * t
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        pose[t, :3, 3] = pose[0, :3, 3] + pose[0, :3, 0] * 0.03 * t + pose[0, :3, 2] * 0.02 * t
        pose[t, :3, :3] = pose[0, :3, :3] @ turn
    K = np.tile(intrinsics(focal, height, width), (frames, 1, 1))
    if axis is not None:
        K[:, :2, 2] = axis
    scene = replace(scene, camera=Camera(K, pose, height, width))
    return Clip(shade(scene), trace(scene))


def reprojection(truth: Truth, camera: Camera, depth: np.ndarray) -> float:
    """Largest difference, in pixels, between the flow of the stage and what a read depth and camera say of it."""
    stage = [t.id for t in truth.things if not t.thing]
    worst = 0.0
    for t in range(len(truth.forward)):
        pixels = camera.pixels().reshape(camera.height, camera.width, 2)
        points = camera.rays(t, pixels) * depth[t][..., None].astype(np.float64)
        moved = camera.project(t + 1, camera.to_camera(t + 1, camera.to_world(t, points)))
        here = np.isin(truth.ids[t], stage) & ~np.isnan(depth[t])
        worst = max(worst, float(np.abs(moved - pixels - truth.forward[t])[here].max()))
    return worst


def quaternion(turn: np.ndarray) -> np.ndarray:
    """x, y, z, w of a rotation matrix: the eigenvector of Bar-Itzhack's 4 × 4 matrix, for any angle."""
    (a, b, c), (d, e, f), (g, h, i) = turn
    matrix = np.array(
        [
            [a - e - i, d + b, g + c, h - f],
            [d + b, e - a - i, h + f, c - g],
            [g + c, h + f, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    return np.asarray(np.linalg.eigh(matrix / 3)[1][:, -1])
