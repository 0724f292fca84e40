"""How far a build is: what is committed, who is at work, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openuni.errors import OpenUniError
from openuni.shards import bucket, columns, layout, lease, lock, parts, revisions, verify
from openuni.shards.layout import Manifest
from openuni.shards.lock import Holder
from openuni.shards.parts import Part
from openuni.storage import DOCUMENT, LocalStore
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine.monitor import RunProgress


@dataclass(frozen=True, slots=True)
class PartState:
    """A part that has begun. Without a `holder` it is through, or lost where its `progress` is not finished."""

    part: Part
    holder: Holder | None
    progress: RunProgress | None


@dataclass(frozen=True, slots=True)
class State:
    """A dataset at this moment. `holder` is the run at work; without a `manifest` it is still planning."""

    holder: Holder | None
    manifest: Manifest | None
    committed: Mapping[str, int]
    """Shards by column."""
    progress: RunProgress | None
    failed: Mapping[tuple[str, str], int]
    """Clips by stage and kind of fault."""
    parts: Sequence[PartState] = ()
    """Parts that are not folded into the dataset yet."""

    @property
    def complete(self) -> bool:
        return self.manifest is not None and all(done == self.manifest.shards for done in self.committed.values())


@dataclass(frozen=True, slots=True)
class FarState:
    """A dataset in a bucket: shards committed by column, and who holds a lease, by part or `whole`."""

    shards: int
    committed: Mapping[str, int]
    leases: Mapping[str, Holder]

    @property
    def complete(self) -> bool:
        return all(done == self.shards for done in self.committed.values())


def look_far(url: str) -> FarState:
    """The state of the dataset at `url`. Raises OpenUniError where there is none."""
    store = ObjectStore(url)
    manifest = bucket.read_manifest(store)
    if manifest is None:
        raise OpenUniError(f"{url} is not a dataset: it has no {layout.MANIFEST}")
    # Before the first change a listing says it, also of a build under way.
    changed = revisions.current(store) if revisions.latest(store) else None
    manifest = changed.manifest if changed else manifest
    count = Counter(column for _, column in (changed.records if changed else bucket.committed(store)))
    leases = {name: found.holder for name, found in lease.all_leases(store).items()}
    return FarState(manifest.shards, {column: count[column] for column in manifest.columns}, leases)


def look(root: Path) -> State:
    """The state of the dataset at `root`. Raises OpenUniError where there is none and nobody makes one."""
    holder = _holder(root)
    if holder is not None and not (root / layout.MANIFEST).exists():
        return State(holder, None, {}, None, {})
    manifest = verify.manifest(root)
    committed = dict.fromkeys(manifest.columns, 0)
    for shard in range(manifest.shards):
        for column, fingerprint in manifest.columns.items():
            record = columns.committed(root, shard, column)
            committed[column] += record is not None and record.fingerprint == fingerprint
    failed = Counter((failure.stage, failure.kind) for failure in parts.all_failures(root, manifest.shards))
    homes = [(part, parts.home(root, part)) for part in parts.there(root)]
    begun = [PartState(part, _holder(home), _progress(home)) for part, home in homes]
    return State(holder, manifest, committed, _progress(root), failed, begun)


def _holder(home: Path) -> Holder | None:
    """Who is at work on a dataset or a part."""
    holder = lock.read(home)
    return holder if holder is not None and lock.alive(home / layout.LOCK, holder) else None


def _progress(home: Path) -> RunProgress | None:
    store = LocalStore(home)
    if not store.exists(layout.PROGRESS):
        return None
    return layout.parse_json(RunProgress, store.read(layout.PROGRESS, at_most=DOCUMENT), store.where(layout.PROGRESS))
