"""Is a predicted depth right? Where the camera moves, what is near moves farther: its parallax tells.

For one pair of frames a camera that turns by ω and moves by t sees the flow A ω + d B t (Longuet-Higgins and Prazdny,
1980; A, B of the pixel's place alone, d its disparity). The model is fitted to the flow robustly twice, with the
predicted disparity and with the same one everywhere; the gain is what the prediction takes off the residual. It knows
nothing of how floors, skies or rooms look, so it cannot mistake a familiar picture for a right depth.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from openuni.experts.dis import dis_flow, round_trip

Floats = npt.NDArray[np.float64]

_LONG_SIDE = 192
"""Longer side, in pixels, of the frames between which motion is measured."""
_APART = 1 / 16
"""Seconds between the frames of a pair."""
_PAIRS = 8
"""Pairs looked at in a clip, evenly spread."""
_STEP = 6
"""Pixels between the points the model is fitted to."""
_FEWEST = 50
"""Points, at least, at which both flow and depth are known."""
_MOVES = 0.25
"""Pixels of flow from which a point moves; the camera does where half of the points do."""
_TOLERANCE = 0.15
"""Scale of the robust residual, over the median motion: objects that move by themselves are outliers to the camera."""
_PARALLAX = 1.0
"""Least mean residual of a camera that only turns, over that scale: below, the camera's way has no parallax."""
_EXPLAINED = 2.5
"""Largest mean residual, in that scale, at which a camera with the depth still explains the motion; a point's residual
is capped at 4. A talking head before a car's window left 2.7; flying cameras leave 1.2 to 2.3."""
_ROUNDS = 8


def parallax_gain(frames: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32], fps: float) -> float | None:
    """The gain over a clip `[T, H, W, 3]` with depth `[T, H, W]` (up to scale, NaN unknown): 1 at best, 0 for no use.

    None if there is nothing to judge by: in most pairs the camera stands still or only turns. At most 0 if a camera
    explains little of the motion even with the depth: then other things move, and say nothing about depth.
    """
    apart = max(1, round(_APART * fps))
    if len(frames) <= apart:
        return None
    starts = np.unique(np.linspace(0, len(frames) - 1 - apart, _PAIRS).round().astype(int)).tolist()
    shrink = min(1.0, _LONG_SIDE / max(frames.shape[1:3]))
    size = max(16, round(frames.shape[2] * shrink)), max(16, round(frames.shape[1] * shrink))
    with_it, without = 0.0, 0.0
    judged = 0
    for t in starts:
        here, there = (
            cv2.cvtColor(cv2.resize(frames[k], size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
            for k in (t, t + apart)
        )
        flow = dis_flow(here, there)
        inside, agrees = round_trip(flow, dis_flow(there, here))
        disparity = 1 / cv2.resize(depth[t], size, interpolation=cv2.INTER_NEAREST)
        if (left := residuals(flow, inside & agrees, disparity)) is not None:
            with_it, without, judged = with_it + left[0], without + left[1], judged + 1
    if 2 * judged <= len(starts):
        return None
    gain = 1 - with_it / without
    return gain if with_it <= _EXPLAINED * judged else min(gain, 0.0)


def residuals(
    flow: npt.NDArray[np.float32], known: npt.NDArray[np.bool_], disparity: npt.NDArray[np.float32]
) -> tuple[float, float] | None:
    """What a moving camera leaves unexplained of a flow `[H, W, 2]`, with the disparity `[H, W]` and without.

    Mean robust residuals over the points that are `known` and have a finite positive disparity; None where the camera
    does not move, or its motion has no parallax.
    """
    height, width = known.shape
    y, x = np.mgrid[_STEP // 2 : height : _STEP, _STEP // 2 : width : _STEP]
    d = disparity[y, x].astype(np.float64)
    use = known[y, x] & np.isfinite(d) & (d > 0)
    if use.sum() < _FEWEST:
        return None
    motion = flow[y, x][use].astype(np.float64)
    speed = np.linalg.norm(motion, axis=1)
    if (speed > _MOVES).mean() < 0.5:
        return None
    side = max(height, width)  # stands in for the focal length, which is not known
    turning, moving = _camera((x[use] - width / 2) / side, (y[use] - height / 2) / side)
    scale = max(0.1, _TOLERANCE * float(np.median(speed)))
    if _unexplained(turning, motion, scale) < _PARALLAX:
        return None
    relative = d[use] / np.median(d[use])
    with_it, without = (
        _unexplained(np.concatenate([turning, moving * each], axis=2), motion, scale)
        for each in (relative[:, None, None], 1.0)
    )
    return with_it, without


def _camera(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Flow at points by a camera's turn about its axes and its way along them, both `[N, 2, 3]`."""
    none, one = np.zeros_like(x), np.ones_like(x)
    turning = np.stack([np.stack([x * y, -(1 + x * x), y], axis=1), np.stack([1 + y * y, -x * y, -x], axis=1)], axis=1)
    moving = np.stack([np.stack([-one, none, x], axis=1), np.stack([none, -one, y], axis=1)], axis=1)
    return turning, moving


def _unexplained(model: Floats, motion: Floats, scale: float) -> float:
    """Mean residual, over `scale` and at most 4, of the motion `[N, 2]` after a robust fit of the model `[N, 2, K]`."""
    weight = np.ones(len(motion))
    left = np.zeros(len(motion))
    for _ in range(_ROUNDS):  # least squares, reweighted for Cauchy's loss
        normal = np.einsum("nik,n,nil->kl", model, weight, model)
        right = np.einsum("nik,n,ni->k", model, weight, motion)
        left = np.linalg.norm(model @ (np.linalg.pinv(normal) @ right) - motion, axis=1)
        weight = 1 / (1 + (left / scale) ** 2)
    return float(np.minimum(left / scale, 4).mean())
