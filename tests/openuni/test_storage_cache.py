"""What is kept of datasets at URLs: bounded, the longest unused first, nobody else's folder, whatever happens to it."""

import hashlib
import os
from pathlib import Path

import pytest

from openuni.errors import PlanError
from openuni.storage import Cache


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def ask(cache: Cache, number: int, asked: list[int]) -> bytes:
    data = bytes([number]) * 1000

    def fetch() -> bytes:
        asked.append(number)
        return data

    assert cache.get(name_of(data), len(data), fetch) == data
    return data


def kept(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("??/*"))


def test_what_is_kept_is_not_fetched_again_also_by_another_process(tmp_path: Path) -> None:
    asked: list[int] = []
    for _ in range(2):
        cache = Cache(tmp_path / "near", 10_000)
        for number in range(3):
            ask(cache, number, asked)
    assert asked == [0, 1, 2]


def test_it_stays_within_its_bound_and_the_longest_unused_go(tmp_path: Path) -> None:
    asked: list[int] = []
    cache = Cache(tmp_path / "near", 10_000)
    for number in range(40):
        data = ask(cache, number, asked)
        place = tmp_path / "near" / name_of(data)[:2] / name_of(data)
        os.utime(place, ns=(number, number))  # many are written within one tick of the clock
        ask(cache, 0, asked)  # used all along
        assert kept(tmp_path / "near") <= 11_000
    assert asked.count(0) == 1
    ask(cache, 39, asked)
    assert asked.count(39) == 1
    ask(cache, 1, asked)
    assert asked.count(1) == 2


def test_a_short_file_is_fetched_again_and_a_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    asked: list[int] = []
    data = ask(Cache(tmp_path / "near", 10_000), 1, asked)
    (tmp_path / "near" / name_of(data)[:2] / name_of(data)).write_bytes(data[:10])
    ask(Cache(tmp_path / "near", 10_000), 1, asked)
    ask(Cache(tmp_path / "near", 10_000), 1, asked)
    assert asked == [1, 1]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").touch()
    with pytest.raises(PlanError, match="theirs"):
        Cache(tmp_path / "theirs", 10_000)
    with pytest.raises(PlanError, match="keeps nothing"):
        Cache(tmp_path / "near", 0)


def test_where_it_cannot_be_written_reading_goes_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "near", 10_000)
    asked: list[int] = []
    data = bytes([7]) * 1000
    (tmp_path / "near" / name_of(data)[:2]).write_text("a file in place of the folder")
    ask(cache, 7, asked)
    ask(cache, 7, asked)
    assert asked == [7, 7]
