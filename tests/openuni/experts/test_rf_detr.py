"""RF-DETR behind the expert: the library's own network, small, with random weights; and people whose way is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from openuni.errors import AssetError  # noqa: E402
from openuni.experts import rf_detr  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.experts.people import TrackedPeople  # noqa: E402
from tests.openuni.experts.published import serve  # noqa: E402


class SmallRfDetr(rf_detr.RfDetr):
    @staticmethod
    def _config() -> Any:
        from transformers import RfDetrConfig
        from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

        backbone = RfDetrDinov2Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=576,
            patch_size=64,  # a ninth of the tokens
            num_windows=1,
            out_features=["stage1", "stage2"],
        )
        return RfDetrConfig(
            backbone_config=backbone,
            d_model=32,
            decoder_layers=2,
            decoder_n_points=2,
            decoder_self_attention_heads=2,
            decoder_cross_attention_heads=2,
            decoder_ffn_dim=32,
            num_queries=20,
            group_detr=2,
            c2f_num_blocks=1,
            num_labels=91,
        )


def frames_of_noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 96, 128, 3), dtype=np.uint8)


@pytest.fixture
def bare() -> Any:
    """The library's network; its classes are pushed up so that random weights see something."""
    from transformers import RfDetrForObjectDetection

    torch.manual_seed(0)
    network = RfDetrForObjectDetection(SmallRfDetr._config()).eval()
    with torch.no_grad():
        network.class_embed.weight.normal_(0, 0.5)
        network.class_embed.bias.zero_()
    return network


