"""The crowds that `benchmarks/crowds.py` renders are drawn from their seed alone."""

from __future__ import annotations

import numpy as np

from benchmarks import crowds


def test_a_crowd_is_its_seed() -> None:
    here, again, other = (crowds.scene_of("crates", seed, harsh=True) for seed in (3, 3, 4))
    assert [i.name for i in here.instances] == [i.name for i in again.instances]
    for a, b in zip(here.instances, again.instances, strict=True):
        np.testing.assert_array_equal(a.vertices, b.vertices)
    np.testing.assert_array_equal(here.camera.pose, again.camera.pose)
    assert not np.array_equal(here.camera.pose, other.camera.pose)


def test_what_spoils_the_picture_is_drawn_from_the_seed_too() -> None:
    frames = np.full((2, 20, 30, 3), 120, np.uint8)
    here, again, other = (crowds.badly_seen(frames, np.random.default_rng([seed, 1]), True) for seed in (5, 5, 6))
    np.testing.assert_array_equal(here, again)
    assert not np.array_equal(here, other)
