"""Scoring a run: predictions against truth, sample by sample, side by side if asked, resumable.

Example:
    >>> from unibench.scoring.score import ScoreConfig
    >>> ScoreConfig(tasks=("depth",)).missing
    'leave_out'
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from openuni.errors import OpenUniError
from openuni.shards.layout import MANIFEST, write_atomic
from openuni.shards.lock import RunLock
from openuni.storage import claim
from unibench import networks, standard
from unibench import tasks as scored
from unibench.formats.names import Match
from unibench.metrics.depth import MAX_DEPTH
from unibench.metrics.geodesics import BodyGeodesics
from unibench.report import report
from unibench.report.report import Report
from unibench.scoring import doctor
from unibench.scoring.control import Reestimated, fingerprints
from unibench.scoring.protocol import Missing, Protocol, hash_keys
from unibench.scoring.runs import Columns, Folder, open_run, read_info, with_options
from unibench.scoring.samples import Collector, SampleResult, comparable_pairs, input_digest, score_sample, truth_digest
from unibench.tasks import Info, Run, Setup

STANDARD = standard.get("estimation").place
"""Where the standard set is looked for."""
FOLDER = "score"
_REPORT, _PAGE, _JOURNAL = "report.json", "report.html", "samples.jsonl"
_BATCH = 4
"""Samples that are handed out together: seconds of work, so that handing them out costs nothing."""
_DIAGNOSED = 4
"""Samples of each task whose conventions are checked with every score."""
_RESULT: TypeAdapter[SampleResult] = TypeAdapter(SampleResult)


class NoTruthError(OpenUniError):
    """The standard set that scores are given on is not where it is looked for."""


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """What to score, and how."""

    tasks: tuple[str, ...] = field(default=(), metadata={"shown": "all that both have, but physics"})
    """Tasks by comma, such as depth,flow."""
    standard: Literal["estimation", "small"] = "estimation"
    """The standard set that is the truth where no other is named; their numbers do not compare."""
    subset: Literal["single_person", "two_person", "general"] | None = None
    """Only samples of this subset."""
    limit: int | None = field(default=None, metadata={"min": 1})
    """Only the first N samples, in the order of keys."""
    missing: Missing = "leave_out"
    """Missing predictions: left out of every mean, or scored as if nothing had been found."""
    max_depth: float = MAX_DEPTH
    """Metres beyond which true depth does not count."""
    depth_kind: Literal["metric", "relative", "affine_disparity"] | None = None
    """What the numbers in plain depth files are."""
    control: tuple[str, ...] = ()
    """Control fidelity, TASK=EXPERT by comma: estimate TASK from the generated videos with EXPERT and score that."""
    out: Path | None = field(default=None, metadata={"shown": "PRED/score"})
    """Where the report goes."""
    name: str | None = field(default=None, metadata={"shown": "the folder's name"})
    """What the run is called in the report."""
    resume: bool = False
    """Go on with the samples that an interrupted run left."""
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


@dataclass(frozen=True, slots=True)
class Place:
    """How to open a run again in another process."""

    path: str
    info: Info | None
    experts: tuple[tuple[str, str], ...] = ()
    """(task, expert) where the tasks are estimated from the run's videos."""


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """What to score with what. Small and picklable: messages carry paths, never values."""

    predictions: Place
    truth: Place | None
    protocol: Protocol


@cache
def open_place(place: Place) -> Run:
    """Open a run, once in each process."""
    run = open_run(place.path, place.info)
    return Reestimated(run, dict(place.experts)) if place.experts else run


@cache
def _tools(tasks: tuple[str, ...], weights: tuple[tuple[str, str], ...]) -> Setup:
    return Setup(
        measures=networks.load(dict(weights)), geodesics=BodyGeodesics.load() if "densepose" in tasks else None
    )


def _score_keys(job: ScoreJob, work: list[tuple[str, str]]) -> list[SampleResult]:
    """Score these (task, key) pairs."""
    truth = None if job.truth is None else open_place(job.truth)
    found = open_place(job.predictions)
    if isinstance(found, Folder | Columns) and isinstance(truth, Columns):
        found.answer_to(truth)
    tools = _tools(job.protocol.tasks, tuple(job.protocol.measures.items()))
    return [score_sample(task, key, found, truth, job.protocol, tools) for task, key in work]


