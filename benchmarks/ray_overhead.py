"""Annotating through Ray against a bare loop over the same experts with the same threads, and through Ray Data.

    python benchmarks/ray_overhead.py --rounds 6 --seconds 35 --report /tmp/overhead.json

Rounds of the three take turns, so that whatever else the machine does falls on all of them; each works for at least
three minutes in all. The bare loop is one process a core that takes the next task from a shared counter: no framework,
no messages. All three do the same tasks (`Worker.run`: decode the stored clip, annotate, encode, save) on real encoded
clips of 16 frames at 384 × 288. Start-up is left out: workers have loaded their experts before the clock starts.

Seconds a task say little on a machine that does other work meanwhile. Two figures hold there too, because what slows
the work slows both of their sides: `waiting`, the time of all workers over the time that they spent in tasks (a bare
loop has 1), and `cpu`, the processor time of all processes over that of the workers alone (driver, raylet, GCS). Their
product bounds what Ray costs a machine that has nothing else to do.
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

from openuni.sample import Clip
from openuni.shards import results
from openuni.video import Limits, Normalisation, encode_video
from openuni_pipelines.engine.executors import Fault, RayPools
from openuni_pipelines.engine.recipe import RGB, recipe
from openuni_pipelines.engine.stages import Job, Run, Worker

REPOSITORY = Path(__file__).parents[1]
EXPERTS = ("fastdepth", "dis")
CLIPS = 24


@dataclass(frozen=True)
class Round:
    """One round of one way: seconds of the clock a task, and the two ratios."""

    seconds_a_task: float
    waiting: float
    cpu: float


@dataclass(frozen=True)
class Report:
    """Every round, and medians: of the ratios of neighbouring rounds to the bare loop, of waiting, and of cpu."""

    workers: int
    clips: int
    experts: tuple[str, ...]
    seconds_each: float
    load: float
    rounds: dict[str, list[Round]]
    clock_ratio: dict[str, float]
    waiting: dict[str, float]
    cpu: dict[str, float]


def make_job(folder: Path) -> tuple[Job, list[Run]]:
    """Stored clips in `work/`, and every expert's task for each of them."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.conftest import moving_picture

    made = recipe(EXPERTS, (), "rgb-1-bench")
    job = Job(folder, "bench", made, Normalisation(short_side=288), Limits())
    results.open_work(folder, 0)
    worker = Worker(job)
    for number in range(CLIPS):
        video = folder / f"c{number:02d}.mp4"
        video.write_bytes(encode_video(moving_picture(number, 16, 288), 16.0))
        worker.run(Run(0, video.stem, made[RGB], Clip(video.stem, str(video))))
    return job, [Run(0, f"c{number:02d}", made[name]) for number in range(CLIPS) for name in EXPERTS]


class Bare:
    """One process a core, each a loop."""

    def __init__(self, job: Job, tasks: list[Run], workers: int) -> None:
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

    def round(self, seconds: float) -> Round:
        """A round that starts no task after `seconds`."""
        self._next.value = 0
        self._until.value = time.monotonic() + seconds
        for go in self._go:
            go.set()
        spans = [self._done.get() for _ in self._go]
        count = sum(done for done, _, _ in spans)
        clock = max(end for _, _, end in spans) - min(begin for _, begin, _ in spans)
        return Round(clock / max(count, 1), 1.0, 1.0)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()


def _loop(job: Job, tasks: list[Run], following: Any, until: Any, go: Event, done: Any) -> None:
    worker = Worker(job)
    for name in EXPERTS:
        worker.run(next(task for task in tasks if task.stage.name == name))
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


def core_round(pools: RayPools, tasks: list[Run], seconds: float) -> Round:
    """The same through the build's own executor, fed as the build feeds it; counted from task to task while full."""
    cpu = _Cpu()
    begin, number, count, busy = time.monotonic(), 0, 0, 0.0
    until = end = begin + seconds
    while pools.running or time.monotonic() < until:
        while time.monotonic() < until and pools.running < 2 * pools.slots:
            pools.submit(tasks[number % len(tasks)])
            number += 1
        for finished in pools.wait():
            if isinstance(finished.result, Fault):
                raise RuntimeError(finished.result.error)
            count += 1
            busy += finished.result.seconds
        end = time.monotonic()
    return Round((end - begin) / max(count, 1), (end - begin) * pools.slots / busy, cpu.ratio())


