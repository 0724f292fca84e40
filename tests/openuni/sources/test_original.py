"""What published tables say beside what a clip says is kept under the names that are published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from openuni.sample import Clip
from openuni.sources import Entry, Request, Source
from openuni.sources.koala36m import Koala36M
from openuni.sources.openvid1m import OpenVid1M
from openuni.sources.panda70m import Panda70M
from openuni.sources.webvid import WebVid


def fields(source: Source, folder: Path, name: str, rows: str) -> list[dict[str, object]]:
    videos = folder / "videos"
    videos.mkdir(exist_ok=True)
    (videos / f"{name}.mp4").touch()
    table = folder / "table.csv"
    table.write_text(rows, "utf-8")
    found = [one for one in source.entries(Request(videos, table)) if isinstance(one, Entry)]
    clips = [source.expand(one, Request(videos, table))[0] for one in found]
    return [dict(clip.source_fields) for clip in clips if isinstance(clip, Clip)]


def test_openvid1m(tmp_path: Path) -> None:
    rows = (
        "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds\n"
        "a.mp4,A dog.,5.1,2.2,0.99,pan_left,120,29.97,4.0\n"
    )
    kept = fields(OpenVid1M(), tmp_path, "a", rows)
    assert kept == [{"camera motion": "pan_left", "frame": 120, "fps": 29.97, "seconds": 4.0}]
    assert isinstance(kept[0]["frame"], int)


def test_webvid(tmp_path: Path) -> None:
    """A table without types is text: `027701` would be another number."""
    rows = "videoid,name,page_idx,duration,contentUrl\n1053,A dog.,027701,PT00H00M17S,https://example.org/1053.mp4\n"
    kept = {"page_idx": "027701", "duration": "PT00H00M17S", "contentUrl": "https://example.org/1053.mp4"}
    assert fields(WebVid(), tmp_path, "1053", rows) == [kept]


def test_panda70m_keeps_of_each_list_what_is_of_the_clip(shared_data: Path, tmp_path: Path) -> None:
    rows = (shared_data / "meta/panda70m/panda70m_one_row.csv").read_text()
    kept = fields(Panda70M(), tmp_path, "-2yHu5qgTzM", rows)
    assert kept[0] == {
        "url": "https://www.youtube.com/watch?v=-2yHu5qgTzM",
        "timestamp": ["0:01:20.880", "0:01:23.983"],
        "desirable_filtering": "1_still_foreground_image",
        "shot_boundary_detection": [["0:00:00.000", "0:00:03.069"]],
    }
    assert kept[2]["shot_boundary_detection"] == [["0:00:00.000", "0:00:02.702"], ["0:00:02.736", "0:00:04.838"]]


def test_a_list_that_is_none_stays_a_text(tmp_path: Path) -> None:
    row = ["abc", "u", "[['0:00:01.0', '0:00:02.0']]", "['A dog.']", "[0.5]", "['desirable']", "[[it's]]"]
    rows = "videoID,url,timestamp,caption,matching_score,desirable_filtering,shot_boundary_detection\n"
    (kept,) = fields(Panda70M(), tmp_path, "abc", rows + ",".join(json.dumps(cell) for cell in row) + "\n")
    assert kept["shot_boundary_detection"] == "[[it's]]"
    assert kept["timestamp"] == ["0:00:01.0", "0:00:02.0"]


def test_koala36m_says_everything_in_the_record_and_keeps_columns_of_others(tmp_path: Path) -> None:
    head = "videoID,url,timestamp,caption,clarity_score,aesthetic_score,motion_score,video_training_suitability_score"
    row = "abc_1,https://y/abc,\"['0:00:05.005000', '0:00:11.011000']\",A dog.,0.9,5.3,22.0,4.4"
    assert fields(Koala36M(), tmp_path, "abc", f"{head}\n{row}\n") == [{}]
    assert fields(Koala36M(), tmp_path, "abc", f"{head},mine\n{row},kept\n") == [{"mine": "kept"}]
