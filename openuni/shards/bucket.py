"""A dataset in an object store, where nothing is renamed and no file can be locked.

Files lie under names that carry their SHA-256, so that no writer can touch what another has put; they are put with
`create_only`, and the commit record, `create_only` too, says which of them count. Of two writers of one column one
record wins, and the loser removes what is its own. A record is byte for byte the one of a local build, which knows the
hashes already: `dataset.json` says under `naming` that the names follow them.

    push(store, staging, shard, column)     # a column that is committed in a local folder; BeatenError names a winner
    pull(store, shard, column, staging)     # the other way, hashes checked
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.shards import catalog, columns, failures, layout, results
from openuni.shards.failures import Failure
from openuni.shards.layout import CommitRecord, Manifest
from openuni.storage import DOCUMENT, MARKER, LocalStore
from openuni.storage.objects import ObjectStore

_FAILURES = "failures"
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
    """What the dataset is, as a local folder would say it; None where nothing is planned yet."""
    try:
        data = store.read(layout.MANIFEST, at_most=DOCUMENT)
    except FileNotFoundError:
        return None
    manifest = layout.parse_checked(Manifest, data, store.where(layout.MANIFEST))
    return replace(manifest, configuration={k: v for k, v in manifest.configuration.items() if k != layout.NAMING})


def push_plan(store: ObjectStore, root: Path, run: str) -> None:
    """Put the plan of a local folder, and its manifest last. Raises BeatenError where another plan came first."""
    manifest = layout.parse_checked(
        Manifest, LocalStore(root).read(layout.MANIFEST, at_most=DOCUMENT), str(root / layout.MANIFEST)
    )
    for name in (layout.PLAN, layout.SKIPPED):
        _create(store, _plan_name(name, manifest), root / name, run)
    named = replace(manifest, configuration={**manifest.configuration, layout.NAMING: layout.HASHED})
    data = layout.dump_checked(named)
    try:
        store.put(layout.MANIFEST, data, run, create_only=True)
    except FileExistsError:
        if store.read(layout.MANIFEST, at_most=DOCUMENT) != data:
            raise BeatenError(f"{store.url} was planned by another run meanwhile; run the same command again") from None


def pull_plan(store: ObjectStore, root: Path, run: str) -> Manifest | None:
    """Bring manifest and plan into a local folder; None where nothing is planned yet."""
    manifest = read_manifest(store)
    if manifest is None:
        return None
    local = LocalStore(root)
    data = layout.dump_checked(manifest)
    if local.exists(layout.MANIFEST):
        if local.read(layout.MANIFEST, at_most=DOCUMENT) == data:
            return manifest
        raise PlanError(
            f"{root} stages another dataset than {store.url} is now; choose another --staging, or delete it"
        )
    for name in (layout.SKIPPED, layout.PLAN):
        _fetch(store, _plan_name(name, manifest), root, name, run)
    if layout.file_record(root / layout.PLAN).sha256 != manifest.plan_sha256:
        raise CorruptDataError(f"{store.where(_plan_name(layout.PLAN, manifest))} is not the plan that was put there")
    local.put(layout.MANIFEST, data, run)
    return manifest


def committed(store: ObjectStore) -> set[tuple[int, str]]:
    """Shard and column of every commit record, in one listing."""
    return {place for place in map(layout.parse_commit_name, store.list("commits")) if place}


def push(store: ObjectStore, root: Path, shard: int, column: str) -> CommitRecord:
    """Put a column that is committed in the folder `root`, the record last; returns the record that counts.

    It is another run's where that was first with the same keys: the column is as good. Raises BeatenError where it
    was first with an RGB of other bytes, which everything else of the shard would have to be made from.
    """
    record = columns.committed(root, shard, column)
    if record is None:
        raise PlanError(f"{root} has no column {column} of shard {shard} to put into {store.url}")
    tar, index = _names(record)
    _create(store, tar, root / layout.tar_name(shard, column), record.run)
    _create(store, index, root / layout.index_name(shard, column), record.run)
    failed = failures.saved(root, shard)
    if failed:
        _create(store, _failure_name(record), _LIST.dump_json(failed), record.run)
    data = layout.dump_checked(record)
    try:
        store.put(layout.commit_name(shard, column), data, record.run, create_only=True)
    except FileExistsError:
        winner = catalog.commit_record(store, shard, column)
        if winner is None or winner.run == record.run:  # a put whose answer was lost found itself
            return record
        for mine, theirs in zip((tar, index), _names(winner), strict=True):
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
    record = catalog.commit_record(store, shard, column)
    if record is None:
        raise CorruptDataError(f"{store.where(layout.commit_name(shard, column))} is missing")
    tar, index = _names(record)
    wanted = [(index, layout.index_name(shard, column), record.index)]
    if not index_only:
        wanted.append((tar, layout.tar_name(shard, column), record.tar))
    for far, near, known in wanted:
        _fetch(store, far, root, near, run)
        if layout.file_record(root / near) != known:
            LocalStore(root).delete(near)
            raise CorruptDataError(f"{store.where(far)} is not what its commit record says")
    LocalStore(root).put(layout.commit_name(shard, column), layout.dump_checked(record), run)
    return record


def forget(root: Path, shard: int, names: Iterable[str]) -> None:
    """Remove a shard from a local folder: its columns `names`, and what is unfinished of it."""
    local = LocalStore(root)
    for column in names:
        columns.uncommit(root, shard, column)
        local.delete(layout.tar_name(shard, column))
        local.delete(layout.index_name(shard, column))
    results.close_work(root, shard)


def records(store: ObjectStore, places: Iterable[tuple[int, str]]) -> list[CommitRecord]:
    """The commit records at these places, in their order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda place: catalog.commit_record(store, *place), places)
        return [record for record in found if record is not None]


