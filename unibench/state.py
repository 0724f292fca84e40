"""What a simulator knows of a clip's bodies; truth has it beside its columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contact:
    """The moment two bodies (indices into `State.names`; −1: the stage) begin to touch, and where in the world."""

    time: float
    first: int
    second: int
    point: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What the simulator knows of N bodies in each of T frames; SI units, world axes, z up.

    position, velocity, angular velocity `[T, N, 3]` (of the centre of mass; rad/s), rotation `[T, N, 3, 3]` (body to
    world), mass `[N]`, restitution `[N]` (normal speed after a bounce over that before), gravity `[3]`.
    """

    names: tuple[str, ...]
    position: Floats
    rotation: Floats
    velocity: Floats
    angular_velocity: Floats
    mass: Floats
    restitution: Floats
    gravity: Floats
    contacts: tuple[Contact, ...]
