"""The public UnityVideo weights against an independent restatement of their network, with small random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch.nn.functional as F  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from openuni_model.config import ModelConfigError  # noqa: E402
from openuni_model.dit import CONDITION, GENERATE, Streams  # noqa: E402
from openuni_model.sampling import Guidance, LatentRequest, noise_of, sample_views  # noqa: E402
from openuni_model.unityvideo import VIEWS, model_from, open_unityvideo  # noqa: E402

D, FFN, LAYERS, HEADS, C, TEXT, FREQUENCIES = 256, 96, 2, 2, 4, 24, 32
SIZE = (2, 4, 6)


def released(seed: int = 0, channels: int = C) -> dict[str, Tensor]:
    """A checkpoint with the keys and shapes of the release, every value random."""
    shapes: dict[str, tuple[int, ...]] = {
        "base.patch_embedding.weight": (D, channels, 1, 2, 2),
        "base.patch_embedding.bias": (D,),
        "base.time_embedding.0.weight": (D, FREQUENCIES),
        "base.time_embedding.0.bias": (D,),
        "base.time_embedding.2.weight": (D, D),
        "base.time_embedding.2.bias": (D,),
        "base.time_projection.1.weight": (6 * D, D),
        "base.time_projection.1.bias": (6 * D,),
        "base.text_embedding.0.weight": (D, TEXT),
        "base.text_embedding.0.bias": (D,),
        "base.text_embedding.2.weight": (D, D),
        "base.text_embedding.2.bias": (D,),
        "flow_patch_embedding.weight": (D, channels, 1, 2, 2),
        "flow_patch_embedding.bias": (D,),
        "flow_in.weight": (D, D),
        "flow_in.bias": (D,),
    }
    for head in ("base.head", "flow_head"):
        shapes |= {
            f"{head}.head.weight": (4 * channels, D),
            f"{head}.head.bias": (4 * channels,),
            f"{head}.modulation": (1, 2, D),
        }
    for name in VIEWS.values():
        shapes[f"modality_embeddings.{name}"] = (D,)
    for i in range(LAYERS):
        block = f"base.blocks.{i}"
        for attention in ("self_attn", "cross_attn"):
            for one in "qkvo":
                shapes |= {f"{block}.{attention}.{one}.weight": (D, D), f"{block}.{attention}.{one}.bias": (D,)}
            shapes |= {f"{block}.{attention}.norm_{one}.weight": (D,) for one in "qk"}
        shapes |= {f"{block}.norm3.weight": (D,), f"{block}.norm3.bias": (D,), f"{block}.modulation": (1, 6, D)}
        shapes |= {f"{block}.ffn.0.weight": (FFN, D), f"{block}.ffn.0.bias": (FFN,)}
        shapes |= {f"{block}.ffn.2.weight": (D, FFN), f"{block}.ffn.2.bias": (D,)}
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * 0.08 for key, shape in shapes.items()}


def save_release(folder: Path) -> Path:
    """A small random checkpoint beside an autoencoder and a text encoder, laid out as downloaded."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    from tests.openuni_model.test_texts import save_tiny_umt5

    torch.manual_seed(0)
    (folder / "checkpoints").mkdir(parents=True)
    save_file(released(channels=48), folder / "checkpoints" / "unityvideo.safetensors")
    save_tiny_umt5(folder, transformers)
    diffusers.AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=48, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
    ).save_pretrained(folder / "vae")  # fmt: skip
    return folder


