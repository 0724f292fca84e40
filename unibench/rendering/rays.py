"""Rays against a scene: which triangle each meets first, by Embree, and where on it, in float64.

Embree works in float32 and is trusted only to name the triangle. The intersection is then solved again in float64,
in the axes of the camera, where a ray with z = 1 has the planar depth as its parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unibench.scenes.graph import Scene

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

_SLACK = 1e-4
"""A point nearer than this, relative to its depth, behind what a ray meets is still seen (float32 is a tenth of it)."""


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What N rays meet: triangle `[N]` (−1: sky), barycentric weights `[N, 3]` and planar depth `[N]` (sky: inf)."""

    triangle: Ints
    weights: Floats
    depth: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """All meshes of a scene as one: faces `[F, 3]` into the joined vertices, and the instance each is of `[F]`."""

    faces: Ints
    owner: Ints

    @classmethod
    def of(cls, scene: Scene) -> Geometry:
        sizes = [len(i.mesh.vertices) for i in scene.instances]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        faces = [i.mesh.faces + start for i, start in zip(scene.instances, starts, strict=True)]
        owner = np.repeat(np.arange(len(faces)), [len(f) for f in faces])
        return cls(np.concatenate(faces).astype(np.int32), owner.astype(np.int32))


class Frame:
    """One frame of a scene, ready to be asked. `vertices` `[V, 3]` are in the axes of its camera."""

    def __init__(self, scene: Scene, geometry: Geometry, t: int) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.t = t
        self.camera = scene.camera
        self.geometry = geometry
        joined = np.concatenate([i.vertices[t] for i in scene.instances])
        self.vertices: Floats = scene.camera.to_camera(t, joined)
        self._embree = EmbreeScene(robust=True)
        TriangleMesh(self._embree, self.vertices.astype(np.float32), geometry.faces)

    def cast(self, rays: Floats) -> Hits:
        """What rays `[N, 3]` from the camera, with z = 1, meet first."""
        found = self._first(np.zeros_like(rays), rays)
        corners = self.corners(found)
        a, e1, e2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        normal = np.cross(e1, e2)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = dot(normal, a) / dot(normal, rays)
            offset = rays * depth[:, None] - a
            area = dot(normal, normal)
            v = dot(np.cross(offset, e2), normal) / area
            w = dot(np.cross(e1, offset), normal) / area
        missed = (found < 0) | ~np.isfinite(depth)
        found[missed] = -1
        weights = np.stack([1 - v - w, v, w], axis=1)
        weights[missed] = 0
        return Hits(found, weights, np.where(missed, np.inf, depth))

    def points(self, hits: Hits) -> Floats:
        """Where the material points of `hits`, from this or another frame, are in this frame, `[N, 3]` camera axes."""
        return interpolate(self.corners(hits.triangle), hits.weights)

    def corners(self, triangle: Ints) -> Floats:
        """Corners `[N, 3, 3]` of triangles `[N]`."""
        return np.asarray(self.vertices[self.geometry.faces[triangle]])

    def sees(self, points: Floats, triangle: Ints) -> Bools:
        """Whether the camera's ray towards each point `[N, 3]` (z > 0) reaches it or the triangle `[N]` it lies on."""
        rays = points / points[:, 2:]
        hit = self._embree.run(np.zeros(rays.shape, np.float32), np.ascontiguousarray(rays, np.float32), output=True)
        reached = hit["tfar"] >= points[:, 2] * (1 - _SLACK)
        return np.asarray(reached | (hit["primID"] == triangle) | (hit["primID"] < 0))

    def blocked(self, origins: Floats, directions: Floats) -> Bools:
        """Whether anything lies on each half-line `[N, 3]` from `origins` `[N, 3]`."""
        return np.asarray(self._first(origins, directions) >= 0)

    def _first(self, origins: Floats, directions: Floats) -> Ints:
        found = self._embree.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32)
        )
        return np.asarray(found, np.int32)


def interpolate(corners: Floats, weights: Floats) -> Floats:
    """Values `[N, D]` at barycentric `weights` `[N, 3]` between those of the corners `[N, 3, D]`."""
    return np.asarray(np.einsum("nkd,nk->nd", corners, weights))


def dot(a: Floats, b: Floats) -> Floats:
    """Inner products `[N]` of rows `[N, D]`."""
    return np.asarray(np.einsum("nd,nd->n", a, b))
