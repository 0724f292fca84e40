"""COCO's masks and boxes by COCO's rules: overlaps, crowds, ties, scores above 1, pictures where nothing was found,
categories that the truth lacks. The numbers are those of pycocotools on the same files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as official_masks

from openuni import rle
from openuni.errors import CorruptDataError
from openuni.modalities import get
from openuni_pipelines.commands.import_truth import import_truth
from unibench import score
from unibench.importers import read
from unibench.metrics.segmentation import SegmentationMetric
from unibench.scoring.runs import open_run

HEIGHT, WIDTH = 120, 160
NAMES = {1: "person", 3: "car", 44: "bottle"}


def packed(mask: np.ndarray) -> dict[str, Any]:
    encoded = official_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def plain(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths in a list, as COCO stores crowds."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff([0, *edges, mask.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


def polygon(rng: np.random.Generator, centre: np.ndarray, radius: float) -> list[float]:
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = centre + radius * rng.uniform(0.7, 1, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.clip(points, 0, (WIDTH - 1, HEIGHT - 1)).round(2).ravel().tolist()


def write(root: Path, seed: int, *, boxes: bool) -> list[dict[str, Any]]:
    """A COCO folder with objects that overlap and a crowd, and detections of them."""
    rng = np.random.default_rng(seed)
    (root / "coco/annotations").mkdir(parents=True)
    (root / "coco/val2017").mkdir()
    images, truths, found = [], [], []
    for image in (7, 12, 139, 285, 632, 724):
        name = f"{image:012d}.jpg"
        cv2.imwrite(str(root / "coco/val2017" / name), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        images.append({"id": image, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for k in range(0 if image == 12 else int(rng.integers(2, 7))):
            centre, radius = rng.uniform((30, 30), (WIDTH - 30, HEIGHT - 30)), rng.uniform(6, 40)
            shape, crowd = [polygon(rng, centre, radius)], k == 1 and image % 2 == 1
            category = [1, 1, 3, 44][int(rng.integers(4))]
            mask = official_masks.decode(official_masks.merge(official_masks.frPyObjects(shape, HEIGHT, WIDTH)))
            x, y, w, h = official_masks.toBbox(official_masks.encode(mask)).tolist()
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": category, "iscrowd": int(crowd),
                           "area": float(mask.sum()) - 0.37, "bbox": [x + 0.25, y - 0.13, w, h + 0.4],
                           "segmentation": plain(mask) if crowd else shape})  # fmt: skip
            for _ in range(3 if crowd else int(rng.integers(0, 3))):
                moved = np.roll(mask, rng.integers(-4, 5, 2), axis=(0, 1))
                guess = category if rng.random() < 0.8 else 3
                row = {"image_id": image, "category_id": guess, "score": float(rng.integers(1, 14)) / 8}
                if boxes:
                    row["bbox"] = [x + float(rng.normal(0, 3)), y, w * float(rng.uniform(0.7, 1.2)), h]
                else:
                    row["segmentation"] = [packed(moved), plain(moved)][int(rng.integers(2))]
                found.append(row)
        found.append({"image_id": image, "category_id": 90, "score": 3.0, **({"bbox": [0, 0, 9, 9]} if boxes else
                      {"segmentation": packed(np.ones((HEIGHT, WIDTH)))})})  # fmt: skip
    found = [row for row in found if row["image_id"] != 632]  # nothing found there: its objects are missed
    table = {"images": images, "annotations": truths}
    table["categories"] = [{"id": number, "name": name} for number, name in NAMES.items()]
    (root / "coco/annotations/instances_val2017.json").write_text(json.dumps(table))
    return found


def official(root: Path, found: list[dict[str, Any]], kind: str) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It reads masks packed alone; plain run lengths say the same.
    rows = [row | ({"segmentation": _bytes(row["segmentation"])} if "segmentation" in row else {}) for row in found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "coco/annotations/instances_val2017.json"))
        evaluation = COCOeval(truth, truth.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("", "50", "75", "_small", "_medium", "_large"), evaluation.stats[:6].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("kind", "column"), [("segm", "frame_ap"), ("bbox", "box_ap")])
def test_results_json_scores_as_in_pycocotools(tmp_path: Path, kind: str, column: str, seed: int) -> None:
    found = write(tmp_path, seed, boxes=kind == "bbox")
    expected = official(tmp_path, found, kind)
    (tmp_path / "run").mkdir()
    (tmp_path / f"run/coco_{kind}_results.json").write_text(json.dumps(found))
    import_truth("coco", tmp_path / "coco", tmp_path / "gt")
    run, truth, metric = open_run(tmp_path / "run"), open_run(tmp_path / "gt"), SegmentationMetric()
    match = run.answer_to(truth)
    assert (match.unknown, match.ambiguous) == ((), ())
    assert match.remarks == ("5 detections left out, of a category_id that the truth does not have",)
    for key in truth.keys("segmentation"):
        metric.update(key, run.load("segmentation", key), truth.load("segmentation", key))
    computed = metric.compute()
    assert 0.03 < expected[""] < 0.97
    for part in ("", "50", "75", "_small", "_medium", "_large"):
        if expected[part] >= 0:
            assert computed[f"{column}{part}"] == pytest.approx(expected[part], abs=1e-9), part
        else:
            assert np.isnan(computed[f"{column}{part}"])
    if kind == "bbox":
        assert np.isnan(computed["frame_ap"])


def test_the_command_scores_masks_and_boxes_of_one_table(tmp_path: Path) -> None:
    found = write(tmp_path, 1, boxes=False)
    for row in found:  # as detectors write it: a box beside each mask
        row["bbox"] = [float(v) for v in official_masks.toBbox(_bytes(row["segmentation"]))]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.segm.json").write_text(json.dumps(found))
    boxes = [{key: value for key, value in row.items() if key != "segmentation"} for row in found]
    (tmp_path / "run/results.bbox.json").write_text(json.dumps(boxes))
    import_truth("coco", tmp_path / "coco", tmp_path / "gt")
    said: list[str] = []
    report = score(tmp_path / "run", tmp_path / "gt", progress=lambda news: said.append(str(news)))
    columns = report.tasks["segmentation"].columns
    for kind, column in (("segm", "frame_ap"), ("bbox", "box_ap")):
        expected = official(tmp_path, found, kind)
        for part in ("", "50", "75", "_small", "_medium"):
            assert columns[f"{column}{part}"].value == pytest.approx(expected[part], abs=1e-9), (kind, part)
    assert any("5 detections left out" in sentence for sentence in said)


def _bytes(part: dict[str, Any]) -> dict[str, Any]:
    return official_masks.frPyObjects(part, HEIGHT, WIDTH) if isinstance(part["counts"], list) else part


def test_truth_comes_back_from_storage_and_as_ids(tmp_path: Path) -> None:
    write(tmp_path, 0, boxes=False)
    stored = get("segmentation")
    clips = read("coco", tmp_path / "coco")
    crowds = 0
    for clip in clips:
        truth = stored.decode(stored.encode(clip.segmentation))
        for name in ("boxes", "areas", "crowds", "scores", "runs", "lengths"):
            np.testing.assert_array_equal(getattr(truth.objects, name), getattr(clip.segmentation.objects, name))
        crowds += int(truth.objects.crowds.sum())
        if truth.objects.crowds.any():
            assert truth.ignored.any()  # what is found on a crowd alone is not held against mIoU, J and F
        assert not {*np.unique(truth.ids)} & {p + 1 for p in np.flatnonzero(truth.objects.crowds)}
    assert crowds == 3
    assert clips.categories == NAMES


def test_masks_in_every_form_decode_as_in_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = (int(side) for side in rng.integers(1, 50, 2))
        mask = rng.random((height, width)) < rng.random()
        for part in (packed(mask), plain(mask)):
            np.testing.assert_array_equal(rle.decode(rle.read(part, height, width), height, width), mask)
        shape = [(rng.uniform(-2, 52, 2 * int(rng.integers(3, 9)))).round(2).tolist() for _ in range(2)]
        drawn = official_masks.decode(official_masks.merge(official_masks.frPyObjects(shape, height, width)))
        np.testing.assert_array_equal(rle.decode(rle.read(shape, height, width), height, width), drawn > 0)


@pytest.mark.parametrize(
    "part",
    [
        {"size": [4, 5], "counts": [3, 4]},
        {"size": [4, 5], "counts": [-1, 21]},
        {"size": [5, 4], "counts": [20]},
        {"size": [4, 5], "counts": "~~"},
        {"size": [4, 5], "counts": "ooooooooooooooo0"},
        [[1.0, 2.0, 3.0]],
        7,
    ],
)
def test_a_mask_that_is_none_is_refused(part: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        rle.read(part, 4, 5)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    cv2.imwrite(str(tmp_path / "val/1.jpg"), np.zeros((4, 5, 3), np.uint8))
    row = {"id": 3, "image_id": 1, "category_id": 1, "segmentation": part, "bbox": [0, 0, 1, 1], "area": 1}
    table = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [row], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(table))
    with pytest.raises(CorruptDataError, match="annotation 3 is malformed"):
        list(read("coco", tmp_path))
