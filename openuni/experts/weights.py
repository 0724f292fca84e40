"""Weights into torch networks: read without running code, fitted exactly, and run in batches that fit the card."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from openuni.errors import AssetError

M = TypeVar("M", bound=torch.nn.Module)
_log = logging.getLogger(__name__)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tensors(file: Path) -> Any:
    """What `torch.save` or safetensors wrote: tensors and plain containers only; no code in the file is run.

    Raises AssetError where there is anything else.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        unreadable = isinstance(error, pickle.UnpicklingError | RuntimeError | EOFError | ValueError | OSError)
        if unreadable or type(error).__module__.startswith("safetensors"):
            reason = str(error).split(". ")[0]  # torch goes on to advise loading it unsafely
            raise AssetError(f"{file} is refused: it is not a file of plain tensors: {reason}") from error
        raise


def fill(model: M, state: Mapping[str, torch.Tensor], file: Path) -> M:
    """The model with these weights (every name and shape must agree), in float32 on `device`, for inference.

    Raises AssetError where a name or a shape differs; `file` is named in it.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise AssetError(f"{file} does not fit {type(model).__name__}: {error}") from error
    return model.float().eval().requires_grad_(False).to(device())


def pretrained(kind: Any, config: Any, state: Mapping[str, torch.Tensor], file: Path) -> Any:
    """As `fill`, for a class of transformers: the library's own loading knows the names that published files have.

    Its releases rename parameters (`attention.attention.query` became `attention.q_proj`) and translate as they load,
    so a published file fits no release by `load_state_dict` alone. Raises AssetError as `fill` does.
    """
    from transformers.utils import logging as library

    # What it would print of a file that does not fit is said below, in one sentence.
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(None, config=config, state_dict=dict(state), output_loading_info=True)
        problems = {name: sorted(map(str, keys)) for name, keys in report.items() if keys}
    except (RuntimeError, ValueError) as error:
        problems = {"refused": [str(error)]}
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
    if problems:
        said = "; ".join(f"{name.replace('_', ' ')}: {', '.join(keys[:3])}" for name, keys in problems.items())
        raise AssetError(f"{file} does not fit {kind.__name__}: {said}")
    return model.float().eval().requires_grad_(False).to(device())


class Batches:
    """Runs a network over the frames of a clip in batches, each half as large once a card runs out of memory.

    The smaller size is kept for the clips that follow, so that the error is met once, and the provenance of each says
    it. A batch never holds frames of two clips. Threads take turns, a clip each: so the card works on one clip while
    others are prepared before it and finished behind it, and holds no more than one batch.
    """

    def __init__(self, largest: int) -> None:
        self.size = largest
        self._turn = threading.Lock()

    @property
    def provenance(self) -> dict[str, str | int]:
        """What the network runs on, and how many inputs it now takes at once."""
        where = device()
        name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
        return {"device": name, "batch": self.size}

    def run(self, network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """`network(*parts)` over slices of the inputs' first axis, joined again on the CPU as float32.

        Raises torch.OutOfMemoryError where the card cannot take a single one.
        """
        with self._turn:
            return self._run(network, inputs)

    def _run(self, network: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        start, total = 0, len(inputs[0])
        while start < total:
            parts = [part[start : start + self.size].to(device()) for part in inputs]
            try:
                with torch.inference_mode():
                    outputs.append(network(*parts).float().cpu())
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
                self.size //= 2
                _log.warning("the card is out of memory: batches of %d from now on", self.size)
                torch.cuda.empty_cache()
                continue
            start += len(parts[0])
        return torch.cat(outputs)
