"""Clips, keys and splits: what comes from outside becomes a name that cannot leave the folder, always the same one."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openuni.errors import AbsentModalityError, OpenUniError
from openuni.sample import Clip, Record, Sample, Status, check_key, make_key, split_of


@given(st.text())
def test_any_text_makes_a_legal_key_and_a_legal_one_stays(text: str) -> None:
    key = make_key(text)
    assert check_key(key) == key
    assert make_key(key) == key


def test_different_texts_with_one_stem_make_different_keys() -> None:
    assert len({make_key(text) for text in ("a/b", "a.b", "a b", "a\x00b", "ä" * 70, "ö" * 70)}) == 6


@pytest.mark.parametrize("key", ["", ".", "..", "a.b", "a/b", "a\\b", "a\n", "é", "x" * 65])
def test_a_key_with_a_dot_a_folder_or_a_control_character_is_refused(key: str) -> None:
    with pytest.raises(OpenUniError, match="cannot be a sample key"):
        Clip(key, "v.mp4")


@pytest.mark.parametrize(
    ("start", "end"),
    [(-1.0, None), (2.0, 2.0), (3.0, 2.0), (math.nan, None), (0.0, math.nan), (math.inf, None), (0.0, math.inf)],
)
def test_a_span_that_is_empty_or_not_finite_is_refused(start: float, end: float | None) -> None:
    with pytest.raises(OpenUniError, match="empty, negative or not finite"):
        Clip("a", "v.mp4", start, end)


def test_splits_have_their_shares_and_follow_the_video() -> None:
    counts = Counter(split_of(f"video {number}", val=0.1, test=0.2) for number in range(20_000))
    assert counts["val"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert split_of("one video") == split_of("one video")


def test_a_modality_is_loaded_once_and_an_absent_one_says_why() -> None:
    loads: list[str] = []

    def load(name: str) -> str:
        loads.append(name)
        return name.upper()

    statuses = {"rgb": Status(True), "depth": Status(False, "it was too dark")}
    sample = Sample(Record("a", 3, 4, 5, 16.0), statuses, load)
    assert (sample.rgb, sample["rgb"], loads) == ("RGB", "RGB", ["rgb"])
    assert "rgb" in sample
    assert "depth" not in sample
    with pytest.raises(AbsentModalityError, match="a: depth is absent: it was too dark"):
        _ = sample.depth
    with pytest.raises(AbsentModalityError, match="no column 'skeleton'"):
        sample["skeleton"]
    with pytest.raises(AttributeError, match="skeleton"):
        _ = sample.skeleton
