"""Flow matching: the path between data and noise, the loss, and the two solvers that walk it back.

x_t = (1 − t) x_0 + t ε with ε ~ N(0, 1), so t = 0 is clean and t = 1 pure noise, and v = ε − x_0 (UnityVideo,
section 4.2.1; Lipman et al., arXiv:2210.02747). P, C, F, H, W as in `dit.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from openuni_model.config import Prediction

Solver = Literal["euler", "adams"]

T_MIN = 0.05
"""Where the loss of an x-prediction stops growing: v̂ = (x_t − x̂) / t, so a velocity error is an error of x̂ over t,
which is singular at t = 0. The loss divides by max(t, T_MIN) (as in Li and He, arXiv:2511.13720); the solvers
divide by t itself, for they never ask at t = 0."""


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Move times towards noise: t ↦ s t / (1 + (s − 1) t) (Esser et al., arXiv:2403.03206, eq. 23)."""
    return shift * t / (1 + (shift - 1) * t)


def logit_normal(normal: Tensor, shift: float) -> Tensor:
    """Training times from standard normal draws: a logit-normal (0, 1), then the shift."""
    return shift_time(torch.sigmoid(normal), shift)


def add_noise(x0_PCFHW: Tensor, noise_PCFHW: Tensor, t_P: Tensor) -> Tensor:
    """x_t; what is at t = 0 comes back exactly clean. `t_P` is `[P]`, or `[P, F]` with a time for each frame."""
    t = t_P.view(len(t_P), 1, -1, 1, 1)
    return (1 - t) * x0_PCFHW + t * noise_PCFHW


def velocity(out_PCFHW: Tensor, x_PCFHW: Tensor, t_P: Tensor, prediction: Prediction) -> Tensor:
    """The velocity that a network's output means at x_t; needs t > 0 for an x-prediction."""
    return out_PCFHW if prediction == "v" else (x_PCFHW - out_PCFHW) / t_P.view(-1, 1, 1, 1, 1)


def velocity_errors(
    out_PCFHW: Tensor, x0_PCFHW: Tensor, noise_PCFHW: Tensor, t_P: Tensor, prediction: Prediction
) -> Tensor:
    """‖v̂ − v‖² of each stream, a mean over its values, `[P]` float32; x-predictions are clamped at T_MIN."""
    out_PCFHW, x0_PCFHW = out_PCFHW.float(), x0_PCFHW.float()
    if prediction == "v":
        return (out_PCFHW - (noise_PCFHW - x0_PCFHW)).square().mean((1, 2, 3, 4))
    return (out_PCFHW - x0_PCFHW).square().mean((1, 2, 3, 4)) / t_P.clamp_min(T_MIN).square()


def timesteps(steps: int, shift: float) -> list[float]:
    """`steps + 1` times from 1 down to 0, evenly spaced before the shift."""
    return [float(t) for t in shift_time(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift)]


def solve(field: Callable[[Tensor, float], Tensor], noise: Tensor, times: list[float], solver: Solver) -> Tensor:
    """Follow dx/dt = field(x, t) from `noise` at times[0] to times[-1], one evaluation a step.

    `euler` is of first order; `adams` is the second-order Adams–Bashforth formula for unequal steps, begun by one
    Euler step. Neither evaluates the field at the last time.
    """
    x, before, width_before = noise, None, 0.0
    for start, stop in pairwise(times):
        width, slope = stop - start, field(x, start)
        if before is None or solver == "euler":
            x = x + width * slope
        else:
            lean = width / (2 * width_before)
            x = x + width * ((1 + lean) * slope - lean * before)
        before, width_before = slope, width
    return x
