"""Columns: the results of one shard in one modality become a tar, an index and, last, a commit record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from openuni.errors import CorruptDataError
from openuni.sample import check_key
from openuni.shards import catalog, index, layout, results
from openuni.shards.index import Member, Row
from openuni.shards.layout import CommitRecord, FileRecord
from openuni.shards.results import Result
from openuni.storage import LocalStore


def commit(
    root: Path,
    shard: int,
    column: str,
    fingerprint: str,
    samples: Iterable[tuple[str, Result]],
    run: str,
    guard: Callable[[], None] = lambda: None,
) -> CommitRecord:
    """Write column `column` of `shard` from `(key, result)` pairs, one at a time, and commit it.

    Order of events: tar under a temporary name that carries the run's id, fsync, rename, index the same way, commit
    record last. A kill before the record leaves nothing that counts; the next run writes the same bytes again.
    `guard` is called before each rename and raises where `run` may no longer write (`lock.check`): a worker outlives
    its killed driver by seconds, and must not replace what a newcomer has committed.
    """
    store, naming = LocalStore(root), layout.naming_of(root)
    with store.create(layout.tar_name(shard, column, naming), run) as file:
        rows, tar_record = _write_tar(file, shard, column, samples)
        index_bytes = index.encode(rows, column)
        guard()
    guard()
    store.put(layout.index_name(shard, column, naming), index_bytes, run)
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
    guard()
    catalog.retire(root)
    store.put(layout.commit_name(shard, column, naming), layout.dump_checked(record), run)
    return record


def committed(root: Path, shard: int, column: str) -> CommitRecord | None:
    """The commit record of this column, or None if it was never committed. Raises CorruptDataError."""
    return catalog.commit_record(LocalStore(root), layout.commit_name(shard, column, layout.naming_of(root)))


def uncommit(root: Path, shard: int, column: str) -> None:
    """Remove the commit record: the column of this shard no longer exists, and the next run makes it again."""
    catalog.retire(root)
    LocalStore(root).delete(layout.commit_name(shard, column, layout.naming_of(root)))


def unpack(root: Path, shard: int, column: str, fingerprint: str, without: Container[str], run: str) -> int:
    """Turn what is whole of a committed column back into results in `work/`, but for the keys `without`.

    Afterwards `uncommit` reopens the column, and a build makes only what is not there. Returns the number of samples
    that were taken over: none where the record or the index is damaged, or the column is another expert's.
    """
    try:
        record = committed(root, shard, column)
        if record is None or record.fingerprint != fingerprint:
            return 0
        path = root / layout.index_name(shard, column, layout.naming_of(root))
        if not layout.is_file(path, record.index):
            return 0
        stored = rows(root, shard, column)
    except (CorruptDataError, FileNotFoundError):
        return 0
    taken = 0
    for row in stored:
        if row.key in without:
            continue
        try:
            result = read_stored(root, shard, column, row)
        except (CorruptDataError, FileNotFoundError):
            continue
        results.save(root, shard, row.key, fingerprint, result, run)
        taken += 1
    return taken


def rows(root: Path, shard: int, column: str) -> Sequence[Row]:
    """The committed index rows of one column of one shard, on a local folder. Raises CorruptDataError."""
    name = layout.index_name(shard, column, layout.naming_of(root))
    try:
        data = LocalStore(root).read(name, at_most=index.MOST_BYTES)
    except FileNotFoundError:
        raise CorruptDataError(f"{root / name} is missing; run `openuni verify --repair`") from None
    return index.decode(data, column, str(root / name))


def read(root: Path, shard: int, column: str, key: str) -> Result:
    """One sample of a committed column on a local folder, hashes checked. Raises KeyError, CorruptDataError."""
    row = next((row for row in rows(root, shard, column) if row.key == key), None)
    if row is None:
        raise KeyError(f"{key} is not in column {column} of shard {shard}")
    return read_stored(root, shard, column, row)


def read_stored(root: Path, shard: int, column: str, row: Row) -> Result:
    """The sample that an index row of a local folder describes, hashes checked. Raises CorruptDataError."""
    store, name = LocalStore(root), layout.tar_name(shard, column, layout.naming_of(root))
    return read_row(column, row, store.where(name), lambda begin, end: store.read_range(name, begin, end - begin))


def sha256_of(row: Row) -> str:
    """A name for what a sample has in a tar: the SHA-256 of its members' names, places and hashes."""
    begin = min((member.offset for member in row.members), default=0)
    said = hashlib.sha256()
    for member in row.members:
        said.update(f"{member.field} {member.offset - begin} {member.size} ".encode() + member.sha256)
    return said.hexdigest()


def read_row(column: str, row: Row, path: str, fetch: Callable[[int, int], bytes]) -> Result:
    """All members of one sample in one ranged read. Raises CorruptDataError naming the member that is damaged."""
    begin = min(member.offset for member in row.members)
    end = max(member.offset + member.size for member in row.members)
    if not 0 <= end - begin <= index.MOST_SAMPLE:
        raise CorruptDataError(f"{path}: {row.key} claims {end - begin} bytes")
    try:
        data = fetch(begin, end)
    except FileNotFoundError:
        raise CorruptDataError(f"{path} is missing; run `openuni verify --repair`") from None
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


class _Hashing:
    """Passes on what is written and hashes it, so that the tar is not read a second time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()


def _write_tar(
    file: BinaryIO, shard: int, column: str, samples: Iterable[tuple[str, Result]]
) -> tuple[list[Row], FileRecord]:
    rows: list[Row] = []
    hashing = _Hashing(file)
    with results.open_tar_for_writing(hashing) as tar:
        for key, result in samples:
            check_key(key)
            fields = {results.note_field(column): results.encode_note(result.note), **result.members}
            # The note first: who streams the tar knows the status and the codec before the payload comes.
            members = tuple(
                Member(name, results.add_member(tar, f"{key}.{name}", data), len(data), index.sha256(data))
                for name, data in fields.items()
            )
            note = result.note
            hashes = results.hashes(note) if layout.holds_numbers(column) else ()
            rows.append(Row(key, shard, note.status, members, dict(note.scores), note.record, hashes))
    return rows, FileRecord(file.tell(), hashing.sha256.hexdigest())
