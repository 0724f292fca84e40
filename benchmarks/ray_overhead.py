"""Annotating through Ray against a bare loop over the same experts with the same threads, and through Ray Data.

    python benchmarks/ray_overhead.py --rounds 6 --seconds 35 --report /tmp/overhead.json

Rounds of the three take turns, so that whatever else the machine does falls on all of them; each works for at least
three minutes in all. The bare loop is one process a core that takes the next task from a shared counter: no framework,
no messages. All three do the same tasks (`Worker.run`: decode the stored clip, annotate, encode, save) on real encoded
clips of 16 frames at 384 × 288. Start-up is left out: workers have loaded their experts before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from openuni import experts
from openuni.sample import Clip
from openuni.shards import results
from openuni.video import Limits, Normalisation, encode_video
from openuni_pipelines.executors import Fault, RayPools
from openuni_pipelines.tasks import Annotate, Job, Normalise, Worker

REPOSITORY = Path(__file__).parents[1]
EXPERTS = ("fastdepth", "dis")
CLIPS = 24


@dataclass(frozen=True)
class Report:
    """Seconds a task in each round, and the medians of the ratios of neighbouring rounds."""

    workers: int
    clips: int
    experts: tuple[str, ...]
    bare: list[float]
    ray_core: list[float]
    ray_data: list[float]
    ray_core_ratio: float
    ray_data_ratio: float
    seconds_each: float


def make_job(folder: Path) -> tuple[Job, list[Annotate]]:
    """Stored clips in `work/`, and every expert's task for each of them."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.conftest import moving_picture

    prints = {"rgb": "rgb-1-bench"} | {name: experts.get(name).fingerprint() for name in EXPERTS}
    job = Job(folder, "bench", Normalisation(short_side=288), Limits(), prints)
    results.open_work(folder, 0)
    worker = Worker(job)
    for number in range(CLIPS):
        video = folder / f"c{number:02d}.mp4"
        video.write_bytes(encode_video(moving_picture(number, 16, 288), 16.0))
        worker.run(Normalise(0, Clip(video.stem, str(video))))
    return job, [Annotate(0, f"c{number:02d}", name) for number in range(CLIPS) for name in EXPERTS]


class Bare:
    """One process a core, each a loop."""

    def __init__(self, job: Job, tasks: list[Annotate], workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._next, self._until = context.Value("q", 0), context.Value("d", 0.0)
        self._go = [context.Event() for _ in range(workers)]
        self._done = context.Queue()
        self._processes = [
            context.Process(target=_loop, args=(job, tasks, self._next, self._until, go, self._done), daemon=True)
            for go in self._go
        ]
        for process in self._processes:
            process.start()
        self.round(0.1)

    def round(self, seconds: float) -> float:
        """Seconds a task, over a round that starts no task after `seconds`."""
        self._next.value = 0
        self._until.value = time.monotonic() + seconds
        for go in self._go:
            go.set()
        spans = [self._done.get() for _ in self._go]
        count = sum(done for done, _, _ in spans)
        return _per_task(max(end for _, _, end in spans) - min(begin for _, begin, _ in spans), count)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()


def _loop(job: Job, tasks: list[Annotate], following: Any, until: Any, go: Event, done: Any) -> None:
    worker = Worker(job)
    for name in EXPERTS:
        worker.run(next(task for task in tasks if task.expert == name))
    while True:
        go.wait()
        go.clear()
        begin, count = time.monotonic(), 0
        while time.monotonic() < until.value:
            with following.get_lock():
                number = following.value
                following.value += 1
            worker.run(tasks[number % len(tasks)])
            count += 1
        done.put((count, begin, time.monotonic()))


def core_round(pools: RayPools, tasks: list[Annotate], seconds: float) -> float:
    """The same through the build's own executor, fed as the build feeds it."""
    begin, number, count = time.monotonic(), 0, 0
    until = begin + seconds
    while time.monotonic() < until or pools.running:
        while time.monotonic() < until and pools.running < 2 * pools.slots:
            pools.submit(tasks[number % len(tasks)])
            number += 1
        for finished in pools.wait():
            if isinstance(finished.result, Fault):
                raise RuntimeError(finished.result.error)
            count += 1
    return _per_task(time.monotonic() - begin, count)


class DataWorker:
    """What Ray Data's actor pool runs on each row."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self._worker.run(Annotate(int(row["shard"]), str(row["key"]), str(row["expert"])))
        return {"key": row["key"], "ended": time.monotonic()}


def data_round(job: Job, tasks: list[Annotate], workers: int, count: int) -> float:
    """Rows of keys through `ray.data`'s actor pool; the clock runs from when every actor has done two tasks."""
    import ray

    rows = [asdict(tasks[number % len(tasks)]) for number in range(count)]
    ray.data.DataContext.get_current().enable_progress_bars = False
    mapped = ray.data.from_items(rows, override_num_blocks=count).map(
        DataWorker, fn_constructor_args=(job,), compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=1
    )
    ended = sorted(float(row["ended"]) for row in mapped.iter_rows())
    warm = 2 * workers
    return _per_task(ended[-1] - ended[warm - 1], len(ended) - warm)


def _per_task(seconds: float, count: int) -> float:
    return seconds / max(count, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=35.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    # As Ray sets it for its workers: the experts' own settings and this give all three ways the same threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    import ray

    from openuni_pipelines.executors import connect

    with tempfile.TemporaryDirectory(prefix="openuni-overhead-") as name:
        job, tasks = make_job(Path(name))
        bare = Bare(job, tasks, options.workers)
        connect(None)
        made = [experts.get(name) for name in EXPERTS]
        spent: dict[str, list[float]] = {"bare": [], "core": [], "data": []}
        for number in range(options.rounds):
            spent["bare"].append(bare.round(options.seconds))
            # Pools are closed after their round: their actors would hold the cores that Ray Data waits for.
            with RayPools(
                job, made, workers=options.workers, address=None, time_limit=600.0, worker_memory_gib=None
            ) as pools:
                core_round(pools, tasks[:8], 4.0)
                spent["core"].append(core_round(pools, tasks, options.seconds))
            count = max(12, int(options.seconds / spent["bare"][-1]))
            spent["data"].append(data_round(job, tasks, options.workers, count))
            print(number, *(f"{way} {times[-1]:.4f}" for way, times in spent.items()), "s/task", flush=True)
        bare.close()
        ray.shutdown()
    around = [statistics.mean(pair) for pair in zip(spent["bare"], spent["bare"][1:] + spent["bare"][-1:], strict=True)]
    core = statistics.median(a / b for a, b in zip(spent["core"], around, strict=True))
    data = statistics.median(a / b for a, b in zip(spent["data"], around, strict=True))
    report = Report(
        options.workers, CLIPS, EXPERTS, spent["bare"], spent["core"], spent["data"], round(core, 4), round(data, 4),
        options.rounds * options.seconds,
    )  # fmt: skip
    if options.report:
        options.report.write_text(json.dumps(asdict(report), indent=1) + "\n")
    print(f"Ray Core {core:.3f} × the bare loop, Ray Data {data:.3f} × (medians of {options.rounds} rounds)")


if __name__ == "__main__":
    main()
