"""The confidence of a mask falls with what is wrong with it, and there is none where there is no mask."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from openuni.experts.mask_quality import SIGNALS, predicted_iou, signals
from openuni.experts.people import LANDMARKS, TrackedPeople

Masks = npt.NDArray[np.uint8]
FRAMES, HEIGHT, WIDTH = 4, 120, 160


def body(height: int = 80) -> Masks:
    """A trunk, a head and two legs about the middle of the frame."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.rectangle(mask, (65, 35), (95, 75), 1, -1)
    cv2.circle(mask, (80, 25), 9, 1, -1)
    cv2.rectangle(mask, (66, 75), (76, 75 + height // 2), 1, -1)
    cv2.rectangle(mask, (84, 75), (94, 75 + height // 2), 1, -1)
    return mask


@pytest.fixture
def people() -> TrackedPeople:
    """One posed person, green on grey, who is where `body` draws them; a second who is in no frame."""
    landmarks = np.full((FRAMES, 2, LANDMARKS, 3), np.nan, np.float32)
    landmarks[:, 0] = (80, 50, 0.95)
    for rows, x, y in (((11, 13, 15), 68, 40), ((12, 14, 16), 92, 40), ((23, 25, 27), 71, 75), ((24, 26, 28), 89, 75)):
        for k, row in enumerate(rows):
            landmarks[:, 0, row, :2] = (x, y + 17 * k)
    landmarks[:, 0, :11, :2] = (80, 22)
    boxes = np.full((FRAMES, 2, 4), np.nan, np.float32)
    boxes[:, 0] = (65, 16, 96, 116)
    scores = np.where(np.isnan(boxes[..., 0]), np.nan, 0.9).astype(np.float32)
    none = np.zeros((0, 4), np.float32)
    masks = np.stack([body()] * FRAMES)
    world, support = np.zeros_like(landmarks), np.array([0.8, 0.8], np.float32)
    frames, things = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return TrackedPeople(boxes, scores, landmarks, world, support, masks, frames, none, things, ())


def confidence(people: TrackedPeople, masks: Masks) -> npt.NDArray[np.float64]:
    """Of each frame's mask of the first person; the picture shows the whole body."""
    frames = np.full((FRAMES, HEIGHT, WIDTH, 3), 120, np.uint8)
    frames[people.masks > 0] = (30, 160, 60)
    found = predicted_iou(signals(people, masks, frames))
    assert np.isnan(found[:, 1]).all()
    return found[:, 0]


def test_each_fault_of_a_mask_costs_confidence(people: TrackedPeople) -> None:
    good = confidence(people, people.masks)
    assert (good > 0.7).all()
    rows = np.arange(HEIGHT)[:, None]
    half = people.masks * (rows > 75)
    disc = np.zeros_like(people.masks)
    disc[:, 20:110, 30:130] = 1
    taken = np.where((people.masks > 0) & (np.arange(WIDTH) > 80), 2, people.masks).astype(np.uint8)
    shaken = people.masks.copy()
    shaken[1::2] *= (rows < 60).astype(np.uint8)
    for faulty in (half, disc, taken, shaken):
        assert confidence(people, faulty)[1] < good[1] - 0.05


def test_without_a_mask_there_is_no_confidence_and_one_picture_is_enough(people: TrackedPeople) -> None:
    masks = people.masks.copy()
    masks[2] = 0
    found = confidence(people, masks)
    assert np.isnan(found[2])
    assert not np.isnan(found[[0, 1, 3]]).any()
    alone = people.masks.copy()
    alone[1:] = 0
    assert confidence(people, alone)[0] > 0.7


def test_no_signal_counts_against_a_mask() -> None:
    worst = np.zeros((1, 1, len(SIGNALS)))
    for k in range(len(SIGNALS)):
        better = worst.copy()
        better[..., k] = 1
        assert predicted_iou(better) >= predicted_iou(worst)
