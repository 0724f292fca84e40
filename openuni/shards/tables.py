"""Parquet that may come from anywhere: what a file claims is compared with what it is before it takes memory.

Read in one thread: pyarrow's own let go of a Python file only after the table is ours, and where the interpreter has
begun to end by then, the process aborts with everything done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openuni.errors import CorruptDataError

_MAGIC = b"PAR1"
_MOST_FOOTER = 64 << 20
"""Bytes of metadata; a plan of 36 million clips has a few."""
_SPARE = 160 << 20
"""Bytes of a group of two thousand rows of a plan whose source fields are as large as can be, and some."""
_MOST_ROW = 16 << 10
"""Bytes that rows may have on average, beyond what is spare: the longest captions are far below."""
_MOST_GROUP = 1 << 30
_BATCH = 1024
_LATER = {b"later": b"true"}
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, ValueError, KeyError)
"""What pyarrow raises on bytes that are not as it wrote them."""


def later(name: str, kind: pa.DataType) -> pa.Field:
    """A field that tables of older versions do not have, and those that would have nothing in it: there it is null."""
    return pa.field(name, kind, metadata=_LATER)


def having(schema: pa.Schema, *, later: bool) -> pa.Schema:
    """The schema as it is written, with or without the fields that came later."""
    return pa.schema([field.remove_metadata() for field in schema if later or not _is_later(field)], schema.metadata)


def open_table(file: BinaryIO, schema: pa.Schema, where: str) -> pq.ParquetFile:
    """A Parquet file that has the fields of `schema`. Raises CorruptDataError naming `where`.

    Texts stay in their dictionaries until `read_group` or `rows` have looked at them: one long value that is named a
    million times is a few kilobytes in the file.
    """
    size = file.seek(0, 2)
    file.seek(max(size - 8, 0))
    tail = file.read(8)
    footer = int.from_bytes(tail[:4], "little")
    if len(tail) < 8 or tail[4:] != _MAGIC or not footer <= min(size - 8, _MOST_FOOTER):
        raise CorruptDataError(f"{where} is not a Parquet file, or is cut short")
    file.seek(0)
    try:
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        metadata = None
        if any(map(_is_later, schema)):  # pyarrow refuses names that are not there
            metadata = pq.ParquetFile(file, pre_buffer=False).metadata
            there = metadata.schema.to_arrow_schema().names
            texts = [name for name in texts if name in there]
            file.seek(0)
        table = pq.ParquetFile(file, metadata=metadata, read_dictionary=texts, pre_buffer=False)
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        found = table.schema_arrow
    except _DAMAGE as error:
        raise _damaged(where, error) from None
    if any(not 0 <= group.total_byte_size <= min(_allowed(group.num_rows), _MOST_GROUP) for group in groups):
        raise CorruptDataError(f"{where} claims more bytes than such a table ever has")
    if sum(group.num_rows for group in groups) != table.metadata.num_rows:
        raise CorruptDataError(f"{where} disagrees with itself on its number of rows")
    for field in schema:
        if found.get_field_index(field.name) < 0 and _is_later(field):
            continue
        if found.get_field_index(field.name) < 0 or _type(found.field(field.name)) != field.type:
            raise CorruptDataError(f"{where} has no column {field.name} of type {field.type}: another program wrote it")
    return table


def rows(file: BinaryIO, schema: pa.Schema, where: str) -> Iterator[dict[str, Any]]:
    """Each row as a dictionary, in bounded memory. Raises CorruptDataError naming `where`."""
    table = open_table(file, schema, where)
    seen = size = 0
    try:
        for batch in table.iter_batches(_BATCH, columns=schema.names, use_threads=False):
            seen, size = seen + len(batch), size + _unpacked(batch)
            if size > _allowed(seen):
                raise CorruptDataError(f"{where} holds texts longer than any of ours")
            yield from batch.to_pylist()
    except _DAMAGE as error:
        raise _damaged(where, error) from None


def read(file: BinaryIO, schema: pa.Schema, where: str) -> pa.Table:
    """The whole table, with the fields of `schema` and no others. Raises CorruptDataError naming `where`."""
    table = open_table(file, schema, where)
    groups = [read_group(table, number, where, schema.names) for number in range(table.num_row_groups)]
    try:
        return pa.concat_tables([_with_later(group, schema) for group in groups]) if groups else schema.empty_table()
    except _DAMAGE as error:
        raise _damaged(where, error) from None


def read_group(table: pq.ParquetFile, number: int, where: str, columns: list[str] | None = None) -> pa.Table:
    """One row group of `open_table`'s, or columns of it, in bounded memory. Raises CorruptDataError naming `where`."""
    try:
        group = table.read_row_group(number, columns, use_threads=False)
        size = sum(_unpacked(batch) for batch in group.to_batches())
    except _DAMAGE as error:
        raise _damaged(where, error) from None
    if size > _allowed(len(group)):
        raise CorruptDataError(f"{where} holds texts longer than any of ours")
    return group


def _with_later(group: pa.Table, schema: pa.Schema) -> pa.Table:
    for number, field in enumerate(schema):
        if field.name not in group.column_names and _is_later(field):
            group = group.add_column(number, field, pa.nulls(len(group), field.type))
    return group.cast(schema)


def _is_later(field: pa.Field) -> bool:
    return (field.metadata or {}).keys() >= _LATER.keys()


def _unpacked(batch: pa.RecordBatch) -> int:
    """Bytes of a batch's texts once each row has its own, and of the rest."""
    size = 0
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            size += pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
        else:
            size += column.nbytes
    return size


def _allowed(count: int) -> int:
    return _SPARE + _MOST_ROW * count


def _type(field: pa.Field) -> pa.DataType:
    return field.type.value_type if pa.types.is_dictionary(field.type) else field.type


def _damaged(where: str, error: BaseException) -> CorruptDataError:
    what = str(error).partition("\n")[0] or type(error).__name__
    return CorruptDataError(f"{where} is damaged: {what}")
