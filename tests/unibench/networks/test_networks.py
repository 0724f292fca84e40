"""Each network beside the published one: names and shapes of its file, and what it gives with equal weights.

`PUBLISHED` digests the names and shapes of the reference implementations' states, and the numbers further down are
what these give for `seeded` weights and `waves`, float32 on a CPU: VBench 0.1.5's RAFT, AMT-S and ViCLIP, and MUSIQ of
IQA-PyTorch 0.1.16. CLIP and DINO are compared with `transformers` and timm as they are installed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("open_clip")

from torch import nn  # noqa: E402

from openuni import assets  # noqa: E402
from openuni.errors import AssetError  # noqa: E402
from tests.unibench.networks.made import archived, digest, saved, seed, seeded, waves  # noqa: E402
from unibench.networks import amt, clip, dino, musiq, raft, viclip, weights  # noqa: E402
from unibench.networks.weights import batches, fill, tensors  # noqa: E402

PUBLISHED = {
    "musiq-spaq": ("40407b83c930", 248, 27_125_825),
    "amt-s": ("260e6ea545ae", 213, 2_990_543),
    "viclip-l14": ("5ca3c8b145c3", 447, 427_590_145),
}


@pytest.mark.parametrize(
    ("asset", "network"), [("musiq-spaq", musiq.Musiq), ("amt-s", amt.Amt), ("viclip-l14", viclip.ViClip)]
)
def test_a_network_has_the_names_and_shapes_of_the_published_one(asset: str, network: type[nn.Module]) -> None:
    with torch.device("meta"):
        state = network().state_dict()
    numbers = sum(value.numel() for value in state.values())
    assert (digest(state), len(state), numbers) == PUBLISHED[asset]
    # The pinned file holds these numbers as float32 and little else.
    assert 0 < assets.get(asset).size - 4 * numbers < 0.01 * assets.get(asset).size


def test_dino_has_the_names_and_shapes_of_timms_and_equals_it_on_square_frames() -> None:
    import timm

    reference = timm.create_model("vit_base_patch16_224.dino", pretrained=False, num_classes=0)
    model = dino.Dino()
    assert digest(model.state_dict()) == digest(reference.state_dict())
    numbers = sum(value.numel() for value in model.state_dict().values())
    assert numbers == 85_798_656
    assert 0 < assets.get("dino-vitb16").size - 4 * numbers < 1e5
    seeded(reference)
    model.load_state_dict(reference.state_dict())
    images = dino.prepared(next(batches(waves(2, 240, 240))))
    with torch.inference_mode():
        assert torch.allclose(model.eval()(images), reference(images), atol=1e-5)


def test_dino_stretches_its_position_code_as_its_authors_do() -> None:
    model = dino.Dino(width=8, depth=1, heads=2)
    seeded(model)
    with torch.inference_mode():
        square = model.pos_embed[:, 1:].reshape(1, 14, 14, 8).permute(0, 3, 1, 2)
        stretched = nn.functional.interpolate(square, scale_factor=(14.1 / 14, 24.1 / 14), mode="bicubic")
        expected = torch.cat([model.pos_embed[:, 0:1], stretched.permute(0, 2, 3, 1).reshape(1, -1, 8)], 1)
        assert torch.equal(model._position(14, 24), expected)
        assert model(torch.zeros(1, 3, 224, 398)).shape == (1, 8)


def test_dino_s_features_come_frame_by_frame_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_BATCH", 2)
    torch.manual_seed(0)
    measure = dino.features(saved(dino.Dino().state_dict(), tmp_path / "dino.pth"))
    frames = waves(3, 100, 120)  # more than a batch, and not square
    found = measure(frames)
    assert found.shape == (3, 768)
    assert found.dtype == np.float64
    assert np.allclose(found[2], measure(frames[2:])[0], atol=1e-4)


@pytest.mark.parametrize(("network", "numbers"), [(clip.vit_b32, 87_849_216), (clip.vit_l14, 303_966_208)])
def test_clips_image_towers_have_the_published_size(network, numbers: int) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        assert sum(value.numel() for value in network().state_dict().values()) == numbers


def test_clip_equals_transformers(tmp_path: Path) -> None:
    """With the same weights under the names of that library, from a file as OpenAI publishes it."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tower = seeded(clip.vit_b32())
    config = CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32,
        projection_dim=512, hidden_act="quick_gelu",
    )  # fmt: skip
    reference = CLIPVisionModelWithProjection(config).eval()
    reference.load_state_dict(_as_transformers(tower.state_dict()))
    frames = waves(2, 224, 300)
    found = clip.features(archived(tower, tmp_path / "ViT-B-32.pt"))(frames)
    with torch.inference_mode():
        expected = reference(pixel_values=clip.prepared(next(batches(frames)))).image_embeds
    assert found.shape == (2, 512)
    assert np.allclose(found, expected.numpy(), atol=1e-4)


