"""Distances on the baked body: a metric, near true shortest paths, and sensible between named places."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from openuni.body.body import Body
from openuni.modalities.densepose import PARTS, DensePose
from unibench.metrics.densepose import DensePoseMetric
from unibench.metrics.geodesics import BodyGeodesics, chart_vertices


def points(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack(
        [rng.integers(1, 25, count), rng.integers(0, 256, count), rng.integers(0, 256, count)], axis=1
    ).astype(np.uint8)


def test_distances_are_symmetric_zero_to_themselves_and_keep_the_triangle_inequality() -> None:
    body = BodyGeodesics.load()
    a, b, c = points(0, 500), points(1, 500), points(2, 500)
    assert (body.distance(a, a) == 0).all()
    assert np.array_equal(body.distance(a, b), body.distance(b, a))
    assert (body.distance(a, c) <= body.distance(a, b) + body.distance(b, c) + 0.011).all()  # rounded to centimetres


def test_named_places_are_as_far_apart_as_on_a_body() -> None:
    body = BodyGeodesics.load()
    middle = {name: np.array([[PARTS.index(name), 128, 128]], np.uint8) for name in PARTS[1:]}

    def metres(a: str, b: str) -> float:
        return float(body.distance(middle[a], middle[b])[0])

    assert 1.2 < metres("left hand", "right hand") < 2.1
    assert 1.2 < metres("head left", "left foot") < 2.1
    assert metres("head left", "head right") < 0.4
    assert metres("torso back", "torso front") < 0.6
    assert metres("left foot", "left lower leg front") < metres("left foot", "left upper leg front")


def test_distances_are_near_the_shortest_paths_on_the_whole_mesh() -> None:
    from scipy.sparse.csgraph import dijkstra

    script = Path(__file__).parents[3] / "scripts" / "bake_geodesics.py"
    spec = importlib.util.spec_from_file_location("bake_geodesics", script)
    assert spec is not None
    assert spec.loader is not None
    bake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bake)
    body = Body.load()
    graph = bake.surface_graph(body.vertices, body.faces)
    first, second = points(3, 12), points(4, 12)
    cells = chart_vertices(body)
    at = [cells[p[:, 0], p[:, 1].astype(int) // 4, p[:, 2].astype(int) // 4] for p in (first, second)]
    exact = dijkstra(graph, directed=False, indices=at[0])[np.arange(12), at[1]]
    assert np.abs(BodyGeodesics.load().distance(first, second) - exact).max() < 0.065


def test_the_graph_is_exact_on_a_plane_up_to_its_directions() -> None:
    """On a grid of squares cut by diagonals, straight lines along rows, columns and both diagonals are exact."""
    from scipy.sparse.csgraph import dijkstra

    script = Path(__file__).parents[3] / "scripts" / "bake_geodesics.py"
    spec = importlib.util.spec_from_file_location("bake_geodesics", script)
    assert spec is not None
    assert spec.loader is not None
    bake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bake)
    n = 9
    y, x = np.mgrid[0:n, 0:n]
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1).astype(float)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + n], 1), np.stack([corner + 1, corner + n + 1, corner + n], 1)]
    )
    reach = dijkstra(bake.surface_graph(vertices, faces), directed=False, indices=0)
    assert reach[n - 1] == pytest.approx(n - 1)
    assert reach[n * n - 1] == pytest.approx((n - 1) * 2**0.5)  # this diagonal is not an edge: it crosses one


def test_gps_of_a_body_against_itself_is_one_and_of_the_other_side_is_small() -> None:
    values = np.zeros((1, 24, 20, 4), np.uint8)
    for part in range(1, 25):
        values[0, part - 1, 5:15] = np.stack(
            [np.full(10, part), np.arange(10) * 25, np.arange(10) * 25, np.ones(10)], 1
        )
    metric = DensePoseMetric(BodyGeodesics.load())
    assert metric.update("k", DensePose(values), DensePose(values))["gps_anny"].value == 1
    other = values.copy()
    other[0, 2:24, 5:15, 0] = np.array(
        [4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23]
    )[:, None]
    assert metric.update("l", DensePose(other), DensePose(values))["gps_anny"].value < 0.5
