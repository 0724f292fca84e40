"""Key point scores against pycocotools and slow loops."""

from __future__ import annotations

import contextlib
import io
import json
import math

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from openuni.modalities.skeleton import Skeleton
from unibench.metrics.base import Scores
from unibench.metrics.skeleton import (
    SIGMAS,
    Poses,
    SkeletonMetric,
    correct_points,
    norms,
    object_keypoint_similarity,
    pair_people,
)

COCO = tuple(SIGMAS)


def crowd(seed: int, people: int = 3, frames: int = 4) -> Poses:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(40, 200, (1, people, 1, 2)) + rng.normal(0, 3, (frames, 1, 1, 2)).cumsum(0)
    xy = centre + rng.normal(0, 15, (frames, people, 17, 2))
    seen = rng.random((frames, people, 17)) < 0.8
    boxes = np.concatenate([xy.min(axis=2), xy.max(axis=2)], axis=-1)
    return Poses(COCO, np.concatenate([xy, seen[..., None]], axis=-1), boxes)


def guess(truth: Poses, seed: int, noise: float = 3.0) -> Poses:
    rng = np.random.default_rng(seed)
    points = truth.points.copy()
    points[..., :2] += (
        rng.normal(0, noise, points[..., :2].shape) * rng.choice([0.3, 1, 4], points.shape[:2])[..., None, None]
    )
    points[..., 2] = rng.uniform(0.1, 1, points.shape[:3])
    return Poses(COCO, points[:, rng.permutation(points.shape[1])], truth.boxes)


def coco_ap(samples: dict[str, tuple[Poses, Poses]]) -> float:
    from pycocotools.coco import COCO as Coco  # noqa: N811  its name there
    from pycocotools.cocoeval import COCOeval

    images, truths, found = [], [], []
    for key, (mine, true) in samples.items():
        for t in range(len(true.points)):
            image = 1000 * sorted(samples).index(key) + t
            images.append({"id": image, "height": 300, "width": 300})
            for n, points in enumerate(true.points[t]):
                flat = points.copy()
                flat[:, 2] = 2 * (points[:, 2] > 0)
                x0, y0, x1, y1 = true.boxes[t, n]
                truths.append(
                    {
                        "id": len(truths) + 1,
                        "image_id": image,
                        "category_id": 1,
                        "keypoints": flat.ravel().tolist(),
                        "num_keypoints": int((points[:, 2] > 0).sum()),
                        "area": (x1 - x0) * (y1 - y0),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "iscrowd": 0,
                    }
                )
            for points in mine.points[t]:
                flat = points.copy()
                flat[:, 2] = 1
                found.append(
                    {
                        "image_id": image,
                        "category_id": 1,
                        "keypoints": flat.ravel().tolist(),
                        "score": points[:, 2].mean(),
                    }
                )
    with contextlib.redirect_stdout(io.StringIO()):
        gt = Coco()
        gt.dataset = {"images": images, "annotations": truths, "categories": [{"id": 1}]}
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(found), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_equals_pycocotools(seed: int) -> None:
    samples = {}
    for k in range(4):
        truth = crowd(10 * seed + k)
        samples[f"v{k}"] = (guess(truth, k), truth)
    metric, other = SkeletonMetric(), SkeletonMetric()
    for k, (key, (mine, true)) in enumerate(samples.items()):
        (metric if k % 2 else other).update(key, mine, true)
    metric.merge(json.loads(json.dumps(other.state())))
    expected = coco_ap(samples)
    assert 0.05 < expected < 0.95
    assert metric.compute()["oks_ap"] == pytest.approx(expected, abs=1e-12)
    twice = metric.resampled(list(samples), np.array([[2, 1, 0, 1]]))["oks_ap"][0]
    pairs = list(samples.values())
    repeated = {"v0": pairs[0], "again": pairs[0], "v1": pairs[1], "v3": pairs[3]}
    assert twice == pytest.approx(coco_ap(repeated), abs=1e-12)


