"""How many tasks a second one driver hands out and books, and what that costs as actors grow in number.

    python benchmarks/driver.py --report /tmp/driver.json

The real drive loop, executor, shard state and monitor of a build, over actors that are none: Ray is replaced by
objects in this process whose tasks end at once, in the order in which they were handed out, one each time that the
driver looks. That is the worst case for the driver's own loops: whatever it does for all actors it does for every task.
What Ray itself costs, in its own threads and processes, is not in the numbers. RGB commits are real, as the next column
reads them, and their time is taken out.

`cost` is the processor time of the driver's thread for a task, which other work on the machine does not lengthen much;
`tasks_a_second` is its inverse.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import types
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openuni.sample import Clip, Record, Status
from openuni.shards import columns
from openuni.shards.results import ColumnNote, Result
from openuni.video import Limits, Normalisation
from openuni_pipelines.engine import run
from openuni_pipelines.engine.executors import RayPools
from openuni_pipelines.engine.monitor import Monitor
from openuni_pipelines.engine.recipe import RGB, Kind, recipe
from openuni_pipelines.engine.run import Execution
from openuni_pipelines.engine.stages import Job, Outcome, Run, Task

REPOSITORY = Path(__file__).parents[1]
SHARD = 128
EXPERTS = ("toy_depth", "toy_thermal", "dis")


@dataclass(frozen=True)
class Row:
    """One number of actors; `cost` in seconds of processor time a task."""

    actors: int
    tasks: int
    cost: float
    tasks_a_second: float


class Call:
    """What `actor.method.remote(…)` of Ray stands for: it is handed out, and its reference comes back."""

    def __init__(self, ray: FakeRay, work: Any) -> None:
        self._ray = ray
        self._work = work

    def remote(self, *arguments: Any) -> object:
        reference = object()
        self._ray.pending[reference] = (self._work, arguments)
        return reference


class FakeActor:
    """Does nothing, at once; an RGB commit is made."""

    def __init__(self, ray: FakeRay, job: Job) -> None:
        self._job = job
        self._ray = ray
        self.ready = Call(ray, lambda: None)
        self.run = Call(ray, self._run)

    def options(self, **_: object) -> FakeActor:
        return self

    def remote(self, job: Job, *_: object) -> FakeActor:
        return FakeActor(self._ray, job)

    def _run(self, task: Task) -> Outcome:
        assert isinstance(task, Run)
        if task.stage.kind is Kind.COMMIT and task.stage.column == RGB:
            begin = time.thread_time()
            samples = ((key, _stored(key, task)) for key in task.keys)
            root = self._job.root
            columns.commit(root, task.shard, RGB, task.stage.fingerprint, samples, self._job.run, lambda: None)
            self._ray.spent += time.thread_time() - begin
        return Outcome(0.001, 16)


def _stored(key: str, task: Run) -> Result:
    record = Record(key, 16, 480, 832, 16.0)
    meta = {"frames": 16, "height": 480, "width": 832, "exact": False}
    return Result(RGB, ColumnNote(Status(True, expert=task.stage.fingerprint), meta, record=record), {"mp4": b"none"})


class FakeRay(types.ModuleType):
    """As much of the module `ray` as the executor uses, for `cpus` cores."""

    def __init__(self, cpus: int) -> None:
        super().__init__("ray")
        self.pending: OrderedDict[object, tuple[Any, tuple[Any, ...]]] = OrderedDict()
        self.spent = 0.0
        self.exceptions = types.SimpleNamespace(RayError=RuntimeError)
        self._cpus = float(cpus)

    def is_initialized(self) -> bool:
        return True

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: object) -> Any:
        return lambda _class: FakeActor(self, None)  # type: ignore[arg-type]  # a class is no actor yet

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self._cpus, "memory": self._cpus * 2**32}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self._cpus}}]

    def wait(self, references: Sequence[object], num_returns: int, timeout: float) -> tuple[list[object], list[object]]:
        """One that has ended, the oldest; `timeout` 0 asks for more and finds the same."""
        return [next(iter(self.pending))], []

    def get(self, reference: object, timeout: float | None = None) -> Any:
        work, arguments = self.pending.pop(reference)
        return work(*arguments)

    def kill(self, actor: FakeActor) -> None:
        pass


class Clips:
    """A plan of so many shards."""

    def shard(self, number: int) -> list[Clip]:
        return [Clip(f"c{number:04d}-{clip:03d}", "none.mp4", video_id=f"v{clip}") for clip in range(SHARD)]


def measure(folder: Path, actors: int, shards: int) -> Row:
    """Drive `shards` shards over so many actors that are none."""
    ray = FakeRay(actors)
    sys.modules["ray"] = ray
    root = folder / f"{actors}"
    for name in ("commits", "shards", "index", "work"):
        (root / name).mkdir(parents=True)
    job = Job(root, "bench", recipe(EXPERTS, (), "rgb-1-bench"), Normalisation(), Limits())
    names = tuple(job.recipe.columns)
    stages = {stage.name: shards * SHARD for stage in job.recipe.stages} | {"commit": shards * len(names)}
    tasks = sum(stages.values())
    with (
        RayPools(job, workers=None, address=None, time_limit=900.0, worker_memory_gib=None) as pools,
        Monitor(root, job.run, stages, shards, names, None) as monitor,
    ):
        assert pools.slots == actors
        begin = time.thread_time()
        run._drive(job, range(shards), Clips(), pools, Execution(min_free=0.0), monitor, None)  # type: ignore[arg-type]
        spent = time.thread_time() - begin - ray.spent
    return Row(actors, tasks, spent / tasks, tasks / spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--shards", type=int, default=24, help=f"of {SHARD} clips")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY / "tests" / "plugins"))
    rows: list[Row] = []
    for actors in options.actors:
        with tempfile.TemporaryDirectory(prefix="openuni-driver-") as name:
            rows.append(measure(Path(name), actors, options.shards))
        row = rows[-1]
        print(f"{actors:4d} actors: {row.tasks_a_second:6.0f} tasks/s, {row.cost * 1e6:.0f} µs a task", flush=True)
    if options.report:
        report = {"load": os.getloadavg()[0], "rows": [asdict(row) for row in rows]}
        options.report.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
