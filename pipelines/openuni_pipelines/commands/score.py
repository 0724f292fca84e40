"""`unibench score`: predictions against truth, sample by sample, in this process or on Ray, resumable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import click
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import track

from openuni.errors import OpenUniError
from openuni.shards.layout import MANIFEST, write_atomic
from unibench import networks, standard
from unibench import tasks as scored
from unibench.formats.names import Match
from unibench.metrics.depth import MAX_DEPTH
from unibench.metrics.geodesics import BodyGeodesics
from unibench.report import report
from unibench.scoring import doctor
from unibench.scoring.control import Reestimated, fingerprints
from unibench.scoring.protocol import Missing, Protocol, hash_keys
from unibench.scoring.runs import Columns, Folder, open_run, read_info, with_options
from unibench.scoring.samples import Collector, SampleResult, comparable_pairs, input_digest, score_sample, truth_digest
from unibench.tasks import Info, Run, Setup

STANDARD = standard.get("estimation").place
"""Where the standard set is looked for."""
_BATCH = 4
"""Samples that a Ray task scores: seconds of work, so that starting tasks costs nothing."""
_DIAGNOSED = 4
"""Samples of each task whose conventions are checked with every score."""
_RESULT: TypeAdapter[SampleResult] = TypeAdapter(SampleResult)


@dataclass(frozen=True, slots=True)
class Place:
    """How to open a run again in another process."""

    path: str
    info: Info | None
    experts: tuple[tuple[str, str], ...] = ()
    """(task, expert) where the tasks are estimated from the run's videos."""


@dataclass(frozen=True, slots=True)
class Job:
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


def score_keys(job: Job, work: list[tuple[str, str]]) -> list[SampleResult]:
    """Score these (task, key) pairs."""
    truth = None if job.truth is None else open_place(job.truth)
    found = open_place(job.predictions)
    if isinstance(found, Folder) and isinstance(truth, Columns):
        found.answer_to(truth)
    tools = _tools(job.protocol.tasks, tuple(job.protocol.measures.items()))
    return [score_sample(task, key, found, truth, job.protocol, tools) for task, key in work]


@click.command("score")
@click.option("--pred", required=True, type=click.Path(path_type=Path), help="A dataset or a folder of ordinary files.")
@click.option("--gt", help=f"The truth: a dataset (path or URL) or a folder.  [default: the standard set, {STANDARD}]")
@click.option("--tasks", help="Tasks by comma, such as depth,flow.  [default: all that both have, but physics]")
@click.option("--subset", type=click.Choice(["single_person", "two_person", "general"]), help="Only these samples.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N samples, in the order of keys.")
@click.option(
    "--missing",
    type=click.Choice(["leave_out", "penalise"]),
    default="leave_out",
    show_default=True,
    help="Missing predictions: left out of every mean, or scored as if nothing had been found.",
)
@click.option(
    "--max-depth", default=MAX_DEPTH, show_default=True, help="Metres beyond which true depth does not count."
)
@click.option(
    "--depth-kind",
    type=click.Choice(["metric", "relative", "affine_disparity"]),
    help="What the numbers in plain depth files are.",
)
@click.option(
    "--control",
    metavar="TASK=EXPERT",
    multiple=True,
    help="Control fidelity: estimate TASK from the generated videos with EXPERT and score that.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Where the report goes.  [default: PRED/score]")