@pytest.mark.parametrize("names", ["published", "today's"])
def test_it_finds_what_the_library_finds(bare: Any, names: str, served: tuple[Path, str], tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import RfDetrImageProcessor

    if names == "published":
        bare.save_pretrained(tmp_path)
    else:
        save_file(bare.state_dict(), tmp_path / "model.safetensors")

    class Pinned(SmallRfDetr):
        assets = (serve(served, rf_detr.WEIGHTS, tmp_path / "model.safetensors"),)

    frames, expert = frames_of_noise(), Pinned()
    expert.setup()
    outputs = expert._outputs(frames)
    with torch.inference_mode():
        expected = bare(torch.from_numpy(rf_detr.prepare(frames)))
    np.testing.assert_allclose(outputs[..., :91], expected.logits, atol=1e-4)
    np.testing.assert_allclose(outputs[..., 91:], expected.pred_boxes, atol=1e-4)
    np.testing.assert_array_equal(outputs, expert._outputs(frames))
    processor = RfDetrImageProcessor(size={"height": 576, "width": 576}, do_pad=False)
    (theirs, *_) = processor.post_process_object_detection(
        expected, threshold=0.2, target_sizes=[(96, 128)] * 3, top_k=20 * 91
    )
    ours = rf_detr.decode(outputs[0], 96, 128)
    assert ours
    ids = {name: number for number, name in rf_detr.CLASSES.items()}
    for box, score, name in ours:
        same = (theirs["labels"] == ids[name]) & ((theirs["scores"] - score).abs() < 1e-5)
        away = np.abs(theirs["boxes"][same].numpy().clip(0, [128, 96, 128, 96]) - box).max(1)
        assert away.min() < 2e-3
    found = expert.annotate(DecodedClip("clip", frames, 16.0, {}))
    again = Pinned.decode_findings(Pinned.encode_findings(found.value))
    np.testing.assert_array_equal(again.boxes, found.value.boxes)
    assert again.thing_classes == found.value.thing_classes


def test_foreign_weights_are_refused(
    served: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")

    class Foreign(SmallRfDetr):
        assets = (serve(served, rf_detr.WEIGHTS, tmp_path / "model.safetensors"),)

    with pytest.raises(AssetError, match=r"does not fit RfDetrForObjectDetection: .* among them"):
        Foreign().setup()
    assert capfd.readouterr().err == ""


def test_the_published_size_is_the_one_that_is_built() -> None:
    from transformers import RfDetrForObjectDetection

    with torch.device("meta"):
        network = RfDetrForObjectDetection(rf_detr.RfDetr._config())
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(33.7, abs=0.05)
    assert network.class_embed.weight.shape == (91, 256)


def test_coco_has_80_classes_among_its_ids() -> None:
    assert len(rf_detr.CLASSES) == len(rf_detr.NAMES) == 80
    assert (rf_detr.CLASSES[1], rf_detr.CLASSES[17], rf_detr.CLASSES[75], rf_detr.CLASSES[90]) == (
        "person",
        "cat",
        "remote",
        "toothbrush",
    )


class Scripted(rf_detr.RfDetr):
    """A network that sees boxes which are known: by frame, (class, score, x0, y0, x1, y1) each."""

    def __init__(self, script: list[list[tuple[str, float, float, float, float, float]]]) -> None:
        self.script = script

    def _outputs(self, frames: np.ndarray) -> np.ndarray:
        _, height, width, _ = frames.shape
        ids = {name: number for number, name in rf_detr.CLASSES.items()}
        outputs = np.full((len(frames), 8, 95), -20, np.float32)
        outputs[..., 91:] = 0.5
        for t, things in enumerate(self.script):
            for q, (name, score, *box) in enumerate(things):
                x0, y0, x1, y1 = np.array(box) / [width, height, width, height]
                outputs[t, q, ids[name]] = np.log(score / (1 - score))
                outputs[t, q, 91:] = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
        return outputs


RED, BLUE = (220, 30, 30), (30, 40, 220)


def walking(paths: list[dict[int, int]], colours: list[tuple[int, int, int]], frames: int) -> tuple[Any, np.ndarray]:
    """A script and its picture: for each person the left edge of their box by frame; the later hide the earlier."""
    clip = np.full((frames, 120, 240, 3), 128, np.uint8)
    script: list[list[tuple[str, float, float, float, float, float]]] = [[] for _ in range(frames)]
    for path, colour in zip(paths, colours, strict=True):
        for t, x in path.items():
            script[t].append(("person", 0.9, x, 20, x + 30, 110))
            clip[t, 20:110, max(0, x) : max(0, x + 30)] = colour
    return script, clip


def found(script: Any, clip: np.ndarray) -> TrackedPeople:
    value: TrackedPeople = Scripted(script).annotate(DecodedClip("clip", clip, 16.0, {})).value
    return value


def test_two_who_cross_keep_their_numbers() -> None:
    frames = 30
    paths = [{t: 10 + 6 * t for t in range(frames)}, {t: 196 - 6 * t for t in range(frames)}]
    people = found(*walking(paths, [RED, BLUE], frames))
    assert people.count == 2
    np.testing.assert_allclose(people.boxes[:, 0, 0], [10 + 6 * t for t in range(frames)], atol=0.01)
    np.testing.assert_allclose(people.boxes[:, 1, 0], [196 - 6 * t for t in range(frames)], atol=0.01)
    np.testing.assert_allclose(people.support, 0.9, atol=1e-3)


def test_one_who_leaves_comes_back_as_the_same_and_another_one_does_not() -> None:
    out = {t: 200 + 4 * t for t in range(10)}
    back = {t: 240 - 4 * (t - 50) for t in range(52, 70)}
    same = found(*walking([out | back], [RED], 70))
    assert same.count == 1
    assert np.isnan(same.boxes[12:50, 0, 0]).all()
    other = found(*walking([out, back], [RED, BLUE], 70))
    assert other.count == 2


def test_one_who_is_hidden_for_a_second_is_met_again() -> None:
    still = dict.fromkeys(range(40), 100)
    passing = {t: 10 + 5 * t for t in range(40) if not 14 <= t <= 26}
    people = found(*walking([passing, still], [BLUE, RED], 40))
    assert people.count == 2
    seen = ~np.isnan(people.boxes[..., 0])
    assert sorted(seen.sum(0).tolist()) == [27, 40]


def test_things_are_named_and_doubles_are_one() -> None:
    script = [[("cat", 0.8, 20, 20, 80, 80), ("dog", 0.5, 21, 20, 80, 80), ("remote", 0.15, 5, 5, 15, 15)]] * 4
    people = found(script, np.zeros((4, 120, 240, 3), np.uint8))
    assert people.count == 0
    assert people.thing_classes == ("cat",) * 4
    np.testing.assert_allclose(people.thing_boxes[0], [20, 20, 80, 80], atol=0.01)
