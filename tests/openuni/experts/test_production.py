"""Production experts: their libraries' real networks, with random weights in the published format and names."""

from __future__ import annotations

import hashlib
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("transformers")

from transformers import DepthAnythingConfig, DPTImageProcessor  # noqa: E402

from openuni import assets  # noqa: E402
from openuni.errors import AssetError, OpenUniError  # noqa: E402
from openuni.experts import depth_anything, raft  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.experts.weights import Batches, device, precision  # noqa: E402
from openuni.modalities.depth import DepthModality  # noqa: E402
from openuni.modalities.flow import FlowModality  # noqa: E402
from openuni_pipelines.engine.card import _licenses  # noqa: E402
from tests.openuni.experts.published import safetensors_bytes, small_depth_anything  # noqa: E402


def moving(frames: int = 3, height: int = 72, width: int = 100) -> DecodedClip:
    random = np.random.default_rng(0)
    wide = random.integers(0, 255, (height, width + 2 * frames, 3), dtype=np.uint8)
    return DecodedClip("clip", np.stack([wide[:, 2 * t : 2 * t + width] for t in range(frames)]), 16.0, {})


def test_raft_gives_what_torchvision_gives_on_a_frame_smaller_than_its_pyramid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    bare = raft_small(weights=None).eval()
    torch.save(bare.state_dict(), tmp_path / "raft.pth")
    monkeypatch.setattr(raft.assets, "path", lambda name: tmp_path / "raft.pth")
    clip, expert = moving(), raft.RaftSmall()
    expert.setup()
    annotation = expert.annotate(clip)
    FlowModality().check(annotation.value)
    assert annotation.value.forward.shape == (2, 72, 100, 2)
    sides = ((28, 28), (14, 14), (0, 0))
    first = np.pad(clip.frames[0], sides, mode="edge").astype(np.float32) / 127.5 - 1
    second = np.pad(clip.frames[1], sides, mode="edge").astype(np.float32) / 127.5 - 1
    with torch.inference_mode():
        pair = [torch.from_numpy(x.transpose(2, 0, 1)[None].copy()) for x in (first, second)]
        expected = bare(*pair, num_flow_updates=32)[-1][0].permute(1, 2, 0).numpy()[28:100, 14:114]
    np.testing.assert_allclose(annotation.value.forward[0], expected, atol=1e-4)
    again = expert.annotate(clip)
    np.testing.assert_array_equal(annotation.value.forward, again.value.forward)
    with pytest.raises(OpenUniError, match="two frames"):
        expert.annotate(moving(frames=1))


