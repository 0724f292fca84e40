"""The report of a scored run: `report.json`, a table for the terminal, and the comparison of two reports."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from openuni.errors import OpenUniError
from openuni.printable import count, plain, rich
from openuni.storage import is_object_url, open_regular
from openuni.storage.objects import ObjectStore
from unibench import tasks
from unibench.metrics.base import Better, Column
from unibench.report.published import COLUMNS as PUBLISHED_COLUMNS
from unibench.report.published import SOURCE, Published, row_of, rows_for
from unibench.scoring import bootstrap
from unibench.scoring.bootstrap import Difference, Interval
from unibench.scoring.protocol import Protocol, differences
from unibench.scoring.samples import Collector, Counts, Status

_LARGEST = 1 << 30
"""Bytes that a report may have; one of 200,000 samples has a tenth."""
_LIBRARIES = ("openuni", "numpy", "opencv-python", "av", "hotcoco", "torch", "torchvision", "timm", "open-clip-torch")


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One number of a task. `value` None: undefined, `note` says why where that is known; or what a value rests on.

    `interval` is the bootstrap's over samples, also of what is computed from them together (AP, mIoU of the set); None
    for fewer than two samples, and for the quality and the Physics-IQ score.
    """

    value: float | None
    better: Better
    unit: str
    what: str
    interval: Interval | None = None
    samples: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A task's counts and columns; `primary` is the column that ranks samples."""

    primary: str
    counts: Counts
    columns: Mapping[str, ColumnReport]


@dataclass(frozen=True, slots=True)
class SampleReport:
    """One sample in one task: what became of it and, by column, its value and weight."""

    task: str
    key: str
    status: Status
    scores: Mapping[str, tuple[float, float]]
    reason: str = ""
    penalised: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about a scored run but its pictures."""

    name: str
    predictions: str
    truth: str
    created: str
    protocol: Protocol
    fingerprint: str
    tasks: Mapping[str, TaskReport]
    samples: tuple[SampleReport, ...]
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    git: str | None = None
    bootstrap_repeats: int = bootstrap.REPEATS
    bootstrap_seed: int = bootstrap.SEED
    schema: Literal[1] = 1


_REPORT: TypeAdapter[Report] = TypeAdapter(Report)


def build(
    name: str,
    predictions: str,
    truth: str,
    collected: Collector,
    notes: Mapping[str, str] | None = None,
    warnings: tuple[str, ...] = (),
) -> Report:
    """Summarise what was collected. `notes` say of a column (`video/imaging_quality`) why it is absent or doubtful."""
    protocol = collected.protocol
    tasks = {task: _task_report(task, collected, notes or {}) for task in protocol.tasks}
    return Report(
        name=name,
        predictions=predictions,
        truth=truth,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        protocol=protocol,
        fingerprint=protocol.fingerprint(),
        tasks=tasks,
        samples=tuple(
            SampleReport(r.task, r.key, r.status, r.scores, r.reason, r.penalised)
            for task in protocol.tasks
            for r in collected.of(task)
        ),
        warnings=(*warnings, *_warnings(tasks, collected)),
        versions={"python": platform.python_version()} | {lib: _version(lib) for lib in _LIBRARIES},
        git=_git_hash(),
    )


def _task_report(task: str, collected: Collector, notes: Mapping[str, str]) -> TaskReport:
    values, results, metric = collected.values(task), collected.of(task), collected.metrics[task]
    seen = [r.key for r in results if r.status == "scored" or r.penalised]
    of_the_set = metric.resampled(seen, bootstrap.counts(len(seen))) if len(seen) > 1 else {}
    columns = {}
    for column in metric.columns:
        pairs = [r.scores[column.name] for r in results if column.name in r.scores]
        scores, weights = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        whole = column.name in of_the_set
        columns[column.name] = ColumnReport(
            values.get(column.name),
            column.better,
            column.unit,
            column.what,
            bootstrap.middle(of_the_set[column.name]) if whole else bootstrap.interval(scores, weights),
            len(seen) if whole else len(pairs),
            notes.get(f"{task}/{column.name}", ""),
        )
    return TaskReport(metric.primary, collected.counts(task), columns)


def _warnings(tasks: Mapping[str, TaskReport], collected: Collector) -> Iterator[str]:
    for task, report in tasks.items():
        yield from (f"{task}: {remark}" for remark in collected.metrics[task].remarks())
        coverage = report.columns.get("coverage")
        if coverage is not None and coverage.value is not None and coverage.value < 1:
            share = 100 * (1 - coverage.value)
            yield f"{task}: {share:.3g} % of the valid pixels have no finite prediction; they are scored as the worst"
        lost = report.counts.missing + report.counts.unusable
        if lost:
            how = "scored as if nothing had been found" if report.counts.penalised else "left out of every mean"
            first = next(result for result in collected.of(task) if result.status != "scored")
            yield f"{task}: {count(lost, 'prediction')} missing or unusable, {how}. The first: {first.reason}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _git_hash() -> str | None:
    """The commit that this code is at, where it is a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def to_json(report: Report) -> bytes:
    """The report as indented UTF-8 JSON; undefined numbers are null."""
    return _REPORT.dump_json(report, indent=1)


