"""A dataset in an object store, where nothing is renamed and no file can be locked.

Files lie under names that carry their SHA-256, so that no writer can touch what another has put; they are put with
`create_only`, and the commit record, `create_only` too, says which of them count. Of two writers of one column one
record wins, and the loser removes what is its own. A record is byte for byte the one of a local build, which knows the
hashes already: `dataset.json` says under `naming` that the names follow them.

    push(store, staging, shard, column)     # a column that is committed in a local folder; BeatenError names a winner
    pull(store, shard, column, staging)     # the other way, hashes checked

How a dataset is changed that is complete: `openuni.shards.revisions`.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.shards import catalog, columns, failures, layout, plan, results, takedown
from openuni.shards.failures import Failure
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.storage import DOCUMENT, MARKER, LocalStore
from openuni.storage.objects import ObjectStore

FAILURES = "failures"
"""The folder of what each run wrote down of the clips that failed."""
_PLANS = re.compile(r"(plan|skipped)(\.[0-9]{4})?\.parquet")
_LIST = TypeAdapter(list[Failure])
_AT_ONCE = 16
"""Small reads that are under way together."""
_TEXT = b"Written by openuni: its commands put files of theirs below this prefix.\n"


class BeatenError(OpenUniError):
    """Another run has committed a column with other bytes: what was made for it here does not count."""


def claim(store: ObjectStore) -> None:
    """Check that the prefix is empty or ours, mark it, and try that the store refuses to create over what is there.

    Raises PlanError otherwise: two writers could overwrite each other.
    """
    if not store.exists(MARKER):
        if (there := store.first()) is not None:
            raise PlanError(f"{store.url} is not empty and not openuni's: it holds {there}; choose another place")
        with suppress(FileExistsError):  # another part came first
            store.put(MARKER, _TEXT, "claim", create_only=True)
    try:
        store.put(MARKER, _TEXT, "claim", create_only=True)
    except FileExistsError:
        return
    raise PlanError(
        f"{store.url}: the store creates over what is there (it ignores If-None-Match), so two writers could overwrite "
        "each other; build into a folder and copy it"
    )


def read_manifest(store: ObjectStore) -> Manifest | None:
    """The manifest in the form that a local folder has; None if nothing is planned yet."""
    manifest = _read_manifest(store)
    return None if manifest is None else plain(manifest)


def plain(manifest: Manifest) -> Manifest:
    """A bucket's manifest in the form that a local folder has.

    Raises CorruptDataError where it names files in a way that this version does not know.
    """
    layout.naming(manifest)
    own = {name: said for name, said in manifest.configuration.items() if name not in (layout.NAMING, layout.REVISION)}
    return replace(manifest, configuration=layout.laid_out(own, manifest.shards))


def files(manifest: Manifest) -> dict[str, str]:
    """The plans and other files that belong to a bucket's manifest: from plain name to the name in the bucket."""
    own = layout.revised(manifest)
    if own is not None:
        return {name: layout.hashed(name, file.sha256) for name, file in own.files.items()}
    if not manifest.plan_sha256:
        return {}
    return {name: layout.hashed(name, manifest.plan_sha256) for name in (layout.SKIPPED, layout.PLAN)}


def _read_manifest(store: ObjectStore) -> Manifest | None:
    try:
        data = store.read(layout.MANIFEST, at_most=DOCUMENT)
    except FileNotFoundError:
        return None
    return layout.parse_checked(Manifest, data, store.where(layout.MANIFEST))


def push_plan(store: ObjectStore, root: Path, run: str) -> None:
    """Put the plan of a local folder, and its manifest last. Raises BeatenError where another plan came first."""
    manifest = layout.parse_checked(
        Manifest, LocalStore(root).read(layout.MANIFEST, at_most=DOCUMENT), str(root / layout.MANIFEST)
    )
    for name, far in files(manifest).items():
        _create(store, far, root / name, run)
    named = replace(manifest, configuration=layout.in_bucket(manifest.configuration, manifest.shards))
    try:
        store.put(layout.MANIFEST, layout.dump_checked(named), run, create_only=True)
    except FileExistsError:
        if read_manifest(store) != plain(manifest):
            raise BeatenError(f"{store.url} was planned by another run meanwhile; run the same command again") from None


def pull_plan(store: ObjectStore, root: Path, run: str, *, outdated: Sequence[Manifest] = ()) -> Manifest | None:
    """Copy manifest and plan into a local folder; None if nothing is planned yet.

    `outdated`: manifests from before the dataset was changed; a folder that stages one of these is emptied first.
    """
    far = _read_manifest(store)
    if far is None:
        return None
    manifest, local = plain(far), LocalStore(root)
    data = layout.dump_checked(manifest)
    if local.exists(layout.MANIFEST):
        there = local.read(layout.MANIFEST, at_most=DOCUMENT)
        own = {name: said for name, said in manifest.configuration.items() if name != layout.NAMING}
        flat = replace(manifest, configuration=own)
        if there in (data, layout.dump_checked(flat)):  # of a version that had all shards in one folder
            return manifest
        if there not in map(layout.dump_checked, outdated):
            raise PlanError(
                f"{root} stages another dataset than {store.url} is now; choose another --staging, or delete it"
            )
        empty(root)
    stage(store, files(far), manifest, root, run)
    return manifest


