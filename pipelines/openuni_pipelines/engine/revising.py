"""Changing a dataset in a bucket: what `changes` and `removing` do to a folder, as a new revision.

A local folder stages unfinished shards. Files that differ go into the bucket beside the existing ones, and count once
the revision is published; the files that they replace are then deleted. After a kill, the same command resumes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import openuni
from openuni import outputs, storage
from openuni.errors import PlanError
from openuni.experts import sets
from openuni.shards import bucket, columns, failures, layout, lease, plan, revisions, takedown
from openuni.shards.failures import Failure
from openuni.shards.index import Row
from openuni.shards.layout import CommitRecord, Manifest
from openuni.shards.revisions import Place, Revision
from openuni.shards.verify import Problem
from openuni.storage import LocalStore
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine import changes, publishing
from openuni_pipelines.engine.monitor import RunProgress
from openuni_pipelines.engine.publishing import Again, Target
from openuni_pipelines.engine.recipe import RGB, Recipe
from openuni_pipelines.engine.run import Execution, complete, holding, job_of, make_executor, new_id
from openuni_pipelines.engine.stages import Job

Tell = Callable[[RunProgress], None] | None
_FOLDER = "change"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the dataset at `store` by the run that holds it; `root` stages it."""

    store: ObjectStore
    base: Revision
    root: Path
    run: str
    is_resumed: bool
    """Whether an earlier change had left something to do."""

    def stage(self, manifest: Manifest) -> None:
        """Bring plans, takedowns and failures into the folder, to change what `manifest` says.

        What an earlier run has left there of the same change stays.
        """
        local = LocalStore(self.root)
        data = layout.dump_checked(manifest)
        if local.exists(layout.MANIFEST) and local.read(layout.MANIFEST, at_most=storage.DOCUMENT) == data:
            return
        bucket.empty(self.root)
        bucket.stage(self.store, self.base.files, self.base.manifest, self.root, self.run)
        local.put(layout.MANIFEST, data, self.run)

    def job(self, manifest: Manifest, made: Recipe, what: bytes) -> Job:
        """A run that makes what differs; `what` tells changes of one dataset apart."""
        job = job_of(self.root, self.run, manifest, made)
        return replace(job, url=self.store.url, records=revisions.change_folder(self.base, what))

    def carry_out(
        self, job: Job, manifest: Manifest, execution: Execution, progress: Tell = None, again: Again | None = None
    ) -> None:
        """Run `job` to its end and publish what it made."""
        with make_executor(execution, job) as executor:
            complete(job, manifest, executor, execution, progress, Target(job, self.base.records, again))
        made = self.made(job.records)
        stages = {(record.shard, name) for record in made.values() for name in _stages(job.recipe, record.column)}
        kept = [f for f in failures.read(self.root) if (f.shard, f.stage) not in stages]
        self.publish(manifest, made, [*kept, *bucket.read_failures(self.store, list(made.values()))])

    def made(self, folder: str) -> dict[Place, CommitRecord]:
        """What this change, under whichever run, has committed so far."""
        found = bucket.records(self.store, sorted(bucket.committed(self.store, folder)), folder)
        return {(record.shard, record.column): record for record in found}

    def publish(self, manifest: Manifest, made: Mapping[Place, CommitRecord], failed: Sequence[Failure]) -> None:
        """Make this what the dataset is, and delete what it replaces. Raises PlanError where a column is missing."""
        there = {**self.base.records, **made}
        records = {place: r for place, r in there.items() if manifest.columns.get(r.column) == r.fingerprint}
        whole = replace(self.base, manifest=manifest, records=records)
        if not whole.is_complete:
            raise PlanError(f"{self.store.url} is not finished: run its `openuni build` again first")
        failures.write(self.root, failed, self.run)
        publish(self.store, self.base, self.root, manifest, records.values(), self.run)


def publish(
    store: ObjectStore, base: Revision, root: Path, manifest: Manifest, records: Iterable[CommitRecord], run: str
) -> None:
    """Make `manifest` and `records` what the dataset is, with the plans, failures and takedowns that lie in `root`."""
    names = [layout.FAILURES, takedown.FILE]
    for number in range(len(plan.generations(manifest))):
        path = root / plan.name_of(number)
        names += [path.name, plan.skipped_beside(path).name]
    files = {name: root / name for name in names if (root / name).exists()}
    revisions.publish(store, base, manifest, records, files, run)
    settle(store, run)


@contextmanager
def changing(url: str, staging: Path | None = None) -> Iterator[Change]:
    """Hold the dataset at `url` for a change, after finishing what an earlier change left undone.

    Raises PlanError if there is no complete dataset, HeldError naming who else works on it.
    """
    store = ObjectStore(url)
    if not store.exists(layout.MANIFEST):
        raise PlanError(f"{url} is not a dataset: it has no {layout.MANIFEST}")
    bucket.claim(store)
    root = (staging or outputs.staging(store.url)) / _FOLDER
    storage.claim(root)
    with holding(root) as run, lease.holding(store, run, None):
        is_resumed = not revisions.is_settled(store)
        settle(store, run)
        base = revisions.current(store)
        if base is None or not base.is_complete:
            raise PlanError(f"{url} is not finished: run its `openuni build` again first")
        yield Change(store, base, root, run, is_resumed)
        LocalStore(root.parent).delete_folder(_FOLDER)
    with suppress(OSError):
        root.rmdir()