@dataclass(frozen=True)
class Plan:
    """What will be scored: the runs, the samples of each task, and the protocol."""

    job: ScoreJob
    predictions: Run
    truth: Run | None
    keys: Mapping[str, list[str]]
    notes: Mapping[str, str]

    def __str__(self) -> str:
        counts = ", ".join(f"{len(keys)} {task}" for task, keys in self.keys.items())
        truth = self.truth.path if self.truth else "no truth"
        return f"{self.predictions.path} against {truth}: {counts}; protocol {self.job.protocol.fingerprint()}"


def plan(pred: Path | str, gt: str | None, config: ScoreConfig, say: Progress) -> Plan:
    """Open both runs and settle tasks, samples and protocol. Raises OpenUniError where nothing can be scored."""
    predictions = place(pred, config.depth_kind, config.control)
    found = open_place(predictions)
    truth = _truth(gt, found, config.standard)
    if isinstance(found, Folder | Columns) and isinstance(truth, Columns):
        for sentence in _names_said(found.answer_to(truth)):
            say(sentence)
    chosen = _tasks(config.tasks, found, truth)
    keys = {task: _keys(task, found, truth, config.subset, config.limit) for task in chosen}
    everything = [f"{task}/{key}" for task in chosen for key in keys[task]]
    if not everything:
        raise OpenUniError(f"nothing to score: {pred} and the truth share no sample of {', '.join(chosen)}")
    learned = networks.survey() if "video" in chosen else networks.Survey()
    needing = [task for task in chosen if scored.get(task).needs_truth]
    protocol = Protocol(
        tasks=tuple(chosen),
        truth="none" if truth is None else truth_digest(truth, needing),
        keys=hash_keys(everything),
        max_depth=config.max_depth,
        missing=config.missing,
        measures=learned.weights,
        estimators=fingerprints(dict(predictions.experts)),
    )
    job = ScoreJob(predictions, None if truth is None else Place(truth.path, None), protocol)
    return Plan(job, found, truth, keys, learned.notes)


def score(
    pred: Path | str,
    gt: str | Path | None = None,
    *,
    tasks: Iterable[str] | None = None,
    config: ScoreConfig | None = None,
    progress: Progress | None = None,
    map: Map = map,
) -> Report:
    """Score predictions against truth; write report.json, report.html and samples.jsonl; return the report.

    `pred` and `gt` are datasets or plain folders of ordinary files; without `gt` the truth is the standard set. `map`
    may run samples side by side; in this process by default. Raises NoTruthError, and OpenUniError where nothing could
    be scored; what one prediction raises concerns its sample only.
    """
    config = config or ScoreConfig()
    if tasks is not None:
        config = replace(config, tasks=tuple(tasks))
    say = progress or (lambda _: None)
    planned = plan(pred, None if gt is None else str(gt), config, say)
    say(str(planned))
    where = config.out or Path(pred) / FOLDER
    claim(where, marks=(_REPORT, _JOURNAL), below=None if config.out else Path(pred))
    with RunLock(where, f"score-{secrets.token_hex(4)}"):  # two would write one journal
        return _score(planned, str(pred), where, config, say, map)


def _score(planned: Plan, pred: str, where: Path, config: ScoreConfig, say: Progress, map: Map) -> Report:
    collected = _collect(planned, where / _JOURNAL, config.resume, say, map)
    if not any(result.status == "scored" for result in collected.results):
        first = collected.results[0]
        raise OpenUniError(
            f"nothing in {pred} could be scored: {len(collected.results)} predictions are missing or unusable; the "
            f"first, {first.task} of {first.key}: {first.reason}"
        )
    truth = planned.truth
    mistakes = () if truth is None else _mistakes(list(planned.keys), planned.predictions, truth)
    path = truth.path if truth else "none"
    made = report.build(config.name or Path(pred).name, pred, path, collected, planned.notes, mistakes)
    write_atomic(where / _REPORT, report.to_json(made), "score")
    if config.page:
        from unibench.report import page

        write_atomic(where / _PAGE, page.render(made, planned.predictions, truth).encode(), "score")
    say(f"wrote {where / _REPORT}" + (f" and {where / _PAGE}" if config.page else ""))
    return made


