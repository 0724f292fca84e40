"""What `unibench score` said of the runs that are looked at: numbers of clips, and how two runs compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openuni.errors import OpenUniError
from openuni_pipelines.engine.viewing.catalogue import Query
from unibench.report import report
from unibench.report.report import ComparedColumn, Report

Numbers = Mapping[str, Mapping[str, float]]
"""Numbers of clips, by name and key."""


@dataclass(frozen=True, slots=True)
class Row:
    """One score of both runs, and the interval of their difference; `better` names a run, or says that it is open."""

    name: str
    a: float
    b: float
    low: float
    high: float
    unit: str
    better: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Further numbers of clips, in which order to begin, and the comparison of two runs."""

    numbers: Numbers = field(default_factory=dict)
    begin: Query = field(default_factory=Query)
    compared: tuple[Row, ...] = ()
    runs: Mapping[str, Numbers] = field(default_factory=dict)
    """What each run that was scored got, by its name."""
    remarks: tuple[str, ...] = ()
    """Why two runs are not compared, or what to mind about it."""

    def of(self, key: str) -> dict[str, list[float | None]]:
        """The scores of one clip: of each run, or None where it has none."""
        names = dict.fromkeys(name for numbers in self.runs.values() for name in numbers)
        rows = {name: [numbers.get(name, {}).get(key) for numbers in self.runs.values()] for name in names}
        return {name: row for name, row in rows.items() if any(value is not None for value in row)}


def of_runs(reports: Mapping[str, Report]) -> Scores:
    """Worst clips of the first report's first task first; of one or two runs by name, the first shown without."""
    if not reports:
        return Scores()
    runs, names, made = {name: _of(one) for name, one in reports.items()}, list(reports), list(reports.values())
    ours = runs[names[0]]
    numbers: dict[str, Mapping[str, float]] = dict(ours)
    task, first = next(iter(made[0].tasks.items()))
    order: Literal["ascending", "descending"] = (
        "ascending" if first.columns[first.primary].better == "higher" else "descending"
    )
    begin = Query(sort=f"{task}/{first.primary}", order=order) if f"{task}/{first.primary}" in numbers else Query()
    if len(made) == 1:
        return Scores(numbers, begin, runs=runs)
    theirs = runs[names[1]]
    for name in [name for name in ours if name in theirs]:
        both = ours[name].keys() & theirs[name].keys()
        numbers[f"{name} of {names[1]}"] = theirs[name]
        numbers[f"{name}: {names[1]} − {names[0]}"] = {key: theirs[name][key] - ours[name][key] for key in both}
    try:
        compared = report.compare(*made)
    except OpenUniError as error:
        return Scores(numbers, begin, runs=runs, remarks=(str(error),))
    called = dict(zip((compared.a, compared.b), names, strict=True))  # a report may have another name than its folder
    rows = [_row(one, called.get(one.better or "")) for one in compared.columns]
    return Scores(numbers, begin, tuple(rows), runs, compared.warnings)


def _row(one: ComparedColumn, better: str | None) -> Row:
    name, decided = f"{one.task}/{one.column.name}", better or ("" if one.column.better == "neither" else "undecided")
    return Row(name, one.a, one.b, one.difference.low, one.difference.high, one.column.unit, decided)


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
