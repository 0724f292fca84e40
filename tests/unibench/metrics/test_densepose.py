"""DensePose scores against torchmetrics, slow loops and a body whose geodesics are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from openuni.modalities.densepose import DensePose
from unibench.metrics.base import Floats
from unibench.metrics.densepose import DensePoseMetric, Points, geodesic_point_similarity


class Line:
    """A body that is a line: part p covers metres p to p + 1, along U."""

    layout = "anny-24"

    def distance(self, first: Points, second: Points) -> Floats:
        at = [points[:, 0] + points[:, 1] / 255 for points in (first, second)]
        return np.abs(at[0] - at[1])


def people(seed: int, frames: int = 2, size: int = 20) -> DensePose:
    rng = np.random.default_rng(seed)
    values = np.zeros((frames, size, size, 4), np.uint8)
    for person, columns in ((1, slice(2, 8)), (2, slice(10, 19))):
        values[:, 3:17, columns, 0] = rng.integers(1, 25, (frames, 14, 1))
        values[:, 3:17, columns, 1:3] = rng.integers(0, 256, (frames, 14, columns.stop - columns.start, 2))
        values[:, 3:17, columns, 3] = person
    return DensePose(values)


def guess(truth: DensePose, seed: int) -> DensePose:
    rng = np.random.default_rng(seed)
    values = np.roll(truth.values, rng.integers(-2, 3, 2), axis=(1, 2))
    wrong = (rng.random(values.shape[:3]) < 0.2) & (values[..., 0] > 0)
    values[wrong, 0] = rng.integers(1, 25, wrong.sum())
    return DensePose(values)


@pytest.mark.parametrize("seed", range(3))
def test_part_scores_equal_torchmetrics_and_a_slow_count(seed: int) -> None:
    import torch
    from torchmetrics.classification import MulticlassJaccardIndex

    truth = people(seed)
    found = guess(truth, seed)
    scores = DensePoseMetric().update("k", found, truth)
    right = total = 0
    for p, t in zip(found.values[..., 0].ravel(), truth.values[..., 0].ravel(), strict=True):
        right += t > 0 and p == t
        total += t > 0
    assert scores["part_accuracy"] == (right / total, total)
    oracle = MulticlassJaccardIndex(25, average="none")
    oracle.update(*(torch.from_numpy(x.values[..., 0].astype(np.int64)) for x in (found, truth)))
    occurs = np.isin(np.arange(25), truth.values[..., 0])
    occurs[0] = False
    assert scores["part_miou_video"].value == pytest.approx(oracle.compute().numpy()[occurs].mean(), rel=1e-6)


def test_geodesic_similarity_equals_the_formula() -> None:
    distances = np.array([0.0, 0.255, 0.3, np.inf])
    expected = (1 + math.exp(-0.5) + math.exp(-(0.3**2) / (2 * 0.255**2)) + 0) / 4
    assert geodesic_point_similarity(distances) == pytest.approx(expected, rel=1e-12)


def test_gps_of_every_person_and_frame_equals_a_slow_loop() -> None:
    truth = people(4)
    found = guess(truth, 4)
    gps, gpsm = [], []
    for t in range(2):
        for person in (1, 2):
            mine = truth.values[t, ..., 3] == person
            total = 0.0
            for y, x in zip(*np.nonzero(mine), strict=True):
                a, b = truth.values[t, y, x].astype(float), found.values[t, y, x].astype(float)
                if b[0] > 0:
                    total += math.exp(-((a[0] + a[1] / 255 - b[0] - b[1] / 255) ** 2) / (2 * 0.255**2))
            best = max(
                (np.sum((found.values[t, ..., 3] == p) & mine), np.sum((found.values[t, ..., 3] == p) | mine))
                for p in (1, 2)
            )
            gps.append(total / mine.sum())
            gpsm.append(math.sqrt(gps[-1] * best[0] / best[1]))
    scores = DensePoseMetric(Line()).update("k", found, truth)
    assert scores["gps_anny"].value == pytest.approx(np.mean(gps), rel=1e-9)
    assert scores["gpsm_anny"].value == pytest.approx(np.mean(gpsm), rel=1e-9)


def test_perfect_is_one_and_the_set_pools_parts() -> None:
    metric, other = DensePoseMetric(Line()), DensePoseMetric(Line())
    scores = metric.update("a", people(1), people(1))
    assert all(score.value == 1 for score in scores.values() if not math.isnan(score.value))
    other.update("b", guess(people(2), 2), people(2))
    alone = other.compute()["part_miou"]
    metric.merge(other.state())
    whole = metric.compute()["part_miou"]
    assert alone < whole < 1
    assert metric.resampled(["a", "b"], np.array([[1, 1], [0, 2], [3, 0]]))["part_miou"].tolist() == [whole, alone, 1]


def test_another_layout_has_parts_but_no_geodesics() -> None:
    truth = people(5)
    scores = DensePoseMetric(Line()).update("k", DensePose(truth.values, "densepose-24"), truth)
    assert scores["part_accuracy"].value == 1
    assert math.isnan(scores["gps_anny"].value)


def test_nobody_there_is_undefined_and_nobody_found_is_zero() -> None:
    truth = people(6)
    nobody = DensePose(np.zeros_like(truth.values))
    lost = DensePoseMetric(Line()).update("k", nobody, truth)
    assert {lost[n].value for n in ("part_accuracy", "part_miou_video", "body_iou", "gps_anny", "gpsm_anny")} == {0}
    empty = DensePoseMetric(Line()).update("k", truth, nobody)
    assert math.isnan(empty["part_accuracy"].value)
    assert empty["body_iou"].value == 0


def test_what_cannot_be_compared_is_refused() -> None:
    truth = people(7)
    with pytest.raises(InvalidAnnotationError, match="resample"):
        DensePoseMetric().update("k", DensePose(truth.values[:1]), truth)
    bad = truth.values.copy()
    bad[0, 0, 0, 0] = 25
    with pytest.raises(InvalidAnnotationError, match="above 24"):
        DensePoseMetric().update("k", DensePose(bad), truth)
