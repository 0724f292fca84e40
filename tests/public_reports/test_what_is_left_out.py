"""What an importer does not read is counted and named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from unibench.importers import read


def test_davis_clips_without_annotations_are_named(tmp_path: Path) -> None:
    for clip, masks in (("bear", 2), ("goat", 0)):
        for t in range(3):
            picture = tmp_path / f"JPEGImages/480p/{clip}/{t:05d}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
        for t in range(masks):
            mask = tmp_path / f"Annotations/480p/{clip}/{t:05d}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(mask), np.eye(8, dtype=np.uint8) * 255)
    clips = read("davis", tmp_path)
    assert [clip.key for clip in clips] == ["davis-bear"]
    first, second = clips.left_out
    assert (Path(first.what).name, first.why) == ("goat", "has no annotations")
    assert second.what.startswith("1 pictures of")
