"""DWPose behind the expert: a network of the published signature whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from openuni import experts  # noqa: E402
from openuni.errors import AssetError, OpenUniError  # noqa: E402
from openuni.experts import dwpose, sets  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.experts.people import LANDMARKS, TrackedPeople  # noqa: E402
from openuni.modalities.skeleton import SkeletonModality  # noqa: E402
from openuni.sample import Annotation  # noqa: E402


def brightest(file: Path, outputs: tuple[str, str] = ("simcc_x", "simcc_y")) -> None:
    """An ONNX network that finds all 133 points at the brightest column and row of its input."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "rows": np.array([1, 2]),
        "columns": np.array([1, 3]),
        "points": np.array([1, 1, dwpose.POINTS, 2]),
        "last": np.array([1, 3]),
        "wide": np.array([0, dwpose.POINTS, 2 * dwpose.WIDTH]),
        "tall": np.array([0, dwpose.POINTS, 2 * dwpose.HEIGHT]),
    }
    nodes = []
    for axes, shape, output in (("rows", "wide", outputs[0]), ("columns", "tall", outputs[1])):
        nodes += [
            helper.make_node("ReduceMax", ["input", axes], [f"{axes}_line"], keepdims=0),
            helper.make_node("Unsqueeze", [f"{axes}_line", "last"], [f"{axes}_thin"]),
            helper.make_node("Tile", [f"{axes}_thin", "tiles"], [f"{axes}_many"]),
            helper.make_node("Reshape", [f"{axes}_many", shape], [output]),
        ]
    constants["tiles"] = np.array([1, dwpose.POINTS, 1, 2])
    sides = {outputs[0]: 2 * dwpose.WIDTH, outputs[1]: 2 * dwpose.HEIGHT}
    graph = helper.make_graph(
        nodes,
        "brightest",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, dwpose.HEIGHT, dwpose.WIDTH])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", dwpose.POINTS, side])
            for name, side in sides.items()
        ],
        [numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)


def peaks(file: Path, x: np.ndarray, y: np.ndarray) -> None:
    """An ONNX network that sees the SimCC lines `[1, 133, 2W]` and `[1, 133, 2H]` in whatever it is shown."""
    from onnx import TensorProto, helper, numpy_helper

    outputs = {"simcc_x": x, "simcc_y": y}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_known"], [name]) for name in outputs],
        "peaks",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, dwpose.HEIGHT, dwpose.WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, line.shape) for name, line in outputs.items()],
        [numpy_helper.from_array(line, f"{name}_known") for name, line in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)


def tracked(boxes: np.ndarray, height: int, width: int) -> TrackedPeople:
    frames, count, _ = boxes.shape
    unknown = np.full((frames, count, LANDMARKS, 3), np.nan, np.float32)
    scores = np.where(np.isnan(boxes[..., 0]), np.nan, 0.9).astype(np.float32)
    support = np.full(count, 0.9, np.float32)
    masks = np.zeros((frames, height, width), np.uint8)
    nothing = np.zeros(0, np.float32)
    return TrackedPeople(
        boxes,
        scores,
        unknown,
        unknown,
        support,
        masks,
        np.zeros(0, np.int32),
        np.zeros((0, 4), np.float32),
        nothing,
        (),
    )


@pytest.fixture
def expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dwpose.DwPose:
    brightest(tmp_path / "dw.onnx")
    monkeypatch.setattr(dwpose.assets, "path", lambda asset: tmp_path / "dw.onnx")
    made = dwpose.DwPose()
    made.setup()
    return made


def test_joints_lie_where_the_network_sees_them(expert: dwpose.DwPose) -> None:
    height, width = 200, 320
    frames = np.zeros((2, height, width, 3), np.uint8)
    dots = {(0, 0): (60, 80), (0, 1): (250, 120), (1, 1): (255, 125)}  # frame and person → x, y
    boxes = np.full((2, 2, 4), np.nan, np.float32)
    for (t, p), (x, y) in dots.items():
        frames[t, y, x] = 255
        boxes[t, p] = (x - 30, y - 50, x + 35, y + 44)
    clip = DecodedClip("two", frames, 16.0, {"rf_detr": Annotation(tracked(boxes, height, width))})
    annotation = expert.annotate(clip)
    SkeletonModality().check(annotation.value)
    keypoints = annotation.value.keypoints
    assert keypoints.shape == (2, 2, 133, 3)
    for (t, p), (x, y) in dots.items():
        # A crop of 1.25 × 94 px is drawn on 384 rows: a bin is a third of a pixel.
        np.testing.assert_allclose(keypoints[t, p, :, :2], [[x + 0.5, y + 0.5]] * 133, atol=0.35)
    assert np.isnan(keypoints[1, 0, :, :2]).all()
    assert (keypoints[1, 0, :, 2] == 0).all()
    assert annotation.scores == {"people": 2.0}
    again = expert.annotate(clip)
    np.testing.assert_array_equal(keypoints, again.value.keypoints)


