"""SAM 2's video network behind the expert: the library's own, small and with random weights; and ids that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("timm")

from openuni.errors import AssetError  # noqa: E402
from openuni.experts import edgetam, sam2_video  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.experts.people import LANDMARKS, TrackedPeople  # noqa: E402
from openuni.experts.weights import precision  # noqa: E402
from openuni.modalities.segmentation import SegmentationModality  # noqa: E402
from openuni.sample import Annotation  # noqa: E402
from tests.openuni.experts.published import safetensors_bytes  # noqa: E402

HEIGHT, WIDTH = 48, 64
Boxes = dict[int, tuple[int, int, int, int]]


def small_config() -> Any:
    """The architecture of SAM 2.1 with five blocks, for images of 128 pixels."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        image_size=[128, 128],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        global_attention_blocks=[3],
        window_size_per_stage=[4, 4, 4, 4],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    return Sam2VideoConfig(
        vision_config=vision,
        image_size=128,
        prompt_encoder_config={"image_size": 128},
        memory_attention_rope_feat_sizes=[8, 8],
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
    )


class SmallSam2(sam2_video.Sam2Video):
    @staticmethod
    def _config() -> Any:
        return small_config()


class SmallEdgeTam(edgetam.EdgeTam):
    """EdgeTAM for images of 128 pixels, with its own encoder and one layer of the others."""

    @staticmethod
    def _config() -> Any:
        from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig

        vision = EdgeTamVisionConfig(
            backbone_config=edgetam.encoder_config(), backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
        )
        return EdgeTamVideoConfig(
            vision_config=vision,
            image_size=128,
            prompt_encoder_config={"image_size": 128},
            memory_attention_rope_feat_sizes=[8, 8],
            memory_attention_rope_k_sizes=[4, 4],
            memory_attention_num_layers=1,
            memory_attention_mlp_hidden_size=64,
            perceiver_resampler_num_latents=16,
            perceiver_resampler_num_latents_2d=16,
            perceiver_resampler_num_layers=1,
            enable_temporal_pos_encoding_for_object_pointers=False,
            enable_occlusion_spatial_embedding=False,
        )


BOTH = pytest.mark.parametrize("expert", [SmallSam2(), SmallEdgeTam()], ids=["sam2_video", "edgetam"])


def people(tracks: list[Boxes], things: list[tuple[int, tuple[int, int, int, int], str]], frames: int) -> TrackedPeople:
    """Findings: a box by frame for each person, and sightings of things."""
    boxes = np.full((frames, len(tracks), 4), np.nan, np.float32)
    for p, track in enumerate(tracks):
        for t, box in track.items():
            boxes[t, p] = box
    unknown = np.full((frames, len(tracks), LANDMARKS, 3), np.nan, np.float32)
    return TrackedPeople(
        boxes=boxes,
        scores=np.where(np.isnan(boxes[..., 0]), np.nan, 0.8).astype(np.float32),
        landmarks=unknown,
        world=unknown,
        support=np.full(len(tracks), 0.8, np.float32),
        masks=np.zeros((frames, HEIGHT, WIDTH), np.uint8),
        thing_frames=np.array([t for t, _, _ in things], np.int32),
        thing_boxes=np.array([box for _, box, _ in things], np.float32).reshape(-1, 4),
        thing_scores=np.full(len(things), 0.7, np.float32),
        thing_classes=tuple(name for _, _, name in things),
    )


def clip_of(found: TrackedPeople, frames: np.ndarray) -> DecodedClip:
    return DecodedClip("clip", frames, 16.0, {"rf_detr": Annotation(found)})


@BOTH
def test_the_logits_are_the_librarys_own(
    expert: sam2_video.Sam2Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against `propagate_in_video_iterator` over a person in the first frame and a cup in the second."""
    from safetensors.torch import save_file
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

    torch.manual_seed(0)
    bare = expert._network()(expert._config()).eval()
    bare.save_pretrained(tmp_path)
    monkeypatch.setattr(sam2_video.assets, "path", lambda asset: tmp_path / "model.safetensors")
    frames = np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    expert.setup()
    video = expert._open(frames)
    video.show(0, 1, np.array([8.0, 6, 40, 44]))
    seen = [video.look(0)]
    seen.append(video.look(1))
    video.show(1, 2, np.array([30.0, 10, 60, 40]))
    seen += [video.look(1), video.look(2)]

    size = {"height": 128, "width": 128}
    processor = Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))
    session = processor.init_video_session(video=torch.from_numpy(frames).permute(0, 3, 1, 2))
    for number, t, box in ((1, 0, [8.0, 6, 40, 44]), (2, 1, [30.0, 10, 60, 40])):
        processor.add_inputs_to_inference_session(session, t, number, input_boxes=[[box]])
        with torch.inference_mode():
            outputs = list(bare.propagate_in_video_iterator(session, start_frame_idx=t))
    for logits, output in zip(seen[2:], outputs, strict=True):
        expected = processor.post_process_masks([output.pred_masks], [[HEIGHT, WIDTH]], binarize=False)[0]
        assert output.object_ids == [1, 2] == list(logits)
        for number in (1, 2):
            np.testing.assert_allclose(logits[number], expected[number - 1, 0].numpy(), atol=1e-4)
    found = people([{0: (8, 6, 40, 44)}], [(1, (30, 10, 60, 40), "cup")], 3)
    annotation = expert.annotate(clip_of(found, frames))
    SegmentationModality().check(annotation.value)
    again = expert.annotate(clip_of(found, frames))
    np.testing.assert_array_equal(annotation.value.ids, again.value.ids)
    assert annotation.provenance["batch"] == 1
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(AssetError, match=f"does not fit {type(bare).__name__}"):
        expert.setup()


@BOTH
def test_half_precision_is_bfloat16_and_near(
    expert: sam2_video.Sam2Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of random weights: measured within 1.2 % of their range (SAM 2) and 3.2 % (EdgeTAM), three frames on.

    In float16 the library's memory, which is stored in bfloat16, cannot be joined with what is computed.
    """
    torch.manual_seed(0)
    bare = expert._network()(expert._config()).eval()
    with torch.no_grad():  # else the network says that there is nothing, whatever the precision
        bare.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5.0)
    bare.save_pretrained(tmp_path)
    monkeypatch.setattr(sam2_video.assets, "path", lambda asset: tmp_path / "model.safetensors")
    frames = np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    found = people([{0: (8, 6, 40, 44)}], [], 3)
    expert.setup()
    assert expert.annotate(clip_of(found, frames)).provenance["precision"] == "float32"

    def followed() -> np.ndarray:
        video = expert._open(frames)
        video.show(0, 1, np.array([8.0, 6, 40, 44]))
        return np.stack([video.look(t)[1] for t in range(3)])

    expected = followed()
    with precision(torch.bfloat16):
        near = followed()
        assert expert.annotate(clip_of(found, frames)).provenance["precision"] == "bfloat16"
    assert near.dtype == np.float32
    assert not np.array_equal(near, expected)
    assert np.abs(near - expected).max() < 0.08 * np.ptp(expected)


