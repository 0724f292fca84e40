"""The body fitted to landmarks: one person's pose in every frame and one shape, by Gauss–Newton.

What is minimised over joint rotations R (T × J), weak-perspective scale and shift, and shape β:

- 2D: distances of projected landmarks, over the person's size, robust (Geman–McClure) and weighted by visibility;
- 3D: distances of landmarks about the hips after the best scale, depth at half weight (it is the least sure);
- how far joints turn from rest, with a deviation of their own for each axis (a knee hardly twists), and limits of knees
  and elbows;
- first and second differences of rotations and of the camera from frame to frame.

All frames are solved at once. A step's normal equations are block-banded (a frame meets its two neighbours on either
side), so a step costs time linear in the number of frames. The first guess is analytic: the trunk by Kabsch's method
on shoulders and hips, each limb by the directions of its bones, its twist by the plane in which it bends.

Everything is in the viewer's axes: x right, y up, z towards the viewer, metres; pixels only in 2D.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from openuni.body.body import Body, Floats

_SIGMA_2D = 0.02
"""Deviation of a landmark in the picture, over the person's size in it."""
_SIGMA_3D = 0.06
"""Deviation of a landmark in space, metres."""
_DEPTH = 0.5
"""Weight of depth beside x and y in the 3D term."""
_SIGMA_TURN, _SIGMA_JERK = 0.25, 0.12
"""Deviations of the first and second differences of rotations, radians a frame."""
_SIGMA_CAMERA = 0.01
"""Deviation of second differences of the camera, over the person's size."""
_STEPS = 14

# Deviation (radians) of each joint's turn from rest about x (its left), y (up), z (forward).
_LOOSE = {
    "pelvis": (9, 9, 9),
    "spine": (0.3, 0.25, 0.2),
    "chest": (0.3, 0.3, 0.2),
    "neck": (0.4, 0.4, 0.3),
    "head": (0.4, 0.5, 0.3),
    "clavicle": (0.1, 0.2, 0.25),
    "upper_arm": (1.5, 1.5, 1.5),
    "forearm": (1.5, 1.5, 1.5),
    "hand": (0.4, 0.4, 0.4),
    "thigh": (1.5, 0.4, 0.6),
    "shin": (1.5, 0.08, 0.08),
    "foot": (0.4, 0.25, 0.2),
    "toes": (0.01, 0.01, 0.01),
}


