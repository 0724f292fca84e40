"""Pictures from the rays at hand: texture, sun, shadow and sky light. Fast, and needs neither GL nor a GPU.

A surface is Lambertian, so its colour does not change with the view: a picture warped by the true flow explains the
next one wherever light and shadow stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from unibench.formats.srgb import encode_srgb
from unibench.rendering.rays import Floats, Frame, Geometry, Hits, Ints, dot, interpolate
from unibench.rendering.truth import flat_normals
from unibench.scenes.graph import Scene

Frames = npt.NDArray[np.uint8]


def shade(scene: Scene, supersample: int = 2) -> Frames:
    """RGB `[T, H, W, 3]` uint8 of a scene, each pixel the mean of `supersample`² rays over its area (box filter)."""
    geometry = Geometry.of(scene)
    surface = _Surface.of(scene)
    pixels = scene.camera.pixels(supersample)
    frames = [_shade(scene, Frame(scene, geometry, t), surface, pixels, supersample) for t in range(len(scene))]
    return np.stack(frames)


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """What the faces wear: all textures of a scene with all their halvings, as one list of linear RGB texels.

    texels `[M, 3]`; start and side `[I, L]` of each instance's levels; texture coordinates `[V, 2]`; whether an
    instance blends its normals `[I]`, and over which vertices: those with one number in weld `[V]` are one point, split
    along a texture seam; density `[F]`: repeats of the texture per metre.
    """

    texels: npt.NDArray[np.float32]
    start: Ints
    side: Ints
    uv: Floats
    smooth: npt.NDArray[np.bool_]
    weld: Ints
    density: Floats

    @classmethod
    def of(cls, scene: Scene) -> _Surface:
        pyramids = [_halvings(i.texture) for i in scene.instances]
        levels = max(len(p) for p in pyramids)
        padded = [p + [p[-1]] * (levels - len(p)) for p in pyramids]
        side = np.array([[len(picture) for picture in p] for p in padded], np.int32)
        start = np.concatenate([[0], np.cumsum(side.ravel() ** 2)[:-1]]).reshape(side.shape)
        texels = np.concatenate([picture.reshape(-1, 3) for p in padded for picture in p])
        density = [
            np.sqrt(_areas(i.mesh.uv, i.mesh.faces) / _areas(i.vertices[0], i.mesh.faces)) for i in scene.instances
        ]
        return cls(
            texels,
            start.astype(np.int32),
            side,
            np.concatenate([i.mesh.uv for i in scene.instances]),
            np.array([i.mesh.smooth for i in scene.instances]),
            _weld(scene),
            np.concatenate(density),
        )


def _shade(scene: Scene, frame: Frame, surface: _Surface, pixels: Floats, supersample: int) -> Frames:
    camera, light, t = scene.camera, scene.light, frame.t
    rays = camera.rays(t, pixels)
    hits = frame.cast(rays)
    hit = hits.triangle >= 0
    world = camera.pose[t, :3, :3]
    up = (rays @ world[2]) / np.sqrt(dot(rays, rays))
    colour = _sky(scene, up)

    seen = Hits(hits.triangle[hit], hits.weights[hit], hits.depth[hit])
    flat = flat_normals(frame, seen, rays[hit])
    area = seen.depth**2 / np.abs(dot(flat, rays[hit]))
    area /= camera.intrinsics[t, 0, 0] * camera.intrinsics[t, 1, 1] * supersample**2
    albedo = _texture(surface, frame.geometry, seen, area)
    normal = _smooth(frame, surface, seen, flat)
    sun = light.direction @ world
    facing = np.clip(normal @ sun, 0, None)
    points = frame.points(seen)
    lit = np.flatnonzero((facing > 0) & (flat @ sun > 0))
    # A start a little off the surface, or the surface would shade itself by rounding.
    origin = points[lit] + 1e-4 * seen.depth[lit, None] * flat[lit]
    dark = frame.blocked(origin, np.broadcast_to(sun, origin.shape))
    shining = np.zeros(len(points))
    shining[lit[~dark]] = facing[lit[~dark]]
    above = 0.5 + 0.5 * normal @ world[2]
    ambient = light.horizon + (light.sky - light.horizon) * above[:, None]
    colour[hit] = albedo * (shining[:, None] * light.sun + 0.7 * ambient)

    side = supersample
    linear = colour.reshape(camera.height, side, camera.width, side, 3).mean(axis=(1, 3))
    return encode_srgb(linear)


def _sky(scene: Scene, up: Floats) -> Floats:
    blend = np.clip(up, 0, 1)[:, None] ** 0.5
    return np.asarray(scene.light.horizon + (scene.light.sky - scene.light.horizon) * blend)


def _smooth(frame: Frame, surface: _Surface, hits: Hits, flat: Floats) -> Floats:
    """Normals blended over faces where the mesh asks for it, `flat` `[N, 3]` elsewhere."""
    round_ = surface.smooth[frame.geometry.owner[hits.triangle]]
    if not round_.any():
        return flat
    faces = frame.geometry.faces
    corners = frame.vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    welded = surface.weld[faces]
    sums = [np.bincount(welded.ravel(), weights=np.repeat(face_normals[:, axis], 3)) for axis in range(3)]
    at_vertices = np.stack(sums, axis=1).astype(np.float64)
    blended = interpolate(at_vertices[welded[hits.triangle]], hits.weights)
    blended /= np.sqrt(np.maximum(dot(blended, blended), 1e-60))[:, None]
    blended *= np.sign(dot(blended, flat))[:, None]
    return np.where(round_[:, None], blended, flat)


def _texture(surface: _Surface, geometry: Geometry, hits: Hits, area: Floats) -> npt.NDArray[np.float32]:
    """Linear RGB `[N, 3]` of the texture at hits whose pixels cover `area` `[N]` m²: bilinear, between two halvings."""
    owner = geometry.owner[hits.triangle]
    uv = interpolate(surface.uv[geometry.faces[hits.triangle]], hits.weights)
    texels_across = np.sqrt(area) * surface.density[hits.triangle] * surface.side[owner, 0]
    level = np.clip(np.log2(np.maximum(texels_across, 1e-9)), 0, surface.side.shape[1] - 1.001)
    lower = level.astype(np.int32)
    blend = (level - lower).astype(np.float32)[:, None]
    fine, coarse = (_bilinear(surface, owner, lower + step, uv) for step in (0, 1))
    return np.asarray(fine + (coarse - fine) * blend)


def _bilinear(surface: _Surface, owner: Ints, level: Ints, uv: Floats) -> npt.NDArray[np.float32]:
    side, start = surface.side[owner, level], surface.start[owner, level]
    x, y = (uv * side[:, None] - 0.5).T
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
    left, right = x0 % side, (x0 + 1) % side
    top, bottom = start + (y0 % side) * side, start + ((y0 + 1) % side) * side
    texels = surface.texels
    upper = texels[top + left] * (1 - fx) + texels[top + right] * fx
    lower = texels[bottom + left] * (1 - fx) + texels[bottom + right] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def _halvings(picture: Frames) -> list[npt.NDArray[np.float32]]:
    """A square sRGB picture in linear light, and its halvings down to one texel."""
    linear = decode_srgb(picture)
    levels = [linear]
    while len(linear) > 1:
        linear = cv2.resize(linear, (len(linear) // 2, len(linear) // 2), interpolation=cv2.INTER_AREA)
        levels.append(linear.reshape(len(linear), -1, 3))
    return levels


def _weld(scene: Scene) -> Ints:
    """For each vertex of the joined mesh `[V]` the number of its point: copies along a texture seam share one."""
    rest = [np.column_stack([np.full(len(i.mesh.vertices), n), i.mesh.vertices]) for n, i in enumerate(scene.instances)]
    _, weld = np.unique(np.concatenate(rest).round(9), axis=0, return_inverse=True)
    return np.asarray(weld.ravel(), np.int32)


def _areas(points: Floats, faces: Ints) -> Floats:
    """Areas `[F]` of triangles in two or three dimensions; never zero."""
    corner = points[faces]
    p, q = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    squared = (p * p).sum(1) * (q * q).sum(1) - (p * q).sum(1) ** 2
    return np.asarray(np.sqrt(np.maximum(squared, 1e-24)) / 2)


def decode_srgb(picture: Frames) -> npt.NDArray[np.float32]:
    """Linear light in [0, 1] of sRGB bytes (IEC 61966-2-1)."""
    x = np.arange(256) / 255
    table = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return np.asarray(table[picture])
