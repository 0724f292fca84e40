"""People: the baked body, dressed, walking with feet that stay where they are put, turning and gesturing.

A gait is planned from the feet up: each foot stands for 62 % of its cycle (the stance phase of normal walking: Perry,
Gait Analysis, 1992), rolls over its toes and swings to its next place; the pelvis is carried along the path as high as
both legs reach; thigh and shin follow from the cosine rule. So a standing foot cannot slide, whatever path and speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from openuni.body import LAYOUT, Body
from openuni.errors import OpenUniError
from unibench.scenes import meshes, textures
from unibench.scenes.graph import Instance, Skin, rigid
from unibench.scenes.meshes import Mesh

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator
Gesture = Literal["none", "wave", "raise", "carry", "case"]
"""What the arms do besides swinging: the right one waves, points up or holds a case; `carry`: both hold a load."""

_STANCE = 0.62
"""Share of a foot's cycle that it stands."""
_ROLL = 0.55
"""Share of the stance after which the heel begins to rise."""
_HEEL = 0.6
"""Radians that the foot has turned over its toes when they leave the ground."""
_LIFT = 0.07
"""Metres that the ankle rises in mid-swing."""
_APART = 0.085
"""Metres from the path's middle to a foot."""
_HAND = 0.09
"""Metres from a wrist to the middle of the fist."""
_RIGHT_HAND, _LEFT_HAND = 3, 4
"""DensePose's numbers of these parts."""
_ATLAS = 1024
"""Side of the texture that a person wears, in texels: 5 × 5 cells, one a part."""

_SKIN_TONES = ((0.93, 0.76, 0.65), (0.84, 0.62, 0.47), (0.68, 0.46, 0.32), (0.45, 0.29, 0.20))
_HAIR = ((0.10, 0.07, 0.05), (0.30, 0.18, 0.09), (0.62, 0.45, 0.22), (0.55, 0.54, 0.53))


@dataclass(frozen=True, slots=True)
class Walk:
    """How somebody moves: from `start` (x, y) with `heading` (radians, world), `speed` m/s along an arc that turns by
    `turn` rad/s, `phase` (share of a cycle) into the gait. Speed 0: standing. `gesture`: what the arms do."""

    start: tuple[float, float]
    heading: float
    speed: float
    turn: float = 0.0
    phase: float = 0.0
    gesture: Gesture = "none"


def person(name: str, walk: Walk, shape: Floats, frames: int, fps: float, rng: Rng) -> Instance:
    """A dressed person of a body shape `[S]` (standard deviations) who moves through `frames` at `fps`."""
    body = Body.load()
    owner = np.zeros(len(body.uv), np.int64)
    owner[body.corners] = body.faces  # the vertex of each chart point: seams are split, as texture needs it
    rotations, places = animate(body, walk, shape, frames, fps)
    vertices = body.pose(rotations, shape, places)
    vertices = vertices[:, :, [2, 0, 1]]  # the body's left, up, forward are the world's y, z, x at heading 0
    part_of_point = np.zeros(len(body.uv), np.int64)
    part_of_point[body.corners] = body.part_of_face[:, None]
    rest = body.rest(shape)[0][owner][:, [2, 0, 1]]
    atlas = (np.stack(np.divmod(part_of_point, 5)[::-1], axis=1) + 0.05 + 0.9 * body.uv) / 5
    mesh = Mesh(rest, body.corners.astype(np.int32), atlas, smooth=True)
    regressor = np.zeros((17, len(owner)))
    first = np.unique(owner, return_index=True)[1]
    regressor[:, first] = body.joint_regressor
    skin = Skin(body.part_of_face.astype(np.uint8), body.uv, regressor, LAYOUT)
    return Instance(name, "person", mesh, vertices[:, owner], _clothes(body, atlas, rng), skin=skin)


