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
