"""The unified DiT against diffusers' Wan, and what its streams promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from torch._dynamo.testing import CompileCounter  # noqa: E402

from openuni_model.config import PRESETS, ModelConfigError, preset  # noqa: E402
from openuni_model.dit import Streams, UnifiedDiT, patchify, positions, unpatchify  # noqa: E402
from openuni_model.weights import from_wan_key, load_wan  # noqa: E402
from tests.openuni_model.conftest import random_model, tiny_config  # noqa: E402

MakeStreams = Callable[..., Streams]


def wan(seed: int = 0) -> Any:
    """diffusers' Wan transformer of the shape of `tiny_config()`, every parameter random."""
    torch.manual_seed(seed)
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=24, freq_dim=32, ffn_dim=80, num_layers=2, cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model.eval()


def unified(reference: Any, **changes: object) -> UnifiedDiT:
    model = UnifiedDiT(tiny_config(**changes))
    load_wan(model, reference.state_dict().items())
    return model.eval()


@torch.no_grad()
def test_without_aux_streams_the_model_is_wan_2_1(make_streams: MakeStreams) -> None:
    reference = wan()
    streams = make_streams(tiny_config(), (1, 1, 1), [0, 0, 0], size=(3, 4, 6))
    want = reference(streams.x_PCFHW, 1000 * streams.t_P, streams.text_PLT).sample
    torch.testing.assert_close(unified(reference)(streams), want, atol=1e-5, rtol=0)
    assert want.std() > 0.1


@torch.no_grad()
def test_without_aux_streams_the_model_is_wan_2_2_with_a_timestep_per_token(make_streams: MakeStreams) -> None:
    reference = wan()
    streams = make_streams(tiny_config(), (1, 1, 1), [0, 0, 0], size=(3, 4, 6))
    tokens = 3 * 2 * 3
    want = reference(streams.x_PCFHW, 1000 * streams.t_P[:, None].expand(-1, tokens), streams.text_PLT).sample
    torch.testing.assert_close(unified(reference)(streams), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_two_streams_are_wan_2_2_on_twice_the_width_with_two_timesteps(make_streams: MakeStreams) -> None:
    """Independent of our layout: diffusers sees one clip, its left half at one timestep, its right at another."""
    reference = wan()
    streams = make_streams(tiny_config(), (2, 2), [0, 1, 0, 2], role=[0, 1, 0, 0], size=(3, 4, 6))
    same_text = streams.text_PLT[::2].repeat_interleave(2, dim=0)
    streams = replace(streams, text_PLT=same_text)
    wide = streams.x_PCFHW.unflatten(0, (2, 2)).permute(0, 2, 3, 4, 1, 5).flatten(4)
    t_BFHW = (1000 * streams.t_P).view(2, 1, 1, 2).repeat_interleave(3, dim=3).expand(2, 3, 2, 6)
    want = reference(wide, t_BFHW.flatten(1), same_text[::2]).sample
    want = want.unflatten(4, (2, 6)).permute(0, 4, 1, 2, 3, 5).flatten(0, 1)
    torch.testing.assert_close(unified(reference, rope="width_offset")(streams), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_frames_of_their_own_time_are_wan_2_2_with_a_timestep_per_token(make_streams: MakeStreams) -> None:
    """As Wan2.2 begins from an image: the first frame at 0, the others at t."""
    reference = wan()
    streams = make_streams(tiny_config(), (1, 1), [0, 0], size=(3, 4, 6))
    t_PF = streams.t_P[:, None] * torch.tensor([0.0, 1.0, 0.5])
    tokens_a_frame = 2 * 3
    want = reference(streams.x_PCFHW, 1000 * t_PF.repeat_interleave(tokens_a_frame, 1), streams.text_PLT).sample
    torch.testing.assert_close(unified(reference)(replace(streams, t_P=t_PF)), want, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"rope": "width_offset"}, {"patch": (2, 2, 2), "absolute": True}])
def test_one_time_for_all_frames_gives_the_bits_of_one_time_a_stream(
    make_streams: MakeStreams, changes: dict[str, object]
) -> None:
    model = random_model(tiny_config(**changes))
    streams = make_streams(model.config, (2, 1), [0, 1, 0], role=[1, 0, 0], size=(4, 4, 6))
    by_frame = replace(streams, t_P=streams.t_P[:, None].expand(-1, 4))
    assert torch.equal(model(by_frame), model(streams))
    with pytest.raises(ModelConfigError, match="3 times do not fit latents of 4 frames"):
        model(replace(streams, t_P=streams.t_P[:, None].expand(-1, 3)))


