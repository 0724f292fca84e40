"""Where a malformed record stands, and what kind of file a table really is."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from openuni.errors import PlanError
from openuni.sources import Request, Skipped
from openuni.sources.koala36m import Koala36M
from openuni.sources.records import looks_like
from openuni.sources.table import Table


@pytest.mark.parametrize("is_packed", [False, True])
def test_malformed_rows_have_the_number_of_their_record_and_their_byte(tmp_path: Path, is_packed: bool) -> None:
    """Captions have line breaks, commas and quotes, so that lines are no records."""
    rng = random.Random(1)
    written, planted = bytearray(b"\xef\xbb\xbfvideo,caption,score\n"), []
    for number in range(1, 3001):
        if rng.random() < 0.004:
            planted.append(f"record {number:,}, byte {len(written)}")
            written += rng.choice([b"x,y\n", b"a,b,c,d,e\n"])
        else:
            caption = 'say ""hi"",\nnew line, ' * rng.randrange(4)
            written += f'id{number},"{caption}",1.5\n'.encode()
    table = tmp_path / ("rows.csv.gz" if is_packed else "rows.csv")
    table.write_bytes(gzip.compress(bytes(written)) if is_packed else written)
    (tmp_path / "v").mkdir()
    rows = [row for row in Table().entries(Request(tmp_path / "v", table)) if isinstance(row, Skipped)]
    found = [row.id for row in rows if row.reason.startswith("malformed row")]
    assert len(planted) > 5
    assert {*found} == {f"{table.name}, {place}" for place in planted}


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\n<html><body>404", "a web page"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer"),
        (b'{"a": 1}\n{"a": 2}\n', "JSON"),
        (b"a\tb\tc\n1\t2, 3\t4\n", "a table whose columns are parted by tabs"),
        (b"a,b,c\n1,2,3\n", ""),
        ("videoID,caption\n1,ein Hund; läuft".encode(), ""),
    ],
)
def test_what_a_file_looks_like(head: bytes, what: str) -> None:
    assert looks_like(head).startswith(what)
    assert bool(looks_like(head)) == bool(what)


def test_a_page_in_place_of_a_table_is_named(tmp_path: Path) -> None:
    table = tmp_path / "Koala_36M_1.csv"
    table.write_text("<!DOCTYPE html>\n<html>Too many requests</html>\n")
    (tmp_path / "v").mkdir()
    with pytest.raises(PlanError, match=r"is not a Koala-36M table: .*; it looks like a web page"):
        Koala36M().check(Request(tmp_path / "v", table))
