"""What a run does beside its usual work where the dataset lies in a bucket: the folder it works in is a staging place.

Each column goes to the bucket when it is committed in the folder, and a shard leaves the folder when all its columns
are there. What the bucket holds is what counts: before a shard is begun, the folder is made to agree with it.
"""

from __future__ import annotations

import openuni
from openuni.shards import bucket, catalog, columns, layout
from openuni.shards.bucket import BeatenError
from openuni.shards.layout import Manifest
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine import card
from openuni_pipelines.engine.recipe import RGB
from openuni_pipelines.engine.stages import Job


class Target:
    """The bucket that a run builds into."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._store = ObjectStore(job.url)
        self._there = bucket.committed(self._store)

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
            if self._store.exists(layout.commit_name(shard, column)):
                self._there.add((shard, column))

    def release(self, shard: int) -> None:
        """Free the folder of a shard that the bucket has."""
        bucket.forget(self._job.root, shard, self._job.recipe.columns)

    def _agree(self, shard: int) -> bool:
        root, names = self._job.root, list(self._job.recipe.columns)  # RGB first
        if all((shard, column) in self._there for column in names):
            self.release(shard)
            return False
        for column in names:
            local = columns.committed(root, shard, column)
            if (shard, column) not in self._there:
                if local is not None:  # the run was killed between the commit here and the one there
                    bucket.push(self._store, root, shard, column)
                continue
            far = catalog.commit_record(self._store, shard, column)
            if local is not None and far is not None and local.tar == far.tar:
                continue
            if column == RGB:  # what was made here looked at other frames
                self.release(shard)
            bucket.pull(self._store, shard, column, root, self._job.run)
        return True


def finish(store: ObjectStore, manifest: Manifest, run: str) -> bool:
    """Once every column of every shard is committed, put what is derived from them. True: that is done."""
    wanted = {(shard, column) for shard in range(manifest.shards) for column in manifest.columns}
    if not wanted <= bucket.committed(store):
        return False
    bucket.describe(store, manifest, card.render(openuni.open(store.url)).encode(), run)
    return True
