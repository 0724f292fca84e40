"""Seeded families of scenes. `build(Spec("collide", seed=7))` is the same scene in every process.

A family sets bodies up so that what it is named for happens within the clip; the stage, the camera that frames the
action, the props and the caption are common to all.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from openuni.errors import OpenUniError
from unibench.camera import Camera, intrinsics, look_at
from unibench.scenes import meshes, textures
from unibench.scenes.graph import Instance, Light, Scene, rigid, still
from unibench.scenes.meshes import Mesh
from unibench.scenes.people import Gesture, Walk, hold, person
from unibench.scenes.physics import GRAVITY, Body, Shape, simulate
from unibench.state import State

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

_COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.16, 0.14),
    "orange": (0.92, 0.50, 0.12),
    "yellow": (0.93, 0.80, 0.20),
    "green": (0.22, 0.60, 0.25),
    "teal": (0.10, 0.56, 0.55),
    "blue": (0.17, 0.36, 0.78),
    "purple": (0.50, 0.27, 0.66),
    "pink": (0.92, 0.50, 0.62),
    "brown": (0.48, 0.31, 0.19),
    "white": (0.90, 0.89, 0.86),
    "grey": (0.50, 0.51, 0.53),
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class Spec:
    """Which scene: `frames` of `height` × `width` pixels at `fps`, of a family of `FAMILIES`, from `seed`."""

    family: str
    seed: int
    frames: int = 16
    height: int = 256
    width: int = 256
    fps: float = 16.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise OpenUniError(f"unknown family {self.family!r}; known: {', '.join(FAMILIES)}")
        if not (2 <= self.frames <= 1000 and min(self.height, self.width) >= 16 and self.fps > 0):
            raise OpenUniError(f"{self}: give 2 to 1000 frames, 16 pixels a side or more and a positive frame rate")

    @property
    def seconds(self) -> float:
        """From the first frame to the last."""
        return (self.frames - 1) / self.fps


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What a family decides: bodies to simulate, a sentence on what happens (the place follows), how the camera looks.

    azimuth and elevation (radians) are where the camera stands; `sweep` how far it circles (radians) and `dolly` how
    far it moves in (share of its distance) over the clip. `focus` limits the framing to these points `[N, 3]`.
    """

    bodies: tuple[Body, ...]
    sentence: str
    azimuth: float
    elevation: float = 0.35
    sweep: float = 0.0
    dolly: float = 0.0
    shake: float = 0.0
    focus: Floats | None = None
    props: int = 0
    dress: Callable[[State], tuple[Instance, ...]] = field(default=lambda state: ())


def build(spec: Spec) -> Scene:
    """The scene of a specification, with its simulated state."""
    rng = np.random.default_rng([spec.seed, zlib.crc32(spec.family.encode())])
    plan = FAMILIES[spec.family](spec, rng)
    state = simulate((_ground(), *plan.bodies), spec.frames, spec.fps)
    actors = _actors(plan.bodies, state, spec.frames) + plan.dress(state)
    focus = plan.focus
    if focus is None:
        focus = np.concatenate([_box_corners(a.vertices) for a in actors])
    camera, target, distance = _camera(spec, plan, focus, rng)
    reach = max(np.abs(a.vertices[..., :2] - target[:2]).max() for a in actors)
    stage, place = _stage(spec, plan, target, max(distance, reach), rng)
    props = _props(plan, spec.frames, actors, target, distance, reach, rng)
    light = _light(plan.azimuth, rng)
    caption = _caption(plan, state, props, place)
    return Scene(stage + actors + props, camera, light, state, caption, spec.fps)


# ---------------------------------------------------------------------------------------------------------- bodies


