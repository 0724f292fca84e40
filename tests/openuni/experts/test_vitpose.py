"""ViTPose behind the expert: the library's own network, small, with random weights in the published format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("scipy")

from openuni.errors import AssetError  # noqa: E402
from openuni.experts import vitpose  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.modalities.skeleton import SkeletonModality  # noqa: E402
from openuni.sample import Annotation  # noqa: E402
from tests.openuni.experts.published import serve  # noqa: E402
from tests.openuni.experts.test_dwpose import tracked  # noqa: E402


class SmallVitPose(vitpose.VitPose):
    @staticmethod
    def _config() -> Any:
        from transformers import VitPoseBackboneConfig, VitPoseConfig

        backbone = VitPoseBackboneConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_experts=6, part_features=8, out_indices=[2]
        )
        return VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=False)


@pytest.fixture
def bare() -> Any:
    from transformers import VitPoseForPoseEstimation

    torch.manual_seed(0)
    network = VitPoseForPoseEstimation(SmallVitPose._config()).eval()
    torch.nn.init.normal_(network.head.conv.weight, 0, 0.5)  # so that there are peaks
    return network


def test_it_sees_what_the_library_sees(bare: Any, served: tuple[Path, str], tmp_path: Path) -> None:
    from transformers import VitPoseImageProcessor

    bare.save_pretrained(tmp_path)

    class Pinned(SmallVitPose):
        assets = (serve(served, vitpose.WEIGHTS, tmp_path / "model.safetensors"),)

    frames = np.random.default_rng(0).integers(0, 255, (3, 96, 128, 3), dtype=np.uint8)
    boxes = np.tile(np.array([[10, 8, 50, 90], [60, 5, 110, 92]], np.float32), (3, 1, 1))
    boxes[1, 1] = np.nan
    expert = Pinned()
    expert.setup()
    clip = DecodedClip("two", frames, 16.0, {"rf_detr": Annotation(tracked(boxes, 96, 128))})
    annotation = expert.annotate(clip)
    SkeletonModality().check(annotation.value)
    keypoints = annotation.value.keypoints
    assert keypoints.shape == (3, 2, 17, 3)
    assert (keypoints[1, 1, :, 2] == 0).all()
    assert annotation.scores == {"people": 2.0}

    processor = VitPoseImageProcessor()
    places = [[[10, 8, 40, 82], [60, 5, 50, 87]]]
    crops = processor([frames[0]], boxes=places, return_tensors="pt", input_data_format="channels_last").pixel_values
    dataset, pairs = torch.zeros(2, dtype=torch.long), torch.tensor([[a, a + 1] for a in range(1, 17, 2)])
    with torch.inference_mode():
        outputs = bare(crops, dataset_index=dataset)
        mirrored = bare(crops.flip(3), dataset_index=dataset, flip_pairs=pairs)
    outputs.heatmaps = (outputs.heatmaps + mirrored.heatmaps) / 2
    (theirs,) = processor.post_process_pose_estimation(outputs, boxes=places)
    compared = 0
    for p, person in enumerate(theirs):
        expected = person["keypoints"].numpy() + 0.5
        inside = ((expected >= 0) & (expected < (128, 96))).all(1) & (person["scores"].numpy() > 0)
        np.testing.assert_array_equal(inside, keypoints[0, p, :, 2] > 0)
        np.testing.assert_allclose(keypoints[0, p, inside, :2], expected[inside], atol=1e-4)
        np.testing.assert_allclose(keypoints[0, p, inside, 2], person["scores"][inside].clip(0, 1), atol=1e-4)
        compared += int(inside.sum())
    assert compared > 10
    np.testing.assert_array_equal(keypoints, expert.annotate(clip).value.keypoints)
    nobody = DecodedClip("nobody", frames, 16.0, {"rf_detr": Annotation(tracked(boxes[:, :0], 96, 128))})
    assert expert.annotate(nobody).confidence == 0


def test_a_dot_is_a_joint_at_its_place() -> None:
    """With heatmaps that are bright where the crop is, a joint lies on the dot: half a pixel is not lost on the way."""
    from transformers import VitPoseImageProcessor

    from openuni.experts.weights import Batches

    class Bright(SmallVitPose):
        def _heatmaps(self, crops: Any) -> Any:
            grey = torch.nn.functional.interpolate(crops[:, :1], (64, 48), mode="bilinear", antialias=True)
            return (grey - grey.amin((2, 3), keepdim=True)).expand(-1, 17, -1, -1) / 10

    expert = Bright()
    expert._processor, expert._batches = VitPoseImageProcessor(), Batches(4)
    frame = np.zeros((200, 320, 3), np.uint8)
    y, x = np.mgrid[:200, :320]
    frame[:] = (255 * np.exp(-(((x - 100) ** 2 + (y - 80) ** 2) / 72)))[..., None].astype(np.uint8)
    joints = expert.joints(frame, np.array([[60, 20, 150, 140]], np.float32))
    np.testing.assert_allclose(joints[0, :, :2], np.tile([100.5, 80.5], (17, 1)), atol=0.5)


def test_the_configuration_is_that_of_the_published_file(tmp_path: Path) -> None:
    """A file saved with these names and shapes has exactly the published number of bytes."""
    from transformers import VitPoseForPoseEstimation

    VitPoseForPoseEstimation(vitpose.VitPose._config()).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size == vitpose.WEIGHTS.size


def test_foreign_weights_are_refused(served: tuple[Path, str], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")

    class Foreign(SmallVitPose):
        assets = (serve(served, vitpose.WEIGHTS, tmp_path / "model.safetensors"),)

    with pytest.raises(AssetError, match="does not fit VitPoseForPoseEstimation"):
        Foreign().setup()
