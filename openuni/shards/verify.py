"""Does a dataset still hold what was committed? Every hash, member, frame count and value, shard by shard."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openuni import modalities
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.printable import count
from openuni.sample import Record
from openuni.shards import catalog, columns, index, layout, plan, results
from openuni.shards.index import Row
from openuni.shards.layout import FileRecord, Manifest
from openuni.shards.plan import Generation
from openuni.storage import DOCUMENT, LocalStore, open_regular


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
    """The manifest of a local dataset. Raises PlanError or CorruptDataError."""
    path = root / layout.MANIFEST
    try:
        data = LocalStore(root).read(layout.MANIFEST, at_most=DOCUMENT)
    except (FileNotFoundError, NotADirectoryError):
        raise OpenUniError(f"{root} is not a dataset: it has no {layout.MANIFEST}") from None
    return layout.parse_checked(Manifest, data, str(path))


_CLIP = 1 << 20
"""Bytes that no clip takes in a plan, its caption included."""


def verify_plan(root: Path) -> list[Problem]:
    """What is wrong with the plan; a dataset that was not built from videos has none."""
    problems = []
    for number, generation in enumerate(plan.generations(manifest(root))):
        name = plan.name_of(number)
        try:
            if (root / name).stat().st_size > DOCUMENT + generation.clips * _CLIP:  # a hole of 256 GiB takes minutes
                what = f"is too large for {count(generation.clips, 'clip')}"
            elif layout.file_record(root / name).sha256 == generation.plan_sha256:
                what = _plan_problem(root / name, generation)
            else:
                what = "is not the plan that the manifest was written for"
        except FileNotFoundError:
            what = "is missing"
        except CorruptDataError:
            what = "is not a regular file"
        if what:
            problems.append(Problem(-1, "", "", name, f"{what}; the columns can be read, but no build can go on"))
    return problems


def _plan_problem(path: Path, generation: Generation) -> str:
    """What is wrong with a plan whose hash is right, or nothing."""
    try:
        made = plan.Plan(path)
    except PlanError as error:
        return f"cannot be read: {error}"
    if (made.clips, made.shards) == (generation.clips, generation.shards):
        return ""
    said = f"{generation.clips:,} and {generation.shards:,}"
    return f"has {made.clips:,} clips in {made.shards:,} shards, where {layout.MANIFEST} says {said}"


def verify_catalog(root: Path) -> list[Problem]:
    """What is wrong with a catalog that readers would believe; one that is missing or stale they pass over."""
    store = LocalStore(root)
    made = manifest(root)
    for record in catalog.read(store, made, layout.digest(store.read(layout.MANIFEST, at_most=DOCUMENT))) or ():
        name = layout.commit_name(record.shard, record.column, layout.naming(made))
        try:
            own = catalog.commit_record(store, name)
        except CorruptDataError:
            continue  # the column's own check says so
        if own is None or replace(own, run="") != record:
            what = "is not what the commit record says; run `openuni index` on the dataset"
            return [Problem(-1, "", "", f"{catalog.TABLE}: {name}", what)]
    return []


def verify_column(root: Path, shard: int, column: str, *, decode: bool = True) -> Checked:
    """Check one committed column of one shard: its commit record, index and tar, and unless told not to, every value.

    Every byte of the tar must be what the index and this program's own headers make it, so that a plain WebDataset
    reader and ours see the same samples, and a damaged byte is put down to its clip.
    """
    problems: list[Problem] = []

    def blame(name: str, what: str, key: str = "") -> None:
        problems.append(Problem(shard, column, key, name, what))

    rows: Sequence[Row] = ()
    size = 0
    naming = layout.naming_of(root)
    commit_name, index_name = layout.commit_name(shard, column, naming), layout.index_name(shard, column, naming)
    tar_name = layout.tar_name(shard, column, naming)
    try:
        record = columns.committed(root, shard, column)
        if record is None:
            blame(commit_name, "is missing: the column was never committed, or lost its record")
            return Checked(shard, column, 0, 0, 0, tuple(problems))
        size = record.tar.size
        if record.fingerprint != manifest(root).columns.get(column):
            blame(commit_name, f"was made by {record.fingerprint}, not by what the manifest names")
        if differs := _differs(root / index_name, record.index):
            blame(index_name, f"{differs}: clips {record.first_key} to {record.last_key} cannot be found")
            return Checked(shard, column, record.samples, 0, size, tuple(problems))
        rows = columns.rows(root, shard, column)
        if (len(rows), index.keys_sha256([row.key for row in rows])) != (record.samples, record.keys_sha256):
            blame(commit_name, "does not tell of the samples that its index has")
        rgb = {row.key: row.record for row in columns.rows(root, shard, "rgb")}
        if list(rgb) != [row.key for row in rows]:
            blame(index_name, "has other keys, or another order, than RGB")
        found = list(_tar_problems(root / tar_name, column, rows))
        for key, field, what in found:
            blame(f"{tar_name}:{key}.{field}" if key else tar_name, what, key)
        if not found and (differs := _differs(root / tar_name, record.tar)):
            blame(tar_name, differs)
        blamed = {problem.key for problem in problems}
        for row in rows:
            if decode and row.key not in blamed:
                what = _value_problem(root, shard, column, row, rgb.get(row.key))
                if what:
                    blame(f"{tar_name}:{row.key}", what, row.key)
    except (OpenUniError, OSError) as error:
        blame(commit_name, str(error))
    present = sum(row.status.present for row in rows)
    return Checked(shard, column, len(rows), present, size, tuple(problems))


def _differs(path: Path, expected: FileRecord) -> str:
    """What is wrong with a file as a whole, or nothing."""
    try:
        with open_regular(path) as file:
            if file.size != expected.size:
                return f"has {file.size:,} bytes instead of {expected.size:,}"
        return "" if layout.file_record(path) == expected else "does not match its hash"
    except FileNotFoundError:
        return "is missing"
    except CorruptDataError:
        return "is not a regular file"


def _tar_problems(path: Path, column: str, rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """(key, field, what) of each sample's first member that the tar does not hold as the index says.

    The tar is not parsed but compared with what must be there: header, data, zeros up to the next block.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        yield "", "", "is missing"
        return
    except CorruptDataError:
        yield "", "", "is not a regular file"
        return
    with file:
        for row in rows:
            for member in row.members:
                padding = -member.size % tarfile.BLOCKSIZE
                header = results.member_header(f"{row.key}.{member.field}", member.size).tobuf(tarfile.USTAR_FORMAT)
                file.seek(member.offset - len(header))
                if file.read(len(header)) != header:
                    yield row.key, member.field, "has a damaged header in the tar, or is missing from it"
                    break
                if index.sha256(file.read(member.size)) != member.sha256 or file.read(padding) != bytes(padding):
                    yield row.key, member.field, "does not match its hash"
                    break


def _value_problem(root: Path, shard: int, column: str, row: Row, record: Record | None) -> str:
    """What is wrong with a stored value, or nothing."""
    try:
        stored = columns.read_stored(root, shard, column, row)
        if stored.note.status != row.status:
            return "its note and the index disagree on its status"
        if not row.status.present:
            return "is absent but has a payload" if stored.members else ""
        if layout.holds_numbers(column):
            same = (dict(stored.note.scores), results.hashes(stored.note)) == (row.scores, row.hashes)
            return "" if same else "its note and the index disagree on its numbers"
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
