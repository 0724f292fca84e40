"""YouTube-VIS's tables and `results.json`: AP of tubes as `ytvoseval` defines it, restated here on plain arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from openuni_pipelines.commands.import_truth import import_truth
from tests.public_reports.test_coco_masks import packed, plain
from unibench import score
from unibench.importers import read

FRAMES, HEIGHT, WIDTH = 4, 60, 80
NAMES = {1: "person", 2: "giant_panda", 40: "zebra"}
VIDEOS = {3: "00f88c4f0a", 11: "0a8b42ab34", 12: "ff0c1d2e3f"}
Tubes = list[dict[str, Any]]


def write(root: Path, seed: int) -> tuple[Tubes, Tubes]:
    """A split with videos and objects, some of them crowds or absent from frames, and detections in a run's folder."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    true, found, listed = [], [], []
    for video, folder in VIDEOS.items():
        pictures = root / "vis/train/JPEGImages" / folder
        pictures.mkdir(parents=True)
        for t in range(FRAMES):
            cv2.imwrite(str(pictures / f"{5 * t:05d}.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        files = [f"{folder}/{5 * t:05d}.jpg" for t in range(FRAMES)]
        listed.append({"id": video, "file_names": files, "width": WIDTH, "height": HEIGHT, "length": FRAMES})
        for k in range(int(rng.integers(3, 6))):
            centre, speed, radius = rng.uniform(15, 45, 2), rng.normal(0, 3, 2), rng.uniform(5, 18)
            tube = np.stack(
                [
                    (y - centre[0] - t * speed[0]) ** 2 + (x - centre[1] - t * speed[1]) ** 2 < radius**2
                    for t in range(FRAMES)
                ]
            )
            tube[rng.random(FRAMES) < 0.2] = False
            category = [1, 2, 40][int(rng.integers(3))]
            true.append({"video": video, "category": category, "crowd": k == 0 and video != 3, "tube": tube})
            for _ in range(3 if k == 0 else int(rng.integers(0, 3))):
                moved = np.roll(tube, rng.integers(-3, 4, 2), axis=(1, 2))
                moved[rng.random(FRAMES) < 0.2] = False
                guess = category if rng.random() < 0.85 else 1
                tied = float(rng.integers(1, 20)) / 8  # above 1, and often equal
                found.append({"video": video, "category": guess, "score": tied, "tube": moved})
    found.append({"video": 3, "category": 1, "score": 0.5, "tube": np.zeros((FRAMES, HEIGHT, WIDTH), bool)})
    rows = [
        {
            "id": k + 1,
            "video_id": row["video"],
            "category_id": row["category"],
            "iscrowd": int(row["crowd"]),
            "segmentations": [plain(mask) if mask.any() else None for mask in row["tube"]],
            "areas": [int(mask.sum()) if mask.any() else None for mask in row["tube"]],
            "bboxes": [[0, 0, 1, 1] if mask.any() else None for mask in row["tube"]],
        }
        for k, row in enumerate(true)
    ]
    categories = [{"id": number, "name": name} for number, name in NAMES.items()]
    table = {"videos": listed, "annotations": rows, "categories": categories}
    (root / "vis/train/instances.json").write_text(json.dumps(table))
    (root / "run").mkdir()
    results = [
        {
            "video_id": row["video"],
            "category_id": row["category"],
            "score": row["score"],
            "segmentations": [packed(mask) if mask.any() else None for mask in row["tube"]],
        }
        for row in found
    ]
    (root / "run/results.json").write_text(json.dumps(results))
    return true, found


def defined(true: Tubes, found: Tubes) -> tuple[float, float, float]:
    """AP over IoU .5:.05:.95, at .5 and at .75, after Yang et al. (2019) and `ytvoseval.py`: no line of ours."""
    by_class = []
    for category in sorted({row["category"] for row in true if not row["crowd"]}):
        curves = []
        for threshold in np.arange(0.5, 1.0, 0.05):
            marks: list[tuple[float, int]] = []  # score, and 1 right, 0 wrong, −1 not counted
            for video in sorted(VIDEOS):
                theirs = [r for r in true if r["video"] == video and r["category"] == category]
                theirs = [r for r in theirs if not r["crowd"]] + [r for r in theirs if r["crowd"]]
                mine = [r for r in found if r["video"] == video and r["category"] == category]
                used: set[int] = set()
                for row in sorted(mine, key=lambda r: -r["score"])[:100]:
                    best, match = min(threshold, 1 - 1e-10), None
                    for g, other in enumerate(theirs):
                        if g in used and not other["crowd"]:
                            continue
                        if match is not None and not theirs[match]["crowd"] and other["crowd"]:
                            break
                        union = sum((a | b).sum() for a, b in zip(row["tube"], other["tube"], strict=True))
                        inner = sum((a & b).sum() for a, b in zip(row["tube"], other["tube"], strict=True))
                        iou = inner / union if union else 0.0
                        if iou >= best:
                            best, match = iou, g
                    if match is not None:
                        used.add(match)
                    marks.append((row["score"], 0 if match is None else -1 if theirs[match]["crowd"] else 1))
            marks = [mark for mark in sorted(marks, key=lambda m: -m[0]) if mark[1] >= 0]
            right = np.cumsum([mark for _, mark in marks])
            positives = sum(r["category"] == category and not r["crowd"] for r in true)
            precision = right / (np.arange(len(right)) + 1)
            recall = right / positives
            points = [max(precision[recall >= level], default=0.0) for level in np.linspace(0, 1, 101)]
            curves.append(float(np.mean(points)))
        by_class.append(curves)
    whole = np.array(by_class)
    return float(whole.mean()), float(whole[:, 0].mean()), float(whole[:, 5].mean())


@pytest.mark.parametrize("seed", range(4))
def test_tubes_score_by_the_official_definition(tmp_path: Path, seed: int) -> None:
    true, found = write(tmp_path, seed)
    import_truth("youtube-vis", tmp_path / "vis", tmp_path / "gt")
    report = score(tmp_path / "run", tmp_path / "gt", tasks=["segmentation"])
    columns = report.tasks["segmentation"].columns
    expected, at_half, strict = defined(true, found)
    assert 0.03 < expected < 0.97
    assert columns["tube_ap"].value == pytest.approx(expected, abs=1e-9)
    assert columns["tube_ap50"].value == pytest.approx(at_half, abs=1e-9)
    assert columns["tube_ap75"].value == pytest.approx(strict, abs=1e-9)


def test_videos_come_as_they_are_and_others_are_named(tmp_path: Path) -> None:
    true, _ = write(tmp_path, 0)
    (tmp_path / "vis/valid").mkdir()
    (tmp_path / "vis/valid/instances.json").write_text('{"videos": [], "annotations": null, "categories": []}')
    clips = read("youtube-vis", tmp_path / "vis")
    videos = list(clips)
    assert [(clip.key, clip.number) for clip in videos] == [(f"ytvis-{name}", n) for n, name in VIDEOS.items()]
    assert [Path(left.what).parent.name for left in clips.left_out] == ["valid"]
    for clip in videos:
        rows = [row for row in true if row["video"] == clip.number]
        masks = clip.segmentation.objects.masks()
        for p, row in enumerate(rows):
            areas = [0 if masks[t][p] is None else int(masks[t][p][1::2].sum()) for t in range(FRAMES)]
            assert areas == row["tube"].sum(axis=(1, 2)).tolist()
        names = [instance.class_name for instance in clip.segmentation.instances]
        assert names == [NAMES[row["category"]] for row in rows]
