"""SAM behind the expert: the package's own classes with a small encoder, and ids of people and things that cross."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("segment_anything")

from openuni.errors import AssetError  # noqa: E402
from openuni.experts import sam  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.experts.people import LANDMARKS, TrackedPeople  # noqa: E402
from openuni.experts.weights import Batches, precision  # noqa: E402
from openuni.modalities.segmentation import SegmentationModality  # noqa: E402
from openuni.sample import Annotation  # noqa: E402
from tests.openuni.experts.test_rf_detr import BLUE, RED, Scripted, walking  # noqa: E402


def small_sam() -> torch.nn.Module:
    """SAM as the package builds it, with an encoder of two blocks."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    return Sam(
        image_encoder=ImageEncoderViT(
            depth=2,
            embed_dim=32,
            img_size=256,
            mlp_ratio=2,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=2,
            patch_size=16,
            use_rel_pos=True,
            global_attn_indexes=[1],
            window_size=8,
            out_chans=256,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=256, image_embedding_size=(16, 16), input_image_size=(256, 256), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=256, num_heads=8),
            transformer_dim=256,
        ),
    )


class SmallSam(sam.SamVitB):
    @staticmethod
    def _network() -> torch.nn.Module:
        return small_sam()


def tracked(boxes: np.ndarray, height: int, width: int) -> TrackedPeople:
    """Findings of people without poses: `boxes` float32 `[T, P, 4]`; no things."""
    frames, count, _ = boxes.shape
    unknown = np.full((frames, count, LANDMARKS, 3), np.nan, np.float32)
    return TrackedPeople(
        boxes=boxes,
        scores=np.where(np.isnan(boxes[..., 0]), np.nan, 0.8).astype(np.float32),
        landmarks=unknown,
        world=unknown,
        support=np.full(count, 0.8, np.float32),
        masks=np.zeros((frames, height, width), np.uint8),
        thing_frames=np.zeros(0, np.int32),
        thing_boxes=np.zeros((0, 4), np.float32),
        thing_scores=np.zeros(0, np.float32),
        thing_classes=(),
    )


def test_the_mask_is_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segment_anything import SamPredictor

    torch.manual_seed(0)
    bare = small_sam().eval()
    torch.save(bare.state_dict(), tmp_path / "sam.pth")
    monkeypatch.setattr(sam.assets, "path", lambda name: tmp_path / "sam.pth")
    frames = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    boxes = np.tile(np.array([[8, 6, 40, 44], [30, 10, 60, 40]], np.float32), (2, 1, 1))
    people = tracked(boxes, 48, 64)
    expert = SmallSam()
    expert.setup()
    annotation = expert.annotate(DecodedClip("clip", frames, 16.0, {"rf_detr": Annotation(people)}))
    SegmentationModality().check(annotation.value)
    predictor = SamPredictor(bare)
    predictor.set_image(frames[1])
    logits = [predictor.predict(box=b, multimask_output=False, return_logits=True)[0][0] for b in boxes[1]]
    first = (logits[0] > 0) & ~((logits[1] > 0) & (logits[1] > logits[0]))
    second = (logits[1] > 0) & ~first
    np.testing.assert_array_equal(annotation.value.ids[1], first * 1 + second * 2)
    (tmp_path / "sam.pth").write_bytes(b"no weights")
    with pytest.raises(AssetError, match=r"not a file of plain tensors: Weights only load failed$"):
        SmallSam().setup()


