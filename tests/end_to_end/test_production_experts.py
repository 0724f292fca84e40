"""`--experts paper` and `--experts production` by the commands, with small networks of random weights in their places.

The weights are saved as they are published, served by this machine and fetched into an empty cache; everything but
their size is what a user runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("segment_anything")
pytest.importorskip("timm")
pytest.importorskip("transformers")

import openuni as package  # noqa: E402
from openuni import assets  # noqa: E402
from openuni.experts import densepose_torchscript as densepose  # noqa: E402
from openuni.experts import depth_anything, dwpose, edgetam, raft, rf_detr, sam, vitpose  # noqa: E402
from openuni_pipelines.cli import openuni  # noqa: E402
from tests.openuni.experts.conftest import served  # noqa: E402, F401
from tests.openuni.experts.published import serve, small_depth_anything  # noqa: E402
from tests.openuni.experts.test_densepose_torchscript import Program  # noqa: E402
from tests.openuni.experts.test_dwpose import brightest  # noqa: E402
from tests.openuni.experts.test_rf_detr import SmallRfDetr  # noqa: E402
from tests.openuni.experts.test_sam import small_sam  # noqa: E402
from tests.openuni.experts.test_vitpose import SmallVitPose  # noqa: E402


@pytest.fixture
def here() -> dict[str, Path]:
    """Those files of the light experts and of the demo that are on this machine, by name."""
    names = ("efficientdet-lite0", "pose-landmarker", "demo-carphone")
    pinned = {name: assets.get(name) for name in names}
    return {name: assets.path(asset) for name, asset in pinned.items() if assets.is_cached(asset)}


@pytest.fixture
def small(here: dict[str, Path], served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Every network of the two sets, small, served and in the cache."""
    from torchvision.models.optical_flow import raft_small
    from transformers import RfDetrForObjectDetection, VitPoseForPoseEstimation

    torch.manual_seed(0)
    made = tmp_path / "made"

    def put(expert: Any, *files: Path, **changed: Any) -> None:
        pinned = [serve(served, asset, file) for asset, file in zip(expert.assets, files, strict=True)]
        for name, value in {**changed, "assets": tuple(pinned)}.items():
            monkeypatch.setattr(expert, name, value)

    detector = RfDetrForObjectDetection(SmallRfDetr._config())
    with torch.no_grad():
        detector.class_embed.bias[1] = 6.0  # everything is a person
    detector.save_pretrained(made / "rf_detr")
    put(rf_detr.RfDetr, made / "rf_detr" / "model.safetensors", _config=staticmethod(SmallRfDetr._config))

    VitPoseForPoseEstimation(SmallVitPose._config()).save_pretrained(made / "vitpose")
    put(vitpose.VitPose, made / "vitpose" / "model.safetensors", _config=staticmethod(SmallVitPose._config))

    brightest(made / "dw.onnx")
    put(dwpose.DwPose, made / "dw.onnx")

    torch.save(raft_small(weights=None).state_dict(), made / "raft.pth")
    put(raft.RaftLarge, made / "raft.pth", _network=staticmethod(lambda: raft_small(weights=None)))

    torch.save(small_sam().state_dict(), made / "sam.pth")
    put(sam.SamVitH, made / "sam.pth", _network=staticmethod(small_sam))

    put(depth_anything.DepthAnythingV2Small, *small_depth_anything(made / "depth"))

    from tests.openuni.experts.test_sam2_video import SmallEdgeTam

    following = SmallEdgeTam._config()
    edgetam.EdgeTam._network()(following).save_pretrained(made / "edgetam")
    put(edgetam.EdgeTam, made / "edgetam" / "model.safetensors", _config=staticmethod(lambda: following))

    torch.jit.script(Program([[8.0, 8.0, 56.0, 60.0]], (64, 64))).save(str(made / "densepose"))
    put(densepose.DensePoseTorchscript, made / "densepose")