def read(path: Path) -> Report:
    """A `report.json`, or the one in a folder. Raises OpenUniError where it is missing or not ours."""
    file = path / "report.json" if path.is_dir() else path
    try:
        with open_regular(file) as opened:
            data = opened.read() if opened.size <= _LARGEST else b""
    except FileNotFoundError:
        raise OpenUniError(f"{file} does not exist; run `unibench score --pred {path}` first") from None
    return _parsed(data, str(file))


def _read_far(url: str) -> Report:
    """The report of a run in an object store: the file itself, that of its folder, or that in its folder `score`."""
    folder, _, file = url.rstrip("/").rpartition("/")
    names = [file] if file.endswith(".json") else ["score/report.json", "report.json"]
    store = ObjectStore(folder if file.endswith(".json") else url)
    for name in names:
        with suppress(FileNotFoundError):
            return _parsed(store.read(name, at_most=_LARGEST), store.where(name))
    raise OpenUniError(f"{store.where(names[-1])} does not exist; run `unibench score --pred {url}` first")


def _parsed(data: bytes, where: str) -> Report:
    try:
        return _REPORT.validate_json(data)
    except ValidationError as error:
        raise OpenUniError(f"{where} is not a report of this version: {error.errors()[0]['msg']}") from error


# ── for the terminal ──────────────────────────────────────────────────────────────────────────────────────────────────


def tables(report: Report) -> Group:
    """The report for people: one table a task, and what others published beside it."""
    parts = [_task_table(task, task_report) for task, task_report in report.tasks.items()]
    published = _published_table(report)
    return Group(*parts, *([published] if published.row_count else []))


def _task_table(task: str, report: TaskReport) -> Group:
    c = report.counts
    title = f"{task}: {c.scored} scored, {c.missing} missing, {c.unusable} unusable"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    table.add_column("better", no_wrap=True)
    for name, column in report.columns.items():
        if column.value is not None:
            table.add_row(name, show(column.value, column.unit), show_interval(column), column.better)
    notes = [
        Text(plain(f"  {name}: {column.note}"), style="dim") for name, column in report.columns.items() if column.note
    ]
    return Group(table, *notes)


def baselines(report: Report) -> list[Published]:
    """What others published of these tasks; where VBench's dimensions were measured, this run's own row before it."""
    values = {f"{task}/{name}": column.value for task, r in report.tasks.items() for name, column in r.columns.items()}
    own = row_of(report.name, values)
    return [*([own] if own else []), *rows_for(list(report.tasks))]


def _published_table(report: Report) -> Table:
    names = [name for name in PUBLISHED_COLUMNS if name.split("/")[0] in report.tasks]
    table = Table(title=SOURCE, title_justify="left", title_style="dim")
    table.add_column("")
    for name in names:
        table.add_column(PUBLISHED_COLUMNS[name], justify="right")
    for row in baselines(report):
        table.add_row(rich(row.model), *row.cells(names))
    return table


def show(value: float | None, unit: str = "") -> str:
    """Four significant digits and the unit; a dash for an undefined value."""
    return "–" if value is None else f"{value:.4g}{f' {unit}' if unit else ''}"


def show_interval(column: ColumnReport) -> str:
    """`low … high`, or nothing."""
    return "" if column.interval is None else f"{column.interval.low:.4g} … {column.interval.high:.4g}"


