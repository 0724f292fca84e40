"""A result: what one stage says of one clip, kept as an atomic file in `work/` until its shard is committed.

The file is a tar: `sha256` with the sums of the other members, as the program `sha256sum` prints them, the note, and
the payload. A bit that flips while it waits for its shard is found before it is committed.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from openuni.errors import CorruptDataError
from openuni.modalities.base import Encoded
from openuni.sample import Record, Status
from openuni.shards import layout
from openuni.storage import LocalStore

_SUMS = "sha256"
_64_BITS = 2**64 - 1
_RESULT = re.compile(r"([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_][A-Za-z0-9_.+-]*)\.tar")


class DamagedResultError(CorruptDataError):
    """A result in `work/` that is not as it was written; its stage makes it again."""

    def __init__(self, what: str, key: str, fingerprint: str) -> None:
        super().__init__(f"{what}; run the same command again")
        self.key = key
        self.fingerprint = fingerprint


@dataclass(frozen=True, slots=True)
class ColumnNote:
    """The JSON member that every sample has in every column: its status, and the numbers that decode the value.

    RGB's also has the fields of the sample's `record` at its top level (`caption`, `frames`, …), with `source_fields`
    only where the source's row says more. `provenance` is there
    only where a network ran: its device and the size of its batches, on which a GPU's last bits depend.
    """

    status: Status
    meta: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    record: Record | None = None
    provenance: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """Members by field name (`depth.mkv`), and the note."""

    column: str
    note: ColumnNote
    members: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def encoded(self) -> Encoded:
        return Encoded(self.members, self.note.meta)


def note_field(column: str) -> str:
    """`json` for RGB, as WebDataset users expect beside an mp4; `depth.json` and so on for the rest."""
    return "json" if column == "rgb" else f"{column}.json"


def encode_note(note: ColumnNote) -> bytes:
    """Canonical JSON: the same note gives the same bytes. Raises ValueError on NaN, which JSON has not."""
    fields = asdict(note)
    record = fields.pop("record")
    if not note.provenance:
        del fields["provenance"]
    if record is not None:
        fields |= record
        if not record["source_fields"]:
            del fields["source_fields"]
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def decode_note(data: bytes, where: str, *, column: str) -> ColumnNote:
    """The note of `column`. Raises CorruptDataError naming `where`."""
    note = layout.parse_json(ColumnNote, data, where)
    return replace(note, record=layout.parse_json(Record, data, where)) if column == "rgb" else note


def hashes(note: ColumnNote) -> tuple[int, ...]:
    """The perceptual hashes in the note of a column of numbers. Raises CorruptDataError where they are none."""
    try:
        return tuple(int(text, 16) & _64_BITS for text in note.meta.get("hashes", ()))
    except (TypeError, ValueError):
        raise CorruptDataError("its hashes are not hexadecimal numbers") from None


def encode_hashes(hashes: Iterable[int]) -> Encoded:
    """How a column of numbers stores hashes: in hexadecimal, for JSON's numbers have no 64 bits."""
    return Encoded({}, {"hashes": [f"{number:016x}" for number in hashes]})


def member_header(name: str, size: int) -> tarfile.TarInfo:
    """The reproducible header of a member of `size` bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode, info.uname, info.gname = 0o644, "openuni", "openuni"
    return info


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append one member with a reproducible header; return the offset of its data."""
    header = tar.offset
    tar.addfile(member_header(name, len(data)), io.BytesIO(data))
    return header + tarfile.BLOCKSIZE


class Writable(Protocol):
    """What a tar is written to."""

    def write(self, data: bytes, /) -> int: ...

    def tell(self) -> int: ...


def open_tar_for_writing(file: Writable) -> tarfile.TarFile:
    """USTAR: one 512-byte header a member, so offsets are known; names are short by `check_key`."""
    return tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[arg-type]


def open_work(root: Path, shard: int) -> None:
    """Make the folder of a shard's results."""
    LocalStore(root).make_folder(layout.work_name(shard))


def close_work(root: Path, shard: int) -> None:
    """Remove a shard's results, once all of them are committed."""
    LocalStore(root).delete_folder(layout.work_name(shard))


def save(root: Path, shard: int, key: str, fingerprint: str, result: Result, run: str) -> None:
    """Write the result file of one clip, atomically. The folder is not synced: a lost result is computed again.

    `open_work` has made the folder. A worker that outlives its killed run until another has committed the shard and
    removed the folder gets FileNotFoundError, and leaves nothing behind.
    """
    members = {note_field(result.column): encode_note(result.note)}
    members |= {name: result.members[name] for name in sorted(result.members)}
    sums = "".join(f"{layout.digest(data)}  {name}\n" for name, data in members.items())
    with (
        LocalStore(root).create(layout.result_name(shard, key, fingerprint), run, scratch=True) as file,
        open_tar_for_writing(file) as tar,
    ):
        for name, data in {_SUMS: sums.encode(), **members}.items():
            add_member(tar, name, data)


def saved(root: Path, shard: int) -> Iterator[tuple[str, str]]:
    """Key and fingerprint of every result of a shard, in no order; nothing is read of them."""
    for name in LocalStore(root).list(layout.work_name(shard)):
        match = _RESULT.fullmatch(name.rpartition("/")[2])
        if match:
            yield match[1], match[2]


def exists(root: Path, shard: int, key: str, fingerprint: str) -> bool:
    return (root / layout.result_name(shard, key, fingerprint)).exists()


def load(root: Path, shard: int, key: str, fingerprint: str) -> Result:
    """The saved result, its sums checked. Raises FileNotFoundError, or DamagedResultError."""
    with _members(root, shard, key, fingerprint) as members:
        column, note = _note(*next(members))
        return Result(column, note, dict(members))


def load_note(root: Path, shard: int, key: str, fingerprint: str) -> ColumnNote:
    """Only the note, its sum checked. Raises as `load` does."""
    with _members(root, shard, key, fingerprint) as members:
        return _note(*next(members))[1]


@contextmanager
def _members(root: Path, shard: int, key: str, fingerprint: str) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Name and bytes of each member, the note first, each checked as it is read; nothing is extracted to disk."""
    path = root / layout.result_name(shard, key, fingerprint)
    try:
        with (
            LocalStore(root).open(layout.result_name(shard, key, fingerprint)) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            yield _checked(tar, file.size)
    except (tarfile.TarError, CorruptDataError) as error:
        raise DamagedResultError(f"{path} is not as it was written ({error})", key, fingerprint) from error


def _checked(tar: tarfile.TarFile, size: int) -> Iterator[tuple[str, bytes]]:
    name, data = _next(tar, size)
    if name != _SUMS:
        raise CorruptDataError("its sums are missing")
    for line in data.decode("ascii", "replace").removesuffix("\n").split("\n"):
        name, data = _next(tar, size)
        if line != f"{layout.digest(data)}  {name}":
            raise CorruptDataError(f"{name} does not match its sum")
        yield name, data


def _next(tar: tarfile.TarFile, size: int) -> tuple[str, bytes]:
    info = tar.next()
    if info is None or not info.isreg() or not 0 <= info.size <= size - info.offset_data:
        raise CorruptDataError("it ends early")
    file = tar.extractfile(info)
    if file is None:
        raise CorruptDataError("it ends early")
    with file:
        return info.name, file.read()


def _note(name: str, data: bytes) -> tuple[str, ColumnNote]:
    """Column and note out of the first member."""
    column = layout.check_column(name.removesuffix(".json")) if "." in name else "rgb"
    return column, decode_note(data, name, column=column)
