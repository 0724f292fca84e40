"""How frames are padded for RAFT: nothing of the picture moves, and nothing but its edge is added."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from openuni.experts import raft


@pytest.mark.parametrize(
    ("height", "width", "padded"),
    [(128, 128, (128, 128)), (130, 133, (136, 136)), (90, 161, (128, 168)), (7, 9, (128, 128)), (480, 853, (480, 856))],
)
def test_sides_become_multiples_of_8_and_at_least_128(height: int, width: int, padded: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    images = raft.padded(frames).numpy()
    assert images.shape == (2, 3, *padded)
    assert images.dtype == np.float32
    (top, bottom), (left, right) = raft.padding(height), raft.padding(width)
    assert bottom - top in (0, 1)  # half of it on each side, as in the evaluation of the published weights
    assert right - left in (0, 1)
    expected = np.pad(frames, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    back = images[:, :, raft.inside(height), raft.inside(width)]
    np.testing.assert_allclose(back, frames.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)


def test_the_flow_is_updated_as_often_as_for_the_published_errors() -> None:
    assert raft._STEPS == 32
