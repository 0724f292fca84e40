"""The frozen sets of UniBench: which scenes they are, and the fingerprints of their truth.

`unibench render --standard ci` renders a set and compares its truth with the record. `python -m unibench.standard ci`
compares without writing a dataset; with `--write` it replaces the record, which only a new version of the set may do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openuni.errors import CorruptDataError, OpenUniError
from unibench.rendering.truth import trace
from unibench.scenes.families import Spec, build

_FAMILIES = (
    "fall", "bounce", "roll", "collide", "stack", "projectile", "pendulum",
    "fly", "thin", "fast", "occlude", "walk", "pair", "play",
)  # fmt: skip
"""Frozen too: a family that is added to the program later does not change the sets."""

RECORDED_WITH = "numpy 2.4, mujoco 4.0 and embreex 4.4"
"""Others may place a body or meet a ray elsewhere, farther than the fingerprints round."""


@dataclass(frozen=True, slots=True)
class Standard:
    """A set: scene k is of the k-th family in turn, from seed `seed` + k."""

    name: str
    scenes: int
    frames: int
    size: int
    seed: int
    fps: float = 16.0
    families: tuple[str, ...] = _FAMILIES

    @property
    def place(self) -> Path:
        """The folder that it is rendered into, and scored from, where no other is named."""
        return Path("data") / ("unibench" if self.name == "estimation" else f"unibench-{self.name}")

    def specs(self) -> Iterator[Spec]:
        for k in range(self.scenes):
            family = self.families[k % len(self.families)]
            yield Spec(family, self.seed + k, self.frames, self.size, self.size, self.fps)

    @property
    def record(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.json")


SETS = {
    s.name: s
    for s in (
        Standard("estimation", 200, 16, 256, 2_000_000),
        Standard("small", 42, 16, 128, 3_000_000),
        Standard("ci", 28, 4, 64, 1_000_000),
    )
}
"""UniBench-estimation, the 200 synthetic scenes on which estimates are scored; a small set that a laptop renders in
minutes, for a first look (its numbers are another set's, with a fingerprint of its own); and one for continuous tests.
"""


def get(name: str) -> Standard:
    """The set of that name. Raises OpenUniError listing the known ones."""
    if name not in SETS:
        raise OpenUniError(f"unknown standard set {name!r}; known: {', '.join(SETS)}")
    return SETS[name]


def key(spec: Spec) -> str:
    """How a scene is named in a record."""
    return f"{spec.family}-{spec.seed}"


def fingerprint(spec: Spec) -> str:
    """The fingerprint of a scene's truth, made anew."""
    return trace(build(spec)).fingerprint()


def recorded(standard: Standard) -> dict[str, str]:
    """Fingerprints by key, as frozen. Raises CorruptDataError where the record is missing or not ours."""
    try:
        return {str(k): str(v) for k, v in json.loads(standard.record.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CorruptDataError(
            f"{standard.record} is not a record of a standard set ({error}); reinstall openuni"
        ) from error
