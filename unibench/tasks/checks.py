"""How a task doubts itself and its users: corruptions that must worsen the score, and conventions often mistaken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Corruption:
    """A way to spoil a true value: strengths, weakest first, and `apply(true, strength, rng)`."""

    steps: tuple[float, ...]
    apply: Callable[[Any, float, np.random.Generator], Any]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What might be wrong, and how to undo it (None: not possible for this value). `gain` is the least it must help.

    `column` judges instead of the task's own column.
    """

    name: str
    undo: Callable[[Any], Any | None]
    column: str | None = None
    gain: float = 0.6


@dataclass(frozen=True, slots=True)
class Late:
    """Stands for the prediction whose frame t says what was true of frame t + `by`."""

    by: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake that, undone, would bring the error from `before` to `after` (medians over `samples` samples)."""

    task: str
    mistake: str
    column: str
    before: float
    after: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.task}: {self.mistake}? Undoing it would bring {self.column} from {self.before:.3g} "
            f"to {self.after:.3g} (median of {self.samples} samples)"
        )


def shifts(column: str | None = None) -> tuple[Mistake, ...]:
    """One frame late, and one frame early."""
    return (
        Mistake("the prediction is one frame late", lambda _: Late(-1), column, gain=0.8),
        Mistake("the prediction is one frame early", lambda _: Late(1), column, gain=0.8),
    )
