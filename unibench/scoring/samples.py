"""Scoring: one sample at a time, each result a line of JSON that also carries what the set's numbers need.

So a run can stop anywhere and resume, samples can be scored by any number of processes in any order, and memory does
not grow with their number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from openuni.errors import AbsentModalityError, InvalidAnnotationError, OpenUniError
from openuni.modalities import get as modality
from openuni.modalities.densepose import DensePose
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Segmentation
from openuni.modalities.skeleton import Skeleton
from unibench.metrics.base import Bools, Metric, Score, weighted_mean
from unibench.metrics.consistency import Camera, ConsistencyMetric, rigid_flow
from unibench.metrics.densepose import DensePoseMetric, Geodesics
from unibench.metrics.depth import DepthMetric, DepthTruth
from unibench.metrics.flow import FlowMetric
from unibench.metrics.physics import PhysicsMetric, Takes
from unibench.metrics.segmentation import SegmentationMetric
from unibench.metrics.skeleton import People, SkeletonMetric
from unibench.metrics.video import Measures, VideoMetric
from unibench.scoring.protocol import Protocol
from unibench.scoring.runs import COLUMN_OF, ESTIMATED, Columns, Folder, Run, load_views, resample

Status = Literal["scored", "missing", "unusable"]


@dataclass(frozen=True, slots=True)
class SampleResult:
    """One sample in one task. `missing`: nothing was predicted; `unusable`: it could not be read or compared.

    `scores` maps a column to value and weight (undefined ones are left out); `state` is the metric's; a penalised
    sample is one that was scored as if nothing were there. `reason` says what was wrong.
    """

    task: str
    key: str
    status: Status
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    penalised: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What scoring may use beyond the values: VBench's measures, and geodesics on a body."""

    measures: Measures = field(default_factory=Measures)
    geodesics: Geodesics | None = None


def new_metric(task: str, protocol: Protocol, tools: Tools | None = None) -> Metric[Any, Any]:
    """A fresh metric of this task."""
    tools = tools or Tools()
    makers: Mapping[str, Callable[[], Metric[Any, Any]]] = {
        "depth": lambda: DepthMetric(protocol.max_depth, protocol.alignments),
        "flow": FlowMetric,
        "segmentation": SegmentationMetric,
        "skeleton": SkeletonMetric,
        "densepose": lambda: DensePoseMetric(tools.geodesics),
        "video": lambda: VideoMetric(tools.measures),
        "consistency": ConsistencyMetric,
        "physics": PhysicsMetric,
    }
    return makers[task]()


def score_sample(
    task: str, key: str, predictions: Run, truth: Run | None, protocol: Protocol, tools: Tools | None = None
) -> SampleResult:
    """Read, resample and score one sample in one task. Only errors of the *truth* are raised (OpenUniError)."""
    true = load_truth(task, key, truth) if truth is not None and task in (*ESTIMATED, "physics") else None
    try:
        found = _load(task, key, predictions)
        if isinstance(true, Takes):
            frames, height, width, _ = true.first.shape
            found = resample("video", found, frames, height, width, (found.fps, _true_fps(truth, key, found.fps)))
        elif true is not None and truth is not None:
            found = resample(task, found, *shape_of(task, true), _rates(predictions, truth, key))
        return score_pair(task, key, "scored", found, true, protocol, tools)
    except AbsentModalityError as error:
        status: Status = "missing"
        reason = str(error)
    except OpenUniError as error:
        status, reason = "unusable", str(error)
    if protocol.missing == "penalise" and true is not None and task in ESTIMATED:
        result = score_pair(task, key, status, nothing_like(task, true), true, protocol, tools)
        return SampleResult(task, key, status, result.scores, result.state, reason, penalised=True)
    return SampleResult(task, key, status, reason=reason)


def score_values(task: str, key: str, found: Any, true: Any, protocol: Protocol) -> dict[str, float]:
    """The defined scores of one prediction that lies on the truth's frames."""
    scores = new_metric(task, protocol).update(key, *_as_compared(task, found, true))
    return {name: score.value for name, score in scores.items() if not math.isnan(score.value)}


