"""How far a build is: what is committed, who is at work, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openuni.shards import columns, failures, layout, lock, verify
from openuni.shards.layout import Manifest
from openuni.shards.lock import Holder
from openuni.storage import DOCUMENT, LocalStore
from openuni_pipelines.engine.monitor import RunProgress


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

    @property
    def complete(self) -> bool:
        return self.manifest is not None and all(done == self.manifest.shards for done in self.committed.values())


def look(root: Path) -> State:
    """The state of the dataset at `root`. Raises OpenUniError where there is none and nobody makes one."""
    holder = lock.read(root)
    if holder is not None and not lock.alive(root / layout.LOCK, holder):
        holder = None
    if holder is not None and not (root / layout.MANIFEST).exists():
        return State(holder, None, {}, None, {})
    manifest = verify.manifest(root)
    committed = dict.fromkeys(manifest.columns, 0)
    for shard in range(manifest.shards):
        for column, fingerprint in manifest.columns.items():
            record = columns.committed(root, shard, column)
            committed[column] += record is not None and record.fingerprint == fingerprint
    store, progress = LocalStore(root), None
    if store.exists(layout.PROGRESS):
        data = store.read(layout.PROGRESS, at_most=DOCUMENT)
        progress = layout.parse_json(RunProgress, data, store.where(layout.PROGRESS))
    failed = Counter((failure.stage, failure.kind) for failure in failures.read(root))
    return State(holder, manifest, committed, progress, failed)