def animate(body: Body, walk: Walk, shape: Floats, frames: int, fps: float) -> tuple[Floats, Floats]:
    """Local rotations `[T, J, 3, 3]` and translations `[T, 3]`. Left, up, forward are the world's y, z, x."""
    _, joints = body.rest(shape)
    steps = [_Step.of(body, joints, walk, side) for side in ("left", "right")]
    times = np.arange(frames) / fps
    hips = np.array([joints[body.joint(f"{side}_thigh")] for side in ("left", "right")])
    reach = 0.995 * steps[0].leg
    # As high as the stretched legs allow at the worst moment of the whole walk, and a bob of a twentieth of a step.
    fine = np.arange(0, frames / fps + 1e-9, 1 / 120)
    ceiling = np.inf
    for t in fine:
        centre, heading = _path(walk, t)
        for step, hip in zip(steps, hips, strict=True):
            across = step.foot(t)[0] - centre - hip[0] * _left(heading)
            ankle, flat = step.foot(t)[0][1], np.hypot(across[0], across[2])
            ceiling = min(ceiling, ankle + np.sqrt(max(reach**2 - flat**2, 0)) - _bob(walk, t))
    height = min(ceiling, hips[0, 1]) - hips[0, 1]
    rotations = np.tile(np.eye(3), (frames, len(body.joint_names), 1, 1))
    places = np.empty((frames, 3))
    for k, t in enumerate(times):
        centre, heading = _path(walk, t)
        places[k] = centre + np.array([-joints[0, 0], height + _bob(walk, t), -joints[0, 2]])
        world = {"pelvis": _upright(heading)}
        hip_places = joints[0] + places[k] + (hips - joints[0]) @ world["pelvis"].T
        for step, hip in zip(steps, hip_places, strict=True):
            world.update(step.leg_pose(body, joints, hip, heading, t))
        world.update(_arms(body, joints, walk, t, world["pelvis"]))
        for j, joint in enumerate(body.joint_names):
            parent = body.parents[j]
            above = world["pelvis"] if parent < 0 else world[body.joint_names[parent]]
            world.setdefault(joint, above)
            rotations[k, j] = world[joint] if parent < 0 else above.T @ world[joint]
    return rotations, places


@dataclass(frozen=True, eq=False)
class _Step:
    """One leg: lengths, its foot at rest, and where it stands when. Points are left, up, forward."""

    side: Literal["left", "right"]
    walk: Walk
    thigh: float
    shin: float
    ankle: Floats
    """The ankle above the toe joint at rest, `[3]`."""
    ground: float
    """Height of the toe joint while it stands."""

    @classmethod
    def of(cls, body: Body, joints: Floats, walk: Walk, side: Literal["left", "right"]) -> _Step:
        hip, knee, ankle, toes = (joints[body.joint(f"{side}_{n}")] for n in ("thigh", "shin", "foot", "toes"))
        lengths = float(np.linalg.norm(knee - hip)), float(np.linalg.norm(ankle - knee))
        return cls(side, walk, *lengths, ankle - toes, float(toes[1]))

    @property
    def leg(self) -> float:
        return self.thigh + self.shin

    def toes(self, cycle: int) -> tuple[Floats, float]:
        """Where the toe joint stands in a cycle, and the foot's heading there."""
        period = _period(self.walk)
        middle = (cycle + _STANCE / 2 - self.walk.phase - (0.5 if self.side == "right" else 0)) * period
        centre, heading = _path(self.walk, middle)
        sign = 1 if self.side == "left" else -1
        place = centre + sign * _APART * _left(heading) - _upright(heading) @ [0, 0, self.ankle[2]]
        return place * [1, 0, 1] + [0, self.ground, 0], heading

    def foot(self, t: float) -> tuple[Floats, Floats, float]:
        """Ankle `[3]`, the foot's rotation `[3, 3]` and how far it has rolled over its toes (radians) at time t."""
        period = _period(self.walk)
        share = t / period + self.walk.phase + (0.5 if self.side == "right" else 0)
        cycle, phase = int(np.floor(share)), share % 1.0
        if self.walk.speed == 0:
            phase = 0.0
        here, heading = self.toes(cycle)
        if phase <= _STANCE:
            roll = _HEEL * _smooth((phase / _STANCE - _ROLL) / (1 - _ROLL))
            turn = _upright(heading) @ _pitch(roll)
            return here + turn @ self.ankle, turn, roll
        there, towards = self.toes(cycle + 1)
        swing = (phase - _STANCE) / (1 - _STANCE)
        blend = _smooth(swing)
        roll = _HEEL * (1 - _smooth(swing / 0.6))
        turn = _upright(heading + _wrap(towards - heading) * blend) @ _pitch(roll)
        place = here + (there - here) * blend + [0, _LIFT * np.sin(np.pi * swing) ** 2, 0]
        return place + turn @ self.ankle, turn, roll

    def leg_pose(self, body: Body, joints: Floats, hip: Floats, heading: float, t: float) -> dict[str, Floats]:
        """World rotations of thigh, shin, foot and toes with the hip at `hip`: the knee bends forward (cosine rule)."""
        ankle, turn, roll = self.foot(t)
        way = ankle - hip
        far = min(float(np.linalg.norm(way)), 0.9999 * self.leg)
        down = way / np.linalg.norm(way)
        forward = _upright(heading)[:, 2]
        side = np.cross(down, forward)
        side /= np.linalg.norm(side)
        bend = np.arccos(np.clip((self.thigh**2 + far**2 - self.shin**2) / (2 * self.thigh * far), -1, 1))
        upper = _about(side, bend) @ down
        lower = (down * far - upper * self.thigh) / self.shin
        names = [f"{self.side}_{n}" for n in ("thigh", "shin", "foot", "toes")]
        rest = [joints[body.joint(n)] for n in names]
        # The toes lie flat while the heel rises over them, and follow the foot through the swing.
        flat = turn @ _pitch(-roll)
        return {
            names[0]: _carry(rest[1] - rest[0], np.array([-1.0, 0, 0]), upper, side),
            names[1]: _carry(rest[2] - rest[1], np.array([-1.0, 0, 0]), lower, side),
            names[2]: turn,
            names[3]: flat,
        }