def test_compiled_blocks_paint_the_same_and_are_not_compiled_anew_for_other_batches(make_streams: MakeStreams) -> None:
    torch.compiler.reset()
    config = tiny_config(layers=4)
    plain, compiled = random_model(config), random_model(config)
    counter = CompileCounter()
    compiled.compile_blocks(backend=counter)
    compilations = []
    for counts, size in (
        ((2, 1, 2), (2, 4, 6)),
        ((1, 2, 2), (2, 4, 6)),
        ((3, 1, 1), (2, 4, 6)),
        ((1, 3, 2), (3, 4, 4)),
    ):
        streams = make_streams(config, counts, [k for n in counts for k in range(n)], size=size)
        torch.testing.assert_close(compiled(streams), plain(streams), atol=1e-5, rtol=1e-5)
        compilations.append(counter.frame_count)
    assert compilations[0] > 0
    assert len(set(compilations)) == 1
    torch.compiler.reset()


def test_every_parameter_of_the_diffusers_class_has_one_place_and_none_is_left_over() -> None:
    for keys in (wan().state_dict(), diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=3, ffn_dim=8, text_dim=8).state_dict()):  # fmt: skip
        mapped = [from_wan_key(key) for key in keys]
        assert len(set(mapped)) == len(keys)
        layers = 1 + max(int(key.split(".")[1]) for key in keys if key.startswith("blocks."))
        ours = set(UnifiedDiT(tiny_config(layers=layers)).state_dict())
        assert ours - set(mapped) == {"modality_KD", "role_2D"}
        assert set(mapped) <= ours


def test_a_wan_of_another_size_or_kind_is_refused_by_name() -> None:
    with pytest.raises(ModelConfigError, match=r"blocks\.1"):
        load_wan(UnifiedDiT(tiny_config(layers=1)), wan().state_dict().items())
    with pytest.raises(ModelConfigError, match="lack"):
        load_wan(UnifiedDiT(tiny_config(layers=3)), wan().state_dict().items())
    with pytest.raises(ModelConfigError, match="does not fit"):
        load_wan(UnifiedDiT(tiny_config(ffn=64)), wan().state_dict().items())
    with pytest.raises(ModelConfigError, match="image-to-video"):
        from_wan_key("blocks.0.attn2.add_k_proj.weight")


@torch.no_grad()
def test_a_clip_is_computed_alike_alone_and_in_a_mixed_batch(make_streams: MakeStreams) -> None:
    config = tiny_config()
    model = random_model(config)
    streams = make_streams(config, (2, 1, 3, 1), [0, 1, 0, 1, 0, 2, 2], role=[0, 1, 0, 1, 0, 0, 0])
    together, start = model(streams), 0
    for count in streams.counts:
        span = slice(start, start + count)
        parts = (streams.x_PCFHW, streams.t_P, streams.modality_P, streams.role_P, streams.text_PLT)
        alone = model(Streams(*(part[span] for part in parts), counts=(count,)))
        torch.testing.assert_close(together[span], alone, atol=1e-5, rtol=1e-5)
        start += count


@torch.no_grad()
def test_views_of_a_clip_see_each_other_and_other_clips_are_not_seen(make_streams: MakeStreams) -> None:
    config = tiny_config()
    model = random_model(config)
    streams = make_streams(config, (2, 2), [0, 1, 0, 1])
    changed = streams.x_PCFHW.clone()
    changed[1] += 1
    difference = (model(streams) - model(streams.with_x(changed))).abs().amax((1, 2, 3, 4))
    assert difference[0] > 1e-3
    assert difference[1] > 1e-3
    assert difference[2:].max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("switcher", [True, False])
def test_the_switcher_tells_modalities_apart_and_can_be_switched_off(make_streams: MakeStreams, switcher: bool) -> None:
    config = tiny_config(switcher=switcher)
    model = random_model(config)
    streams = make_streams(config, (1,), [1])
    other = replace(streams, modality_P=torch.tensor([2]))
    assert bool(torch.equal(model(streams), model(other))) is not switcher


@torch.no_grad()
def test_each_stream_attends_to_its_own_text(make_streams: MakeStreams) -> None:
    config = tiny_config(layers=1)  # with one layer no text reaches another stream
    model = random_model(config)
    with torch.no_grad():
        streams = make_streams(config, (2,), [0, 1])
        text = streams.text_PLT.clone()
        text[1] += 1
        difference = (model(streams) - model(replace(streams, text_PLT=text))).abs().amax((1, 2, 3, 4))
    assert difference[0] == 0
    assert difference[1] > 1e-3


