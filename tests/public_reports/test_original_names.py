"""Results named as the data set's authors name its clips (`car-shadow`) are of the imported clip of another key."""

from __future__ import annotations

from openuni.sample import Record
from unibench.formats.names import match_names


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
