"""What DuckDB says of a table that it cannot read, as one sentence that names the file and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

from openuni.choosing import in_words
from openuni.errors import PlanError
from openuni.sources.records import BROKEN_GZIP, head_of, looks_like

_REMEDIES = (
    (
        r"reached an invalid state",
        "some lines end in CR LF and others in LF alone, which DuckDB does not read; let all end in LF "
        "(sed -i 's/\\r$//' FILE)",
    ),
    (r"CRC check failed|Incorrect length", "its checksum is not that of what it holds; download or compress it again"),
    (r"GZIP stream", "it is no gzip file, or not all of one; download or compress it again"),
    (
        r"[Mm]agic bytes|too small to be a Parquet",
        "it is no Parquet file, or not all of one; download or write it again",
    ),
    (r"recursion depth", "objects in it are nested more than 128 deep; write one flat object on each line"),
    (
        r"maximum_object_size",
        "it has an object of more than 16 MiB; write one object on each line, and leave such objects out",
    ),
    (r"JSON", "it is not JSON lines; write one object on each line"),
)
"""What is in DuckDB's words, and ours; the first that is found counts."""


def unreadable(table: Path, error: Exception) -> PlanError:
    """The error for a table, a file or a folder of files, that DuckDB or gzip could not read.

    Example:
        >>> str(unreadable(Path("a.csv.gz"), OSError("IO Error: Unexpected end of GZIP stream: a.csv.gz")))
        'a.csv.gz cannot be read: it is no gzip file, or not all of one; download or compress it again'
    """
    said = str(error)
    named = re.search(re.escape(str(table)) + r"[^\s'\"]*", said)
    file = Path(named[0].rstrip(":,;")) if named else table
    if not file.exists():
        file = table
    if isinstance(error, BROKEN_GZIP):
        said = f"GZIP stream: {error}"
    if looks := _looks(file):
        return PlanError(f"{file} cannot be read: it looks like {looks}; download it again, or name it as what it is")
    why = next((ours for theirs, ours in _REMEDIES if re.search(theirs, said)), None)
    return PlanError(
        f"{file} cannot be read: {why or f'it is damaged ({in_words(error)}); download or write it again'}"
    )


def _looks(file: Path) -> str:
    """What kind of file it seems to be, where it is none of what its name says."""
    if not file.is_file() or file.suffix == ".parquet":
        return ""
    try:
        looks = looks_like(head_of(file))
    except BROKEN_GZIP:
        return ""
    is_json = {".jsonl", ".ndjson"} & {*file.suffixes}
    return "" if (is_json and looks == "JSON") or looks.startswith("a table") else looks
