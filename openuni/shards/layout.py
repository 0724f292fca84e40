"""Where things lie in a dataset folder, and how a file comes to lie there: whole, or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from openuni import files
from openuni.errors import CorruptDataError
from openuni.sample import SCHEMA_VERSION

MANIFEST = "dataset.json"
PLAN = "plan.parquet"
FAILURES = "failures.parquet"
CARD = "README.md"
LOCK = "run.lock"
SKIPPED = "skipped.parquet"
LOG = "log.jsonl"
PROGRESS = "progress.json"
WORK = "work"

T = TypeVar("T")


def tar_name(shard: int, column: str) -> str:
    return f"shards/{shard:06d}.{column}.tar"


def index_name(shard: int, column: str) -> str:
    return f"index/{shard:06d}.{column}.parquet"


def commit_name(shard: int, column: str) -> str:
    return f"commits/{shard:06d}.{column}.json"


def work_name(shard: int) -> str:
    return f"{WORK}/{shard:06d}"


def result_name(shard: int, key: str, fingerprint: str) -> str:
    """One clip's unfinished result; the fingerprint keeps results of two versions of an expert apart."""
    return f"{work_name(shard)}/{key}.{fingerprint}.tar"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file, as the commit record remembers them."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """Written last: from then on the column of this shard exists. `keys_sha256` is over its keys, one a line."""

    shard: int
    column: str
    fingerprint: str
    run: str
    samples: int
    present: int
    first_key: str
    last_key: str
    keys_sha256: str
    tar: FileRecord
    index: FileRecord
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Manifest:
    """`dataset.json`: what the folder holds and how it was made. `columns` maps a column to its expert's fingerprint.

    `configuration` is the part that may not change between runs; `skipped` counts source rows that became no clip.
    """

    configuration: Mapping[str, Any]
    columns: Mapping[str, str]
    clips: int
    shards: int
    plan_sha256: str
    skipped: Mapping[str, int] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
    openuni: str = ""


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Making one costs more than using it; a dataset has a commit record for each of its files."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def parse_json(kind: type[T], data: bytes, where: str) -> T:
    """`data` as the dataclass `kind`. Raises CorruptDataError naming the file."""
    try:
        return _adapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise CorruptDataError(f"{where} is not a valid {kind.__name__}: {place}: {first['msg']}") from None


def dump_json(value: Any) -> bytes:
    return _adapter(type(value)).dump_json(value, indent=1) + b"\n"


def seal(value: Any) -> bytes:
    """`value` as JSON with a `seal` over the rest, for the documents whose own hash no other file has."""
    fields = _adapter(type(value)).dump_python(value, mode="json")
    return json.dumps(fields | {"seal": _seal(value)}, indent=1, ensure_ascii=False).encode() + b"\n"


def parse_sealed(kind: type[T], data: bytes, where: str) -> T:
    """`data` as the dataclass `kind`. Raises CorruptDataError naming the file whose seal does not match the rest."""
    value = parse_json(kind, data, where)
    if json.loads(data).get("seal") != _seal(value):
        raise CorruptDataError(f"{where} is not as it was written (its seal does not match); run `openuni verify`")
    return value


def _seal(value: Any) -> str:
    return digest(_adapter(type(value)).dump_json(value))


@contextmanager
def temporary_file(path: Path, run: str) -> Iterator[Path]:
    """A new empty file beside `path`, for this writer alone: a worker that was given up may still write, also within
    one run. Whatever is left of it when the block ends is removed.

    While the block lasts the file is locked, which says to `sweep` that somebody writes to it. The kernel frees the
    lock of a process that dies. Between its making and its locking another run's sweep may take it away; the writer
    then fails as one whose run was taken over, for so it is.
    """
    temporary = _temporary_name(path, run)
    try:
        with _locked(temporary):
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(path: Path, run: str) -> Iterator[Path]:
    """The same as `temporary_file` for a folder: a place to work in."""
    temporary = _temporary_name(path, run)
    temporary.mkdir()
    try:
        with _locked(temporary / _WRITER):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


_WRITER = ".writer"
"""In a temporary folder, the file that is locked: NFS locks only what is open for writing, which no folder can be."""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make the file `path` and hold it locked."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _temporary_name(path: Path, run: str) -> Path:
    return path.with_name(f".{path.name}.{run}.{os.urandom(4).hex()}.tmp")


def write_atomic(path: Path, data: bytes, run: str) -> None:
    """Write `data` under a temporary name that carries the run's id, then rename: readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path, run) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished, synced temporary file to its final name and sync the folder."""
    temporary.replace(path)
    files.sync_folder(path.parent)


def sweep(root: Path) -> None:
    """Remove what was left behind under temporary names, but for what somebody still writes to.

    Only the holder of the dataset may do this, before its workers begin or after they end: the runs that the files are
    named after are dead, although a worker of theirs may live for seconds, or are its own and lost a worker.
    """
    for folder in (root, root / "shards", root / "index", root / "commits"):
        for path in folder.glob(".*.tmp"):
            if _is_locked(path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path / _WRITER if path.is_dir() else path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: an exclusive one needs writing on NFS
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
