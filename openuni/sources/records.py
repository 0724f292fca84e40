"""What a table is where DuckDB cannot read it: which record is at a byte, and what kind of file it looks like."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

_CHUNK = 16 << 20
_MAGIC = (
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\x1f\x8b", "a gzip file without .gz in its name"),
    (b"SQLite format 3", "an SQLite database"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded"),
)
BROKEN_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
"""What reading a packed table raises where it is cut off or damaged."""
_DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars"}


def head_of(table: Path) -> bytes:
    """The first bytes of a table, uncompressed."""
    with _opened(table) as file:
        return file.read(1 << 16)


def delimiter_of(header: str, usual: str) -> str:
    """What parts the columns that the line `header` names: another than `usual` where only one can.

    Example:
        >>> delimiter_of("id;video;caption", ","), delimiter_of("id,video", ","), delimiter_of("a;b|c", ",")
        (';', ',', ',')
    """
    others = [delimiter for delimiter in (*_DELIMITERS, ",") if delimiter in header]
    return others[0] if usual not in header and len(others) == 1 else usual


def parted_by(delimiter: str) -> str:
    """What columns are parted by, in words."""
    return _DELIMITERS.get(delimiter, "commas")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record begins: its number, the line of column names being 0, and its byte in the uncompressed file."""

    record: int
    byte: int


def looks_like(head: bytes) -> str:
    """What kind of file begins with `head`, in words; "" where it may be CSV.

    Example:
        >>> looks_like(b"<!DOCTYPE html><html><head>")
        'a web page'
        >>> looks_like(b"id;video;caption\\n1;a.mp4;A dog, running\\n")
        'a table whose columns are parted by semicolons'
    """
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if b"\0" in head:
        return "a binary file"
    text = head.decode("utf-8-sig", "replace").lstrip()
    if text[:200].lower().startswith(("<!doctype", "<html", "<?xml", "<head")):
        return "a web page"
    if text.startswith(("{", "[")):
        return "JSON"
    lines = text.splitlines()[:20]
    for delimiter, name in _DELIMITERS.items():
        if lines and all(line.count(delimiter) >= max(1, lines[0].count(",")) for line in lines[:-1] or lines):
            return f"a table whose columns are parted by {name}"
    return ""


def records_at(table: Path, places: Sequence[int]) -> list[Place]:
    """The records that begin at (or a byte before) each of `places`, which ascend.

    Line breaks in quotes end no record. Where a record is malformed, and its quotes may not match, counting begins anew
    at the next one.
    """
    found, number, begin, opened = list[Place](), 0, 0, b""
    with _opened(table) as file:
        for place in places:
            count, last = _records(file, place - begin, opened)
            number, begin = number + count, place
            # DuckDB counts some bytes from one.
            is_late = last[-1:] != b"\n" and last[-2:-1] == b"\n"
            opened = last[-1:] if is_late else b""
            found.append(Place(number, place - is_late))
    return found


def no_objects(table: Path) -> Iterator[Place]:
    """The lines of a file of JSON lines that hold no object with a value in it; the first line is 1."""
    byte = 0
    with _opened(table) as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not _is_object(line):
                yield Place(number, byte)
            byte += len(line)


def _is_object(line: bytes) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and any(one is not None for one in value.values())


def _records(file: IO[bytes], size: int, before: bytes) -> tuple[int, bytes]:
    """Records in `before` and the next `size` bytes, and the last two of these.

    With an odd number of quotes, the first line is one that is malformed.
    """
    ends, quotes, first_line, last = 0, before.count(b'"'), -1, b""
    swapped = 0  # ends of lines that are within quotes as counted from the first byte
    for data in _chunks(file, size):
        is_quote, is_end = data == ord('"'), data == ord("\n")
        inside = ((quotes + np.cumsum(is_quote)) & 1).astype(bool)
        if first_line < 0 and is_end.any():
            first_line = quotes + int(is_quote[: int(is_end.argmax())].sum())
        ends += int((is_end & ~inside).sum())
        swapped += int((is_end & inside).sum())
        quotes += int(is_quote.sum())
        last = (last + data[-2:].tobytes())[-2:]
    # Where the first line leaves a quote open, inside is outside behind it.
    return swapped if quotes % 2 and first_line % 2 else ends, last


def _chunks(file: IO[bytes], size: int) -> Iterator[Any]:
    while size > 0 and (data := file.read(min(_CHUNK, size))):
        size -= len(data)
        yield np.frombuffer(data, np.uint8)


@contextmanager
def _opened(table: Path) -> Iterator[IO[bytes]]:
    opened: Any = gzip.open if table.suffix == ".gz" else Path.open
    with opened(table, "rb") as file:
        yield file
