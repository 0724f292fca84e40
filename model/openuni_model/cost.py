"""What a model costs before it runs: arithmetic of a batch, and tensor bytes of training."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from openuni_model.config import ModelConfig, ModelConfigError
from openuni_model.dit import Streams, UnifiedDiT
from openuni_model.lora import add_lora
from openuni_model.tasks import Stage

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 multiply-adds a second × 2 by name of GPU, from the makers' data sheets; for model FLOPs utilisation."""


def flops(config: ModelConfig, tokens: int, counts: Sequence[int]) -> float:
    """Floating point operations of one forward pass: matrix products only, a multiply-add as two.

    `tokens` a stream, `counts` streams of each clip. A training step is three times as much, activation
    checkpointing, not useful work, not counted.
    """
    P, N, L, D = sum(counts), tokens, config.text_length, config.width
    volume = config.channels * math.prod(config.patch)
    linear = N * (6 * D * D + 2 * D * config.ffn) + L * 2 * D * D  # a block's q k v o, q o, ffn; k v of the text
    cross = 2 * N * L * D
    ends = N * 2 * volume * D + L * (config.text_width * D + D * D) + D * (config.frequencies + 7 * D)
    self_attention = sum(2 * (count * N) ** 2 * D for count in counts)
    return 2.0 * (P * (config.layers * (linear + cross) + ends) + config.layers * self_attention)


@dataclass(frozen=True, slots=True)
class Memory:
    """Predicted bytes on one rank in training, besides the allocator's own overhead.

    `state`: float32 weights, and of the trained ones gradients, EMA and AdamW's two moments, sharded over the ranks.
    `activations`: what autograd keeps of a forward pass. `gathered`: what FSDP holds whole, which is two blocks, one
    block's gradients and all that lies outside the blocks. `frozen`: text encoder and codec.
    """

    state: int
    activations: int
    gathered: int
    frozen: int = 0

    @property
    def total(self) -> int:
        return self.state + self.activations + self.gathered + self.frozen


def training_bytes(
    config: ModelConfig,
    size: tuple[int, int, int],
    counts: tuple[int, ...],
    *,
    ranks: int,
    checkpointing: bool,
    dtype: torch.dtype = torch.float32,
    lora: int = 0,
) -> Memory:
    """Predict for clips of `counts` streams with latents of `size`; `dtype` is that of matrix products.

    Each storage is counted once; the pass runs on fake tensors, so nothing is computed or allocated, and over one and
    two blocks, of which the rest are copies. On one rank autocast keeps a copy of the weights in `dtype`, which counts
    as activations; FSDP gathers them in it.
    """
    one, two = (_pass(replace(config, layers=n), size, counts, ranks > 1, checkpointing, dtype, lora) for n in (1, 2))
    whole, trained, kept = (a + (config.layers - 1) * (b - a) for a, b in zip(one, two, strict=True))
    gathered = (one[0] + 2 * (two[0] - one[0])) * dtype.itemsize if ranks > 1 else 0
    return Memory(4 * (whole + 4 * trained) // ranks, kept, gathered)


def _pass(
    config: ModelConfig,
    size: tuple[int, int, int],
    counts: tuple[int, ...],
    cast: bool,
    checkpointing: bool,
    dtype: torch.dtype,
    lora: int,
) -> tuple[int, int, int]:
    """Parameters, trained parameters, and bytes that autograd keeps of a pass, weights apart."""
    seen: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage.nbytes()
        alive.append(tensor)
        return tensor

    P = sum(counts)
    with FakeTensorMode():
        model = UnifiedDiT(config)
        if lora:
            add_lora(model, lora)
        if cast and dtype != torch.float32:  # which they have; fake tensors cannot be swapped for themselves
            model.to(dtype)
        model.checkpoint_blocks = checkpointing
        streams = Streams(
            torch.empty(P, config.channels, *size),
            torch.empty(P),
            torch.zeros(P, dtype=torch.int64),
            torch.zeros(P, dtype=torch.int64),
            torch.empty(P, config.text_length, config.text_width),
            counts,
        )
        autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with autocast, hooks, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)
            model(streams)
        weights = {p.untyped_storage()._cdata for p in model.parameters()}
    parameters = list(model.parameters())
    kept = sum(size for key, size in seen.items() if key not in weights)
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad), kept


_FROZEN = {"minilm": 4 * 22_700_000, "umt5": 2 * 5_680_000_000,
           "pixel": 0, "wan2.1": 4 * 127_000_000, "wan2.2": 4 * 705_000_000}  # fmt: skip
"""Bytes of text encoders (UMT5's in bfloat16, as published) and codecs."""


def frozen_bytes(config: ModelConfig) -> int:
    """Of the text encoder and the codec, which every rank holds whole; what the codec computes with not counted."""
    return _FROZEN[config.text] + _FROZEN[config.codec]


def most_streams(stage: Stage, clips: int, batches: int) -> int:
    """How many streams a batch of `clips` clips has at most, but for once in `batches` batches.

    A clip has its RGB, one view, and each further one with probability `stage.p_more`.
    """
    further, p = clips * max(0, len(stage.modalities) - 1), stage.p_more
    least = 2 * clips if stage.modalities else clips
    below = 0.0
    for n in range(further):
        below += math.comb(further, n) * p**n * (1 - p) ** (further - n)
        if 1 - below < 1 / batches:
            return least + n
    return least + further


CARDS = {"H200": 141e9, "H100": 80e9, "A100": 80e9, "L40S": 48e9, "4090": 24e9}
"""Bytes of memory by name of GPU, from the makers' data sheets."""
_USABLE = 0.92
"""Of a card's memory: the rest is for CUDA itself and for what lies between allocations."""


def parse_card(text: str) -> int:
    """Usable bytes of a card: its name, or its memory as `80GiB` or `24GB`. Raises ModelConfigError.

    Example:
        >>> parse_card("24GB"), parse_card("4090")
        (22080000000, 22080000000)
    """
    if text in CARDS:
        return int(CARDS[text] * _USABLE)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GiB|GB)", text)
    if found is None:
        raise ModelConfigError(f"--fit {text}: give a size like 80GiB or 24GB, or one of {', '.join(CARDS)}")
    return int(float(found[1]) * (2**30 if found[2] == "GiB" else 10**9) * _USABLE)


def spread(streams: int, clips: int) -> tuple[int, ...]:
    """That many streams over so many clips, as evenly as can be."""
    return tuple(streams // clips + (i < streams % clips) for i in range(clips))
