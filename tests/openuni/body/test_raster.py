"""Rasterising: which face each pixel sees, against a loop over faces with plain barycentric coordinates."""

import numpy as np
import pytest

from openuni.body import Body, rasterise

pytest.importorskip("embreex")


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.load()


def on_screen(body: Body, pixels_per_metre: float, x: float, y: float) -> np.ndarray:
    return body.vertices * [pixels_per_metre, -pixels_per_metre, -pixels_per_metre] + [x, y, 0]


def test_every_pixel_shows_the_nearest_face(body: Body) -> None:
    height, width = 60, 40
    vertices = on_screen(body, 30.0, 20.3, 55.2)
    surface = rasterise(body, vertices, height, width)
    depth = np.full((height, width), np.inf)
    expected = np.zeros((height, width, 3))
    for face, corner, part in zip(body.faces, body.corners, body.part_of_face, strict=True):
        triangle = vertices[face]
        low = np.maximum(np.floor(triangle[:, :2].min(0)).astype(int), 0)
        high = np.minimum(np.ceil(triangle[:, :2].max(0)).astype(int) + 1, (width, height))
        edges = np.column_stack([triangle[1] - triangle[0], triangle[2] - triangle[0]])[:2]
        if abs(np.linalg.det(edges)) < 1e-12:
            continue
        for j in range(low[1], high[1]):
            for i in range(low[0], high[0]):
                b, c = np.linalg.solve(edges, np.array([i + 0.5, j + 0.5]) - triangle[0, :2])
                if b < 0 or c < 0 or b + c > 1:
                    continue
                weights = np.array([1 - b - c, b, c])
                z = weights @ triangle[:, 2]
                if z < depth[j, i]:
                    depth[j, i] = z
                    expected[j, i] = part, *(weights @ body.uv[corner] * 255)
    seen = np.isfinite(depth)
    # Rays through an edge may fall to either side in single precision.
    assert (seen == (surface.part > 0)).mean() > 0.998
    both = seen & (surface.part > 0)
    assert (surface.part[both] == expected[both][:, 0]).mean() > 0.99
    same = both & (surface.part == expected[..., 0])
    assert np.median(np.abs(surface.depth[same] - depth[same])) < 1e-4
    assert (np.abs(surface.u[same] - expected[same][:, 1]) <= 1).mean() > 0.98
    assert (np.abs(surface.v[same] - expected[same][:, 2]) <= 1).mean() > 0.98


def test_from_the_front_one_sees_the_fronts(body: Body) -> None:
    part = rasterise(body, on_screen(body, 100.0, 100, 180), 200, 200).part
    shown = part[part > 0]
    fronts = np.isin(shown, [2, 9, 10, 13, 14, 15, 16, 3, 4, 5, 6, 23, 24, 19, 20])
    assert fronts.mean() > 0.97
    assert (part[:, 104:] == 24).any()  # its left is on the viewer's right
    assert not (part[:, :95] == 24).any()


@pytest.mark.parametrize("shift", [(-500.0, 50.0), (50.0, 900.0)])
def test_a_body_outside_the_picture_leaves_it_empty(body: Body, shift: tuple[float, float]) -> None:
    surface = rasterise(body, on_screen(body, 30.0, *shift), 60, 40)
    assert not surface.part.any()
    assert np.isinf(surface.depth).all()


def test_a_body_that_is_not_a_number_leaves_the_picture_empty(body: Body) -> None:
    assert not rasterise(body, np.full_like(body.vertices, np.nan), 60, 40).part.any()
