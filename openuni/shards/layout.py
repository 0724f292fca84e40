"""Where things lie in a dataset folder, and how a file comes to lie there: whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from openuni.errors import CorruptDataError, OpenUniError
from openuni.sample import SCHEMA_VERSION, check_key
from openuni.storage import DOCUMENT, LocalStore, open_regular
from openuni.storage import publish as publish
from openuni.storage import temporary_file as temporary_file
from openuni.storage import temporary_folder as temporary_folder
from openuni.storage import write_atomic as write_atomic

MANIFEST = "dataset.json"
PLAN = "plan.parquet"
FAILURES = "failures.parquet"
CARD = "README.md"
LOCK = "run.lock"
SKIPPED = "skipped.parquet"
LOG = "log.jsonl"
PROGRESS = "progress.json"
WORK = "work"
SCORES = "scores"
"""The column of numbers that the expert of that name measures; `scores_text` and so on are other experts'."""

NAMING = "naming"
"""In a manifest's configuration: how shard files are named, where not plainly: `shards/012345.rgb.tar`."""
FOLDERS = "folders"
"""Plainly, but from number 1000 on in a folder for each thousand: `shards/000999.rgb.tar`, `shards/012/012345.rgb.tar`.

New datasets of more than a thousand shards in a folder of this machine have it (`laid_out`).
"""
HASHED = "hashed"
"""In a bucket: by what is in them, in a folder for each thousand: `shards/012/012345.rgb.HASH.tar`."""
HASHED_FOLDERS = "hashed-folders"
"""In a bucket, and from number 1000 on commit records too lie in a folder for each thousand.

New datasets of more than a thousand shards in a bucket have it (`in_bucket`).
"""
_IN_FOLDERS = (FOLDERS, HASHED_FOLDERS)
PER_FOLDER = 1000
"""Shards whose files lie together in one folder."""

REVISION = "revision"
"""In the manifest of a dataset in a bucket that was changed: a `Revised`."""
COMMITS = "commits"

MOST_SHARDS = 10**6
MOST_CLIPS = 10**9
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"(?:(?:commits|changes/[0-9a-f-]+)/(?:[0-9]{3}/)?)?([0-9]{6,7})\.([A-Za-z0-9_]+)\.json")

_BESIDE = re.compile(r"[a-z]+(\.[0-9]{4})?\.(parquet|json)")

T = TypeVar("T")
V = TypeVar("V", int, str)


def check_column(name: str) -> str:
    """`name` if it can name a column, which becomes part of file names. Raises CorruptDataError."""
    if not _COLUMN.fullmatch(name):
        raise CorruptDataError(f"{name!r} cannot name a column: use a letter, then letters, digits or '_', 32 at most")
    return name


def holds_numbers(column: str) -> bool:
    """Whether a column holds numbers of each clip as a whole and nothing of its frames: `scores` and `scores_…`."""
    return column == SCORES or column.startswith(f"{SCORES}_")


def check_fingerprint(text: str) -> str:
    """`text` if it can be an expert's fingerprint, which becomes part of file names. Raises CorruptDataError."""
    if not _FINGERPRINT.fullmatch(text):
        raise CorruptDataError(f"{text!r} cannot be a fingerprint: use letters, digits and '_.+-'")
    return text


def check_shard(number: int) -> int:
    """`number` if a dataset can have a shard of that number. Raises CorruptDataError."""
    if not 0 <= number < MOST_SHARDS:
        raise CorruptDataError(f"{number} cannot be the number of a shard: they go from 0 to {MOST_SHARDS - 1:,}")
    return number


def tar_name(shard: int, column: str, naming: str | None = FOLDERS) -> str:
    """The tar of a column in a dataset in a folder, whose manifest names files so (`naming_of`).

    Example:
        >>> tar_name(999, "rgb"), tar_name(12345, "rgb"), tar_name(12345, "rgb", None)
        ('shards/000999.rgb.tar', 'shards/012/012345.rgb.tar', 'shards/012345.rgb.tar')
    """
    return file_name("shards", shard, column, "tar", naming)


def index_name(shard: int, column: str, naming: str | None = FOLDERS) -> str:
    """The index of a column; see `tar_name`."""
    return file_name("index", shard, column, "parquet", naming)


def commit_name(shard: int, column: str, naming: str | None = FOLDERS, folder: str = COMMITS) -> str:
    """The commit record of a column; see `tar_name`. In a bucket those of an unpublished change have another `folder`.

    Example:
        >>> commit_name(12345, "rgb", HASHED_FOLDERS), commit_name(12345, "rgb", HASHED)
        ('commits/012/012345.rgb.json', 'commits/012345.rgb.json')
    """
    return file_name(folder, shard, column, "json", naming)


