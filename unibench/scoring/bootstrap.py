"""Bootstrap intervals over samples: of a weighted mean, of a number of the whole set, and of a paired difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
REPEATS = 2000
SEED = 0
_BATCH = 250


@dataclass(frozen=True, slots=True)
class Interval:
    """The middle 95 % of a bootstrap distribution."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """b − a with its 95 % interval, over the `samples` that both have; `share_positive` of the resamples exceed 0."""

    value: float
    low: float
    high: float
    share_positive: float
    samples: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def draws(samples: int, repeats: int = REPEATS, seed: int = SEED) -> Iterator[Indices]:
    """The samples of each resample with replacement, `[≤ 250, samples]` at a time, `repeats` in all."""
    rng = np.random.default_rng([seed, samples])
    for start in range(0, repeats, _BATCH):
        yield rng.integers(0, samples, (min(_BATCH, repeats - start), samples))


def counts(samples: int, repeats: int = REPEATS, seed: int = SEED) -> Indices:
    """How often each sample is in each resample, `[repeats, samples]`: the resamples of `resampled_means`."""
    table = np.zeros((repeats, samples), np.int64)
    drawn = np.concatenate(list(draws(samples, repeats, seed)))
    np.add.at(table, (np.arange(repeats)[:, None], drawn), 1)
    return table


def resampled_means(values: Floats, weights: Floats, repeats: int = REPEATS, seed: int = SEED) -> Floats:
    """Σ w·v / Σ w of `repeats` resamples with replacement of `[N]` samples, float64 `[repeats]`.

    Resample k depends on (seed, N) only, so two calls with one N are paired. N must not be 0.
    """
    means = []
    for chosen in draws(len(values), repeats, seed):
        drawn = weights[chosen]
        means.append((drawn * values[chosen]).sum(axis=1) / drawn.sum(axis=1))
    return np.concatenate(means)


def interval(values: Floats, weights: Floats, repeats: int = REPEATS, seed: int = SEED) -> Interval | None:
    """The 95 % interval of a weighted mean; None for fewer than two samples."""
    if len(values) < 2:
        return None
    return middle(resampled_means(values, weights, repeats, seed))


def middle(resampled: Floats) -> Interval | None:
    """The middle 95 % of a number of resamples `[R]`, of those in which it is defined; None where it never is."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(low), float(high))


def paired(a: Floats, b: Floats, weights: Floats, repeats: int = REPEATS, seed: int = SEED) -> Difference | None:
    """The difference of two weighted means over the same samples in the same order; None for fewer than two."""
    if len(a) < 2:
        return None
    means = resampled_means(b - a, weights, repeats, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    value = float((weights * (b - a)).sum() / weights.sum())
    return Difference(value, float(low), float(high), float(np.mean(means > 0)), len(a))
