"""From clips to what the model takes: streams, their noise and their texts. Shapes as in `dit.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from openuni_model.colours import prompt
from openuni_model.config import ModelConfig
from openuni_model.dit import GENERATE, Streams
from openuni_model.flow import add_noise, velocity_errors
from openuni_model.tasks import Draw, Task

Embed = Callable[[str], Tensor]
"""A text to its embedding, float32 `[L, T]` padded with zeros; see `texts.py`."""


@dataclass(frozen=True, slots=True)
class Item:
    """A clip through the codec: latents `[C, F, H, W]` float32 of each view that it has, RGB among them.

    `prompts` are texts of views; a view that is not there reads its modality's own prompt.
    """

    key: str
    caption: str
    latents: Mapping[str, Tensor]
    prompts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Noisy streams with the truth they came from; `tasks`, `views` and `keys` name each of the P streams."""

    streams: Streams
    x0_PCFHW: Tensor
    noise_PCFHW: Tensor
    tasks: tuple[Task, ...]
    views: tuple[str, ...]
    keys: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        x0_PCFHW = self.x0_PCFHW.to(device, non_blocking=True)
        noise_PCFHW = self.noise_PCFHW.to(device, non_blocking=True)
        return replace(self, streams=self.streams.to(device), x0_PCFHW=x0_PCFHW, noise_PCFHW=noise_PCFHW)


def stream_text(view: str, caption: str, config: ModelConfig, prompts: Mapping[str, str]) -> str:
    """RGB reads the caption, a view its entry of `prompts`, else the prompt of its modality.

    Without the in-context learner all read the caption.
    """
    if not config.in_context or view == "rgb":
        return caption
    return prompts[view] if view in prompts else prompt(view, config)


def collate(
    items: Sequence[Item],
    draws: Sequence[Draw],
    rngs: Sequence[np.random.Generator],
    config: ModelConfig,
    embed: Embed,
) -> Batch:
    """Noise the drawn streams of each item. Clips with equally many streams lie together, for fewer attention calls."""
    order = sorted(range(len(items)), key=lambda i: -len(draws[i].views))
    rows = [(items[i], draws[i], rngs[i], slot) for i in order for slot in range(len(draws[i].views))]
    x0_PCFHW = torch.stack([item.latents[draw.views[slot]] for item, draw, _, slot in rows])
    shape = x0_PCFHW.shape[1:]
    noise_PCFHW = torch.stack([torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) for _, _, rng, _ in rows])
    t_P = torch.tensor([draw.times[slot] for _, draw, _, slot in rows])
    views = tuple(draw.views[slot] for _, draw, _, slot in rows)
    texts = [
        stream_text(view, item.caption if draw.caption else "", config, item.prompts)
        for view, (item, draw, _, _) in zip(views, rows, strict=True)
    ]
    streams = Streams(
        x_PCFHW=add_noise(x0_PCFHW, noise_PCFHW, t_P),
        t_P=t_P,
        modality_P=torch.tensor([config.index(view) for view in views]),
        role_P=torch.tensor([draw.roles[slot] for _, draw, _, slot in rows]),
        text_PLT=torch.stack([embed(text) for text in texts]),
        counts=tuple(len(draws[i].views) for i in order),
    )
    tasks = tuple(draw.task for _, draw, _, _ in rows)
    return Batch(streams, x0_PCFHW, noise_PCFHW, tasks, views, tuple(item.key for item, _, _, _ in rows))


def losses(out_PCFHW: Tensor, batch: Batch, config: ModelConfig) -> Tensor:
    """The velocity error of every generated stream, `[P]`; zero, with zero gradient, for the clean ones.

    The training loss is their sum over the number of *clips* in the whole step, on all ranks together: L_cond, L_est
    and L_joint of section 4.2.1 a clip. That denominator does not depend on what was drawn, so a rank that drew more
    joint clips does not get its gradient scaled down.
    """
    errors_P = velocity_errors(out_PCFHW, batch.x0_PCFHW, batch.noise_PCFHW, batch.streams.t_P, config.prediction)
    return torch.where(batch.streams.role_P == GENERATE, errors_P, 0.0)
