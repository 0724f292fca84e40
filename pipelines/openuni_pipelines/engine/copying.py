"""`openuni push` and `openuni pull`: a dataset to a bucket or the hub and back, column by column, each hash checked.

Both resume after an interruption: what is committed at the destination is not copied again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import openuni
from openuni import storage
from openuni.errors import CorruptDataError, PlanError
from openuni.printable import count
from openuni.shards import bucket, catalog, columns, layout, lease, plan, revisions, takedown, verify
from openuni.shards.layout import CommitRecord, FileRecord, Manifest
from openuni.shards.reader import Dataset
from openuni.shards.revisions import Place, Revision
from openuni.storage import LocalStore, Store
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine import on_hub, revising
from openuni_pipelines.engine.recipe import RGB
from openuni_pipelines.engine.run import describe, holding, is_complete

Progress = Callable[[int, int], None]
_AT_ONCE = 8
"""Columns that are copied at once."""
_PIECE = 16 << 20
_CLIP = 1 << 20
"""Bytes that a clip takes in a file beside the columns, at most."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Columns of shards that were copied, or with `--dry-run` would be, their bytes, and how many were there."""

    columns: int
    bytes: int
    there: int
    shards: int


def push(root: Path, url: str, *, dry_run: bool = False, progress: Progress = lambda done, total: None) -> Copied:
    """Copy the complete dataset at `root` into a bucket or to the hub, or what has changed since it was last copied.

    In a bucket a change becomes a revision: readers see all of it, or the state before. Raises PlanError if the place
    has another dataset, CorruptDataError if a file is not what its commit record says.
    """
    manifest = verify.manifest(root)
    if not is_complete(root, manifest):
        raise PlanError(f"{root} is not finished: run its `openuni build` again first")
    _check_described(root, manifest)
    records = _local(root, manifest)
    if on_hub.is_hub_url(url):
        return _copied(records, on_hub.push(root, url, manifest, records, dry_run=dry_run, progress=progress))
    store = ObjectStore(url)
    if dry_run:
        return _copied(records, _missing(store, _base(store, manifest), records))
    with holding(root) as run:
        bucket.claim(store)
        with lease.holding(store, run, None):
            revising.settle(store, run)
            base = _base(store, manifest)
            missing = _missing(store, base, records)
            folder = _folder(base, manifest, records)
            put = bucket.committed(store, folder)
            work = [place for place in missing if place not in put]

            def one(place: Place) -> None:
                _check(root, records[place])
                bucket.push(store, root, *place, folder)

            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for done, _ in enumerate(pool.map(one, work), 1):
                    progress(done, len(work))
            same = base.number or store.exists(layout.MANIFEST)
            if missing or base.manifest != bucket.plain(manifest) or not same:
                revising.publish(store, base, root, manifest, records.values(), run)
    return _copied(records, work)


def pull(
    url: str,
    root: Path,
    names: Sequence[str] = (),
    *,
    dry_run: bool = False,
    progress: Progress = lambda done, total: None,
) -> Copied:
    """Copy a dataset from a URL into the folder `root`: only RGB and the columns `names` (default: all).

    Raises PlanError if the folder has another dataset, CorruptDataError if bytes are not those that were committed.
    """
    data = openuni.open(url)
    if data.is_view:
        raise PlanError(f"{url} is a view; `openuni export` writes the clips of one")
    manifest = bucket.plain(data.manifest)
    if unknown := [name for name in names if name not in manifest.columns]:
        raise PlanError(f"{url} has no column {', '.join(unknown)}; it has {', '.join(manifest.columns)}")
    found = data.records()
    if len(found) != manifest.shards * len(manifest.columns):
        raise PlanError(
            f"{url} is not whole: {len(found):,} of its {manifest.shards * len(manifest.columns):,} commit records are "
            "there; let its `openuni build` end first, or fetch it anew"
        )
    if names:
        kept = {name: made for name, made in manifest.columns.items() if name in (RGB, *names)}
        manifest = replace(manifest, columns=kept)
    records = {(record.shard, record.column): record for record in found if record.column in manifest.columns}
    if dry_run:
        return _copied(records, [place for place, record in records.items() if not _is_here(root, record)])
    with holding(root) as run:
        _stage(data, manifest, root, run)
        work = [place for place, record in records.items() if not _is_here(root, record)]

        def one(place: Place) -> None:
            _fetch(data, records[place], root, run)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for done, _ in enumerate(pool.map(one, work), 1):
                progress(done, len(work))
        describe(root, run)
    return _copied(records, work)


def _base(store: ObjectStore, manifest: Manifest) -> Revision:
    """What the bucket holds of this dataset, if anything. Raises PlanError where it is another, or unfinished."""
    base = revisions.current(store)
    if base is None:
        return Revision(0, manifest, {}, {})
    if plan.unchanging(base.manifest) != plan.unchanging(manifest):
        raise PlanError(f"{store.url} holds another dataset; choose another place")
    if not base.is_complete:
        raise PlanError(f"{store.url} is being built; let its `openuni build` end first")
    return base


def _missing(store: ObjectStore, base: Revision, records: Mapping[Place, CommitRecord]) -> list[Place]:
    def is_there(place: Place, record: CommitRecord) -> bool:
        far = base.records.get(place)
        return far is not None and replace(far, run="") == replace(record, run="")

    return [place for place, record in records.items() if not is_there(place, record)]


