"""Rows of any table, chosen before a video is touched: counted against what was written into them."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("duckdb")

from openuni import source_fields
from openuni.errors import PlanError
from openuni.sample import Clip
from openuni.sources.base import Request, Skipped
from openuni.sources.selection import Choice
from openuni.sources.table import Table

ROWS = [
    {
        "name": f"row-{n:02d}",
        "path": f"clips/v{n % 3}.mp4",
        "text": f'caption, "{n}"\nof two lines',
        "aesthetic": n / 2,
        "t0": f"0:00:0{n % 4}.5",
        "t1": 30.0,
    }
    for n in range(20)
]
MAP = ("video=path", "id=name", "caption=text", "start=t0", "end=t1")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos" / "clips"
    folder.mkdir(parents=True)
    for n in range(3):
        (folder / f"v{n}.mp4").write_bytes(b"")  # no row of a table opens one
    return folder.parent


def write_csv(path: Path, rows: list[dict[str, object]] = ROWS) -> Path:
    def cell(value: object) -> str:
        return '"' + str(value).replace('"', '""') + '"' if isinstance(value, str) else str(value)

    lines = [",".join(ROWS[0]), *(",".join(map(cell, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def write_jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def clips(
    metadata: Path, videos: Path, named: tuple[str, ...] = MAP, **asked: object
) -> tuple[list[Clip], Counter[str]]:
    """Clips, and the reasons of what became none."""
    request, source = Request(videos, metadata), Table(named, choice=Choice(**asked))  # type: ignore[arg-type]
    made, reasons = [], Counter[str]()
    for entry in source.entries(request):
        for one in [entry] if isinstance(entry, Skipped) else source.expand(entry, request):
            if isinstance(one, Clip):
                made.append(one)
            else:
                reasons[one.reason] += 1
    return made, reasons


@pytest.mark.parametrize(("suffix", "write"), [("csv", write_csv), ("jsonl", write_jsonl), ("parquet", write_parquet)])
def test_every_kind_of_table_gives_the_same_clips(
    suffix: str, write: Callable[[Path], Path], tmp_path: Path, videos: Path
) -> None:
    made, reasons = clips(write(tmp_path / f"rows.{suffix}"), videos)
    assert reasons == {}
    assert [clip.key for clip in made] == [row["name"] for row in ROWS]
    third = made[2]
    assert third.caption == ROWS[2]["text"]
    assert (third.start, third.end) == (2.5, 2.5 + 5.0625)
    assert third.video == str(videos / "clips" / "v2.mp4")
    assert dict(third.scores) == {"aesthetic": 1.0}
    assert (third.source, third.source_id, third.license) == ("table", "row-02", "unknown")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_minutes_and_seconds_are_never_taken_for_hours_and_minutes(suffix: str, tmp_path: Path, videos: Path) -> None:
    """DuckDB guesses a time of day: clips were cut at a minute for every second."""
    spans = [("0:01", "0:03"), ("0:05", "1:02.5"), ("0:00:07", "0:01:00"), (None, "0:02")]
    rows = [
        {"name": f"n{n}", "path": "clips/v1.mp4", "t0": start, "t1": end, "day": "2024-05-01"}
        for n, (start, end) in enumerate(spans)
    ]
    table = tmp_path / f"rows.{suffix}"
    match suffix:
        case "csv":
            lines = [",".join(str(value or "") for value in row.values()) for row in rows]
            table.write_text("\ufeff" + "\r\n".join([",".join(rows[0]), *lines]))
        case "jsonl":
            table.write_text("\ufeff" + "\r\n".join(map(json.dumps, rows)))
        case _:
            pq.write_table(pa.Table.from_pylist(rows), table)
    request = Request(videos, table)
    source = Table(("id=name", "video=path", "start=t0", "end=t1"), choice=Choice(where="day >= '2024-01-01'"))
    made = {entry.id: entry.fields for entry in source.entries(request) if not isinstance(entry, Skipped)}
    assert [made[f"n{n}"]["start"] for n in range(4)] == [1.0, 5.0, 7.0, 0.0]
    assert (made["n0"]["end"], made["n3"]["end"]) == (3.0, 2.0)


def test_a_row_without_a_video_has_no_id_and_what_is_no_table_is_said(tmp_path: Path, videos: Path) -> None:
    rows = [{"video": "clips/v1.mp4", "start": 0.5}, {"video": None, "start": 1.5}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = list(Table().entries(Request(videos, tmp_path / "rows.parquet")))
    assert [(one.id, one.reason) for one in found if isinstance(one, Skipped)] == [("(no id)", "row has no id")]
    (tmp_path / "list.jsonl").write_text(json.dumps([{"video": "clips/v1.mp4"}]))
    with pytest.raises(PlanError, match=r"list\.jsonl is not JSON lines: write one object on each line"):
        list(Table().entries(Request(videos, tmp_path / "list.jsonl")))


def _with_a_wrong_checksum(data: bytes) -> bytes:
    packed = bytearray(gzip.compress(data, mtime=0))
    packed[-6] ^= 1
    return bytes(packed)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("nothing.csv", b"", "is empty; download or write it again"),
        ("nothing.jsonl", b"", "is empty; download or write it again"),
        ("mixed.csv", b"video,text\nv0.mp4,a\r\nv1.mp4,b\n", "some lines end in CR LF and others in LF alone"),
        ("cut.csv.gz", gzip.compress(b"video\n" * 99, mtime=0)[:-9], "it is no gzip file, or not all of one"),
        ("plain.csv.gz", b"video\nv0.mp4\n", "it is no gzip file, or not all of one"),
        ("cut.jsonl.gz", gzip.compress(b'{"video": "a.mp4"}\n', mtime=0)[:-9], "it is no gzip file, or not all of one"),
        ("crc.csv.gz", _with_a_wrong_checksum(b"video\nv0.mp4\n"), "its checksum is not that of what it holds"),
        ("crc.jsonl.gz", _with_a_wrong_checksum(b'{"video": "v0.mp4"}\n'), "its checksum is not that of what it holds"),
        ("header.csv", b"video,caption\n", "has no rows, only names of columns; download or write it again"),
        ("packed.csv", gzip.compress(b"video\nv0.mp4\n", mtime=0), "it looks like a gzip file without .gz in its name"),
        ("zip.csv", b"PK\x03\x04" + bytes(99), "it looks like a zip archive or an Excel workbook; name it"),
        ("array.csv", b'[{"video": "v0.mp4"}]', "no column 'video' for the video; it looks like JSON; name it"),
        ("array.jsonl", b'[{"video": "v0.mp4"}]', r"write one object on each line \(jq -c '.\[\]' array.jsonl"),
        ("deep.jsonl", b'{"video": %s1%s}' % (b"[" * 999, b"]" * 999), "nested more than 128 deep"),
        ("text.parquet", b"video\nv0.mp4\n", "it is no Parquet file, or not all of one; download"),
    ],
)
def test_what_is_no_table_is_one_sentence_that_says_what_to_do(
    name: str, data: bytes, sentence: str, tmp_path: Path, videos: Path
) -> None:
    """DuckDB's own words were of sniffing, of a state machine and of magic bytes."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PlanError, match=sentence) as raised:
        list(Table().entries(Request(videos, tmp_path / name)))
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_table_without_rows_is_named(tmp_path: Path, videos: Path) -> None:
    table = tmp_path / "none.parquet"
    pq.write_table(pa.table({"video": pa.array([], pa.string())}), table)
    with pytest.raises(PlanError, match=r"none\.parquet has no rows, only names of columns"):
        list(Table().entries(Request(videos, table)))


