"""Weights and pictures that are the same everywhere, and a digest of a state's names and shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unibench.metrics.video import Frames


def seed(state: Mapping[str, torch.Tensor], gain: float = 1.2) -> None:
    """Draw what is floating in a state, name by name in their order; `gain` keeps activations in range."""
    with torch.no_grad():
        for number, (name, value) in enumerate(sorted(state.items())):
            if value.is_floating_point():
                drawn = torch.from_numpy(np.random.default_rng([7, number]).standard_normal(tuple(value.shape)))
                if value.dim() > 1:
                    drawn = drawn * (gain / (value.numel() / len(value)) ** 0.5)
                else:
                    drawn = (1 if name.endswith(("weight", "running_var")) else 0) + 0.1 * drawn
                value.copy_(drawn)


def seeded(model: Any, gain: float = 1.2) -> Any:
    """The model with drawn weights, for inference."""
    seed(model.state_dict(), gain)
    return model.eval()


def waves(count: int, height: int, width: int) -> Frames:
    """Frames uint8 `[count, height, width, 3]`: waves that move and grow."""
    t, y, x, c = np.meshgrid(*(np.arange(n) for n in (count, height, width, 3)), indexing="ij")
    value = np.sin(0.11 * x + 0.9 * t + c) * np.cos(0.07 * y - 0.2 * t * c) + 0.4 * np.sin(0.013 * x * y / 10 + t)
    return (128 + 85 * value).clip(0, 255).astype(np.uint8)


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """Twelve hex digits over names and shapes."""
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def saved(value: Any, file: Path) -> Path:
    """The file, with this in it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, file)
    return file


def archived(model: nn.Module, file: Path) -> Path:
    """A TorchScript archive whose image tower is `model`, as OpenAI publishes CLIP."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model
            self.logit_scale = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.visual(x)
            return out

    file.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.jit.trace(Whole().eval(), torch.zeros(1, 3, 224, 224)).save(str(file))
    return file