def test_the_crop_is_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_warp_matrix` and the reading back of `annotator/dwpose/onnxpose.py`, in numbers."""
    box = np.array([100, 50, 180, 250], np.float32)
    # Centre (140, 150); 1.25 times as large (100 × 250), widened to 187.5 × 250; so 288 / 187.5 = 1.536 times.
    matrix = dwpose.crop(box)
    np.testing.assert_allclose(matrix, [[1.536, 0, 144 - 1.536 * 140], [0, 1.536, 192 - 1.536 * 150]], rtol=1e-6)
    # SimCC's bins 101 and 333: 50.5 / 288 · 187.5 + 140 − 187.5 / 2, and likewise down, in pixel indices.
    x, y = np.zeros((1, 133, 576), np.float32), np.zeros((1, 133, 768), np.float32)
    x[..., 101], y[..., 333] = 1, 1
    peaks(tmp_path / "dw.onnx", x, y)
    monkeypatch.setattr(dwpose.assets, "path", lambda asset: tmp_path / "dw.onnx")
    expert = dwpose.DwPose()
    expert.setup()
    joints = expert.joints([np.zeros((480, 640, 3), np.uint8)], box[None])
    np.testing.assert_allclose(joints[0, 0] - [0.5, 0.5, 0], [79.127604, 133.398438, 1], rtol=1e-5)


def test_133_peaks_are_stored_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    bins = np.stack([rng.permutation(575)[:133], rng.permutation(767)[:133]], axis=1)
    height = rng.uniform(0.1, 1.5, (133, 2)).astype(np.float32)  # published heights go above 1
    x, y = np.zeros((1, 133, 576), np.float32), np.zeros((1, 133, 768), np.float32)
    x[0, np.arange(133), bins[:, 0]] = height[:, 0]
    y[0, np.arange(133), bins[:, 1]] = height[:, 1]
    peaks(tmp_path / "dw.onnx", x, y)
    monkeypatch.setattr(dwpose.assets, "path", lambda asset: tmp_path / "dw.onnx")
    expert = dwpose.DwPose()
    expert.setup()
    # A box whose crop is the frame itself: a bin is half a pixel.
    box = np.array([[[28.8, 38.4, 259.2, 345.6]]], np.float32)
    frames = np.zeros((1, dwpose.HEIGHT, dwpose.WIDTH, 3), np.uint8)
    clip = DecodedClip("one", frames, 16.0, {"rf_detr": Annotation(tracked(box, dwpose.HEIGHT, dwpose.WIDTH))})
    annotation = expert.annotate(clip)
    modality = SkeletonModality()
    back = modality.decode(modality.encode(annotation.value))
    assert back.layout == "coco_wholebody133"
    np.testing.assert_array_equal(back.keypoints, annotation.value.keypoints)
    np.testing.assert_allclose(back.keypoints[0, 0, :, :2], bins / 2 + 0.5, atol=1e-4)
    scores = np.minimum(height.min(axis=1), 1)
    np.testing.assert_array_equal(back.keypoints[0, 0, :, 2], scores)
    assert annotation.confidence == pytest.approx(scores[:17].mean())  # the body's


def test_joints_beside_the_frame_and_a_clip_of_nobody(expert: dwpose.DwPose) -> None:
    frames = np.zeros((1, 100, 100, 3), np.uint8)
    boxes = np.array([[[-300, -300, -200, -100]]], np.float32)
    clip = DecodedClip("beside", frames, 16.0, {"rf_detr": Annotation(tracked(boxes, 100, 100))})
    assert (expert.annotate(clip).value.keypoints[..., 2] == 0).all()
    nobody = DecodedClip("nobody", frames, 16.0, {"rf_detr": Annotation(tracked(boxes[:, :0], 100, 100))})
    annotation = expert.annotate(nobody)
    assert annotation.value.keypoints.shape == (1, 0, 133, 3)
    assert annotation.confidence == 0


def test_peaks_are_decoded_half_a_pixel_a_bin() -> None:
    x, y = np.zeros((1, 2, 576), np.float32), np.zeros((1, 2, 768), np.float32)
    x[0, 0, 101], y[0, 0, 7] = 0.8, 0.3
    x[0, 1, 575], y[0, 1, 767] = 0.2, 0.9
    np.testing.assert_allclose(dwpose.decode(x, y)[0], [[50.5, 3.5, 0.3], [287.5, 383.5, 0.2]])


def test_other_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dwpose.assets, "path", lambda asset: tmp_path / "dw.onnx")
    brightest(tmp_path / "dw.onnx", ("heat_x", "heat_y"))
    with pytest.raises(AssetError, match="outputs heat_x, heat_y; DWPose's are simcc_x, simcc_y"):
        dwpose.DwPose().setup()
    (tmp_path / "dw.onnx").write_bytes(b"\x08\x08 cut short")
    with pytest.raises(AssetError, match="not an ONNX network"):
        dwpose.DwPose().setup()


def test_sets_give_way_to_what_is_named_beside_them() -> None:
    assert sets.expand(["paper"]) == sets.SETS["paper"]
    assert sets.expand(["dis", "paper"])[1] == "dis"
    assert sets.expand(["dis"]) == ("dis",)
    assert sets.expand(["light", "sam_vit_b"])[:3] == ("fastdepth", "dis", "sam_vit_b")
    assert {experts.get(name).modality for name in sets.expand(["production"])} == {
        "depth", "flow", "segmentation", "skeleton", "densepose",
    }  # fmt: skip
    with pytest.raises(OpenUniError, match=r"no expert papr; sets: light, paper, production; experts: "):
        sets.expand(["papr"])


def test_what_may_not_be_sold_is_refused_by_name() -> None:
    sets.check_commercial(["light", "production"])
    with pytest.raises(OpenUniError, match="refuses dwpose: its training data, COCO-WholeBody"):
        sets.check_commercial(["paper"])
