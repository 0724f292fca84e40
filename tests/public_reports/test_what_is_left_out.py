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


def test_files_that_no_clip_uses_are_named_a_line_a_folder(tmp_path: Path) -> None:
    for stem in ("00001", "00002"):
        for name in (f"{stem}_img1.ppm", f"{stem}_img2.ppm"):
            cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    head = b"PIEH" + np.array([8, 8], "<i4").tobytes()
    (tmp_path / "00001_flow.flo").write_bytes(head + np.zeros((8, 8, 2), "<f4").tobytes())
    (tmp_path / "viz/deep").mkdir(parents=True)
    for t in range(3):
        (tmp_path / f"viz/deep/{t}.png").touch()
    clips = read("flyingchairs", tmp_path)
    assert [clip.key for clip in clips] == ["chairs-00001"]
    said = [f"{left.what} {left.why}".replace(f"{tmp_path}", "src") for left in clips.left_out]
    assert said == [
        "2 files of src (00002_img1.ppm, …) are not read",
        "3 files of src/viz (0.png, …) are not read",
    ]
