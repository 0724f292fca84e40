"""Weights into networks: what every measuring model does with its file and with the frames it is given."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from openuni.errors import AssetError
from unibench.metrics.base import Floats
from unibench.metrics.video import Frames

M = TypeVar("M", bound=torch.nn.Module)
_BATCH = 8


def device() -> torch.device:
    """The GPU where there is one. VBench runs CLIP in half precision there; here everything is float32."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tensors(file: Path) -> Any:
    """What `torch.save` wrote, tensors and plain containers only. Raises AssetError where there is anything else."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise AssetError(f"{file} is refused: it is no file of plain tensors: {error}") from error


def fill(model: M, state: Mapping[str, torch.Tensor], file: Path) -> M:
    """The model with these weights (every name and shape must agree), in float32 on `device`, for inference.

    Raises AssetError where a name or a shape differs; `file` is named in it.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise AssetError(f"{file} does not fit {type(model).__name__}: {error}") from error
    return model.float().eval().requires_grad_(False).to(device())


def by_frame(network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Frames], Floats]:
    """What a network gives for each frame, float64 `[T, …]`, eight at a time; it takes what `batches` yields."""

    @torch.inference_mode()
    def measure(frames: Frames) -> Floats:
        return torch.cat([network(part) for part in batches(frames)]).cpu().numpy().astype(np.float64)

    return measure


def batches(frames: Frames) -> Iterator[torch.Tensor]:
    """RGB frames uint8 `[T, H, W, 3]` as float32 `[≤ 8, 3, H, W]` from 0 to 255 on `device`, in order."""
    for start in range(0, len(frames), _BATCH):
        part = torch.from_numpy(frames[start : start + _BATCH])
        yield part.to(device()).permute(0, 3, 1, 2).float()
