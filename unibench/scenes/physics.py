"""Rigid bodies stepped by MuJoCo, and what it knows of them at each frame.

A contact is a damped spring in MuJoCo's acceleration space, so its restitution depends on neither mass nor speed. The
damping for a wanted restitution is found by stepping one such contact as the simulator does (`damping`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError
from unibench.scenes.meshes import Mesh
from unibench.scenes.textures import Picture
from unibench.state import Contact, State

Floats = npt.NDArray[np.float64]
Shape = Literal["sphere", "ellipsoid", "cylinder", "capsule", "box", "plane"]

GRAVITY = np.array([0.0, 0.0, -9.81])
STEP = 5e-5
"""Seconds of a step, at most: a contact lasts π / `STIFFNESS`^½ = 3.1 ms, sixty steps."""
STIFFNESS = 1e6
"""Spring of a contact, 1/s²: a body that lands at 3 m/s sinks in by 3 mm."""
APART = 0.01
"""Seconds that two bodies must have been apart for their next touch to be a new contact."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A body at time 0: MuJoCo's shape and its half sizes `[3]`, the mesh that draws it, mass (kg), and how it moves.

    rotation `[3, 3]` body to world; velocity (m/s) and spin (rad/s) `[3]` in world axes. A `fixed` body never moves and
    has no state. A body with an `anchor` `[3]` swings about that point on a massless rod. Of two bodies that meet, the
    smaller restitution and the larger friction hold; fixed bodies have restitution 1.
    """

    name: str
    class_name: str
    mesh: Mesh
    texture: Picture
    shape: Shape
    size: Floats
    mass: float
    position: Floats
    rotation: Floats
    velocity: Floats
    spin: Floats
    restitution: float = 0.5
    friction: float = 0.6
    fixed: bool = False
    thing: bool = True
    anchor: Floats | None = None


def simulate(bodies: tuple[Body, ...], frames: int, fps: float) -> State:
    """The state of the bodies that are not fixed at times 0, 1/fps, … . Raises OpenUniError if the numbers diverge."""
    import mujoco

    free = [b for b in bodies if not b.fixed]
    steps = int(np.ceil(1 / (fps * STEP)))
    model = _model(bodies, 1 / (fps * steps))
    data = mujoco.MjData(model)
    geoms = np.array([model.geom(b.name).id for b in free], np.int32)
    index = {int(g): n for n, g in enumerate(geoms)}
    _start(model, data, free)

    position, rotation, twist = [], [], []
    contacts: list[Contact] = []
    touched: dict[tuple[int, int], float] = {}
    for t in range(frames):
        mujoco.mj_forward(model, data)
        position.append(data.geom_xpos[geoms])
        rotation.append(data.geom_xmat[geoms].reshape(-1, 3, 3))
        twist.append([_twist(model, data, int(g)) for g in geoms])
        if t == frames - 1:
            break
        for _ in range(steps):
            mujoco.mj_step(model, data)
            if data.ncon:
                _note(data, index, touched, contacts)
    if not np.isfinite(position).all() or data.warning.number.any():
        raise OpenUniError(f"the simulation of {', '.join(b.name for b in free)} diverged; change the scene's seed")
    twists = np.array(twist).reshape(frames, len(free), 2, 3)
    return State(
        tuple(b.name for b in free),
        np.array(position),
        np.array(rotation),
        twists[:, :, 1],
        twists[:, :, 0],
        np.array([b.mass for b in free]),
        np.array([b.restitution for b in free]),
        GRAVITY.copy(),
        tuple(contacts),
    )


@cache
def damping(restitution: float, step: float) -> float:
    """Damping (1/s) of a contact that gives `restitution` in (0, 1], by bisection over one simulated bounce.

    The contact accelerates by −k·r − c·v while that pushes (MuJoCo documentation, "Solver parameters"), stepped by
    semi-implicit Euler. The linear spring–dashpot without pull is that of Schwager and Pöschel 2007.
    """
    if not 0 < restitution <= 1:
        raise OpenUniError(f"restitution {restitution} is outside (0, 1]")
    low, high = 0.0, 20 * STIFFNESS**0.5
    for _ in range(50):
        middle = (low + high) / 2
        depth, speed = 0.0, -1.0
        while depth <= 0:
            push = -STIFFNESS * depth - middle * speed
            if push < 0 and speed > 0:
                break
            speed += max(push, 0.0) * step
            depth += speed * step
        low, high = (middle, high) if speed > restitution else (low, middle)
    return low


def _model(bodies: tuple[Body, ...], step: float) -> Any:
    import mujoco

    spec = mujoco.MjSpec()
    spec.option.timestep = step
    spec.option.gravity = GRAVITY
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    for b in bodies:
        turn = np.empty(4)
        mujoco.mju_mat2Quat(turn, b.rotation.ravel())
        body = spec.worldbody.add_body(name=b.name, pos=b.position, quat=turn)
        if b.anchor is not None:
            body.add_joint(type=mujoco.mjtJoint.mjJNT_BALL, pos=(b.anchor - b.position) @ b.rotation)
        elif not b.fixed:
            body.add_freejoint()
        spring = 0.0 if b.fixed else damping(b.restitution, step)
        body.add_geom(
            name=b.name,
            type=getattr(mujoco.mjtGeom, f"mjGEOM_{b.shape.upper()}"),
            size=b.size,
            mass=0.0 if b.fixed else b.mass,
            friction=[b.friction, 0.005, 0.0001],
            solref=[-STIFFNESS, -spring],
            # A contact as hard as the spring says, at any depth: the default softens the first millimetre.
            solimp=[0.9999, 0.9999, 0.001, 0.5, 2],
        )
    return spec.compile()


def _start(model: Any, data: Any, free: list[Body]) -> None:
    """Set initial velocities: linear (world axes) and angular (body axes) for free joints, angular for anchors."""
    for b in free:
        joint = model.body(b.name).dofadr[0]
        spin = b.spin @ b.rotation
        if b.anchor is None:
            data.qvel[joint : joint + 3] = b.velocity
            data.qvel[joint + 3 : joint + 6] = spin
        else:
            data.qvel[joint : joint + 3] = spin


def _twist(model: Any, data: Any, geom: int) -> Floats:
    """Angular, then linear velocity `[6]` of a geom's centre in world axes."""
    import mujoco

    out = np.empty(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_GEOM, geom, out, 0)
    return out


def _note(data: Any, index: dict[int, int], touched: dict[tuple[int, int], float], out: list[Contact]) -> None:
    """Append contacts that began in this step; `touched` remembers when each pair was last together."""
    contact = data.contact
    for k, (g, h) in enumerate(contact.geom.tolist()):
        a, b = index.get(g, -1), index.get(h, -1)
        pair = (a, b) if b < 0 or 0 <= a < b else (b, a)  # a fixed body is −1 and comes second
        if pair[0] >= 0 and data.time - touched.get(pair, -np.inf) > APART:
            x, y, z = contact.pos[k].tolist()
            out.append(Contact(data.time, *pair, (x, y, z)))
        touched[pair] = data.time