def _as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    named = {
        "vision_model.embeddings.class_embedding": state["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "visual_projection.weight": state["proj"].T.contiguous(),
    }
    for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        named |= {f"vision_model.{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    for layer in range(12):
        here, there = f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            parts = state[f"{here}.attn.in_proj_{kind}"].chunk(3)
            named |= {f"{there}.self_attn.{n}_proj.{kind}": part for n, part in zip("qkv", parts, strict=True)}
            named[f"{there}.self_attn.out_proj.{kind}"] = state[f"{here}.attn.out_proj.{kind}"]
            for ours, theirs in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1")):
                named[f"{there}.{theirs}.{kind}"] = state[f"{here}.{ours}.{kind}"]
            named[f"{there}.mlp.fc2.{kind}"] = state[f"{here}.mlp.c_proj.{kind}"]
    return named


def test_frames_are_prepared_as_vbench_prepares_them() -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Lambda, Normalize, Resize

    bytes_ = torch.from_numpy(waves(2, 300, 500)).permute(0, 3, 1, 2)
    unit = Lambda(lambda x: x.float().div(255.0))
    for_dino = Compose([Resize(224, antialias=False), unit, Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    bicubic = Resize(224, interpolation=InterpolationMode.BICUBIC, antialias=False)
    for_clip = Compose([bicubic, CenterCrop(224), unit, Normalize(mean, deviation)])
    assert torch.allclose(dino.prepared(bytes_.float()), for_dino(bytes_.float()), atol=1e-6)
    assert torch.allclose(clip.prepared(bytes_.float()), for_clip(bytes_.float()), atol=1e-6)
    assert torch.allclose(clip.prepared(bytes_), for_clip(bytes_), atol=1e-6)
    assert not torch.allclose(clip.prepared(bytes_), clip.prepared(bytes_.float()), atol=1e-4)
    small = musiq.prepared(torch.from_numpy(waves(1, 480, 848)).permute(0, 3, 1, 2).float())
    assert small.shape == (1, 3, 289, 512)
    assert musiq.prepared(bytes_.float()).shape == (2, 3, 300, 500)


def test_the_aesthetic_head_is_linear_over_unit_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a small tower of the same kind; the size of the real one is tested above."""

    def small():  # type: ignore[no-untyped-def]
        return clip.VisionTransformer(224, 56, 64, 2, 2, 4.0, output_dim=768, act_layer=clip.QuickGELU)

    monkeypatch.setattr(clip, "vit_l14", small)
    tower, head = seeded(small()), seeded(nn.Linear(768, 1))
    frames = waves(3, 224, 224)
    measure = clip.aesthetic(archived(tower, tmp_path / "L.pt"), saved(head.state_dict(), tmp_path / "head.pth"))
    with torch.inference_mode():
        features = tower(clip.prepared(next(batches(frames)))).double().numpy()
    weight, bias = head.weight.double().detach().numpy()[0], float(head.bias.detach()[0])
    slow = [sum(f * w for f, w in zip(x / np.sqrt((x * x).sum()), weight, strict=True)) + bias for x in features]
    assert measure(frames) == pytest.approx(slow, abs=1e-4)


def test_musiq_gives_the_published_networks_scores(tmp_path: Path) -> None:
    measure = musiq.quality(saved(seeded(musiq.Musiq()).state_dict(), tmp_path / "musiq.pth"))
    assert measure(waves(2, 96, 160)) == pytest.approx([-0.725971, -0.688662], abs=2e-4)
    assert measure(waves(2, 300, 520)) == pytest.approx([-0.475374, -0.452445], abs=2e-4)


def test_amt_gives_the_published_networks_frame(tmp_path: Path) -> None:
    measure = amt.interpolator(saved({"state_dict": seeded(amt.Amt(), 0.7).state_dict()}, tmp_path / "amt.pth"))
    frames = waves(3, 130, 150)
    found = measure(frames[0], frames[2])
    assert found.shape == (130, 150, 3)
    assert found.dtype == np.uint8
    assert found.mean() == pytest.approx(132.47985, abs=0.02)
    expected = [
        [255, 188, 134], [249, 160, 191], [195, 115, 175], [156, 66, 118], [135, 47, 85], [255, 111, 85],
        [255, 173, 127], [217, 127, 171], [126, 92, 157], [148, 77, 98], [166, 71, 86], [174, 80, 70],
    ]  # fmt: skip
    assert np.abs(found[::43, ::50].reshape(-1, 3).astype(int) - expected).max() <= 1


def test_raft_s_file_has_the_authors_names_and_gives_their_flow(tmp_path: Path) -> None:
    shapes = json.loads((Path(__file__).parent / "raft_names.json").read_text())
    state = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
        for name, shape in shapes.items()
    }
    seed(state, 0.9)
    for name in [name for name in state if name.startswith("cnet") and ".downsample.1." in name]:
        state[name] = state[name.replace("downsample.1", "norm3")]  # the authors' file holds one norm under two names
    published = {f"module.{name}": value for name, value in state.items()}
    assert (digest(published), len(published)) == ("d2530b3324ed", 179)
    frames = waves(2, 130, 150)
    found = raft.flow(saved(published, tmp_path / "raft.pth"))(frames[0], frames[1])
    assert found.shape == (136, 152, 2)
    assert np.abs(found).mean() == pytest.approx(31.4256, abs=0.01)
    expected = [[18.0398, -7.2572], [18.3825, -20.2503], [22.6476, -23.5106], [8.6107, 3.4019], [25.9428, -20.6083],
                [16.9919, -61.7692], [22.5083, -36.5913], [23.7098, 24.8403], [25.3261, -27.4464], [44.5635, -71.8592],
                [20.1598, -30.4133], [28.0890, 19.3508], [16.9786, -3.5442], [21.1364, 1.8879], [26.6130, 11.9909],
                [13.9834, 9.6767]]  # fmt: skip
    assert np.abs(found[::45, ::50].reshape(-1, 2) - expected).max() < 0.02


def test_viclips_video_tower_gives_the_published_ones_features() -> None:
    tower = seeded(viclip.VideoTower(width=64, depth=3, heads=4, out=32, patch=14, side=56))
    with torch.inference_mode():
        found = tower(torch.from_numpy(waves(8, 56, 56)).permute(0, 3, 1, 2).float() / 255)
    expected = [0.54304, 2.22817, -0.16328, -1.73589, -0.02711, 1.23239]
    assert found[:6].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "tokens", "expected"),
    [
        (
            "A cat, wearing sunglasses &amp; a hat — dancing!",
            [49406, 320, 2368, 267, 3309, 12906, 261, 320, 3801, 2005, 6226, 256, 49407, 0],
            [-0.41423, 0.71138, -1.68962, 0.87653, 3.44776, 0.12333],
        ),
        ("very " * 60, [49406] + 30 * [1070] + [49407], [-0.04703, 1.42481, -3.72478, 1.14225, 0.7711, 0.43411]),
    ],
)
def test_viclips_text_tower_gives_the_published_ones_features(
    prompt: str, tokens: list[int], expected: list[float]
) -> None:
    tower = seeded(viclip.TextTransformer(32, width=64, heads=4, layers=3, output_dim=32, act_layer=viclip.QuickGELU))
    read = viclip.SimpleTokenizer(context_length=32)([prompt])
    assert read[0, : len(tokens)].tolist() == tokens
    with torch.inference_mode():
        assert tower(read)[0, :6].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_file_that_does_not_fit_or_is_more_than_tensors_is_refused_by_name(tmp_path: Path) -> None:
    wrong = saved({"other": torch.zeros(2)}, tmp_path / "wrong.pth")
    with pytest.raises(AssetError, match=r"wrong\.pth does not fit Linear"):
        fill(nn.Linear(2, 1), tensors(wrong), wrong)
    with pytest.raises(AssetError, match=r"code\.pth is refused"):
        tensors(saved({"call": nn.ReLU()}, tmp_path / "code.pth"))
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(AssetError, match=r"cut\.pt is not a TorchScript archive"):
        clip.image_tower(clip.vit_b32(), tmp_path / "cut.pt")
