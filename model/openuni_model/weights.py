"""Weights in and out: Wan's published parameters (diffusers' or its own layout) into a unified model; a folder out.

A model folder holds `model.safetensors`, `config.json` and a model card `README.md`; nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openuni.storage import DOCUMENT, LocalStore, naming, open_regular, publish, temporary_file, write_atomic
from openuni_model.config import ModelConfig, ModelConfigError
from openuni_model.dit import GENERATE, UnifiedDiT

_WAN_NAMES: tuple[tuple[str, str], ...] = (
    (r"patch_embedding\.weight", "in_weight_KDI"),
    (r"patch_embedding\.bias", "in_bias_KD"),
    (r"condition_embedder\.time_embedder\.linear_1\.(\w+)", r"time_in.0.\1"),
    (r"condition_embedder\.time_embedder\.linear_2\.(\w+)", r"time_in.2.\1"),
    (r"condition_embedder\.time_proj\.(\w+)", r"time_proj.\1"),
    (r"condition_embedder\.text_embedder\.linear_1\.(\w+)", r"text_in.0.\1"),
    (r"condition_embedder\.text_embedder\.linear_2\.(\w+)", r"text_in.2.\1"),
    (r"blocks\.(\d+)\.scale_shift_table", r"blocks.\1.table_6D"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"blocks.\1.cross_norm.\2"),
    (r"blocks\.(\d+)\.attn1\.to_([qkv])\.(\w+)", r"blocks.\1.self_attn.\2.\3"),
    (r"blocks\.(\d+)\.attn2\.to_([qkv])\.(\w+)", r"blocks.\1.cross_attn.\2.\3"),
    (r"blocks\.(\d+)\.attn1\.to_out\.0\.(\w+)", r"blocks.\1.self_attn.o.\2"),
    (r"blocks\.(\d+)\.attn2\.to_out\.0\.(\w+)", r"blocks.\1.cross_attn.o.\2"),
    (r"blocks\.(\d+)\.attn1\.norm_([qk])\.weight", r"blocks.\1.self_attn.norm_\2.weight"),
    (r"blocks\.(\d+)\.attn2\.norm_([qk])\.weight", r"blocks.\1.cross_attn.norm_\2.weight"),
    (r"blocks\.(\d+)\.ffn\.net\.0\.proj\.(\w+)", r"blocks.\1.ffn.0.\2"),
    (r"blocks\.(\d+)\.ffn\.net\.2\.(\w+)", r"blocks.\1.ffn.2.\2"),
    (r"scale_shift_table", "out_table_2D"),
    (r"proj_out\.weight", "out_weight_KOD"),
    (r"proj_out\.bias", "out_bias_KO"),
)
_ORIGINAL_NAMES: tuple[tuple[str, str], ...] = (
    (r"time_embedding\.([02])\.(\w+)", r"time_in.\1.\2"),
    (r"time_projection\.1\.(\w+)", r"time_proj.\1"),
    (r"text_embedding\.([02])\.(\w+)", r"text_in.\1.\2"),
    (r"blocks\.(\d+)\.modulation", r"blocks.\1.table_6D"),
    (r"blocks\.(\d+)\.norm3\.(\w+)", r"blocks.\1.cross_norm.\2"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.([qkvo])\.(\w+)", r"blocks.\1.\2_attn.\3.\4"),
    (r"blocks\.(\d+)\.(self|cross)_attn\.norm_([qk])\.weight", r"blocks.\1.\2_attn.norm_\3.weight"),
    (r"blocks\.(\d+)\.ffn\.([02])\.(\w+)", r"blocks.\1.ffn.\2.\3"),
    (r"head\.modulation", "out_table_2D"),
    (r"head\.head\.weight", "out_weight_KOD"),
    (r"head\.head\.bias", "out_bias_KO"),
)
"""As Wan's own repository names them; the patch embedding is called the same in both."""
_DIFFUSERS, _ORIGINAL = "diffusion_pytorch_model*.safetensors", ("*.safetensors", "*.pth")
_STACKED = {"in_weight_KDI", "in_bias_KD", "out_table_K2D", "out_weight_KOD", "out_bias_KO"}
_NEW = {"modality_KD", "role_2D"}


def from_wan_key(key: str) -> str:
    """Our name of a parameter of Wan, as diffusers or as its own repository names it.

    Raises ModelConfigError for one we lack.

    Example:
        >>> from_wan_key("blocks.3.attn1.to_q.weight"), from_wan_key("blocks.3.self_attn.q.weight")
        ('blocks.3.self_attn.q.weight', 'blocks.3.self_attn.q.weight')
    """
    for pattern, name in (*_WAN_NAMES, *_ORIGINAL_NAMES):
        if re.fullmatch(pattern, key):
            return re.sub(pattern, name, key)
    raise ModelConfigError(
        f"{key!r} is not a parameter of a Wan text-to-video transformer (image-to-video is not read)"
    )


