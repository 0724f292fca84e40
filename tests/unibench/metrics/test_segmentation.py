"""Segmentation scores against pycocotools, torchmetrics, DAVIS's definition in slow loops, and hand counts."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.metrics.base import mean_iou
from unibench.metrics.precision import AveragePrecision
from unibench.metrics.segmentation import (
    SegmentationMetric,
    boundary_measure,
    overlaps,
    pair_objects,
    pictures,
    region_similarity,
)

LABELS = ("person", "ball", "chair")


def blobs(seed: int, count: int, frames: int = 4, height: int = 40, width: int = 50) -> Segmentation:
    """Discs that move, with random classes and scores; later ones hide earlier ones."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ids = np.zeros((frames, height, width), np.int32)
    instances = []
    for k in range(count):
        label = LABELS[int(rng.integers(3))]
        number = int(rng.permutation(200)[0]) + 200 * k + 1
        instances.append(Instance(number, label, float(rng.random())))
        centre, speed, radius = rng.uniform(5, 35, 2), rng.normal(0, 2, 2), rng.uniform(3, 12)
        for t in range(frames):
            cy, cx = centre + t * speed
            ids[t][(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    return Segmentation(ids, tuple(instances))


def shifted(masks: Segmentation, seed: int) -> Segmentation:
    """A prediction: the truth moved a little, with an instance lost, classes mistaken and scores of its own."""
    rng = np.random.default_rng(seed)
    ids = np.roll(masks.ids, rng.integers(-3, 4, 2), axis=(1, 2))
    instances = []
    for instance in masks.instances:
        label = instance.class_name if rng.random() < 0.8 else LABELS[int(rng.integers(3))]
        instances.append(Instance(instance.id, label, float(rng.random().__round__(1))))
    gone = instances.pop()
    return Segmentation(np.where(ids == gone.id, 0, ids), tuple(instances))


def coco_ap(samples: dict[str, tuple[Segmentation, Segmentation]], tubes: bool) -> float:
    """pycocotools over the same masks, decoded from plain arrays and with all classes in one evaluation."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, truths, found = [], [], []
    for key, (predicted, true) in samples.items():
        frames, height, width = true.ids.shape
        for t in [None] if tubes else range(frames):
            image = 1000 * sorted(samples).index(key) + (t or 0)
            images.append({"id": image, "height": height, "width": width * (frames if tubes else 1)})
            for masks, into in ((true, truths), (predicted, found)):
                for instance in masks.instances:
                    member = masks.ids == instance.id
                    member = np.concatenate(list(member), axis=1) if t is None else member[t]
                    if not member.any():
                        continue
                    encoded = rle.encode(np.asfortranarray(member.astype(np.uint8)))
                    entry = {
                        "id": len(into) + 1,
                        "image_id": image,
                        "category_id": LABELS.index(instance.class_name) + 1,
                        "segmentation": encoded,
                        "area": float(member.sum()),
                        "bbox": [0, 0, 1, 1],
                        "iscrowd": 0,
                    }
                    if masks is predicted:
                        entry["score"] = instance.score
                    into.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {"images": images, "annotations": truths, "categories": [{"id": k + 1} for k in range(3)]}
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("tubes", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_average_precision_equals_pycocotools(seed: int, tubes: bool) -> None:
    samples = {}
    for k in range(5):
        truth = blobs(10 * seed + k, 6)
        samples[f"v{k}"] = (shifted(truth, seed + k), truth)
    precision = AveragePrecision()
    for key, (predicted, true) in samples.items():
        precision.add(pictures(key, predicted, true)[tubes])
    assert precision.compute().ap == pytest.approx(coco_ap(samples, tubes), abs=1e-12)


def test_average_precision_of_a_hand_made_case() -> None:
    # Two true squares; the better-scored detection hits nothing, the other one square exactly: precision 1/2 up to
    # recall 1/2, so 51 of 101 recall points have 1/2.
    truth = np.zeros((1, 20, 20), np.int32)
    truth[0, 2:6, 2:6], truth[0, 10:14, 10:14] = 1, 2
    found = np.zeros_like(truth)
    found[0, 2:6, 2:6], found[0, 16:19, 2:6] = 1, 2
    precision = AveragePrecision()
    masks = Segmentation(found, (Instance(1, "a", 0.5), Instance(2, "a", 0.9)))
    precision.add(pictures("k", masks, Segmentation(truth, (Instance(1, "a"), Instance(2, "a"))))[0])
    assert precision.compute().ap == pytest.approx(51 / 101 / 2, abs=1e-12)


@pytest.mark.parametrize("tubes", [False, True])
def test_resampled_average_precision_equals_pycocotools_over_repeated_samples(tubes: bool) -> None:
    samples = {}
    for k in range(5):
        truth = blobs(40 + k, 6, frames=4 if tubes else 1)
        found = shifted(truth, k)
        # No two detections have one score: how COCO orders those would depend on the names of the copies.
        scores = np.random.default_rng(k).uniform(size=len(found.instances))
        ranked = [replace(i, score=float(s)) for i, s in zip(found.instances, scores, strict=True)]
        samples[f"v{k}"] = (Segmentation(found.ids, tuple(ranked)), truth)
    precision = AveragePrecision()
    for key, (predicted, true) in samples.items():
        precision.add(pictures(key, predicted, true)[tubes])
    counts = np.random.default_rng(0).multinomial(5, [0.2] * 5, 6)
    found = precision.resampled(list(samples), counts)
    for row, count in zip(found, counts, strict=True):
        repeated = {f"{key}-{c}": pair for (key, pair), n in zip(samples.items(), count, strict=True) for c in range(n)}
        assert row[0] == pytest.approx(coco_ap(repeated, tubes), abs=1e-12)
    once = precision.resampled(list(samples), np.ones((1, 5), int))[0]
    assert once.tolist() == list(precision.compute())


def test_resampled_iou_is_that_of_the_repeated_samples() -> None:
    samples = {f"v{k}": (shifted(blobs(k, 5), k + 1), blobs(k, 5)) for k in range(4)}
    metric = SegmentationMetric()
    for key, pair in samples.items():
        metric.update(key, *pair)
    counts = np.array([[1, 1, 1, 1], [0, 3, 1, 0], [4, 0, 0, 0]])
    found = metric.resampled(list(samples), counts)
    assert found["miou"][0] == metric.compute()["miou"]
    for r, count in enumerate(counts):
        repeated = SegmentationMetric()
        for (key, pair), n in zip(samples.items(), count, strict=True):
            for c in range(n):
                repeated.update(f"{key}-{c}", *pair)
        for name in ("miou", "miou_background"):
            assert found[name][r] == pytest.approx(repeated.compute()[name], rel=1e-12)


def test_a_resample_without_truth_is_undefined() -> None:
    truth = blobs(0, 3)
    empty = Segmentation(np.zeros_like(truth.ids), ())
    metric = SegmentationMetric()
    metric.update("a", truth, truth)
    metric.update("b", truth, empty)
    found = metric.resampled(["a", "b"], np.array([[2, 0], [0, 2]]))
    assert found["frame_ap"][0] == 1
    assert math.isnan(found["frame_ap"][1])
    assert math.isnan(found["miou"][1])


def test_merged_accumulators_equal_one_that_saw_everything_also_through_json() -> None:
    whole, left, right = SegmentationMetric(), SegmentationMetric(), SegmentationMetric()
    for k in range(6):
        truth = blobs(k, 5)
        prediction = shifted(truth, k)
        whole.update(f"v{k}", prediction, truth)
        (left if k % 2 else right).update(f"v{k}", prediction, truth)
    left.merge(json.loads(json.dumps(right.state())))
    assert left.compute() == whole.compute()
    assert 0 < whole.compute()["frame_ap"] < 1


@pytest.mark.parametrize("seed", range(4))
def test_mean_iou_equals_torchmetrics(seed: int) -> None:
    import torch
    from torchmetrics.classification import MulticlassJaccardIndex

    names = ["(background)", *LABELS]
    metric = SegmentationMetric()
    oracle = MulticlassJaccardIndex(4, average="none")
    for k in range(4):
        truth = blobs(100 * seed + k, 8)
        prediction = shifted(truth, k)
        metric.update(f"v{k}", prediction, truth)
        maps = []
        for masks in (prediction, truth):
            classes = np.zeros(masks.ids.shape, np.int64)
            for instance in masks.instances:
                classes[masks.ids == instance.id] = names.index(instance.class_name)
            maps.append(torch.from_numpy(classes))
        oracle.update(*maps)
    by_class = oracle.compute().double().numpy()
    assert metric.compute()["miou"] == pytest.approx(by_class[1:].mean(), rel=1e-6)  # torchmetrics sums in float32
    assert metric.compute()["miou_background"] == pytest.approx(by_class.mean(), rel=1e-6)


def test_mean_iou_counts_exactly() -> None:
    truth = np.array([[[1, 1, 2, 0]]])
    found = np.array([[[5, 0, 6, 6]]])
    metric = SegmentationMetric()
    metric.update(
        "k",
        Segmentation(found, (Instance(5, "a"), Instance(6, "b"))),
        Segmentation(truth, (Instance(1, "a"), Instance(2, "b"))),
    )
    assert metric.compute()["miou"] == (1 / 2 + 1 / 2) / 2
    assert metric.compute()["miou_background"] == (1 / 2 + 1 / 2 + 0) / 3


def test_a_class_that_is_only_predicted_costs_its_pixels_but_is_no_class_of_its_own() -> None:
    assert mean_iou(np.array([[4, 4, 8], [0, 4, 0]])) == 0.5
    assert np.isnan(mean_iou(np.array([[0, 4, 0]])))


def slow_boundary(mask: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    edge = set()
    for y in range(height):
        for x in range(width):
            near = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(b < height and a < width and mask[b, a] != mask[y, x] for b, a in near):
                edge.add((y, x))
    return edge


def slow_f(found: np.ndarray, there: np.ndarray) -> float:
    radius = math.ceil(0.008 * math.hypot(*found.shape))
    a, b = slow_boundary(found), slow_boundary(there)
    if not a or not b:
        return float(not a and not b)

    def near(edge: set[tuple[int, int]], other: set[tuple[int, int]]) -> float:
        hits = [p for p in edge if any((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= radius**2 for q in other)]
        return len(hits) / len(edge)

    precision, recall = near(a, b), near(b, a)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_j_and_f_equal_slow_loops(seed: int) -> None:
    truth = blobs(seed, 1, frames=3)
    there = truth.ids > 0
    found = np.roll(there, (2, seed), axis=(1, 2))
    f = boundary_measure(found, there)
    j = region_similarity(found, there)
    for t in range(3):
        assert f[t] == pytest.approx(slow_f(found[t], there[t]), abs=1e-9)
        assert j[t] == pytest.approx((found[t] & there[t]).sum() / (found[t] | there[t]).sum(), abs=1e-12)


def test_empty_masks_agree_perfectly_and_one_empty_mask_scores_zero() -> None:
    nothing, square = np.zeros((1, 9, 9), bool), np.zeros((1, 9, 9), bool)
    square[0, 3:6, 3:6] = True
    assert (region_similarity(nothing, nothing)[0], boundary_measure(nothing, nothing)[0]) == (1, 1)
    assert (region_similarity(nothing, square)[0], boundary_measure(nothing, square)[0]) == (0, 0)


def test_perfect_masks_score_one_everywhere_whatever_their_ids() -> None:
    truth = blobs(3, 5)
    renamed = Segmentation(
        np.where(truth.ids > 0, truth.ids + 5000, 0),
        tuple(Instance(i.id + 5000, i.class_name, 0.5) for i in truth.instances),
    )
    scores = SegmentationMetric()
    per_video = scores.update("k", renamed, truth)
    assert all(value == pytest.approx(1, abs=1e-12) for value in scores.compute().values())
    for name in ("miou_video", "j", "f", "jf", "frame_ap_video", "tube_ap_video"):
        assert per_video[name].value == pytest.approx(1, abs=1e-12), name


def test_swapped_ids_hurt_tubes_not_frames() -> None:
    truth = blobs(11, 2, frames=6)
    a, b = (i.id for i in truth.instances)
    swapped = truth.ids.copy()
    swapped[3:] = np.select([truth.ids[3:] == a, truth.ids[3:] == b], [b, a], truth.ids[3:])
    metric = SegmentationMetric()
    metric.update("k", Segmentation(swapped, truth.instances), truth)
    values = metric.compute()
    assert values["frame_ap_agnostic"] == pytest.approx(1, abs=1e-12)
    assert values["tube_ap_agnostic"] < 0.7


def test_objects_are_paired_by_overlap_over_the_whole_video() -> None:
    truth = blobs(5, 4)
    order = tuple(reversed(truth.instances))
    pairs = pair_objects(overlaps(Segmentation(truth.ids, order), truth))
    assert pairs == [3, 2, 1, 0]


def test_nothing_true_is_undefined_and_nothing_found_is_zero() -> None:
    truth = blobs(6, 3)
    nothing = Segmentation(np.zeros_like(truth.ids), ())
    lost = SegmentationMetric()
    scores = lost.update("k", nothing, truth)
    assert (scores["miou_video"].value, scores["j"].value, lost.compute()["frame_ap"]) == (0, 0, 0)
    empty = SegmentationMetric()
    scores = empty.update("k", truth, nothing)
    assert math.isnan(scores["miou_video"].value)
    assert math.isnan(scores["jf"].value)
    assert math.isnan(empty.compute()["frame_ap"])
    both = SegmentationMetric().update("k", nothing, nothing)
    assert math.isnan(both["frame_ap_video"].value)


def test_ids_that_no_table_names_and_shapes_that_differ_are_refused() -> None:
    truth = blobs(7, 2)
    with pytest.raises(InvalidAnnotationError, match="table of instances lacks"):
        SegmentationMetric().update("k", Segmentation(truth.ids, truth.instances[:1]), truth)
    with pytest.raises(InvalidAnnotationError, match="resample"):
        SegmentationMetric().update("k", Segmentation(truth.ids[:2], truth.instances), truth)


def test_predictions_without_a_true_class_are_remarked_on() -> None:
    truth = blobs(3, 4)
    nameless = Segmentation(truth.ids, tuple(replace(i, class_name="object") for i in truth.instances))
    metric = SegmentationMetric()
    metric.update("k", nameless, truth)
    assert "no predicted class (object) is one of the truth" in next(metric.remarks())
    metric.update("l", truth, truth)
    assert list(metric.remarks()) == []


def test_a_set_of_which_nothing_was_scored_is_undefined() -> None:
    assert all(math.isnan(value) for value in SegmentationMetric().compute().values())