def read_failures(store: ObjectStore, found: Sequence[CommitRecord]) -> list[Failure]:
    """What failed on the way to these columns: of each only what the run that committed it wrote down."""
    there = set(store.list(_FAILURES))
    names = sorted({_failure_name(record) for record in found} & there)
    latest: dict[tuple[int, str, str], Failure] = {}
    for name in names:
        for failure in layout.parse_list(_LIST, store.read(name, at_most=DOCUMENT), store.where(name)):
            latest[failure.shard, failure.key, failure.stage] = failure
    return [latest[place] for place in sorted(latest)]


def describe(store: ObjectStore, manifest: Manifest, card: bytes, run: str) -> None:
    """Put what is derived from a complete dataset: failures, card, and the catalog's head last.

    Whoever finds the dataset complete may do this, also two at once: both put the same.
    """
    places = [(shard, column) for shard in range(manifest.shards) for column in sorted(manifest.columns)]
    found = records(store, places)
    with tempfile.TemporaryDirectory(prefix="openuni-") as folder:
        failures.write(Path(folder), read_failures(store, found), run)
        store.put(layout.FAILURES, Path(folder) / layout.FAILURES, run)
    store.put(layout.CARD, card, run)
    catalog.put(store, found, run)


def _names(record: CommitRecord) -> tuple[str, str]:
    return layout.tar_at(record, layout.HASHED), layout.index_at(record, layout.HASHED)


def _failure_name(record: CommitRecord) -> str:
    return f"{_FAILURES}/{record.shard:06d}.{record.column}.{record.run}.json"


def _plan_name(name: str, manifest: Manifest) -> str:
    return layout.hashed(name, manifest.plan_sha256)


def _create(store: ObjectStore, name: str, data: bytes | Path, run: str) -> None:
    """Put a file whose name carries its hash or its run: what is there already is the same."""
    try:
        store.put(name, data, run, create_only=True)
    except FileExistsError:
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if store.size(name) != size:
            raise CorruptDataError(f"{store.where(name)} is not what its name says; delete it") from None


def _fetch(store: ObjectStore, far: str, root: Path, near: str, run: str) -> None:
    path = root / near
    path.parent.mkdir(parents=True, exist_ok=True)
    with layout.temporary_file(path, run) as temporary:
        try:
            store.fetch(far, temporary)
        except FileNotFoundError:
            raise CorruptDataError(f"{store.where(far)} is missing") from None
        layout.publish(temporary, path)
