"""The simulator keeps the laws it is asked to keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openuni.errors import OpenUniError
from unibench.scenes import meshes
from unibench.scenes.physics import GRAVITY, STEP, STIFFNESS, Body, damping, simulate

GREY = np.full((4, 4, 3), 128, np.uint8)
ZERO = np.zeros(3)


def ground(friction: float = 0.0) -> Body:
    plane = meshes.plane(9, 9)
    size = np.array([0.0, 0.0, 1.0])
    return Body(
        "ground", "floor", plane, GREY, "plane", size, 0, ZERO, np.eye(3), ZERO, ZERO, 1.0, friction, fixed=True
    )


def ball(
    name: str, at: list[float], velocity: list[float], mass: float = 1.0, e: float = 0.5, friction: float = 0.0
) -> Body:
    r, at_, v = 0.15, np.array(at), np.array(velocity)
    return Body(
        name, "ball", meshes.sphere(r), GREY, "sphere", np.full(3, r), mass, at_, np.eye(3), v, ZERO, e, friction
    )


@pytest.mark.parametrize("restitution", [0.2, 0.5, 0.8, 0.95])
def test_a_ball_bounces_with_the_restitution_it_was_given(restitution: float) -> None:
    fps, rise = 200.0, 0.8
    state = simulate((ground(), ball("a", [0, 0, 0.15 + rise], [0, 0, 0], e=restitution)), 120, fps)
    impact = state.contacts[0].time
    after = int(np.ceil((impact + 0.02) * fps))
    up = state.velocity[after, 0, 2] - GRAVITY[2] * (after / fps - impact)
    down = np.sqrt(2 * -GRAVITY[2] * rise)
    # The contact lasts 3 ms, in which gravity takes a few hundredths of the speed: hence an absolute .015.
    assert up / down == pytest.approx(restitution, abs=0.015)


def test_two_balls_exchange_momentum_as_newton_says() -> None:
    e, m, n, u, v = 0.7, 1.0, 2.5, 1.2, -0.4
    balls = ball("a", [0, 0, 0.15], [u, 0, 0], m, e), ball("b", [1, 0, 0.15], [v, 0, 0], n, e)
    state = simulate((ground(), *balls), 16, 16.0)
    after_a = (m * u + n * v - n * e * (u - v)) / (m + n)
    after_b = (m * u + n * v + m * e * (u - v)) / (m + n)
    assert m * state.velocity[-1, 0, 0] + n * state.velocity[-1, 1, 0] == pytest.approx(m * u + n * v, abs=5e-4)
    # Where within its first step a contact begins moves the restitution by up to .01.
    np.testing.assert_allclose(state.velocity[-1, :, 0], [after_a, after_b], atol=0.01 * (u - v))
    met = [c for c in state.contacts if c.second >= 0]
    assert [(c.first, c.second) for c in met] == [(0, 1)]
    assert met[0].time == pytest.approx(0.7 / (u - v), abs=1e-3)
    np.testing.assert_allclose(met[0].point[0], u * met[0].time + 0.15, atol=2e-3)


def test_free_flight_is_a_parabola() -> None:
    state = simulate((ball("a", [0, 0, 3], [1, -2, 4]),), 32, 32.0)
    t = np.arange(32)[:, None] / 32
    np.testing.assert_allclose(state.position[:, 0], [0, 0, 3] + t * [1, -2, 4] + t**2 / 2 * GRAVITY, atol=3e-4)
    np.testing.assert_allclose(state.velocity[:, 0], [1, -2, 4] + t * GRAVITY, atol=1e-6)


def test_a_pendulum_keeps_its_energy_and_its_rod() -> None:
    length, angle, r = 0.8, 0.9, 0.15
    anchor = np.array([0, 0, 2.0])
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    bob = ball("a", list(anchor + turn @ [0, 0, -length]), [0, 0, 0])
    state = simulate((replace(bob, rotation=turn, anchor=anchor),), 64, 32.0)
    np.testing.assert_allclose(np.linalg.norm(state.position[:, 0] - anchor, axis=1), length, atol=1e-9)
    linear = 0.5 * (state.velocity[:, 0] ** 2).sum(1)
    turning = 0.5 * 0.4 * r**2 * (state.angular_velocity[:, 0] ** 2).sum(1)
    energy = linear + turning - GRAVITY[2] * state.position[:, 0, 2]
    assert np.ptp(energy) < 1e-3 * -GRAVITY[2] * length * (1 - np.cos(angle))


def test_a_ball_rolls_down_a_slope_at_five_sevenths() -> None:
    tilt = 0.3
    turn = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
    slope = Body(
        "s",
        "ramp",
        meshes.box(np.array([8, 2, 0.2])),
        GREY,
        "box",
        np.array([4, 1, 0.1]),
        0,
        ZERO,
        turn,
        ZERO,
        ZERO,
        1.0,
        1.0,
        fixed=True,
    )
    state = simulate((slope, ball("a", list(turn @ [-2, 0, 0.25]), [0, 0, 0], friction=1.0)), 17, 16.0)
    along = (state.position[:, 0] - state.position[0, 0]) @ turn[:, 0]
    assert along[-1] == pytest.approx(0.5 * 5 / 7 * 9.81 * np.sin(tilt), rel=0.01)


def test_damping_reproduces_the_closed_form_of_a_spring_and_dashpot() -> None:
    for e in (0.3, 0.6, 0.9):
        c = damping(e, STEP)
        beta, omega0 = c / 2, np.sqrt(STIFFNESS)
        omega = np.sqrt(omega0**2 - beta**2)
        t = np.linspace(0, np.pi / omega, 20001)
        speed = np.exp(-beta * t) * (np.cos(omega * t) - beta / omega * np.sin(omega * t))
        # Contact ends where the force k·x + c·v vanishes (no pull); the speed there is the restitution.
        force = STIFFNESS * np.exp(-beta * t) * np.sin(omega * t) / omega + c * speed
        last = np.flatnonzero(force < 0)[0]
        assert -speed[last] == pytest.approx(e, abs=0.015)


def test_an_impossible_restitution_is_refused() -> None:
    with pytest.raises(OpenUniError, match="restitution"):
        damping(1.5, STEP)
