"""The commands, and the graphs behind them, without a console: `build` makes a dataset and `generate` predictions,
`select` and `dedup` choose among its clips, `remove` takes some out for good.

Example:
    >>> import openuni_pipelines
    >>> config = openuni_pipelines.BuildConfig(source="folder", videos="videos", experts=("dis",))
    >>> openuni_pipelines.build(config, progress=print)  # doctest: +SKIP
    >>> wanted = openuni_pipelines.GenerateConfig(
    ...     checkpoint="runs/stage-2", task="est", modality=("depth",), bench="data/bench", out="runs/x"
    ... )
    >>> openuni_pipelines.generate(wanted, progress=print)  # doctest: +SKIP
    >>> import openuni
    >>> made = openuni_pipelines.select(openuni.open("data/demo"), ["split = 'train'"])
    >>> len(made.view.keys)
    3
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openuni_pipelines.engine.build import BuildConfig, Summary, build
    from openuni_pipelines.engine.duplicates import DedupConfig, Deduplication, dedup
    from openuni_pipelines.engine.generating import GenerateConfig, generate
    from openuni_pipelines.engine.removing import Removal, RemoveConfig, remove
    from openuni_pipelines.engine.run import Execution
    from openuni_pipelines.engine.selecting import SelectConfig, Selection, select

__all__ = [
    "BuildConfig",
    "DedupConfig",
    "Deduplication",
    "Execution",
    "GenerateConfig",
    "Removal",
    "RemoveConfig",
    "SelectConfig",
    "Selection",
    "Summary",
    "build",
    "dedup",
    "generate",
    "remove",
    "select",
]

_HOMES = {
    "BuildConfig": "build",
    "DedupConfig": "duplicates",
    "Deduplication": "duplicates",
    "Execution": "run",
    "GenerateConfig": "generating",
    "Removal": "removing",
    "RemoveConfig": "removing",
    "SelectConfig": "selecting",
    "Selection": "selecting",
    "Summary": "build",
    "build": "build",
    "dedup": "duplicates",
    "generate": "generating",
    "remove": "removing",
    "select": "selecting",
}


def __getattr__(name: str) -> Any:
    """The names above, imported on first use: `openuni --help` needs none of what they need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.engine.{_HOMES[name]}"), name)