class _Wardrobe:
    """Hands out bodies in colours not yet used, so that a caption's 'red ball' is one thing."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self._colours = list(rng.permutation(list(_COLOURS)))
        self._names = set[str]()

    def body(self, noun: str, mesh: Mesh, shape: Shape, size: Sequence[float], volume: float, at: Floats) -> Body:
        colour = str(self._colours.pop(0))
        self._colours.append(colour)
        density = float(self.rng.uniform(150, 900))
        name, copy = f"{colour} {noun}", 1
        while name in self._names:
            copy += 1
            name = f"{colour} {noun} {copy}"
        self._names.add(name)
        return Body(
            name,
            noun,
            mesh,
            _texture(colour, self.rng),
            shape,
            np.array(size, np.float64),
            volume * density,
            np.asarray(at, np.float64),
            np.eye(3),
            np.zeros(3),
            np.zeros(3),
            restitution=float(self.rng.uniform(0.25, 0.6)),
        )

    def ball(self, radius: float, at: Floats) -> Body:
        volume = 4 / 3 * np.pi * radius**3
        return self.body("ball", meshes.sphere(radius), "sphere", [radius] * 3, volume, at)

    def crate(self, size: Floats, at: Floats) -> Body:
        return self.body("crate", meshes.box(size), "box", list(size / 2), float(np.prod(size)), at)

    def cylinder(self, radius: float, height: float, at: Floats) -> Body:
        mesh, volume = meshes.cylinder(radius, height), np.pi * radius**2 * height
        return self.body("cylinder", mesh, "cylinder", [radius, height / 2, 0], volume, at)

    def capsule(self, radius: float, height: float, at: Floats) -> Body:
        volume = np.pi * radius**2 * (height + 4 / 3 * radius)
        return self.body("capsule", meshes.capsule(radius, height), "capsule", [radius, height / 2, 0], volume, at)

    def egg(self, radii: Floats, at: Floats) -> Body:
        volume = 4 / 3 * np.pi * float(np.prod(radii))
        return self.body("egg", meshes.ellipsoid(radii), "ellipsoid", list(radii), volume, at)

    def any(self, at: Floats, scale: float = 1.0) -> Body:
        rng = self.rng
        r = scale * float(rng.uniform(0.11, 0.18))
        match rng.integers(5):
            case 0:
                return self.ball(r, at)
            case 1:
                return self.crate(r * rng.uniform(1.3, 2.2, 3), at)
            case 2:
                return self.cylinder(0.8 * r, r * float(rng.uniform(1.2, 2.4)), at)
            case 3:
                return self.capsule(0.6 * r, 1.6 * r, at)
            case _:
                return self.egg(r * np.array([0.7, 0.9, 1.2]), at)


def _texture(colour: str, rng: Rng) -> textures.Picture:
    pattern = textures.PATTERNS[rng.choice(4, p=[0.25, 0.25, 0.25, 0.25])]
    first = np.array(_COLOURS[colour])
    second = first * 0.45 if rng.random() < 0.5 else first + 0.6 * (1 - first)
    return textures.draw(pattern, first, second, rng)


def _ground() -> Body:
    """What everything stands on; the stage draws it."""
    mesh, texture, size = meshes.plane(1, 1), np.zeros((1, 1, 3), np.uint8), np.array([0.0, 0.0, 1.0])
    zero = np.zeros(3)
    return Body("ground", "floor", mesh, texture, "plane", size, 0.0, zero, np.eye(3), zero, zero, 1.0, 0.0, fixed=True)


def _radius(body: Body) -> float:
    return float(np.linalg.norm(body.mesh.vertices, axis=1).max())


def _turn(rng: Rng) -> Floats:
    """A rotation `[3, 3]`, uniform over all."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _about(axis: int, angle: float) -> Floats:
    """A rotation `[3, 3]` about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.eye(3)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    turn[u, u], turn[u, v], turn[v, u], turn[v, v] = c, -s, s, c
    return turn


def _rolling(body: Body, velocity: Floats, radius: float) -> Body:
    """The body moving at `velocity` along the floor, turning as a wheel of `radius` does."""
    return replace(body, velocity=velocity, spin=np.cross([0.0, 0.0, 1.0], velocity) / radius)


def _drop(seconds: float) -> float:
    """How far a body falls in that time, metres."""
    return float(0.5 * -GRAVITY[2] * seconds**2)


# -------------------------------------------------------------------------------------------------------- families


def _fall(spec: Spec, rng: Rng) -> _Plan:
    make, bodies = _Wardrobe(rng), []
    for k in range(rng.integers(2, 5)):
        angle = 2 * np.pi * (k + rng.uniform(-0.2, 0.2)) / 4
        body = make.any(np.zeros(3))
        height = _radius(body) + min(_drop(spec.seconds * rng.uniform(0.3, 0.8)), 2.5)
        at = np.array([0.45 * np.cos(angle), 0.45 * np.sin(angle), height])
        bodies.append(replace(body, position=at, rotation=_turn(rng), spin=rng.uniform(-4, 4, 3)))
    return _Plan(
        tuple(bodies),
        _say(bodies, "falls to the floor", "fall to the floor"),
        _azimuth(rng),
        props=int(rng.integers(0, 4)),
        shake=_shake(rng),
    )


def _bounce(spec: Spec, rng: Rng) -> _Plan:
    make, bodies = _Wardrobe(rng), []
    for k in range(rng.integers(1, 4)):
        radius = rng.uniform(0.1, 0.18)
        height = radius + min(_drop(spec.seconds * rng.uniform(0.2, 0.5)), 1.5)
        ball = make.ball(radius, np.array([0.5 * k, rng.uniform(-0.4, 0.4), height]))
        push = np.array([*rng.uniform(-0.5, 0.5, 2), 0.0])
        bounce = float(rng.uniform(0.65, 0.92))
        bodies.append(replace(ball, velocity=push, spin=rng.uniform(-3, 3, 3), restitution=bounce))
    return _Plan(
        tuple(bodies),
        _say(bodies, "drops and bounces", "drop and bounce"),
        _azimuth(rng),
        props=int(rng.integers(0, 4)),
        shake=_shake(rng),
    )


def _roll(spec: Spec, rng: Rng) -> _Plan:
    make, tilt, length, thick = _Wardrobe(rng), rng.uniform(0.2, 0.45), rng.uniform(1.2, 1.8), 0.06
    turn = _about(1, tilt)  # downhill towards +x
    middle = np.array([0.0, 0.0, length / 2 * np.sin(tilt) + thick])
    plank = make.crate(np.array([length, 1.0, thick]), middle)
    plank = replace(plank, name=plank.name.replace("crate", "ramp"), class_name="ramp", rotation=turn, fixed=True)
    bodies = [plank]
    for lane in rng.permutation([-0.3, 0.0, 0.3])[: rng.integers(1, 4)]:
        r = float(rng.uniform(0.08, 0.13))
        uphill = -length / 2 + r + 0.05 + rng.uniform(0, 0.3)
        at = middle + turn @ np.array([uphill, lane, thick / 2 + r])
        if rng.random() < 0.6:
            bodies.append(replace(make.ball(r, at), friction=1.0))
        else:
            bodies.append(replace(make.cylinder(r, 0.22, at), rotation=_about(0, np.pi / 2), friction=1.0))
    view = rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.6, 0.6)
    return _Plan(
        tuple(bodies),
        _say(bodies[1:], "rolls down a ramp", "roll down a ramp"),
        float(view),
        shake=_shake(rng),
        props=int(rng.integers(0, 3)),
    )


def _collide(spec: Spec, rng: Rng) -> _Plan:
    make, meet = _Wardrobe(rng), spec.seconds * rng.uniform(0.3, 0.5)
    bodies = []
    for side in (-1.0, 1.0):
        r = float(rng.uniform(0.1, 0.2))
        speed = rng.uniform(0.8, 2.2)
        at = np.array([side * (speed * meet + r), side * rng.uniform(-0.3, 0.3) * r, r])
        ball = replace(make.ball(r, at), restitution=float(rng.uniform(0.5, 0.95)), friction=0.2)
        bodies.append(_rolling(ball, np.array([-side * speed, 0.0, 0.0]), r))
    return _Plan(
        tuple(bodies),
        _say(bodies, "", "roll towards each other and collide"),
        _azimuth(rng),
        0.45,
        props=2,
        shake=_shake(rng),
    )


def _stack(spec: Spec, rng: Rng) -> _Plan:
    make, edge, bodies, top = _Wardrobe(rng), rng.uniform(0.2, 0.28), [], 0.0
    for _ in range(rng.integers(3, 6)):
        size = edge * np.array([1, 1, rng.uniform(0.6, 1)])
        at = np.array([*rng.uniform(-0.02, 0.02, 2), top + size[2] / 2])
        bodies.append(replace(make.crate(size, at), rotation=_about(2, rng.uniform(-0.2, 0.2)), restitution=0.2))
        top += size[2]
        edge *= 0.94
    hit, r = spec.seconds * rng.uniform(0.25, 0.45), float(rng.uniform(0.1, 0.14))
    velocity = np.array([rng.uniform(3, 4), 0, -GRAVITY[2] * hit / 2])
    aim = np.array([0, 0, max(top * rng.uniform(0.55, 0.9), r + 0.05)])
    ball = make.ball(r, aim - [velocity[0] * hit + 0.25, 0, 0])
    bodies.append(replace(ball, velocity=velocity, mass=ball.mass * 3))
    return _Plan(
        tuple(bodies),
        _say(bodies[:-1], "", f"stand as a tower until a {ball.name} strikes it"),
        _azimuth(rng),
        0.3,
        props=2,
        shake=_shake(rng),
    )


def _projectile(spec: Spec, rng: Rng) -> _Plan:
    make, bodies = _Wardrobe(rng), []
    for k in range(rng.integers(1, 3)):
        body = make.any(np.zeros(3))
        rise = -GRAVITY[2] * spec.seconds * rng.uniform(0.35, 0.55)
        velocity = np.array([rng.uniform(1, 2.5), rng.uniform(-0.3, 0.3), rise])
        at = np.array([-velocity[0] * spec.seconds / 2, 0.7 * k, _radius(body) + rng.uniform(0.1, 0.6)])
        bodies.append(replace(body, position=at, rotation=_turn(rng), velocity=velocity, spin=rng.uniform(-5, 5, 3)))
    return _Plan(
        tuple(bodies),
        _say(bodies, "flies in an arc", "fly in an arc"),
        _azimuth(rng),
        0.15,
        props=int(rng.integers(0, 4)),
        shake=_shake(rng),
    )


def _pendulum(spec: Spec, rng: Rng) -> _Plan:
    make, bodies, anchors, high = _Wardrobe(rng), list[Body](), list[Floats](), rng.uniform(1.1, 1.4)
    count = int(rng.integers(1, 4))
    for k in range(count):
        r = float(rng.uniform(0.08, 0.13))
        length, angle = rng.uniform(0.5, high - r - 0.1), rng.choice([-1, 1]) * rng.uniform(0.4, 1.0)
        anchor = np.array([0.0, 0.4 * (k - (count - 1) / 2), high])
        turn = _about(1, angle)
        at = anchor + turn @ [0, 0, -length]
        bodies.append(replace(make.ball(r, at), rotation=turn, anchor=anchor))
        anchors.append(anchor)
    width = 0.4 * count + 0.3
    grey = textures.draw("plain", np.full(3, 0.35), np.full(3, 0.3), rng)

    def dress(state: State) -> tuple[Instance, ...]:
        bar = meshes.cylinder(0.015, width)
        poses = [_pose(_about(0, np.pi / 2), np.array([0, 0, high]))]
        post = meshes.cylinder(0.02, high)
        poses += [_pose(np.eye(3), np.array([0, s * width / 2, high / 2])) for s in (-1, 1)]
        frame = tuple(
            Instance(name, "stand", mesh, still(mesh, pose, spec.frames), grey)
            for name, mesh, pose in zip(("bar", "left post", "right post"), (bar, post, post), poses, strict=True)
        )
        rods = []
        for n, (body, anchor) in enumerate(zip(bodies, anchors, strict=True)):
            length = float(np.linalg.norm(body.position - anchor))
            mesh = meshes.cylinder(0.006, length, segments=12)
            middle = (state.position[:, n] + anchor) / 2
            moved = rigid(mesh, state.rotation[:, n], middle)
            rods.append(Instance(f"rod of the {body.name}", "rod", mesh, moved, grey))
        return frame + tuple(rods)

    return _Plan(
        tuple(bodies),
        _say(bodies, "swings as a pendulum", "swing as pendulums"),
        _azimuth(rng),
        0.15,
        props=1,
        shake=_shake(rng),
        dress=dress,
    )


def _fly(spec: Spec, rng: Rng) -> _Plan:
    bodies = _still_life(rng, int(rng.integers(5, 9)))
    sweep = rng.choice([-1, 1]) * rng.uniform(0.03, 0.06) * min(spec.frames, 30)
    dolly = rng.uniform(-0.3, 0.3) if rng.random() < 0.5 else 0.0
    return _Plan(
        bodies, _say(bodies, "", "stand still"), _azimuth(rng), rng.uniform(0.2, 0.6), float(sweep), float(dolly)
    )


def _thin(spec: Spec, rng: Rng) -> _Plan:
    make, bodies = _Wardrobe(rng), []
    count = int(rng.integers(6, 11))
    for k in range(count):
        r, height = rng.uniform(0.004, 0.015), rng.uniform(0.8, 1.4)
        at = np.array([1.6 * (k / (count - 1) - 0.5), rng.uniform(-0.4, 0.4), height / 2])
        pole = make.cylinder(float(r), float(height), at)
        bodies.append(_named(pole, f"{pole.name.split()[0]} pole {k + 1}", "pole", fixed=True))
    for k in range(2):
        wire = make.cylinder(0.003, 2.2, np.array([0.0, rng.uniform(-0.5, 0.5), rng.uniform(0.3, 1.2)]))
        bodies.append(
            _named(wire, f"{wire.name.split()[0]} wire {k + 1}", "wire", fixed=True, rotation=_about(1, np.pi / 2))
        )
    stick = make.capsule(0.012, 0.6, np.array([0.0, -0.9, 0.4 + _drop(spec.seconds * 0.5)]))
    bodies.append(_named(stick, "falling stick", "stick", rotation=_turn(rng), spin=rng.uniform(-3, 3, 3)))
    sweep = rng.choice([-1, 1]) * 0.012 * min(spec.frames, 40)
    return _Plan(
        tuple(bodies),
        f"{_NUMBERS[count].capitalize()} poles and two wires stand and a stick falls",
        -np.pi / 2,
        0.15,
        float(sweep),
    )


def _fast(spec: Spec, rng: Rng) -> _Plan:
    make, bodies, span = _Wardrobe(rng), [], 3.0
    for k in range(rng.integers(1, 4)):
        side = rng.choice([-1.0, 1.0])
        speed = span * spec.fps * rng.uniform(0.08, 0.2)
        middle = spec.seconds * rng.uniform(0.3, 0.7)
        body = make.any(np.zeros(3), scale=1.5)
        rise = -GRAVITY[2] * middle
        at = np.array([-side * speed * middle, 0.6 * (k - 1), 1.0 + 0.2 * k - _drop(middle)])
        at[2] = max(at[2], _radius(body))
        rise = min(rise, (1.2 + _drop(middle) - at[2]) / middle)
        velocity = np.array([side * speed, 0.0, rise])
        bodies.append(replace(body, position=at, rotation=_turn(rng), velocity=velocity, spin=rng.uniform(-6, 6, 3)))
    focus = np.array([[-span / 2, 0, 0.2], [span / 2, 0, 1.8]])
    azimuth = rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.3, 0.3)
    return _Plan(
        tuple(bodies), _say(bodies, "races across the view", "race across the view"), float(azimuth), 0.15, focus=focus
    )


def _occlude(spec: Spec, rng: Rng) -> _Plan:
    make, reach = _Wardrobe(rng), 0.9
    wide = rng.uniform(0.4, 0.6)
    pillar = make.crate(np.array([wide, 0.15, rng.uniform(0.7, 1.0)]), np.zeros(3))
    at = np.array([rng.uniform(-0.15, 0.15), -0.5, pillar.size[2]])
    bodies = [_named(pillar, pillar.name.replace("crate", "screen"), "screen", fixed=True, position=at)]
    for k in range(rng.integers(1, 3)):
        r, side = float(rng.uniform(0.1, 0.16)), rng.choice([-1.0, 1.0])
        ball = make.ball(r, np.array([-side * reach, 0.5 * k, r]))
        bodies.append(_rolling(ball, np.array([side * 2 * reach / spec.seconds, 0, 0]), r))
    return _Plan(
        tuple(bodies),
        _say(bodies[1:], "rolls behind a screen and re-appears", "roll behind a screen and re-appear"),
        -np.pi / 2 + rng.uniform(-0.15, 0.15),
        0.12,
    )


def _walk(spec: Spec, rng: Rng) -> _Plan:
    gesture = _gesture(rng)
    walk = Walk((0.0, 0.0), _azimuth(rng), rng.uniform(0.7, 1.25), rng.uniform(-0.7, 0.7), rng.uniform(0, 1), gesture)
    sentence = f"A person walks{_DOING[gesture]}"
    return _people(spec, rng, (walk,), sentence)


def _pair(spec: Spec, rng: Rng) -> _Plan:
    heading, gestures = _azimuth(rng), (_gesture(rng), _gesture(rng))
    meet = bool(rng.random() < 0.5)
    walks = []
    for k, sign in enumerate((-1.0, 1.0)):
        speed = rng.uniform(0.8, 1.2)
        back = speed * spec.seconds / 2 if meet else 0.0
        along, across = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
        start = sign * back * along + sign * rng.uniform(0.35, 0.55) * across
        turned = heading + (np.pi if meet and sign > 0 else 0.0)
        walks.append(Walk((start[0], start[1]), turned, speed, rng.uniform(-0.2, 0.2), rng.uniform(0, 1), gestures[k]))
    sentence = "Two people walk past each other" if meet else "Two people walk side by side"
    if raised := sum(g != "none" for g in gestures):
        sentence += f", {'one' if raised == 1 else 'both'} with an arm up,"
    return _people(spec, rng, tuple(walks), sentence)


def _play(spec: Spec, rng: Rng) -> _Plan:
    make, bodies, gesture = _Wardrobe(rng), list[Body](), _gesture(rng)
    heading = _azimuth(rng)
    walk = Walk((0.0, 0.0), heading, float(rng.choice([0.0, 0.9])), 0.0, rng.uniform(0, 1), gesture)
    for k in range(rng.integers(1, 3)):
        r, away = float(rng.uniform(0.1, 0.14)), 0.75 + 0.4 * k
        beside = np.array([-np.sin(heading), np.cos(heading), 0.0]) * away * rng.choice([-1, 1])
        height = r + min(_drop(spec.seconds * rng.uniform(0.2, 0.5)), 1.5)
        ball = make.ball(r, beside + np.array([0, 0, height]))
        along = np.array([np.cos(heading), np.sin(heading), 0.0]) * rng.uniform(-0.5, 1.0)
        bodies.append(replace(ball, velocity=along, restitution=float(rng.uniform(0.6, 0.85))))
    doing = "walks" if walk.speed else "stands"
    sentence = f"A person {doing}{_DOING[gesture]} beside {_articled(bodies)} that bounce{'s' * (len(bodies) == 1)}"
    return _people(spec, rng, (walk,), sentence, tuple(bodies))


def _carry(spec: Spec, rng: Rng) -> _Plan:
    gesture: Gesture = "carry" if rng.random() < 0.5 else "case"
    walk = Walk((0.0, 0.0), _azimuth(rng), rng.uniform(0.6, 1.1), rng.uniform(-0.5, 0.5), rng.uniform(0, 1), gesture)
    colour = str(rng.choice(list(_COLOURS)))
    name = f"{colour} {'crate' if gesture == 'carry' else 'case'}"
    picture = _texture(colour, rng)
    article = "an" if colour[0] in "aeiou" else "a"
    sentence = f"A person walks and carries {article} {name} in {'both hands' if gesture == 'carry' else 'one hand'}"
    return _people(
        spec, rng, (walk,), sentence, holds=lambda person: (hold(person, walk, spec.fps, name, picture, rng),)
    )


_DOING: dict[Gesture, str] = {"none": "", "wave": " and waves", "raise": " and raises an arm"}


def _gesture(rng: Rng) -> Gesture:
    gestures: tuple[Gesture, ...] = ("none", "wave", "raise")
    return gestures[rng.integers(3)]


def _people(
    spec: Spec,
    rng: Rng,
    walks: Sequence[Walk],
    sentence: str,
    bodies: tuple[Body, ...] = (),
    holds: Callable[[Instance], tuple[Instance, ...]] = lambda person: (),
) -> _Plan:
    """People of random shapes before a camera at the height of a person's; `holds`: what the first one has in hand."""
    made = tuple(
        person(f"person {k}", walk, rng.normal(0, 0.8, 6), spec.frames, spec.fps, rng)
        for k, walk in enumerate(walks, 1)
    )
    return _Plan(
        bodies,
        sentence,
        _azimuth(rng),
        float(rng.uniform(0.05, 0.25)),
        props=int(rng.integers(0, 3)),
        shake=_shake(rng),
        dress=lambda state: made + holds(made[0]),
    )


