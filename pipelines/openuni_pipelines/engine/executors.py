"""Where tasks run: in this process, or in pools of Ray actors. Both hand back what finished and what went wrong."""

from __future__ import annotations

import os
import resource
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from openuni import experts
from openuni.errors import OpenUniError
from openuni.experts import Expert, Resources
from openuni.shards.bucket import BeatenError
from openuni.shards.results import DamagedResultError
from openuni.storage import DISK_ERRORS, disk_sentence
from openuni_pipelines.engine.cluster import connect as connect
from openuni_pipelines.engine.cluster import is_connected
from openuni_pipelines.engine.recipe import Kind
from openuni_pipelines.engine.stages import Expand, Job, Outcome, SetupError, Task, Worker

_POLL_SECONDS = 0.5
MOST_HANDS = 16
"""Clips in the hands of one GPU worker: six threads encode flow as fast as a card makes it that takes 7.5 ms a frame
(49 ms), one or two decode, and more would only wait and fill the memory."""
MAX_FAILED_STARTS = 10
"""Workers in a row that died before their first task, after which something is wrong with all of them."""
START_SECONDS = 300.0
EXPAND_PATIENCE = 8
"""Finding the shots of a video may decode hours of it: it may take so many times longer than a clip."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a task did not finish.

    `raised`, `died` (its process, which ran nothing else) and `hung` (it was killed at the time limit) count against
    the clip. `lost` is a worker that went down with its node, or with several clips in its hands: no clip's fault as
    far as one can tell, tried again, of several each alone. So is `damaged`: a result that the task needs, of clip
    `key` by the stage with `fingerprint`, is not as it was written. `beaten` is a commit that another run has made
    first, in a bucket: the shard is begun anew from what counts there. `machine` is a full
    disk or an expert that cannot be set up: it would hit every clip, so the run ends.
    """

    kind: Literal["raised", "died", "hung", "lost", "damaged", "beaten", "machine"]
    error: str
    key: str = ""
    fingerprint: str = ""


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
    except SetupError as error:
        return Fault("machine", str(error))
    except DamagedResultError as error:
        return Fault("damaged", str(error), error.key, error.fingerprint)
    except BeatenError as error:
        return Fault("beaten", str(error))
    except OSError as error:
        if error.errno in DISK_ERRORS:
            return Fault("machine", disk_sentence(worker.job.root, error))
        return Fault("raised", _brief(error))
    except Exception as error:  # noqa: BLE001  an expert may raise anything; the run goes on without this clip
        return Fault("raised", _brief(error))


def _brief(error: Exception) -> str:
    """Type, message and the innermost line: enough to find the place, the same on every machine."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"[:2000]


@dataclass(frozen=True, slots=True)
class _Held:
    """A task in an actor's hands, since when."""

    task: Task
    since: float


@dataclass(eq=False)
class _Slot:
    """One actor and the tasks in its hands, by Ray's reference. `since` is when the actor was asked for."""

    actor: Any
    since: float
    starting: Any
    """Ray's reference of the sign of life that it owes; None once it has come."""
    held: dict[Any, _Held] = field(default_factory=dict)
    listed: bool = False
    """Whether it stands in its pool's list of those with a free hand."""


@dataclass
class _Pool:
    """Actors for tasks of like needs, each with `hands` tasks at most. Work waits here, never in an actor's own queue.

    A CPU actor has one hand, so that its death accuses one clip. A GPU actor has several: while the card works on one
    clip, others are decoded and encoded. When it dies, each of its clips is tried again `alone`, with both hands.
    """

    needs: Resources
    size: int
    share: float
    """CPUs that Ray counts for one actor: below one where pools outnumber cores."""
    hands: int = 1
    slots: list[_Slot] = field(default_factory=list)
    free: deque[_Slot] = field(default_factory=deque)
    """Actors with a free hand, each once, the one that was handed something last at the end."""
    queue: deque[Task] = field(default_factory=deque)
    alone: deque[Task] = field(default_factory=deque)


