"""A body posed at random, what a landmark detector would see of it, and how a refit compares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from openuni.body import Body, Surface
from openuni.body.fit import Observed

HEIGHT, WIDTH = 360, 640
_PIXELS_A_METRE = 0.7 * HEIGHT / 1.7

_PAIRS = {3: 4, 5: 6, 7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22, 23: 24}
_BACKS = {1: 2, 7: 9, 8: 10, 11: 13, 12: 14, 15: 17, 16: 18, 19: 21, 20: 22}


def _swapped(pairs: dict[int, int]) -> np.ndarray:
    table = np.arange(25)
    for a, b in pairs.items():
        table[a], table[b] = b, a
    return table


OTHER_SIDE, OTHER_FACE = _swapped(_PAIRS), _swapped(_BACKS)


def random_rotations(body: Body, rng: np.random.Generator) -> np.ndarray:
    """Local rotations `[J, 3, 3]`: any heading, limbs within what people do."""
    turn = np.zeros((len(body.parents), 3))
    for name, deviation in (("spine", 0.15), ("chest", 0.15), ("neck", 0.2), ("head", 0.25)):
        turn[body.joint(name)] = rng.normal(0, deviation, 3)
    for side in ("left", "right"):
        shoulder, elbow, wrist = (body.joints[body.joint(f"{side}_{n}")] for n in ("upper_arm", "forearm", "hand"))
        hinge = np.cross(elbow - shoulder, wrist - elbow)
        turn[body.joint(f"{side}_upper_arm")] = rng.normal(0, 0.6, 3)
        turn[body.joint(f"{side}_forearm")] = hinge / np.linalg.norm(hinge) * rng.uniform(-0.4, 1.6)
        turn[body.joint(f"{side}_hand")] = rng.normal(0, 0.2, 3)
        turn[body.joint(f"{side}_thigh")] = rng.normal((-0.3, 0, 0), (0.5, 0.15, 0.2))
        turn[body.joint(f"{side}_shin")] = rng.uniform(0, 1.4), 0, 0
        turn[body.joint(f"{side}_foot")] = rng.normal(0, 0.15, 3)
    rotations = Rotation.from_rotvec(turn).as_matrix()
    heading, nod, lean = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.2), rng.normal(0, 0.15)
    rotations[0] = Rotation.from_euler("yxz", [heading, nod, lean]).as_matrix()
    return rotations


def picture(vertices: np.ndarray) -> np.ndarray:
    """Vertices in the viewer's axes, centred, as `rasterise` wants them in a frame of `HEIGHT` × `WIDTH`."""
    scale = _PIXELS_A_METRE
    return vertices * [scale, -scale, -scale] + [WIDTH / 2, HEIGHT / 2, 0]


def observe(
    body: Body, vertices: np.ndarray, rng: np.random.Generator, noise_2d: float = 0.0, noise_3d: float = 0.0
) -> Observed:
    """Landmarks of bodies `[T, V, 3]`, with noise in metres (in the picture: their equivalent in pixels)."""
    landmarks = np.einsum("lv,tva->tla", body.landmark_regressor, vertices)
    points = np.stack([picture(frame)[:, :2] for frame in landmarks])
    corners = np.stack([picture(frame)[:, :2] for frame in vertices])
    size = np.sqrt(np.prod(np.ptp(corners, axis=1), axis=1))
    return Observed(
        points + rng.normal(0, noise_2d * _PIXELS_A_METRE, points.shape),
        np.ones(points.shape[:2]),
        landmarks + rng.normal(0, noise_3d, landmarks.shape),
        size,
    )


@dataclass(frozen=True)
class Agreement:
    """Shares and mean errors over pixels that both drawings cover."""

    parts: float
    front_back: float
    left_right: float
    u: float
    v: float
    overlap: float


def compare(truth: Surface, found: Surface) -> Agreement:
    both = (truth.part > 0) & (found.part > 0)
    a, b = truth.part[both], found.part[both]
    same = a == b
    paired, faced = a != OTHER_SIDE[a], a != OTHER_FACE[a]
    crossed = (OTHER_SIDE[a] == b) | (OTHER_SIDE[OTHER_FACE[a]] == b)

    def off(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.abs(x[both][same].astype(int) - y[both][same]).mean() / 255)

    return Agreement(
        parts=float(same.mean()),
        front_back=float((OTHER_FACE[a] == b)[faced].mean()),
        left_right=float(crossed[paired].mean()),
        u=off(truth.u, found.u),
        v=off(truth.v, found.v),
        overlap=float(both.sum() / ((truth.part > 0) | (found.part > 0)).sum()),
    )