def test_a_damaged_table_is_not_taken_for_a_wrong_condition(tmp_path: Path, videos: Path) -> None:
    table = write_parquet(tmp_path / "rows.parquet")
    data = bytearray(table.read_bytes())
    data[40:80] = bytes(40)
    table.write_bytes(data)
    with pytest.raises(
        PlanError, match=r"rows\.parquet cannot be read: it is damaged \(.*\); download or write it again"
    ):
        clips(table, videos)
    with pytest.raises(PlanError, match=r"its rows cannot be chosen: .*; check --where"):
        clips(write_parquet(table), videos, where="regexp_matches(text, '(')")


def test_one_odd_row_among_the_first_does_not_refuse_the_file(tmp_path: Path, videos: Path) -> None:
    """DuckDB gave up while it guessed the types."""
    table = write_csv(tmp_path / "rows.csv")
    lines = table.read_text().splitlines(keepends=True)
    odd = [f'"long","clips/v0.mp4","{"x" * (3 << 20)}",1,"0",1\n', 'lost,clips/v0.mp4,"a lost quote,1,0,1\n']
    table.write_text("".join([lines[0], *odd, *lines[1:]]))
    made, reasons = clips(table, videos)
    assert [clip.key for clip in made] == [row["name"] for row in ROWS[1:]]  # the lost quote takes the next row with it
    assert sum(reasons.values()) == 2
    assert "malformed row: line size over maximum" in reasons


