"""Koala-36M: the published columns, real rows, and rows nobody should trust."""

from __future__ import annotations

import csv
import io
import tracemalloc
from pathlib import Path

import pytest

from openuni import sources
from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources import Entry, Request, Skipped
from openuni.sources.koala36m import COLUMNS
from openuni.sources.rows import LONGEST_ROW

SPAN = "['0:00:05.005000', '0:00:11.011000']"


def row(name: str = "abcDEF-_123_4", timestamp: str = SPAN, caption: str = "A dog.", score: str = "0.9") -> list[str]:
    return [name, f"https://www.youtube.com/watch?v={name}", timestamp, caption, score, "5.34", "22.03", "4.48"]


def table(path: Path, rows: list[list[str]], bom: bool = True) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([list(COLUMNS), *rows])
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())
    return path


def videos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def build(metadata: Path, folder: Path, **options: float) -> tuple[list[Clip], list[Skipped]]:
    source, request = sources.get("koala36m"), Request(videos=folder, metadata=metadata, **options)
    found: list[Clip | Skipped] = []
    for entry in source.entries(request):
        found += source.expand(entry, request) if isinstance(entry, Entry) else [entry]
    return [c for c in found if isinstance(c, Clip)], [s for s in found if isinstance(s, Skipped)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "videos"
    path.mkdir()
    return path


def test_real_rows_are_read_whole(shared_data: Path, folder: Path) -> None:
    videos(folder, "xED6jYxWaGg_26.mp4", "deep/down/cC-Q5kcc3R8_27.WEBM")
    clips, skipped = build(shared_data / "meta" / "koala" / "koala36m_readme_rows.csv", folder)
    clips = clips[::-1]  # they come in key order
    assert [c.key for c in clips] == ["xED6jYxWaGg_26", "cC-Q5kcc3R8_27"]
    assert [s.reason for s in skipped] == ["video missing"] * 4
    assert clips[0].scores == {
        "clarity_score": 0.9014,
        "aesthetic_score": 5.34,
        "motion_score": 22.03,
        "video_training_suitability_score": 4.48,
    }
    assert 'with the word "KIMM" printed on the back' in clips[1].caption
    assert clips[0].video_id == "xED6jYxWaGg"
    assert Path(clips[1].video) == folder / "deep" / "down" / "cC-Q5kcc3R8_27.WEBM"
    assert "non-commercial" in clips[0].license


def test_a_whole_video_is_cut_by_time_and_a_cut_one_is_not(tmp_path: Path, folder: Path) -> None:
    metadata = table(tmp_path / "k.csv", [row("whole_1"), row("cut_2"), row("both_3"), row("whole_4", "")])
    videos(folder, "whole.mp4", "cut_2.mkv", "both.mp4", "both_3.mp4")
    clips, skipped = build(metadata, folder, clip_seconds=10.0)
    assert [(Path(c.video).name, c.start, c.end) for c in clips] == [
        ("both_3.mp4", 0.0, pytest.approx(6.006)),
        ("cut_2.mkv", 0.0, pytest.approx(6.006)),
        ("whole.mp4", pytest.approx(5.005), pytest.approx(11.011)),
    ]
    assert skipped == [Skipped("whole_4", "no timestamp to cut the whole video by")]
    (*_, clip), _ = build(metadata, folder, clip_seconds=2.0)
    assert (clip.start, clip.end) == (pytest.approx(5.005), pytest.approx(7.005))
    _, skipped = build(metadata, folder, min_seconds=7.0)
    assert sorted(s.reason for s in skipped)[:3] == ["clip shorter than the shortest clip"] * 3


@pytest.mark.parametrize(
    ("timestamp", "start", "end"),
    [
        ("['0:00:05', '0:00:11.5']", 5.0, 11.5),
        ("('00:05.25', '01:11')", 5.25, 71.0),
        ('["1:02:03.000001", "1:02:09"]', 3723.000001, 3729.0),
    ],
)
def test_timestamps_of_every_form(tmp_path: Path, folder: Path, timestamp: str, start: float, end: float) -> None:
    videos(folder, "v.mp4")
    (clip,), _ = build(table(tmp_path / "k.csv", [row("v_1", timestamp)]), folder, clip_seconds=1e4)
    assert (clip.start, clip.end) == (pytest.approx(start), pytest.approx(end))


def test_quotes_commas_newlines_and_leading_dashes_survive(tmp_path: Path, folder: Path) -> None:
    captions = ['He said "no", twice.\nThen left.', "a,b,\r\n,c", "  spaced  ", "naïve 猫 🎬", "x" * 300_000]
    names = [f"-video{k}_{k}" for k in range(len(captions))]
    videos(folder, *(f"{name}.mp4" for name in names))
    rows = [row(name, SPAN, caption) for name, caption in zip(names, captions, strict=True)]
    clips, skipped = build(table(tmp_path / "k.csv", rows), folder)
    assert skipped == []
    assert [(c.key, c.caption) for c in clips] == list(zip(names, captions, strict=True))


def test_lines_that_end_in_two_ways_are_said(tmp_path: Path, folder: Path) -> None:
    metadata = table(tmp_path / "k.csv", [row("a_1"), row("b_2"), row("c_3")])
    metadata.write_bytes(metadata.read_bytes().replace(b"4.48\r\n", b"4.48\n", 1))
    with pytest.raises(
        PlanError, match=r"k\.csv cannot be read: some lines end in CR LF and others in LF alone, .* let all end in LF"
    ):
        build(metadata, folder)


def test_malformed_rows_are_skipped_with_their_id_or_place_and_reason(tmp_path: Path, folder: Path) -> None:
    videos(folder, "good.mp4")
    bad = [
        (row("../../etc/passwd_1"), "videoID is not <youtubeID>_<number>"),
        (row("/etc/passwd_1"), "videoID is not <youtubeID>_<number>"),
        (row("good"), "videoID is not <youtubeID>_<number>"),
        (row("good.mp4_1"), "videoID is not <youtubeID>_<number>"),
        (row("good_1\n"), "videoID is not <youtubeID>_<number>"),
        (row(""), "videoID is not <youtubeID>_<number>"),
        (row("good_1", "__import__('os').system('true')"), "timestamp is not a pair of H:MM:SS.ffffff"),
        (row("good_1", "[" * 5000), "timestamp is not a pair of H:MM:SS.ffffff"),
        (row("good_1", "['0:00:05']"), "timestamp is not a pair of H:MM:SS.ffffff"),
        (row("good_1", "[5, 11]"), "timestamp is not a pair of H:MM:SS.ffffff"),
        (row("good_1", "['0:00:11', '0:00:05']"), "timestamp ends before it starts"),
        (row("good_1", score="high"), "clarity_score is not a number"),
        (row("good_1", score="nan"), "clarity_score is not a number"),
        (row("good_1")[:-1], "malformed row: missing columns"),
        ([*row("good_1"), "more"], "malformed row: too many columns"),
    ]
    metadata = table(tmp_path / "k.csv", [*(cells for cells, _ in bad), row("good_7")])
    clips, skipped = build(metadata, folder)
    assert [c.key for c in clips] == ["good_7"]
    assert sorted(s.reason for s in skipped) == sorted(reason for _, reason in bad)
    assert {s.id for s in skipped if "videoID" in s.reason} == {
        "../../etc/passwd_1", "/etc/passwd_1", "good", "good.mp4_1", "good_1\n", "(no id)",
    }  # fmt: skip
    lines = metadata.read_bytes().splitlines(keepends=True)
    place = int(next(s.id for s in skipped if s.reason.startswith("malformed")).rpartition(" ")[2])
    assert metadata.read_bytes()[place:].startswith(b"good_1,") or place == sum(map(len, lines[:15]))


def test_ids_never_leave_the_folder(tmp_path: Path, folder: Path) -> None:
    videos(tmp_path, "secret_1.mp4")
    (folder / "link_2.mp4").symlink_to(tmp_path / "secret_1.mp4")
    clips, skipped = build(table(tmp_path / "k.csv", [row("../secret_1"), row("secret_1"), row("link_2")]), folder)
    assert clips == []
    assert len(skipped) == 4


def test_a_blank_score_is_left_out(tmp_path: Path, folder: Path) -> None:
    videos(folder, "v.mp4")
    (clip,), _ = build(table(tmp_path / "k.csv", [row("v_1", score="")]), folder)
    assert sorted(clip.scores) == ["aesthetic_score", "motion_score", "video_training_suitability_score"]


def test_a_folder_of_tables_is_read_in_the_order_of_their_numbers(tmp_path: Path, folder: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for number in (10, 2, 1):
        table(tables / f"Koala_36M_{number}.csv", [row(f"v_{number}")], bom=number != 2)
    (tables / "Koala_36M_notes.csv").write_text("not,a,table")
    videos(folder, "v.mp4")
    clips, _ = build(tables, folder)
    assert [c.key for c in clips] == ["v_1", "v_10", "v_2"]


def test_what_is_no_table_is_said(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("video,caption\n1,2\n")
    for metadata, problem in ((None, "--metadata"), (other, "no column videoID"), (folder, "holds no Koala_36M_")):
        with pytest.raises(PlanError, match=problem):
            list(sources.get("koala36m").entries(Request(videos=folder, metadata=metadata)))


def test_a_lost_quote_and_a_line_without_end_take_bounded_memory(tmp_path: Path, folder: Path) -> None:
    videos(folder, "v.mp4")
    path = table(tmp_path / "k.csv", [row("v_1")])
    with path.open("a") as file:
        file.write('v_2,url,"lost quote ')
        for _ in range(40):
            file.write("y" * LONGEST_ROW)
        file.write("\n")
    tracemalloc.start()
    clips, skipped = build(path, folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [c.key for c in clips] == ["v_1"]
    assert skipped
    assert peak < 15 * LONGEST_ROW


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, folder: Path) -> None:
    videos(folder, "v.mp4")
    peaks = []
    for count in (2_000, 20_000):
        path = table(tmp_path / f"k{count}.csv", [row(f"v_{k}", SPAN, "word " * 40) for k in range(count)])
        source, request = sources.get("koala36m"), Request(videos=folder, metadata=path)
        tracemalloc.start()
        assert sum(isinstance(entry, Entry) for entry in source.entries(request)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_table_in_another_encoding_is_read_and_said(tmp_path: Path, folder: Path, encoding: str) -> None:
    videos(folder, "v.mp4")
    path = table(
        tmp_path / "k.csv", [row(f"v_{k}", caption="一只猫在草地上奔跑，旁边有一个人。") for k in range(3)], bom=False
    )
    path.write_bytes(path.read_bytes().decode().encode(encoding))
    clips, skipped = build(path, folder)
    assert [c.caption for c in clips] == ["一只猫在草地上奔跑，旁边有一个人。"] * 3
    assert [s.id for s in skipped] == ["k.csv"]
    assert "is not UTF-8 and was read as" in skipped[0].reason


def test_a_row_in_another_encoding_than_its_table_is_left_out_by_its_place(tmp_path: Path, folder: Path) -> None:
    videos(folder, "v.mp4")
    path = table(tmp_path / "k.csv", [row("v_1", caption="naïve")])
    line = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(path.read_bytes() + line.replace("ï".encode(), b"\xef") + line.replace(b"v_1", b"v_2"))
    clips, skipped = build(path, folder)
    assert [(c.key, c.caption) for c in clips] == [("v_1", "naïve"), ("v_2", "naïve")]
    assert [s.reason for s in skipped] == ["malformed row: invalid encoding"]


def test_of_two_videos_of_one_name_the_other_is_said(tmp_path: Path, folder: Path) -> None:
    videos(folder, "v.mp4", "again/v.mkv")
    clips, skipped = build(table(tmp_path / "k.csv", [row("v_1")]), folder)
    assert [Path(c.video).name for c in clips] == ["v.mp4"]
    assert skipped == [Skipped("again/v.mkv", "another video of this name is used")]
