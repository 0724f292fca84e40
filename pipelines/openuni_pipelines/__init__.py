"""The commands, and the Ray graphs behind them. `build` makes a dataset without either a command or a console.

Example:
    >>> import openuni_pipelines
    >>> config = openuni_pipelines.BuildConfig(source="folder", videos="videos", experts=("dis",))
    >>> openuni_pipelines.build(config, progress=print)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openuni_pipelines.engine.build import BuildConfig, Summary, build
    from openuni_pipelines.engine.run import Execution

__all__ = ["BuildConfig", "Execution", "Summary", "build"]


def __getattr__(name: str) -> Any:
    """The names above, imported on first use: `openuni --help` needs none of what they need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from openuni_pipelines.engine import build, run

    return getattr(run if name == "Execution" else build, name)
