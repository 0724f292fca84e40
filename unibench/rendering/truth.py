"""Exact truth of a scene, from rays through pixel centres; independent of any renderer of pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from unibench.camera import Camera
from unibench.rendering.rays import Bools, Floats, Frame, Geometry, Hits, dot, interpolate
from unibench.scenes.graph import Scene

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """What an id stands for. Ids of `thing` false are the stage (floor, walls)."""

    id: int
    name: str
    class_name: str
    thing: bool


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Exact annotation of P people, in the order of their instances (person p + 1 has the surface's number p + 1).

    surface    uint8 `[T, H, W, 4]`: part 1–24 (0: no person), U and V × 255, person
    keypoints  float32 `[T, P, 17, 3]`, COCO's order: x, y in pixels and 1 where the camera sees the joint's place on
               the body, .5 where something hides it; out of the image NaN, NaN, 0
    boxes      float32 `[T, P, 4]`: x0, y0, x1, y1 about the pixels that show the person; NaN: none
    world      float32 `[T, P, 17, 3]`: the joints in camera axes, metres
    """

    surface: npt.NDArray[np.uint8]
    keypoints: Singles
    boxes: Singles
    world: Singles
    layout: str


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Exact annotation of T frames of H × W pixels, each at the pixel's centre.

    depth        float32 `[T, H, W]`, metres along the axis of the camera (planar); NaN: sky
    normals      float32 `[T, H, W, 3]`, unit, camera axes, towards the camera, of the flat triangle; NaN: sky
    ids          int32 `[T, H, W]`, the same for an instance in all frames; 0: sky
    forward      float32 `[T−1, H, W, 2]`, pixels (x, y) from frame t to t+1; NaN: the point is behind the camera of t+1
    backward     float32 `[T−1, H, W, 2]`, from frame t+1 to t, on the pixels of t+1
    occluded     bool `[T−1, H, W]`, the point of a pixel of t is hidden or out of frame in t+1
    disoccluded  bool `[T−1, H, W]`, the point of a pixel of t+1 was hidden or out of frame in t

    The sky is a picture at infinity: it moves when the camera turns.
    """

    depth: Singles
    normals: Singles
    ids: npt.NDArray[np.int32]
    forward: Singles
    backward: Singles
    occluded: Bools
    disoccluded: Bools
    things: tuple[Thing, ...]
    camera: Camera
    people: People | None = None

    def digest(self) -> str:
        """SHA-256 over the bytes, shapes and types of all arrays, the camera's included."""
        hashed = hashlib.sha256()
        owners: list[Truth | Camera | People] = [self, self.camera]
        for owner in owners + ([self.people] if self.people else []):
            for field in fields(owner):
                value = getattr(owner, field.name)
                if isinstance(value, np.ndarray):
                    hashed.update(f"{field.name} {value.dtype} {value.shape}".encode())
                    hashed.update(np.ascontiguousarray(value).tobytes())
        return hashed.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 over the truth in steps far above the rounding of float64, so that machines agree on it.

        `digest` is for one environment: matrix products and sines differ in their last bits between processors. Here
        depth is in steps of a thousandth of itself, flow and key points of a hundredth of a pixel, ids as they are.
        """
        with np.errstate(invalid="ignore"):
            parts = [np.log(self.depth) * 1e3, self.forward * 100, self.backward * 100, self.ids]
            if self.people is not None:
                parts += [self.people.keypoints[..., :2] * 100, self.people.surface[..., [0, 3]]]
        hashed = hashlib.sha256()
        for part in parts:
            whole = np.round(np.nan_to_num(np.asarray(part, np.float64), nan=-1e9, posinf=1e9, neginf=-1e9))
            hashed.update(whole.astype("<i8").tobytes())
        return hashed.hexdigest()


def trace(scene: Scene) -> Truth:
    """The truth of a scene. Computed in float64, stored in float32 (depth to 6e-8 of itself)."""
    geometry = Geometry.of(scene)
    camera = scene.camera
    pixels = camera.pixels()
    shape = (camera.height, camera.width)
    depth, normals, ids = [], [], []
    forward, backward = list[Floats](), list[Floats]()
    occluded, disoccluded = list[Bools](), list[Bools]()
    before: tuple[Frame, Hits] | None = None
    persons = [n for n, i in enumerate(scene.instances) if i.skin is not None]
    surface, joints = list[npt.NDArray[np.uint8]](), list[tuple[Floats, Floats]]()
    for t in range(len(scene)):
        frame = Frame(scene, geometry, t)
        hits = frame.cast(camera.rays(t, pixels))
        depth.append(np.where(hits.triangle < 0, np.nan, hits.depth).reshape(shape))
        normals.append(flat_normals(frame, hits, camera.rays(t, pixels)).reshape(*shape, 3))
        ids.append(np.where(hits.triangle < 0, 0, geometry.owner[hits.triangle] + 1).reshape(shape))
        if persons:
            surface.append(_surface(scene, frame, hits, persons).reshape(*shape, 4))
            joints.append(_joints(scene, frame, persons))
        if before is not None:
            for source, seen, target, flows, hidden in (
                (*before, frame, forward, occluded),
                (frame, hits, before[0], backward, disoccluded),
            ):
                motion, gone = flow(source, seen, target, pixels)
                flows.append(motion.reshape(*shape, 2))
                hidden.append(gone.reshape(shape))
        before = (frame, hits)
    return Truth(
        np.array(depth, np.float32),
        np.array(normals, np.float32),
        np.array(ids, np.int32),
        np.array(forward, np.float32).reshape(-1, *shape, 2),
        np.array(backward, np.float32).reshape(-1, *shape, 2),
        np.array(occluded, np.bool_).reshape(-1, *shape),
        np.array(disoccluded, np.bool_).reshape(-1, *shape),
        tuple(Thing(k, i.name, i.class_name, i.thing) for k, i in enumerate(scene.instances, 1)),
        camera,
        _people(scene, persons, surface, joints) if persons else None,
    )


def flow(source: Frame, hits: Hits, target: Frame, pixels: Floats) -> tuple[Floats, Bools]:
    """Where the material points seen at `pixels` `[N, 2]` of `source` are in `target`: motion `[N, 2]`, hidden `[N]`.

    The point keeps its triangle and barycentric weights. It is hidden behind the camera, out of the image, or when the
    ray towards it meets something nearer.
    """
    sky = hits.triangle < 0
    points = target.points(hits)
    far = source.camera.rays(source.t, pixels[sky])
    turn = target.camera.pose[target.t, :3, :3].T @ source.camera.pose[source.t, :3, :3]
    points[sky] = far @ turn.T
    moved = target.camera.project(target.t, points)
    size = [target.camera.width, target.camera.height]
    inside: Bools = np.all((moved >= 0) & (moved < size), axis=1)  # false for NaN, behind the camera
    seen = inside.copy()
    # A direction in the sky has no depth to compare: it is seen where its ray meets nothing.
    points[sky & inside] *= 1e9 / points[sky & inside, 2:]
    seen[inside] = target.sees(points[inside], hits.triangle[inside])
    return moved - pixels, ~seen


_FLESH = np.array([0.04, 0.04, 0.04, 0.08, 0.08, 0.14, 0.14, 0.08, 0.08, 0.06, 0.06, 0.2, 0.2, 0.1, 0.1, 0.08, 0.08])
"""Metres of its own body that may lie before a key point, in COCO's order, and it is still seen: joints lie inside."""