@torch.no_grad()
def load_wan(model: UnifiedDiT, wan: Iterable[tuple[str, Tensor]]) -> None:
    """Fill `model` with Wan's parameters, in place, one tensor at a time.

    Every modality's input and output expert becomes a copy of Wan's patch embedding and head; the modality and role
    embeddings are zeroed. So without aux streams the model then computes what Wan does. Raises ModelConfigError on
    an unknown, missing or misshapen parameter.
    """
    ours = dict(model.named_parameters())
    missing = set(ours) - _NEW
    for key, value in wan:
        name = from_wan_key(key)
        if name == "out_table_2D" and model.config.own_tables:
            name = "out_table_K2D"
        parameter = ours.get(name)
        if parameter is None:
            raise ModelConfigError(f"{key!r} has no place in a model of {model.config.layers} layers")
        like = parameter[0] if name in _STACKED else parameter
        if value.numel() != like.numel():
            raise ModelConfigError(f"{key}: {tuple(value.shape)} does not fit {name} {tuple(parameter.shape)}")
        parameter.copy_(value.reshape(like.shape).expand_as(parameter))
        missing.discard(name)
    if missing:
        raise ModelConfigError(f"Wan's weights lack {len(missing)} parameters, first {min(missing)!r}")
    for name in _NEW & set(ours):
        ours[name].zero_()


def read_wan(folder: Path) -> Iterable[tuple[str, Tensor]]:
    """Parameters of a Wan transformer in diffusers' layout or its own, one at a time, each in its own dtype.

    safetensors are read tensor by tensor; a `.pth` is read whole, without running code in it. Raises ModelConfigError
    where there is neither, or a file is damaged or holds anything but tensors.
    """
    files = sorted(folder.glob(_DIFFUSERS)) or [file for kind in _ORIGINAL for file in sorted(folder.glob(kind))]
    if not files:
        raise ModelConfigError(
            f"{folder}: no {_DIFFUSERS} and no other .safetensors or .pth; give the 'transformer' folder of a Wan "
            "model (Wan-AI/Wan2.1-T2V-1.3B-Diffusers, Wan-AI/Wan2.2-TI2V-5B-Diffusers), or put Wan's own files there"
        )
    for file in files:
        yield from read_tensors(file)


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a `.safetensors` or `.pth` file, one at a time, each in its own dtype. Raises ModelConfigError."""
    from safetensors import SafetensorError, safe_open

    open_regular(file).close()  # safetensors would wait at a pipe, and take what it may not read for absent
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (safe_open is not a mapping)
                    yield key, tensors.get_tensor(key)
            return
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).split(". ")[0]  # torch goes on to advise loading it unsafely
        raise ModelConfigError(f"{file} is damaged or holds more than tensors: {reason}; download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelConfigError(f"{file} is not a table of tensors; Wan's own checkpoints are")
    yield from state.items()


def wan_part(wan: Path | None, part: str, wanted_by: str) -> Path:
    """A part (`transformer`, `vae`, …) of a Wan folder; in Wan's own layout the transformer lies in the folder itself.

    Raises ModelConfigError where it is not there.
    """
    if wan is not None and (wan / part).is_dir():
        return wan / part
    if wan is not None and part == "transformer" and any(wan.glob(_DIFFUSERS)):
        return wan
    raise ModelConfigError(
        f"{wanted_by} needs Wan's files: give a folder in diffusers layout with '{part}/' in it, or in Wan's own "
        f"(--wan; got {wan or 'none'})"
    )


def fit_modalities(state: Mapping[str, Tensor], had: tuple[str, ...], has: tuple[str, ...]) -> dict[str, Tensor]:
    """A state dict over modalities `had` rearranged for `has`, so that a registered sixth joins a trained model.

    A new modality's experts start as copies of RGB's and its embedding at zero, as when Wan is loaded.
    """
    rgb = had.index("rgb")
    rows = [had.index(name) if name in had else rgb for name in has]
    fitted = dict(state)
    for name in (_STACKED | {"modality_KD"}) & set(state):
        if len(state[name]) != 1:  # without the switcher all modalities share one expert
            fitted[name] = state[name][rows].clone()
    if "modality_KD" in fitted:
        for i, name in enumerate(has):
            if name not in had:
                fitted["modality_KD"][i].zero_()
    return fitted


def save_model(folder: Path, config: ModelConfig, state: Mapping[str, Tensor], card: str) -> None:
    """Write a model folder from a state dict (the weights, or their EMA): each file whole or not at all."""
    write_tensors(folder / "model.safetensors", state)
    write_atomic(folder / "config.json", config.to_json().encode(), "model")
    write_atomic(folder / "README.md", card.encode(), "model")


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), temporary_file(path, "model") as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise _system_error(error) from error
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        publish(temporary, path)


def _system_error(error: Exception) -> Exception:
    """The system's error that safetensors, which is not Python, tells as text: `… (os error 28)`."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