class RayPools(Executor):
    """Pools of actors. CPU tasks of as many threads share one, whose workers load each expert on first use.

    With a pool an expert, cores would idle whenever the experts' speeds differ. A GPU expert has a pool of its own:
    two in one process would take twice the share of the card that each has declared.
    """

    def __init__(
        self,
        job: Job,
        *,
        workers: int | None,
        address: str | None,
        time_limit: float,
        worker_memory_gib: float | None,
    ) -> None:
        """Workers for the experts of the job's recipe and for what is done around them.

        `workers` bounds all actors together (default: what the cluster holds); `time_limit`: seconds for one task.

        `worker_memory_gib` is what one CPU worker may allocate (default: an equal share of what Ray counts, at least
        what its experts declare); beyond it, allocations fail in that worker and the machine is spared.

        Raises OpenUniError where an expert needs a GPU and Ray runs on this machine alone, which has none. A cluster
        may bring one later, so there they are waited for.
        """
        self._limit = time_limit
        self._owns_ray = not is_connected()
        if self._owns_ray:
            connect(address)
        import ray

        self._ray = ray
        self._job_ref = ray.put(job)
        self._actor_class = ray.remote(max_restarts=0, max_task_retries=0)(_Actor)
        capacity = _capacity(ray)
        on_card = [expert.name for expert in job.recipe.experts if expert.resources.gpus]
        if on_card and not capacity.gpus and self._owns_ray and address is None:
            ray.shutdown()
            raise OpenUniError(
                f"{', '.join(on_card)}: a GPU is needed, and Ray finds none on this machine; build where there is one "
                "(--ray-address joins a cluster), choose others (--experts light), or run them on the CPU, one clip "
                "after another, with --workers 0"
            )
        self._pools = _sized(_pooled(job.recipe.experts), capacity, workers)
        self.slots = sum(pool.size * pool.hands for pool in self._pools.values())
        self.running = 0
        self._memory_gib = worker_memory_gib or capacity.memory_gib / sum(pool.size for pool in self._pools.values())
        self._failed_starts = 0
        self._awaited: dict[Any, tuple[_Pool, _Slot]] = {}
        """Whose answer each of Ray's references is."""
        self._suspects: set[tuple[int, str, str]] = set()
        """Tasks that were in the hands of an actor that died, until they end well: each runs alone."""
        self._inspected = time.monotonic()
        for pool in self._pools.values():
            pool.slots = [self._start(pool) for _ in range(pool.size)]

    def close(self) -> None:
        for pool in self._pools.values():
            for slot in pool.slots:
                self._ray.kill(slot.actor)
        if self._owns_ray:
            self._ray.shutdown()

    def submit(self, task: Task) -> None:
        self.running += 1
        pool = self._pools[_pool_of(task)]
        (pool.alone if _name(task) in self._suspects else pool.queue).append(task)
        self._feed(pool)

    def wait(self) -> list[Finished]:
        if not self._awaited:
            return []
        done, _ = self._ray.wait(list(self._awaited), num_returns=1, timeout=_POLL_SECONDS)
        if done:
            done, _ = self._ray.wait(list(self._awaited), num_returns=len(self._awaited), timeout=0)
        # One that died takes the references of all that it held with it.
        finished = [end for ref in done if ref in self._awaited for end in self._collect(ref)]
        if time.monotonic() - self._inspected > _POLL_SECONDS:
            self._inspected = time.monotonic()
            for pool in self._pools.values():
                finished += [end for slot in tuple(pool.slots) for end in self._overdue(pool, slot)]
                self._check_alive(pool)
        for pool in self._pools.values():
            self._feed(pool)
        self.running -= len(finished)
        return finished

    def _collect(self, ref: Any) -> list[Finished]:
        pool, slot = self._awaited[ref]
        try:
            result = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            if ref is slot.starting:
                self._failed_starts += 1
                if self._failed_starts > MAX_FAILED_STARTS:
                    raise OpenUniError(f"workers die as they start ({_brief(error)}); see Ray's logs") from error
            return self._bury(pool, slot, _death(error))
        del self._awaited[ref]
        self._failed_starts = 0
        if ref is slot.starting:
            slot.starting = None
            self._list_free(pool, slot)
            return []
        task = slot.held.pop(ref).task
        self._list_free(pool, slot)
        if isinstance(result, Outcome):
            self._suspects.discard(_name(task))
        return [Finished(task, result)]

    def _bury(self, pool: _Pool, slot: _Slot, fault: Fault) -> list[Finished]:
        """Replace an actor that is gone; what it had finished counts.

        Nobody knows which of several clips in its hands has killed it: each is tried again alone.
        """
        pool.slots[pool.slots.index(slot)] = self._start(pool)
        if slot.listed:
            pool.free.remove(slot)
        for ref in (slot.starting, *slot.held):
            self._awaited.pop(ref, None)
        ended: list[Finished] = []
        tasks: list[Task] = []
        for ref, held in slot.held.items():
            try:
                ended.append(Finished(held.task, self._ray.get(ref, timeout=0)))
            except self._ray.exceptions.RayError:
                tasks.append(held.task)
        if len(tasks) > 1 and fault.kind != "lost":
            self._suspects.update(map(_name, tasks))
            fault = Fault("lost", f"{fault.error} with {len(tasks)} clips in its hands; each is tried again alone")
        return ended + [Finished(task, fault) for task in tasks]

    def _overdue(self, pool: _Pool, slot: _Slot) -> list[Finished]:
        """What comes of killing an actor of which a task takes too long; with full hands each may take so much more."""
        if not slot.held:
            return []
        oldest = next(iter(slot.held.values()))
        patience = EXPAND_PATIENCE if isinstance(oldest.task, Expand) else len(slot.held)
        if time.monotonic() - oldest.since < self._limit * patience:
            return []
        self._ray.kill(slot.actor)
        return self._bury(pool, slot, Fault("hung", f"did not finish within {self._limit * patience:g} s"))

    def _feed(self, pool: _Pool) -> None:
        """Hand out what waits, in its order, to the actors in turn. Who runs alone has an actor to itself."""
        while pool.free and (pool.alone or pool.queue):
            slot = pool.free.popleft()
            slot.listed = False
            if pool.alone:
                if slot.held:
                    continue  # until it has put down what it holds, which lists it again
                self._hand(pool, slot, pool.alone.popleft())
            else:
                self._hand(pool, slot, pool.queue.popleft())
                self._list_free(pool, slot)

    def _hand(self, pool: _Pool, slot: _Slot, task: Task) -> None:
        ref = slot.actor.run.remote(task)
        slot.held[ref] = _Held(task, time.monotonic())
        self._awaited[ref] = pool, slot

    def _list_free(self, pool: _Pool, slot: _Slot) -> None:
        if not slot.listed and len(slot.held) < pool.hands and not self._is_alone(slot):
            slot.listed = True
            pool.free.append(slot)

    def _is_alone(self, slot: _Slot) -> bool:
        return any(_name(held.task) in self._suspects for held in slot.held.values())

    def _check_alive(self, pool: _Pool) -> None:
        """A pool with work and without a worker waits for Ray to find room for one, but not for ever."""
        if (pool.queue or pool.alone) and all(slot.starting is not None for slot in pool.slots):
            waited = time.monotonic() - min(slot.since for slot in pool.slots)
            if waited > START_SECONDS:
                raise OpenUniError(
                    f"no worker with {pool.needs} could be started within {START_SECONDS:g} s; the cluster has "
                    f"{self._ray.available_resources()} free. Free some, or use another --ray-address"
                )

    def _start(self, pool: _Pool) -> _Slot:
        options = {"num_cpus": pool.share, "num_gpus": pool.needs.gpus, "max_concurrency": pool.hands}
        # CUDA maps more address space than there is memory, so a GPU worker is left to Ray's memory monitor.
        memory = None if pool.needs.gpus else max(self._memory_gib, pool.needs.memory_gib)
        actor = self._actor_class.options(**options).remote(self._job_ref, pool.needs.cpus, memory)
        slot = _Slot(actor, time.monotonic(), actor.ready.remote())
        self._awaited[slot.starting] = pool, slot
        return slot


