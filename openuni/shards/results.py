"""A result: what one stage says of one clip, kept as an atomic file in `work/` until its shard is committed."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from openuni.errors import CorruptDataError
from openuni.modalities.base import Encoded
from openuni.sample import Record, Status
from openuni.shards import layout


@dataclass(frozen=True, slots=True)
class ColumnNote:
    """The JSON member that every sample has in every column: its status, and the numbers that decode the value.

    RGB's also has the fields of the sample's `record` at its top level (`caption`, `frames`, …).
    """

    status: Status
    meta: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    record: Record | None = None


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
    if record is not None:
        fields |= record
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def decode_note(data: bytes, where: str, *, column: str) -> ColumnNote:
    """The note of `column`. Raises CorruptDataError naming `where`."""
    note = layout.parse_json(ColumnNote, data, where)
    return replace(note, record=layout.parse_json(Record, data, where)) if column == "rgb" else note


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


def open_tar_for_writing(file: IO[bytes]) -> tarfile.TarFile:
    """USTAR: one 512-byte header a member, so offsets are known; names are short by `check_key`."""
    return tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)


def open_work(root: Path, shard: int) -> None:
    """Make the folder of a shard's results."""
    (root / layout.work_name(shard)).mkdir(parents=True, exist_ok=True)


def close_work(root: Path, shard: int) -> None:
    """Remove a shard's results, once all of them are committed."""
    shutil.rmtree(root / layout.work_name(shard), ignore_errors=True)


def save(root: Path, shard: int, key: str, fingerprint: str, result: Result, run: str) -> None:
    """Write the result file of one clip, atomically. The folder is not synced: a lost result is computed again.

    `open_work` has made the folder. A worker that outlives its killed run until another has committed the shard and
    removed the folder gets FileNotFoundError, and leaves nothing behind.
    """
    path = root / layout.result_name(shard, key, fingerprint)
    temporary = layout.temporary_name(path, run)
    try:
        with temporary.open("wb") as file:
            with open_tar_for_writing(file) as tar:
                add_member(tar, note_field(result.column), encode_note(result.note))
                for name in sorted(result.members):
                    add_member(tar, name, result.members[name])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def exists(root: Path, shard: int, key: str, fingerprint: str) -> bool:
    return (root / layout.result_name(shard, key, fingerprint)).exists()


def load(root: Path, shard: int, key: str, fingerprint: str) -> Result:
    """The saved result. Raises FileNotFoundError, or CorruptDataError if the file is not ours."""
    path = root / layout.result_name(shard, key, fingerprint)
    with open_result(path) as tar:
        column, note = read_note(tar, path)
        return Result(column, note, {info.name: read_member(tar, info) for info in tar if info.offset > 0})


def load_note(root: Path, shard: int, key: str, fingerprint: str) -> ColumnNote:
    """Only the note, which is the first member."""
    path = root / layout.result_name(shard, key, fingerprint)
    with open_result(path) as tar:
        return read_note(tar, path)[1]


@contextmanager
def open_result(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except tarfile.TarError as error:
        raise CorruptDataError(f"{path} is not a whole result file ({error}); delete it and run again") from error


def read_note(tar: tarfile.TarFile, path: Path) -> tuple[str, ColumnNote]:
    """Column and note of an open result, whose first member is the note."""
    info = tar.next()
    if info is None or not info.name.endswith("json"):
        raise CorruptDataError(f"{path} has no note; delete it and run again")
    column = info.name.removesuffix(".json") if "." in info.name else "rgb"
    return column, decode_note(read_member(tar, info), str(path), column=column)


def read_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """The bytes of a regular member; nothing is ever extracted to disk."""
    file = tar.extractfile(info)
    if file is None:
        raise CorruptDataError(f"{info.name!r} is not a regular file")
    with file:
        return file.read()
