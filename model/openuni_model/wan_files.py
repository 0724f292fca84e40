"""Wan's autoencoder and text encoder as Wan's own repository publishes them, in files beside each other.

    Wan2.1_VAE.pth | Wan2.2_VAE.pth · models_t5_umt5-xxl-enc-bf16.pth · google/umt5-xxl/ (the tokenizer)

Their tensors are renamed for the classes of diffusers and transformers, and keep their dtype. Shapes are read off the
tensors; the latents' means and deviations, which the files do not hold, are those that Wan's code has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openuni_model.config import CodecName, ModelConfigError
from openuni_model.weights import read_tensors

TOKENIZER = "google/umt5-xxl"
_VAE = {"wan2.1": "Wan2.1_VAE", "wan2.2": "Wan2.2_VAE"}
_UMT5 = "models_t5_umt5-xxl-enc-bf16"
_RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2",
             "shortcut": "conv_shortcut"}  # fmt: skip
_VAE_NAMES = (
    (r"conv1\.(\w+)", r"quant_conv.\1"),
    (r"conv2\.(\w+)", r"post_quant_conv.\1"),
    (r"(encoder|decoder)\.conv1\.(\w+)", r"\1.conv_in.\2"),
    (r"(encoder|decoder)\.head\.0\.gamma", r"\1.norm_out.gamma"),
    (r"(encoder|decoder)\.head\.2\.(\w+)", r"\1.conv_out.\2"),
    (r"(encoder|decoder)\.middle\.0\.(.+)", r"\1.mid_block.resnets.0.\2"),
    (r"(encoder|decoder)\.middle\.1\.(.+)", r"\1.mid_block.attentions.0.\2"),
    (r"(encoder|decoder)\.middle\.2\.(.+)", r"\1.mid_block.resnets.1.\2"),
    (r"encoder\.downsamples\.(\d+)\.downsamples\.\d+\.((?:resample|time_conv)\..+)",
     r"encoder.down_blocks.\1.downsampler.\2"),
    (r"encoder\.downsamples\.(\d+)\.downsamples\.(\d+)\.(.+)", r"encoder.down_blocks.\1.resnets.\2.\3"),
    (r"encoder\.downsamples\.(\d+)\.(.+)", r"encoder.down_blocks.\1.\2"),
    (r"decoder\.upsamples\.(\d+)\.upsamples\.\d+\.((?:resample|time_conv)\..+)", r"decoder.up_blocks.\1.upsampler.\2"),
    (r"decoder\.upsamples\.(\d+)\.upsamples\.(\d+)\.(.+)", r"decoder.up_blocks.\1.resnets.\2.\3"),
)  # fmt: skip
_UMT5_NAMES = (
    (r"token_embedding\.weight", "shared.weight"),
    (r"norm\.weight", "encoder.final_layer_norm.weight"),
    (r"blocks\.(\d+)\.norm1\.weight", r"encoder.block.\1.layer.0.layer_norm.weight"),
    (r"blocks\.(\d+)\.attn\.([qkvo])\.weight", r"encoder.block.\1.layer.0.SelfAttention.\2.weight"),
    (r"blocks\.(\d+)\.pos_embedding\.embedding\.weight",
     r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.weight"),
    (r"blocks\.(\d+)\.norm2\.weight", r"encoder.block.\1.layer.1.layer_norm.weight"),
    (r"blocks\.(\d+)\.ffn\.gate\.0\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_0.weight"),
    (r"blocks\.(\d+)\.ffn\.fc1\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_1.weight"),
    (r"blocks\.(\d+)\.ffn\.fc2\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wo.weight"),
)  # fmt: skip
_WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570,
    -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322,
    0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520,
    0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
_WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165,
    0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917,
    0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600,
    0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip


def vae_file(wan: Path | None, name: CodecName) -> Path | None:
    """The autoencoder of Wan's own layout in a folder, or None."""
    return _file(wan, _VAE.get(name, ""))


def umt5_file(wan: Path | None) -> Path | None:
    """The text encoder of Wan's own layout in a folder, or None."""
    return _file(wan, _UMT5)


