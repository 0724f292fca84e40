"""What a model costs before it runs: arithmetic of a batch, and tensor bytes of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from openuni_model.config import ModelConfig
from openuni_model.dit import Streams, UnifiedDiT

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 multiply-adds a second × 2 by name of GPU, from the makers' data sheets; for model FLOPs utilisation."""


def flops(config: ModelConfig, tokens: int, counts: Sequence[int]) -> float:
    """Floating point operations of one forward pass: matrix products only, a multiply-add as two.

    `tokens` a stream, `counts` streams of each clip. A training step is three times as much, activation
    checkpointing, which is no useful work, not counted.
    """
    P, N, L, D = sum(counts), tokens, config.text_length, config.width
    volume = config.channels * math.prod(config.patch)
    linear = N * (6 * D * D + 2 * D * config.ffn) + L * 2 * D * D  # a block's q k v o, q o, ffn; k v of the text
    cross = 2 * N * L * D
    ends = N * 2 * volume * D + L * (config.text_width * D + D * D) + D * (config.frequencies + 7 * D)
    self_attention = sum(2 * (count * N) ** 2 * D for count in counts)
    return 2.0 * (P * (config.layers * (linear + cross) + ends) + config.layers * self_attention)


def training_bytes(
    config: ModelConfig, size: tuple[int, int, int], counts: tuple[int, ...], *, ranks: int, checkpointing: bool
) -> tuple[int, int]:
    """Predicted bytes on one rank: (state, activations) for clips of `counts` streams with latents of `size`.

    State: float32 weights, gradients, EMA and AdamW's two moments, sharded. Activations: what autograd keeps of a
    forward pass in float32, each storage counted once; the pass runs on fake tensors, so nothing is computed or
    allocated. The gathered weights of one block and the allocator's own overhead come on top.
    """
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive: list[Tensor] = []
    P = sum(counts)
    with FakeTensorMode():
        model = UnifiedDiT(config)
        model.checkpoint_blocks = checkpointing
        streams = Streams(
            torch.empty(P, config.channels, *size),
            torch.empty(P),
            torch.zeros(P, dtype=torch.int64),
            torch.zeros(P, dtype=torch.int64),
            torch.empty(P, config.text_length, config.text_width),
            counts,
        )
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(streams)
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept = sum(size for key, size in seen.items() if key not in weights)
    return 5 * 4 * sum(p.numel() for p in model.parameters()) // ranks, kept
