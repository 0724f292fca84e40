"""Scored tasks, one file each; `get(name)` finds one, built in or registered in `unibench.tasks` by a distribution."""

from __future__ import annotations

from functools import cache
from typing import Any

from openuni import registry
from unibench.tasks.base import Estimated, Info, Rates, Run, Setup, Stored, Task, Variants

GROUP = "unibench.tasks"


def names() -> list[str]:
    """Every task that can be scored, built-in ones first.

    Example:
        >>> names()[:3]
        ['depth', 'flow', 'segmentation']
    """
    return registry.names(GROUP)


def get(name: str) -> Task:
    """The task of that name. Raises OpenUniError listing the known ones."""
    return _made(registry.load(GROUP, name))


def stored() -> list[Stored[Any]]:
    """Tasks whose values a run may hold."""
    return [task for task in map(get, names()) if isinstance(task, Stored)]


def get_stored(name: str) -> Stored[Any]:
    """A task whose values a run may hold. Raises OpenUniError where `name` is none."""
    task = get(name)
    if not isinstance(task, Stored):
        raise TypeError(f"{name} has no values of its own")
    return task


def estimated() -> list[str]:
    """Names of the tasks that compare a prediction with truth of its own modality."""
    return [task.name for task in stored() if isinstance(task, Estimated)]


def get_estimated(name: str) -> Estimated[Any]:
    """A task that compares a prediction with truth of its own modality."""
    task = get(name)
    if not isinstance(task, Estimated):
        raise TypeError(f"{name} is not estimated")
    return task


@cache
def _made(kind: type[Task]) -> Task:
    return kind()


__all__ = ["Estimated", "Info", "Rates", "Run", "Setup", "Stored", "Task", "Variants", "estimated", "get",
           "get_estimated", "get_stored", "names", "stored"]  # fmt: skip
