"""The confidence of a pose falls with what is wrong with it, and there is none where there is no pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openuni.experts.people import TrackedPeople
from openuni.experts.pose_quality import SIGNALS, predicted_oks, signals
from tests.openuni.experts.test_mask_quality import people

__all__ = ["people"]


def test_a_pose_that_fits_is_believed_and_one_that_is_not_there_has_none(people: TrackedPeople) -> None:
    found = signals(people)
    assert found.shape == (4, 2, len(SIGNALS))
    assert np.isnan(found[:, 1]).all()
    fills, limbs, inside, steady = found[0, 0]
    assert fills > 0.6
    assert limbs == pytest.approx(0.95)
    assert (inside, steady) == (1, 1)
    assert (predicted_oks(people)[:, 0] > 0.85).all()
    assert np.isnan(predicted_oks(people)[:, 1]).all()


@pytest.mark.parametrize("signal", SIGNALS)
def test_each_fault_lowers_its_signal_and_the_confidence(people: TrackedPeople, signal: str) -> None:
    landmarks, masks = people.landmarks.copy(), people.masks.copy()
    match signal:
        case "fills the box":  # all of the pose in the box's upper half
            landmarks[:, 0, :, 1] = 16 + (landmarks[:, 0, :, 1] - 16) / 2
        case "limbs in sight":
            landmarks[:, 0, :, 2] = 0.2
        case "in the mask":
            masks[:] = np.roll(masks, 40, axis=2)
        case "steady":
            landmarks[::2, 0, :, 0] += 8
    worse = replace(people, landmarks=landmarks, masks=masks)
    at = SIGNALS.index(signal)
    assert signals(worse)[1, 0, at] < signals(people)[1, 0, at] - 0.2
    assert predicted_oks(worse)[1, 0] < predicted_oks(people)[1, 0] - 0.02


def test_who_may_be_no_person_is_believed_less(people: TrackedPeople) -> None:
    doubted = replace(people, support=np.array([0.3, 0.9], np.float32))
    np.testing.assert_allclose(predicted_oks(doubted)[:, 0], predicted_oks(people)[:, 0] / 2, rtol=1e-5)


def test_a_single_picture_is_neither_steady_nor_unsteady(people: TrackedPeople) -> None:
    one = replace(people, boxes=people.boxes[:1], scores=people.scores[:1], landmarks=people.landmarks[:1])
    assert signals(replace(one, masks=people.masks[:1]))[0, 0, SIGNALS.index("steady")] == 0.5