def comparable_pairs(task: str, predictions: Run, truth: Run, limit: int) -> list[tuple[Any, Any]]:
    """Up to `limit` (prediction on the truth's frames, truth), spread over the shared keys; unusable ones skipped."""
    keys = [key for key in truth.keys(task) if predictions.has(task, key)]
    pairs = []
    for key in keys[:: max(1, len(keys) // limit)][:limit]:
        true = truth.load(task, key)
        try:
            found = predictions.load(task, key)
            pairs.append((resample(task, found, *shape_of(task, true), _rates(predictions, truth, key)), true))
        except OpenUniError:
            continue  # counted and explained where the sample is scored
    return pairs


def score_pair(
    task: str, key: str, status: Status, found: Any, true: Any, protocol: Protocol, tools: Tools | None = None
) -> SampleResult:
    """Score a prediction that lies on the truth's frames; `status` is recorded with the scores."""
    metric = new_metric(task, protocol, tools)
    scores = metric.update(key, *_as_compared(task, found, true))
    defined = {name: (score.value, score.weight) for name, score in scores.items() if not math.isnan(score.value)}
    return SampleResult(task, key, status, defined, metric.state())


def load_truth(task: str, key: str, truth: Run) -> Any:
    """The true value as its metric wants it: depth with the camera and what stands still, people by joint.

    Raises InvalidAnnotationError where the truth is no truth.
    """
    if task == "physics":
        second = truth.second_take(key)
        return Takes(truth.load("video", key).frames, None if second is None else second.frames)
    true = truth.load(task, key)
    if task == "depth":
        return _depth_truth(key, true, truth)
    return true


def _load(task: str, key: str, predictions: Run) -> Any:
    if task == "consistency":
        return load_views(predictions, key)
    return predictions.load("video" if task == "physics" else task, key)


def _true_fps(truth: Run | None, key: str, otherwise: float) -> float:
    rate = None if truth is None else truth.fps(key)
    return otherwise if rate is None else rate


def _depth_truth(key: str, true: Depth, truth: Run) -> DepthTruth:
    if true.kind != "metric":
        raise InvalidAnnotationError(f"{key}: the truth is {true.kind} depth; scores need metres")
    camera = truth.camera(key)
    if camera is None:
        return DepthTruth(true.values)
    camera = camera.cut(len(true.values))
    still = None
    if "flow" in truth.values():
        with suppress(AbsentModalityError):
            still = standing_still(true, truth.load("flow", key), camera)
    return DepthTruth(true.values, camera.intrinsics, camera.poses, still)


def standing_still(depth: Depth, flow: Flow, camera: Camera) -> Bools:
    """Pixels `[T, H, W]` whose true flow is that of a still scene, to half a pixel; none in a frame without flow."""
    still = np.zeros(depth.values.shape, np.bool_)
    for t, motion in enumerate(flow.forward):
        gap = np.linalg.norm(motion - rigid_flow(depth.values[t].astype(np.float64), camera, t), axis=-1)
        with np.errstate(invalid="ignore"):
            still[t] = gap < 0.5
    if flow.backward is not None and len(flow.backward):
        back = Camera(camera.intrinsics[::-1], camera.poses[::-1])
        gap = np.linalg.norm(flow.backward[-1] - rigid_flow(depth.values[-1].astype(np.float64), back, 0), axis=-1)
        with np.errstate(invalid="ignore"):
            still[-1] = gap < 0.5
    return still


def _as_compared(task: str, found: Any, true: Any) -> tuple[Any, Any]:
    """The two values as their metric wants them."""
    if task == "depth":
        return found, true if isinstance(true, DepthTruth) else DepthTruth(true.values)
    if task == "skeleton":
        return People.of(found), People.of(true)
    return found, true


def shape_of(task: str, true: Any) -> tuple[int, int, int]:
    """Frames, height and width of a true value."""
    if isinstance(true, DepthTruth):
        frames, height, width = true.values.shape
        return frames, height, width
    return modality(COLUMN_OF[task]).shape(true)


def _rates(predictions: Run, truth: Run, key: str) -> tuple[float, float] | None:
    """Frame rates of prediction and truth where both are known."""
    found, true = predictions.fps(key), truth.fps(key)
    return None if found is None or true is None else (found, true)


def nothing_like(task: str, true: Any) -> Any:
    """The prediction that nothing is there: depth and flow not finite anywhere, no object, nobody."""
    if task == "depth":
        return Depth(np.full_like(true.values, np.nan), "metric")
    if task == "flow":
        return Flow(np.full_like(true.forward, np.nan))
    if task == "segmentation":
        return Segmentation(np.zeros_like(true.ids), ())
    if task == "skeleton":
        frames, _, joints, _ = true.keypoints.shape
        points, boxes = np.zeros((frames, 0, joints, 3), np.float32), np.zeros((frames, 0, 4), np.float32)
        return Skeleton(points, boxes, np.zeros(0, np.int32), true.height, true.width, true.layout)
    return DensePose(np.zeros_like(true.values), true.layout)


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
        self.metrics = {task: new_metric(task, protocol) for task in protocol.tasks}

    def add(self, result: SampleResult) -> None:
        """Take in one sample of one task."""
        if result.state:
            self.metrics[result.task].absorb(result.state)
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


def truth_digest(run: Run, tasks: Iterable[str]) -> str:
    """Sixteen hex digits that name the true values: of a dataset its tars' hashes, of a folder names and bytes.

    Depth's temporal error also rests on the true flow and the cameras, so they belong to it.
    """
    digest, tasks = hashlib.sha256(), set(tasks)
    if "depth" in tasks:
        tasks.add("flow")
        for key in run.keys("depth"):
            if (camera := run.camera_file(key)) is not None:
                digest.update(f"{key} camera {_file_hash(camera)}\n".encode())
    if isinstance(run, Columns):
        for shard in run.data.shards:
            for task in sorted(tasks):
                column = COLUMN_OF["video" if task == "physics" else task]
                if column in shard.columns:
                    digest.update(f"{shard.number} {task} {shard.columns[column].tar.sha256}\n".encode())
    elif isinstance(run, Folder):
        for task in sorted(tasks):
            named = "video" if task == "physics" else task
            for key in run.keys(named):
                entry = run.entry(named, key)
                files = [entry] if entry.is_file() else sorted(p for p in entry.rglob("*") if p.is_file())
                for file in files:
                    digest.update(f"{task} {key} {file.name} {_file_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


def _file_hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