FAMILIES: dict[str, Callable[[Spec, Rng], _Plan]] = {
    "fall": _fall,
    "bounce": _bounce,
    "roll": _roll,
    "collide": _collide,
    "stack": _stack,
    "projectile": _projectile,
    "pendulum": _pendulum,
    "fly": _fly,
    "thin": _thin,
    "fast": _fast,
    "occlude": _occlude,
    "walk": _walk,
    "pair": _pair,
    "play": _play,
    "carry": _carry,
}


def _named(body: Body, name: str, class_name: str, **changes: object) -> Body:
    return replace(body, name=name, class_name=class_name, **changes)  # type: ignore[arg-type]


def _still_life(rng: Rng, count: int) -> tuple[Body, ...]:
    """Fixed bodies on the floor, none inside another."""
    make, bodies = _Wardrobe(rng), list[Body]()
    while len(bodies) < count:
        at = np.array([*rng.uniform(-1.3, 1.3, 2), 0.0])
        body = make.any(at, scale=rng.uniform(1, 2))
        if all(np.hypot(*(at - b.position)[:2]) > _radius(body) + _radius(b) for b in bodies):
            rotation = _about(2, rng.uniform(0, np.pi))
            lift = -float((body.mesh.vertices @ rotation.T)[:, 2].min())
            bodies.append(replace(body, fixed=True, rotation=rotation, position=np.array([at[0], at[1], lift])))
    return tuple(bodies)