class DataWorker:
    """What Ray Data's actor pool runs on each row."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outcome = self._worker.run(Run(int(row["shard"]), str(row["key"]), self._worker.job.recipe[str(row["stage"])]))
        return {"key": row["key"], "ended": time.monotonic(), "seconds": outcome.seconds}


def data_round(job: Job, tasks: list[Run], workers: int, count: int) -> Round:
    """Rows of keys through `ray.data`'s actor pool; counted from when every actor has done two tasks."""
    import ray

    chosen = [tasks[number % len(tasks)] for number in range(count)]
    rows = [{"shard": task.shard, "key": task.key, "stage": task.stage.name} for task in chosen]
    ray.data.DataContext.get_current().enable_progress_bars = False
    mapped = ray.data.from_items(rows, override_num_blocks=count).map(
        DataWorker, fn_constructor_args=(job,), compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=1
    )
    cpu = _Cpu()
    done = sorted((float(row["ended"]), float(row["seconds"])) for row in mapped.iter_rows())
    warm = 2 * workers
    clock = done[-1][0] - done[warm - 1][0]
    busy = sum(seconds for _, seconds in done[warm:])
    return Round(clock / max(len(done) - warm, 1), clock * workers / busy, cpu.ratio())


class _Cpu:
    """Processor time of this process and all below it since the start, by whether they are workers."""

    def __init__(self) -> None:
        self._before = self._read()

    def ratio(self) -> float:
        spent = {True: 0.0, False: 0.0}
        for process, (worker, ticks) in self._read().items():
            spent[worker] += ticks - self._before.get(process, (worker, 0.0))[1]
        return (spent[True] + spent[False]) / max(spent[True], 1.0)

    @staticmethod
    def _read() -> dict[int, tuple[bool, float]]:
        parents: dict[int, int] = {}
        found: dict[int, tuple[bool, float]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            process = int(folder.name)
            parents[process] = int(fields[1])
            worker = command.startswith((b"ray::_Actor", b"ray::MapWorker"))
            found[process] = (worker, float(fields[11]) + float(fields[12]))

        def ours(process: int) -> bool:
            while process > 1 and process != os.getpid():
                process = parents.get(process, 0)
            return process == os.getpid()

        return {process: times for process, times in found.items() if ours(process)}


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

    from openuni_pipelines.engine.executors import connect

    with tempfile.TemporaryDirectory(prefix="openuni-overhead-") as name:
        job, tasks = make_job(Path(name))
        bare = Bare(job, tasks, options.workers)
        connect(None)
        spent: dict[str, list[Round]] = {"bare": [], "ray core": [], "ray data": []}
        for number in range(options.rounds):
            spent["bare"].append(bare.round(options.seconds))
            # Pools are closed after their round: their actors would hold the cores that Ray Data waits for.
            with RayPools(
                job, workers=options.workers, address=None, time_limit=600.0, worker_memory_gib=None
            ) as pools:
                core_round(pools, tasks[:8], 4.0)
                spent["ray core"].append(core_round(pools, tasks, options.seconds))
            count = max(12, int(options.seconds / spent["bare"][-1].seconds_a_task))
            spent["ray data"].append(data_round(job, tasks, options.workers, count))
            print(number, *(f"{way}: {rounds[-1]}" for way, rounds in spent.items()), flush=True)
        bare.close()
        ray.shutdown()
    base = [round_.seconds_a_task for round_ in spent["bare"]]
    around = [statistics.mean(pair) for pair in zip(base, base[1:] + base[-1:], strict=True)]
    clock = {
        way: statistics.median(a.seconds_a_task / b for a, b in zip(rounds, around, strict=True))
        for way, rounds in spent.items()
    }
    waiting = {way: statistics.median(round_.waiting for round_ in rounds) for way, rounds in spent.items()}
    cpu = {way: statistics.median(round_.cpu for round_ in rounds) for way, rounds in spent.items()}
    report = Report(
        options.workers,
        CLIPS,
        EXPERTS,
        options.rounds * options.seconds,
        os.getloadavg()[2],
        spent,
        clock,
        waiting,
        cpu,
    )
    if options.report:
        options.report.write_text(json.dumps(asdict(report), indent=1) + "\n")
    for way in spent:
        print(f"{way:9s} clock × {clock[way]:.3f}, waiting × {waiting[way]:.3f}, cpu × {cpu[way]:.3f}")


if __name__ == "__main__":
    main()
