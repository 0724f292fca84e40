"""Model folders: what was saved is loaded, Wan's files are read, a new modality joins, damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from openuni_model.config import ModelConfigError  # noqa: E402
from openuni_model.dit import Streams, UnifiedDiT  # noqa: E402
from openuni_model.weights import load_model, load_wan, read_wan, save_model, save_wan  # noqa: E402
from tests.openuni_model.conftest import random_model, tiny_config  # noqa: E402

MakeStreams = Callable[..., Streams]


@torch.no_grad()
def test_a_saved_model_comes_back_exactly(tmp_path: Path, make_streams: MakeStreams) -> None:
    model = random_model(tiny_config(rope="width_offset"))
    save_model(tmp_path, model.config, model.state_dict(), "# Card\n")
    back = load_model(tmp_path)
    streams = make_streams(model.config, (2,), [0, 1])
    assert back.config == model.config
    assert torch.equal(back(streams), model(streams))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


@torch.no_grad()
def test_a_model_gains_a_modality_and_keeps_the_others(tmp_path: Path, make_streams: MakeStreams) -> None:
    model = random_model(tiny_config())
    save_model(tmp_path, model.config, model.state_dict(), "")
    grown = load_model(tmp_path, modalities=("depth", "normals", "rgb", "flow"))
    old = make_streams(model.config, (2,), [0, 1])
    new = Streams(old.x_PCFHW, old.t_P, torch.tensor([2, 0]), old.role_P, old.text_PLT, old.counts)
    torch.testing.assert_close(grown(new), model(old), atol=0, rtol=0)
    assert torch.equal(grown.in_weight_KDI[1], model.in_weight_KDI[0])
    assert grown.modality_KD is not None
    assert not grown.modality_KD[1].any()


@torch.no_grad()
def test_a_wan_folder_as_diffusers_writes_it_is_read_in_shards(tmp_path: Path, make_streams: MakeStreams) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    wan = diffusers.WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=24, freq_dim=32,
        ffn_dim=80, num_layers=2, rope_max_seq_len=64,
    )  # fmt: skip
    wan.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = UnifiedDiT(tiny_config())
    load_wan(model, read_wan(tmp_path))
    streams = make_streams(tiny_config(), (1,), [0])
    want = wan(streams.x_PCFHW, 1000 * streams.t_P, streams.text_PLT).sample
    torch.testing.assert_close(model(streams), want, atol=1e-5, rtol=0)


ORIGINAL = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("proj_out", "head.head"),
    (".attn1.", ".self_attn."), (".attn2.", ".cross_attn."), (".to_out.0.", ".o."),
    (".to_q.", ".q."), (".to_k.", ".k."), (".to_v.", ".v."),
    (".norm2.", ".norm3."), (".ffn.net.0.proj.", ".ffn.0."), (".ffn.net.2.", ".ffn.2."),
)  # fmt: skip


def as_wan_names_it(key: str) -> str:
    """A diffusers name as Wan's own repository has it, after diffusers' conversion script read backwards."""
    for theirs, original in ORIGINAL:
        key = key.replace(theirs, original)
    if key == "scale_shift_table":
        return "head.modulation"
    return key.replace("scale_shift_table", "modulation")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_wans_own_layout_is_read_as_diffusers_is(suffix: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    wan = diffusers.WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=24, freq_dim=32,
        ffn_dim=80, num_layers=2, rope_max_seq_len=64,
    )  # fmt: skip
    state = {as_wan_names_it(key): value.detach().to(torch.bfloat16) for key, value in wan.state_dict().items()}
    assert {"head.modulation", "blocks.0.modulation", "blocks.1.norm3.bias", "time_projection.1.weight"} <= set(state)
    half = len(state) // 2
    parts = [dict(list(state.items())[:half]), dict(list(state.items())[half:])]
    for number, part in enumerate(parts):
        file = tmp_path / f"wan-{number}.{suffix}"
        save_file(part, file) if suffix == "safetensors" else torch.save(part, file)
    assert all(value.dtype == torch.bfloat16 for _, value in read_wan(tmp_path))  # each in its own dtype
    theirs, ours = UnifiedDiT(tiny_config()), UnifiedDiT(tiny_config())
    load_wan(theirs, ((key, value.to(torch.bfloat16)) for key, value in wan.state_dict().items()))
    load_wan(ours, read_wan(tmp_path))
    for (name, a), (_, b) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_that_holds_code_is_refused_unread(tmp_path: Path) -> None:
    torch.save({"x": Path("code")}, tmp_path / "wan.pth")
    with pytest.raises(ModelConfigError, match=r"wan\.pth is damaged or holds more than tensors"):
        list(read_wan(tmp_path))
    torch.save({"epoch": 3}, tmp_path / "wan.pth")
    with pytest.raises(ModelConfigError, match=r"wan\.pth is no table of tensors"):
        list(read_wan(tmp_path))
    (tmp_path / "wan.pth").write_bytes(b"PK cut")
    with pytest.raises(ModelConfigError, match="download it again"):
        list(read_wan(tmp_path))


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelConfigError, match="no model here"):
        load_model(tmp_path)
    with pytest.raises(ModelConfigError, match="give the 'transformer' folder of a Wan model"):
        list(read_wan(tmp_path))
    save_model(tmp_path, tiny_config(), random_model(tiny_config()).state_dict(), "")
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    config.write_text(config.read_text().replace('"layers": 2', '"layers": 3'))
    with pytest.raises(ModelConfigError, match=r"not those of its config.json.*blocks\.2"):
        load_model(tmp_path)
    config.write_text(config.read_text().replace('"eps"', '"epsilon"'))
    with pytest.raises(ModelConfigError, match="epsilon"):
        load_model(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelConfigError, match="damaged"):
        load_model(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"own_tables": True}, {"switcher": False}])
def test_the_wan_in_a_model_generates_what_its_rgb_alone_does(
    tmp_path: Path, make_streams: MakeStreams, changes: dict[str, object]
) -> None:
    """Every parameter random, also what Wan has no place for: switcher and role are in the time embedding then."""
    diffusers = pytest.importorskip("diffusers")
    model = random_model(tiny_config(modalities=("depth", "rgb", "flow"), **changes))
    save_wan(tmp_path, model)
    wan = diffusers.WanTransformer3DModel.from_pretrained(tmp_path / "transformer")
    streams = make_streams(model.config, (1, 1), [1, 1])
    want = wan(streams.x_PCFHW, 1000 * streams.t_P, streams.text_PLT).sample
    torch.testing.assert_close(model(streams), want, atol=1e-5, rtol=1e-5)
    back = UnifiedDiT(tiny_config())
    load_wan(back, read_wan(tmp_path / "transformer"))
    with pytest.raises(ModelConfigError, match="pixel model is no Wan"):
        save_wan(tmp_path, random_model(tiny_config(prediction="x")))