def _collect(planned: Plan, journal_path: Path, resume: bool, say: Progress, map: Map) -> Collector:
    """Every sample's result: those of an interrupted run whose predictions are the same, and the rest scored now."""
    collected = Collector(planned.job.protocol)
    with Journal(journal_path, planned.job.protocol.fingerprint(), resume=resume) as journal:
        latest = {(result.task, result.key): result for result in journal.done()}
        for result in latest.values():
            if result.inputs == input_digest(result.task, result.key, planned.predictions):
                collected.add(result)
        have = {(r.task, r.key) for r in collected.results}
        work = [(task, key) for task, keys in planned.keys.items() for key in keys if (task, key) not in have]
        batches = [work[first : first + _BATCH] for first in range(0, len(work), _BATCH)]
        results = chain.from_iterable(map(partial(_score_keys, planned.job), batches))
        for number, result in enumerate(results, 1):
            journal.write(result)
            collected.add(result)
            say(Progressed(number, len(work)))
    return collected


def _names_said(match: Match) -> Iterator[str]:
    """Which predictions go by the source's names, and which are of no true clip."""
    renamed = {name: key for name, key in match.keys.items() if name != key}
    if renamed:
        name, key = next(iter(renamed.items()))
        yield f"{len(renamed)} predictions matched by the clip's original name ({name} is {key}, …)"
    for what, names in (("no clip of the truth", match.unknown), ("several clips of the truth", match.ambiguous)):
        if names:
            shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            yield f"{len(names)} predictions left out, named as {what}: {shown}"
    yield from match.remarks


def place(pred: Path | str, depth_kind: str | None, control: tuple[str, ...] = ()) -> Place:
    """How to open the predictions at `pred`, with what the user said of its depth and of experts to see it with."""
    experts = tuple(sorted(_task_and_expert(pair) for pair in control))
    folder = Path(pred)
    if "://" in str(pred) or (folder / MANIFEST).is_file() or not folder.is_dir():
        return Place(str(pred), None, experts)
    info = read_info(folder)
    if depth_kind is not None:
        info = with_options(info, "depth", kind=depth_kind)
    return Place(str(pred), info, experts)


def _task_and_expert(pair: str) -> tuple[str, str]:
    task, equals, expert = pair.partition("=")
    if not (task and equals and expert):
        raise OpenUniError(f"--control {pair!r} is not TASK=EXPERT, such as depth=fastdepth")
    return task, expert


def _truth(gt: str | None, found: Run, standard_name: str) -> Run | None:
    """The truth asked for, the standard set, or (for generated video alone) none."""
    if gt is not None:
        return open_run(gt)
    if not standard.get(standard_name).place.is_dir() and not set(found.values()) & set(scored.estimated()):
        return None
    return open_standard(standard_name)


def open_standard(name: str = "estimation") -> Columns:
    """A standard set in its default place.

    Raises NoTruthError where it is not there, and OpenUniError where it is another or not whole; both say how to render
    it.
    """
    wanted = standard.get(name)
    place, render = wanted.place, f"`unibench render --standard {wanted.name}`"
    if not (place / MANIFEST).is_file():
        raise NoTruthError(
            f"no truth: no standard set in {place}; {render} makes it (a first look in minutes: `unibench render "
            "--standard small`, then --standard small here), or name truth with --gt"
        )
    truth = Columns(str(place))
    recipe = {field: getattr(wanted, field) for field in ("scenes", "frames", "size", "fps", "seed")}
    recipe |= {"source": "unibench render", "families": list(wanted.families)}
    made = truth.data.manifest.configuration
    if differ := [field for field, value in recipe.items() if made.get(field) != value]:
        raise OpenUniError(
            f"{place} holds another set than the standard one (other {', '.join(differ)}); use it with "
            f"--gt {place}, or move it away: {render} makes the standard set"
        )
    if len(truth.data) < wanted.scenes:
        raise OpenUniError(f"{place} has {len(truth.data)} of {wanted.scenes} scenes; {render} goes on with it")
    return truth


