"""Columns: the results of one shard in one modality become a tar, an index and, last, a commit record."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from openuni.errors import CorruptDataError
from openuni.sample import check_key
from openuni.shards import index, layout, results
from openuni.shards.index import Member, Row
from openuni.shards.layout import CommitRecord, FileRecord
from openuni.shards.results import Result

_MAX_SAMPLE = 8 << 30
"""Bytes of one sample in one column; an index that claims more is not believed."""


def commit(
    root: Path, shard: int, column: str, fingerprint: str, samples: Iterable[tuple[str, Result]], run: str
) -> CommitRecord:
    """Write column `column` of `shard` from `(key, result)` pairs, one at a time, and commit it.

    Order of events: tar under a temporary name that carries the run's id, fsync, rename, index the same way, commit
    record last. A kill before the record leaves nothing that counts; the next run writes the same bytes again.
    """
    tar_path = root / layout.tar_name(shard, column)
    tar_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = tar_path.with_name(f".{tar_path.name}.{run}.tmp")
    try:
        rows, tar_record = _write_tar(temporary, shard, column, samples)
        index_bytes = index.encode(rows, column)
        layout.publish(temporary, tar_path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    layout.write_atomic(root / layout.index_name(shard, column), index_bytes, run)
    keys = [row.key for row in rows]
    record = CommitRecord(
        shard=shard,
        column=column,
        fingerprint=fingerprint,
        run=run,
        samples=len(rows),
        present=sum(row.status.present for row in rows),
        first_key=keys[0] if keys else "",
        last_key=keys[-1] if keys else "",
        keys_sha256=index.keys_sha256(keys),
        tar=tar_record,
        index=FileRecord(len(index_bytes), layout.digest(index_bytes)),
    )
    layout.write_atomic(root / layout.commit_name(shard, column), layout.dump_json(record), run)
    return record


def committed(root: Path, shard: int, column: str) -> CommitRecord | None:
    """The commit record of this column, or None if it was never committed."""
    path = root / layout.commit_name(shard, column)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return layout.parse_json(CommitRecord, data, str(path))


def rows(root: Path, shard: int, column: str) -> Sequence[Row]:
    """The committed index rows of one column of one shard, on a local folder."""
    path = root / layout.index_name(shard, column)
    return index.decode(path.read_bytes(), column, str(path))


def read(root: Path, shard: int, column: str, key: str) -> Result:
    """One sample of a committed column on a local folder, hashes checked. Raises KeyError, CorruptDataError."""
    row = next((row for row in rows(root, shard, column) if row.key == key), None)
    if row is None:
        raise KeyError(f"{key} is not in column {column} of shard {shard}")
    return read_stored(root, shard, column, row)


def read_stored(root: Path, shard: int, column: str, row: Row) -> Result:
    """The sample that an index row of a local folder describes, hashes checked. Raises CorruptDataError."""
    path = root / layout.tar_name(shard, column)
    with path.open("rb") as file:
        return read_row(column, row, str(path), lambda begin, end: _range(file, begin, end))


def read_row(column: str, row: Row, path: str, fetch: Callable[[int, int], bytes]) -> Result:
    """All members of one sample in one ranged read. Raises CorruptDataError naming the member that is damaged."""
    begin = min(member.offset for member in row.members)
    end = max(member.offset + member.size for member in row.members)
    if not 0 <= end - begin <= _MAX_SAMPLE:
        raise CorruptDataError(f"{path}: {row.key} claims {end - begin} bytes")
    data = fetch(begin, end)
    members: dict[str, bytes] = {}
    for member in row.members:
        piece = data[member.offset - begin : member.offset - begin + member.size]
        if index.sha256(piece) != member.sha256:
            raise CorruptDataError(
                f"{path}: {row.key}.{member.field} does not match its hash; run `openuni verify --repair`"
            )
        members[member.field] = piece
    field = results.note_field(column)
    if field not in members:
        raise CorruptDataError(f"{path}: {row.key} has no member {field}")
    note = results.decode_note(members.pop(field), f"{path}:{row.key}.{field}", column=column)
    return Result(column, note, members)


def _range(file: IO[bytes], begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


class _Hashing(io.FileIO):
    """A file that hashes what is written to it, so that the tar is not read a second time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        written = super().write(data)
        if written != len(data):
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were written", str(self.name))
        return written


def _write_tar(
    path: Path, shard: int, column: str, samples: Iterable[tuple[str, Result]]
) -> tuple[list[Row], FileRecord]:
    rows: list[Row] = []
    with _Hashing(path) as file:
        with results.open_tar_for_writing(file) as tar:
            for key, result in samples:
                check_key(key)
                fields = {results.note_field(column): results.encode_note(result.note), **result.members}
                # The note first: who streams the tar knows the status and the codec before the payload comes.
                members = tuple(
                    Member(name, results.add_member(tar, f"{key}.{name}", data), len(data), index.sha256(data))
                    for name, data in fields.items()
                )
                note = result.note
                rows.append(Row(key, shard, note.status, members, dict(note.scores), note.record))
        os.fsync(file.fileno())
        return rows, FileRecord(file.tell(), file.sha256.hexdigest())