def test_in_half_precision_the_encoder_is_near_and_all_else_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of random weights: measured within 0.35 % of their range in bfloat16, 0.04 % in float16."""
    torch.manual_seed(0)
    torch.save(small_sam().state_dict(), tmp_path / "sam.pth")
    monkeypatch.setattr(sam.assets, "path", lambda name: tmp_path / "sam.pth")
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    box = np.array([8.0, 6, 40, 44])
    expert = SmallSam()
    expert.setup()
    expected = expert._logits(frame, box, 0)
    assert expert._batches.provenance["precision"] == "float32"
    for t, (dtype, share) in enumerate(((torch.bfloat16, 0.02), (torch.float16, 0.002)), 1):
        with precision(dtype):
            near = expert._logits(frame, box, t)
            assert expert._batches.provenance["precision"] == str(dtype).removeprefix("torch.")
        assert not np.array_equal(near, expected)
        assert np.abs(near - expected).max() < share * np.ptp(expected)


def test_a_frame_that_overflows_in_half_precision_is_encoded_again_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weights = small_sam().state_dict()
    weights["image_encoder.patch_embed.proj.weight"] *= 1e6
    torch.save(weights, tmp_path / "sam.pth")
    monkeypatch.setattr(sam.assets, "path", lambda name: tmp_path / "sam.pth")
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    box = np.array([8.0, 6, 40, 44])
    expert = SmallSam()
    expert.setup()
    expected = expert._logits(frame, box, 0)
    with precision(torch.float16):
        np.testing.assert_array_equal(expert._logits(frame, box, 1), expected)
        assert expert._batches.provenance["precision"] == "float32"


class BoxSam(sam.SamVitB):
    """An outline with a known answer: the box, believed more in its middle."""

    def setup(self) -> None:
        self._features = {}
        self._batches = Batches(1)

    def _logits(self, frame: np.ndarray, box: np.ndarray, t: int) -> np.ndarray:
        height, width = frame.shape[:2]
        y, x = np.mgrid[:height, :width] + 0.5
        half = (box[2:] - box[:2]) / 2
        middle = (box[2:] + box[:2]) / 2
        return (1 - np.maximum(np.abs(x - middle[0]) / half[0], np.abs(y - middle[1]) / half[1])).astype(np.float32)


def test_two_who_cross_keep_their_ids_and_one_who_leaves_comes_back_as_the_same() -> None:
    boxes = np.full((20, 2, 4), np.nan, np.float32)
    for t in range(20):
        boxes[t, 0] = [2 + 3 * t, 10, 22 + 3 * t, 50]
        if not 8 <= t < 12:  # hidden in the middle of the crossing
            boxes[t, 1] = [62 - 3 * t, 8, 82 - 3 * t, 48]
    frames = np.zeros((20, 64, 96, 3), np.uint8)
    expert = BoxSam()
    expert.setup()
    ids = expert.annotate(DecodedClip("c", frames, 16.0, {"rf_detr": Annotation(tracked(boxes, 64, 96))})).value.ids
    for t in range(20):
        for p in range(2):
            if np.isnan(boxes[t, p, 0]):
                assert not (ids[t] == p + 1).any()
            else:
                x0, y0, x1, y1 = np.clip(boxes[t, p], 0, [96, 64, 96, 64])
                assert ids[t, int((y0 + y1) / 2), int((x0 + x1) / 2)] in ((p + 1,) if abs(t - 10) > 2 else (1, 2))


def test_from_the_detectors_boxes_to_masks_everybody_keeps_one_id() -> None:
    """Two cross, and one of them is hidden meanwhile; a third leaves over the edge and comes back a second later."""
    frames = 60
    right = {t: 10 + 3 * t for t in range(frames)}
    left = {t: 190 - 3 * t for t in range(frames) if not 28 <= t <= 32}
    out_and_back = {t: 200 + 5 * t for t in range(8)} | {t: 240 - 5 * (t - 50) for t in range(52, 60)}
    green = (30, 200, 40)
    script, clip = walking([out_and_back, left, right], [green, BLUE, RED], frames)
    people = Scripted(script).annotate(DecodedClip("c", clip, 16.0, {}))
    assert people.value.count == 3
    expert = BoxSam()
    expert.setup()
    ids = expert.annotate(DecodedClip("c", clip, 16.0, {"rf_detr": people})).value.ids
    middle = {}
    for name, path in (("out", out_and_back), ("left", left), ("right", right)):
        seen = {int(ids[t, 65, x + 15]) for t, x in path.items() if x + 15 < 240 and abs(t - 30) > 6}
        assert len(seen) == 1, name
        middle[name] = seen.pop()
    assert sorted(middle.values()) == [1, 2, 3]
    assert not (ids[20:48] == middle["out"]).any()
    assert not (ids[29:32] == middle["left"]).any()


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_the_packages_sizes_are_those_that_are_published(size: str) -> None:
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        network = sam_model_registry[size](checkpoint=None)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    assert parameters == pytest.approx({"vit_b": 93.7, "vit_l": 312.3, "vit_h": 641.1}[size], abs=0.1)