def _arms(body: Body, joints: Floats, walk: Walk, t: float, pelvis: Floats) -> dict[str, Floats]:
    """World rotations of the arms: they hang and swing against the legs, or do what the gesture says."""
    cycle = 2 * np.pi * (t / _period(walk) + walk.phase)
    swing = 0.45 * min(walk.speed, 1.3) / 1.3
    world = {}
    for sign, side in ((1.0, "left"), (-1.0, "right")):
        rest = [joints[body.joint(f"{side}_{n}")] for n in ("upper_arm", "forearm", "hand")]
        angle = -swing * np.cos(cycle) * sign
        upper = _pitch(-angle) @ np.array([0.16 * sign, -1.0, 0.0])
        elbow = 0.25 + 0.35 * max(angle, 0.0)
        lower = _pitch(-angle - elbow) @ np.array([0.08 * sign, -1.0, 0.0])
        if side == "right" and walk.gesture == "wave":
            upper = np.array([-0.9, 0.25, 0.25])
            lower = np.array([0.5 * np.sin(2 * np.pi * 1.6 * t), 1.0, 0.15])
        elif side == "right" and walk.gesture == "raise":
            high = _smooth(t / 0.8)
            upper = np.array([-0.3, -1 + 1.9 * high, 0.5])
            lower = np.array([-0.1, -0.8 + 1.8 * high, 0.45])
        elif side == "right" and walk.gesture == "case":
            upper = _pitch(-0.2 * angle) @ np.array([-0.3, -1.0, 0.0])
            lower = _pitch(-0.2 * angle) @ np.array([-0.2, -1.0, 0.05])
        elif walk.gesture == "carry":
            upper = np.array([0.15 * sign, -1.0, 0.1])
            lower = np.array([0.05 * sign, 0.1, 1.0])
        hinge = np.array([sign, 0.0, 0.0])
        world[f"{side}_upper_arm"] = pelvis @ _carry(rest[1] - rest[0], hinge, upper, hinge)
        world[f"{side}_forearm"] = pelvis @ _carry(rest[2] - rest[1], hinge, lower, hinge)
    return world


def hold(person: Instance, walk: Walk, fps: float, name: str, colour: textures.Picture, rng: Rng) -> Instance:
    """What a person of gesture `carry` (a crate between the hands) or `case` (one that hangs from the right hand)
    holds: upright, it goes with the hands and turns with the walker. No force acts on it: it is not simulated.

    Raises OpenUniError for other gestures and for what is not a person.
    """
    if person.skin is None or walk.gesture not in ("carry", "case"):
        raise OpenUniError(f"{person.name} holds nothing: gesture {walk.gesture}")
    left, right = (np.einsum("v,tvc->tc", person.skin.regressor[k], person.vertices) for k in (9, 10))
    headings = [_path(walk, k / fps)[1] for k in range(len(person.vertices))]
    turns = np.array([[[np.cos(h), -np.sin(h), 0], [np.sin(h), np.cos(h), 0], [0, 0, 1]] for h in headings])
    in_right, in_left = (
        (person.vertices[:, np.unique(person.mesh.faces[person.skin.parts == part])] - right[:, None]) @ turns
        for part in (_RIGHT_HAND, _LEFT_HAND)
    )
    if walk.gesture == "carry":
        first, last = in_right[..., 1].max(), in_left[..., 1].min()  # the skin of the hands touches its sides
        size = np.array([rng.uniform(0.2, 0.3), last - first, rng.uniform(0.16, 0.28)])
        mesh = meshes.box(size)
        at = right + turns @ [_HAND + 0.02, (first + last) / 2, (left - right)[0, 2] / 2]
    else:
        size = np.array([rng.uniform(0.36, 0.46), rng.uniform(0.1, 0.14), rng.uniform(0.24, 0.3)])
        grip = -_HAND - in_right[..., 2].min() + 0.005  # the case begins below the fingers
        mesh = meshes.case(size, grip)
        at = right - [0.0, 0.0, _HAND]
    return Instance(name, name.split()[-1], mesh, rigid(mesh, turns, at), colour)


