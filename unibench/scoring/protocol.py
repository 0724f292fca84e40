"""What was decided before a number was computed. Two numbers compare only where their protocols' fingerprints agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from unibench.metrics.depth import ALIGNMENTS, MAX_DEPTH, Alignment

VERSION = 4
"""Raised whenever a definition changes, or what a journal keeps of a sample, so that old and new never mix."""
Missing = Literal["leave_out", "penalise"]

RULES: Mapping[str, str] = {
    "time": "frame t is frame t; at other frame rates the frame shown at the middle of the true one",
    "space": "predictions come to the truth's size: depth bilinear, flow bilinear and scaled, the rest nearest",
    "not finite": "depth: the farthest; flow: no motion; joints: missed",
    "depth clip": "disparity ≥ 1e-3, depth in [1e-3, max_depth] after alignment",
    "pooling": "mean over videos unless a column says that it pools over pixels, points or the set",
}


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a run is scored. `truth` names the true values (hash over their hashes), `keys` hashes the keys scored.

    `measures` maps the learned measures of generated video (fields of `Measures`) to the hashes of their weights,
    `estimators` a task to the expert that re-estimated it from generated video.
    """

    tasks: tuple[str, ...]
    truth: str
    keys: str
    max_depth: float = MAX_DEPTH
    alignments: tuple[Alignment, ...] = ALIGNMENTS
    missing: Missing = "leave_out"
    measures: Mapping[str, str] = field(default_factory=dict)
    estimators: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def fingerprint(self) -> str:
        """Sixteen hex digits over everything above and the rules."""
        text = json.dumps({**asdict(self), "rules": dict(RULES)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_keys(keys: list[str]) -> str:
    """Sixteen hex digits over the sorted keys."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def differences(a: Protocol, b: Protocol) -> list[str]:
    """The fields in which two protocols differ, with both values, for people."""
    left, right = asdict(a), asdict(b)
    return [f"{name}: {left[name]} and {right[name]}" for name in left if left[name] != right[name]]