@click.option("--name", help="What the run is called in the report.  [default: the folder's name]")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Score on Ray with this many processes.  [default: in-process]"
)
@click.option("--resume", is_flag=True, help="Go on with the samples that an interrupted run left.")
@click.option("--page/--no-page", default=True, show_default=True, help="Write report.html too.")
@click.option("--dry-run", is_flag=True, help="Say what would be scored, and stop.")
def score_command(
    pred: Path,
    gt: str | None,
    tasks: str | None,
    subset: str | None,
    limit: int | None,
    missing: str,
    max_depth: float,
    depth_kind: str | None,
    control: tuple[str, ...],
    out: Path | None,
    name: str | None,
    workers: int | None,
    resume: bool,
    page: bool,
    dry_run: bool,
) -> None:
    """Score predictions against exact truth; write report.json and report.html."""
    console = Console(stderr=True)
    predictions = place(pred, depth_kind, control)
    found = open_place(predictions)
    truth = _truth(gt, found)
    if isinstance(found, Folder) and isinstance(truth, Columns):
        _say_names(found.answer_to(truth), console)
    chosen = _tasks(tasks, found, truth)
    keys = {task: _keys(task, found, truth, subset, limit) for task in chosen}
    everything = [f"{task}/{key}" for task in chosen for key in keys[task]]
    if not everything:
        raise OpenUniError(f"nothing to score: {pred} and the truth share no sample of {', '.join(chosen)}")
    learned = networks.survey() if "video" in chosen else networks.Survey()
    protocol = Protocol(
        tasks=tuple(chosen),
        truth="none"
        if truth is None
        else truth_digest(truth, [task for task in chosen if scored.get(task).needs_truth]),
        keys=hash_keys(everything),
        max_depth=max_depth,
        missing=cast(Missing, missing),
        measures=learned.weights,
        estimators=fingerprints(dict(predictions.experts)),
    )
    job = Job(predictions, None if truth is None else Place(truth.path, None), protocol)
    where = out or pred / "score"
    counts = ", ".join(f"{len(keys[task])} {task}" for task in chosen)
    console.print(f"{pred} against {truth.path if truth else 'no truth'}: {counts}; protocol {protocol.fingerprint()}")
    if dry_run:
        return
    collected = Collector(protocol)
    where.mkdir(parents=True, exist_ok=True)
    with Journal(where / "samples.jsonl", protocol.fingerprint(), resume=resume) as journal:
        latest = {(result.task, result.key): result for result in journal.done()}
        for result in latest.values():
            if result.inputs == input_digest(result.task, result.key, found):
                collected.add(result)
        have = {(r.task, r.key) for r in collected.results}
        work = [(task, key) for task in chosen for key in keys[task] if (task, key) not in have]
        results = score_on_ray(job, work, workers) if workers else score_here(job, work)
        for result in track(results, "scoring", total=len(work), console=console, disable=not console.is_terminal):
            journal.write(result)
            collected.add(result)
    if not any(result.status == "scored" for result in collected.results):
        first = collected.results[0]
        raise OpenUniError(
            f"nothing in {pred} could be scored: {len(collected.results)} predictions are missing or unusable; the "
            f"first, {first.task} of {first.key}: {first.reason}"
        )
    mistakes = () if truth is None else _mistakes(chosen, found, truth)
    made = report.build(
        name or pred.name, str(pred), truth.path if truth else "none", collected, learned.notes, mistakes
    )
    write_atomic(where / "report.json", report.to_json(made), "score")
    Console().print(report.tables(made))
    for warning in made.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")
    if page:
        from unibench.report import page as pages

        write_atomic(where / "report.html", pages.render(made, found, truth).encode(), "score")
    console.print(f"wrote {where / 'report.json'}" + (f" and {where / 'report.html'}" if page else ""))


def _say_names(match: Match, console: Console) -> None:
    """Which predictions go by the source's names, and which are of no true clip."""
    renamed = {name: key for name, key in match.keys.items() if name != key}
    if renamed:
        name, key = next(iter(renamed.items()))
        console.print(
            f"{len(renamed)} predictions matched by the clip's original name ({name} is {key}, …)", markup=False
        )
    for what, names in (("no clip of the truth", match.unknown), ("several clips of the truth", match.ambiguous)):
        if names:
            shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            console.print(f"{len(names)} predictions left out, named as {what}: {shown}", markup=False)


