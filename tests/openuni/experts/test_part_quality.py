"""The confidence of painted parts falls with what is wrong with pose, mask and fit, and with the belief in a person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from openuni.experts.part_quality import SIGNALS, predicted_share, signals
from openuni.experts.people import TrackedPeople
from tests.openuni.experts.test_mask_quality import people

__all__ = ["people"]


def confidence(people: TrackedPeople, fit: float = 0.9) -> npt.NDArray[np.float64]:
    """Of the first person in each frame; the picture shows the whole body as `people` has it at first."""
    frames = np.full((*people.masks.shape, 3), 120, np.uint8)
    frames[people.masks > 0] = (30, 160, 60)
    found = signals(people, frames, np.full(people.scores.shape, fit))
    assert found.shape == (*people.scores.shape, len(SIGNALS))
    return predicted_share(found, people.belief)[:, 0]


def test_who_is_steady_large_and_fits_is_believed(people: TrackedPeople) -> None:
    good = confidence(people)
    assert (good > 0.7).all()
    assert (confidence(people, fit=0.4) < good - 0.03).all()
    landmarks = people.landmarks.copy()
    landmarks[::2, 0, :, 0] += 8
    assert confidence(replace(people, landmarks=landmarks))[1] < good[1] - 0.05
    masks = people.masks.copy()
    masks[1::2, 60:] = 0
    assert confidence(replace(people, masks=masks))[1] < good[1] - 0.03
    doubted = replace(people, support=np.array([0.3, 0.3], np.float32))
    np.testing.assert_allclose(confidence(doubted), good / 2, rtol=1e-5)


def test_nobody_has_no_confidence(people: TrackedPeople) -> None:
    frames = np.zeros((*people.masks.shape, 3), np.uint8)
    found = predicted_share(signals(people, frames, np.full(people.scores.shape, 0.9)), people.belief)
    assert np.isnan(found[:, 1]).all()