def restated(
    w: dict[str, Tensor], rgb: Tensor, view: Tensor, t: float, texts: tuple[Tensor, Tensor], name: str
) -> tuple[Tensor, Tensor]:
    """Their forward pass for one clip, written from its description: two latents `[C, F, H, W]` to two velocities.

    One sequence of frames × rows × (columns of RGB, then of the view); one time; each half reads its own text.
    """
    frames, rows, columns = SIZE[0], SIZE[1] // 2, SIZE[2] // 2
    half = FREQUENCIES // 2

    def linear(x: Tensor, key: str) -> Tensor:
        return x @ w[f"{key}.weight"].T + w[f"{key}.bias"]

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()

    def rms(x: Tensor, key: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{key}.weight"]

    angle = 1000 * t * 10_000.0 ** (-torch.arange(half) / half)
    time = linear(
        F.silu(linear(torch.cat([angle.cos(), angle.sin()]), "base.time_embedding.0")), "base.time_embedding.2"
    )
    modulation = linear(F.silu(time), "base.time_projection.1").view(6, D)
    contexts = [
        linear(F.gelu(linear(text, "base.text_embedding.0"), approximate="tanh"), "base.text_embedding.2")
        for text in texts
    ]

    def tokens(x: Tensor, key: str) -> Tensor:
        grid = F.conv3d(x[None], w[f"{key}.weight"], w[f"{key}.bias"], stride=(1, 2, 2))[0]
        return grid.permute(1, 2, 3, 0)  # frames, rows, columns, D

    right = linear(tokens(view, "flow_patch_embedding"), "flow_in") + w[f"modality_embeddings.{name}"]
    x = torch.cat([tokens(rgb, "base.patch_embedding"), right], dim=2).reshape(-1, D)

    E = D // HEADS
    spatial = 2 * (E // 6)
    axes = (torch.arange(frames), torch.arange(rows), torch.arange(2 * columns))
    where = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    turns = torch.cat(
        [
            where[:, axis, None] * 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
            for axis, size in enumerate((E - 2 * spatial, spatial, spatial))
        ],
        dim=1,
    )
    unit = torch.polar(torch.ones_like(turns), turns)[:, None]

    def rotated(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.view(-1, HEADS, E // 2, 2).double().contiguous())
        return torch.view_as_real(pairs * unit).flatten(2).float()

    def attention(x: Tensor, source: Tensor, key: str, *, turn: bool) -> Tensor:
        q, k = rms(linear(x, f"{key}.q"), f"{key}.norm_q"), rms(linear(source, f"{key}.k"), f"{key}.norm_k")
        v = linear(source, f"{key}.v").view(-1, HEADS, E)
        q, k = (rotated(q), rotated(k)) if turn else (q.view(-1, HEADS, E), k.view(-1, HEADS, E))
        weights = (torch.einsum("qhe,khe->hqk", q, k) / E**0.5).softmax(-1)
        return linear(torch.einsum("hqk,khe->qhe", weights, v).reshape(-1, D), f"{key}.o")

    left = torch.arange(len(x)) % (2 * columns) < columns
    for i in range(LAYERS):
        block = f"base.blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = w[f"{block}.modulation"][0] + modulation
        y = norm(x) * (1 + scale1) + shift1
        x = x + gate1 * attention(y, y, f"{block}.self_attn", turn=True)
        y = norm(x) * w[f"{block}.norm3.weight"] + w[f"{block}.norm3.bias"]
        read = [attention(y, context, f"{block}.cross_attn", turn=False) for context in contexts]
        x = x + torch.where(left[:, None], read[0], read[1])
        y = norm(x) * (1 + scale2) + shift2
        x = x + gate2 * linear(F.gelu(linear(y, f"{block}.ffn.0"), approximate="tanh"), f"{block}.ffn.2")

    def out(x: Tensor, key: str) -> Tensor:
        shift, scale = w[f"{key}.modulation"][0] + time
        y = linear(norm(x) * (1 + scale) + shift, f"{key}.head").view(frames, rows, columns, 2, 2, C)
        return y.permute(5, 0, 1, 3, 2, 4).reshape(C, *SIZE)

    return out(x[left], "base.head"), out(x[~left], "flow_head")


def embed(text: str) -> Tensor:
    return torch.randn(5, TEXT, generator=torch.Generator().manual_seed(sum(map(ord, text))))


@torch.no_grad()
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("roles", [(GENERATE, GENERATE), (CONDITION, GENERATE), (GENERATE, CONDITION)])
def test_both_streams_of_every_task_and_view_are_theirs(view: str, roles: tuple[int, int]) -> None:
    weights = released()
    model = model_from(weights.items())
    x = torch.randn(2, C, *SIZE, generator=torch.Generator().manual_seed(1))
    texts = torch.stack([embed("caption"), embed("prompt")])
    want = torch.stack(restated(weights, x[0], x[1], 0.37, (texts[0], texts[1]), VIEWS[view]))
    t = torch.tensor([0.37 if role == GENERATE else 0.0 for role in roles])
    modality = torch.tensor([0, model.config.index(view)])
    got = model(Streams(x, t, modality, torch.tensor(roles), texts, (2,)))
    assert want.std() > 0.1
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    turned = model(Streams(x.flip(0), t.flip(0), modality.flip(0), torch.tensor(roles).flip(0), texts.flip(0), (2,)))
    torch.testing.assert_close(turned.flip(0), want, atol=1e-5, rtol=1e-5)  # whatever the order of a clip's streams


@torch.no_grad()
def test_sampling_is_their_euler_with_shift_1_their_prompts_and_no_guidance() -> None:
    """Estimation, where the view is generated and RGB stands still: the loop of their inference, by hand."""
    weights = released()
    model = model_from(weights.items())
    rgb = torch.randn(C, *SIZE, generator=torch.Generator().manual_seed(2))
    request = LatentRequest("clip", "", ("depth",), {"rgb": rgb}, SIZE, seed=4)
    [got] = sample_views(model, [request], embed, guidance=Guidance(controls=(1.0,)), steps=4)
    prompt = "depth map visualization, scene depth from camera, near in warm colors and far in cool colors."
    texts = (embed(""), embed(prompt))
    [x] = noise_of(request, C)
    for start, stop in ((1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)):
        x = x + (stop - start) * restated(weights, rgb, x, start, texts, "depth")[1]
    torch.testing.assert_close(got["depth"], x, atol=2e-5, rtol=1e-5)


def test_a_released_file_is_found_kept_in_its_dtype_and_others_are_refused(tmp_path: Path) -> None:
    weights = {key: value.to(torch.bfloat16) for key, value in released().items()}
    with pytest.raises(ModelConfigError, match="KlingTeam/UnityVideo"):
        open_unityvideo(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    save_file(weights, tmp_path / "checkpoints/step.safetensors")
    model = open_unityvideo(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    x, texts = torch.randn(2, C, *SIZE), torch.stack([embed("a"), embed("b")])
    out = model(Streams(x, torch.full((2,), 0.5), torch.tensor([0, 1]), torch.tensor([0, 0]), texts, (2,)))
    assert out.isfinite().all()
    assert out.dtype == torch.float32
    del weights["base.blocks.1.ffn.0.bias"]
    save_file(weights, tmp_path / "checkpoints/step.safetensors")
    with pytest.raises(ModelConfigError, match=r"step\.safetensors.*blocks\.1\.ffn"):
        open_unityvideo(tmp_path)