def settle(store: ObjectStore, run: str) -> None:
    """Finish the last change: show it to readers, write facts and data card, delete what it replaced."""
    if revisions.is_settled(store):
        return
    revisions.swap_in(store)
    publishing.describe(store, run)
    revisions.sweep(store, run)


def index(url: str) -> int:
    """Put catalog, facts and data card of the complete dataset at `url` again; returns how many commit records it has.

    A dataset that was changed has its catalog by name: of that only what lacks is put. Raises PlanError where the
    dataset is not complete, HeldError where somebody works on it.
    """
    store, run = ObjectStore(url), new_id()
    manifest = bucket.read_manifest(store)
    if manifest is None:
        raise PlanError(f"{store.url} is not a dataset: it has no {layout.MANIFEST}")
    with lease.holding(store, run, None):
        settle(store, run)
        if revisions.latest(store):
            publishing.describe(store, run)
        elif not publishing.finish(store, manifest, run):
            raise PlanError(f"{store.url} is not finished: run its `openuni build` again first")
        return len(openuni.open(store.url).records())


def add(
    url: str,
    names: Sequence[str],
    execution: Execution,
    progress: Tell = None,
    *,
    trust: bool = False,
    staging: Path | None = None,
) -> Manifest:
    """As `changes.add`, in a bucket. An upgraded column replaces the old one only when all of it is made."""
    sets.check_trusted(names, trust)
    with changing(url, staging) as change:
        base = change.base.manifest
        made = changes.adding(url, base, names, base.columns)
        manifest = replace(base, columns={**base.columns, **made.columns})
        if manifest.columns == base.columns:  # all of it is there
            return base
        change.stage(manifest)
        changes.write_standing(change.root, base, manifest.columns, change.run)
        job = change.job(manifest, made, layout.dump_checked(manifest))
        change.carry_out(job, manifest, execution, progress)
    return manifest


def drop(url: str, column: str) -> int:
    """As `changes.drop`, in a bucket: the bytes of the column's files; 0 where a killed `drop` had only to be ended."""
    changes.check_droppable(column)
    with tempfile.TemporaryDirectory(prefix="openuni-drop-") as folder, changing(url, Path(folder)) as change:
        base = change.base.manifest
        if column not in base.columns and change.is_resumed:
            return 0
        if column not in base.columns:
            raise PlanError(f"{url} has no column {column!r}; it has {', '.join(base.columns)}")
        manifest = replace(base, columns={name: made for name, made in base.columns.items() if name != column})
        change.stage(manifest)
        changes.write_standing(change.root, base, manifest.columns, change.run)
        change.publish(manifest, {}, failures.read(change.root))
        return sum(r.tar.size + r.index.size for r in change.base.records.values() if r.column == column)


def repair(
    url: str,
    problems: Sequence[Problem],
    execution: Execution,
    progress: Tell = None,
    *,
    trust: bool = False,
    staging: Path | None = None,
) -> list[Failure]:
    """As `changes.repair`, in a bucket. Returns the failures that are new: clips that could not be made again."""
    with changing(url, staging) as change:
        manifest = change.base.manifest
        made = changes.repairing(url, manifest, problems, trust=trust)
        change.stage(manifest)
        again = changes.damaged(made, problems)
        return _make_again(change, made, again, execution, progress)


def retry_failed(change: Change, made: Recipe, execution: Execution, progress: Tell = None) -> list[Failure]:
    """As `changes.reopen_failed` and the run after it, in a bucket."""
    change.stage(change.base.manifest)

    def rgb(shard: int) -> Sequence[Row]:
        with tempfile.TemporaryDirectory(prefix="openuni-retry-") as folder:
            bucket.fetch(change.store, change.base.records[shard, RGB], Path(folder), change.run, index_only=True)
            return columns.rows(Path(folder), shard, RGB)

    again = changes.failed(made, failures.read(change.root), rgb)
    return _make_again(change, made, again, execution, progress) if again else []


def _make_again(change: Change, made: Recipe, again: Again, execution: Execution, progress: Tell) -> list[Failure]:
    manifest, before = change.base.manifest, failures.read(change.root)
    asked = sorted((shard, column, sorted(keys)) for shard, each in again.items() for column, keys in each.items())
    job = change.job(manifest, made, layout.dump_checked(manifest) + repr(asked).encode())
    change.carry_out(job, manifest, execution, progress, again)
    after = failures.read(change.root)
    return [one for one in after if one not in before]


def _stages(made: Recipe, column: str) -> set[str]:
    """The stages that were run for a column: its own, and those before it that make no column."""
    maker = made.maker(column).name
    return {maker} | {name for name in made.upstream(maker) if made[name].column not in made.columns}
