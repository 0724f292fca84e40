"""The sixth modality scored: one class beside `thermal.py`, as another distribution would add it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni_toys.thermal import COLDEST, HOTTEST, Thermal
from unibench.formats.arrays import LARGEST, load_arrays, one_of
from unibench.metrics.base import Column, Metric, Score, Scores
from unibench.tasks import Estimated, Info, Setup
from unibench.tasks.checks import Corruption


class ThermalMetric(Metric[Thermal, Thermal]):
    task: ClassVar[str] = "thermal"
    columns: ClassVar[tuple[Column, ...]] = (Column("mae", "lower", "K", "mean absolute error over pixels"),)
    primary: ClassVar[str] = "mae"

    def update(self, key: str, prediction: Thermal, truth: Thermal) -> Scores:
        if prediction.kelvin.shape != truth.kelvin.shape:
            raise InvalidAnnotationError(f"{key}: {prediction.kelvin.shape} against {truth.kelvin.shape}")
        error = np.abs(prediction.kelvin.astype(np.float64) - truth.kelvin)
        return {"mae": Score(float(error.mean()), error.size)}


class ThermalTask(Estimated[Thermal]):
    name = "thermal"
    judge = "mae"

    def metric(self, setup: Setup) -> ThermalMetric:
        return ThermalMetric()

    def read(self, entry: Path, info: Info, most: int = LARGEST) -> Thermal:
        return Thermal(one_of(load_arrays(entry, most), ("kelvin",), entry).astype(np.float32))

    def pick(self, value: Thermal, index: npt.NDArray[np.int64]) -> Thermal:
        return replace(value, kelvin=value.kelvin[index])

    def nothing(self, true: Thermal) -> Thermal:
        return Thermal(np.full_like(true.kelvin, COLDEST))

    def stored_error(self, true: Thermal, stored: Thermal) -> tuple[float, float]:
        return self.error(stored, true), (HOTTEST - COLDEST) / 65535

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        return {"noise": Corruption((0.5, 2, 8), _noisy)}


def _noisy(true: Thermal, strength: float, rng: np.random.Generator) -> Thermal:
    noise = strength * rng.standard_normal(true.kelvin.shape).astype(np.float32)
    return Thermal(np.clip(true.kelvin + noise, COLDEST, HOTTEST).astype(np.float32))
