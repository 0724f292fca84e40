"""How far a build is: what is committed, who is at work, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openuni.shards import columns, layout, lock, parts, verify
from openuni.shards.layout import Manifest
from openuni.shards.lock import Holder
from openuni.shards.parts import Part
from openuni.storage import DOCUMENT, LocalStore
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