def stage(store: ObjectStore, named: Mapping[str, str], manifest: Manifest, root: Path, run: str) -> None:
    """Bring plans, takedowns and failures of those `named` into a local folder, and put its manifest last."""
    for name, far in named.items():
        if _PLANS.fullmatch(name) or name in (layout.FAILURES, takedown.FILE):
            _fetch(store, far, root, name, run)
    for number, generation in enumerate(plan.generations(manifest)):
        name = plan.name_of(number)
        if name not in named or layout.file_record(root / name).sha256 != generation.plan_sha256:
            raise CorruptDataError(f"{store.where(named.get(name, name))} is not the plan that was put there")
    LocalStore(root).put(layout.MANIFEST, layout.dump_checked(manifest), run)


def empty(root: Path) -> None:
    """Remove a dataset from the folder that stages it; its lock and log stay."""
    local = LocalStore(root)
    local.delete(layout.MANIFEST)
    for name in ("shards", "index", layout.COMMITS, layout.WORK):
        local.delete_folder(name)
    for path in root.iterdir():
        if _PLANS.fullmatch(path.name) or path.name in (layout.FAILURES, takedown.FILE):
            local.delete(path.name)


def committed(store: ObjectStore, folder: str = layout.COMMITS) -> set[tuple[int, str]]:
    """Shard and column of every commit record, in one listing."""
    return {place for place in map(layout.parse_commit_name, store.walk(folder)) if place}


def record_name(store: ObjectStore, shard: int, column: str, folder: str = layout.COMMITS) -> str:
    """The commit record of a column, as the dataset's manifest in the bucket names it."""
    naming = _naming(store) if shard >= layout.PER_FOLDER else layout.HASHED
    return layout.commit_name(shard, column, naming, folder)


def _naming(store: ObjectStore) -> str | None:
    """How the dataset names its files; as a new one does where its manifest is not put yet."""
    manifest = _read_manifest(store)
    return layout.HASHED_FOLDERS if manifest is None else layout.naming(manifest)


def push(store: ObjectStore, root: Path, shard: int, column: str, folder: str = layout.COMMITS) -> CommitRecord:
    """Put a column that is committed in the folder `root`, the record last; returns the record that counts.

    It is another run's where that was first with the same keys: the column is as good. Raises BeatenError where it
    was first with an RGB of other bytes, which everything else of the shard would have to be made from.
    """
    record = columns.committed(root, shard, column)
    if record is None:
        raise PlanError(f"{root} has no column {column} of shard {shard} to put into {store.url}")
    (tar, index), naming = names(record), layout.naming_of(root)
    _create(store, tar, root / layout.tar_name(shard, column, naming), record.run, record.tar.sha256)
    _create(store, index, root / layout.index_name(shard, column, naming), record.run, record.index.sha256)
    failed = failures.saved(root, shard)
    if failed:
        _create(store, failure_name(record), _LIST.dump_json(failed), record.run)
    name = record_name(store, shard, column, folder)
    try:
        store.put(name, layout.dump_checked(record), record.run, create_only=True)
    except FileExistsError:
        winner = catalog.commit_record(store, name)
        if winner is None or winner.run == record.run:  # a put whose answer was lost found itself
            return record
        if folder == layout.COMMITS:  # of a change that loses, all is deleted together
            for mine, theirs in zip((tar, index), names(winner), strict=True):
                if mine != theirs:
                    store.delete(mine)
        same = winner.tar == record.tar if column == "rgb" else winner.keys_sha256 == record.keys_sha256
        if not same or winner.fingerprint != record.fingerprint:
            raise BeatenError(
                f"column {column} of shard {shard} was committed by run {winner.run} first, with other bytes than run "
                f"{record.run} has; nothing of it was touched"
            ) from None
        return winner
    return record


def pull(
    store: ObjectStore, shard: int, column: str, root: Path, run: str, *, index_only: bool = False
) -> CommitRecord:
    """Bring a committed column into a local folder under its plain names. Raises CorruptDataError on other bytes."""
    name = record_name(store, shard, column)
    record = catalog.commit_record(store, name)
    if record is None:
        raise CorruptDataError(f"{store.where(name)} is missing")
    return fetch(store, record, root, run, index_only=index_only)