# ------------------------------------------------------------------------------------------- stage, camera and words


def _azimuth(rng: Rng) -> float:
    return float(rng.uniform(-np.pi, np.pi))


def _shake(rng: Rng) -> float:
    """How much a hand-held camera moves, as a share of its distance; half of all cameras stand still."""
    return float(rng.choice([0.0, rng.uniform(0.005, 0.02)]))


def _pose(rotation: Floats, position: Floats) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose


def _box_corners(vertices: Floats) -> Floats:
    """Corners `[T·8, 3]` of the upright box about vertices `[T, V, 3]` in each frame."""
    ends = np.stack([vertices.min(1), vertices.max(1)])
    pick = np.array(list(np.ndindex(2, 2, 2)))
    corners = np.stack([ends[pick[:, axis], :, axis] for axis in range(3)], axis=-1)
    return np.asarray(corners.reshape(-1, 3))


def _actors(bodies: Sequence[Body], state: State, frames: int) -> tuple[Instance, ...]:
    instances = []
    for b in bodies:
        if b.fixed:
            vertices = still(b.mesh, _pose(b.rotation, b.position), frames)
        else:
            n = state.names.index(b.name)
            vertices = rigid(b.mesh, state.rotation[:, n], state.position[:, n])
        instances.append(Instance(b.name, b.class_name, b.mesh, vertices, b.texture, b.thing))
    return tuple(instances)


