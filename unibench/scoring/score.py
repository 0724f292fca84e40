"""Scoring a run: predictions against truth, sample by sample, side by side if asked, resumable."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path

from openuni.errors import OpenUniError
from openuni.printable import count
from openuni.shards.layout import write_atomic
from unibench import networks
from unibench import tasks as scored
from unibench.metrics.geodesics import BodyGeodesics
from unibench.report import report
from unibench.report.report import Report
from unibench.scoring import doctor, places
from unibench.scoring.config import Map, Progress, Progressed, ScoreConfig
from unibench.scoring.journal import Journal
from unibench.scoring.places import Reports
from unibench.scoring.plan import Plan, ScoreJob, open_place, plan
from unibench.scoring.runs import Columns, Folder
from unibench.scoring.samples import Collector, SampleResult, comparable_pairs, input_digest, score_sample
from unibench.tasks import Run, Setup

_REPORT, _PAGE, _JOURNAL = "report.json", "report.html", "samples.jsonl"
_BATCH = 4
"""Samples that are handed out together: seconds of work, so that handing them out costs nothing."""
_DIAGNOSED = 4
"""Samples of each task whose conventions are checked with every score."""


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

    `pred` and `gt` are datasets, views of them, or plain folders of ordinary files; without `gt` the truth is the
    standard set. `map` may run samples side by side; in this process by default. Raises NoTruthError, and OpenUniError
    where nothing could be scored; what one prediction raises concerns its sample only.

    Example:
        >>> import unibench
        >>> config = unibench.ScoreConfig(out=Path("runs/same"), page=False)
        >>> report = unibench.score("data/demo", "data/demo", tasks=["flow"], config=config)
        >>> report.tasks["flow"].columns["epe_video"].value  # pixels, mean over videos
        0.0
    """
    config = config or ScoreConfig()
    if tasks is not None:
        config = replace(config, tasks=tuple(tasks))
    say = progress or (lambda _: None)
    with ExitStack() as stack:
        here = stack.enter_context(places.at_hand(pred, say))
        true = None if gt is None else stack.enter_context(places.at_hand(gt, say))
        planned = plan(here, true, config, say)
        say(str(planned))
        run = f"score-{secrets.token_hex(4)}"
        marks = _REPORT, _JOURNAL
        reports = stack.enter_context(places.reports(config, pred, run, marks, _JOURNAL))
        return _score(planned, str(pred), None if gt is None else str(gt), reports, config, say, map)


def _score(
    planned: Plan, pred: str, gt: str | None, reports: Reports, config: ScoreConfig, say: Progress, map: Map
) -> Report:
    with reports.putting(_JOURNAL):
        collected = _collect(planned, reports.folder / _JOURNAL, config.resume, say, map)
    if not any(result.status == "scored" for result in collected.results):
        # What is there and cannot be used tells more than what is not there.
        first = min(collected.results, key=lambda result: result.status != "unusable")
        raise OpenUniError(
            f"nothing in {pred} could be scored, {count(len(collected.results), 'prediction')} missing or unusable; "
            f"the first, {first.task} of {first.key}: {first.reason}"
        )
    truth = planned.truth
    mistakes = () if truth is None else _mistakes(list(planned.keys), planned.predictions, truth)
    path = gt or (truth.path if truth else "none")
    made = report.build(config.name or Path(pred).name, pred, path, collected, planned.notes, mistakes)
    write_atomic(reports.folder / _REPORT, report.to_json(made), "score")
    if config.page:
        from unibench.report import page

        write_atomic(reports.folder / _PAGE, page.render(made, planned.predictions, truth).encode(), "score")
    reports.put(_REPORT, *([_PAGE] if config.page else []))
    say(f"wrote {reports.where(_REPORT)}" + (f" and {reports.where(_PAGE)}" if config.page else ""))
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


def _score_keys(job: ScoreJob, work: list[tuple[str, str]]) -> list[SampleResult]:
    """Score these (task, key) pairs."""
    truth = None if job.truth is None else open_place(job.truth, job.call)
    predictions = open_place(job.predictions, job.call)
    if isinstance(predictions, Folder | Columns) and isinstance(truth, Columns):
        predictions.answer_to(truth)
    tools = _tools(job.protocol.tasks, tuple(job.protocol.measures.items()))
    return [score_sample(task, key, predictions, truth, job.protocol, tools) for task, key in work]


@cache
def _tools(tasks: tuple[str, ...], weights: tuple[tuple[str, str], ...]) -> Setup:
    return Setup(
        measures=networks.load(dict(weights)), geodesics=BodyGeodesics.load() if "densepose" in tasks else None
    )


def _mistakes(tasks: list[str], predictions: Run, truth: Run) -> tuple[str, ...]:
    """Conventions that a few samples say were mistaken."""
    checked = [task for task in tasks if task in scored.estimated()]
    return tuple(sentence for task in checked if (sentence := _mistake(task, predictions, truth)))


def _mistake(task: str, predictions: Run, truth: Run) -> str:
    """The convention of a task that was mistaken, as a sentence; empty where none was."""
    try:
        finding = doctor.diagnose(task, comparable_pairs(task, predictions, truth, _DIAGNOSED))
    except Exception as error:  # noqa: BLE001  the scores stand, whatever a prediction from outside provokes here
        return f"{task}: conventions could not be checked: {type(error).__name__}: {error}"
    return "" if finding is None else str(finding)
