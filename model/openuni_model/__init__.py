"""The unified diffusion transformer: train it, and generate with it.

    import openuni_model
    from openuni_model import TrainConfig

    model = openuni_model.train(TrainConfig(stage="1", preset="nano", data="data/toys", steps=100))

Example:
    >>> import openuni_model
    >>> openuni_model.TrainConfig(preset="nano").preset
    'nano'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openuni_model.generation import ClipRequest, Sampler, generate
    from openuni_model.training import TrainConfig, train

__all__ = ["ClipRequest", "Sampler", "TrainConfig", "generate", "train"]

_HOMES = {
    "ClipRequest": "generation",
    "Sampler": "generation",
    "TrainConfig": "training",
    "generate": "generation",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    # torch is loaded when something of it is asked for, not by `import openuni_model`.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
