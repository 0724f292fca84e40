"""Weights into networks: what every measuring model does with its file and with the frames it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from openuni.experts.weights import device, fill, tensors
from unibench.metrics.base import Floats
from unibench.metrics.video import Frames

_BATCH = 8

__all__ = ["batches", "by_frame", "device", "fill", "tensors"]


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
