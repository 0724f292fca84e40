"""Scoring: one sample at a time, each result a line of JSON that also carries what the set's numbers need.

So a run can stop anywhere and resume, samples can be scored by any number of processes in any order, and memory does
not grow with their number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from openuni.errors import AbsentModalityError, OpenUniError
from unibench import tasks
from unibench.formats.arrays import LARGEST
from unibench.metrics.base import Metric, Score, weighted_mean
from unibench.scoring.protocol import Protocol
from unibench.scoring.runs import Columns
from unibench.tasks import Run, Setup

Status = Literal["scored", "missing", "unusable"]


@dataclass(frozen=True, slots=True)
class SampleResult:
    """One sample in one task. `missing`: nothing was predicted; `unusable`: it could not be read or compared.

    `scores` maps a column to value and weight (undefined ones are left out); `state` is the metric's; a penalised
    sample is one that was scored as if nothing were there. `reason` says what was wrong, `inputs` is a digest of the
    predicted bytes that it rests on.
    """

    task: str
    key: str
    status: Status
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    penalised: bool = False
    inputs: str = ""


def setup_of(protocol: Protocol, tools: Setup | None = None) -> Setup:
    """What metrics are made with under a protocol; `tools` brings measures and geodesics."""
    return replace(tools or Setup(), max_depth=protocol.max_depth, alignments=protocol.alignments)


def score_sample(
    task: str, key: str, predictions: Run, truth: Run | None, protocol: Protocol, tools: Setup | None = None
) -> SampleResult:
    """Read, resample and score one sample in one task. Only errors of the *truth* are raised (OpenUniError)."""
    kind, inputs = tasks.get(task), ""
    true = kind.load_truth(truth, key) if truth is not None and kind.needs_truth else None
    try:
        inputs = input_digest(task, key, predictions)
        predicted = kind.load(predictions, key, _most(kind.size(true)))
        if true is not None and truth is not None:
            predicted = kind.align(predicted, true, (predictions.fps(key), truth.fps(key)))
        return replace(score_pair(task, key, "scored", predicted, true, protocol, tools), inputs=inputs)
    except AbsentModalityError as error:
        status: Status = "missing"
        reason = str(error)
    except OpenUniError as error:
        status, reason = "unusable", str(error)
    except Exception as error:  # noqa: BLE001  whatever bytes from outside provoke concerns this prediction only
        status, reason = "unusable", f"{predictions.path}, {task} of {key}: {type(error).__name__}: {error}"
    nothing = kind.nothing(true) if protocol.missing == "penalise" and true is not None else None
    if nothing is None:
        return SampleResult(task, key, status, reason=reason, inputs=inputs)
    result = score_pair(task, key, status, nothing, true, protocol, tools)
    return replace(result, reason=reason, penalised=True, inputs=inputs)


def input_digest(task: str, key: str, predictions: Run) -> str:
    """Sixteen hex digits over every predicted byte that this sample may rest on."""
    digest = hashlib.sha256()
    for part in tasks.get(task).reads:
        digest.update(f"{part} {predictions.digest(part, key)}\n".encode())
    return digest.hexdigest()[:16]


def _most(size: tuple[int, int, int] | None) -> int:
    """Bytes that a prediction may take: a hundred times the truth's pixels of float64 are an honest larger size."""
    return LARGEST if size is None else min(LARGEST, max(1 << 30, 1024 * math.prod(size)))


def comparable_pairs(task: str, predictions: Run, truth: Run, limit: int) -> list[tuple[Any, Any]]:
    """Up to `limit` (prediction on the truth's frames, truth), spread over the shared keys; unusable ones skipped."""
    kind = tasks.get_estimated(task)
    keys = [key for key in truth.keys(task) if predictions.has(task, key)]
    pairs = []
    for key in keys[:: max(1, len(keys) // limit)][:limit]:
        true = truth.load(task, key)
        try:
            predicted = kind.load(predictions, key, _most(kind.shape(true)))
            pairs.append((kind.resample(predicted, kind.shape(true), (predictions.fps(key), truth.fps(key))), true))
        except Exception:  # noqa: BLE001, S112  counted and explained where the sample is scored
            continue
    return pairs


def score_pair(
    task: str, key: str, status: Status, predicted: Any, true: Any, protocol: Protocol, tools: Setup | None = None
) -> SampleResult:
    """Score a prediction that lies on the truth's frames; `status` is recorded with the scores."""
    kind = tasks.get(task)
    metric = kind.metric(setup_of(protocol, tools))
    scores = metric.update(key, *kind.compared(predicted, true))
    defined = {name: (score.value, score.weight) for name, score in scores.items() if not math.isnan(score.value)}
    return SampleResult(task, key, status, defined, metric.state())


@dataclass(frozen=True, slots=True)
class Counts:
    """How many samples of a task were scored, missing, unusable, and (of the latter two) penalised."""

    scored: int
    missing: int
    unusable: int
    penalised: int


class Collector:
    """Takes results as they come, in any order, and keeps their scalars; what a metric remembers is joined at once."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.results: list[SampleResult] = []
        self.metrics: dict[str, Metric[Any, Any]] = {
            task: tasks.get(task).metric(setup_of(protocol)) for task in protocol.tasks
        }

    def add(self, result: SampleResult) -> None:
        """Take in one sample of one task."""
        if result.state:
            self.metrics[result.task].merge(result.state)
        self.results.append(replace(result, state={}))

    def of(self, task: str) -> list[SampleResult]:
        """The results of a task, sorted by key, so that sums do not depend on the order of arrival."""
        return sorted((r for r in self.results if r.task == task), key=lambda r: r.key)

    def counts(self, task: str) -> Counts:
        """What became of the samples of a task."""
        statuses = [r.status for r in self.of(task)]
        penalised = sum(r.penalised for r in self.of(task))
        return Counts(statuses.count("scored"), statuses.count("missing"), statuses.count("unusable"), penalised)

    def values(self, task: str) -> dict[str, float]:
        """The numbers of the set; undefined ones are left out."""
        columns: dict[str, list[Score]] = {column.name: [] for column in self.metrics[task].columns}
        for result in self.of(task):
            for name, score in result.scores.items():
                columns[name].append(Score(*score))
        values = {name: weighted_mean(scores) for name, scores in columns.items()}
        return {k: v for k, v in (values | dict(self.metrics[task].compute())).items() if not math.isnan(v)}


def truth_digest(run: Run, names: Iterable[str]) -> str:
    """Sixteen hex digits that name the true values: of a dataset its tars' hashes, of a folder names and bytes."""
    digest = hashlib.sha256()
    for part in sorted({part for name in names for part in tasks.get(name).rests_on}):
        if part in ("camera", "second_take"):
            for key in sorted({key for value in run.values() for key in run.keys(value)}):
                if beside := run.digest(part, key):
                    digest.update(f"{key} {part} {beside}\n".encode())
        elif isinstance(run, Columns):
            column = tasks.get_stored(part).column
            for shard in run.data.shards:
                if column in shard.columns:
                    digest.update(f"{shard.number} {part} {shard.columns[column].tar.sha256}\n".encode())
        else:
            for key in run.keys(part):
                digest.update(f"{part} {key} {run.digest(part, key)}\n".encode())
    return digest.hexdigest()[:16]
