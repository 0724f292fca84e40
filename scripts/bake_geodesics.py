"""Bake geodesic distances on the body at rest, for `unibench.metrics.geodesics`.

    python scripts/bake_geodesics.py          (needs scipy; a minute)

Shortest paths run along the mesh's edges and, straight across each edge, between the two corners that face it, on the
unfolded pair of triangles. That graph overestimates by a few per cent. The distances are kept between 1024 vertices
that lie farthest from each other, in centimetres; every other vertex is taken for the nearest of them, 1.5 cm away on
average.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from openuni.body.body import Body

LANDMARKS = 1024
OUT = Path(__file__).parents[1] / "unibench" / "metrics" / "anny24_geodesics.npz"
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def main() -> None:
    body = Body.load()
    graph = surface_graph(body.vertices, body.faces)
    count, component = connected_components(graph, directed=False)
    sizes = np.bincount(component)
    print(f"{count} connected parts, the largest of {sizes.max()} of {len(component)} vertices")
    landmarks, nearest = spread(graph, component == sizes.argmax())
    between = dijkstra(graph, directed=False, indices=landmarks)[:, landmarks]
    centimetres = np.minimum(np.rint(100 * between), 255).astype(np.uint8)
    upper = centimetres[np.triu_indices(LANDMARKS)]
    np.savez_compressed(OUT, upper=upper, nearest=nearest.astype(np.uint16))
    print(f"{OUT}: {OUT.stat().st_size / 2**10:.0f} KiB, farthest {between[np.isfinite(between)].max():.2f} m")


def surface_graph(vertices: Floats, faces: Ints) -> csr_matrix:
    """Edges of the mesh and, where they stay inside, straight lines across each edge, with their lengths in metres."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    facing = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    ordered = np.sort(edges, axis=1)
    order = np.lexsort((ordered[:, 1], ordered[:, 0]))
    same = (ordered[order][:-1] == ordered[order][1:]).all(axis=1)
    first, second = order[:-1][same], order[1:][same]
    a, b = vertices[ordered[first, 0]], vertices[ordered[first, 1]]
    along = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
    flat = []
    for corner in (vertices[facing[first]], vertices[facing[second]]):
        s = ((corner - a) * along).sum(axis=1)
        flat.append((s, np.linalg.norm(corner - a - s[:, None] * along, axis=1)))
    (s1, h1), (s2, h2) = flat
    crossing = s1 + (s2 - s1) * h1 / (h1 + h2)
    inside = (crossing > 0) & (crossing < np.linalg.norm(b - a, axis=1))
    rows = np.concatenate([ordered[:, 0], facing[first][inside]])
    columns = np.concatenate([ordered[:, 1], facing[second][inside]])
    straight = np.linalg.norm(vertices[ordered[:, 0]] - vertices[ordered[:, 1]], axis=1)
    lengths = np.concatenate([straight, np.hypot(s2 - s1, h1 + h2)[inside]])
    # A pair that occurs twice must not be summed, as csr_matrix would.
    pairs, keep = np.unique(np.sort(np.stack([rows, columns], axis=1), axis=1), axis=0, return_index=True)
    return csr_matrix((lengths[keep], pairs.T), shape=(len(vertices), len(vertices)))


def spread(graph: csr_matrix, allowed: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Vertices each farthest from those before it, and for every vertex which of them is nearest."""
    distance = np.full(graph.shape[0], np.inf)
    nearest = np.zeros(graph.shape[0], np.int64)
    chosen: list[int] = []
    vertex = int(np.flatnonzero(allowed)[0])
    for number in range(LANDMARKS):
        chosen.append(vertex)
        limit = float(distance[allowed].max()) if number else np.inf
        reach = dijkstra(graph, directed=False, indices=vertex, limit=limit)
        closer = reach < distance
        distance[closer], nearest[closer] = reach[closer], number
        vertex = int(np.where(allowed, distance, -1).argmax())
    mean, largest = 100 * distance[allowed].mean(), 100 * distance[allowed].max()
    print(f"to the nearest landmark {mean:.1f} cm on average, {largest:.1f} cm at most")
    return np.array(chosen), nearest


if __name__ == "__main__":
    main()