class _Actor:
    """The process that a pool's tasks run in, each in a thread."""

    def __init__(self, job: Job, threads: int, memory_gib: float | None) -> None:
        # Read by OpenMP and OpenBLAS when the first library loads them, which is after this.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if memory_gib is not None:
            _limit_memory(memory_gib)
        self._worker = Worker(job)

    def ready(self) -> None:
        """Answers as soon as the process lives."""

    def run(self, task: Task) -> Outcome | Fault:
        return _guarded(self._worker, task)


def _limit_memory(gib: float) -> None:
    """Let this process allocate `gib` more than it has now. An expert without bounds gets MemoryError, or aborts.

    RLIMIT_DATA counts writable private memory only; mapped weights and reserved address space are free.
    """
    status = Path("/proc/self/status")
    if status.exists():
        now = next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmData"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (now + int(gib * 2**30), hard))


@dataclass(frozen=True, slots=True)
class _Capacity:
    """What Ray counts over all nodes, and the cores of the largest, which bound one actor."""

    cpus: float
    gpus: float
    memory_gib: float
    node_cpus: float


def _capacity(ray: Any) -> _Capacity:
    total = ray.cluster_resources()
    node_cpus = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    memory_gib = total.get("memory", 4 << 30) / 2**30
    return _Capacity(total.get("CPU", 1.0), total.get("GPU", 0.0), memory_gib, node_cpus)


