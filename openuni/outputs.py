"""What commands other than `openuni build` put into a bucket: checkpoints, logs, predictions, reports.

Work is done in a folder of this machine, the staging folder, and put from there. What must be whole is a **bundle**:

    push(store, "checkpoints/00001000", folder, run)   # its files, then its record, checkpoints/00001000.json
    pull(store, "checkpoints/00001000", folder, run)   # the other way, every hash checked

A bundle's files have names that contain their hash, so no writer touches another's files, and an interrupted put
resumes. The record, which is created once and names them all, makes them count. Logs, and files that can be made again
from a bundle, are put under plain names and may be overwritten.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from openuni.errors import CorruptDataError, PlanError
from openuni.shards import bucket, layout, lease
from openuni.shards.bucket import BeatenError
from openuni.shards.layout import FileRecord
from openuni.storage import DOCUMENT, LocalStore, check_name, new_folder
from openuni.storage.objects import ObjectStore

_IDENTITY = ".identity"
"""A random word, in the bucket and in its staging folder: so the folder of another run is not taken for its own."""
_AT_ONCE = 4
"""Files of a bundle that are under way together."""


def staging(url: str) -> Path:
    """Where work on a place in a bucket is staged, unless the user says otherwise.

    Example:
        >>> staging("s3://bucket/runs/x")
        PosixPath('data/staging/bucket-runs-x')
    """
    return Path("data/staging") / re.sub(r"[^A-Za-z0-9_.]+", "-", url.rstrip("/").partition("://")[2])


@contextmanager
def holding(url: str, run: str, folder: Path | None = None) -> Iterator[ObjectStore]:
    """Hold the place at `url` for a run, staged in `folder`, which the run holds already.

    Raises PlanError where the place is somebody else's, the store overwrites what it should create, or `folder` stages
    another place; HeldError naming a living run that works there.
    """
    store = ObjectStore(url)
    bucket.claim(store)
    with lease.holding(store, run, None):
        if folder is not None:
            _check_identity(store, folder, run)
        yield store


def _check_identity(store: ObjectStore, folder: Path, run: str) -> None:
    local = LocalStore(folder)
    mine = local.read(_IDENTITY, at_most=DOCUMENT) if local.exists(_IDENTITY) else None
    if mine is None:
        with suppress(FileExistsError):
            store.put(_IDENTITY, secrets.token_hex(16).encode(), run, create_only=True)
    try:
        theirs = store.read(_IDENTITY, at_most=DOCUMENT)
    except FileNotFoundError:
        theirs = None
    if mine not in (None, theirs):
        raise PlanError(f"{folder} stages another run than {store.url} is now; choose another --staging, or delete it")
    if mine is None and theirs is not None:
        local.put(_IDENTITY, theirs, run)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The record of a bundle: who put it, and its files by the names that they have in a folder."""

    run: str
    files: Mapping[str, FileRecord]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def push(store: ObjectStore, name: str, folder: Path, run: str) -> Bundle:
    """Put a folder as a bundle, the record last. Raises BeatenError where another run has put other files first."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    bundle = Bundle(run, {file: layout.file_record(folder / file) for file in names})
    there = store.walk(name)

    def put(file: str) -> None:
        far = _at(name, file, bundle)
        if there.get(far) != bundle.files[file].size:
            store.put(far, folder / file, run)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(put, names))
    try:
        store.put(_record(name), layout.dump_checked(bundle), run, create_only=True)
    except FileExistsError:
        found = read(store, name)
        if found.files != bundle.files:
            raise BeatenError(
                f"{store.where(name)} was put by run {found.run} first, with other bytes than run {run} has; nothing "
                "of it was touched: start again, and it goes on from there"
            ) from None
    return bundle


def pull(store: ObjectStore, name: str, folder: Path, run: str) -> Bundle:
    """Bring a bundle to `folder`, whole or not at all. Raises CorruptDataError where a file is missing or another."""
    bundle = read(store, name)

    def fetch(file: str, target: Path) -> None:
        far = _at(name, file, bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.fetch(far, target)
        except FileNotFoundError:
            raise CorruptDataError(f"{store.where(far)} is missing") from None
        if layout.file_record(target) != bundle.files[file]:
            raise CorruptDataError(f"{store.where(far)} is damaged")

    with new_folder(folder, run) as temporary, ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda file: fetch(file, temporary / check_name(file)), bundle.files))
    return bundle


def read(store: ObjectStore, name: str) -> Bundle:
    """The record of a bundle. Raises CorruptDataError where it is missing or damaged."""
    try:
        data = store.read(_record(name), at_most=DOCUMENT)
    except FileNotFoundError:
        raise CorruptDataError(f"{store.where(_record(name))} is missing") from None
    return layout.parse_checked(Bundle, data, store.where(_record(name)))


def bundles(store: ObjectStore, folder: str) -> list[str]:
    """Names of the bundles directly in `folder`, in their order."""
    return [name.removesuffix(".json") for name in store.list(folder) if name.endswith(".json")]


def remove(store: ObjectStore, name: str) -> None:
    """Remove a bundle, its record first: what is left of it when this is cut off does not count."""
    store.delete(_record(name))
    for file in store.walk(name):
        store.delete(file)


def fetch_folder(store: ObjectStore, target: Path, leave: Collection[str] = ()) -> None:
    """Copy all files to `target` under their plain names, but for the folders `leave` and what is a run's own."""
    left = {*leave, lease.FOLDER}
    names = [name for name in store.walk() if not name.startswith(".") and name.split("/")[0] not in left]

    def fetch(name: str) -> None:
        path = target / check_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        store.fetch(name, path)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(fetch, names))


def bring_file(store: ObjectStore, name: str, folder: Path, run: str) -> None:
    """Copy a file to a folder, over what is there; where the store has none, nothing happens."""
    if store.exists(name):
        with layout.temporary_file(folder / name, run) as temporary:
            store.fetch(name, temporary)
            layout.publish(temporary, folder / name)


class Mirror:
    """Puts files of a folder under their plain names, and again those that have changed since."""

    def __init__(self, store: ObjectStore, folder: Path, run: str) -> None:
        self._store, self._folder, self._run = store, folder, run
        self._put: dict[str, tuple[int, int]] = {}

    def put(self, *names: str) -> None:
        """Put these files, or all that are in these folders; what is not there is passed over."""
        for name in names:
            path = self._folder / name
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and not file.name.startswith("."):
                    self._put_changed(file)

    def _put_changed(self, file: Path) -> None:
        name, stat = file.relative_to(self._folder).as_posix(), file.stat()
        state = stat.st_size, stat.st_mtime_ns
        if self._put.get(name) != state:
            self._store.put(name, file, self._run)
            self._put[name] = state


def _record(name: str) -> str:
    return f"{name}.json"


def _at(name: str, file: str, bundle: Bundle) -> str:
    """Where a file of a bundle lies."""
    sha256 = bundle.files[file].sha256
    return (
        layout.hashed(f"{name}/{file}", sha256) if "." in PurePosixPath(file).name else f"{name}/{file}.{sha256[:16]}"
    )
