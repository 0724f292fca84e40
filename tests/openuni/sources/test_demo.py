"""The demo source: five real clips without a cut and two rendered ones, or a message that says what to fetch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openuni import assets, sources
from openuni.errors import AssetError
from openuni.sample import Clip
from openuni.sources import Entry, Request
from openuni.sources.demo import Demo
from openuni.sources.shots import find_shots
from openuni.video import normalise


def rows() -> list[Entry]:
    return [e for e in sources.get("demo").entries(Request()) if isinstance(e, Entry)]


@pytest.fixture
def clips(asset: Callable[[str], Path]) -> list[Clip]:
    """The clips, where their videos have been fetched."""
    for pinned in Demo.assets:
        asset(pinned.name)
    return [c for row in rows() for c in sources.get("demo").expand(row, Request()) if isinstance(c, Clip)]


def test_missing_videos_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("OPENUNI_HOME", str(tmp_path))
    with pytest.raises(AssetError, match="fetch"):
        sources.get("demo").expand(rows()[0], Request())


def test_no_clip_spans_a_cut(clips: list[Clip]) -> None:
    for clip in clips:
        assert clip.end is not None
        (shot,) = [s for s in find_shots(clip.video) if s.start <= clip.start + 1e-6 < s.end]
        assert clip.end <= shot.end + 1e-6, clip.key


def test_clips_are_whole_short_and_licensed(clips: list[Clip]) -> None:
    assert len({c.key for c in clips}) == 7
    assert sum(normalise(c).frames for c in clips) == 7 * 32
    for clip in clips:
        rendered = "rendered" in clip.key
        assert clip.license == ("CC0-1.0 (rendered)" if rendered else assets.get(clip.video_id).license)
        assert clip.caption.startswith("Rendered: ") == rendered


@pytest.mark.usefixtures("clips")
def test_a_shorter_longest_clip_is_heeded() -> None:
    (clip,) = sources.get("demo").expand(rows()[0], Request(clip_seconds=1.0))
    assert isinstance(clip, Clip)
    assert clip.end == pytest.approx(clip.start + 1.0)