def test_what_stands_for_text_stays_as_it_is_written(tmp_path: Path, videos: Path) -> None:
    """DuckDB took ids for numbers and captions for dates: 007 became 7, and its video was missing."""
    for name in ("007", "1e5", "2024-05-01"):
        (videos / f"{name}.mp4").touch()
    rows = [("007", "1e5", 1.5), ("1e5", "2024-05-01", 2.5), ("2024-05-01", "007", 3.5)]
    (tmp_path / "a.csv").write_text("id,video,caption,s\n" + "".join(f"{i},{i},{c},{s}\n" for i, c, s in rows))
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"video": i, "caption": "2024-05-01T10:00:00Z", "s": s}) + "\n" for i, _, s in rows)
    )
    found = [e for e in Table().entries(Request(videos, tmp_path / "a.csv")) if not isinstance(e, Skipped)]
    told = [(e.id, Path(e.fields["video"]).stem, e.fields["caption"], e.fields["scores"]) for e in found]
    assert told == [(i, i, c, {"s": s}) for i, c, s in rows]
    found = [e for e in Table().entries(Request(videos, tmp_path / "a.jsonl")) if not isinstance(e, Skipped)]
    assert [(e.id, e.fields["caption"]) for e in found] == [(i, "2024-05-01T10:00:00Z") for i, *_ in rows]


def test_names_of_columns_that_are_missing_the_same_or_of_two_lines(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "a.csv").write_text(',video,"two\nlines",Two,two\n0,clips/v0.mp4,1,2,3\n')
    (found,) = Table().entries(Request(videos, tmp_path / "a.csv"))
    assert found.fields["scores"] == {"column0": 0.0, "two\nlines": 1.0, "Two": 2.0, "two_1": 3.0}
    (tmp_path / "a.tsv").write_text("video\tcaption, in English\tn\nclips/v0.mp4\tA dog\t1\n")
    (found,) = Table(("caption=caption, in English",)).entries(Request(videos, tmp_path / "a.tsv"))
    assert (found.fields["caption"], found.fields["scores"]) == ("A dog", {"n": 1.0})


def test_json_lines_in_another_encoding_are_read_and_said(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"video": "clips/v0.mp4", "caption": "été"}\n', "utf-16")
    said, found = Table().entries(Request(videos, tmp_path / "a.jsonl"))
    assert (said.id, said.reason) == ("a.jsonl", "table is not UTF-8 and was read as utf-16")
    assert found.fields["caption"] == "été"


def test_a_crop_that_is_no_number_is_outside_the_frame(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "a.csv").write_text("video,x0,y0,x1,y1,width\nclips/v0.mp4,left,0,9,9,-\nclips/v1.mp4,0,0,9,9,-\n")
    left_out, found = Table().entries(Request(videos, tmp_path / "a.csv"))
    assert (left_out.id, left_out.reason) == ("clips/v0", "crop outside the frame")
    assert found.fields["crop"] == [0, 0, 9, 9]


def test_rows_are_chosen_by_sql_by_quantile_and_by_a_seeded_sample(tmp_path: Path, videos: Path) -> None:
    table = write_csv(tmp_path / "rows.csv")
    made, reasons = clips(table, videos, where="aesthetic > 5 and length(text) > 3")
    assert [clip.key for clip in made] == [f"row-{n:02d}" for n in range(11, 20)]
    assert reasons == {}  # what was asked is counted in the funnel, not listed row by row
    best, _ = clips(table, videos, where="aesthetic >= quantile_cont(aesthetic, 0.9) over ()")
    assert [clip.key for clip in best] == ["row-18", "row-19"]
    sample = [clip.key for clip in clips(table, videos, sample=5)[0]]
    assert len(sample) == 5
    assert sample == sorted(sample) == [clip.key for clip in clips(table, videos, sample=5)[0]]
    assert sample != [clip.key for clip in clips(table, videos, sample=5, sample_seed=1)[0]]
    assert set(sample) == {clip.key for clip in clips(write_parquet(tmp_path / "rows.parquet"), videos, sample=5)[0]}


