"""Captions in UTF-16, cp1252 and GBK become replacement characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from openuni import sources
from openuni.sample import Clip
from openuni.sources import Entry, Request, Skipped
from tests.openuni.video.films import film


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        ("A café in the morning", "utf-16", False),
        ("A café in the ‘morning’", "cp1252", True),
        ("一只猫在草地上奔跑", "gbk", True),
    ],
)
def test_a_caption_is_what_was_written(tmp_path: Path, text: str, encoding: str, said: bool) -> None:
    film(tmp_path / "film.mp4", 16)
    (tmp_path / "film.txt").write_bytes(text.encode(encoding))
    source, request = sources.get("folder"), Request(videos=tmp_path)
    (entry,) = (row for row in source.entries(request) if isinstance(row, Entry))
    found = source.expand(entry, request)
    assert [clip.caption for clip in found if isinstance(clip, Clip)] == [text]
    assert [row.id for row in found if isinstance(row, Skipped)] == ["film.txt"] * said