def file_name(folder: str, shard: int, column: str, suffix: str, naming: str | None = FOLDERS) -> str:
    """A file that there is for each column of each shard, under a name without a hash."""
    inner = f"{_thousand(shard)}/" if naming in _IN_FOLDERS and shard >= PER_FOLDER else ""
    return f"{folder}/{inner}{_place(shard, column)}.{suffix}"


def commit_folders(naming: str | None, shards: int) -> list[str]:
    """The folders in which the commit records of a dataset of so many shards lie."""
    more = range(PER_FOLDER, shards, PER_FOLDER) if naming in _IN_FOLDERS else ()
    return [COMMITS, *(f"{COMMITS}/{_thousand(first)}" for first in more)]


def laid_out(configuration: Mapping[str, Any], shards: int) -> dict[str, Any]:
    """The configuration of a new dataset in a folder of this machine, which tells how its files are named.

    Example:
        >>> laid_out({}, 1000), laid_out({}, 1001)
        ({}, {'naming': 'folders'})
    """
    return {**configuration, NAMING: FOLDERS} if shards > PER_FOLDER else dict(configuration)


def in_bucket(configuration: Mapping[str, Any], shards: int) -> dict[str, Any]:
    """The configuration of a dataset as a bucket has it; see `laid_out`.

    Example:
        >>> in_bucket({}, 1000), in_bucket({}, 1001)
        ({'naming': 'hashed'}, {'naming': 'hashed-folders'})
    """
    return {**configuration, NAMING: HASHED_FOLDERS if shards > PER_FOLDER else HASHED}


def naming(manifest: Manifest) -> str | None:
    """How the files of a dataset are named: FOLDERS, HASHED, HASHED_FOLDERS, or None: plainly.

    Raises CorruptDataError.
    """
    written = manifest.configuration.get(NAMING)
    if written not in (None, FOLDERS, HASHED, HASHED_FOLDERS):
        raise CorruptDataError(
            f"{MANIFEST} names files in a way that this version does not know ({NAMING}: {written!r}); upgrade openuni"
        )
    return written if written is None else str(written)


def is_hashed(naming: str | None) -> bool:
    """Whether tars and indices lie under names that carry their hashes, as in a bucket."""
    return naming in (HASHED, HASHED_FOLDERS)


def naming_of(root: Path) -> str | None:
    """How the dataset in a folder names its files; as a new one does where its manifest is not written yet.

    Raises CorruptDataError where the manifest is damaged.
    """
    try:
        status = (root / MANIFEST).stat()
    except (FileNotFoundError, NotADirectoryError):
        return FOLDERS
    return _naming_of(root, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=256)
def _naming_of(root: Path, version: tuple[int, int, int]) -> str | None:
    """It is asked for with each file; `version` tells one `dataset.json` from the next."""
    return naming(parse_json(Manifest, LocalStore(root).read(MANIFEST, at_most=DOCUMENT), str(root / MANIFEST)))


def _thousand(shard: int) -> str:
    return f"{shard // PER_FOLDER:03d}"


def parse_commit_name(name: str) -> tuple[int, str] | None:
    """Shard and column of a commit record's name, or None where it is another file's."""
    match = _COMMIT.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def _place(shard: int, column: str) -> str:
    return f"{check_shard(shard):06d}.{check_column(column)}"


def tar_at(record: CommitRecord, naming: str | None) -> str:
    """The tar of a committed column, in a dataset whose files are named so, wherever it is."""
    return _at("shards", "tar", record, record.tar, naming)


def index_at(record: CommitRecord, naming: str | None) -> str:
    """The index of a committed column; see `tar_at`."""
    return _at("index", "parquet", record, record.index, naming)


def _at(folder: str, suffix: str, record: CommitRecord, file: FileRecord, naming: str | None) -> str:
    if not is_hashed(naming):
        return file_name(folder, record.shard, record.column, suffix, naming)
    place = _place(record.shard, record.column)
    return hashed(f"{folder}/{_thousand(record.shard)}/{place}.{suffix}", file.sha256)


def hashed(name: str, sha256: str) -> str:
    """The name of a file that carries a hash.

    Example:
        >>> hashed("shards/000/000000.rgb.tar", "0123456789abcdef" * 4)
        'shards/000/000000.rgb.0123456789abcdef.tar'
    """
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{sha256[:16]}.{suffix}"


def work_name(shard: int) -> str:
    return f"{WORK}/{check_shard(shard):06d}"


def result_name(shard: int, key: str, fingerprint: str) -> str:
    """One clip's unfinished result; the fingerprint keeps results of two versions of an expert apart."""
    return f"{work_name(shard)}/{check_key(key)}.{check_fingerprint(fingerprint)}.tar"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file, as the commit record remembers them."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0 or not _SHA256.fullmatch(self.sha256):
            raise ValueError("a size is negative, or a hash is none")