def test_experts_of_absent_modalities_get_a_zero_gradient_rather_than_none(make_streams: MakeStreams) -> None:
    """Ranks that drew different modalities must still reduce the same tensors."""
    config = tiny_config()
    model = random_model(config)
    model(make_streams(config, (2,), [0, 1])).square().mean().backward()
    for name in ("in_weight_KDI", "in_bias_KD", "out_weight_KOD", "out_bias_KO", "modality_KD"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient[:2].abs().sum() > 0
        assert gradient[2].abs().sum() == 0


def test_checkpointing_activations_changes_no_gradient(make_streams: MakeStreams) -> None:
    config = tiny_config()
    gradients = []
    for on in (False, True):
        model = random_model(config)
        model.checkpoint_blocks = on
        model(make_streams(config, (2, 1), [0, 1, 0])).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=0, rtol=0)


def test_bf16_weights_under_autocast_train_and_stay_near_float32(make_streams: MakeStreams) -> None:
    """What FSDP2 hands the model on a GPU: gathered bf16 weights and float32 inputs, under autocast."""
    config = tiny_config()
    streams = make_streams(config, (2, 1), [0, 1, 0])
    want = random_model(config, scale=0.1)(streams)
    model = random_model(config, scale=0.1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(streams)
    out.square().mean().backward()
    assert out.dtype == torch.float32
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    torch.testing.assert_close(out, want, atol=0.05 * float(want.abs().max()), rtol=0)


def test_patches_are_the_convolution_of_wan_and_invert() -> None:
    torch.manual_seed(0)
    patch, grid = (2, 2, 3), (2, 3, 2)
    x = torch.randn(2, 4, 4, 6, 6)
    convolution = torch.nn.Conv3d(4, 5, patch, patch)
    want = convolution(x).flatten(2).transpose(1, 2)
    tokens = patchify(x, patch)
    got = tokens @ convolution.weight.flatten(1).T + convolution.bias
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    channels_last = tokens.unflatten(2, (4, 12)).transpose(2, 3).flatten(2)
    torch.testing.assert_close(unpatchify(channels_last, grid, patch), x, atol=0, rtol=0)


def test_positions_are_sines_and_cosines_of_frame_row_and_column() -> None:
    grid, width = (3, 2, 4), 22
    code = positions(grid, width, torch.device("cpu"))
    for n, where in enumerate(product(*map(range, grid))):
        want = []
        for place, size in zip(where, (10, 6, 6), strict=True):
            angles = [place * math.pi / 2 * 16 ** (-2 * i / size) for i in range(size // 2)]
            want += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert code[n].tolist() == pytest.approx(want, abs=1e-6)
    assert torch.pdist(positions((4, 16, 16), 128, torch.device("cpu"))).min() > 0.5


def test_only_pixel_presets_have_a_position_code() -> None:
    assert [name for name in PRESETS if preset(name).absolute] == ["nano", "micro"]


@torch.no_grad()
def test_the_position_code_tells_a_token_where_it_is_and_rope_alone_does_not(make_streams: MakeStreams) -> None:
    """On a picture of one colour all tokens look alike, so relative positions cannot tell them apart."""
    for absolute in (False, True):
        config = tiny_config(absolute=absolute)
        streams = make_streams(config, (1,), [0])
        out = random_model(config)(streams.with_x(torch.full_like(streams.x_PCFHW, 0.5)))
        spread = out[..., ::2, ::2].std((2, 3, 4)).max()
        assert (spread > 0.1) if absolute else (spread < 1e-4)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("nano", 1.5e6, 3e6),
        ("micro", 8e6, 12e6),
        ("small", 45e6, 60e6),
        ("1.3b", 1.3e9, 1.5e9),
        ("5b", 4.9e9, 5.2e9),
        ("10b", 9.8e9, 10.3e9),
    ],
)
def test_presets_have_the_stated_sizes(name: str, least: float, most: float) -> None:
    with torch.device("meta"):
        model = UnifiedDiT(preset(name, modalities=("rgb", "depth", "flow", "segmentation", "skeleton", "densepose")))
    assert least <= sum(p.numel() for p in model.parameters()) <= most


def test_a_sixth_view_needs_no_change_here() -> None:
    names = ("rgb", "depth", "flow", "segmentation", "skeleton", "densepose", "normals")
    model = UnifiedDiT(preset("nano", modalities=names))
    assert len(model.in_weight_KDI) == 7
    assert model.config.index("normals") == 6
    assert set(PRESETS) == {"nano", "micro", "small", "1.3b", "5b", "10b"}


def test_wrong_streams_are_refused_in_one_sentence(make_streams: MakeStreams) -> None:
    config = tiny_config()
    model = UnifiedDiT(config)
    good = make_streams(config, (2,), [0, 1])
    for bad, message in (
        (replace(good, counts=(1,)), "do not fit clips"),
        (good.with_x(good.x_PCFHW[:, :3]), "another codec"),
        (good.with_x(good.x_PCFHW[..., :5]), "do not divide"),
        (replace(good, text_PLT=good.text_PLT[..., :5]), "another encoder"),
    ):
        with pytest.raises(ModelConfigError, match=message):
            model(bad)
