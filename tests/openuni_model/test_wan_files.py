"""Wan's own files give what diffusers' layout of the same weights gives."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from openuni_model.codecs import WanCodec, open_codec  # noqa: E402
from openuni_model.config import ModelConfigError  # noqa: E402
from openuni_model.wan_files import open_umt5, umt5_name, vae_name  # noqa: E402

_INSIDE = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
           "conv_shortcut": "shortcut"}  # fmt: skip


def original_vae_key(key: str, *, nested: bool) -> str:
    """The key in Wan's repository, from diffusers'. `nested`: Wan2.2, whose stages are modules of their own."""
    part, _, rest = key.partition(".")
    if part in ("quant_conv", "post_quant_conv"):
        return f"{'conv1' if part == 'quant_conv' else 'conv2'}.{rest}"
    rest = re.sub(r"(norm1|conv1|norm2|conv2|conv_shortcut)\.(\w+)$", lambda m: f"{_INSIDE[m[1]]}.{m[2]}", rest)
    for theirs, ours in (("conv_in", "conv1"), ("norm_out", "head.0"), ("conv_out", "head.2"),
                         ("mid_block.resnets.0", "middle.0"), ("mid_block.attentions.0", "middle.1"),
                         ("mid_block.resnets.1", "middle.2")):  # fmt: skip
        rest = re.sub(rf"^{re.escape(theirs)}\.", f"{ours}.", rest)
    if nested:
        rest = re.sub(r"^down_blocks\.(\d+)\.resnets", r"downsamples.\1.downsamples", rest)
        rest = re.sub(r"^down_blocks\.(\d+)\.downsampler", r"downsamples.\1.downsamples.2", rest)
        rest = re.sub(r"^up_blocks\.(\d+)\.resnets", r"upsamples.\1.upsamples", rest)
        rest = re.sub(r"^up_blocks\.(\d+)\.upsampler", r"upsamples.\1.upsamples.3", rest)
    else:
        rest = re.sub(r"^down_blocks\.", "downsamples.", rest)
        rest = re.sub(r"^up_blocks\.(\d+)\.resnets\.(\d)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}", rest)
        rest = re.sub(r"^up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}", rest)
    return f"{part}.{rest}"


@torch.no_grad()
@pytest.mark.parametrize("name", ["wan2.1", "wan2.2"])
def test_an_autoencoder_of_either_layout_gives_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"base_dim": 8, "z_dim": 16} if name == "wan2.1" else {
        "base_dim": 8, "decoder_base_dim": 12, "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12,
        "patch_size": 2, "scale_factor_spatial": 16}  # fmt: skip
    vae = diffusers.AutoencoderKLWan(**shape)
    if name == "wan2.2":
        from openuni_model.wan_files import _WAN22_MEAN, _WAN22_STD

        vae.register_to_config(latents_mean=list(_WAN22_MEAN), latents_std=list(_WAN22_STD))
    state = vae.state_dict()
    original = {original_vae_key(key, nested=name == "wan2.2"): value for key, value in state.items()}
    assert len(original) == len(state)
    torch.save(original, tmp_path / f"{name.capitalize()}_VAE.pth")
    clip = np.random.default_rng(0).random((5, 32, 32, 3), dtype=np.float32)
    want, got = WanCodec(vae), open_codec(name, tmp_path)  # type: ignore[arg-type]
    latents = want.encode(clip)
    assert torch.equal(got.encode(clip), latents)
    assert np.array_equal(got.decode(latents), want.decode(latents))


def test_names_of_wan_2_1_are_those_of_the_converter_of_diffusers() -> None:
    convert = pytest.importorskip("diffusers.loaders.single_file_utils").convert_wan_vae_to_diffusers
    with torch.device("meta"):
        keys = diffusers.AutoencoderKLWan(base_dim=8).state_dict()
    for key in keys:
        original = original_vae_key(key, nested=False)
        assert list(convert({original: None})) == [vae_name(original)] == [key]


@torch.no_grad()
def test_umt5_of_either_layout_embeds_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.UMT5Config(
        vocab_size=40, d_model=24, d_kv=6, d_ff=32, num_layers=2, num_heads=3, decoder_start_token_id=0
    )
    model = transformers.UMT5EncoderModel(config).eval()
    names = {"shared": "token_embedding", "encoder.final_layer_norm": "norm"}
    for i in range(2):
        attention, feed = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        names |= {f"{attention}.SelfAttention.{one}": f"blocks.{i}.attn.{one}" for one in "qkvo"}
        names |= {
            f"{attention}.SelfAttention.relative_attention_bias": f"blocks.{i}.pos_embedding.embedding",
            f"{attention}.layer_norm": f"blocks.{i}.norm1",
            f"{feed}.layer_norm": f"blocks.{i}.norm2",
            f"{feed}.DenseReluDense.wi_0": f"blocks.{i}.ffn.gate.0",
            f"{feed}.DenseReluDense.wi_1": f"blocks.{i}.ffn.fc1",
            f"{feed}.DenseReluDense.wo": f"blocks.{i}.ffn.fc2",
        }
    state = model.state_dict()
    original = {f"{theirs}.weight": state[f"{ours}.weight"].clone() for ours, theirs in names.items()}
    assert {umt5_name(key) for key in original} == set(state) - {"encoder.embed_tokens.weight"}
    file = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save(original, file)
    tokens = torch.tensor([[3, 4, 5, 1]])
    back = open_umt5(file).eval()
    assert torch.equal(back(tokens).last_hidden_state, model(tokens).last_hidden_state)
    del original["norm.weight"]
    torch.save(original, file)
    with pytest.raises(ModelConfigError, match="does not fit"):
        open_umt5(file)
    torch.save({"weird": torch.zeros(1)}, file)
    with pytest.raises(ModelConfigError, match="'weird' is no tensor"):
        open_umt5(file)