@dataclass(frozen=True, slots=True)
class Revised:
    """Which revision of a dataset in a bucket its manifest is, and the files that belong to it, by their plain names.

    Each lies under a name that carries its hash (`hashed`). Among them is the catalog: of a dataset that was changed it
    is not derived, for no other file says which records count.
    """

    number: int
    files: Mapping[str, FileRecord]

    def __post_init__(self) -> None:
        if "catalog.parquet" not in self.files or not all(map(_BESIDE.fullmatch, self.files)):
            raise ValueError("it names no catalog, or files that are none of ours")


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

    def __post_init__(self) -> None:
        _check(check_shard, self.shard)
        _check(check_column, self.column)
        _check(check_fingerprint, self.fingerprint)
        if self.samples:
            _check(check_key, self.first_key)
            _check(check_key, self.last_key)
        if not 0 <= self.present <= self.samples <= MOST_CLIPS:
            raise ValueError(f"{self.present} of {self.samples} samples are present")


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

    def __post_init__(self) -> None:
        for column, fingerprint in self.columns.items():
            _check(check_column, column)
            _check(check_fingerprint, fingerprint)
        if not (0 <= self.clips <= MOST_CLIPS and 0 <= self.shards <= min(self.clips, MOST_SHARDS)):
            raise ValueError(f"{self.clips} clips in {self.shards} shards")


def revised(manifest: Manifest) -> Revised | None:
    """The revision of a dataset in a bucket, None where it is as it was built. Raises CorruptDataError."""
    written = manifest.configuration.get(REVISION)
    if written is None:
        return None
    try:
        return _adapter(Revised).validate_python(written)
    except ValidationError:
        raise CorruptDataError(f"{MANIFEST} names a {REVISION} that is none of ours") from None


def _check(check: Callable[[V], V], value: V) -> None:
    """A check of ours as pydantic wants it: it reports ValueError with the field's place."""
    try:
        check(value)
    except OpenUniError as error:
        raise ValueError(str(error)) from None


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Making one costs more than using it; a dataset has a commit record for each of its files."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_record(path: Path) -> FileRecord:
    """Raises CorruptDataError where `path` is not a regular file."""
    with open_regular(path) as file:
        return FileRecord(file.size, hashlib.file_digest(file, "sha256").hexdigest())


def is_file(path: Path, file: FileRecord) -> bool:
    """Whether `path` holds these bytes; one of another size is not read. Raises as `file_record`."""
    with open_regular(path) as opened:
        return opened.size == file.size and hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def parse_json(kind: type[T], data: bytes, where: str) -> T:
    """`data` as the dataclass `kind`. Raises CorruptDataError naming the file."""
    try:
        return _adapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise CorruptDataError(f"{where} is not a valid {kind.__name__}: {place}: {first['msg']}") from None


def parse_list(adapter: TypeAdapter[list[T]], data: bytes, where: str) -> list[T]:
    """`data` as a list of dataclasses. Raises CorruptDataError naming the file."""
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        raise CorruptDataError(f"{where} is damaged: {error.errors()[0]['msg']}") from None


def dump_json(value: Any) -> bytes:
    return _adapter(type(value)).dump_json(value, indent=1) + b"\n"


def dump_checked(value: Any) -> bytes:
    """`value` as JSON with a `checksum` over the rest, for the documents whose own hash no other file has."""
    fields = _adapter(type(value)).dump_python(value, mode="json")
    return json.dumps(fields | {"checksum": _checksum(value)}, indent=1, ensure_ascii=False).encode() + b"\n"


def parse_checked(kind: type[T], data: bytes, where: str) -> T:
    """`data` as the dataclass `kind`. Raises CorruptDataError naming the file whose checksum does not match."""
    value = parse_json(kind, data, where)
    if json.loads(data).get("checksum") != _checksum(value):
        raise CorruptDataError(f"{where} is not as it was written (its checksum does not match); run `openuni verify`")
    return value


def _checksum(value: Any) -> str:
    return digest(_adapter(type(value)).dump_json(value))


def sweep(root: Path, also: Sequence[str] = ()) -> None:
    """Remove what killed runs left behind under temporary names of ours; for the holder of the folder only.

    In the folders of a dataset, and in those that its command names in `also` with all that are in them.
    """
    names = ("shards", "index", COMMITS, *also)
    inner = [Path(folder) for name in names for folder, _, _ in os.walk(root / name)]
    LocalStore(root).sweep(("", *(folder.relative_to(root).as_posix() for folder in inner)))
