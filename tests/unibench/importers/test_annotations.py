"""DAVIS, COCO key points and UnrealCV, written from exact truth."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError, InvalidAnnotationError
from tests.unibench.importers.clips import panning
from tests.unibench.importers.test_kubric import write_palette
from unibench.importers import read
from unibench.rendering.render import render_scene
from unibench.scenes.families import Spec


def test_davis_ids_come_back_and_void_is_ignored(tmp_path: Path) -> None:
    clip = panning("fly")
    ids = clip.truth.ids.copy()
    ids[0, :4] = 255
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder / "480p" / "bear").mkdir(parents=True)
    for t, rgb in enumerate(clip.rgb):
        cv2.imwrite(str(tmp_path / f"JPEGImages/480p/bear/{t:05d}.jpg"), rgb[..., ::-1])
        write_palette(tmp_path / f"Annotations/480p/bear/{t:05d}.png", ids[t])
    (found,) = read("davis", tmp_path)
    np.testing.assert_array_equal(found.segmentation.ids, np.where(ids == 255, 0, ids))
    np.testing.assert_array_equal(found.segmentation.ignored, ids == 255)
    assert np.abs(found.rgb.astype(int) - clip.rgb).mean() < 4  # JPEG


def write_coco(src: Path, result: object) -> None:
    people, rgb = result.truth.people, result.rgb  # type: ignore[attr-defined]
    (src / "annotations").mkdir(parents=True)
    (src / "val2017").mkdir()
    table: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    for t, frame in enumerate(rgb):
        cv2.imwrite(str(src / f"val2017/{t:012d}.png"), frame[..., ::-1])
        table["images"].append({"id": t, "file_name": f"{t:012d}.png"})
        for p in range(people.keypoints.shape[1]):
            points = people.keypoints[t, p]
            labelled = points[:, 2] > 0
            stored = np.column_stack([points[:, :2] - 0.5, points[:, 2] * 2])
            stored[~labelled] = 0
            x0, y0, x1, y1 = people.boxes[t, p].tolist()
            row = {"image_id": t, "keypoints": stored.ravel().tolist(), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            table["annotations"].append({**row, "num_keypoints": int(labelled.sum()), "iscrowd": 0})
    (src / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(table))


def test_coco_key_points_come_back(tmp_path: Path) -> None:
    result = render_scene(Spec("pair", 1, 2, 96, 128))
    write_coco(tmp_path, result)
    clips = list(read("coco", tmp_path))
    assert len(clips) == 2
    for t, clip in enumerate(clips):
        np.testing.assert_allclose(clip.skeleton.keypoints[0], result.truth.people.keypoints[t], atol=1e-4)
        np.testing.assert_allclose(clip.skeleton.boxes[0], result.truth.people.boxes[t], atol=1e-4)


def test_a_coco_file_name_that_leads_out_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, render_scene(Spec("walk", 1, 2, 48, 48)))
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    path.write_text(path.read_text().replace('"000000000000.png"', '"../../../etc/passwd"'))
    with pytest.raises(CorruptDataError, match="no file of"):
        list(read("coco", tmp_path))


def test_unrealcv_comes_back_and_half_precision_is_named(tmp_path: Path) -> None:
    clip = panning("collide")
    truth = clip.truth
    colours = np.random.default_rng(0).integers(1, 255, (len(truth.things) + 1, 3)).astype(np.uint8)
    colours[0] = 0
    for folder in ("lit", "depth", "object_mask"):
        (tmp_path / folder).mkdir()
    for t, rgb in enumerate(clip.rgb):
        cv2.imwrite(str(tmp_path / f"lit/{t:04d}.png"), rgb[..., ::-1])
        np.save(tmp_path / f"depth/{t:04d}.npy", np.nan_to_num(truth.depth[t], nan=1e5))
        alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
        cv2.imwrite(str(tmp_path / f"object_mask/{t:04d}.png"), np.dstack([colours[truth.ids[t]][..., ::-1], alpha]))
    names = {f"{th.name}_{th.id}": colours[th.id].tolist() for th in truth.things}
    (tmp_path / "objects.json").write_text(json.dumps(names))
    (found,) = read("unrealcv", tmp_path)
    np.testing.assert_array_equal(found.depth.values, truth.depth)
    table = {row.id: row.class_name for row in found.segmentation.instances}
    for thing in truth.things:
        here = truth.ids == thing.id
        if here.any():
            (number,) = np.unique(found.segmentation.ids[here])
            assert table[int(number)] == thing.name
    path = tmp_path / "depth/0002.npy"
    np.save(path, np.load(path).astype(np.float16).astype(np.float32))
    with pytest.raises(InvalidAnnotationError, match=r"0002\.npy.*half precision"):
        list(read("unrealcv", tmp_path))
