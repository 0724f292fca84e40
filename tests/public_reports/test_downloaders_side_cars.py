"""A downloader's JSON beside a video, without a caption, costs the video (img2dataset#46)."""

from __future__ import annotations

import json
from pathlib import Path

from openuni import sources
from openuni.sample import Clip
from openuni.sources import Entry, Request, Skipped
from tests.openuni.video.films import film


def test_the_video_is_kept_and_the_json_named(tmp_path: Path) -> None:
    film(tmp_path / "00000001.mp4", 16)
    (tmp_path / "00000001.json").write_text(json.dumps({"caption": None, "key": "00000001", "status": "success"}))
    (tmp_path / "00000001.txt").write_text("a dog runs")
    (tmp_path / "00000_stats.parquet").touch()
    source, request = sources.get("folder"), Request(videos=tmp_path)
    rows = list(source.entries(request))
    found = [clip for row in rows if isinstance(row, Entry) for clip in source.expand(row, request)]
    assert [clip.caption for clip in found if isinstance(clip, Clip)] == ["a dog runs"]
    named = {row.id for row in (*rows, *found) if isinstance(row, Skipped)}
    assert named == {"00000001.json", "00000_stats.parquet"}
