"""The public UnityVideo weights (arXiv:2512.07831; Wan2.2-TI2V-5B below): read into a unified model, exactly.

Their network adds to Wan one patch embedding for all views, a linear layer `flow_in` and an embedding a modality
after it, and one output head for all views. The three before the blocks are one affine map a modality, which is what
our input expert is, so nothing is approximated. What differs in use is in the configuration: a clean stream is told
the noisy one's time, views lie right of RGB on the width axis, and are sampled with shift 1 and no guidance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from openuni.errors import CorruptDataError
from openuni.storage import open_regular
from openuni_model.config import ModelConfig, ModelConfigError
from openuni_model.dit import UnifiedDiT
from openuni_model.weights import from_wan_key, model_of, read_tensors

VIEWS = {"depth": "depth", "flow": "raft", "segmentation": "segmentation", "skeleton": "skeleton",
         "densepose": "densepose"}  # fmt: skip
"""Our names of the views and theirs."""
_HEAD_WIDTH = 128
"""Channels of an attention head in every Wan; the weights do not say."""
_OWN = {"flow_patch_embedding.weight", "flow_patch_embedding.bias", "flow_in.weight", "flow_in.bias",
        "flow_head.head.weight", "flow_head.head.bias", "flow_head.modulation",
        *(f"modality_embeddings.{name}" for name in VIEWS.values())}  # fmt: skip


def open_unityvideo(where: Path) -> UnifiedDiT:
    """The model of a released checkpoint: a `.safetensors` file, or a folder with one below it.

    Weights keep their dtype (bfloat16 as released). Raises ModelConfigError where it is another model, or none.
    """
    file = _file(where)
    try:
        return model_from(read_tensors(file))
    except ModelConfigError as error:
        raise ModelConfigError(f"{file}: {error}") from error
    except (ValueError, TypeError, RuntimeError, LookupError) as error:  # names are right and shapes are not
        raise ModelConfigError(f"{file}: not the UnityVideo weights: {error}") from error


def unityvideo_shape(where: Path) -> ModelConfig:
    """The configuration of a released checkpoint, from the head of its file. Raises ModelConfigError."""
    from safetensors import safe_open

    file = _file(where)
    with safe_open(file, framework="pt") as tensors:
        shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118
    meta = {
        from_wan_key(key.removeprefix("base.")): torch.empty(shape, device="meta")
        for key, shape in shapes.items()
        if key not in _OWN
    }
    try:
        return config_of(meta)
    except (ValueError, TypeError, LookupError) as error:
        raise ModelConfigError(f"{file}: not the UnityVideo weights: {error}") from error


def _file(where: Path) -> Path:
    files = [where] if where.is_file() else sorted(where.rglob("*.safetensors"))
    files = [file for file in files if any(key == "flow_in.weight" for key in _keys(file))]
    if len(files) != 1:
        raise ModelConfigError(
            f"{where}: {len(files)} UnityVideo checkpoints here (a .safetensors file with 'flow_in.weight' in it); "
            "download one from KlingTeam/UnityVideo and give its path"
        )
    return files[0]


@torch.no_grad()
def model_from(tensors: Iterable[tuple[str, Tensor]]) -> UnifiedDiT:
    """The model of a state dict of the release: keys `base.…` of Wan's original layout and the few of its own.

    Example:
        >>> model_from([("flow_in.bias", torch.zeros(128))])
        Traceback (most recent call last):
        openuni_model.config.ModelConfigError: not the UnityVideo weights: 'flow_head.head.bias' is missing
    """
    state: dict[str, Tensor] = {}
    own: dict[str, Tensor] = {}
    for key, value in tensors:
        if key in _OWN:
            own[key] = value
        else:
            name = from_wan_key(key.removeprefix("base."))
            state[name] = value
    if missing := sorted(_OWN - set(own)):
        raise ModelConfigError(f"not the UnityVideo weights: {missing[0]!r} is missing")
    if missing := sorted({"in_weight_KDI", "in_bias_KD", "out_weight_KOD", "out_bias_KO", "out_table_2D",
                          "time_in.0.weight", "text_in.0.weight", "blocks.0.ffn.0.weight"} - set(state)):  # fmt: skip
        raise ModelConfigError(f"not the UnityVideo weights: Wan's part lacks {missing[0]!r}")
    config = config_of(state)
    return model_of(config, _folded(state, own, config))


def config_of(wan: Mapping[str, Tensor]) -> ModelConfig:
    """The configuration that the released weights' shapes and use imply; `wan` has our names and Wan's shapes."""
    width, channels, *patch = wan["in_weight_KDI"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in wan if name.startswith("blocks."))
    return ModelConfig(
        width=width,
        ffn=len(wan["blocks.0.ffn.0.weight"]),
        layers=layers,
        heads=max(1, width // _HEAD_WIDTH),
        channels=channels,
        patch=(patch[0], patch[1], patch[2]),
        prediction="v",
        shift=1.0,
        codec="wan2.2",
        text="umt5",
        text_width=wan["text_in.0.weight"].shape[1],
        text_length=512,
        modalities=("rgb", *VIEWS),
        frames=33,
        size=256,
        rope="width_offset",
        own_tables=True,
        clean_time="shared",
        pictures="unityvideo",
        frequencies=wan["time_in.0.weight"].shape[1],
    )


def _folded(wan: dict[str, Tensor], own: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A state dict of ours. The fold is taken in float64, then rounded to the dtype that the weights come in."""
    like = wan["in_weight_KDI"]
    embed_DI, embed_D = own["flow_patch_embedding.weight"].flatten(1), own["flow_patch_embedding.bias"]
    map_DD, map_D = own["flow_in.weight"].double(), own["flow_in.bias"].double()
    weight_DI = map_DD @ embed_DI.double()
    bias_D = map_DD @ embed_D.double() + map_D
    weights, biases = [like.flatten(1)], [wan["in_bias_KD"]]
    for name in VIEWS.values():
        weights.append(weight_DI.to(like.dtype))
        biases.append((bias_D + own[f"modality_embeddings.{name}"].double().flatten()).to(like.dtype))
    table_2D, K = wan["out_table_2D"].reshape(2, -1), len(config.modalities)
    head = {
        "out_weight_KOD": (wan["out_weight_KOD"], own["flow_head.head.weight"]),
        "out_bias_KO": (wan["out_bias_KO"], own["flow_head.head.bias"]),
        "out_table_K2D": (table_2D, own["flow_head.modulation"].reshape(2, -1)),
    }
    state = {name: value for name, value in wan.items() if name != "out_table_2D"}
    for name, value in state.items():
        if name.endswith("table_6D"):
            state[name] = value.reshape(6, -1)
    state["in_weight_KDI"], state["in_bias_KD"] = torch.stack(weights), torch.stack(biases)
    for name, (rgb, views) in head.items():
        state[name] = torch.stack([rgb] + [views] * (K - 1))
    state["modality_KD"] = torch.zeros(K, config.width, dtype=like.dtype)
    state["role_2D"] = torch.zeros(2, config.width, dtype=like.dtype)
    return state


def _keys(file: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(file).close()  # safetensors would wait at a pipe
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    except (SafetensorError, CorruptDataError, OSError) as error:
        raise ModelConfigError(f"{file}: damaged weights ({error}); download them again") from error
