"""What will be scored: both runs opened, tasks and samples settled, and the protocol they are scored by."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from openuni.errors import OpenUniError
from openuni.experts import sets
from openuni.printable import count
from openuni.shards.layout import MANIFEST
from unibench import networks, standard
from unibench import tasks as scored
from unibench.formats.names import Match
from unibench.scoring.config import Progress, ScoreConfig
from unibench.scoring.control import Reestimated, fingerprints
from unibench.scoring.protocol import Protocol, hash_keys
from unibench.scoring.runs import Columns, Folder, open_run, read_info, with_options
from unibench.scoring.samples import truth_digest
from unibench.tasks import Info, Run

STANDARD = standard.get("estimation").place
"""Where the standard set is looked for."""


class NoTruthError(OpenUniError):
    """The standard set that scores are given on is not where it is looked for."""


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
    call: str
    """Of one call of `score`: the next in the same process looks at all files anew."""


@lru_cache(maxsize=4)
def open_place(place: Place, call: str = "") -> Run:
    """Open a run, once in each process and call of `score`."""
    run = open_run(place.path, place.info)
    return Reestimated(run, dict(place.experts)) if place.experts else run


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
    where = place(pred, config.depth_kind, config.control)
    sets.check_trusted([expert for _, expert in where.experts], config.trust)
    call = secrets.token_hex(4)
    predictions = open_place(where, call)
    truth = _truth(gt, predictions, config.standard)
    if isinstance(predictions, Folder | Columns) and isinstance(truth, Columns):
        for sentence in _names_said(predictions.answer_to(truth)):
            say(sentence)
    chosen = _tasks(config.tasks, predictions, truth)
    keys = {task: _keys(task, predictions, truth, config.subset, config.limit) for task in chosen}
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
        estimators=fingerprints(dict(where.experts)),
    )
    job = ScoreJob(where, None if truth is None else Place(truth.path, None), protocol, call)
    return Plan(job, predictions, truth, keys, learned.notes)


def _names_said(match: Match) -> Iterator[str]:
    """Which predictions go by the source's names, and which are of no true clip."""
    renamed = {name: key for name, key in match.keys.items() if name != key}
    if renamed:
        name, key = next(iter(renamed.items()))
        yield f"{count(len(renamed), 'prediction')} matched by the clip's original name ({name} is {key}, …)"
    for what, names in (("no clip of the truth", match.unknown), ("several clips of the truth", match.ambiguous)):
        if names:
            shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            yield f"{count(len(names), 'prediction')} left out, named as {what}: {shown}"
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


def _truth(gt: str | None, predictions: Run, standard_name: str) -> Run | None:
    """The truth asked for, the standard set, or (for generated video alone) none."""
    if gt is not None:
        return open_run(gt)
    if not standard.get(standard_name).place.is_dir() and not set(predictions.values()) & set(scored.estimated()):
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
        small = " (a first look in minutes: `unibench render --standard small`, then --standard small here)"
        or_small = "" if name == "small" else small
        raise NoTruthError(
            f"no truth: no standard set in {place}; {render} makes it{or_small}, or name truth with --gt"
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


def _tasks(asked: tuple[str, ...], predictions: Run, truth: Run | None) -> list[str]:
    if not asked:
        known = _offered(predictions, truth)
        if not known:
            if not (have := ", ".join(predictions.values())):
                raise OpenUniError(
                    f"{predictions.path} has no predictions that are known by their place: those of a task lie in a "
                    f"folder of its name, one file or folder a clip; the tasks: {', '.join(scored.names())}"
                )
            raise OpenUniError(f"{predictions.path} has {have}, and none of it has truth; see `unibench score --help`")
        return known
    if unknown := [name for name in asked if name not in scored.names()]:
        raise OpenUniError(f"unknown task {unknown[0]!r}; known: {', '.join(scored.names())}")
    if truth is None and (needy := [name for name in asked if scored.get(name).needs_truth]):
        raise OpenUniError(f"{needy[0]} needs truth; only video and consistency can be scored without")
    return [task for task in scored.names() if task in asked]


def _offered(predictions: Run, truth: Run | None) -> list[str]:
    """What both have, of the tasks that are scored by default."""
    have, true = set(predictions.values()), set() if truth is None else set(truth.values())
    every = [task for task in map(scored.get, scored.names()) if task.by_default and task.offered(have)]
    known = [task for task in every if not task.needs_truth or task.offered(true)]
    if isinstance(predictions, Columns) and any(task.needs_truth for task in known):
        # Every dataset has RGB; it is what was looked at, not what was generated, unless the user says otherwise.
        known = [task for task in known if task.needs_truth]
    return [task.name for task in known]


def _keys(task: str, predictions: Run, truth: Run | None, subset: str | None, limit: int | None) -> list[str]:
    """Samples with truth (for generated video: those that were generated)."""
    keys = scored.get(task).keys(predictions, truth)
    if subset is not None:
        if not isinstance(truth, Columns):
            raise OpenUniError("--subset needs truth in OpenUni's columns; plain folders have no subsets")
        keys = [key for key in keys if key in truth.data and truth.subset(key) == subset]
    return keys[:limit]
