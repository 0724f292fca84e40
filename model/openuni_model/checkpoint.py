"""Checkpoints: whole or absent, verified when read, nothing pickled.

`checkpoints/00001000/` holds `weights/`, `ema/` and `optimizer/`, each written by torch.distributed.checkpoint as
safetensors, one file a rank (so any number of ranks reads what any number wrote), `config.json`, and, written last,
`state.json` with the SHA-256 of the others. The folder is written under a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from openuni.errors import CorruptDataError, OpenUniError
from openuni.storage import DOCUMENT, LocalStore, naming, sync_folder, sync_tree
from openuni_model.config import ModelConfig
from openuni_model.data import Cursor
from openuni_model.dit import UnifiedDiT
from openuni_model.lora import merge
from openuni_model.parallel import World
from openuni_model.weights import load_model, model_of

PARTS = ("weights", "ema", "optimizer")
STATE = "state.json"
BASE = "base"
"""Folder of a run with adapters: the model that it started from, which its checkpoints do not hold again."""


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


Parts = Mapping[str, Mapping[str, Tensor]]
"""The tensors of a checkpoint by part and name, whole or sharded over ranks."""


def save(
    folder: Path, progress: Progress, config: ModelConfig, parts: Parts, *, keep: int, world: World
) -> Path | None:
    """Write `folder/<step>` and remove all but the `keep` newest. All ranks take part; rank 0 gets the path."""
    final = folder / f"{progress.step:08d}"
    temporary = folder / f".{final.name}.train.00.tmp"  # one name for all ranks; the lock's next holder sweeps it
    try:
        if world.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        world.wait()
        with naming(final):
            _write_parts(temporary, parts, world)
            world.wait()
            if world.rank == 0:
                _finish(temporary, progress, config)
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
                sync_folder(folder)
    except BaseException:
        if world.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if world.rank == 0:
        for old in checkpoints(folder)[:-keep]:  # never half a checkpoint under its name
            shutil.rmtree(old.rename(old.with_name(f".{old.name}.old.00.tmp")))
    world.wait()
    return final if world.rank == 0 else None


def _write_parts(temporary: Path, parts: Parts, world: World) -> None:
    for part in PARTS:
        writer = HuggingFaceStorageWriter(str(temporary / part), save_distributed=True)
        with _plain_errors():
            dcp_save(dict(parts[part]), storage_writer=writer, no_dist=world.size == 1)


def _finish(temporary: Path, progress: Progress, config: ModelConfig) -> None:
    """Add the configuration and, last, the state with everything's hash; all of it durable."""
    (temporary / "config.json").write_text(config.to_json(), encoding="utf-8")
    progress = replace(progress, sha256={name: _sha256(temporary / name) for name in _files(temporary)})
    (temporary / STATE).write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
    sync_tree(temporary)


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
        values = json.loads(LocalStore(path).read(STATE, at_most=DOCUMENT))
        position, waiting = values["cursor"]["position"], tuple(values["cursor"]["waiting"])
        progress = Progress(**{**values, "cursor": Cursor(position, waiting)})
    except (OSError, CorruptDataError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a finished checkpoint ({type(error).__name__}: {error})") from error
    if set(_files(path)) != {*progress.sha256}:
        missing = sorted({*progress.sha256} ^ set(_files(path)))
        raise CheckpointError(f"{path / missing[0]} is missing or does not belong there")
    for name, sha256 in progress.sha256.items():
        if _sha256(path / name) != sha256:
            raise CheckpointError(f"{path / name} is damaged")
    return progress


def read_config(path: Path) -> ModelConfig:
    """The model's configuration. Raises ModelConfigError."""
    return ModelConfig.from_mapping(json.loads(LocalStore(path).read("config.json", at_most=DOCUMENT)))


def fill(path: Path, part: str, tensors: Mapping[str, Tensor], *, alone: bool = True) -> None:
    """Read a part into `tensors` in place, each whole or sharded; `alone`: this process, not all ranks, reads.

    Raises CheckpointError where the part holds other tensors, or is nothing that can be read.
    """
    try:
        with _plain_errors():
            dcp_load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(path / part)), no_dist=alone)
    except OSError:
        raise
    except Exception as error:  # whatever the library makes of a file from outside
        raise CheckpointError(f"{path / part} does not hold this model's tensors: {error}") from error


def read(path: Path, part: str) -> dict[str, Tensor]:
    """A part in whole, on the CPU."""
    known = HuggingFaceStorageReader(str(path / part)).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in known.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    fill(path, part, tensors)
    return tensors


def trained_views(where: Path) -> tuple[str, ...] | None:
    """The views that a run or checkpoint was trained on, in its last stage; None of a model folder, which does not say.

    Raises CheckpointError where the newest checkpoint is damaged.
    """
    if (where / "checkpoints").is_dir():
        path, _ = newest(where / "checkpoints")
        where = path or where
    if not (where / STATE).is_file():
        return None
    views = read_progress(where).fingerprint.get("stage.modalities")
    return None if views is None else tuple(views)


def load_trained(where: Path, *, modalities: tuple[str, ...] | None = None, ema: bool = True) -> UnifiedDiT:
    """The model to use of a run's folder, a checkpoint or a model folder: of a checkpoint its EMA weights.

    Raises CheckpointError or ModelConfigError where there is none.
    """
    if (where / "checkpoints").is_dir():
        path, damaged = newest(where / "checkpoints")
        if path is None:
            raise CheckpointError(damaged[0] if damaged else f"{where} has no finished checkpoint yet")
        where = path
    if not (where / STATE).is_file():
        return load_model(where, modalities=modalities)
    adapters = "lora" in read_progress(where).fingerprint
    try:
        trained = read(where, "ema" if ema else "weights")
        if adapters:
            whole = merge(load_model(where.parent.parent / BASE), trained).state_dict()
            return model_of(read_config(where), whole, modalities)
        return model_of(read_config(where), trained, modalities)
    except (OpenUniError, ValueError, KeyError, RuntimeError, OSError, RecursionError) as error:
        raise CheckpointError(f"{where} holds no model that can be used: {error}") from error


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """One hash over names, shapes and bytes: equal exactly where all tensors are bit for bit the same."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What goes wrong on a rank as the error that it is, for CheckpointException is no Exception; and without the
    warning that one process saves alone, which is what was asked for.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        try:
            yield
        except CheckpointException as error:
            cause, _ = next(iter(error.failures.values()))
            raise cause from None


def _files(folder: Path) -> list[str]:
    """Everything in a checkpoint but its state, as relative names."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != STATE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
