"""One way to run things side by side: a `map` in this process, or over Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from openuni.errors import OpenUniError
from openuni_pipelines.engine import stopping
from openuni_pipelines.engine.cluster import connect, is_connected

A = TypeVar("A")
B = TypeVar("B")
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""As the built-in `map`: results come in the order of the items."""
_AHEAD = 4
"""Items under way or waiting to be handed out, by worker: so that one slow item does not stop the others at once."""
_DEATHS = 2
"""Times that an item is tried again whose worker died."""
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Parallel:
    """Where the work is done. None of it changes what is made."""

    workers: int | None = field(default=None, metadata={"min": 0, "shown": "one a core"})
    """Worker processes; 0: work in this process."""
    ray_address: str | None = None
    """Address of a Ray cluster ('auto' finds one); without it, Ray is started on this machine."""


HERE = Parallel(workers=0)
"""In this process."""


@contextmanager
def mapping(workers: int | None, ray_address: str | None = None) -> Iterator[Map]:
    """A map over `workers` processes (None: one a core; 0: none but this) here, or on the cluster at `ray_address`.

    Whoever names a cluster means it: with an address, 0 is one a core too.

    What the function raises comes out of the map as it is. An item whose worker dies is tried again, twice; then an
    OpenUniError says so. Functions and items are pickled: they carry paths, never frames.

    Example:
        >>> with mapping(0) as run:
        ...     list(run(abs, [-1, 2]))
        [1, 2]
    """
    if workers == 0 and ray_address is None:
        yield _here
        return
    started: list[bool] = []

    def on_ray(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        # Not before there is work: a set that is complete needs no cluster.
        for first in items:
            if not is_connected():
                connect(ray_address)
                started.append(True)
            import ray

            yield from _on_ray(ray, function, _chain(first, items), workers)
            return

    try:
        yield lambda function, items: on_ray(function, iter(items))
    finally:
        if started:
            import ray

            ray.shutdown()


def _here(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    for item in items:
        stopping.check()
        yield function(item)


def _chain(first: A, rest: Iterable[A]) -> Iterator[A]:
    yield first
    yield from rest


@dataclass(slots=True)
class _Task:
    """An item on its way: which it is, whose hands it is in, how many workers have died over it."""

    number: int
    item: Any
    deaths: int = 0
    worker: Any = None


class _Worker:
    """The process that items are handed to, one after another; the function is sent to it once."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def run(self, item: Any) -> Any:
        return self._function(item)


def _on_ray(ray: Any, function: Callable[[A], B], items: Iterator[A], workers: int | None) -> Iterator[B]:
    """Hand out items while fewer than `workers` run, and give the results back in order."""
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    room = min(workers or cpus, cpus)
    start = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker).remote
    shared = ray.put(function)
    upcoming = (_Task(number, item) for number, item in enumerate(items))
    again: list[_Task] = []
    idle: list[Any] = []
    running: dict[Any, _Task] = {}
    done: dict[int, tuple[Any, BaseException | None]] = {}
    following = 0
    try:
        while True:
            stopping.check()
            while len(running) < room and len(running) + len(done) < _AHEAD * room:
                task = again.pop() if again else next(upcoming, None)
                if task is None:
                    break
                task.worker = idle.pop() if idle else start(shared)
                running[task.worker.run.remote(task.item)] = task
            if not running and not done:
                return
            for reference in ray.wait(list(running), num_returns=1, timeout=_POLL_SECONDS)[0] if running else ():
                task = running.pop(reference)
                try:
                    done[task.number] = ray.get(reference), None
                    idle.append(task.worker)
                except ray.exceptions.RayTaskError as error:
                    done[task.number] = None, error.cause
                    idle.append(task.worker)
                except ray.exceptions.RayError as error:
                    task.deaths += 1
                    if task.deaths <= _DEATHS:
                        again.append(task)
                    else:
                        done[task.number] = None, _death(error)
            while following in done:
                value, failure = done.pop(following)
                following += 1
                if failure is not None:
                    raise failure
                yield value
    finally:
        for worker in (*idle, *(task.worker for task in running.values())):
            ray.kill(worker)


def _death(error: Exception) -> OpenUniError:
    return OpenUniError(
        f"a worker process died {_DEATHS + 1} times over one task ({type(error).__name__}); run the same command again "
        "with fewer --workers, or with --workers 0 to see what happens"
    )