def test_clips_are_balanced_over_buckets(tmp_path: Path, videos: Path) -> None:
    table = write_csv(tmp_path / "rows.csv")
    edges = (0.0, 1.5, 6.0, 9.5)  # 3, 9 and 7 of the rows lie between them; the last has no bucket
    asked = {"balance": f"case {' '.join(f'when aesthetic < {e} then {n}' for n, e in enumerate(edges))} end"}

    def buckets(**more: object) -> list[int]:
        scores = [clip.scores["aesthetic"] for clip in clips(table, videos, **asked, **more)[0]]
        return np.histogram(scores, [*edges, 99])[0].tolist()

    assert buckets() == [3, 3, 3, 0]
    assert buckets(sample=14)[0] == 3
    assert sorted(buckets(sample=14)) == [0, 3, 5, 6]
    assert buckets(sample=100) == [3, 9, 7, 0]
    drawn = [clip.key for clip in clips(table, videos, **asked)[0]]
    assert drawn == [clip.key for clip in clips(table, videos, **asked)[0]]
    assert drawn != [clip.key for clip in clips(table, videos, **asked, sample_seed=1)[0]]


def test_odd_rows_are_left_out_by_name(tmp_path: Path, videos: Path) -> None:
    odd = [
        {**ROWS[0], "name": "outside", "path": "../../etc/passwd"},
        {**ROWS[0], "name": "absolute", "path": "/etc/passwd"},
        {**ROWS[0], "name": "gone", "path": "clips/v9.mp4"},
        {**ROWS[0], "name": "backwards", "t0": "0:01:00", "t1": 3.0},
        {**ROWS[0], "name": "no time", "t0": "noon"},
        {**ROWS[0], "name": "row-01"},
    ]
    made, reasons = clips(write_csv(tmp_path / "rows.csv", [*ROWS, *odd]), videos)
    assert len(made) == 20
    assert reasons == {
        "path leaves the folder": 2,
        "video missing": 1,
        "start and end are not a span of seconds": 2,
        "two rows of one id": 1,
    }


def test_malformed_rows_are_counted_by_their_place_until_the_file_is_another_kind(tmp_path: Path, videos: Path) -> None:
    table = write_csv(tmp_path / "rows.csv")
    place = len(table.read_bytes())
    with table.open("a") as file:
        file.write("too,many,cells,in,this,row,of,it\n")
    request = Request(videos, table)
    (skipped,) = [one for one in Table(MAP).entries(request) if isinstance(one, Skipped)]
    assert skipped.reason == "malformed row: too many columns"
    assert int(skipped.id.rsplit(" ", 1)[1]) - place in range(-1, 40)  # where the row begins, or its first odd cell
    with table.open("a") as file:
        file.write("a,b,c,d,e,f,g,h\n" * 40)
    with pytest.raises(PlanError, match=r"41 of 61 rows are malformed .*: this is not a table of that kind"):
        list(Table(MAP).entries(request))


def test_lines_that_are_no_json_objects_are_counted_by_their_place(tmp_path: Path, videos: Path) -> None:
    """They were rows without an id, and nothing told which."""
    table = write_jsonl(tmp_path / "rows.jsonl")
    first, rest = table.read_bytes().split(b"\n", 1)
    table.write_bytes(first + b'\n{"name": "cut off\n\n' + rest + b"<html>\n")
    found = [one for one in Table(MAP).entries(Request(videos, table)) if isinstance(one, Skipped)]
    assert {one.reason for one in found} == {"malformed row: no JSON object with a value in it"}
    last = table.stat().st_size - len("<html>\n")
    assert sorted(one.id for one in found) == [
        f"rows.jsonl, line 2, byte {len(first) + 1}",
        f"rows.jsonl, line 23, byte {last}",
    ]
    with table.open("a") as file:
        file.write("<p>\n" * 40)
    with pytest.raises(PlanError, match=r"42 of 62 lines hold no JSON object .*line 2, .*: this is not a table"):
        list(Table(MAP).entries(Request(videos, table)))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"where": "aesthetik > 5"},
            r"its rows cannot be chosen: .*aesthetik.*; check --where, --balance and names of columns",
        ),
        ({"where": "aesthetic >"}, r"its rows cannot be chosen: "),
        ({"map": ("video=film",)}, r"has no column 'film' for the video; it has name, path, text"),
        ({"map": ("frames=path",)}, r"--map frames: give FIELD=COLUMN; fields are video, id"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(
    asked: dict[str, object], sentence: str, tmp_path: Path, videos: Path
) -> None:
    request = Request(videos, write_csv(tmp_path / "rows.csv"))
    named = asked.pop("map", MAP)
    source = Table(named, choice=Choice(**asked))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=sentence):
        list(source.entries(request))


