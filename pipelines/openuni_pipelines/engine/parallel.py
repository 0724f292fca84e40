"""One way to run things side by side: a `map` in this process, or over Ray tasks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from openuni.errors import OpenUniError
from openuni_pipelines.engine import stopping
from openuni_pipelines.engine.executors import connect

A = TypeVar("A")
B = TypeVar("B")
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""As the built-in `map`: results come in the order of the items."""
_AHEAD = 4
"""Items under way or waiting to be handed out, by worker: so that one slow item does not stop the others at once."""
_DEATHS = 2
"""Times that an item is tried again whose worker died."""
_POLL_SECONDS = 0.5


@contextmanager
def mapping(workers: int | None, ray_address: str | None = None) -> Iterator[Map]:
    """A map over `workers` processes (None: one a core; 0: none but this) here, or on the cluster at `ray_address`.

    What the function raises comes out of the map as it is. An item whose worker dies is tried again, twice; then an
    OpenUniError says so. Functions and items are pickled: they carry paths, never frames.

    Example:
        >>> with mapping(0) as run:
        ...     list(run(abs, [-1, 2]))
        [1, 2]
    """
    if workers == 0:
        yield _here
        return
    started: list[bool] = []

    def on_ray(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        import ray

        # Not before there is work: a set that is complete needs no cluster.
        for first in items:
            if not ray.is_initialized():
                connect(ray_address)
                started.append(True)
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


def _on_ray(ray: Any, function: Callable[[A], B], items: Iterator[A], workers: int | None) -> Iterator[B]:
    """Hand out items while fewer than `workers` run, and give the results back in order."""
    room = workers or max(1, int(ray.cluster_resources().get("CPU", os.cpu_count() or 1)))
    task = ray.remote(num_cpus=1, max_retries=_DEATHS)(_apply)
    shared = ray.put(function)
    waiting: deque[Any] = deque()
    running: list[Any] = []
    more = True
    try:
        while more or waiting:
            stopping.check()
            while more and len(running) < room and len(waiting) < _AHEAD * room:
                try:
                    running.append(task.remote(shared, next(items)))
                    waiting.append(running[-1])
                except StopIteration:
                    more = False
            if running:
                _, running = ray.wait(running, num_returns=1, timeout=_POLL_SECONDS)
            while waiting and waiting[0] not in running:
                yield _result(ray, waiting.popleft())
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _apply(function: Callable[[A], B], item: A) -> B:
    return function(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise OpenUniError(
            f"a worker process died {_DEATHS + 1} times over one task ({type(error).__name__}); run the same command "
            "again with fewer --workers, or with --workers 0 to see what happens"
        ) from error
