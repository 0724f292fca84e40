"""Pascal VOC's border (255) and Cityscapes' ignored ids are neither background nor a class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError
from openuni.modalities import get
from openuni.modalities.segmentation import Instance, Segmentation
from tests.unibench.importers.test_kubric import write_palette
from unibench.importers import Imported, read
from unibench.metrics.segmentation import SegmentationMetric

SIZE = (24, 32)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*SIZE, 3), 90, np.uint8))


def scored(clip: Imported, found: Segmentation) -> dict[str, float]:
    """Scores of a prediction of a clip that went through storage."""
    stored, metric = get("segmentation"), SegmentationMetric()
    scores = metric.update("a", found, stored.decode(stored.encode(clip.segmentation)))
    return {name: score.value for name, score in scores.items()} | metric.compute()


def write_voc(root: Path) -> tuple[np.ndarray, np.ndarray]:
    objects, classes = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    objects[4:14, 4:12], objects[4:14, 18:28] = 1, 2
    classes[4:14, 4:12], classes[4:14, 18:28] = 15, 12
    for mask in (objects, classes):
        mask[3, :], mask[14, :] = 255, 255
    for name in ("2007_000032", "2007_000033"):
        picture(root / f"JPEGImages/{name}.jpg")
    for folder, mask in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        (root / folder).mkdir(parents=True)
        write_palette(root / folder / "2007_000032.png", mask)
    (root / "Annotations").mkdir()
    return objects, classes


@pytest.mark.parametrize("inside", ["", "VOCdevkit"])
def test_voc(tmp_path: Path, inside: str) -> None:
    objects, _ = write_voc(tmp_path / inside / "VOC2012")
    clips = read("voc", tmp_path / (inside or "VOC2012"))
    (clip,) = clips
    truth = clip.segmentation
    assert clip.key == "voc-2007_000032"
    assert truth.instances == (Instance(1, "person"), Instance(2, "dog"))
    np.testing.assert_array_equal(truth.ignored[0], objects == 255)
    np.testing.assert_array_equal(truth.ids[0], np.where(objects == 255, 0, objects))
    assert [(Path(left.what.split(" (")[0]).name, left.why) for left in clips.left_out] == [
        ("JPEGImages", "have no mask of objects"),
        ("Annotations", "is not read: the masks are"),
    ]
    # What is said of the border counts neither way.
    spilled = truth.ids.copy()
    spilled[0, 3, 4:12], spilled[0, 14, 18:28] = 1, 2
    for ids in (truth.ids, spilled):
        scores = scored(clip, Segmentation(ids, truth.instances))
        for column in ("miou", "miou_background", "frame_ap", "j", "f"):
            assert scores[column] == pytest.approx(1), column


def test_voc_masks_that_disagree_are_refused(tmp_path: Path) -> None:
    _, classes = write_voc(tmp_path)
    classes[5, 5] = 7
    write_palette(tmp_path / "SegmentationClass/2007_000032.png", classes)
    with pytest.raises(CorruptDataError, match="object 1 has the classes"):
        list(read("voc", tmp_path))


def write_cityscapes(root: Path, *, instances: bool) -> np.ndarray:
    values = np.full(SIZE, 7, np.uint16)  # road
    values[:6] = 23  # sky
    values[6:9] = 4  # static: ignored
    values[20:] = 1  # ego vehicle: ignored
    values[10:14, 2:8], values[10:14, 10:16] = 26000, 26001  # two cars
    values[15:18, 20:30] = 24  # a group of persons
    values[10:13, 20:24] = 29000  # a caravan: ignored
    labels = np.where(values < 1000, values, values // 1000).astype(np.uint8)
    city = root / "gtFine/val/frankfurt"
    city.mkdir(parents=True)
    picture(root / "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png")
    picture(root / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png")
    picture(root / "leftImg8bit/val/frankfurt/frankfurt_000000_000576_leftImg8bit.png")
    (root / "gtFine/test/berlin").mkdir(parents=True)
    void = np.zeros(SIZE, np.uint8)
    cv2.imwrite(str(root / "gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png"), void)
    cv2.imwrite(str(city / "frankfurt_000000_000294_gtFine_labelIds.png"), labels)
    cv2.imwrite(str(city / "frankfurt_000001_000001_gtFine_labelIds.png"), labels)
    if instances:
        cv2.imwrite(str(city / "frankfurt_000000_000294_gtFine_instanceIds.png"), values)
    (root / "gtCoarse").mkdir()
    return values


def test_cityscapes(tmp_path: Path) -> None:
    values = write_cityscapes(tmp_path, instances=True)
    clips = read("cityscapes", tmp_path)
    (clip,) = clips
    truth = clip.segmentation
    assert clip.key == "cityscapes-frankfurt_000000_000294"
    group = Instance(24, "person", crowd=True)
    rows = (Instance(7, "road"), Instance(23, "sky"), group, Instance(26000, "car"), Instance(26001, "car"))
    assert truth.instances == rows
    void = np.isin(values, [4, 1, 29000])
    np.testing.assert_array_equal(truth.ignored[0], void)
    np.testing.assert_array_equal(truth.ids[0], np.where(void, 0, values))
    assert [left.why for left in clips.left_out] == [
        "is not read: leftImg8bit and gtFine are",
        "is void altogether: its truth is not published",
        "has no instanceIds.png or labelIds.png",
        "has no picture",
    ]
    said_everywhere = np.where(truth.ids == 0, 7, truth.ids).astype(np.int32)
    scores = scored(clip, Segmentation(said_everywhere, truth.instances))
    assert [scores[column] for column in ("miou", "frame_ap", "j")] == pytest.approx([1, 1, 1])
    # cityscapesScripts count a group's pixels for its class, and no object of it.
    road = np.where(values == 24, 7, said_everywhere).astype(np.int32)
    scores = scored(clip, Segmentation(road, truth.instances))
    roads, group_pixels = int((values == 7).sum()), int((values == 24).sum())
    assert scores["miou"] == pytest.approx((roads / (roads + group_pixels) + 1 + 0 + 1) / 4)
    assert [scores[column] for column in ("frame_ap", "j")] == pytest.approx([1, 1])


def test_cityscapes_with_classes_alone(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, instances=False)
    (clip,) = read("cityscapes", tmp_path)
    names = [instance.class_name for instance in clip.segmentation.instances]
    assert names == ["road", "sky", "person", "car"]
    assert clip.notes