def _camera(spec: Spec, plan: _Plan, focus: Floats, rng: Rng) -> tuple[Camera, Floats, float]:
    """The camera, the point it looks at and its distance: as near as keeps the focus within the image."""
    points = focus.reshape(-1, 3)
    target = (points.min(0) + points.max(0)) / 2
    K = intrinsics(rng.uniform(0.9, 1.3) * max(1.0, spec.height / spec.width), spec.height, spec.width)
    pose = look_at(target + _direction(plan.azimuth, plan.elevation), target)
    x, y, z = ((points - target) @ pose[:3, :3]).T
    fill = 0.82 / (1 + abs(plan.dolly))
    distance = float(
        max(
            (np.abs(x) * K[0, 0] / (fill * spec.width / 2) - z).max(),
            (np.abs(y) * K[1, 1] / (fill * spec.height / 2) - z).max(),
            1.2,
        )
    )
    progress = np.linspace(-0.5, 0.5, spec.frames)
    phase, rate = rng.uniform(0, 2 * np.pi, (2, 3)), rng.uniform(1.5, 5, (2, 3))
    poses = []
    for t, p in enumerate(progress):
        sway = plan.shake * distance * np.sin(rate * t / spec.fps + phase)
        way = _direction(plan.azimuth + plan.sweep * p, plan.elevation)
        eye = target + way * distance * (1 - plan.dolly * p) + sway[0]
        eye[2] = max(eye[2], 0.15)
        poses.append(look_at(eye, target + 0.5 * sway[1]))
    camera = Camera(np.tile(K, (spec.frames, 1, 1)), np.array(poses), spec.height, spec.width)
    return camera, target, distance


