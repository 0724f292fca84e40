"""Where tasks run: in this process, or in pools of Ray actors. Both hand back what finished and what went wrong."""

from __future__ import annotations

import errno
import os
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from openuni.experts import Resources
from openuni.sample import SCHEMA_VERSION
from openuni_pipelines.tasks import Job, Outcome, Task, Worker, resources

_POLL_SECONDS = 0.5
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a task did not finish: its code raised, its process died, it was killed at the time limit, or the disk
    refused to take its result (which is no clip's fault)."""

    kind: Literal["raised", "died", "hung", "disk"]
    error: str


@dataclass(frozen=True, slots=True)
class Finished:
    task: Task
    result: Outcome | Fault


class Executor(ABC):
    """Runs tasks while its `with` block lasts."""

    slots: int
    """Tasks that can run at once."""
    running: int
    """Tasks submitted and not yet returned."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Take a task; it starts when a worker is free."""

    @abstractmethod
    def wait(self) -> list[Finished]:
        """What has finished; after a while with nothing finished, an empty list."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers, also in the middle of a task."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InProcess(Executor):
    """Everything here and now, for debugging: exceptions are faults as on Ray, but nothing survives a crash."""

    def __init__(self, job: Job) -> None:
        self.slots = 1
        self.running = 0
        self._worker = Worker(job)
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self.running += 1
        self._tasks.append(task)

    def wait(self) -> list[Finished]:
        if not self._tasks:
            return []
        task = self._tasks.popleft()
        self.running -= 1
        return [Finished(task, _guarded(self._worker, task))]

    def close(self) -> None:
        self._worker.close()


def _guarded(worker: Worker, task: Task) -> Outcome | Fault:
    try:
        return worker.run(task)
    except OSError as error:
        return Fault("disk" if error.errno in _DISK_ERRORS else "raised", _brief(error))
    except Exception as error:  # noqa: BLE001  an expert may raise anything; the run goes on without this clip
        return Fault("raised", _brief(error))


def _brief(error: Exception) -> str:
    """Type, message and the innermost line: enough to find the place, the same on every machine."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"[:2000]


@dataclass
class _Slot:
    """One actor and what it is doing. `since` is when the task began, or when the actor was asked for."""

    actor: Any
    since: float
    ref: Any
    task: Task | None = None
    ready: bool = False


@dataclass
class _Pool:
    """Actors for tasks of equal needs. Work waits here, never in an actor's own queue: a dead actor loses one task."""

    needs: Resources
    size: int
    share: float
    """CPUs that Ray counts for one actor: below one where pools outnumber cores."""
    slots: list[_Slot] = field(default_factory=list)
    queue: deque[Task] = field(default_factory=deque)


class RayPools(Executor):
    """One pool of actors for each distinct `Resources`, so that tasks of equal needs never wait for each other.

    Experts that declare equal needs share a pool and are loaded by its workers on first use: with a pool an expert,
    two cores would idle whenever the experts' speeds differ (`docs/building.md` has the measurement).
    """

    def __init__(self, job: Job, needs: Iterable[Resources], workers: int | None, address: str | None, limit: float):
        """`workers` bounds all actors together (default: what the cluster holds); `limit`: seconds for one task."""
        import ray

        self._ray = ray
        self._limit = limit
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            connect(address)
        self._job_ref = ray.put(job)
        self._actor_class = ray.remote(max_restarts=0, max_task_retries=0)(_Actor)
        self._pools = _sized(sorted(set(needs), key=_weight), _capacity(ray), workers)
        for pool in self._pools.values():
            pool.slots = [self._start(pool) for _ in range(pool.size)]
        self.slots = sum(pool.size for pool in self._pools.values())
        self.running = 0

    def close(self) -> None:
        for pool in self._pools.values():
            for slot in pool.slots:
                self._ray.kill(slot.actor)
        if self._owns_ray:
            self._ray.shutdown()

    def submit(self, task: Task) -> None:
        self.running += 1
        pool = self._pools[resources(task)]
        pool.queue.append(task)
        self._feed(pool)

    def wait(self) -> list[Finished]:
        slots = {slot.ref: (pool, slot) for pool in self._pools.values() for slot in pool.slots if slot.ref is not None}
        if not slots:
            return []
        done, _ = self._ray.wait(list(slots), num_returns=1, timeout=_POLL_SECONDS)
        if done:
            done, _ = self._ray.wait(list(slots), num_returns=len(slots), timeout=0)
        finished = [result for ref in done for result in self._collect(*slots[ref])]
        finished += [result for pool, slot in slots.values() for result in self._overdue(pool, slot)]
        for pool in self._pools.values():
            self._feed(pool)
        self.running -= len(finished)
        return finished

    def _collect(self, pool: _Pool, slot: _Slot) -> list[Finished]:
        task, slot.task = slot.task, None
        try:
            result = self._ray.get(slot.ref)
            slot.ref = None
        except self._ray.exceptions.RayError as error:
            if task is None:
                raise RuntimeError(f"a worker could not be started: {error}") from error
            self._replace(pool, slot)
            return [Finished(task, Fault("died", "the worker process died" + _cause(error)))]
        slot.ready = True
        return [] if task is None else [Finished(task, result)]

    def _overdue(self, pool: _Pool, slot: _Slot) -> list[Finished]:
        if slot.task is None or time.monotonic() - slot.since < self._limit:
            return []
        task = slot.task
        self._ray.kill(slot.actor)
        self._replace(pool, slot)
        return [Finished(task, Fault("hung", f"did not finish within {self._limit:g} s"))]

    def _feed(self, pool: _Pool) -> None:
        for slot in pool.slots:
            if pool.queue and slot.ready and slot.task is None and slot.ref is None:
                slot.task = pool.queue.popleft()
                slot.since = time.monotonic()
                slot.ref = slot.actor.run.remote(slot.task)

    def _start(self, pool: _Pool) -> _Slot:
        options = {"num_cpus": pool.share, "num_gpus": pool.needs.gpus}
        actor = self._actor_class.options(**options).remote(self._job_ref, pool.needs.cpus)
        return _Slot(actor, time.monotonic(), actor.ready.remote())

    def _replace(self, pool: _Pool, slot: _Slot) -> None:
        pool.slots[pool.slots.index(slot)] = self._start(pool)


class _Actor:
    """The process that a pool's tasks run in."""

    def __init__(self, job: Job, threads: int) -> None:
        # Read by OpenMP and OpenBLAS when the first library loads them, which is after this.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._worker = Worker(job)

    def ready(self) -> None:
        """Answers as soon as the process lives."""

    def run(self, task: Task) -> Outcome | Fault:
        return _guarded(self._worker, task)


def connect(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at `address`. Quiet, no dashboard, no usage report."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    namespace = f"openuni-{SCHEMA_VERSION}"
    if address is not None:
        ray.init(address=address, namespace=namespace, log_to_driver=False)
        return
    # Messages carry paths, never frames: Ray's default share of memory for objects would only be taken from experts.
    ray.init(
        num_cpus=os.cpu_count(),
        object_store_memory=128 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        # Nothing outside this machine has business with a build that runs on it alone.
        _node_ip_address="127.0.0.1",
        namespace=namespace,
    )


@dataclass(frozen=True, slots=True)
class _Capacity:
    cpus: float
    gpus: float
    memory_gib: float


def _capacity(ray: Any) -> _Capacity:
    total = ray.cluster_resources()
    return _Capacity(total.get("CPU", 1.0), total.get("GPU", 0.0), total.get("memory", 4 << 30) / 2**30)


def _weight(needs: Resources) -> tuple[float, int, float]:
    return (-needs.gpus, -needs.cpus, -needs.memory_gib)


def _sized(needs: list[Resources], capacity: _Capacity, workers: int | None) -> dict[Resources, _Pool]:
    """How many actors each pool gets. GPU pools are sized by GPUs; CPU pools share the cores that are left equally.

    Every pool gets at least one actor, with a fraction of a core where the pools outnumber the cores.
    """
    pools: dict[Resources, _Pool] = {}
    cpus = capacity.cpus
    on_gpu = [n for n in needs if n.gpus]
    on_cpu = [n for n in needs if not n.gpus]
    for need in on_gpu:
        size = max(1, int(capacity.gpus / len(on_gpu) / need.gpus))
        pools[need] = _Pool(need, size, share=0.0)
        cpus -= size * need.cpus
    for need in on_cpu:
        room = max(cpus, 1.0) / len(on_cpu)
        by_memory = int(capacity.memory_gib / len(on_cpu) / need.memory_gib)
        size = max(1, min(int(room / need.cpus), by_memory))
        pools[need] = _Pool(need, size, share=min(float(need.cpus), room))
    if workers is not None:
        total = sum(pool.size for pool in pools.values())
        for pool in pools.values():
            pool.size = max(1, min(pool.size, round(pool.size * workers / total)))
    return pools


def _cause(error: BaseException) -> str:
    """What Ray knows of a death, in one line and without addresses."""
    text = str(error)
    if "memory" in text.lower() and "killed" in text.lower():
        return " (out of memory)"
    return ""
