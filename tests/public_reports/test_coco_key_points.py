"""COCO key points by COCO's rules: areas of masks, crowds, people without joints (cocoapi#36, #655, mmpose#306), and
scores above 1 (mmpose#2755). The numbers are those of pycocotools on the same files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.modalities import get
from openuni_pipelines.commands.import_truth import import_truth
from unibench.importers import read
from unibench.metrics.skeleton import SIGMAS, Poses, SkeletonMetric
from unibench.scoring.runs import open_run

WIDTH, HEIGHT, PICTURES = 320, 240, 8


def write(root: Path, *, crowd: bool, unlabelled: bool, scale: float) -> list[float]:
    """A COCO folder with two people a picture and more in the last, detections as npz, and pycocotools' AP of them."""
    rng = np.random.default_rng(0)
    template = np.stack([rng.uniform(0.2, 0.8, 17), np.linspace(0.05, 0.95, 17)], axis=1)
    (root / "coco/annotations").mkdir(parents=True)
    (root / "coco/val2017").mkdir()
    (root / "pred/skeleton").mkdir(parents=True)
    images, truths, results = [], [], []
    for image in range(PICTURES):
        name = f"{image:012d}.jpg"
        cv2.imwrite(str(root / "coco/val2017" / name), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        images.append({"id": image, "file_name": name, "width": WIDTH, "height": HEIGHT})
        boxes = [(10, 20, 90, 190, True, 0), (120, 40, 70, 160, True, 0)][: image % 3]  # every third picture: nobody
        boxes += [(200, 10, 100, 60, False, 1)] * crowd + [(210, 120, 60, 100, False, 0)] * unlabelled
        found = [template * (60, 90) + (240, 140)]
        for x, y, w, h, labelled, group in boxes:
            points = np.round(template * (w, h) + (x, y), 1)
            found.append(points + rng.normal(0, 3 + image / 2, points.shape))
            flat = np.column_stack([points, np.full(17, 2)]) * labelled
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": 1, "bbox": [x, y, w, h],
                           "area": 0.35 * w * h, "iscrowd": group, "num_keypoints": 17 * labelled,
                           "keypoints": flat.ravel().tolist()})  # fmt: skip
        scores = np.float32([0.6, 0.9, 0.8, 0.95, 0.93][: len(found)])
        for points, score in zip(found, scores.tolist(), strict=True):
            flat = np.column_stack([points, np.full(17, score)]).ravel().tolist()
            results.append({"image_id": image, "category_id": 1, "keypoints": flat, "score": score})
        joints = np.concatenate(
            [np.array(found) + 0.5, np.broadcast_to(scores[:, None, None] * scale, (len(found), 17, 1))], axis=-1
        )
        size = np.array([HEIGHT, WIDTH])
        np.savez(root / f"pred/skeleton/coco-{image:012d}.npz", keypoints=joints[None].astype(np.float32), size=size)
    table = {"images": images, "annotations": truths, "categories": [{"id": 1, "name": "person"}]}
    file = root / "coco/annotations/person_keypoints_val2017.json"
    file.write_text(json.dumps(table))
    (root / "results.json").write_text(json.dumps(results))
    return official(root)


def official(root: Path) -> list[float]:
    """AP, AP50 and AP75 of `results.json` by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "coco/annotations/person_keypoints_val2017.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(root / "results.json")), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:3]]


def computed(metric: SkeletonMetric) -> list[float]:
    values = metric.compute()
    return [values["oks_ap"], values["oks_ap50"], values["oks_ap75"]]


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize(("crowd", "unlabelled"), [(False, False), (True, False), (False, True), (True, True)])
def test_imported_key_points_score_as_in_pycocotools(
    tmp_path: Path, crowd: bool, unlabelled: bool, scale: float
) -> None:
    expected = write(tmp_path, crowd=crowd, unlabelled=unlabelled, scale=scale)
    stored = get("skeleton")
    run, metric = open_run(tmp_path / "pred"), SkeletonMetric()
    for clip in read("coco", tmp_path / "coco"):
        truth = stored.decode(stored.encode(clip.skeleton))
        metric.update(clip.key, Poses.of(run.load("skeleton", clip.key)), Poses.of(truth))
    assert 0.05 < expected[0] < 0.95
    assert computed(metric) == pytest.approx(expected, abs=1e-9)


def test_a_wrong_pose_with_a_missing_joint_is_still_wrong() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(20, 90, (1, 1, 17, 2)), np.ones((1, 1, 17, 1))], axis=-1)
    boxes = np.array([[[20.0, 20, 90, 90]]])
    wrong = points + np.array([400, 0, 0])
    wrong[0, 0, 3] = np.nan, np.nan, 0
    truth = Poses(tuple(SIGMAS), points, boxes)
    # The better-scored detection is wrong: precision is 1/2 wherever recall is reached.
    both = np.concatenate([points * (1, 1, 0.5), wrong], axis=1)
    metric = SkeletonMetric()
    metric.update("a", Poses(tuple(SIGMAS), both, np.concatenate([boxes, boxes], axis=1)), truth)
    assert metric.compute()["oks_ap"] == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("crowd", [False, True])
def test_results_json_scores_as_in_pycocotools(tmp_path: Path, crowd: bool) -> None:
    expected = write(tmp_path, crowd=crowd, unlabelled=True, scale=1.0)
    results = json.loads((tmp_path / "results.json").read_text())
    kept = [row for row in results if row["image_id"] != 4]  # nothing found there: its people are missed, not left out
    (tmp_path / "run").mkdir()
    (tmp_path / "run/keypoints_val2017_results.json").write_text(json.dumps(kept))
    import_truth("coco", tmp_path / "coco", tmp_path / "gt")
    run, truth = open_run(tmp_path / "run"), open_run(tmp_path / "gt")
    assert not run.answer_to(truth).unknown
    metric = SkeletonMetric()
    for key in truth.keys("skeleton"):
        metric.update(key, Poses.of(run.load("skeleton", key)), Poses.of(truth.load("skeleton", key)))
    (tmp_path / "results.json").write_text(json.dumps(kept))
    fewer = official(tmp_path)
    assert fewer[0] < expected[0]
    assert computed(metric) == pytest.approx(fewer, abs=1e-9)