def _direction(azimuth: float, elevation: float) -> Floats:
    flat = np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])


def _stage(spec: Spec, plan: _Plan, target: Floats, reach: float, rng: Rng) -> tuple[tuple[Instance, ...], str]:
    """A floor, and either three walls behind the action or open sky; in words as well."""
    kind = str(rng.choice(["planks", "bricks", "checker", "marble"]))
    tones = np.array([[0.62, 0.56, 0.48], [0.55, 0.57, 0.60], [0.66, 0.60, 0.55], [0.45, 0.47, 0.42]])
    base = tones[rng.integers(4)] * rng.uniform(0.8, 1.2)
    floor = meshes.plane(60, 60, repeat=float(rng.uniform(1.5, 2.5)))
    texture = textures.draw(kind, base, base * rng.uniform(0.45, 0.65), rng, grain=0.07)  # type: ignore[arg-type]
    at = _pose(_about(2, rng.uniform(0, np.pi)), np.array([*target[:2], 0.0]))
    stage = [Instance("floor", "floor", floor, still(floor, at, spec.frames), texture, thing=False)]
    words = {"planks": "floorboards", "bricks": "tiles", "checker": "a chequered floor", "marble": "marble"}[kind]
    if rng.random() < 0.5:
        return tuple(stage), f"on {words} under an open sky"
    height, away = 3.0 * reach, 1.25 * reach + 0.5
    tone = tones[rng.integers(4)] * rng.uniform(0.9, 1.3)
    paper = textures.draw(str(rng.choice(["plain", "stripes", "bricks"])), tone, tone * 0.8, rng, grain=0.05)  # type: ignore[arg-type]
    wall = meshes.box(np.array([2.4 * away, 0.1, height]), repeat=2.0)
    for name, turn in (("back wall", 0.0), ("left wall", np.pi / 2), ("right wall", -np.pi / 2)):
        facing = plan.azimuth + np.pi + turn
        middle = np.array([*target[:2], height / 2]) + away * np.array([np.cos(facing), np.sin(facing), 0])
        pose = _pose(_about(2, facing - np.pi / 2), middle)
        stage.append(Instance(name, "wall", wall, still(wall, pose, spec.frames), paper, thing=False))
    return tuple(stage), f"on {words} between walls"


