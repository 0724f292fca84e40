"""DAVIS 2017's void (255) is left out, DAVIS 2016's 255 is the object: J and F by davis2017-evaluation's definition."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.modalities import get
from openuni.modalities.segmentation import Instance, Segmentation
from tests.unibench.importers.test_kubric import write_palette
from unibench.importers import read
from unibench.metrics.segmentation import SegmentationMetric
from unibench.scoring.runs import open_run

HEIGHT, WIDTH = 64, 96


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True ids with a ring of void around object 1, and a guess that covers some of it, `[2, H, W]` each."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for t in range(2):
        truth[t, 20:44, 10 + 4 * t : 40 + 4 * t] = 1
        truth[t, 10:30, 60:84] = 2
    ring = np.stack([cv2.dilate((f == 1).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0 for f in truth]) & (
        truth == 0
    )
    guess = np.roll(truth, rng.integers(-2, 3, 2), axis=(1, 2))
    guess[ring & (rng.random(ring.shape) < 0.7)] = 1
    return np.where(ring, 255, truth).astype(np.uint8), guess


def import_davis(root: Path, truth: np.ndarray, *, palette: bool) -> Segmentation:
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / "480p" / "swan").mkdir(parents=True)
    for t, ids in enumerate(truth):
        cv2.imwrite(str(root / f"JPEGImages/480p/swan/{t:05d}.jpg"), np.zeros((*ids.shape, 3), np.uint8))
        path = root / f"Annotations/480p/swan/{t:05d}.png"
        if palette:
            write_palette(path, ids)
        else:
            cv2.imwrite(str(path), ids)
    (clip,) = read("davis", root)
    stored = get("segmentation")
    return stored.decode(stored.encode(clip.segmentation))


def official_j(annotation: np.ndarray, mask: np.ndarray, void: np.ndarray) -> float:
    """`db_eval_iou` of davis2017-evaluation."""
    inner, union = (mask & annotation & ~void).sum(), ((mask | annotation) & ~void).sum()
    return 1.0 if union == 0 else inner / union


def official_f(annotation: np.ndarray, mask: np.ndarray, void: np.ndarray) -> float:
    """`f_measure` of davis2017-evaluation: boundaries of what is not void, `seg2bmap` between pixels."""

    def boundary(seg: np.ndarray) -> np.ndarray:
        e, s, se = np.zeros_like(seg), np.zeros_like(seg), np.zeros_like(seg)
        e[:, :-1], s[:-1], se[:-1, :-1] = seg[:, 1:], seg[1:], seg[1:, 1:]
        b = seg ^ e | seg ^ s | seg ^ se
        b[-1] = seg[-1] ^ e[-1]
        b[:, -1] = seg[:, -1] ^ s[:, -1]
        b[-1, -1] = False
        return b

    found, there = boundary(mask & ~void), boundary(annotation & ~void)
    radius = int(np.ceil(0.008 * np.linalg.norm(mask.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    found_near, there_near = (cv2.dilate(b.astype(np.uint8), disk) > 0 for b in (found, there))
    precision, recall = (found & there_near).sum() / found.sum(), (there & found_near).sum() / there.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(3))
def test_void_is_left_out_of_j_and_f(tmp_path: Path, seed: int) -> None:
    stored, guess = masks(seed)
    truth = import_davis(tmp_path, stored, palette=True)
    found = Segmentation(guess.astype(np.int32), (Instance(1, "object"), Instance(2, "object")))
    scores = SegmentationMetric().update("swan", found, truth)
    pairs = [(stored[t] == k, guess[t] == k, stored[t] == 255) for k in (1, 2) for t in range(2)]
    assert scores["j"].value == pytest.approx(np.mean([official_j(*pair) for pair in pairs]), abs=1e-9)
    assert scores["f"].value == pytest.approx(np.mean([official_f(*pair) for pair in pairs]), abs=1e-9)


def test_a_mask_that_is_right_wherever_it_counts_is_perfect(tmp_path: Path) -> None:
    stored, _ = masks(0)
    truth = import_davis(tmp_path, stored, palette=True)
    guess = np.where(stored == 255, 1, stored).astype(np.int32)
    metric = SegmentationMetric()
    scores = metric.update("swan", Segmentation(guess, truth.instances), truth)
    for name in ("j", "f", "miou_video", "frame_ap_video", "tube_ap_video"):
        assert scores[name].value == pytest.approx(1), name
    assert metric.compute()["miou_background"] == 1


def test_two_values_are_the_object_of_davis_2016(tmp_path: Path) -> None:
    stored, _ = masks(0)
    single = np.where(stored == 1, 255, 0).astype(np.uint8)
    truth = import_davis(tmp_path, single, palette=False)
    np.testing.assert_array_equal(truth.ids, stored == 1)
    assert truth.ignored is None
    assert [row.id for row in truth.instances] == [1]


def test_a_plain_folder_of_truth_says_what_its_void_is(tmp_path: Path) -> None:
    stored, _ = masks(0)
    (tmp_path / "segmentation/swan").mkdir(parents=True)
    for t, ids in enumerate(stored):
        write_palette(tmp_path / f"segmentation/swan/{t:05d}.png", ids)
    (tmp_path / "predictions.json").write_text('{"segmentation": {"ignore": 255}}')
    truth = open_run(tmp_path).load("segmentation", "swan")
    np.testing.assert_array_equal(truth.ignored, stored == 255)
    assert {row.id for row in truth.instances} == {1, 2}
