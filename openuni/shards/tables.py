"""Parquet that may come from anywhere: what a file claims is compared with what it is before it takes memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from openuni.errors import CorruptDataError

_MAGIC = b"PAR1"
_MOST_FOOTER = 64 << 20
"""Bytes of metadata; a plan of 36 million clips has a few."""
_MOST_GROUP = 1 << 30
"""Bytes that a row group may unpack to."""
_BATCH = 256
"""Rows that are unpacked at once: a dictionary can make one long value into a million."""
_MOST_UNPACKED = 2 << 30


def open_table(file: BinaryIO, schema: pa.Schema, where: str) -> pq.ParquetFile:
    """A Parquet file that has the fields of `schema`. Raises CorruptDataError naming `where`."""
    size = file.seek(0, 2)
    file.seek(max(size - 8, 0))
    tail = file.read(8)
    footer = int.from_bytes(tail[:4], "little")
    if len(tail) < 8 or tail[4:] != _MAGIC or not footer <= min(size - 8, _MOST_FOOTER):
        raise CorruptDataError(f"{where} is not a Parquet file, or is cut short")
    file.seek(0)
    try:
        table = pq.ParquetFile(file)
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        found = table.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, ValueError, KeyError) as error:
        raise CorruptDataError(f"{where} is damaged: {_first_line(error)}") from None
    if any(not 0 <= group.total_byte_size <= _MOST_GROUP or group.num_rows < 0 for group in groups):
        raise CorruptDataError(f"{where} claims more bytes than such a table ever has")
    if sum(group.num_rows for group in groups) != table.metadata.num_rows:
        raise CorruptDataError(f"{where} disagrees with itself on its number of rows")
    for field in schema:
        if found.get_field_index(field.name) < 0 or found.field(field.name).type != field.type:
            raise CorruptDataError(f"{where} has no column {field.name} of type {field.type}: another program wrote it")
    return table


def rows(file: BinaryIO, schema: pa.Schema, where: str) -> Iterator[dict[str, Any]]:
    """Each row as a dictionary, in bounded memory. Raises CorruptDataError naming `where`."""
    table = open_table(file, schema, where)
    unpacked = 0
    try:
        for batch in table.iter_batches(_BATCH, columns=schema.names):
            unpacked += batch.nbytes
            if unpacked > _MOST_UNPACKED:
                raise CorruptDataError(f"{where} unpacks to more than {_MOST_UNPACKED >> 30} GiB")
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, ValueError) as error:
        raise CorruptDataError(f"{where} is damaged: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
