"""Masks of COCO's and YouTube-VIS's `results.json` (packed and plain RLE, polygons) are what pycocotools decodes."""

from __future__ import annotations

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError
from unibench.formats.coco_results import masks


def test_rle_and_polygons_decode_as_in_pycocotools() -> None:
    from pycocotools import mask as rle

    first = np.zeros((20, 30), np.uint8)
    first[2:9, 3:11] = 1
    packed = rle.encode(np.asfortranarray(first))
    packed["counts"] = packed["counts"].decode()
    plain = {"size": [20, 30], "counts": [15 * 20, 5, 295]}
    polygon = [[20.0, 10.0, 28.0, 10.0, 28.0, 17.5, 20.0, 17.5]]
    rows = [{"category_id": 3, "score": 0.5, "segmentation": part} for part in (packed, plain, polygon)]
    found = masks(rows, "results.json", 1, 20, 30)
    expected = [first, rle.decode(rle.frPyObjects(plain, 20, 30)), rle.decode(rle.frPyObjects(polygon, 20, 30))[..., 0]]
    for number, mask in enumerate(expected, 1):
        np.testing.assert_array_equal(found.ids[0] == number, mask > 0)
    video = masks([{"category_id": 1, "score": 1.0, "segmentations": [packed, None]}], "results.json", 2, 20, 30)
    assert [int(frame.sum()) for frame in video.ids] == [56, 0]
    with pytest.raises(InvalidAnnotationError, match="shares 56 pixels"):
        masks([rows[0], rows[0]], "results.json", 1, 20, 30)
    with pytest.raises(InvalidAnnotationError, match="malformed"):
        masks(rows, "results.json", 1, 21, 30)
