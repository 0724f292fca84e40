"""What to score and how, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unibench.metrics.depth import MAX_DEPTH
from unibench.scoring.protocol import Missing


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """What to score, and how."""

    tasks: tuple[str, ...] = field(default=(), metadata={"shown": "all that both have, except physics"})
    """Tasks, comma-separated, such as depth,flow."""
    standard: Literal["estimation", "small"] = "estimation"
    """Standard set to score on if --gt is not given. Do not compare numbers of different sets."""
    subset: Literal["single_person", "two_person", "general"] | None = None
    """Only samples of this subset."""
    limit: int | None = field(default=None, metadata={"min": 1})
    """Only the first N samples, in key order."""
    missing: Missing = "leave_out"
    """Missing predictions: leave them out of every mean, or score them as if nothing had been predicted."""
    max_depth: float = MAX_DEPTH
    """Ignore true depth beyond this many metres."""
    depth_kind: Literal["metric", "relative", "affine_disparity"] | None = None
    """What the numbers in plain depth files are."""
    control: tuple[str, ...] = ()
    """Control fidelity, as TASK=EXPERT, comma-separated: EXPERT estimates TASK from the generated videos, and that is
    scored."""
    trust: bool = False
    """With --control: allow model files that are programs, each only with its pinned SHA-256."""
    out: Path | str | None = field(default=None, metadata={"shown": "PRED/score"})
    """Where the report goes: a folder, or a place in an object store (s3://…)."""
    staging: Path | None = field(default=None, metadata={"shown": "data/staging/BUCKET-FOLDER"})
    """With a report in an object store: local folder to work in."""
    name: str | None = field(default=None, metadata={"shown": "the folder's name"})
    """What the run is called in the report."""
    resume: bool = False
    """Resume an interrupted run."""
    page: bool = True
    """Write report.html too."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """How many samples are scored."""

    done: int
    total: int


Progress = Callable[["str | Progressed"], None]
"""Called with a sentence to say, and with how far scoring is."""
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""As the built-in `map`: results in the order of the items."""
