"""What `unibench score` said of the runs that are looked at: numbers of clips, and how two runs compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openuni.errors import OpenUniError
from openuni_pipelines.engine.viewing.catalogue import Query
from unibench.report import report
from unibench.report.report import Report

Numbers = Mapping[str, Mapping[str, float]]
"""Numbers of clips, by name and key."""


@dataclass(frozen=True, slots=True)
class Row:
    """One score of both runs, and the interval of their difference; `better` names a run where it decides."""

    name: str
    a: float
    b: float
    low: float
    high: float
    better: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Further numbers of clips, in which order to begin, and the comparison of two runs."""

    numbers: Numbers = field(default_factory=dict)
    begin: Query = field(default_factory=Query)
    compared: tuple[Row, ...] = ()
    why_not: str = ""
    """Why two runs are not compared."""


def of_runs(reports: Sequence[Report], names: Sequence[str]) -> Scores:
    """Worst clips of the first report's first task first; `names` are those of the runs, the first shown without."""
    if not reports:
        return Scores()
    numbers: dict[str, Mapping[str, float]] = dict(_of(reports[0]))
    task, first = next(iter(reports[0].tasks.items()))
    order: Literal["ascending", "descending"] = (
        "ascending" if first.columns[first.primary].better == "higher" else "descending"
    )
    begin = Query(sort=f"{task}/{first.primary}", order=order) if f"{task}/{first.primary}" in numbers else Query()
    if len(reports) == 1:
        return Scores(numbers, begin)
    ours, theirs = _of(reports[0]), _of(reports[1])
    for name in [name for name in ours if name in theirs]:
        both = ours[name].keys() & theirs[name].keys()
        numbers[f"{name} of {names[1]}"] = theirs[name]
        numbers[f"{name}: {names[1]} − {names[0]}"] = {key: theirs[name][key] - ours[name][key] for key in both}
    try:
        compared = report.compare(reports[0], reports[1]).columns
    except OpenUniError as error:
        return Scores(numbers, begin, why_not=str(error))
    rows = [
        Row(f"{one.task}/{one.column.name}", one.a, one.b, one.difference.low, one.difference.high, one.better or "")
        for one in compared
    ]
    return Scores(numbers, begin, tuple(rows))


def read(path: str, file: Path | None = None) -> Report | None:
    """The report of a run: `file`, or `score/report.json` in its folder where that is."""
    usual = Path(path) / "score" / "report.json"
    if file is None and ("://" in path or not usual.is_file()):
        return None
    return report.read(file or usual)


def _of(made: Report) -> dict[str, dict[str, float]]:
    scored: dict[str, dict[str, float]] = {}
    for sample in made.samples:
        for name, (value, _) in sample.scores.items():
            scored.setdefault(f"{sample.task}/{name}", {})[sample.key] = value
    return scored