def _clothes(body: Body, atlas: Floats, rng: Rng) -> textures.Picture:
    """A shirt with short sleeves, trousers, shoes, hair and skin: each face in its colour."""
    skin, hair = np.array(_SKIN_TONES[rng.integers(4)]), np.array(_HAIR[rng.integers(4)])
    shirt, trousers = textures.colour(rng), textures.colour(rng) * rng.uniform(0.4, 0.9)
    shoes = np.full(3, rng.uniform(0.08, 0.9))
    centre = body.vertices[body.faces].mean(1)
    part = body.part_of_face
    colour = np.tile(skin, (len(part), 1))
    elbow = abs(body.joints[body.joint("left_forearm"), 0])
    sleeve = np.isin(part, (15, 16, 17, 18)) & (np.abs(centre[:, 0]) < 0.55 * elbow + 0.1)
    waist = body.joints[body.joint("spine"), 1]
    neck = body.joints[body.joint("neck"), 1]
    colour[(np.isin(part, (1, 2)) & (centre[:, 1] < neck + 0.01)) | sleeve] = shirt
    colour[np.isin(part, range(7, 15)) | (np.isin(part, (1, 2)) & (centre[:, 1] < waist - 0.04))] = trousers
    colour[np.isin(part, (5, 6))] = shoes
    head = body.joints[body.joint("head")]
    back = (centre[:, 2] < head[2] + 0.02) & (centre[:, 1] > head[1] - 0.02)
    colour[np.isin(part, (23, 24)) & (back | (centre[:, 1] > 1.635 + 0.25 * np.maximum(centre[:, 2] - 0.1, 0)))] = hair

    picture = np.full((_ATLAS, _ATLAS, 3), 0.5)
    triangles = np.round((atlas[body.corners] * _ATLAS - 0.5) * 16).astype(np.int32)
    for width in (3, 0):  # first with a rim, so that the filter at a chart's edge finds its own colour
        for triangle, tone in zip(triangles, colour.tolist(), strict=True):
            if width:
                cv2.polylines(picture, [triangle], True, tone, width, cv2.LINE_8, 4)
            else:
                cv2.fillConvexPoly(picture, triangle, tone, cv2.LINE_8, 4)
    grain = np.tile(textures.noise(rng, 256), (_ATLAS // 256, _ATLAS // 256))[..., None]
    return np.asarray(np.clip(picture * (1 + 0.07 * grain), 0, 1) * 255 + 0.5).astype(np.uint8)


def _period(walk: Walk) -> float:
    """Seconds of a cycle of two steps; slow walkers step slower (speed is about stride over period)."""
    return 1.0 if walk.speed >= 0.9 else 1.0 + 0.5 * (0.9 - walk.speed)


def _path(walk: Walk, t: float) -> tuple[Floats, float]:
    """Middle of the body on the floor (left, up, forward) and heading at time t: an arc, or a line."""
    heading = walk.heading + walk.turn * t
    if abs(walk.turn) < 1e-9:
        x = walk.start[0] + walk.speed * t * np.cos(walk.heading)
        y = walk.start[1] + walk.speed * t * np.sin(walk.heading)
    else:
        radius = walk.speed / walk.turn
        x = walk.start[0] + radius * (np.sin(heading) - np.sin(walk.heading))
        y = walk.start[1] - radius * (np.cos(heading) - np.cos(walk.heading))
    return np.array([y, 0.0, x]), heading


def _bob(walk: Walk, t: float) -> float:
    """Rise of the pelvis: lowest when both feet stand, twice a cycle."""
    both = (_STANCE - 0.5) / 2
    return float(-0.018 * min(walk.speed, 1) * np.cos(4 * np.pi * (t / _period(walk) + walk.phase - both)))


def _upright(heading: float) -> Floats:
    """Rotation of left, up, forward by a heading about up."""
    c, s = np.cos(heading), np.sin(heading)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _left(heading: float) -> Floats:
    return _upright(heading)[:, 0]


def _pitch(angle: float) -> Floats:
    """Rotation about left that takes forward down: the heel rises."""
    return _about(np.array([1.0, 0.0, 0.0]), angle)


def _about(axis: Floats, angle: float) -> Floats:
    """Rotation `[3, 3]` about a unit axis (Rodrigues)."""
    x, y, z = axis
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K)


def _carry(bone: Floats, hinge: Floats, towards: Floats, axis: Floats) -> Floats:
    """The rotation that takes a bone at rest to the direction `towards`, and its hinge as near to `axis` as may be."""
    return _frame(towards, axis) @ _frame(bone, hinge).T


def _frame(along: Floats, side: Floats) -> Floats:
    first = along / np.linalg.norm(along)
    second = side - first * (side @ first)
    second = second / np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def _smooth(x: float) -> float:
    """0 below 0, 1 above 1, without a jump of speed between."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _wrap(angle: float) -> float:
    return (angle + np.pi) % (2 * np.pi) - np.pi