def test_similarity_equals_the_formula_point_by_point() -> None:
    truth = crowd(1, people=1, frames=1)
    mine = guess(truth, 1)
    labelled = truth.labelled()[0, 0]
    total = 0.0
    for k, sigma in enumerate(SIGMAS.values()):
        if labelled[k]:
            d2 = sum((float(mine.points[0, 0, k, a]) - float(truth.points[0, 0, k, a])) ** 2 for a in (0, 1))
            total += math.exp(-d2 / (2 * 500.0 * (2 * sigma) ** 2))
    fast = object_keypoint_similarity(
        mine.points[0, 0, :, :2], truth.points[0, 0, :, :2], labelled, 500.0, np.array(list(SIGMAS.values()))
    )
    assert fast == pytest.approx(total / labelled.sum(), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_correct_points_equal_a_slow_loop(seed: int) -> None:
    truth = crowd(seed)
    mine = guess(truth, seed)
    pairs = pair_people(mine, truth)
    fast = correct_points(mine, truth)
    for norm in ("bbox", "torso"):
        for fraction in (0.05, 0.1, 0.2):
            within = count = 0
            for t in range(4):
                for n in range(3):
                    points = truth.points[t, n]
                    if norm == "bbox":
                        x0, y0, x1, y1 = truth.boxes[t, n]
                        length = max(x1 - x0, y1 - y0)
                    else:
                        a, b = points[COCO.index("left_shoulder")], points[COCO.index("right_hip")]
                        if a[2] <= 0 or b[2] <= 0:
                            continue
                        length = math.dist(a[:2], b[:2])
                    for k in range(17):
                        if points[k, 2] > 0:
                            count += 1
                            within += math.dist(mine.points[t, pairs[t, n], k, :2], points[k, :2]) <= fraction * length
            assert fast[norm, fraction] == (within, count)
    assert fast["head", 0.1] == (0, 0)


def test_people_are_paired_by_where_they_are() -> None:
    truth = crowd(3)
    shuffled = Poses(COCO, truth.points[:, [2, 0, 1]], truth.boxes)
    assert (pair_people(shuffled, truth) == [1, 2, 0]).all()


def test_layouts_are_joined_by_joint_names() -> None:
    truth = crowd(4)
    order = np.random.default_rng(0).permutation(17)
    names = (*(COCO[k] for k in order), "left_toe")
    points = np.concatenate([truth.points[:, :, order], np.ones_like(truth.points[:, :, :1])], axis=2)
    scores = SkeletonMetric().update("k", Poses(names, points, truth.boxes), truth)
    assert scores["oks_ap_video"].value == pytest.approx(1)
    assert scores["pck_bbox@0.05"].value == 1
    assert scores["joints"].value == 17


def test_of_133_joints_the_body_is_scored() -> None:
    truth, mine = crowd(7), guess(crowd(7), 7)

    def skeleton(people: Poses, joints: int, layout: str) -> Skeleton:
        """With joints beyond the body anywhere."""
        points = np.full((4, 3, joints, 3), (5, 5, 1), np.float32)
        points[:, :, :17] = people.points
        return Skeleton(points, people.boxes.astype(np.float32), np.arange(3, dtype=np.int32), 240, 240, layout)

    def scores(mine_layout: str, true_layout: str) -> Scores:
        size = {"coco17": 17, "coco_wholebody133": 133}
        predicted = skeleton(mine, size[mine_layout], mine_layout)
        true = skeleton(truth, size[true_layout], true_layout)
        return SkeletonMetric().update("k", Poses.of(predicted), Poses.of(true))

    known = scores("coco17", "coco17")
    assert known["joints"].value == 17
    for mine_layout, true_layout in (("coco_wholebody133", "coco17"), ("coco_wholebody133",) * 2):
        for name, score in scores(mine_layout, true_layout).items():
            np.testing.assert_equal((score.value, score.weight), (known[name].value, known[name].weight))


def test_swapped_left_and_right_hurt() -> None:
    truth = crowd(5)
    swap = [COCO.index(j.replace("left", "#").replace("right", "left").replace("#", "right")) for j in COCO]
    scores = SkeletonMetric().update("k", Poses(COCO, truth.points[:, :, swap], truth.boxes), truth)
    assert scores["pck_torso@0.1"].value < 0.6


def test_the_area_is_the_masks_where_it_is_known() -> None:
    truth = crowd(6)
    areas = np.full(truth.boxes.shape[:2], 4.0)
    areas[0] = np.nan
    mine = guess(truth, 6)
    with_masks = SkeletonMetric().update("k", mine, Poses(COCO, truth.points, truth.boxes, areas))
    assert with_masks["oks_ap_video"].value < SkeletonMetric().update("k", mine, truth)["oks_ap_video"].value


def test_nobody_there_is_undefined_and_nobody_found_is_zero() -> None:
    truth = crowd(7)
    nobody = Poses(COCO, np.zeros((4, 0, 17, 3)), np.zeros((4, 0, 4)))
    metric = SkeletonMetric()
    scores = metric.update("k", nobody, truth)
    assert (scores["oks_ap_video"].value, scores["pck_bbox@0.2"].value) == (0, 0)
    assert metric.compute()["oks_ap"] == 0
    empty = SkeletonMetric()
    assert math.isnan(empty.update("k", truth, nobody)["oks_ap_video"].value)
    assert math.isnan(empty.compute()["oks_ap"])
    assert math.isnan(SkeletonMetric().compute()["oks_ap"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_are_missed(bad: float) -> None:
    truth = crowd(8, people=1)
    points = truth.points.copy()
    points[..., 2] = 1
    points[0, 0, :, 0] = bad
    scores = SkeletonMetric().update("k", Poses(COCO, points, truth.boxes), truth)
    assert scores["pck_bbox@0.2"].value == pytest.approx(1 - truth.labelled()[0].sum() / truth.labelled().sum())


def test_a_norm_of_no_length_does_not_count() -> None:
    truth = Poses(("nose",), np.array([[[[5.0, 5.0, 1.0]]]]), np.array([[[5.0, 5.0, 5.0, 5.0]]]))
    assert np.isnan(norms(truth)["bbox"]).all()
    assert math.isnan(SkeletonMetric().update("k", truth, truth)["pck_bbox@0.2"].value)


def test_what_cannot_be_compared_is_refused() -> None:
    truth = crowd(9)
    with pytest.raises(InvalidAnnotationError, match="frames"):
        SkeletonMetric().update("k", Poses(COCO, truth.points[:2], truth.boxes[:2]), truth)
    with pytest.raises(InvalidAnnotationError, match="share no joint"):
        SkeletonMetric().update("k", Poses(tuple(f"j{k}" for k in range(17)), truth.points, truth.boxes), truth)