def _name(task: Task) -> tuple[int, str, str]:
    """What tells a task from all others; a row of a source, of which no actor holds two, has none."""
    return (-1, "", "") if isinstance(task, Expand) else (task.shard, task.key, task.stage.name)


def _pool_name(expert: type[Expert] | None) -> str:
    """Which pool an expert works in; None: cutting, encoding and packing."""
    needs = Resources() if expert is None else expert.resources
    return expert.name if expert is not None and needs.gpus else f"{needs.cpus} threads"


def _pool_of(task: Task) -> str:
    if isinstance(task, Expand) or task.stage.kind is not Kind.ANNOTATE:
        return _pool_name(None)
    return _pool_name(experts.get(task.stage.name))


def _pooled(made: Iterable[type[Expert]]) -> dict[str, Resources]:
    """What one worker of each pool needs: the memory of all experts that it may load."""
    needs = {_pool_name(None): Resources()}
    for expert in made:
        name, own = _pool_name(expert), expert.resources
        before = needs[name].memory_gib if name in needs else 0.0
        needs[name] = replace(own, memory_gib=before + own.memory_gib)
    return needs


def _sized(needs: Mapping[str, Resources], capacity: _Capacity, workers: int | None) -> dict[str, _Pool]:
    """How many actors each pool gets. GPU pools are sized by GPUs; CPU pools share the cores that are left equally.

    GPU actors have as many hands as there are cores for each, which decode ahead of the card and encode behind it, as
    far as the memory goes: each clip in hand is counted with all that its expert declares.

    Every pool gets at least one actor, with a fraction of a core where the pools outnumber the cores.
    """
    pools: dict[str, _Pool] = {}
    cpus = capacity.cpus
    on_gpu = {name: need for name, need in needs.items() if need.gpus}
    on_cpu = {name: need for name, need in needs.items() if not need.gpus}
    for name, need in on_gpu.items():
        size = max(1, int(capacity.gpus / len(on_gpu) / need.gpus))
        pools[name] = _Pool(need, size, share=0.0)
        cpus -= size * need.cpus
    cards = sum(pools[name].size for name in on_gpu)
    for name, need in on_gpu.items():
        by_memory = int(capacity.memory_gib / cards / need.memory_gib)
        pools[name].hands = min(MOST_HANDS, max(2, min(int(capacity.cpus / cards), by_memory)))
    for name, need in on_cpu.items():
        room = max(cpus, 1.0) / len(on_cpu)
        by_memory = int(capacity.memory_gib / len(on_cpu) / need.memory_gib)
        size = max(1, min(int(room / need.cpus), by_memory))
        pools[name] = _Pool(need, size, share=min(float(need.cpus), room, capacity.node_cpus))
    if workers is not None:
        total = sum(pool.size for pool in pools.values())
        for pool in pools.values():
            pool.size = max(1, min(pool.size, round(pool.size * workers / total)))
    return pools


def _death(error: Exception) -> Fault:
    """What Ray knows of a worker's end: with its node, or alone."""
    text = str(error)
    if "node has died" in text or "node died" in text.lower() or "unavailable" in text:
        return Fault("lost", "the worker went down with its node")
    # Ray's text of any death names the kernel's memory killer among what it may have been.
    out_of_memory = "low on memory" in text
    return Fault("died", "the worker process died" + (" (out of memory)" if out_of_memory else ""))
