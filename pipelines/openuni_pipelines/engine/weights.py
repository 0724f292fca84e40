"""Weights out: a model folder that loads anywhere, or the Wan in it for diffusers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openuni.errors import PlanError
from openuni.storage import new_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWeightsConfig:
    """Which weights to write out, and how."""

    checkpoint: Path | None = field(default=None, metadata={"exists": True})
    """Run, checkpoint or model folder; of a run the newest checkpoint's averaged weights."""
    unityvideo: Path | None = field(default=None, metadata={"exists": True})
    """Instead of --checkpoint: the public UnityVideo weights, a .safetensors file or the folder it is in."""
    out: Path
    """Folder to write; it must be new or empty."""
    layout: Literal["openuni", "diffusers"] = "openuni"
    """openuni: the whole model. diffusers: its RGB alone, as the transformer of a Wan pipeline."""
    dtype: Literal["same", "float32", "bfloat16"] = "same"
    """Data type of the weights."""

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.unityvideo is None):
            raise PlanError("give either --checkpoint, a model of ours, or --unityvideo, the public weights")


def export_weights(config: ExportWeightsConfig) -> Path:
    """Write safetensors, configuration and model card (or diffusers' `transformer/`); returns the folder.

    All of it appears at once. Raises PlanError where OUT holds something, OpenUniError where there is no such model.
    """
    import torch

    from openuni_model.checkpoint import load_trained
    from openuni_model.unityvideo import open_unityvideo
    from openuni_model.weights import model_card, save_model, save_wan

    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise PlanError(f"{config.out} is not empty; choose another --out")
    where = config.checkpoint or config.unityvideo
    assert where is not None
    model = load_trained(where) if config.unityvideo is None else open_unityvideo(where)
    if config.dtype != "same":
        model = model.to(getattr(torch, config.dtype))
    with new_folder(config.out, "weights") as folder:
        if config.layout == "diffusers":
            save_wan(folder, model)
        else:
            origin = "The public UnityVideo weights." if config.unityvideo else f"Exported from {where.name}."
            save_model(folder, model.config, model.state_dict(), model_card(model.config, origin))
    return config.out
