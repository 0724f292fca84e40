"""Exact truth of a scene, from rays through pixel centres; independent of any renderer of pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from unibench.rays import Bools, Floats, Frame, Geometry, Hits, dot
from unibench.scenes.camera import Camera
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

    def digest(self) -> str:
        """SHA-256 over the bytes, shapes and types of all arrays, the camera's included."""
        hashed = hashlib.sha256()
        for owner in (self, self.camera):
            for field in fields(owner):
                value = getattr(owner, field.name)
                if isinstance(value, np.ndarray):
                    hashed.update(f"{field.name} {value.dtype} {value.shape}".encode())
                    hashed.update(np.ascontiguousarray(value).tobytes())
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
    for t in range(len(scene)):
        frame = Frame(scene, geometry, t)
        hits = frame.cast(camera.rays(t, pixels))
        depth.append(np.where(hits.triangle < 0, np.nan, hits.depth).reshape(shape))
        normals.append(flat_normals(frame, hits, camera.rays(t, pixels)).reshape(*shape, 3))
        ids.append(np.where(hits.triangle < 0, 0, geometry.owner[hits.triangle] + 1).reshape(shape))
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


def flat_normals(frame: Frame, hits: Hits, rays: Floats) -> Floats:
    """Unit normals `[N, 3]` of the triangles hit, in camera axes, turned towards the camera; NaN in the sky."""
    corners = frame.corners(hits.triangle)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.sqrt(dot(normal, normal))[:, None]
    normal[dot(normal, rays) > 0] *= -1
    normal[hits.triangle < 0] = np.nan
    return np.asarray(normal)
