"""The commands, and the graphs behind them: `build` makes a dataset and `generate` predictions, without a console.

Example:
    >>> import openuni_pipelines
    >>> config = openuni_pipelines.BuildConfig(source="folder", videos="videos", experts=("dis",))
    >>> openuni_pipelines.build(config, progress=print)  # doctest: +SKIP
    >>> wanted = openuni_pipelines.GenerateConfig(
    ...     checkpoint="runs/stage-2", task="est", modality=("depth",), bench="data/bench", out="runs/x"
    ... )
    >>> openuni_pipelines.generate(wanted, progress=print)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openuni_pipelines.engine.build import BuildConfig, Summary, build
    from openuni_pipelines.engine.generating import GenerateConfig, generate
    from openuni_pipelines.engine.run import Execution

__all__ = ["BuildConfig", "Execution", "GenerateConfig", "Summary", "build", "generate"]

_HOMES = {
    "BuildConfig": "build",
    "Execution": "run",
    "GenerateConfig": "generating",
    "Summary": "build",
    "build": "build",
    "generate": "generating",
}


def __getattr__(name: str) -> Any:
    """The names above, imported on first use: `openuni --help` needs none of what they need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.engine.{_HOMES[name]}"), name)
