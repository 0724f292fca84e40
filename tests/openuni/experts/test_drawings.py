"""Who is drawn: people of flat colours and of strokes, beside cloth, noise, silhouettes and real people."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.experts import drawings
from tests.openuni.experts.clips import clip

H, W = 120, 160


def somebody(kind: str) -> np.ndarray:
    """A clip of one frame of somebody who fills it."""
    rng = np.random.default_rng(0)
    if kind == "flat":
        picture = np.full((H, W), 180.0)
        picture[30:60] = 90
    elif kind == "strokes":
        picture = np.full((H, W), 250.0)
        picture[:, ::9] = 20
    elif kind == "cloth":
        picture = 120 + 6 * cv2.GaussianBlur(rng.normal(size=(H, W)), (0, 0), 1.0) / 0.28
    elif kind == "noise":
        picture = 120 + rng.normal(0, 25, (H, W))
    else:  # a silhouette
        picture = np.full((H, W), 8.0)
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[None, ..., None], 3, axis=3)


@pytest.mark.parametrize(
    ("kind", "is_drawn"),
    [("flat", True), ("strokes", True), ("cloth", False), ("noise", False), ("silhouette", False)],
)
def test_flat_colours_and_strokes_are_drawn(kind: str, is_drawn: bool) -> None:
    assert drawings.drawn(somebody(kind), np.ones((1, H, W), np.uint8), 1).tolist() == [is_drawn]


def test_each_person_is_judged_by_their_own_pixels_and_nobody_by_a_few() -> None:
    frames = np.concatenate([somebody("cloth"), somebody("flat"), somebody("flat")], axis=2)
    masks = np.zeros((1, H, 3 * W), np.uint8)
    masks[:, :, :W], masks[:, :, W : 2 * W], masks[:, :10, -10:] = 1, 2, 3
    assert drawings.drawn(frames, masks, 4).tolist() == [False, True, False, False]


def test_a_real_person_is_not_drawn_and_a_sketch_of_him_is(shared_data: Path) -> None:
    frames = clip(shared_data / "videos" / "sam2_05_default_juggle.mp4", 2, 8.0)
    masks = np.zeros(frames.shape[:3], np.uint8)
    masks[:, 60:320, 320:380] = 1  # his body, and some grass
    assert drawings.drawn(frames, masks, 1).tolist() == [False]
    smooth = np.stack([cv2.pyrMeanShiftFiltering(frame, 20, 60) // 64 * 64 for frame in frames])
    assert drawings.drawn(smooth, masks, 1).tolist() == [True]