@pytest.mark.parametrize("expert", [sam2_video.Sam2Video, edgetam.EdgeTam])
def test_names_shapes_and_types_fill_a_file_of_the_published_size(expert: type[sam2_video.Sam2Video]) -> None:
    with torch.device("meta"):
        network = expert._network()(expert._config())
    assert safetensors_bytes(network) == expert.assets[0].size


class Memory:
    """A network with known answers: an object is where a square of its shade is, once it was shown its box."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames
        self._shades: dict[int, int] = {}
        self.dtype = torch.float32
        self.shown: list[tuple[int, int]] = []

    def show(self, t: int, number: int, box: np.ndarray) -> None:
        x, y = ((box[:2] + box[2:]) / 2).astype(int)
        self._shades[number] = int(self._frames[t, y, x, 0])
        self.shown.append((t, number))

    def look(self, t: int) -> dict[int, np.ndarray]:
        return {
            n: np.where(self._frames[t, ..., 0] == s, 5.0, -5.0).astype(np.float32) for n, s in self._shades.items()
        }


class Remembering(edgetam.EdgeTam):
    """What either network does with its objects; `EdgeTam` differs from `Sam2Video` in the network alone."""

    def setup(self) -> None:
        pass

    def _open(self, frames: np.ndarray) -> Any:
        self.memory = Memory(frames)
        return self.memory


def scene(squares: dict[int, Boxes], frames: int) -> np.ndarray:
    """Squares of a shade each, by frame."""
    drawn = np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)
    for shade, boxes in squares.items():
        for t, (x0, y0, x1, y1) in boxes.items():
            drawn[t, y0:y1, x0:x1] = shade
    return drawn


def test_new_objects_join_mid_clip_and_who_leaves_comes_back_as_who_they_were() -> None:
    """A person who is away in frames 3 to 5; a cup that comes in frame 2, is gone in 4 and 5, and is back in 6."""
    person = dict.fromkeys((0, 1, 2, 6, 7), (4, 8, 20, 40))
    cup = dict.fromkeys((2, 3, 6, 7), (40, 10, 56, 26))
    frames = scene({90: person, 200: cup}, 8)
    things = [(t, box, "cup") for t, box in cup.items()]
    expert = Remembering()
    value = expert.annotate(clip_of(people([person], things, 8), frames)).value
    np.testing.assert_array_equal(value.ids, np.where(frames[..., 0] == 90, 1, np.where(frames[..., 0] == 200, 2, 0)))
    assert [(row.id, row.class_name) for row in value.instances] == [(1, "person"), (2, "cup")]
    # The person is shown where each stretch of the track begins, the cup once: it is found again by memory.
    assert expert.memory.shown == [(0, 1), (2, 2), (6, 1)]


def test_a_thing_that_the_network_has_lost_keeps_its_id_by_its_class_and_colours() -> None:
    """The cup comes back in other light, so the network does not see it; a ball at the same time is a new thing."""
    cup, later = dict.fromkeys((0, 1), (40, 10, 56, 26)), dict.fromkeys((3, 4), (8, 10, 24, 26))
    ball = dict.fromkeys((3, 4), (40, 28, 56, 44))
    frames = scene({200: cup, 201: later, 90: ball}, 5)
    things = [(t, box, "cup") for t, box in (cup | later).items()] + [
        (t, box, "sports ball") for t, box in ball.items()
    ]
    value = Remembering().annotate(clip_of(people([], things, 5), frames)).value
    assert {int(n) for n in np.unique(value.ids[frames[..., 0] == 201])} == {1}
    assert {int(n) for n in np.unique(value.ids[frames[..., 0] == 90])} == {2}
    assert [row.class_name for row in value.instances] == ["cup", "sports ball"]


def test_where_two_overlap_a_pixel_is_the_surers_and_nothing_seen_is_no_instance() -> None:
    logits = {1: np.array([[2.0, 1.0, -1.0]], np.float32), 2: np.array([[1.0, 3.0, -2.0]], np.float32)}
    np.testing.assert_array_equal(sam2_video._surest(logits, (1, 3)), [[1, 2, 0]])
    annotation = Remembering().annotate(clip_of(people([], [], 2), scene({}, 2)))
    assert annotation.value.instances == ()
    assert annotation.confidence == 0.0
