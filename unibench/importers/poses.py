"""Rotations and the axes of other worlds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError

Floats = npt.NDArray[np.float64]


def rotation(quaternion: Floats) -> Floats:
    """Rotation matrices `[..., 3, 3]` of quaternions `[..., 4]` in the order x, y, z, w; normalised first.

    Raises CorruptDataError where one is zero or not a number.
    """
    norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not np.isfinite(norm).all() or (norm < 1e-6).any():
        raise CorruptDataError("a pose has a zero or undefined quaternion; is the pose file complete?")
    x, y, z, w = np.moveaxis(quaternion / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose(turn: Floats, position: Floats) -> Floats:
    """Camera-to-world matrices `[T, 4, 4]` from rotations `[T, 3, 3]` and positions `[T, 3]`."""
    matrix = np.tile(np.eye(4), (len(turn), 1, 1))
    matrix[:, :3, :3], matrix[:, :3, 3] = turn, position
    return matrix


def change_axes(poses: Floats, world: Floats, camera: Floats) -> Floats:
    """Poses `[T, 4, 4]` in other axes: `world` `[3, 3]` takes their world to ours, `camera` our camera to theirs."""
    return pose(world @ poses[:, :3, :3] @ camera, poses[:, :3, 3] @ world.T)


NED_WORLD = np.diag([1.0, -1.0, -1.0])
"""North, east, down to x, y, z with z up."""
NED_CAMERA = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Right, down, forward to forward, right, down."""