def place(pred: Path, depth_kind: str | None, control: tuple[str, ...] = ()) -> Place:
    """How to open the predictions at `pred`, with what the user said of its depth and of experts to see it with."""
    experts = tuple(sorted(_task_and_expert(pair) for pair in control))
    if "://" in str(pred) or (pred / "dataset.json").is_file() or not pred.is_dir():
        return Place(str(pred), None, experts)
    info = read_info(pred)
    if depth_kind is not None:
        info = with_options(info, "depth", kind=depth_kind)
    return Place(str(pred), info, experts)


def _task_and_expert(pair: str) -> tuple[str, str]:
    task, equals, expert = pair.partition("=")
    if not (task and equals and expert):
        raise OpenUniError(f"--control {pair!r} is not TASK=EXPERT, such as depth=fastdepth")
    return task, expert


def _truth(gt: str | None, found: Run) -> Run | None:
    """The truth asked for, the standard set, or (for generated video alone) none."""
    if gt is not None:
        return open_run(gt)
    if not STANDARD.is_dir() and not set(found.values()) & set(scored.estimated()):
        return None
    return open_standard()


def open_standard() -> Columns:
    """The standard set in its default place. Raises OpenUniError, which says how to render it, unless it is there."""
    wanted = standard.get("estimation")
    render = f"`unibench render --standard {wanted.name}`"
    if not (STANDARD / MANIFEST).is_file():
        raise OpenUniError(f"no truth: no standard set in {STANDARD}; {render} makes it, or name truth with --gt")
    truth = Columns(str(STANDARD))
    recipe = {name: getattr(wanted, name) for name in ("scenes", "frames", "size", "fps", "seed")}
    recipe |= {"source": "unibench render", "families": list(wanted.families)}
    made = truth.data.manifest.configuration
    if differ := [name for name, value in recipe.items() if made.get(name) != value]:
        raise OpenUniError(
            f"{STANDARD} holds another set than the standard one (other {', '.join(differ)}); use it with "
            f"--gt {STANDARD}, or move it away: {render} makes the standard set"
        )
    if len(truth.data) < wanted.scenes:
        raise OpenUniError(f"{STANDARD} has {len(truth.data)} of {wanted.scenes} scenes; {render} goes on with it")
    return truth


def _tasks(asked: str | None, found: Run, truth: Run | None) -> list[str]:
    if asked is None:
        known = _offered(found, truth)
        if not known:
            have = ", ".join(found.values()) or "nothing"
            raise OpenUniError(f"{found.path} has {have}, and none of it has truth; see `unibench score --help`")
        return known
    names = [name.strip() for name in asked.split(",")]
    if unknown := [name for name in names if name not in scored.names()]:
        raise OpenUniError(f"unknown task {unknown[0]!r}; known: {', '.join(scored.names())}")
    if truth is None and (needy := [name for name in names if scored.get(name).needs_truth]):
        raise OpenUniError(f"{needy[0]} needs truth; only video and consistency can be scored without")
    return [task for task in scored.names() if task in names]


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
    findings = (doctor.diagnose(task, comparable_pairs(task, found, truth, _DIAGNOSED)) for task in checked)
    return tuple(str(finding) for finding in findings if finding is not None)


def score_here(job: Job, work: list[tuple[str, str]]) -> Iterator[SampleResult]:
    """Score in this process, in order."""
    for item in work:
        yield from score_keys(job, [item])


def score_on_ray(job: Job, work: list[tuple[str, str]], workers: int) -> Iterator[SampleResult]:
    """Score in `workers` processes; results come as they are done."""
    import ray

    from openuni_pipelines.engine.executors import connect

    owns = not ray.is_initialized()
    if owns:
        connect(None)
    try:
        remote = ray.remote(num_cpus=1, max_retries=0)(score_keys)
        shared = ray.put(job)
        batches = [work[i : i + _BATCH] for i in range(0, len(work), _BATCH)]
        running: list[Any] = []
        while batches or running:
            while batches and len(running) < workers:
                running.append(remote.remote(shared, batches.pop(0)))
            done, running = ray.wait(running, num_returns=1)
            for ref in done:
                yield from ray.get(ref)
    finally:
        if owns:
            ray.shutdown()


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
