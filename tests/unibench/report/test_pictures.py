"""Pictures of samples: the colours say what their captions promise."""

from __future__ import annotations

import numpy as np

from openuni.modalities.densepose import DensePose
from openuni.modalities.segmentation import Instance, Segmentation
from unibench.report.pictures import panels

GREY, RED, BLUE, BLACK = (200, 200, 200), (220, 60, 60), (70, 110, 230), (0, 0, 0)


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the four quarters of a picture, row by row."""
    height, width, _ = image.shape
    return [tuple(image[y, x].tolist()) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]


def test_parts_that_agree_are_grey_whatever_their_charts() -> None:
    true, found = np.zeros((1, 4, 4, 4), np.uint8), np.zeros((1, 4, 4, 4), np.uint8)
    true[0, :2, :2], found[0, :2, :2] = (3, 10, 10, 1), (3, 200, 90, 1)
    true[0, :2, 2:], found[0, :2, 2:] = (3, 10, 10, 1), (4, 10, 10, 1)
    found[0, 2:, :2] = (5, 10, 10, 1)
    drawn = panels("densepose", DensePose(found), DensePose(true), None, 0, 80.0)
    assert drawn[-1].caption == "parts: right grey, wrong red, too much blue"
    assert corners(drawn[-1].image) == [GREY, RED, BLUE, BLACK]


def test_objects_agree_by_pairs_and_not_by_numbers() -> None:
    true, found = np.zeros((1, 4, 4), np.int32), np.zeros((1, 4, 4), np.int32)
    true[0, :2], found[0, :2, :2], found[0, 2:, :2] = 1, 7, 9
    values = [Segmentation(ids, tuple(Instance(int(i), "a") for i in np.unique(ids[ids > 0]))) for ids in (found, true)]
    drawn = panels("segmentation", values[0], values[1], None, 0, 80.0)
    assert corners(drawn[-1].image) == [GREY, RED, BLUE, BLACK]
