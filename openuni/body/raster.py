"""Which part, U and V each pixel of a body shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from openuni.body.body import Body, Floats

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Surface:
    """A body seen in `[H, W]` pixels: part 1–24 (0: nothing), U and V × 255, depth (inf: nothing)."""

    part: Bytes
    u: Bytes
    v: Bytes
    depth: npt.NDArray[np.float32]


def rasterise(body: Body, vertices: Floats, height: int, width: int) -> Surface:
    """Draw posed vertices `[V, 3]` by one ray through each pixel's centre, along +z.

    x and y are pixels (x right, y down, pixel (i, j) centred at (j + .5, i + .5)), z any depth that grows away from
    the viewer: orthographic, or perspective after division. Only the pixels inside the body's box are visited.
    """
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    part, u, v = planes = np.zeros((3, height, width), np.uint8)
    depth = np.full((height, width), np.inf, np.float32)
    if not np.isfinite(vertices).all():
        return Surface(part, u, v, depth)
    low = np.clip(np.floor(vertices[:, :2].min(0)).astype(int), 0, (width, height))
    high = np.clip(np.ceil(vertices[:, :2].max(0)).astype(int), 0, (width, height))
    if (high <= low).any():
        return Surface(part, u, v, depth)
    x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
    near = vertices[:, 2].min() - 1
    origin = np.stack([x, y, np.full_like(x, near)], -1).reshape(-1, 3).astype(np.float32)
    ray = np.tile(np.array([0, 0, 1], np.float32), (len(origin), 1))
    scene = rtcore_scene.EmbreeScene()
    TriangleMesh(scene, vertices[body.faces].astype(np.float32))
    hit = scene.run(origin, ray, query="INTERSECT", output=True)

    face = hit["primID"]
    seen = face >= 0
    face, b, c = face[seen], hit["u"][seen, None], hit["v"][seen, None]
    corner = body.uv[body.corners[face]]
    uv = (1 - b - c) * corner[:, 0] + b * corner[:, 1] + c * corner[:, 2]
    values = np.concatenate([body.part_of_face[face, None], np.round(np.clip(uv, 0, 1) * 255)], 1)
    window = np.zeros((3, seen.size), np.uint8)
    window[:, seen] = values.T
    rows, columns = slice(low[1], high[1]), slice(low[0], high[0])
    planes[:, rows, columns] = window.reshape(3, *x.shape)
    far = np.where(seen, hit["tfar"] + np.float32(near), np.inf)
    depth[rows, columns] = far.reshape(x.shape)
    return Surface(part, u, v, depth)
