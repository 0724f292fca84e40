"""Flow matching against closed forms."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from openuni_model.flow import (  # noqa: E402
    T_MIN,
    Solver,
    add_noise,
    logit_normal,
    shift_time,
    solve,
    timesteps,
    velocity,
    velocity_errors,
)


def gaussian_end(solver: Solver, steps: int, prediction: str, shift: float = 3.0) -> float:
    """Worst error of a solver fed the exact field of N(μ, s²): the flow maps noise ε to μ + s ε, quantile to quantile.

    E[x_0 | x_t] = μ + (1 − t) s² (x_t − (1 − t) μ) / ((1 − t)² s² + t²), and v = (x_t − E[x_0 | x_t]) / t.
    """
    mean, std = 0.7, 0.4
    noise = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64).view(11, 1, 1, 1, 1)

    def field(x: torch.Tensor, t: float) -> torch.Tensor:
        x0 = mean + (1 - t) * std**2 * (x - (1 - t) * mean) / ((1 - t) ** 2 * std**2 + t**2)
        out = x0 if prediction == "x" else (x - x0) / t
        return velocity(out, x, torch.full((11,), t, dtype=torch.float64), prediction)  # type: ignore[arg-type]

    end = solve(field, noise, timesteps(steps, shift), solver)
    return float((end - (mean + std * noise)).abs().max())


@pytest.mark.parametrize("prediction", ["x", "v"])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("adams", 2)])
def test_solvers_reach_the_closed_form_of_a_gaussian_at_their_order(
    solver: Solver, order: int, prediction: str
) -> None:
    coarse, fine = gaussian_end(solver, 640, prediction), gaussian_end(solver, 1280, prediction)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)
    assert fine < (4e-3 if solver == "euler" else 1e-5)


def test_solvers_keep_the_variance_of_a_gaussian_of_many_samples() -> None:
    mean, std = -0.3, 0.5
    noise = torch.randn(20_000, 1, 1, 1, 1, generator=torch.Generator().manual_seed(0))

    def field(x: torch.Tensor, t: float) -> torch.Tensor:
        x0 = mean + (1 - t) * std**2 * (x - (1 - t) * mean) / ((1 - t) ** 2 * std**2 + t**2)
        return (x - x0) / t

    end = solve(field, noise, timesteps(100, 1.0), "adams")
    assert float(end.mean()) == pytest.approx(mean, abs=0.01)
    assert float(end.std()) == pytest.approx(std, rel=0.01)


def test_timesteps_are_those_of_the_diffusers_scheduler_with_the_same_shift() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 21)[:-1].tolist())
    torch.testing.assert_close(torch.tensor(timesteps(20, 5.0)), scheduler.sigmas, atol=1e-5, rtol=0)


def test_training_times_are_logit_normal_and_shifted() -> None:
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert float(logit_normal(normal, 1.0).median()) == pytest.approx(0.5, abs=0.01)
    # The shift is monotone, so it moves the median to s/2 / (1 + (s − 1)/2).
    assert float(logit_normal(normal, 5.0).median()) == pytest.approx(2.5 / 3, abs=0.01)
    share = (logit_normal(normal, 1.0) < 1 / (1 + math.e)).float().mean()  # logit below −1: Φ(−1)
    assert float(share) == pytest.approx(0.1587, abs=0.005)
    ends = shift_time(torch.tensor([0.0, 1.0]), 5.0)
    assert ends.tolist() == [0.0, 1.0]


def test_x_and_v_predictions_of_one_network_have_one_loss_above_the_clamp() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise, v = (torch.randn(6, 2, 2, 3, 3, generator=generator) for _ in range(3))
    t = torch.tensor([T_MIN, 0.1, 0.3, 0.5, 0.9, 1.0])
    x_t = add_noise(x0, noise, t)
    x_hat = x_t - t.view(-1, 1, 1, 1, 1) * v
    by_v, by_x = velocity_errors(v, x0, noise, t, "v"), velocity_errors(x_hat, x0, noise, t, "x")
    torch.testing.assert_close(by_v, by_x, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(velocity(x_hat, x_t, t, "x"), v, rtol=1e-3, atol=1e-3)
    below = velocity_errors(x_hat, x0, noise, torch.zeros(6), "x")
    assert bool(torch.isfinite(below).all())
    assert torch.equal(add_noise(x0, noise, torch.zeros(6)), x0)
