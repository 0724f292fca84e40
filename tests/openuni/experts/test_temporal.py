"""Scale and shift that waver from frame to frame are taken out; what moves keeps its disparity."""

from __future__ import annotations

import numpy as np

from openuni.experts.temporal import align


def scene(t: int) -> np.ndarray:
    """A ramp with a near square that moves by two pixels a frame."""
    values = np.repeat(np.linspace(1, 3, 96, dtype=np.float32)[None], 64, axis=0)
    values[20:40, 10 + 2 * t : 30 + 2 * t] = 5
    return values


def test_a_wavering_clip_becomes_steady_although_something_moves_in_it() -> None:
    random = np.random.default_rng(0)
    true = np.stack([scene(t) for t in range(12)])
    scales, shifts = random.uniform(0.8, 1.25, 12), random.uniform(-0.5, 0.5, 12)
    wavering = (true * scales[:, None, None] + shifts[:, None, None]).astype(np.float32)
    steady = (align(wavering) - shifts[0]) / scales[0]
    assert np.abs(wavering - true).mean() > 0.2
    assert np.abs(steady - true).mean() < 0.02


def test_a_cut_and_a_flat_frame_are_left_as_they_are() -> None:
    random = np.random.default_rng(1)
    first, second = scene(0), random.uniform(0, 100, (64, 96)).astype(np.float32)
    flat = np.full((64, 96), 7, np.float32)
    kept = align(np.stack([first, flat, second]))
    np.testing.assert_array_equal(kept, np.stack([first, flat, second]))


def test_unknown_pixels_stay_unknown() -> None:
    values = np.stack([scene(0), 2 * scene(0)])
    values[1, :4] = np.nan
    steady = align(values)
    assert np.isnan(steady[1, :4]).all()
    np.testing.assert_allclose(steady[1, 4:], scene(0)[4:], atol=1e-4)