def _folder(base: Revision, manifest: Manifest, records: Mapping[Place, CommitRecord]) -> str:
    what = layout.dump_checked(manifest) + catalog.encode([records[place] for place in sorted(records)])
    return revisions.change_folder(base, what)


def _local(root: Path, manifest: Manifest) -> dict[Place, CommitRecord]:
    places = [(shard, column) for shard in range(manifest.shards) for column in manifest.columns]
    found = {place: columns.committed(root, *place) for place in places}
    return {place: record for place, record in found.items() if record is not None}


def _copied(records: Mapping[Place, CommitRecord], work: Sequence[Place]) -> Copied:
    size = sum(records[place].tar.size + records[place].index.size for place in work)
    return Copied(len(work), size, len(records) - len(work), len({shard for shard, _ in records}))


def _check(root: Path, record: CommitRecord) -> None:
    for name, file in _files(root, record):
        if not layout.is_file(root / name, file):
            raise CorruptDataError(
                f"{root / name} is not what its commit record says; run `openuni verify --repair {root}` first"
            )


def _check_described(root: Path, manifest: Manifest) -> None:
    """Check what is copied without a commit record that knows its hash: plans, and files that lie beside the columns.

    Raises CorruptDataError where a plan is not the manifest's, PlanError where a file is a link: who made the dataset
    could have it copy any file of ours to where others read it.
    """
    plans = [plan.name_of(number) for number in range(len(plan.generations(manifest)))]
    beside = [plan.skipped_beside(root / name).name for name in plans]
    for name in (*beside, layout.MANIFEST, layout.FAILURES, takedown.FILE, catalog.TABLE, catalog.HEAD):
        path = root / name
        if path.is_symlink():
            raise PlanError(f"{path} is a link to {path.readlink()}, and no file is copied through one; put it there")
        if path.exists():
            with storage.open_regular(path) as file:
                if file.size > storage.DOCUMENT + manifest.clips * _CLIP:
                    raise CorruptDataError(f"{path} is too large for {count(manifest.clips, 'clip')}")
    for problem in verify.verify_plan(root):
        raise CorruptDataError(f"{root / problem.file} {problem.what.partition(';')[0]}; fetch it again")


def _files(root: Path, record: CommitRecord) -> list[tuple[str, FileRecord]]:
    """Index and tar of a column in the folder `root`."""
    naming = layout.naming_of(root)
    return [(layout.index_at(record, naming), record.index), (layout.tar_at(record, naming), record.tar)]


def _stage(data: Dataset, manifest: Manifest, root: Path, run: str) -> None:
    """Bring plans, failures and takedowns, and put the manifest: from then on it is this dataset, under way."""
    local, document = LocalStore(root), layout.dump_checked(manifest)
    if local.exists(layout.MANIFEST):
        if local.read(layout.MANIFEST, at_most=storage.DOCUMENT) != document:
            raise PlanError(f"{root} holds another dataset, or other columns of this; choose another folder")
        return
    plans = [plan.name_of(number) for number in range(len(plan.generations(manifest)))]
    beside = [plan.skipped_beside(Path(name)).name for name in plans]
    named = {name: name for name in (*plans, *beside, layout.FAILURES, takedown.FILE)}
    if layout.is_hashed(layout.naming(data.manifest)):
        named = {layout.FAILURES: layout.FAILURES, **bucket.files(data.manifest)}
        named = {near: far for near, far in named.items() if near in (*plans, *beside, layout.FAILURES, takedown.FILE)}
    for near, far in named.items():
        try:
            _copy(data.store, far, root, near, run)
        except FileNotFoundError:
            if near in plans:
                raise CorruptDataError(f"{data.store.where(far)} is missing") from None
    local.put(layout.MANIFEST, document, run)
    for problem in verify.verify_plan(root):
        raise CorruptDataError(f"{data.url}: {problem.file} {problem.what}")


def _is_here(root: Path, record: CommitRecord) -> bool:
    try:
        near = columns.committed(root, record.shard, record.column)
    except CorruptDataError:
        return False
    return near is not None and replace(near, run="") == replace(record, run="")


def _fetch(data: Dataset, record: CommitRecord, root: Path, run: str) -> None:
    naming = layout.naming(data.manifest)
    far = (layout.index_at(record, naming), layout.tar_at(record, naming))
    for there, (near, file) in zip(far, _files(root, record), strict=True):
        try:
            _copy(data.store, there, root, near, run, file)
        except FileNotFoundError:
            raise CorruptDataError(f"{data.store.where(there)} is missing") from None
    near = layout.commit_name(record.shard, record.column, layout.naming_of(root))
    LocalStore(root).put(near, layout.dump_checked(record), run)


def _copy(store: Store, far: str, root: Path, near: str, run: str, file: FileRecord | None = None) -> None:
    """A file in pieces, whole or not at all. Raises CorruptDataError where it is not `file`."""
    size = store.size(far) if file is None else file.size
    sha256 = hashlib.sha256()
    with LocalStore(root).create(near, run) as made:
        for begin in range(0, size, _PIECE):
            piece = store.read_range(far, begin, min(_PIECE, size - begin))
            sha256.update(piece)
            made.write(piece)
        if file is not None and sha256.hexdigest() != file.sha256:
            raise CorruptDataError(f"{store.where(far)} is not what its commit record says")
