"""Checkpoints: whole or absent, verified when read, nothing pickled.

`checkpoints/00001000/` holds a model folder (`model.safetensors`, `config.json`, `README.md`), `ema.safetensors`,
`optimizer.safetensors` and, written last, `state.json` with the SHA-256 of the others. The folder is written under
a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openuni.errors import OpenUniError
from openuni.shards import layout
from openuni_model.config import ModelConfig
from openuni_model.data import Cursor
from openuni_model.dit import UnifiedDiT
from openuni_model.weights import load_model, model_card, save_model

_STATE = "state.json"


class CheckpointError(OpenUniError):
    """A checkpoint that is damaged, missing, or of another run."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What of a run is not a tensor. `fingerprint` names what may not change when it is resumed."""

    step: int
    cursor: Cursor
    skipped_in_a_row: int
    stage: str
    fingerprint: Mapping[str, Any]
    sha256: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint in memory; the tensors are keyed by parameter name, `exp_avg.…` and `exp_avg_sq.…` for AdamW."""

    progress: Progress
    config: ModelConfig
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def save(folder: Path, saved: Saved, keep: int) -> Path:
    """Write `folder/<step>` and remove all but the `keep` newest; returns the new checkpoint."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{saved.progress.step:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    card = model_card(saved.config, f"Trained to step {saved.progress.step} of stage {saved.progress.stage}.")
    save_model(temporary, saved.config, saved.model, card)
    save_file(_plain(saved.ema), temporary / "ema.safetensors")
    save_file(_plain(saved.optimizer), temporary / "optimizer.safetensors")
    hashes = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
    progress = replace(saved.progress, sha256=hashes)
    with (temporary / _STATE).open("w", encoding="utf-8") as file:
        json.dump(asdict(progress), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    layout.sync_folder(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first; temporary ones do not count."""
    return sorted(path for path in folder.glob("[0-9]" * 8) if path.is_dir())


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose hashes hold, and one sentence on each newer one that was passed over."""
    damaged = []
    for path in reversed(checkpoints(folder)):
        try:
            read_progress(path)
        except CheckpointError as error:
            damaged.append(f"{error}; taking the checkpoint before it")
        else:
            return path, damaged
    return None, damaged


def read_progress(path: Path) -> Progress:
    """The state of a checkpoint after checking every hash. Raises CheckpointError naming the damaged file."""
    try:
        values = json.loads((path / _STATE).read_text(encoding="utf-8"))
        position, waiting = values["cursor"]["position"], tuple(values["cursor"]["waiting"])
        progress = Progress(**{**values, "cursor": Cursor(position, waiting)})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a finished checkpoint ({type(error).__name__}: {error})") from error
    for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "config.json"):
        file = path / name
        if not file.is_file() or _sha256(file) != progress.sha256.get(name):
            raise CheckpointError(f"{file} is missing or damaged")
    return progress


def load(path: Path) -> Saved:
    """Everything of a checkpoint, on the CPU. Raises CheckpointError."""
    from safetensors.torch import load_file

    progress = read_progress(path)
    return Saved(
        progress=progress,
        config=ModelConfig.from_mapping(json.loads((path / "config.json").read_text(encoding="utf-8"))),
        model=load_file(path / "model.safetensors"),
        ema=load_file(path / "ema.safetensors"),
        optimizer=load_file(path / "optimizer.safetensors"),
    )


def load_trained(where: Path, *, modalities: tuple[str, ...] | None = None, ema: bool = True) -> UnifiedDiT:
    """The model to use of a run's folder, a checkpoint or a model folder: of a checkpoint its EMA weights.

    Raises CheckpointError or ModelConfigError where there is none.
    """
    if (where / "checkpoints").is_dir():
        path, damaged = newest(where / "checkpoints")
        if path is None:
            raise CheckpointError(damaged[0] if damaged else f"{where} has no finished checkpoint yet")
        where = path
    model = load_model(where, modalities=modalities)
    if ema and (where / _STATE).is_file():
        saved = load(where)
        if saved.config == model.config:
            model.load_state_dict(saved.ema)
    return model


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """One hash over names, shapes and bytes: equal exactly where all tensors are bit for bit the same."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
