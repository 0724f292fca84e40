"""What a metric is: columns with a direction, a score for each sample, an accumulator for what is not a mean of scores.

Arithmetic is float64. NaN means *undefined* (no valid pixel, no instance, one frame, …), never zero and never perfect.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

P = TypeVar("P")
T = TypeVar("T")
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Column:
    """One reported number: its name, which way is better, its unit and, in a few words, what it is."""

    name: str
    better: Better
    unit: str
    what: str


class Score(NamedTuple):
    """One number of one sample. Over a set it is averaged with these weights: 1, or the count of pixels it pools."""

    value: float
    weight: float = 1.0


UNDEFINED = Score(math.nan, 0.0)
Scores = Mapping[str, Score]


def mean_score(values: npt.ArrayLike) -> Score:
    """The plain mean of the defined values with weight 1; undefined where there is none."""
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    return Score(float(array.mean())) if array.size else UNDEFINED


def weighted_mean(scores: Iterable[Score]) -> float:
    """Σ w·v / Σ w over the defined scores (in float64, in the order given); NaN where there is none."""
    total = weight = 0.0
    for score in scores:
        if not math.isnan(score.value):
            total += score.weight * score.value
            weight += score.weight
    return total / weight if weight > 0 else math.nan


def mean_iou(counts: npt.NDArray[np.integer]) -> Floats:
    """Mean over the classes with true pixels of intersection / union, `[…]`; NaN where there is none.

    `counts` `[…, classes, 3]` are pixels of the intersection, predicted pixels and true pixels.
    """
    inner, predicted, true = np.moveaxis(np.asarray(counts), -1, 0)
    occurs = true > 0
    iou = np.divide(inner, predicted + true - inner, out=np.zeros(inner.shape), where=occurs)
    number = occurs.sum(axis=-1)
    mean: Floats = np.divide(iou.sum(axis=-1), number, out=np.full(number.shape, np.nan), where=number > 0)
    return mean


class Metric(ABC, Generic[P, T]):
    """A task's scores. `update` looks at one sample and remembers only what cannot be averaged from its scores.

    What two instances saw of disjoint samples joins by `merge(other.state())`, in any order.
    """

    task: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    primary: ClassVar[str]
    """The column by which samples are ranked."""

    @abstractmethod
    def update(self, key: str, prediction: P, truth: T) -> Scores:
        """Score the sample `key` (seen once). Raises InvalidAnnotationError where the two cannot be compared."""

    def state(self) -> dict[str, Any]:
        """What has been remembered, as plain JSON values: small, and independent of the size of the frames."""
        return {}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Take in the `state()` of a metric that has seen other samples."""
        del state  # most metrics are means of their scores and remember nothing

    def compute(self) -> Mapping[str, float]:
        """The numbers of the whole set that are not weighted means of the samples' scores."""
        return {}

    def remarks(self) -> Iterator[str]:
        """What a reader of the set's numbers must know."""
        yield from ()

    def resampled(self, keys: Sequence[str], counts: npt.NDArray[np.integer]) -> Mapping[str, Floats]:
        """What `compute` gives for R resamples of the samples, `[R]` each: the r-th has `keys[k]` `counts[r, k]` times.

        `keys` are all samples seen. Columns that it leaves out have no interval.
        """
        del keys, counts
        return {}
