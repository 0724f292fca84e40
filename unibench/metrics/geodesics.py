"""Distances along the surface of the baked body, for `GPS-anny`: between points of the charts, to about 3 cm.

A point (part, U, V) is taken for the nearest vertex of its part in the chart, that for the nearest of 1024 landmarks
(1.5 cm away on average), and the landmarks' distances are baked (`scripts/bake_geodesics.py`) in whole centimetres.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.body.body import LAYOUT, PARTS, Body
from openuni.errors import OpenUniError
from unibench.metrics.base import Floats
from unibench.metrics.densepose import Points

_BAKED = Path(__file__).with_name("anny24_geodesics.npz")
_CELLS = 64
"""Cells of a chart in each direction: U and V are looked up to 1/64 of the chart."""


class BodyGeodesics:
    """`distance` between rows of surface points of layout `anny-24`."""

    layout = LAYOUT

    def __init__(self, landmark: npt.NDArray[np.int64], metres: Floats) -> None:
        """`landmark` `[25, 64, 64]` by part and chart cell; `metres` `[L, L]`. Made by `load`."""
        self._landmark = landmark
        self._metres = metres

    @staticmethod
    @cache
    def load() -> BodyGeodesics:
        """The baked body's. Raises OpenUniError where the file is missing or not ours."""
        try:
            with np.load(_BAKED, allow_pickle=False) as file:
                upper, nearest = file["upper"], file["nearest"].astype(np.int64)
        except (OSError, ValueError, KeyError) as error:
            raise OpenUniError(f"{_BAKED} is not readable ({error}); reinstall openuni") from error
        count = int(nearest.max()) + 1
        metres = np.zeros((count, count))
        metres[np.triu_indices(count)] = upper / 100
        metres = np.maximum(metres, metres.T)
        return BodyGeodesics(nearest[chart_vertices(Body.load())], metres)

    def distance(self, first: Points, second: Points) -> Floats:
        """Metres `[N]` between the points of the same row of `[N, 3]` (part, U, V); at most 2.55."""
        a, b = (
            self._landmark[p[:, 0], p[:, 1].astype(np.int64) * _CELLS // 256, p[:, 2].astype(np.int64) * _CELLS // 256]
            for p in (first, second)
        )
        return np.asarray(self._metres[a, b])


def chart_vertices(body: Body) -> npt.NDArray[np.int64]:
    """The vertex nearest in the chart to the middle of each cell, `[25, 64, 64]` by part, U and V; part 0 is unused."""
    vertices = np.zeros((PARTS + 1, _CELLS, _CELLS), np.int64)
    u, v = np.meshgrid((np.arange(_CELLS) + 0.5) / _CELLS, (np.arange(_CELLS) + 0.5) / _CELLS, indexing="ij")
    for part in range(1, PARTS + 1):
        inside = body.part_of_face == part
        rows, first = np.unique(body.corners[inside], return_index=True)
        owners, chart = body.faces[inside].ravel()[first], body.uv[rows]
        for i in range(_CELLS):  # a row of cells at a time keeps the table of distances small
            square = (chart[:, 0] - u[i][:, None]) ** 2 + (chart[:, 1] - v[i][:, None]) ** 2
            vertices[part, i] = owners[square.argmin(axis=1)]
    return vertices
