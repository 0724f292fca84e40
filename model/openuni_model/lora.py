"""Low-rank adapters (LoRA; Hu et al., arXiv:2106.09685) on the linear layers of the blocks, in PEFT's layout.

With adapters the backbone is frozen; besides them the parameters that Wan does not have or has once for all views are
trained (`NEW`). A run keeps the weights that it started from in `base/`, its checkpoints hold what is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openuni.storage import write_atomic
from openuni_model.dit import UnifiedDiT
from openuni_model.weights import write_tensors

STACKED = ("in_weight_KDI", "in_bias_KD", "out_weight_KOD", "out_bias_KO")
"""Parameters that Wan has once, for RGB, and we have for every modality."""
NEW = (*STACKED, "modality_KD", "role_2D")
"""Parameters that Wan does not have, RGB's rows of the stacked ones apart."""
TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
"""Layers of a block that get an adapter, by the end of their name, as in PEFT's `target_modules`."""
_PEFT = "base_model.model."


class LoraLinear(nn.Linear):
    """x Wᵀ + b + x Aᵀ Bᵀ with the weights of another layer, frozen; A `[R, I]` is random, B `[O, R]` zero."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        device = linear.weight.device
        self.lora_A = nn.Parameter(torch.empty(rank, linear.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + F.linear(F.linear(input, self.lora_A), self.lora_B)


def add_lora(model: UnifiedDiT, rank: int, seed: int = 0) -> UnifiedDiT:
    """Freeze `model`, in place, but for NEW, and give its blocks' layers adapters that change nothing yet."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in NEW)
    torch.manual_seed(seed)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name.startswith("blocks.") and name.endswith(TARGETS):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, LoraLinear(layer, rank))
    return model


def lora_rank(model: nn.Module) -> int:
    """The rank of a model's adapters; 0: it has none."""
    return next((len(layer.lora_A) for layer in model.modules() if isinstance(layer, LoraLinear)), 0)


@torch.no_grad()
def merge(base: UnifiedDiT, trained: Mapping[str, Tensor]) -> UnifiedDiT:
    """`base`, in place, with trained adapters added to its weights (W + B A) and its new parameters replaced."""
    for name, parameter in base.named_parameters():
        stem = name.removesuffix("weight")
        if name in trained:
            parameter.copy_(trained[name])
        elif f"{stem}lora_A" in trained:
            parameter.add_((trained[f"{stem}lora_B"] @ trained[f"{stem}lora_A"]).to(parameter.dtype))
    return base


def save_adapter(folder: Path, trained: Mapping[str, Tensor], base: str) -> None:
    """Write adapters as PEFT reads them, and the other trained parameters, which PEFT has no place for, beside them.

    `adapter_model.safetensors` and `adapter_config.json` are PEFT's, for `PeftModel.from_pretrained(model, folder)`
    over the model in `base`; `new.safetensors` holds the parameters NEW.
    """
    adapters = {f"{_PEFT}{name}.weight": value for name, value in trained.items() if "lora_" in name}
    write_tensors(folder / "adapter_model.safetensors", adapters)
    write_tensors(folder / "new.safetensors", {name: value for name, value in trained.items() if name in NEW})
    rank = next(len(value) for name, value in trained.items() if name.endswith("lora_A"))
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
        "inference_mode": True,
    }
    write_atomic(folder / "adapter_config.json", (json.dumps(config, indent=2) + "\n").encode(), "model")
