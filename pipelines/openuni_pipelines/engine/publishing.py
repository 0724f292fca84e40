"""What a run does in addition if the dataset is in a bucket: its folder is then only a staging folder.

Each column is put into the bucket when it is committed in the folder; a shard is deleted from the folder when all its
columns are in the bucket. The bucket's state counts: before a shard is begun, the folder is made to agree with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import openuni
from openuni.shards import bucket, catalog, columns, facts, failures, layout, results, revisions
from openuni.shards.bucket import BeatenError
from openuni.shards.layout import CommitRecord, Manifest
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine import card
from openuni_pipelines.engine.recipe import RGB
from openuni_pipelines.engine.stages import Job

if TYPE_CHECKING:
    from openuni.shards.revisions import Place

Again = Mapping[int, Mapping[str, Collection[str]]]
"""By shard and column, the keys of the samples that are to be made again; all others are kept."""


class Target:
    """The bucket that a run builds into, or whose dataset it changes; then `base` has the existing columns.

    Columns in `again` are reopened: undamaged clips are kept, the others are made again.
    """

    def __init__(self, job: Job, base: Mapping[Place, CommitRecord] | None = None, again: Again | None = None) -> None:
        self._job = job
        self._store = ObjectStore(job.url)
        self._made = bucket.committed(self._store, job.records)
        self._again = again or {}
        self._base = {
            (shard, column): record
            for (shard, column), record in (base or {}).items()
            if job.recipe.columns.get(column) == record.fingerprint
        }

    def prepare(self, shard: int) -> bool:
        """Make the folder agree with the bucket on a shard; False where the bucket has all of it."""
        while True:
            try:
                return self._agree(shard)
            except BeatenError:
                self.look_again(shard)

    def look_again(self, shard: int) -> None:
        """Learn which columns of a shard another run has committed since."""
        for column in self._job.recipe.columns:
            if self._store.exists(bucket.record_name(self._store, shard, column, self._job.records)):
                self._made.add((shard, column))

    def release(self, shard: int) -> None:
        """Free the folder of a shard that the bucket has."""
        bucket.forget(self._job.root, shard, self._job.recipe.columns)

    def _agree(self, shard: int) -> bool:
        root, names = self._job.root, list(self._job.recipe.columns)  # RGB first
        if all(self._has(shard, column) for column in names):
            self.release(shard)
            return False
        if any((shard, column) not in self._made for column in self._again.get(shard, {})):
            self._reopen(shard)
        for column in names:
            local = columns.committed(root, shard, column)
            if not self._has(shard, column):
                if local is not None:  # the run was killed between the commit here and the one there
                    bucket.push(self._store, root, shard, column, self._job.records)
                continue
            far = self._record(shard, column)
            if local is not None and far is not None and local.tar == far.tar:
                continue
            if column == RGB:  # what was made here looked at other frames
                self.release(shard)
                self._reopen(shard)
            if far is not None:
                bucket.fetch(self._store, far, root, self._job.run)
        return True

    def _has(self, shard: int, column: str) -> bool:
        place = shard, column
        return place in self._made or (place in self._base and column not in self._again.get(shard, {}))

    def _record(self, shard: int, column: str) -> CommitRecord | None:
        if (shard, column) in self._made:
            name = bucket.record_name(self._store, shard, column, self._job.records)
            return catalog.commit_record(self._store, name)
        return self._base.get((shard, column))

    def _reopen(self, shard: int) -> None:
        """Copy undamaged clips of the columns that are made again, as results; newer results are not touched."""
        root, run, made_by = self._job.root, self._job.run, self._job.recipe.columns
        opened = {column: keys for column, keys in self._again.get(shard, {}).items()
                  if (shard, column) not in self._made and (shard, column) in self._base}  # fmt: skip
        if opened:
            results.open_work(root, shard)
        for column, keys in opened.items():
            record, local = self._base[shard, column], columns.committed(root, shard, column)
            if local is not None and local.run == run:  # committed here, and on its way
                continue
            bucket.fetch(self._store, record, root, run, damaged=True)
            columns.unpack(root, shard, column, made_by[column], keys, run)
            columns.uncommit(root, shard, column)
            stage = self._job.recipe.maker(column)
            for failure in failures.read(root):
                if (failure.shard, failure.stage) == (shard, stage.name) and failure.key not in keys:
                    failures.save(root, failure, stage.fingerprint, run)


def finish(store: ObjectStore, manifest: Manifest, run: str) -> bool:
    """Once every column of every shard is committed, put what is derived from them. True: that is done."""
    if revisions.latest(store):  # it was, and has been changed since
        return True
    wanted = {(shard, column) for shard in range(manifest.shards) for column in manifest.columns}
    if not wanted <= bucket.committed(store):
        return False
    bucket.describe(store, manifest, run)
    describe(store, run)
    return True


def describe(store: ObjectStore, run: str) -> None:
    """Put what is derived from the catalog of a complete dataset: facts and data card."""
    data = openuni.open(store.url)
    if data.shards:
        facts.put(data, run)
        store.put(layout.CARD, card.render(data).encode(), run)
