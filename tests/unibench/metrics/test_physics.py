"""Physics-IQ against the published steps written out slowly, and on balls that fall right, late, elsewhere or not."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from unibench.metrics.physics import Agreement, PhysicsMetric, Takes, agreement, motion_masks, physics_iq
from unibench.metrics.video import Video


def ball(column: int = 48, late: int = 0, still: bool = False, noise: int = 0) -> np.ndarray:
    """A bright ball falls over a textured wall, 12 frames of 96×96."""
    wall = np.random.default_rng(0).integers(40, 90, (96, 96, 3), dtype=np.uint8)
    frames = np.repeat(wall[None], 12, axis=0)
    for t in range(12):
        y = 12 if still else int(12 + 0.5 * max(t - late, 0) ** 2)
        cv2.circle(frames[t], (column, y), 9, (250, 240, 60), -1)
    jitter = np.random.default_rng(noise).integers(0, 3, frames.shape) if noise else 0
    return (frames + jitter).astype(np.uint8)


def slow_masks(frames: np.ndarray) -> list[np.ndarray]:
    masks, average = [], None
    for frame in frames:
        grey = cv2.GaussianBlur(cv2.cvtColor(frame[..., ::-1], cv2.COLOR_BGR2GRAY), (5, 5), 0).astype(float)
        if average is None:
            average, mask = grey, np.zeros_like(grey)
        else:
            average = 0.3 * grey + 0.7 * average
            mask = np.where(np.abs(grey - np.rint(average)) > 10, 255.0, 0.0)
            for first, second in ((min, max), (max, min)):  # opening, then closing
                for pick in (first, second):
                    padded = np.pad(mask, 2, constant_values=255 if pick is min else 0)
                    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
                    mask = windows.min(axis=(2, 3)) if pick is min else windows.max(axis=(2, 3))
        masks.append(cv2.resize(mask.astype(np.uint8), (24, 24)) > 127)
    return masks


def test_masks_equal_the_published_steps_written_out() -> None:
    frames = ball()
    fast, slow = motion_masks(frames), np.array(slow_masks(frames))
    assert fast.any()
    assert not fast[0].any()
    assert (fast == slow).all()


def test_agreement_equals_slow_counts() -> None:
    a, b = ball(), ball(column=52, late=1)
    m, n = motion_masks(a), motion_masks(b)
    found = agreement(a, b)
    per_frame = [(x & y).sum() / (x | y).sum() if (x | y).any() else 1.0 for x, y in zip(m, n, strict=True)]
    assert found.spatiotemporal == pytest.approx(np.mean(per_frame), abs=1e-12)
    assert found.spatial == pytest.approx((m.any(0) & n.any(0)).sum() / (m.any(0) | n.any(0)).sum(), abs=1e-12)
    low = high = 0.0
    for y in range(24):
        for x in range(24):
            p, q = m[:, y, x].sum() / 12, n[:, y, x].sum() / 12
            low, high = low + min(p, q), high + max(p, q)
    assert found.weighted == pytest.approx(low / high, abs=1e-9)
    errors = [
        ((cv2.resize(x, (24, 24)) / 255.0 - cv2.resize(y, (24, 24)) / 255.0) ** 2).mean()
        for x, y in zip(a, b, strict=True)
    ]
    assert found.mse == pytest.approx(np.mean(errors), rel=1e-9)


def test_right_motion_beats_late_motion_beats_motion_elsewhere_beats_none() -> None:
    truth = ball()
    scores = [agreement(ball(**change), truth).spatiotemporal for change in ({}, {"late": 2}, {"column": 20})]  # type: ignore[arg-type]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert agreement(ball(still=True), truth).spatial == 0


def test_the_score_is_the_published_mean_of_ratios_less_the_excess_error() -> None:
    found, truth = Agreement(0.3, 0.2, 0.1, 0.02), Agreement(0.6, 0.5, 0.4, 0.01)
    assert physics_iq(found, truth) == pytest.approx(100 * ((0.5 + 0.4 + 0.25) / 3 - 0.01), rel=1e-12)
    assert physics_iq(truth, truth) == 100
    assert physics_iq(Agreement(0, 0, 0, 0.9), truth) == 0


def test_a_set_needs_second_takes_and_joins_through_json() -> None:
    metric, other = PhysicsMetric(), PhysicsMetric()
    metric.update("a", Video(ball(), 16.0), Takes(ball()))
    assert math.isnan(metric.compute()["physics_iq"])
    other.update("b", Video(ball(late=1), 16.0), Takes(ball(), ball(noise=3)))
    metric.merge(json.loads(json.dumps(other.state())))
    assert metric.compute() == other.compute()
    assert 0 < metric.compute()["physics_iq"] < 100


def test_nothing_moves_in_either_is_agreement_and_other_shapes_are_refused() -> None:
    still = ball(still=True)
    assert agreement(still, still) == Agreement(1, 1, 1, 0)
    with pytest.raises(InvalidAnnotationError, match="physics"):
        agreement(still, still[:3])