@torch.no_grad()
def to_wan(model: UnifiedDiT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and state dict of a `diffusers.WanTransformer3DModel` that generates what the model's RGB
    stream does where it is alone: RGB's experts, its switcher and the role folded into the time embedding's bias.

    Raises ModelConfigError for a model that no Wan is: pixels, x-prediction, or a position code of its own.
    """
    from diffusers import WanTransformer3DModel

    config = model.config
    if config.prediction != "v" or config.absolute or config.codec == "pixel":
        raise ModelConfigError("a pixel model is not a Wan, so it has no diffusers layout; export it in ours")
    shape = {
        "patch_size": list(config.patch),
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "text_dim": config.text_width,
        "freq_dim": config.frequencies,
        "ffn_dim": config.ffn,
        "num_layers": config.layers,
        "cross_attn_norm": True,
        "eps": config.eps,
    }
    with torch.device("meta"):
        theirs = WanTransformer3DModel(**shape).state_dict()
    ours, row = model.state_dict(), config.index("rgb") if config.switcher else 0
    state = {}
    for key, like in theirs.items():
        name = from_wan_key(key)
        if name == "out_table_2D" and config.own_tables:
            name = "out_table_K2D"
        value = ours[name][row] if name in _STACKED else ours[name]
        if name == "time_in.2.bias":
            switch = 0 if model.modality_KD is None else model.modality_KD[row]
            value = value + model.role_2D[GENERATE] + switch
        state[key] = value.reshape(like.shape).contiguous()
    return shape, state


def save_wan(folder: Path, model: UnifiedDiT) -> None:
    """Write `transformer/` of a Wan pipeline in diffusers layout: what generates RGB alone. Raises ModelConfigError."""
    from diffusers import WanTransformer3DModel
    from safetensors import SafetensorError

    shape, state = to_wan(model)
    with torch.device("meta"):
        wan = WanTransformer3DModel(**shape)
    wan.load_state_dict(state, assign=True)
    try:
        wan.save_pretrained(folder / "transformer")
    except SafetensorError as error:
        raise _system_error(error) from error


def model_card(config: ModelConfig, training: str) -> str:
    """The README of a model folder: what it is, what it reads and generates, how it was trained, how to use it."""
    views = ", ".join(name for name in config.modalities if name != "rgb")
    size = f"{config.layers} blocks of width {config.width}, {config.heads} heads"
    return f"""---
library_name: openuni
pipeline_tag: text-to-video
---
# A unified video model

RGB video and its views ({views}): any of them generated from text, from each other, or all together.

- Transformer: {size}; {config.prediction}-prediction flow matching, timestep shift {config.shift:g}.
- Codec: {config.codec}. Text encoder: {config.text} ({config.text_length} tokens).
- Modality switcher: {"on" if config.switcher else "off"}. In-context learner: {"on" if config.in_context else "off"}.
- {training}

```
openuni generate --checkpoint . --task joint --modality depth --prompt "…" --out runs/x
```
"""


def load_model(folder: Path, *, modalities: tuple[str, ...] | None = None) -> UnifiedDiT:
    """The model that `save_model` wrote, over its own modalities or over `modalities`.

    Raises ModelConfigError where the folder holds no model, or weights of another configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise ModelConfigError(f"{folder}: no model here (config.json and model.safetensors are expected)")
    open_regular(folder / "model.safetensors").close()
    try:
        values = json.loads(LocalStore(folder).read("config.json", at_most=DOCUMENT))
        state = load_file(folder / "model.safetensors")
    except (ValueError, SafetensorError, RecursionError) as error:
        raise ModelConfigError(f"{folder}: damaged model ({error}); copy or train it again") from error
    try:
        return model_of(ModelConfig.from_mapping(values), state, modalities)
    except ModelConfigError as error:
        raise ModelConfigError(f"{folder}: {error}") from error


def model_of(config: ModelConfig, state: Mapping[str, Tensor], modalities: tuple[str, ...] | None = None) -> UnifiedDiT:
    """A model that takes over the tensors of a state dict, over its own modalities or over `modalities`."""
    if modalities is not None:
        state = fit_modalities(state, config.modalities, modalities)
        config = replace(config, modalities=modalities)
    with torch.device("meta"):
        model = UnifiedDiT(config)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ModelConfigError(f"the weights are not those of its config.json: {first}") from error
    return model
