"""Captions with what a terminal obeys: escape sequences, bells, NUL. They are not stored, and it is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openuni.sources import Request, Skipped, captions
from openuni.sources.published import TrainingTable
from openuni.sources.table import Table
from openuni.sources.text import CONTROLS_REMOVED

ODD = "a \x1b[31mred\x1b[0m\x07 dog\x85\x9b1m,\nשלום\u200f and two\tlines"
PLAIN = "a [31mred[0m dog1m,\nשלום\u200f and two\tlines"


def _write_csv(folder: Path, name: str = "rows.csv") -> Path:
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video", "caption"), ("a.mp4", ODD), ("b.mp4", "a cat")])
    return folder / name


def _write_jsonl(folder: Path) -> Path:
    rows = [{"video": "a.mp4", "caption": ODD}, {"video": "b.mp4", "caption": "a cat"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def _write_parquet(folder: Path) -> Path:
    table = pa.table({"video": ["a.mp4", "b.mp4"], "caption": [ODD + "\0", "a cat"]})
    pq.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.mark.parametrize("write", [_write_csv, _write_jsonl, _write_parquet])
def test_tables_lose_them_and_say_so(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (videos / name).write_bytes(b"x")
    rows = list(Table().entries(Request(videos, write(tmp_path))))
    kept = {row.id: row.fields["caption"] for row in rows if not isinstance(row, Skipped)}
    assert kept == {"a": PLAIN, "b": "a cat"}
    assert [row for row in rows if isinstance(row, Skipped)] == [Skipped("a", CONTROLS_REMOVED)]


def test_side_cars_lose_them_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ODD, encoding="utf-8")
    caption = captions.read(tmp_path / "a.mp4", tmp_path)
    assert caption.text == PLAIN.replace("\n", " ").replace("\t", " ")
    assert [remark.what for remark in caption.remarks] == [CONTROLS_REMOVED]


def test_published_tables_lose_them(tmp_path: Path) -> None:
    table = _write_csv(tmp_path)
    assert dict(TrainingTable(table, tmp_path).captions())["a.mp4"] == PLAIN