def fetch(
    store: ObjectStore, record: CommitRecord, root: Path, run: str, *, index_only: bool = False, damaged: bool = False
) -> CommitRecord:
    """Bring the column of `record` into a local folder. Raises CorruptDataError on other bytes.

    `damaged`: what is missing or other than it was is brought as it is, for who takes out of it what is whole.
    """
    shard, column = record.shard, record.column
    (tar, index), naming = names(record), layout.naming_of(root)
    wanted = [(index, layout.index_name(shard, column, naming), record.index)]
    if not index_only:
        wanted.append((tar, layout.tar_name(shard, column, naming), record.tar))
    for far, near, known in wanted:
        with suppress(*([CorruptDataError] if damaged else [])):
            _fetch(store, far, root, near, run)
        if not damaged and layout.file_record(root / near) != known:
            LocalStore(root).delete(near)
            raise CorruptDataError(f"{store.where(far)} is not what its commit record says")
    LocalStore(root).put(layout.commit_name(shard, column, naming), layout.dump_checked(record), run)
    return record


def forget(root: Path, shard: int, those: Iterable[str]) -> None:
    """Remove a shard from a local folder: `those` columns, and what is unfinished of it."""
    local, naming = LocalStore(root), layout.naming_of(root)
    for column in those:
        columns.uncommit(root, shard, column)
        local.delete(layout.tar_name(shard, column, naming))
        local.delete(layout.index_name(shard, column, naming))
    results.close_work(root, shard)


def records(store: ObjectStore, places: Iterable[tuple[int, str]], folder: str = layout.COMMITS) -> list[CommitRecord]:
    """The commit records at these places, in their order."""
    naming = _naming(store)
    names = [layout.commit_name(shard, column, naming, folder) for shard, column in places]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda name: catalog.commit_record(store, name), names)
        return [record for record in found if record is not None]


def read_failures(store: ObjectStore, found: Sequence[CommitRecord]) -> list[Failure]:
    """What failed on the way to these columns: of each only what the run that committed it wrote down."""
    latest: dict[tuple[int, str, str], Failure] = {}
    for name in failure_files(store.walk(FAILURES), found):
        for failure in layout.parse_list(_LIST, store.read(name, at_most=DOCUMENT), store.where(name)):
            latest[failure.shard, failure.key, failure.stage] = failure
    return [latest[place] for place in sorted(latest)]


def describe(store: ObjectStore, manifest: Manifest, run: str) -> None:
    """Put what is derived from the records of a complete dataset: failures, and the catalog's head last.

    Whoever finds the dataset complete may do this, also two at once: both put the same.
    """
    places = [(shard, column) for shard in range(manifest.shards) for column in sorted(manifest.columns)]
    found = records(store, places)
    with tempfile.TemporaryDirectory(prefix="openuni-") as folder:
        failures.write(Path(folder), read_failures(store, found), run)
        store.put(layout.FAILURES, Path(folder) / layout.FAILURES, run)
    catalog.put(store, found, run)


def names(record: CommitRecord) -> tuple[str, str]:
    """Tar and index of a column."""
    return layout.tar_at(record, layout.HASHED), layout.index_at(record, layout.HASHED)


def failure_name(record: CommitRecord) -> str:
    """What the run that committed a column wrote down, if there was anything."""
    return layout.file_name(FAILURES, record.shard, record.column, f"{record.run}.json", layout.HASHED_FOLDERS)


def failure_files(there: Iterable[str], records: Iterable[CommitRecord]) -> list[str]:
    """What `there` is of these records; older versions put all of it into one folder."""
    wanted = {posixpath.basename(failure_name(record)) for record in records}
    return sorted(name for name in there if name.startswith(f"{FAILURES}/") and posixpath.basename(name) in wanted)


def create(store: ObjectStore, name: str, data: bytes | Path, run: str) -> FileRecord:
    """Put a file of that plain name under one that carries its hash."""
    file = layout.file_record(data) if isinstance(data, Path) else FileRecord(len(data), layout.digest(data))
    _create(store, layout.hashed(name, file.sha256), data, run, file.sha256)
    return file


def _create(store: ObjectStore, name: str, data: bytes | Path, run: str, sha256: str = "") -> None:
    """Put a file whose name carries its hash, which is `sha256` where that is known, or its run.

    What is there already is the same, or was damaged: then it gets the bytes back that its name promises.
    """
    try:
        store.put(name, data, run, create_only=True)
    except FileExistsError:
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if sha256 and _sha256(store, name) != sha256:
            store.put(name, data, run)
        elif store.size(name) != size:
            raise CorruptDataError(f"{store.where(name)} is not what its name says; delete it") from None


def _sha256(store: ObjectStore, name: str) -> str:
    with tempfile.TemporaryDirectory(prefix="openuni-check-") as folder:
        store.fetch(name, path := Path(folder) / "file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(store: ObjectStore, far: str, root: Path, near: str, run: str) -> None:
    path = root / near
    path.parent.mkdir(parents=True, exist_ok=True)
    with layout.temporary_file(path, run) as temporary:
        try:
            store.fetch(far, temporary)
        except FileNotFoundError:
            raise CorruptDataError(f"{store.where(far)} is missing") from None
        layout.publish(temporary, path)