def _props(
    plan: _Plan, frames: int, actors: Sequence[Instance], target: Floats, distance: float, reach: float, rng: Rng
) -> tuple[Instance, ...]:
    """Still things on the floor behind the action, clear of it."""
    make, props = _Wardrobe(rng), list[Instance]()
    behind = _direction(plan.azimuth + np.pi, 0.0)
    side = np.array([-behind[1], behind[0], 0.0])
    for k in range(plan.props):
        across = (k + rng.uniform(0.2, 0.8)) / plan.props - 0.5
        body = make.any(np.zeros(3), scale=rng.uniform(1, 2))
        away = np.sqrt(2) * reach + _radius(body)
        at = target + behind * away + side * across * 0.9 * (distance + away)
        at[2] = -float(body.mesh.vertices[:, 2].min())
        name = f"{body.class_name} in the background {k + 1}"
        vertices = still(body.mesh, _pose(_about(2, 0.0), at), frames)
        props.append(Instance(name, body.class_name, body.mesh, vertices, body.texture))
    return tuple(props)


def _light(azimuth: float, rng: Rng) -> Light:
    """Sun from the camera's side, so that walls behind the action do not shade it."""
    direction = _direction(azimuth + rng.uniform(-0.7, 0.7), rng.uniform(0.7, 1.2))
    warmth = rng.uniform(0, 0.2)
    return Light(
        direction,
        np.array([1.0, 1.0 - 0.4 * warmth, 1.0 - warmth]) * rng.uniform(0.85, 1.1),
        np.array([0.25, 0.42, 0.75]) * rng.uniform(0.8, 1.1),
        np.array([0.75, 0.8, 0.85]) * rng.uniform(0.7, 1.0),
    )