def _surface(scene: Scene, frame: Frame, hits: Hits, persons: list[int]) -> npt.NDArray[np.uint8]:
    """Part, U, V (× 255) and person `[N, 4]` of what rays meet."""
    out = np.zeros((len(hits.triangle), 4), np.uint8)
    owner = np.where(hits.triangle < 0, -1, frame.geometry.owner[hits.triangle])
    for number, n in enumerate(persons, 1):
        skin, mesh = scene.instances[n].skin, scene.instances[n].mesh
        here = owner == n
        if skin is None or not here.any():
            continue
        face = hits.triangle[here] - np.searchsorted(frame.geometry.owner, n)
        chart = interpolate(skin.chart[mesh.faces[face]], hits.weights[here])
        out[here, 0] = skin.parts[face]
        out[here, 1:3] = np.round(np.clip(chart, 0, 1) * 255)
        out[here, 3] = number
    return out


def _joints(scene: Scene, frame: Frame, persons: list[int]) -> tuple[Floats, Floats]:
    """Key points `[P, 17, 3]` (x, y, score) and their places in camera axes `[P, 17, 3]`."""
    camera, t = frame.camera, frame.t
    places = np.array([i.skin.regressor @ i.vertices[t] for i in map(scene.instances.__getitem__, persons) if i.skin])
    points = camera.to_camera(t, places)
    image = camera.project(t, points)
    inside = np.all((image >= 0) & (image < [camera.width, camera.height]), axis=2)
    found = np.full((*inside.shape, 3), [np.nan, np.nan, 0.0])
    for p, n in enumerate(persons):
        here = points[p, inside[p]]
        met = frame.cast(here / here[:, 2:])
        own = (met.triangle >= 0) & (frame.geometry.owner[met.triangle] == n)
        seen = (own | (met.depth > here[:, 2])) & (met.depth > here[:, 2] - _FLESH[inside[p]])
        found[p, inside[p]] = np.column_stack([image[p, inside[p]], np.where(seen, 1.0, 0.5)])
    return found, points


def _people(
    scene: Scene, persons: list[int], surface: list[npt.NDArray[np.uint8]], joints: list[tuple[Floats, Floats]]
) -> People:
    whole = np.array(surface)
    boxes = np.full((len(whole), len(persons), 4), np.nan, np.float32)
    for t, p in np.ndindex(boxes.shape[:2]):
        rows, columns = np.nonzero(whole[t, ..., 3] == p + 1)
        if len(rows):
            boxes[t, p] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    layouts = {skin.layout for n in persons if (skin := scene.instances[n].skin) is not None}
    keypoints, world = (np.array(part, np.float32) for part in zip(*joints, strict=True))
    return People(whole, keypoints, boxes, world, layouts.pop())


def flat_normals(frame: Frame, hits: Hits, rays: Floats) -> Floats:
    """Unit normals `[N, 3]` of the triangles hit, in camera axes, turned towards the camera; NaN in the sky."""
    corners = frame.corners(hits.triangle)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.sqrt(dot(normal, normal))[:, None]
    normal[dot(normal, rays) > 0] *= -1
    normal[hits.triangle < 0] = np.nan
    return np.asarray(normal)