@dataclass(frozen=True, eq=False)
class Observed:
    """One person's landmarks in T consecutive frames; rows as in `Body.landmark_names` (L).

    `points` `[T, L, 2]` pixels (x right, y down), `weights` `[T, L]` 0–1, `space` `[T, L, 3]` metres in the viewer's
    axes about any origin, `size` `[T]` pixels: the person's size in the picture. No NaN; weight 0 is unknown.
    """

    points: Floats
    weights: Floats
    space: Floats
    size: Floats


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted body: `rotations` `[T, J, 3, 3]`, `shape` `[S]`, `scale` `[T]` pixels a metre and `shift` `[T, 2]`.

    `error` `[T]`: weighted mean distance of projected landmarks to the observed ones, over the person's size.
    """

    rotations: Floats
    shape: Floats
    scale: Floats
    shift: Floats
    error: Floats

    def vertices(self, body: Body, frame: int) -> Floats:
        """Vertices of one frame for `rasterise`: x, y in pixels, z growing away from the viewer, `[V, 3]`."""
        posed = body.pose(self.rotations[frame : frame + 1], self.shape)[0]
        scale = self.scale[frame]
        placed: Floats = posed * [scale, -scale, -scale] + [*self.shift[frame], 0.0]
        return placed


@dataclass(frozen=True, eq=False)
class _Rig:
    """Landmarks as points carried by joints: landmark l = Σ_j G_j a_lj + b_lj x_j, all linear in shape."""

    carry: Floats
    """`a` at mean shape `[L, J, 3]`."""
    carry_shape: Floats
    """How shape moves `a`, `[S, L, J, 3]`."""
    share: Floats
    """`b` `[L, J]`."""
    below: npt.NDArray[np.bool_]
    """`[J, J]`: joint j turns joint k."""
    deviation: Floats
    """Allowed turn of each joint `[J, 3]`, radians."""


@cache
def _rig(body: Body) -> _Rig:
    weights = np.einsum("lv,vj->lvj", body.landmark_regressor, body.skinning)
    share = weights.sum(1)

    def carried(vertices: Floats, joints: Floats) -> Floats:
        points: Floats = np.einsum("lvj,va->lja", weights, vertices) - share[..., None] * joints
        # A detector's shoulder or hip lies between the regressed point and the joint.
        for name, joint in (("shoulder", "upper_arm"), ("hip", "thigh")):
            for side in ("left", "right"):
                row, j = body.landmark_names.index(f"{side}_{name}"), body.joint(f"{side}_{joint}")
                points[row] *= 0.5
                points[row, body.parents[j]] += 0.5 * (joints[j] - joints[body.parents[j]])
        return points

    carry = carried(body.vertices, body.joints)
    moved = [carried(v, j) for v, j in zip(body.components, body.joint_components, strict=True)]
    for name, joint in (("shoulder", "upper_arm"), ("hip", "thigh")):
        for side in ("left", "right"):
            row, j = body.landmark_names.index(f"{side}_{name}"), body.joint(f"{side}_{joint}")
            share[row] *= 0.5
            share[row, body.parents[j]] += 0.5
    below = np.eye(len(body.parents), dtype=bool)
    for k, parent in enumerate(body.parents):
        if parent >= 0:
            below[:, k] |= below[:, parent]
    deviation = np.array([_LOOSE[name.removeprefix("left_").removeprefix("right_")] for name in body.joint_names])
    return _Rig(carry, np.array(moved), share, below, deviation)


def fit(body: Body, seen: Observed) -> Fit:
    """Fit the body to one person in T consecutive frames (T ≥ 1)."""
    rig = _rig(body)
    rotations = _first_guess(body, seen)
    shape = np.zeros(len(body.components))
    scale, shift = _camera(_landmarks(body, rig, rotations, shape)[0], seen)
    for step in range(_STEPS):
        rotations, scale, shift = _step(body, rig, seen, rotations, shape, scale, shift)
        if step in (2, 5, 8):
            shape = _reshape(body, rig, seen, rotations, shape, scale, shift)
    points = _project(_landmarks(body, rig, rotations, shape)[0], scale, shift)
    distance = np.linalg.norm(points - seen.points, axis=2)
    error = (distance * seen.weights).sum(1) / np.maximum(seen.weights.sum(1), 1e-6) / seen.size
    return Fit(rotations, shape, scale, shift, error)


def _landmarks(body: Body, rig: _Rig, rotations: Floats, shape: Floats) -> tuple[Floats, Floats, Floats]:
    """Landmarks `[T, L, 3]`, world rotations `[T, J, 3, 3]` and joints `[T, J, 3]`."""
    world, places = body.place(rotations, body.rest(shape)[1])
    carry = rig.carry + np.tensordot(shape, rig.carry_shape, 1)
    points: Floats = np.einsum("tjab,ljb->tla", world, carry, optimize=True)
    points += np.einsum("lj,tja->tla", rig.share, places)
    return points, world, places


def _project(points: Floats, scale: Floats, shift: Floats) -> Floats:
    return points[..., :2] * scale[:, None, None] * [1, -1] + shift[:, None]


def _camera(points: Floats, seen: Observed) -> tuple[Floats, Floats]:
    """Scale and shift of each frame by weighted least squares."""
    weight = seen.weights[..., None] + 1e-6
    flat = points[..., :2] * [1, -1]
    middle = (flat * weight).sum(1) / weight.sum(1)
    target = (seen.points * weight).sum(1) / weight.sum(1)
    a, b = flat - middle[:, None], seen.points - target[:, None]
    scale = np.maximum((weight * a * b).sum((1, 2)) / (weight * a * a).sum((1, 2)), 1e-3 * seen.size)
    return scale, target - scale[:, None] * middle


def _about_hips(body: Body, points: Floats) -> Floats:
    """Landmarks relative to the middle of the hips."""
    hips = [body.landmark_names.index(f"{side}_hip") for side in ("left", "right")]
    centred: Floats = points - points[:, hips].mean(1, keepdims=True)
    return centred


def _step(
    body: Body,
    rig: _Rig,
    seen: Observed,
    rotations: Floats,
    shape: Floats,
    scale: Floats,
    shift: Floats,
) -> tuple[Floats, Floats, Floats]:
    """One damped Gauss–Newton step over all frames."""
    frames, joints = rotations.shape[:2]
    size = 3 * joints + 3
    points, world, places = _landmarks(body, rig, rotations, shape)

    # How each landmark moves when a joint turns about its own axes: axis × lever, the lever being what hangs below it.
    hung = np.einsum("tjab,ljb->tlja", world, rig.carry + np.tensordot(shape, rig.carry_shape, 1), optimize=True)
    hung += rig.share[:, :, None] * places[:, None]
    hung = np.einsum("jk,tlka->tlja", rig.below.astype(float), hung, optimize=True)
    lever = hung - (rig.share @ rig.below.T)[:, :, None] * places[:, None]
    axes = np.moveaxis(world, 3, 2)  # [t, j, k, a]: axis k of joint j in the viewer's frame
    turn = np.cross(axes[:, None], lever[:, :, :, None])  # [t, l, j, k, a]
    turn = turn.reshape(frames, -1, 3 * joints, 3).transpose(0, 1, 3, 2)  # [t, l, a, 3j]

    matrix = np.zeros((frames, size, size))
    slope = np.zeros((frames, size))

    # 2D. The camera's three numbers: log scale, and the shift over the person's size.
    off = _project(points, scale, shift) - seen.points
    jacobian = np.zeros((*off.shape, size))
    jacobian[..., : 3 * joints] = turn[:, :, :2] * (scale[:, None, None] * np.array([1, -1]))[..., None]
    jacobian[..., 3 * joints] = off + seen.points - shift[:, None]
    jacobian[:, :, 0, 3 * joints + 1] = jacobian[:, :, 1, 3 * joints + 2] = seen.size[:, None]
    unit = (_SIGMA_2D * seen.size)[:, None]
    squared = (off**2).sum(2) / unit**2
    weight = seen.weights / unit**2 / (1 + squared / 9) ** 2
    _add(matrix, slope, jacobian, off, np.repeat(weight[..., None], 2, 2))

    # 3D about the hips; the observer's metre is not ours, one factor a person.
    mine, theirs = _about_hips(body, points), _about_hips(body, seen.space)
    importance = seen.weights[..., None] * [1, 1, _DEPTH]
    factor = (importance * mine * theirs).sum() / max((importance * theirs**2).sum(), 1e-9)
    hips = [body.landmark_names.index(f"{side}_hip") for side in ("left", "right")]
    jacobian = np.zeros((*points.shape, size))
    jacobian[..., : 3 * joints] = turn - turn[:, hips].mean(1, keepdims=True)
    apart = mine - factor * theirs
    squared = (apart**2).sum(2) / _SIGMA_3D**2
    weight = importance / _SIGMA_3D**2 / (1 + squared[..., None] / 9) ** 2
    _add(matrix, slope, jacobian, apart, weight)

    turned = _log(rotations)
    precision = 1 / rig.deviation.ravel() ** 2
    diagonal = np.einsum("tii->ti", matrix)
    diagonal[:, : 3 * joints] += precision
    slope[:, : 3 * joints] += precision * turned.reshape(frames, -1)
    _limits(body, turned, diagonal, slope)
    diagonal += 1e-3 + 0.01 * diagonal  # Levenberg's damping

    delta = _solve(matrix, slope, rotations, scale, shift, seen.size)
    delta[:, : 3 * joints] = np.clip(delta[:, : 3 * joints], -0.6, 0.6)
    rotations = rotations @ _exp(delta[:, : 3 * joints].reshape(frames, joints, 3))
    scale = scale * np.exp(np.clip(delta[:, 3 * joints], -0.3, 0.3))
    return rotations, scale, shift + delta[:, 3 * joints + 1 :] * seen.size[:, None]


def _add(matrix: Floats, slope: Floats, jacobian: Floats, residual: Floats, weight: Floats) -> None:
    """Add Jᵀ W J and Jᵀ W r of each frame, in place."""
    frames, size = slope.shape
    flat = jacobian.reshape(frames, -1, size)
    weighted = flat * weight.reshape(frames, -1, 1)
    matrix += np.matmul(weighted.transpose(0, 2, 1), flat)
    slope += np.einsum("trn,tr->tn", weighted, residual.reshape(frames, -1))


def _limits(body: Body, turned: Floats, diagonal: Floats, slope: Floats) -> None:
    """Knees do not bend forwards (a turn about x below −.15) nor elbows backwards, in place."""
    bounds = [(f"{side}_shin", np.array([1.0, 0, 0]), -0.15) for side in ("left", "right")]
    for side in ("left", "right"):
        arm, elbow, hand = (body.joints[body.joint(f"{side}_{n}")] for n in ("upper_arm", "forearm", "hand"))
        axis = np.cross(elbow - arm, hand - elbow)
        bounds.append((f"{side}_forearm", axis / np.linalg.norm(axis), -0.5))
    for name, axis, least in bounds:
        j = body.joint(name)
        excess = np.minimum(turned[:, j] @ axis - least, 0)
        beyond = (excess < 0) / 0.05**2
        columns = slice(3 * j, 3 * j + 3)
        diagonal[:, columns] += beyond[:, None] * axis**2
        slope[:, columns] += (beyond * excess)[:, None] * axis


def _solve(matrix: Floats, slope: Floats, rotations: Floats, scale: Floats, shift: Floats, size: Floats) -> Floats:
    """The step under smoothness in time: blocks of frames coupled to their two neighbours on either side."""
    from scipy.linalg import solveh_banded

    frames, n = slope.shape
    joints = rotations.shape[1]
    first = np.concatenate([np.full(3 * joints, _SIGMA_TURN), np.full(3, 1e3)]) ** -2
    second = np.concatenate([np.full(3 * joints, _SIGMA_JERK), np.full(3, _SIGMA_CAMERA)]) ** -2
    second[3 * joints] = (2 * _SIGMA_CAMERA) ** -2
    change = np.zeros((frames, n))  # change[t]: from frame t to t + 1
    if frames > 1:
        change[:-1, : 3 * joints] = _log(rotations[:-1].swapaxes(-1, -2) @ rotations[1:]).reshape(frames - 1, -1)
        change[:-1, 3 * joints] = np.diff(np.log(scale))
        change[:-1, 3 * joints + 1 :] = np.diff(shift, axis=0) / size[:-1, None]
    couple = np.zeros((3, frames, n))  # diagonals of the blocks between t and t, t + 1, t + 2
    slope = slope.copy()
    for order, stencil, precision in ((1, (-1, 1), first), (2, (1, -2, 1), second)):
        count = frames - order
        if count <= 0:
            continue
        residual = change[:count] if order == 1 else change[1 : 1 + count] - change[:count]
        for i, a in enumerate(stencil):
            slope[i : i + count] += a * precision * residual
            for k in range(i, len(stencil)):
                couple[k - i, i : i + count] += a * stencil[k] * precision
    reach = max(n - 1, min(2, frames - 1) * n)
    banded = np.zeros((reach + 1, frames * n))  # lower form: banded[i - j, j] = H[i, j]
    rows, columns = np.tril_indices(n)
    for t in range(frames):
        banded[rows - columns, t * n + columns] = matrix[t][rows, columns]
    for k in range(3):
        if k < frames:
            banded[k * n] += couple[k].ravel()
    step: Floats = solveh_banded(banded, -slope.ravel(), lower=True, overwrite_ab=True)
    return step.reshape(frames, n)


def _reshape(
    body: Body, rig: _Rig, seen: Observed, rotations: Floats, shape: Floats, scale: Floats, shift: Floats
) -> Floats:
    """The shape that explains all frames best under the present poses, within about two deviations."""
    points, world, _ = _landmarks(body, rig, rotations, shape)
    jacobian = np.empty((*points.shape, len(shape)))
    for s, (carry, joints) in enumerate(zip(rig.carry_shape, body.joint_components, strict=True)):
        places = np.empty((len(points), len(joints), 3))
        for j, parent in enumerate(body.parents):
            if parent < 0:
                places[:, j] = joints[j]
            else:
                places[:, j] = places[:, parent] + world[:, parent] @ (joints[j] - joints[parent])
        jacobian[..., s] = np.einsum("tjab,ljb->tla", world, carry, optimize=True)
        jacobian[..., s] += np.einsum("lj,tja->tla", rig.share, places)
    matrix, slope = np.eye(len(shape)) * 4.0, 4.0 * shape
    count = max(1, len(points) // 4)  # neighbouring frames repeat each other's errors
    unit = (_SIGMA_2D * seen.size)[:, None, None]
    off = (_project(points, scale, shift) - seen.points) / unit
    flat = jacobian[:, :, :2] * (scale[:, None, None] * [1, -1] / unit)[..., None]
    hips = [body.landmark_names.index(f"{side}_hip") for side in ("left", "right")]
    mine, theirs = _about_hips(body, points), _about_hips(body, seen.space)
    importance = seen.weights[..., None] * [1, 1, _DEPTH]
    factor = (importance * mine * theirs).sum() / max((importance * theirs**2).sum(), 1e-9)
    deep = (jacobian - jacobian[:, hips].mean(1, keepdims=True)) / _SIGMA_3D
    for residual, change, weight in (
        (off, flat, np.repeat(seen.weights[..., None], 2, 2)),
        ((mine - factor * theirs) / _SIGMA_3D, deep, importance),
    ):
        weight = weight / (1 + (residual**2).sum(2, keepdims=True) / 9) ** 2 * (count / len(points))
        weighted = change * weight[..., None]
        matrix = matrix + np.tensordot(weighted, change, ((0, 1, 2), (0, 1, 2)))
        slope = slope + np.tensordot(weighted, residual, ((0, 1, 2), (0, 1, 2)))
    return np.clip(shape - np.linalg.solve(matrix, slope), -2.5, 2.5)


def _first_guess(body: Body, seen: Observed) -> Floats:
    """Local rotations `[T, J, 3, 3]` from the landmarks in space alone."""
    frames = len(seen.space)
    rows = {name: i for i, name in enumerate(body.landmark_names)}
    rest = body.landmark_regressor @ body.vertices
    trunk = [rows[f"{side}_{name}"] for name in ("shoulder", "hip") for side in ("left", "right")]
    world = np.tile(np.eye(3), (frames, len(body.parents), 1, 1))
    root = _kabsch(rest[trunk], seen.space[:, trunk])
    world[:] = root[:, None]
    chains = {"forearm": ("upper_arm", "shoulder", "elbow", "wrist"), "shin": ("thigh", "hip", "knee", "ankle")}
    for side in ("left", "right"):
        for lower, (upper, *names) in chains.items():
            a, b, c = (rows[f"{side}_{name}"] for name in names)
            above, below = body.joint(f"{side}_{upper}"), body.joint(f"{side}_{lower}")
            u0, l0 = _unit(rest[b] - rest[a]), _unit(rest[c] - rest[b])
            u, down = _unit(seen.space[:, b] - seen.space[:, a]), _unit(seen.space[:, c] - seen.space[:, b])
            swung = _swing(np.einsum("tab,b->ta", root, u0), u) @ root
            # A straight limb has no plane: there the twist stays the trunk's.
            bend = np.linalg.norm(np.cross(u, down), axis=1)
            planned = _frame(u, down) @ _frame(u0[None], l0[None]).swapaxes(-1, -2)
            upper_world = np.where((bend > 0.35)[:, None, None], planned, swung)
            lower_world = _swing(np.einsum("tab,b->ta", upper_world, l0), down) @ upper_world
            for k in range(len(body.parents)):
                if _below(body, above, k):
                    world[:, k] = lower_world if _below(body, below, k) else upper_world
    local = world.copy()
    for j, parent in enumerate(body.parents):
        if parent >= 0:
            local[:, j] = world[:, parent].swapaxes(-1, -2) @ world[:, j]
    return local


def _below(body: Body, top: int, joint: int) -> bool:
    while joint >= 0 and joint != top:
        joint = int(body.parents[joint])
    return joint == top


def _unit(v: Floats) -> Floats:
    length: Floats = np.linalg.norm(v, axis=-1, keepdims=True)
    unit: Floats = v / np.maximum(length, 1e-9)
    return unit


def _kabsch(source: Floats, target: Floats) -> Floats:
    """Rotations `[T, 3, 3]` that turn points `[N, 3]` onto points `[T, N, 3]` best (Kabsch 1976)."""
    covariance = np.einsum("na,tnb->tab", source - source.mean(0), target - target.mean(1, keepdims=True))
    u, _, vt = np.linalg.svd(covariance)
    flip = np.ones((len(target), 3))
    flip[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    turn: Floats = np.einsum("tba,tb,tcb->tac", vt, flip, u)
    return turn


def _swing(a: Floats, b: Floats) -> Floats:
    """The least rotations `[T, 3, 3]` that turn unit vectors a onto b, `[T, 3]`."""
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(sine, (a * b).sum(1))
    return _exp(axis / np.maximum(sine, 1e-9)[:, None] * angle[:, None])


def _frame(u: Floats, down: Floats) -> Floats:
    """Orthonormal frames `[T, 3, 3]` (columns) from a bone's direction and the next bone's."""
    hinge = _unit(np.cross(u, down))
    return np.stack([u, hinge, np.cross(u, hinge)], -1)


def _exp(v: Floats) -> Floats:
    """Rotation matrices `[…, 3, 3]` of rotation vectors `[…, 3]` (Rodrigues)."""
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    k = np.zeros((*v.shape, 3))
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    k -= k.swapaxes(-1, -2)
    small = np.maximum(angle, 1e-8)
    turn: Floats = np.eye(3) + np.sin(small) / small * k + (1 - np.cos(small)) / small**2 * (k @ k)
    return turn


def _log(r: Floats) -> Floats:
    """Rotation vectors `[…, 3]` of rotation matrices, of angle at most π."""
    from scipy.spatial.transform import Rotation

    vectors: Floats = Rotation.from_matrix(r.reshape(-1, 3, 3)).as_rotvec().reshape(r.shape[:-1])
    return vectors