def _caption(plan: _Plan, state: State, props: Sequence[Instance], place: str) -> str:
    """What happens, in words: who does what and where, who hits whom, and what the camera does."""
    sentences = [f"{plan.sentence} {place}."]
    done = set[tuple[int, int]]()
    for contact in state.contacts:
        pair = (contact.first, contact.second)
        if contact.second >= 0 and contact.time > 0.02 and pair not in done and len(done) < 3:
            done.add(pair)
            sentences.append(f"The {state.names[pair[0]]} strikes the {state.names[pair[1]]}.")
    if props:
        sentences.append(f"{_NUMBERS[len(props)].capitalize()} more stand{'s' * (len(props) == 1)} behind.")
    if plan.sweep:
        sentences.append("The camera circles the scene" + (" and moves in." if plan.dolly > 0 else "."))
    elif plan.shake:
        sentences.append("The camera is hand-held.")
    return " ".join(sentences)


def _say(bodies: Sequence[Body], one: str, many: str) -> str:
    """A sentence about bodies by name, or by number and kind where they are more than four: 'Five crates stand'."""
    if len(bodies) > 4:
        kinds = {b.class_name for b in bodies}
        noun = f"{kinds.pop()}s" if len(kinds) == 1 else "things"
        return f"{_NUMBERS[len(bodies)].capitalize()} {noun} {many}"
    text = _articled(bodies)
    return f"{text[0].upper()}{text[1:]} {one if len(bodies) == 1 else many}"


def _articled(bodies: Sequence[Body]) -> str:
    """'a red ball, an orange crate and a blue egg'."""
    articled = [f"{'an' if b.name[0] in 'aeiou' else 'a'} {b.name}" for b in bodies]
    return articled[0] if len(articled) == 1 else ", ".join(articled[:-1]) + " and " + articled[-1]
