"""Results named as the dataset's authors name its clips (`car-shadow`) are of the imported clip of another key."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import OpenUniError
from openuni.sample import Record
from openuni_pipelines.commands.import_truth import import_truth
from unibench import score
from unibench.formats.names import match_names, match_samples


def imported(number: int, source: str, name: str) -> Record:
    key = f"{number:06d}-{source}-{name}"
    return Record(key, 5, 8, 8, 24.0, source=source, source_id=f"{source}-{name}", video_id=key)


def test_results_match_by_key_and_by_original_name() -> None:
    truth = [imported(0, "davis", "car-shadow"), imported(1, "davis", "swan"), imported(2, "coco", "000000000139")]
    names = ["car-shadow", "davis-swan", "139", "goat"]
    match = match_names(truth, names)
    assert match.keys == {"car-shadow": truth[0].key, "davis-swan": truth[1].key, "139": truth[2].key}
    assert match.unknown == ("goat",)


def test_the_key_itself_goes_first_and_a_name_of_two_clips_is_nobodys() -> None:
    truth = [imported(0, "davis", "swan"), imported(1, "sintel", "swan")]
    assert match_names(truth, ["swan"]).ambiguous == ("swan",)
    match = match_names(truth[:1], ["swan", truth[0].key])
    assert match.keys == {truth[0].key: truth[0].key}
    assert match.ambiguous == ("swan",)


def test_a_predicted_dataset_matches_by_original_name_under_other_prefixes() -> None:
    truth = [imported(0, "davis", "car-shadow"), imported(1, "davis", "swan"), imported(2, "davis", "goat")]
    found = [imported(5, "davis", "swan"), imported(6, "mine", "car-shadow"), imported(7, "davis", "dog")]
    found += [imported(8, "a", "goat"), imported(9, "b", "goat")]
    match = match_samples(truth, found)
    assert match.keys == {found[0].key: truth[1].key, found[1].key: truth[0].key}
    assert match.unknown == (found[2].key,)
    assert match.ambiguous == (found[3].key, found[4].key)
    assert match_samples(truth, [*truth, imported(5, "davis", "swan")]).keys == {r.key: r.key for r in truth}


def test_a_predicted_dataset_of_other_order_is_scored(tmp_path: Path) -> None:
    write_davis(tmp_path / "all", ("bear", "goat", "swan"))
    write_davis(tmp_path / "some", ("goat", "swan"))
    import_truth("davis", tmp_path / "all", tmp_path / "gt")
    import_truth("davis", tmp_path / "some", tmp_path / "pred")
    said: list[str] = []
    report = score(tmp_path / "pred", tmp_path / "gt", progress=lambda news: said.append(str(news)))
    counts = report.tasks["segmentation"].counts
    assert (counts.scored, counts.missing) == (2, 1)
    assert report.tasks["segmentation"].columns["jf"].value == pytest.approx(1)
    assert any("2 predictions matched by the clip's original name" in sentence for sentence in said)


def test_results_in_the_wrong_place_are_told_theirs(tmp_path: Path) -> None:
    write_davis(tmp_path / "davis", ("bear",))
    import_truth("davis", tmp_path / "davis", tmp_path / "gt")
    results = tmp_path / "results"
    (tmp_path / "davis" / "Annotations" / "480p").rename(results)
    with pytest.raises(OpenUniError, match="no predictions that are known by their place"):
        score(results, tmp_path / "gt")
    results.rename(tmp_path / "segmentation")
    results.mkdir()
    (tmp_path / "segmentation").rename(results / "segmentation")
    assert score(results, tmp_path / "gt").tasks["segmentation"].counts.scored == 1


def write_davis(root: Path, clips: tuple[str, ...]) -> None:
    """Each clip has an object where its name says."""
    for clip in clips:
        mask = np.zeros((32, 48), np.uint8)
        mask[8:20, ord(clip[0]) % 16 : ord(clip[0]) % 16 + 9] = 255
        for folder, suffix, picture in (
            ("JPEGImages", "jpg", np.zeros((32, 48, 3), np.uint8)),
            ("Annotations", "png", mask),
        ):
            for t in range(2):
                path = root / folder / "480p" / clip / f"{t:05d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture)


def test_long_names_names_of_letters_and_two_clips_of_one_name_match_as_the_source_has_them(tmp_path: Path) -> None:
    """KITTI's depth selection has names of 61 letters; its training folder has flow and disparity of one number."""
    root, drive = tmp_path / "kitti", "2011_09_26_drive_0002_sync_{}_0000000005_image_02"
    for folder in ("groundtruth_depth", "image", "disp_occ_0", "flow_occ", "image_2", "calib_cam_to_cam"):
        (root / folder).mkdir(parents=True)
    depth = np.full((12, 16), 1280, np.uint16)
    cv2.imwrite(str(root / f"groundtruth_depth/{drive.format('groundtruth_depth')}.png"), depth)
    cv2.imwrite(str(root / "disp_occ_0/000007_10.png"), depth)
    cv2.imwrite(str(root / "flow_occ/000007_10.png"), np.full((12, 16, 3), (1, 32768, 32832), np.uint16))
    for picture in (f"image/{drive.format('image')}.png", "image_2/000007_10.png", "image_2/000007_11.png"):
        cv2.imwrite(str(root / picture), np.zeros((12, 16, 3), np.uint8))
    (root / "calib_cam_to_cam/000007.txt").write_text(
        "P_rect_02: 100 0 7 10 0 100 5 0 0 0 1 0\nP_rect_03: 100 0 7 -40 0 100 5 0 0 0 1 0\n"
    )
    import_truth("kitti", root, tmp_path / "gt")
    for name in (drive.format("groundtruth_depth"), drive.format("image")):
        pred = tmp_path / f"pred-{name}"
        (pred / "depth").mkdir(parents=True)
        (pred / "flow").mkdir()
        np.save(pred / f"depth/{name}.npy", np.full((1, 12, 16), 5, np.float32))
        np.save(pred / "depth/000007.npy", np.full((1, 12, 16), 10, np.float32))  # 50 / 5 px
        np.save(pred / "flow/000007.npy", np.broadcast_to(np.float32([1, 0]), (1, 12, 16, 2)))
        (pred / "predictions.json").write_text('{"depth": {"kind": "metric"}}')
        report = score(pred, tmp_path / "gt")
        assert report.tasks["depth"].counts.scored == 2
        assert report.tasks["depth"].columns["metric/absrel"].value == pytest.approx(0)
        assert report.tasks["flow"].columns["epe"].value == pytest.approx(0)


def test_names_that_are_no_keys_match(tmp_path: Path) -> None:
    write_davis(tmp_path / "davis", ("Hund & Katze",))
    import_truth("davis", tmp_path / "davis", tmp_path / "gt")
    (tmp_path / "run").mkdir()
    (tmp_path / "davis" / "Annotations" / "480p").rename(tmp_path / "run" / "segmentation")
    assert score(tmp_path / "run", tmp_path / "gt").tasks["segmentation"].counts.scored == 1