def test_a_folder_of_two_kinds_is_refused(tmp_path: Path, videos: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    write_csv(folder / "a.csv")
    write_jsonl(folder / "b.jsonl")
    with pytest.raises(PlanError, match=r"holds \.csv, \.jsonl; a table is one kind of"):
        list(Table().entries(Request(videos, folder)))


COLUMNS = {
    "video": "clips/v0.mp4",
    "id": "odd",
    "key": "theirs, not ours",
    "Größe 測試": 'says "hi", it\'s',
    "json": '{"a": [1, null]}',
    "end": 1.5,
    "url": "https://example.org/1",
    "views": 12,
    "far": 2**60 + 1,
    "when": dt.date(2020, 1, 2),
    "at": dt.datetime(2020, 1, 2, 3, 4, 5, 500000),
    "zoned": dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "tags": ["a", None],
    "boxes": [[0.5, float("nan")]],
    "struct": {"x": float("inf"), "size": [dt.date(2020, 1, 2)]},
    "bytes": b"\x00\xff",
    "flag": True,
    "nothing": None,
}
KEPT = {
    "key": "theirs, not ours",
    "Größe 測試": 'says "hi", it\'s',
    "json": '{"a": [1, null]}',
    "end": 1.5,
    "url": "https://example.org/1",
    "far": 2**60 + 1,
    "when": "2020-01-02",
    "at": "2020-01-02T03:04:05.5",
    "zoned": "2020-01-02T01:04:05Z",
    "tags": ["a", None],
    "boxes": [[0.5, None]],
    "struct": {"x": None, "size": ["2020-01-02"]},
    "bytes": "AP8=",
    "flag": True,
    "nothing": None,
}


def test_other_columns_are_kept_as_they_are(tmp_path: Path, videos: Path) -> None:
    """Numbers stay numbers, lists lists; JSON has no NaN and no dates. What the clip says already is not repeated."""
    table = pa.Table.from_pylist([COLUMNS]).append_column("f32", pa.array([0.1], pa.float32()))
    pq.write_table(table.append_column("f32s", pa.array([[0.1]], pa.list_(pa.float32()))), tmp_path / "rows.parquet")
    (entry,) = Table().entries(Request(videos, tmp_path / "rows.parquet"))
    (clip,) = Table().expand(entry, Request(videos))  # type: ignore[arg-type]
    assert isinstance(clip, Clip)
    assert clip.source_fields == {**KEPT, "f32s": [0.1]}
    assert clip.scores == pytest.approx({"views": 12, "far": 2**60, "f32": 0.1})


def test_a_csv_keeps_its_odd_columns_and_a_row_too_large_keeps_its_clip(tmp_path: Path, videos: Path) -> None:
    long = "x" * source_fields.MOST_BYTES
    rows = [
        "video,id,key,when,made at,näme",
        f"clips/v0.mp4,a,{long},2020-01-02,3:04,",
        "clips/v1.mp4,b,k,2020-01-02,3:04,é",
    ]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    made, reasons = clips(tmp_path / "rows.csv", videos, named=())
    assert [dict(clip.source_fields) for clip in made] == [
        {},
        {"key": "k", "when": "2020-01-02", "made at": "3:04", "näme": "é"},
    ]
    assert reasons == {source_fields.TOO_LARGE: 1}


def test_of_two_rows_of_one_id_the_fields_tell_which_is_kept(tmp_path: Path, videos: Path) -> None:
    """By file and time they are one; threads of DuckDB would give now this, now that one."""
    rows = [f"clips/v0.mp4,a,tag {n % 7}" for n in range(50)]
    for order in (rows, rows[::-1]):
        (tmp_path / "rows.csv").write_text("\n".join(["video,id,tag", *order]) + "\n")
        (clip,), _ = clips(tmp_path / "rows.csv", videos, named=())
        assert clip.source_fields == {"tag": "tag 0"}
