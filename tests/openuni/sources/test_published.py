"""Published tables as they are: real rows where there are any, and rows nobody should trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources import Entry, Request, Skipped, Source
from openuni.sources.opens2v import OpenS2V
from openuni.sources.openvid1m import OpenVid1M
from openuni.sources.panda70m import Panda70M
from openuni.sources.selection import Choice
from openuni.sources.webvid import WebVid


def planned(source: Source, metadata: Path, folder: Path, *files: str) -> tuple[list[Clip], dict[str, str]]:
    """Clips of a folder with these files, and why other rows became none."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(exist_ok=True)
    request = Request(videos=folder, metadata=metadata)
    rows = list(source.entries(request))
    clips = [clip for row in rows if isinstance(row, Entry) for clip in source.expand(row, request)]
    return [c for c in clips if isinstance(c, Clip)], {row.id: row.reason for row in rows if isinstance(row, Skipped)}


def test_a_real_row_of_panda70m_is_three_clips(shared_data: Path, tmp_path: Path) -> None:
    metadata = shared_data / "meta" / "panda70m" / "panda70m_one_row.csv"
    clips, left_out = planned(Panda70M(), metadata, tmp_path / "v", "-2yHu5qgTzM.mp4", "-2yHu5qgTzM_2.mp4")
    assert left_out == {}
    assert [clip.key for clip in clips] == [f"-2yHu5qgTzM_{n}" for n in range(3)]
    assert [Path(clip.video).name for clip in clips] == ["-2yHu5qgTzM.mp4"] * 2 + ["-2yHu5qgTzM_2.mp4"]
    assert (clips[0].start, clips[0].end) == (pytest.approx(80.88), pytest.approx(83.983))
    assert (clips[2].start, clips[2].end) == (0.0, pytest.approx(4.839))
    assert clips[1].caption == "A woman is standing on a black background and talking to the camera."
    assert clips[1].scores == {"matching_score": 0.4990234375}
    chosen = Panda70M(choice=Choice(where="desirable_filtering = 'desirable'", at_least=("matching_score=0.44",)))
    assert [clip.key for clip in planned(chosen, metadata, tmp_path / "v")[0]] == ["-2yHu5qgTzM_1"]


def test_lists_of_panda70m_as_python_writes_them(tmp_path: Path) -> None:
    captions = ['It\'s a "dog".', "It's a cat", 'say "hi", [1]']
    table = tmp_path / "panda.csv"
    spans = str([["0:00:01.000", "0:00:02.000"]] * 3)

    def row(video: str, captions: list[str], scores: list[float]) -> str:
        cells = (video, "u", spans, str(captions), str(scores), str(["desirable"] * 3), "[]")
        return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\n"

    names = "videoID,url,timestamp,caption,matching_score,desirable_filtering,shot_boundary_detection\n"
    table.write_text(names + row("a", captions, [0.1, 2e-05, 1]) + row("b", captions[:2], [0.1, 0.2]))
    clips, left_out = planned(Panda70M(), table, tmp_path / "v", "a.mp4", "b.mp4")
    assert [clip.caption for clip in clips] == captions
    assert [clip.scores["matching_score"] for clip in clips] == [0.1, 2e-05, 1.0]
    assert {*left_out.values()} == {"its lists differ in length"}
    table.write_text("videoID,caption\n")
    with pytest.raises(PlanError, match="is not a Panda-70M table: it has no column url, timestamp"):
        planned(Panda70M(), table, tmp_path / "v")


def test_real_rows_of_webvid_style_tables(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "meta" / "v2d"
    clips, _ = planned(WebVid(), folder / "test_webvid.csv", tmp_path / "v", "027701_027750/1053841541.mp4")
    (clip,) = clips
    assert (clip.key, clip.caption) == (
        "1053841541",
        "Travel blogger shoot a story on top of mountains. young man holds camera in forest.",
    )
    chosen = WebVid(choice=Choice(min_duration=18))
    assert planned(chosen, folder / "test_webvid.csv", tmp_path / "v")[0] == []  # it lasts 17 s
    clips, _ = planned(WebVid(), folder / "test_yt.csv", tmp_path / "y", "jLX0D8qQUBM.mp4")
    assert [c.caption for c in clips] == ["Aesthetics predictor from side-by-side comparisions"]


def test_openvid_has_spaces_in_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "OpenVid-1M.csv"
    table.write_text(
        "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds\n"
        'a_1.mp4,"A dog, running",5.2,3.1,0.99,pan_left,120,24.0,5.0\nb_1.mp4,x,4.0,1.0,0.9,static,240,24.0,10.0\n'
    )
    chosen = OpenVid1M(choice=Choice(where="\"camera motion\" <> 'static'"))
    (clip,), _ = planned(chosen, table, tmp_path / "v", "a_1.mp4", "b_1.mp4")
    assert (clip.key, clip.caption, clip.end) == ("a_1", "A dog, running", 5.0625)
    assert clip.scores == {"aesthetic_score": 5.2, "motion_score": 3.1, "temporal_consistency_score": 0.99}


@pytest.mark.parametrize("step", ["step0", "step5"])
def test_real_files_of_opens2v(shared_data: Path, tmp_path: Path, step: str) -> None:
    metadata = shared_data / "meta" / "opens2v" / step / "merge_final_json" / "dataset1.json"
    clips, left_out = planned(OpenS2V(), metadata, tmp_path / "v", "deep/gm1252760410-365677148_part2.mp4")
    (clip,) = clips
    assert left_out == {}
    assert (clip.start, clip.end) == (0.0, pytest.approx(95 / 29.969999313354492))
    assert clip.crop == (0, 0, 1280, 720)
    assert clip.caption.startswith("Three women are seen outdoors on a grassy area.")
    assert clip.scores == {"tech": 2.082, "motion": 0.01223986130207777, "aesthetic": 5.070407867431641}
    assert (clip.license, clip.source_id[:20]) == ("CC-BY-4.0", "gm1252760410-3656771")


def test_opens2v_cuts_by_frames_and_crops_x_x_y_y(tmp_path: Path) -> None:
    about = {"cut": [0, 90], "face_cut": [30, 60], "crop": [8, 640, 4, 480], "fps": 30.0, "cap": ["c"], "path": "v.mp4",
             "resolution": {"height": 480, "width": 640}, "tech": 1.0}  # fmt: skip
    wrong = {
        "outside": {**about, "crop": [0, 641, 0, 480]},
        "empty": {**about, "crop": [10, 10, 0, 480]},
        "still": {**about, "fps": 0},
        "a/b": about,
        "nowhere": {**about, "path": "../v.mp4"},
    }
    metadata = tmp_path / "total_part1.json"
    metadata.write_text(json.dumps({key: {"metadata": value} for key, value in {"good": about, **wrong}.items()}))
    (clip,), left_out = planned(OpenS2V(), metadata, tmp_path / "v", "v.mp4")
    assert (clip.start, clip.end, clip.crop) == (1.0, 2.0, (8, 4, 640, 480))
    assert left_out == {
        "outside": "crop outside the frame",
        "empty": "crop outside the frame",
        "still": "no frame rate to cut by",
        "a/b": "id has path characters",
        "nowhere": "path leaves the folder",
    }
    metadata.write_text(json.dumps({"good": {"metadata": about}})[:-20])
    with pytest.raises(PlanError, match=r"is not a file of OpenS2V-5M: .*; download it again"):
        planned(OpenS2V(), metadata, tmp_path / "v")