def test_raft_marks_frames_that_a_slow_source_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames 0 1 1 2: the pair in the middle is unknown, and the others are what they are without the repetition."""
    monkeypatch.setattr(raft.RaftSmall, "setup", lambda self: setattr(self, "_batches", Batches(4)))
    seen: list[int] = []

    def flow(self: raft.Raft, first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
        seen.append(len(first))
        return np.full((len(first), 128, 128, 2), 1.0 if len(seen) == 1 else -1.0, np.float32)

    monkeypatch.setattr(raft.RaftSmall, "_flow", flow)
    expert = raft.RaftSmall()
    expert.setup()
    clip = moving()
    annotation = expert.annotate(DecodedClip("clip", clip.frames[[0, 1, 1, 2]], 16.0, {}))
    FlowModality().check(annotation.value)
    assert seen == [2, 2]
    assert np.isnan(annotation.value.forward[1]).all()
    assert np.all(annotation.value.forward[[0, 2]] == 1)
    assert not annotation.value.occluded[1].any()
    assert annotation.scores == {"flow_repeated": 1 / 3}
    assert annotation.confidence == 1.0
    assert annotation.provenance == {"device": str(device()), "batch": 4, "precision": "float32"}


def test_raft_large_takes_the_published_names_and_refuses_foreign_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models.optical_flow import raft_large, raft_small

    monkeypatch.setattr(raft.assets, "path", lambda name: tmp_path / "raft.pth")
    torch.save(raft_large(weights=None).state_dict(), tmp_path / "raft.pth")
    raft.RaftLarge().setup()
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    with pytest.raises(AssetError, match=r"raft\.pth does not fit RAFT"):
        raft.RaftLarge().setup()
    (tmp_path / "raft.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(AssetError, match="not a file of plain tensors"):
        raft.RaftLarge().setup()


def _published(name: str) -> str:
    """The name that a parameter has in the published files, which are older than transformers 5."""
    for now, then in {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}.items():
        name = name.replace(f"attention.{now}", f"attention.{then}")
    return name.replace("attention.o_proj", "attention.output.dense")


@pytest.mark.parametrize(
    ("expert", "millions"), [(depth_anything.DepthAnythingV2Large, 335.3), (depth_anything.DepthAnythingV2Base, 97.5)]
)
def test_depth_anything_beyond_small_is_the_published_network_and_not_for_profit(
    expert: type[depth_anything.DepthAnythingV2], millions: float
) -> None:
    """Parameters as the model card has them, in a file of the published size; images are prepared as for Small."""
    from transformers import DepthAnythingForDepthEstimation

    from openuni.experts.sets import check_commercial

    config, images = expert()._configured()
    with torch.device("meta"):
        network = DepthAnythingForDepthEstimation(config)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert safetensors_bytes(network, _published) == expert.assets[0].size
    pixels = images(images=[np.zeros((480, 640, 3), np.uint8)], return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 518, 686)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    with pytest.raises(OpenUniError, match=f"{expert.name}: its weights are CC-BY-NC"):
        check_commercial([expert.name])


@pytest.mark.parametrize(
    ("frame", "seen"),
    [((480, 640), (518, 686)), ((360, 640), (518, 924)), ((1080, 1920), (518, 924)), ((256, 144), (924, 518))],
)
def test_depth_anything_sees_518_pixels_on_the_shorter_side(frame: tuple[int, int], seen: tuple[int, int]) -> None:
    """As its authors have it, whatever the size; the library would show it 294 × 518 of 360 × 640."""
    expert = depth_anything.DepthAnythingV2Large()
    _, expert._processor = expert._configured()
    assert expert.prepared(np.zeros((1, *frame, 3), np.uint8)).shape == (1, 3, *seen)


def test_what_was_made_with_weights_of_an_unpinned_hash_says_which_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base, small and random, as it lies in the cache once the hub has told its hash."""
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path / "home"))
    weights, config, images = small_depth_anything(tmp_path / "made")
    asset = replace(depth_anything.BASE[0], size=weights.stat().st_size)
    monkeypatch.setattr(depth_anything.DepthAnythingV2Base, "assets", (asset,))
    made = DepthAnythingConfig.from_json_file(str(config)), DPTImageProcessor.from_json_file(str(images))
    monkeypatch.setattr(depth_anything.DepthAnythingV2Base, "_configured", lambda self: made)
    expert = depth_anything.DepthAnythingV2Base()
    before = expert.fingerprint()
    with pytest.raises(AssetError, match="openuni assets fetch depth-anything-v2-base"):
        expert.setup()
    file = assets.place(asset)
    file.parent.mkdir(parents=True)
    file.write_bytes(weights.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name("model.safetensors.sha256").write_text(digest)
    expert.setup()
    assert expert.annotate(moving()).value.values.shape == (3, 72, 100)
    assert expert.told() == {"depth-anything-v2-base, SHA-256 told by the hub": digest}
    assert depth_anything.DepthAnythingV2Large.told() == {}
    assert expert.fingerprint() == before
    (line,) = [line for line in _licenses({"depth": before}) if "depth_anything_v2_base" in line]
    assert "| CC-BY-NC-4.0; pinned commit, checksum told by the hub |" in line


def test_depth_anything_gives_what_transformers_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file
    from transformers import DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=518,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    bare = DepthAnythingForDepthEstimation(config).eval()
    published = {
        "do_resize": True,
        "size": {"height": 518, "width": 518},
        "ensure_multiple_of": 14,
        "keep_aspect_ratio": True,
        "resample": 3,
        "do_pad": False,
    }
    published_names = {_published(name): values.clone() for name, values in bare.state_dict().items()}
    save_file(published_names, tmp_path / "model.safetensors")
    config.to_json_file(tmp_path / "config.json")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
    files = {"": "model.safetensors", "-config": "config.json", "-preprocessor": "preprocessor_config.json"}
    monkeypatch.setattr(
        depth_anything.assets,
        "path",
        lambda asset: tmp_path / files[asset.name.removeprefix("depth-anything-v2-small")],
    )
    clip, expert = moving(), depth_anything.DepthAnythingV2Small()
    expert.setup()
    annotation = expert.annotate(clip)
    DepthModality().check(annotation.value)
    assert annotation.value.kind == "affine_disparity"
    assert annotation.confidence is None
    processor = DPTImageProcessor(**published)
    inputs = processor(
        images=[clip.frames[0]],
        size={"height": 518, "width": 714},  # the shorter side is 518, as its authors have it
        keep_aspect_ratio=False,
        return_tensors="pt",
        input_data_format="channels_last",
    )
    with torch.inference_mode():
        outputs = bare(**inputs)
    expected = processor.post_process_depth_estimation(outputs, target_sizes=[(72, 100)])[0]["predicted_depth"]
    np.testing.assert_allclose(annotation.value.values[0], expected.numpy().clip(0), atol=1e-4)
    save_file({**published_names, "head.conv3.bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(AssetError, match=r"model\.safetensors does not fit DepthAnythingForDepthEstimation"):
        depth_anything.DepthAnythingV2Small().setup()
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(AssetError, match="no configuration of Depth Anything"):
        depth_anything.DepthAnythingV2Small().setup()


def test_a_batch_that_does_not_fit_the_card_is_halved_and_stays_so() -> None:
    sizes: list[int] = []

    def network(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part * 2

    batches = Batches(8)
    values = torch.arange(5.0)
    assert torch.equal(batches.run(network, values), values * 2)
    assert sizes == [5, 4, 2, 2, 1]
    assert batches.size == 2


def test_what_a_batch_held_that_did_not_fit_is_gone_before_the_cache_is_emptied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Activations:
        pass

    held: list[weakref.ref[Activations]] = []

    def network(part: torch.Tensor) -> torch.Tensor:
        activations = Activations()
        held.append(weakref.ref(activations))
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part

    alive: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    Batches(2).run(network, torch.ones(2))
    assert alive == [False]


def test_an_expert_goes_on_with_smaller_batches_and_each_clip_tells_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A card that holds one pair: the flow is what it was, the log says it once, and the next clip begins with one."""
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    monkeypatch.setattr(raft.assets, "path", lambda name: tmp_path / "raft.pth")
    clip, roomy, tight = moving(), raft.RaftSmall(), raft.RaftSmall()
    roomy.setup()
    tight.setup()
    network, tried = tight._model, []

    def small_card(first: torch.Tensor, second: torch.Tensor, **options: int) -> list[torch.Tensor]:
        tried.append(len(first))
        if len(first) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(first, second, **options)

    tight._model = small_card
    expected, annotation = roomy.annotate(clip), tight.annotate(clip)
    np.testing.assert_allclose(annotation.value.forward, expected.value.forward, atol=1e-4)
    assert (expected.provenance["batch"], annotation.provenance["batch"]) == (4, 1)
    assert [record.message for record in caplog.records if "out of memory" in record.message] == [
        "the card is out of memory: batches of 2 from now on",
        "the card is out of memory: batches of 1 from now on",
    ]
    tried.clear()
    assert tight.annotate(clip).provenance["batch"] == 1
    assert set(tried) == {1}


def test_half_precision_is_near_and_never_used_on_a_cpu_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth of random weights: within 3 % of its range in bfloat16 (8 bits), and 0.5 % in float16 (11 bits).

    The published weights, whose answers are about 3, have not been run; these are enlarged to answer like that.
    """
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    files = small_depth_anything(tmp_path)
    weights = load_file(files[0])
    larger = {name: 8 * value if name.startswith(("neck", "head")) else value for name, value in weights.items()}
    save_file(larger, files[0])
    monkeypatch.setattr(depth_anything.assets, "path", lambda asset: files[depth_anything.SMALL.index(asset)])
    clip, expert = moving(), depth_anything.DepthAnythingV2Small()
    expert.setup()
    expected = expert._disparity(clip.frames)
    assert expert.annotate(clip).provenance["precision"] == "float32"
    for dtype, share in ((torch.bfloat16, 0.03), (torch.float16, 0.005)):
        with precision(dtype):
            near = expert._disparity(clip.frames)
            assert expert.annotate(clip).provenance["precision"] == str(dtype).removeprefix("torch.")
        assert not np.array_equal(near, expected)
        assert np.abs(near - expected).max() < share * np.ptp(expected)


def test_raft_in_half_precision_correlates_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow of random weights: measured within 1.2 % of its range in bfloat16, 0.18 % in float16, after 12 updates."""
    from torchvision.models.optical_flow import raft_small

    monkeypatch.setattr(raft, "_STEPS", 12)
    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    monkeypatch.setattr(raft.assets, "path", lambda name: tmp_path / "raft.pth")
    expert = raft.RaftSmall()
    expert.setup()
    block = expert._model.corr_block
    images = raft.padded(moving().frames)
    expected = expert._flow(images[:1], images[1:2])
    assert expert._batches.provenance["precision"] == "float32"
    for dtype, share in ((torch.bfloat16, 0.05), (torch.float16, 0.01)):
        with precision(dtype):
            near = expert._flow(images[:1], images[1:2])
            assert expert._batches.provenance["precision"] == str(dtype).removeprefix("torch.")
        assert {level.dtype for level in block.corr_pyramid} == {torch.float32}
        assert not np.array_equal(near, expected)
        assert np.abs(near - expected).max() < share * np.ptp(expected)


def test_a_value_too_large_for_half_precision_is_computed_again_in_full() -> None:
    types: list[torch.dtype] = []

    def network(part: torch.Tensor) -> torch.Tensor:
        product = part @ torch.full((2, 2), 60_000.0)
        types.append(product.dtype)
        return product

    batches, values = Batches(2), torch.ones(4, 2)
    with precision(torch.float16):
        assert torch.equal(batches.run(network, values), torch.full((4, 2), 120_000.0))
        assert batches.dtype == torch.float32
    assert types == [torch.float16, torch.float32, torch.float32]
