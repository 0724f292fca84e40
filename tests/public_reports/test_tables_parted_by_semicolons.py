"""Tables as Excel writes them in half of Europe: columns parted by semicolons, or tabs in a file called .csv."""

from __future__ import annotations

from pathlib import Path

import pytest

from openuni.errors import PlanError
from openuni.sources import Request, Skipped
from openuni.sources.selection import Choice
from openuni.sources.table import Table
from openuni.sources.webvid import WebVid


@pytest.fixture
def request_of(tmp_path: Path) -> Request:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    (tmp_path / "rows").mkdir()
    return Request(tmp_path / "videos", tmp_path / "rows")


def _write(request: Request, name: str, text: str) -> None:
    assert request.metadata is not None
    (request.metadata / name).write_text(text)


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_they_are_read_and_it_is_said(request_of: Request, mark: str, word: str) -> None:
    _write(request_of, "rows.csv", f'video{mark}caption{mark}score\na.mp4{mark}"a dog, running{mark} fast"{mark}7\n')
    skipped, entry = Table().entries(request_of)
    assert skipped == Skipped("rows.csv", f"table was read as parted by {word}")
    assert not isinstance(entry, Skipped)
    assert entry.fields["caption"] == f"a dog, running{mark} fast"
    assert dict(entry.fields["scores"]) == {"score": 7.0}


def test_a_list_of_ids_in_another_encoding_is_named(request_of: Request, tmp_path: Path) -> None:
    """The table was named, which has no fault."""
    _write(request_of, "rows.csv", "video,caption\na.mp4,a dog\n")
    (tmp_path / "ids.txt").write_text("a\nb\n", encoding="utf-16")
    with pytest.raises(PlanError, match=r"ids\.txt is no list of ids in UTF-8"):
        list(Table(choice=Choice(exclude=tmp_path / "ids.txt")).entries(request_of))


def test_webvids_are_read_too(request_of: Request) -> None:
    _write(request_of, "rows.csv", "videoid;name;duration\na;a dog;PT00H00M05S\n")
    (_, entry) = WebVid().entries(request_of)
    assert not isinstance(entry, Skipped)
    assert (entry.id, entry.fields["caption"]) == ("a", "a dog")


def test_what_is_not_certain_is_refused_and_says_what_it_looks_like(request_of: Request) -> None:
    _write(request_of, "rows.csv", "video;caption, long\na.mp4;a dog, running\n")
    with pytest.raises(
        PlanError, match=r"it has video;caption, +long and looks like a table .* by semicolons; name it"
    ):
        list(Table().entries(request_of))
    _write(request_of, "rows.csv", "video;caption\na.mp4;x\n")
    _write(request_of, "more.csv", "video,caption\na.mp4,x\n")
    with pytest.raises(PlanError, match=r"parted differently \(more.csv by commas, rows.csv by semicolons\)"):
        list(Table().entries(request_of))
