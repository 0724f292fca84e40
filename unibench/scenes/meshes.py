"""Closed triangle meshes with texture coordinates, each in its own axes, metres, z up, faces counter-clockwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Vertices `[V, 3]` float64, faces `[F, 3]` int32 and texture coordinates `[V, 2]` in repeats of the texture.

    Vertices are split along texture seams. `smooth` asks the shading (never the truth) to blend normals over faces.
    """

    vertices: Floats
    faces: Ints
    uv: Floats
    smooth: bool = False


def plane(width: float, depth: float, repeat: float = 1.0) -> Mesh:
    """A rectangle in z = 0 that faces up, centred on the origin; the texture repeats every `repeat` metres."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, depth / 2]
    vertices = np.column_stack([corners, np.zeros(4)])
    return Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), corners / repeat)


def box(size: Floats, repeat: float | None = None) -> Mesh:
    """A box with the given edge lengths `[3]`. The texture covers each face once, or repeats every `repeat` metres."""
    vertices, faces, uvs = list[Floats](), list[npt.NDArray[np.int64]](), list[Floats]()
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = ((axis + 1) % 3, (axis + 2) % 3) if sign > 0 else ((axis + 2) % 3, (axis + 1) % 3)
            square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
            corner = np.empty((4, 3))
            corner[:, axis] = sign * size[axis] / 2
            corner[:, u] = (square[:, 0] - 0.5) * size[u]
            corner[:, v] = (square[:, 1] - 0.5) * size[v]
            faces.append(np.array([[0, 1, 2], [0, 2, 3]]) + 4 * len(vertices))
            vertices.append(corner)
            uvs.append(square if repeat is None else square * [size[u] / repeat, size[v] / repeat])
    return Mesh(np.concatenate(vertices), np.concatenate(faces).astype(np.int32), np.concatenate(uvs))


def case(size: Floats, grip: float, bar: float = 0.015) -> Mesh:
    """A case with a handle: a box of `size` `[3]` whose top lies `grip` below the origin, where the handle's bar is."""
    across = np.array([0.14, bar, bar])
    posts = np.array([bar, bar, grip])
    places = [(size, [0, 0, -grip - size[2] / 2]), (across, [0, 0, 0])]
    places += [(posts, [side * (across[0] - bar) / 2, 0, -grip / 2]) for side in (-1, 1)]
    boxes = [box(edges) for edges, _ in places]
    vertices = [b.vertices + np.array(at) for b, (_, at) in zip(boxes, places, strict=True)]
    offsets = np.cumsum([0, *(len(v) for v in vertices[:-1])])
    faces = [b.faces + offset for b, offset in zip(boxes, offsets, strict=True)]
    return Mesh(np.concatenate(vertices), np.concatenate(faces).astype(np.int32), np.concatenate([b.uv for b in boxes]))


def ellipsoid(radii: Floats, segments: int = 48) -> Mesh:
    """An ellipsoid with semi-axes `[3]`: meridians and parallels, `segments` round the equator."""
    polar = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    profile = np.stack([np.cos(polar), np.sin(polar)], axis=1)
    return _revolve(profile, segments, radii, smooth=True)


def sphere(radius: float, segments: int = 48) -> Mesh:
    """A ball; see `ellipsoid`."""
    return ellipsoid(np.full(3, radius), segments)


def cylinder(radius: float, height: float, segments: int = 48) -> Mesh:
    """A cylinder about z with both lids; rims are creases because its profile repeats the corner."""
    profile = np.array([[0, -1], [1, -1], [1, -1], [1, 1], [1, 1], [0, 1]], np.float64)
    return _revolve(profile, segments, np.array([radius, radius, height / 2]), smooth=False)


def capsule(radius: float, height: float, segments: int = 48) -> Mesh:
    """A cylinder about z of the given straight height, closed by half balls."""
    polar = np.linspace(0, np.pi / 2, segments // 4 + 1)
    cap = np.stack([np.cos(polar) * radius, np.sin(polar) * radius + height / 2], axis=1)
    profile = np.concatenate([cap[::-1] * [1, -1], cap])
    return _revolve(profile, segments, np.ones(3), smooth=True)


def torus(radius: float, tube: float, segments: int = 64) -> Mesh:
    """A ring about z: `radius` to the middle of a tube of radius `tube`."""
    angle = np.linspace(-np.pi, np.pi, segments // 2 + 1)
    profile = np.stack([radius + tube * np.cos(angle), tube * np.sin(angle)], axis=1)
    return _revolve(profile, segments, np.ones(3), smooth=True)


def _revolve(profile: Floats, segments: int, scale: Floats, *, smooth: bool) -> Mesh:
    """Turn a profile `[P, 2]` of (radius, z), bottom to top on the outside, about z; then scale the axes."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rows = len(profile)
    points = np.empty((rows, segments + 1, 3))
    points[..., :2] = profile[:, None, :1] * ring
    points[..., 2] = profile[:, 1:]
    points[:, -1] = points[:, 0]  # exactly, or rays slip through the seam
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    uv = np.empty((rows, segments + 1, 2))
    uv[..., 0] = 2 * angle / (2 * np.pi)
    uv[..., 1] = length[:, None] / length[-1]

    index = np.arange(rows * (segments + 1)).reshape(rows, segments + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, b, c], axis=-1), np.stack([a, c, d], axis=-1)], axis=2).reshape(-1, 3)
    vertices = points.reshape(-1, 3) * scale
    corner = vertices[faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    solid = area > 1e-12 * area.max()  # the poles and doubled rims collapse to a point or line
    return Mesh(vertices, faces[solid].astype(np.int32), uv.reshape(-1, 2), smooth)