# ── two reports ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ComparedColumn:
    """b − a of one column over the samples that both scored; `better` names the better run, if the interval decides."""

    task: str
    column: Column
    a: float
    b: float
    difference: Difference
    better: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs under one protocol."""

    a: str
    b: str
    columns: tuple[ComparedColumn, ...]
    warnings: tuple[str, ...]


def compare_runs(first: Path | str, second: Path | str) -> Comparison:
    """Compare what `unibench score` wrote for two runs: their folders, the folders of their reports, or the files;
    also in an object store (s3://…).

    Raises OpenUniError where a report is missing or the protocols differ.

    Example:
        >>> import unibench
        >>> for out in ("runs/a", "runs/b"):
        ...     config = unibench.ScoreConfig(tasks=("flow",), out=Path(out), page=False)
        ...     report = unibench.score("data/demo", "data/demo", config=config)
        >>> first = unibench.compare("runs/a", "runs/b").columns[0]
        >>> first.column.name, first.difference.value, first.better
        ('epe_video', 0.0, None)
    """
    return compare(_report_of(first), _report_of(second))


def _report_of(run: Path | str) -> Report:
    if is_object_url(str(run)):
        return _read_far(str(run))
    path = Path(run)
    return read(path / "score" if (path / "score" / "report.json").is_file() else path)


def compare(a: Report, b: Report) -> Comparison:
    """Paired bootstrap of every column. Raises OpenUniError where the protocols differ, saying in what."""
    if a.fingerprint != b.fingerprint:
        raise OpenUniError(
            f"{a.name} ({a.fingerprint}) and {b.name} ({b.fingerprint}) were scored under different protocols and "
            f"cannot be compared: {'; '.join(differences(a.protocol, b.protocol)) or 'their rules differ'}"
        )
    names = (a.name, b.name) if a.name != b.name else (f"{a.name} (first)", f"{b.name} (second)")
    compared, warnings = [], []
    for task in a.tasks:
        left, right = _scored(a, task), _scored(b, task)
        shared = sorted(left.keys() & right.keys())
        if lost := (left.keys() | right.keys()) - set(shared):
            warnings.append(f"{task}: left out of the comparison, scored in one run only: {count(len(lost), 'sample')}")
        for name, report in a.tasks[task].columns.items():
            both = [key for key in shared if name in left[key].scores and name in right[key].scores]
            if len(both) < 2:
                continue
            va, weights = np.array([left[key].scores[name] for key in both]).T
            vb = np.array([right[key].scores[name][0] for key in both])
            difference = bootstrap.paired(va, vb, weights)
            if difference is None:
                continue
            column = Column(name, report.better, report.unit, report.what)
            mean = float((weights * va).sum() / weights.sum())
            better = _winner(difference, report.better, names)
            compared.append(ComparedColumn(task, column, mean, mean + difference.value, difference, better))
        warnings += _alignment_warnings(task, compared, names)
    return Comparison(*names, tuple(compared), tuple(warnings))


def _scored(report: Report, task: str) -> dict[str, SampleReport]:
    return {s.key: s for s in report.samples if s.task == task and s.scores}


def _winner(difference: Difference, better: Better, names: tuple[str, str]) -> str | None:
    if better == "neither" or not difference.decided:
        return None
    return names[(difference.value > 0) == (better == "higher")]


def _alignment_warnings(task: str, compared: list[ComparedColumn], names: tuple[str, str]) -> Iterator[str]:
    """Where one variant of a measure puts the first run ahead and another the second."""
    variants = tasks.get(task).variants
    if variants is None:
        return
    for measure in variants.ranked:
        ahead: dict[str, str] = {}
        for column in compared:
            alignment, _, name = column.column.name.partition("/")
            if column.task == task and name == measure and alignment in variants.names and column.difference.value != 0:
                ahead[alignment] = names[(column.difference.value > 0) == (column.column.better == "higher")]
        for first, second in combinations(ahead, 2):
            if ahead[first] != ahead[second]:
                yield (
                    f"{task}: by {measure} {ahead[first]} is ahead after {variants.what} `{first}`, "
                    f"{ahead[second]} after `{second}`; say which {variants.what} a claim rests on"
                )


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for people."""
    a, b = rich(comparison.a), rich(comparison.b)
    table = Table(title=f"{a} and {b}", title_justify="left", title_style="bold")
    for heading in ("", a, b, "difference", "95 % (paired)", "better"):
        table.add_column(heading, justify="left" if heading in ("", "better") else "right", overflow="fold")
    for c in comparison.columns:
        d = c.difference
        table.add_row(
            rich(f"{c.task}/{c.column.name}"),
            rich(show(c.a, c.column.unit)),
            rich(show(c.b, c.column.unit)),
            f"{d.value:+.4g}",
            f"{d.low:+.4g} … {d.high:+.4g}",
            rich(c.better) if c.better else ("" if c.column.better == "neither" else "undecided"),
        )
    return table