@pytest.fixture
def clip(here: dict[str, Path], tmp_path: Path, make_clips: Callable[..., Path]) -> Path:
    """A folder with one clip: the demo's person in a car where it has been fetched, else a moving square."""
    if "demo-carphone" not in here:
        return make_clips(tmp_path / "videos", ["square"], frames=4, size=64)
    (tmp_path / "videos").mkdir()
    shutil.copy(here["demo-carphone"], tmp_path / "videos" / "carphone.mp4")
    return tmp_path / "videos"


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(openuni, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def built(videos: Path, root: Path, *more: str) -> package.Dataset:
    """The dataset that the command makes, verified."""
    size = ("--size", 64, "--min-frames", 2, "--max-frames", 3, "--limit", 1, "--workers", 0)
    run("build", "--source", "folder", "--videos", videos, "--out", root, *size, *more)
    run("verify", root)
    return package.open(str(root))


def check(data: package.Dataset, root: Path, densepose_by: str) -> None:
    """Columns, index, contact sheet and card of a dataset with every modality."""
    (sample,) = list(data)
    frames, height, width, _ = sample.rgb.frames.shape
    assert set(data.columns) == {"rgb", "depth", "flow", "segmentation", "skeleton", "densepose"}
    # The light expert on bodies sees nobody in so small a picture, and says so.
    absent = {"densepose"} if densepose_by == "body_fit" and "densepose" not in sample else set()
    assert {column for column in data.columns if column not in sample} == absent
    assert sample.depth.values.shape == (frames, height, width)
    assert sample.flow.forward.shape == (frames - 1, height, width, 2)
    assert sample.segmentation.ids.shape == (frames, height, width)
    assert sample.skeleton.body.keypoints.shape[2:] == (17, 3)
    assert len(sample.skeleton.track_ids) > 0
    if not absent:
        assert sample.densepose.values.shape == (frames, height, width, 4)
    assert {row.class_name for row in sample.segmentation.instances} <= {"person", *rf_detr.NAMES}
    run("stats", root)
    sheet = cv2.imread(str(root / "contact_sheet.png"))
    assert sheet is not None
    assert np.ptp(sheet) > 100
    card = (root / "README.md").read_text()
    assert f"| densepose | {1 - len(absent)} of 1 | `{densepose_by}-" in card
    assert "| unvalidated |" in card
    assert "| no published output known |" in card
    assert "| flow | `raft_large` | BSD-3-Clause | BSD-3-Clause | " in card


@pytest.mark.usefixtures("small")
def test_the_paper_set(clip: Path, tmp_path: Path) -> None:
    root = tmp_path / "paper"
    source = ("build", "--source", "folder", "--videos", clip, "--out", root)
    assert "--trust" in run(*source, "--experts", "paper", code=1)
    assert not root.exists()
    data = built(clip, root, "--experts", "paper", "--trust")
    check(data, root, "densepose_torchscript")
    assert next(iter(data)).skeleton.layout == "coco_wholebody133"


@pytest.mark.usefixtures("small")
def test_the_production_set(here: dict[str, Path], clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    for name in ("efficientdet-lite0", "pose-landmarker"):  # what `body_fit` builds on
        if name not in here:
            pytest.skip(f"asset {name} is not on this machine; `openuni assets fetch {name}` brings it")
        shutil.copy(here[name], assets.place(assets.get(name)))
    root = tmp_path / "production"
    check(built(clip, root, "--experts", "production", "--commercial"), root, "body_fit")


@pytest.mark.usefixtures("small")
def test_edgetam_makes_a_column_and_the_card_tells_what_it_builds_on(clip: Path, tmp_path: Path) -> None:
    root = tmp_path / "followed"
    (sample,) = list(built(clip, root, "--experts", "edgetam,raft_large"))
    assert sample.segmentation.ids.shape == sample.rgb.frames.shape[:3]
    assert {row.class_name for row in sample.segmentation.instances} <= {"person", *rf_detr.NAMES}
    card = (root / "README.md").read_text()
    assert "| segmentation | `edgetam` | Apache-2.0 | Apache-2.0 | SA-V (CC-BY-4.0)" in card
    assert "| segmentation | `rf_detr` | Apache-2.0 | Apache-2.0 | COCO" in card
