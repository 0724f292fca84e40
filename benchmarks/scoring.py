"""Scoring against decoding: how long the arithmetic takes, beside merely reading truth and predictions; and its memory.

    python benchmarks/scoring.py [--samples 200] [--frames 16] [--size 256]

Truth (exact, float32) and predictions (as experts store them) of a few rendered scenes are encoded once and decoded
anew for every sample, on one thread, from memory: no disk is waited for. Depth is scored with its primary alignment.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from openuni.modalities import Encoded, Modality, get
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.skeleton import Skeleton
from unibench import tasks
from unibench.rendering.render import modalities
from unibench.rendering.truth import trace
from unibench.scenes.families import Spec, build
from unibench.scoring.protocol import Protocol
from unibench.scoring.samples import Collector, score_pair

TASKS = ("depth", "flow", "segmentation", "skeleton")
_FAMILIES = ("fall", "collide", "projectile", "fly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    stored = [_stored(k, arguments.frames, arguments.size) for k in range(len(_FAMILIES))]
    protocol = Protocol(TASKS, truth="benchmark", keys="benchmark", alignments=("disparity",))
    collected = Collector(protocol)
    decoding, scoring = dict.fromkeys(TASKS, 0.0), dict.fromkeys(TASKS, 0.0)
    memory = []
    for number in range(arguments.samples):
        for task, (prediction, truth) in stored[number % len(stored)].items():
            seconds, (found, true) = _timed(partial(_decode, get(task), prediction, truth))
            decoding[task] += seconds
            seconds, result = _timed(partial(score_pair, task, f"s{number}", "scored", found, true, protocol))
            scoring[task] += seconds
            collected.add(result)
        if number in (arguments.samples // 4, arguments.samples - 1):
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    table = Table("task", "decode ms/sample", "score ms/sample", "ratio")
    for task in (*TASKS, "all"):
        d, s = (sum(x.values()) if task == "all" else x[task] for x in (decoding, scoring))
        table.add_row(task, *(f"{1e3 * v / arguments.samples:.1f}" for v in (d, s)), f"{s / d:.2f}")
    console = Console()
    console.print(table)
    console.print(f"peak memory: {memory[0]:.0f} MiB after a quarter of the samples, {memory[-1]:.0f} MiB after all")


def _stored(number: int, frames: int, size: int) -> dict[str, tuple[Encoded, Encoded]]:
    """Prediction and truth of each task, encoded."""
    spec = Spec(_FAMILIES[number], number, frames=frames, height=size, width=size)
    values = modalities(trace(build(spec)))
    true: dict[str, Any] = {task: getattr(values, task) for task in ("depth", "flow", "segmentation")}
    true["skeleton"] = _people(number, frames, size)
    pairs = {}
    for task, value in true.items():
        corruption = next(iter(tasks.get_estimated(task).corruptions.values()))
        steps, corrupt = corruption.steps, corruption.apply
        found = corrupt(value, steps[1], np.random.default_rng(number))
        if isinstance(found, Depth):
            found = Depth(found.values, "relative")
        elif isinstance(found, Flow):
            found = Flow(found.forward, found.occluded)
        pairs[task] = get(task).encode(found), get(task).encode(value)
    return pairs


def _people(seed: int, frames: int, size: int) -> Skeleton:
    rng = np.random.default_rng(seed)
    xy = rng.normal(0, size / 12, (1, 2, 17, 2)) + size * np.array([0.3, 0.6])[None, :, None, None]
    points = np.concatenate([np.repeat(xy, frames, 0), np.ones((frames, 2, 17, 1))], -1).astype(np.float32)
    boxes = np.concatenate([points[..., :2].min(2), points[..., :2].max(2)], -1)
    return Skeleton(points, boxes, np.arange(2, dtype=np.int32), size, size)


def _decode(kind: Modality[Any], prediction: Encoded, truth: Encoded) -> tuple[Any, Any]:
    return kind.decode(prediction), kind.decode(truth)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    value = call()
    return time.perf_counter() - begun, value


if __name__ == "__main__":
    main()
