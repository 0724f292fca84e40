"""A benchmark that doubts itself and its users: storage, a ladder of corruptions, and conventions that were mistaken.

- `storage`: exact truth scored against the same truth as it is stored must be perfect to the stored precision.
- `ladder`: known corruptions of growing strength must worsen the score at every step.
- `diagnose`: would the predictions be much better if a known mistake (flipped sign, swapped axes, centimetres, radial
  depth, one frame off, left for right, …) were undone? Then it is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openuni.errors import OpenUniError
from unibench import tasks
from unibench.tasks.base import Estimated
from unibench.tasks.checks import Finding, Late, Mistake


@dataclass(frozen=True, slots=True)
class StorageCheck:
    """The error of stored truth against exact truth, and the most that its precision allows."""

    task: str
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.error <= self.bound


def storage(task: str, true: Any) -> StorageCheck:
    """Encode as predictions are stored (not `exact`), decode, and score against the value itself."""
    kind = tasks.get_estimated(task)
    encoded = kind.modality.encode(replace(true, exact=False) if hasattr(true, "exact") else true)
    return StorageCheck(task, *kind.stored_error(true, kind.modality.decode(encoded)))


@dataclass(frozen=True, slots=True)
class Ladder:
    """The errors after each step of one corruption, weakest first; `steps` says how strong each was."""

    task: str
    corruption: str
    steps: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def ok(self) -> bool:
        """Whether the error grows at every step."""
        return all(a < b for a, b in zip(self.errors[:-1], self.errors[1:], strict=True))


def ladders(task: str, true: Any, seed: int = 0) -> Iterator[Ladder]:
    """Every corruption of this task's truth, scored at every strength."""
    kind = tasks.get_estimated(task)
    for name, corruption in kind.corruptions.items():
        steps = (0.0, *corruption.steps)
        errors = [kind.error(corruption.apply(true, step, np.random.default_rng(seed)), true) for step in steps]
        yield Ladder(task, name, steps, tuple(errors))


def diagnose(task: str, pairs: Sequence[tuple[Any, Any]]) -> Finding | None:
    """The mistake whose undoing helps most over (prediction, truth) pairs of one size, or None.

    It must lower the median error to `gain` of what it was, and help in four of five samples. The frame that a shifted
    clip lacks at one end is left out of what it is compared with as well.
    """
    kind = tasks.get_estimated(task)
    best: Finding | None = None
    for mistake in kind.mistakes:
        before, after = [], []
        for predicted, true in pairs:
            try:
                tried = _try(kind, mistake, predicted, true)
            except OpenUniError:
                continue  # undone, the value is not one of this task: then this was not the mistake
            if tried is not None and np.isfinite(tried).all():
                before.append(tried[0])
                after.append(tried[1])
        if not before or np.median(before) <= 0:
            continue
        helped = np.mean(np.array(after) < np.array(before))
        if helped < 0.8 or np.median(after) > mistake.gain * np.median(before):
            continue
        column = mistake.column or kind.judge
        if best is None or np.median(after) / np.median(before) < best.after / best.before:
            best = Finding(task, mistake.name, column, float(np.median(before)), float(np.median(after)), len(before))
    if best is None:
        return kind.suspect(pairs)
    if kind.rises(best.column):
        return replace(best, before=1 - best.before, after=1 - best.after)
    return best


def _try(kind: Estimated[Any], mistake: Mistake, predicted: Any, true: Any) -> tuple[float, float] | None:
    """The error as it is and with the mistake undone, over the same frames."""
    undone = mistake.undo(predicted)
    if undone is None:
        return None
    if not isinstance(undone, Late):
        return kind.error(predicted, true, mistake.column), kind.error(undone, true, mistake.column)
    here, there = kind.shape(true)[0], undone.by
    window, moved = slice(max(there, 0), here + min(there, 0)), slice(max(-there, 0), here - max(there, 0))
    if window.stop - window.start < 2:
        return None
    take = kind.modality.take
    true_part = take(true, window)
    as_is = kind.error(take(predicted, window), true_part, mistake.column)
    return as_is, kind.error(take(predicted, moved), true_part, mistake.column)
