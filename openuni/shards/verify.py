"""Does a data set still hold what was committed? Every hash, member, frame count and value, shard by shard."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openuni import modalities
from openuni.errors import OpenUniError
from openuni.sample import Record
from openuni.shards import columns, index, layout, results
from openuni.shards.index import Row
from openuni.shards.layout import FileRecord, Manifest


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as committed. `key` is empty where no single clip is to blame."""

    shard: int
    column: str
    key: str
    file: str
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """One column of one shard: what was looked at, and what was wrong."""

    shard: int
    column: str
    samples: int
    present: int
    bytes: int
    problems: tuple[Problem, ...]


def manifest(root: Path) -> Manifest:
    """The manifest of a local data set. Raises PlanError or CorruptDataError."""
    path = root / layout.MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise OpenUniError(f"{root} is not a data set: it has no {layout.MANIFEST}") from None
    return layout.parse_json(Manifest, data, str(path))


def verify_column(root: Path, shard: int, column: str, *, decode: bool = True) -> Checked:
    """Check one committed column of one shard: its commit record, index and tar, and unless told not to, every value.

    The tar's own headers must say what the index says (names, order, offsets, sizes), so that a plain WebDataset
    reader and ours see the same samples.
    """
    problems: list[Problem] = []

    def blame(name: str, what: str, key: str = "") -> None:
        problems.append(Problem(shard, column, key, name, what))

    try:
        record = columns.committed(root, shard, column)
        if record is None:
            blame(layout.commit_name(shard, column), "is missing: the column was never committed, or lost its record")
            return Checked(shard, column, 0, 0, 0, tuple(problems))
        if record.fingerprint != manifest(root).columns.get(column):
            blame(
                layout.commit_name(shard, column), f"was made by {record.fingerprint}, not by what the manifest names"
            )
        index_name, tar_name = layout.index_name(shard, column), layout.tar_name(shard, column)
        if _differs(root / index_name, record.index):
            blame(index_name, "does not match its commit record")
            return Checked(shard, column, record.samples, 0, 0, tuple(problems))
        rows = columns.rows(root, shard, column)
        if index.keys_sha256([row.key for row in rows]) != record.keys_sha256:
            blame(index_name, "has other keys than its commit record")
        rgb = {row.key: row.record for row in columns.rows(root, shard, "rgb")}
        if list(rgb) != [row.key for row in rows]:
            blame(index_name, "has other keys, or another order, than RGB")
        damaged = _differs(root / tar_name, record.tar)
        if damaged:
            blame(tar_name, damaged)
        for key, field, what in _tar_problems(root / tar_name, column, rows):
            blame(f"{tar_name}:{key}.{field}" if key else tar_name, what, key)
        if decode:
            blamed = {problem.key for problem in problems}
            for row in rows:
                if row.key not in blamed and (what := _value_problem(root, shard, column, row, rgb.get(row.key))):
                    blame(f"{tar_name}:{row.key}", what, row.key)
    except (OpenUniError, OSError) as error:
        blame(layout.commit_name(shard, column), str(error))
        return Checked(shard, column, 0, 0, 0, tuple(problems))
    present = sum(row.status.present for row in rows)
    return Checked(shard, column, len(rows), present, record.tar.size, tuple(problems))


def _differs(path: Path, expected: FileRecord) -> str:
    """What is wrong with a file as a whole, or nothing."""
    try:
        found = layout.file_record(path)
    except FileNotFoundError:
        return "is missing"
    if found.size != expected.size:
        return f"has {found.size:,} bytes instead of {expected.size:,}"
    return "" if found == expected else "does not match its hash"


def _tar_problems(path: Path, column: str, rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """(key, field, what) where the tar's members are not those of the index."""
    wanted = [(row.key, member) for row in rows for member in row.members]
    try:
        with tarfile.open(path, "r:") as tar:
            for key, member in wanted:
                info = tar.next()
                if info is None:
                    yield key, member.field, "is missing: the tar ends before it"
                    return
                place = (f"{key}.{member.field}", member.offset, member.size)
                if (info.name, info.offset_data, info.size) != place or not info.isreg():
                    yield key, member.field, f"is not where the index says (the tar has {info.name!r} there)"
                    return
                if index.sha256(results.read_member(tar, info)) != member.sha256:
                    yield key, member.field, "does not match its hash"
            if tar.next() is not None:
                yield "", "", "has members that the index does not know"
    except (tarfile.TarError, OSError) as error:
        yield "", "", f"cannot be read to its end: {error}"


def _value_problem(root: Path, shard: int, column: str, row: Row, record: Record | None) -> str:
    """What is wrong with a stored value, or nothing."""
    try:
        stored = columns.read_stored(root, shard, column, row)
        if stored.note.status != row.status:
            return "its note and the index disagree on its status"
        if not row.status.present:
            return "is absent but has a payload" if stored.members else ""
        modality = modalities.get(column)
        value = modality.decode(stored.encoded)
        modality.check(value)
        if record is None:
            return "has no record in RGB's index"
        expected = (record.frames, record.height, record.width)
        found = modality.shape(value)
        return "" if found == expected else f"is {found} (frames, height, width), RGB is {expected}"
    except OpenUniError as error:
        return str(error)