def _tasks(asked: tuple[str, ...], found: Run, truth: Run | None) -> list[str]:
    if not asked:
        known = _offered(found, truth)
        if not known:
            have = ", ".join(found.values()) or "nothing"
            raise OpenUniError(f"{found.path} has {have}, and none of it has truth; see `unibench score --help`")
        return known
    if unknown := [name for name in asked if name not in scored.names()]:
        raise OpenUniError(f"unknown task {unknown[0]!r}; known: {', '.join(scored.names())}")
    if truth is None and (needy := [name for name in asked if scored.get(name).needs_truth]):
        raise OpenUniError(f"{needy[0]} needs truth; only video and consistency can be scored without")
    return [task for task in scored.names() if task in asked]


def _offered(found: Run, truth: Run | None) -> list[str]:
    """What both have, of the tasks that are scored by default."""
    have, true = set(found.values()), set() if truth is None else set(truth.values())
    every = [task for task in map(scored.get, scored.names()) if task.by_default and task.offered(have)]
    known = [task for task in every if not task.needs_truth or task.offered(true)]
    if isinstance(found, Columns) and any(task.needs_truth for task in known):
        # Every dataset has RGB; it is what was looked at, not what was generated, unless the user says otherwise.
        known = [task for task in known if task.needs_truth]
    return [task.name for task in known]


def _keys(task: str, found: Run, truth: Run | None, subset: str | None, limit: int | None) -> list[str]:
    """Samples with truth (for generated video: those that were generated)."""
    keys = scored.get(task).keys(found, truth)
    if subset is not None:
        if not isinstance(truth, Columns):
            raise OpenUniError("--subset needs truth in OpenUni's columns; plain folders have no subsets")
        keys = [key for key in keys if key in truth.data and truth.subset(key) == subset]
    return keys[:limit]


def _mistakes(tasks: list[str], found: Run, truth: Run) -> tuple[str, ...]:
    """Conventions that a few samples say were mistaken."""
    checked = [task for task in tasks if task in scored.estimated()]
    return tuple(sentence for task in checked if (sentence := _mistake(task, found, truth)))


def _mistake(task: str, found: Run, truth: Run) -> str:
    """The convention of a task that was mistaken, as a sentence; empty where none was."""
    try:
        finding = doctor.diagnose(task, comparable_pairs(task, found, truth, _DIAGNOSED))
    except Exception as error:  # noqa: BLE001  the scores stand, whatever a prediction from outside provokes here
        return f"{task}: conventions could not be checked: {type(error).__name__}: {error}"
    return "" if finding is None else str(finding)


class Journal:
    """`samples.jsonl`: a first line that names the protocol, then a result a line, flushed as it is written."""

    def __init__(self, path: Path, fingerprint: str, *, resume: bool) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._lines: list[bytes] = path.read_bytes().splitlines() if resume and path.is_file() else []
        if self._lines:
            with suppress(ValueError):
                header: Mapping[str, str] = json.loads(self._lines[0])
                if header.get("protocol") == fingerprint:
                    return
            raise OpenUniError(f"{path} belongs to another protocol; score without --resume to start again")

    def __enter__(self) -> Journal:
        self._file = self._path.open("ab" if self._lines else "wb")
        if not self._lines:
            self._file.write(json.dumps({"protocol": self._fingerprint}).encode() + b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def done(self) -> Iterator[SampleResult]:
        """Results of the interrupted run. A line that was cut short ends them, and is cut off."""
        size = len(self._lines[0]) + 1 if self._lines else 0
        for line in self._lines[1:]:
            try:
                result = _RESULT.validate_json(line)
            except ValidationError:
                self._file.truncate(size)
                return
            size += len(line) + 1
            yield result

    def write(self, result: SampleResult) -> None:
        """Append a result."""
        self._file.write(_RESULT.dump_json(result) + b"\n")
        self._file.flush()
