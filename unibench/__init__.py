"""UniBench: exact ground truth, and scores of any model on it.

    import unibench

    report = unibench.score("runs/x", "data/bench", tasks=["depth"])
    unibench.compare("runs/x", "runs/y")

Example:
    >>> import unibench
    >>> unibench.ScoreConfig(limit=3).limit
    3
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibench.report.report import Comparison, Report
    from unibench.report.report import compare_runs as compare
    from unibench.scoring.config import ScoreConfig
    from unibench.scoring.score import score

__all__ = ["Comparison", "Report", "ScoreConfig", "compare", "score"]

_HOMES = {
    "Comparison": ("report.report", "Comparison"),
    "Report": ("report.report", "Report"),
    "ScoreConfig": ("scoring.config", "ScoreConfig"),
    "compare": ("report.report", "compare_runs"),
    "score": ("scoring.score", "score"),
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: reading a camera must not load every metric.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)
