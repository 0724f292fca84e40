"""Revisions: how a complete dataset in a bucket is changed, although nothing committed may be overwritten.

    base = revisions.current(store)
    folder = revisions.change_folder(base, what)      # the same command finds it again, whoever was killed
    bucket.push(store, staging, shard, column, folder)  # what differs: new names, and records that do not count yet
    revisions.publish(store, base, manifest, records, files, run)
    revisions.swap_in(store); revisions.sweep(store, run)

`revisions/000001.json` is the manifest after the first change. It is put create-only, so of two changes to one state
only one counts. It names its files by hash, including the table of all commit records. `dataset.json` is a copy of the
latest manifest, for readers; it only ever replaces the previous one. Then files that no longer count are deleted, and
`000001.done` records that this is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from openuni.errors import CorruptDataError
from openuni.shards import bucket, catalog, facts, layout, lease
from openuni.shards.bucket import BeatenError
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.storage import DOCUMENT, MARKER
from openuni.storage.objects import ObjectStore

FOLDER = "revisions"
CHANGES = "changes"
_NAME = re.compile(rf"{FOLDER}/([0-9]{{6}})\.json")
_CHANGE = re.compile(rf"{CHANGES}/([0-9]{{6}})-[0-9a-f]{{16}}/")
_OURS = ("shards/", "index/", f"{layout.COMMITS}/", f"{CHANGES}/", f"{bucket.FAILURES}/")
_ROOT = re.compile(r"(plan|skipped|catalog|facts|failures|takedowns)(\.[0-9a-f]+)*\.(parquet|json)")
"""Files beside `dataset.json` that belong to one revision, or to none."""
_TOGETHER = 1000

Place = tuple[int, str]
"""Shard and column."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A state of a dataset in a bucket: 0 as it was built, then one for each change. `manifest` is as a folder's.

    `files`: plans, failures and takedowns by their plain names; their names in the bucket.
    """

    number: int
    manifest: Manifest
    records: Mapping[Place, CommitRecord]
    files: Mapping[str, str]

    @property
    def facts(self) -> str:
        """Where its facts lie, which are derived from its catalog; nowhere of a dataset that was never changed."""
        name = self.files.get(catalog.TABLE, "")
        return name.replace(catalog.TABLE.partition(".")[0], facts.TABLE.partition(".")[0], 1)

    @property
    def is_complete(self) -> bool:
        """Whether every shard has every column."""
        return len(self.records) == self.manifest.shards * len(self.manifest.columns)

    def made_by(self, shard: int) -> dict[str, str]:
        """The columns of a shard, with their fingerprints."""
        there = (self.records.get((shard, column)) for column in self.manifest.columns)
        return {record.column: record.fingerprint for record in there if record is not None}


def current(store: ObjectStore) -> Revision | None:
    """The state that counts; None where nothing is planned yet. Raises CorruptDataError."""
    number = latest(store)
    name = _name(number) if number else layout.MANIFEST
    try:
        data = store.read(name, at_most=DOCUMENT)
    except FileNotFoundError:
        return None
    manifest = layout.parse_checked(Manifest, data, store.where(name))
    own = layout.revised(manifest)
    files = bucket.files(manifest)
    if own is not None:
        found: Sequence[CommitRecord] = catalog.read_named(store, own.files[catalog.TABLE])
    else:
        folded = catalog.read(store, manifest, layout.digest(data))
        found = bucket.records(store, sorted(bucket.committed(store))) if folded is None else folded
        if store.exists(layout.FAILURES):
            files[layout.FAILURES] = layout.FAILURES
    records = {(r.shard, r.column): r for r in found if r.fingerprint == manifest.columns.get(r.column)}
    return Revision(number, bucket.plain(manifest), records, files)


def latest(store: ObjectStore) -> int:
    """The number of the last revision, 0 for a dataset that was never changed."""
    matches = (_NAME.fullmatch(name) for name in store.list(FOLDER))
    return max((int(match[1]) for match in matches if match), default=0)


def former(store: ObjectStore) -> list[Manifest]:
    """What the dataset was before each of its changes, as a folder would say it."""
    names = [name for name in store.list(FOLDER) if _NAME.fullmatch(name)]
    read = (layout.parse_checked(Manifest, store.read(n, at_most=DOCUMENT), store.where(n)) for n in names)
    return [bucket.plain(manifest) for manifest in read]


def change_folder(base: Revision, what: bytes) -> str:
    """Where the commit records of a change to `base` are until it is published; `what` identifies the change."""
    return f"{CHANGES}/{base.number + 1:06d}-{layout.digest(what)[:16]}"


def publish(
    store: ObjectStore,
    base: Revision,
    manifest: Manifest,
    records: Iterable[CommitRecord],
    files: Mapping[str, bytes | Path],
    run: str,
) -> None:
    """Make `manifest` with these records and files the new revision of the dataset.

    Raises BeatenError if another change to `base` came first. Its files are not touched then, and the next change
    deletes those that were put for this one.
    """
    made = sorted(records, key=lambda record: (record.shard, record.column))
    _check_there(store, [record for record in made if base.records.get((record.shard, record.column)) != record])
    named = {name: bucket.create(store, name, data, run) for name, data in files.items()}
    named[catalog.TABLE] = bucket.create(store, catalog.TABLE, catalog.encode(made), run)
    if base.number == 0:  # what the dataset was built as, unless it was made elsewhere
        with suppress(FileExistsError, FileNotFoundError):
            store.put(_name(0), store.read(layout.MANIFEST, at_most=DOCUMENT), run, create_only=True)
    data = layout.dump_checked(_in_bucket(manifest, base.number + 1, named))
    lease.check(store, run)
    try:
        store.put(_name(base.number + 1), data, run, create_only=True)
    except FileExistsError:
        if store.read(_name(base.number + 1), at_most=DOCUMENT) != data:
            raise BeatenError(
                f"{store.url} was changed by another run meanwhile; nothing of that was touched: run the command again"
            ) from None


def is_settled(store: ObjectStore) -> bool:
    """Whether the last change is complete: readers see it, and the files that it replaced are deleted."""
    number = latest(store)
    return number == 0 or store.exists(_done(number))


def swap_in(store: ObjectStore) -> None:
    """Let readers see the last revision."""
    number = latest(store)
    if number == 0:
        return
    new = store.read(_name(number), at_most=DOCUMENT)
    with suppress(FileExistsError):
        store.put(layout.MANIFEST, new, "swap", create_only=True)
    while (before := store.read(layout.MANIFEST, at_most=DOCUMENT)) != new:
        at = layout.revised(layout.parse_checked(Manifest, before, store.where(layout.MANIFEST)))
        if at is not None and at.number >= number:  # somebody was faster
            return
        store.swap(layout.MANIFEST, before, new)


def sweep(store: ObjectStore, run: str) -> int:
    """Delete our files that the last revision does not name, except those of unfinished changes to it.

    Returns how many were deleted. Only the holder of the lease may call it; the lease is checked again before anything
    is deleted. Raises HeldError.
    """
    revision = current(store)
    if revision is None or revision.number == 0:
        return 0
    there = store.walk()
    kept = _named(revision.records.values()) | set(revision.files.values()) | {revision.facts}
    under_way = {name for name in there if (match := _CHANGE.match(name)) and int(match[1]) > revision.number}
    for folder in sorted({match[0].rstrip("/") for name in under_way if (match := _CHANGE.match(name))}):
        pending = bucket.records(store, sorted(bucket.committed(store, folder)), folder)
        kept |= _named(pending) | set(bucket.failure_files(there, pending))
    gone = [n for n in there if (n.startswith(_OURS) or _ROOT.fullmatch(n)) and n not in kept | under_way]
    for first in range(0, len(gone), _TOGETHER):
        lease.check(store, run)
        store.delete_all(gone[first : first + _TOGETHER])
    with suppress(FileExistsError):
        store.put(_done(revision.number), b"", run, create_only=True)
    return len(gone)


def foreign(store: ObjectStore) -> list[str]:
    """Files below the dataset that are not ours."""
    known = {layout.MANIFEST, layout.CARD, MARKER}
    ours = (*_OURS, f"{FOLDER}/", f"{lease.FOLDER}/")
    return [n for n in store.walk() if not (n in known or n.startswith(ours) or _ROOT.fullmatch(n))]


def _check_there(store: ObjectStore, records: Sequence[CommitRecord]) -> None:
    """Raise CorruptDataError unless all that the records name lies there, as long as it should be."""
    if not records:
        return
    there = {**store.walk("shards"), **store.walk("index")}
    for record in records:
        for name, file in zip(bucket.names(record), (record.tar, record.index), strict=True):
            if there.get(name) != file.size:
                raise CorruptDataError(f"{store.where(name)} is not there as it was put; run the same command again")


def _named(records: Iterable[CommitRecord]) -> set[str]:
    return {name for record in records for name in bucket.names(record)}


def _in_bucket(manifest: Manifest, number: int, files: Mapping[str, FileRecord]) -> Manifest:
    revised = {
        "number": number,
        "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in sorted(files.items())},
    }
    own = layout.in_bucket({**manifest.configuration, layout.REVISION: revised}, manifest.shards)
    return replace(manifest, configuration=own)


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _done(number: int) -> str:
    return f"{FOLDER}/{number:06d}.done"