def open_vae(file: Path) -> Any:
    """An `AutoencoderKLWan` with the weights of Wan's own file. Raises ModelConfigError for another file's."""
    from diffusers import AutoencoderKLWan

    state = _renamed(file, vae_name)
    try:
        channels, decoded = len(state["encoder.conv_in.weight"]), len(state["decoder.conv_in.weight"])
        shape: dict[str, Any] = {"base_dim": channels, "decoder_base_dim": decoded // 4}
        shape["z_dim"] = len(state["post_quant_conv.weight"])
        if state["encoder.conv_in.weight"].shape[1] == 12:  # 2 × 2 pixels a value: Wan2.2
            shape |= {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
            shape |= {"scale_factor_spatial": 16, "latents_mean": list(_WAN22_MEAN), "latents_std": list(_WAN22_STD)}
    except KeyError as error:
        raise ModelConfigError(f"{file} is no Wan autoencoder: it has no {error}") from error
    with torch.device("meta"):
        vae = AutoencoderKLWan(**shape)
    return _filled(vae, state, file)


def open_umt5(file: Path) -> Any:
    """A `UMT5EncoderModel` with the weights of Wan's own file. Raises ModelConfigError for another file's."""
    from transformers import UMT5Config, UMT5EncoderModel

    state = _renamed(file, umt5_name)
    first = "encoder.block.0.layer"
    try:
        (words, width), bias = state["shared.weight"].shape, f"{first}.0.SelfAttention.relative_attention_bias.weight"
        buckets, heads = state[bias].shape
        config = UMT5Config(
            vocab_size=words,
            d_model=width,
            d_kv=len(state[f"{first}.0.SelfAttention.q.weight"]) // heads,
            d_ff=len(state[f"{first}.1.DenseReluDense.wi_0.weight"]),
            num_layers=1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.block.")),
            num_heads=heads,
            relative_attention_num_buckets=buckets,
            decoder_start_token_id=0,
        )
    except KeyError as error:
        raise ModelConfigError(f"{file} is no UMT5 encoder of Wan: it has no {error}") from error
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    model = _filled(model, state, file)
    model.tie_weights()
    return model


def vae_name(key: str) -> str:
    """diffusers' name of a tensor of Wan's autoencoder. Raises ModelConfigError for one that it lacks.

    Example:
        >>> vae_name("decoder.upsamples.7.time_conv.bias")  # Wan2.1: four modules a stage, the last one resamples
        'decoder.up_blocks.1.upsamplers.0.time_conv.bias'
    """
    name = _matched(key, _VAE_NAMES) or _flat(key)
    if name is None:
        raise ModelConfigError(f"{key!r} is no tensor of a Wan autoencoder")
    for theirs, ours in _RESIDUAL.items():
        name = re.sub(rf"\.{re.escape(theirs)}\.(\w+)$", rf".{ours}.\1", name)
    return name


def umt5_name(key: str) -> str:
    """transformers' name of a tensor of Wan's UMT5 encoder. Raises ModelConfigError for one that it lacks."""
    name = _matched(key, _UMT5_NAMES)
    if name is None:
        raise ModelConfigError(f"{key!r} is no tensor of Wan's text encoder")
    return name


def _flat(key: str) -> str | None:
    """Wan2.1's decoder is one list: three residual blocks, then what resamples, stage after stage."""
    match = re.fullmatch(r"decoder\.upsamples\.(\d+)\.(.+)", key)
    if match is None:
        return None
    stage, place = divmod(int(match[1]), 4)
    return f"decoder.up_blocks.{stage}.{f'resnets.{place}' if place < 3 else 'upsamplers.0'}.{match[2]}"


def _matched(key: str, names: tuple[tuple[str, str], ...]) -> str | None:
    return next((re.sub(pattern, name, key) for pattern, name in names if re.fullmatch(pattern, key)), None)


def _file(wan: Path | None, stem: str) -> Path | None:
    files = [] if wan is None or not stem else [wan / f"{stem}{suffix}" for suffix in (".safetensors", ".pth")]
    return next((file for file in files if file.is_file()), None)


def _renamed(file: Path, rename: Callable[[str], str]) -> dict[str, Tensor]:
    try:
        return {rename(key): value for key, value in read_tensors(file)}
    except ModelConfigError as error:
        raise ModelConfigError(f"{file}: {error}") from error


def _filled(model: Any, state: dict[str, Tensor], file: Path) -> Any:
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelConfigError(f"{file} does not fit: {str(error).splitlines()[1].strip()}") from error
    return model
