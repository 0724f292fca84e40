"""A run: what carries a dataset from its plan to its last commit, whoever asked for it (build, add, retry, repair)."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter

import openuni
from openuni import experts, outputs
from openuni.errors import OpenUniError, PlanError
from openuni.shards import catalog, failures, layout, parts, verify
from openuni.shards.columns import committed
from openuni.shards.failures import Failure
from openuni.shards.layout import Manifest
from openuni.shards.lock import HeldError, RunLock
from openuni.shards.parts import Part
from openuni.shards.plan import Plans
from openuni.storage import DISK_ERRORS, LocalStore, Store, disk_sentence, is_object_url, system_sentence
from openuni.video import Limits
from openuni_pipelines.engine import card, publishing, stopping
from openuni_pipelines.engine.executors import Executor, Fault, InProcess, RayPools
from openuni_pipelines.engine.monitor import Monitor, RunProgress
from openuni_pipelines.engine.parallel import Parallel
from openuni_pipelines.engine.recipe import COMPACT, KEEP_DOUBTFUL, RGB, Recipe, recipe, stored_normalisation
from openuni_pipelines.engine.shard import ShardBuild
from openuni_pipelines.engine.stages import Expand, Job


@dataclass(frozen=True, slots=True)
class Execution(Parallel):
    """Where and within which limits a build works. None of it changes what is made."""

    time_limit: float = 900.0
    """Seconds that one expert may take for one clip."""
    min_free: float = 1.0
    """GiB that must stay free on the disk."""
    worker_memory: float | None = field(default=None, metadata={"shown": "an equal share of the machine"})
    """GiB one worker may allocate."""


@contextmanager
def holding(root: Path, sweeps: Sequence[str] = (), part: Part | None = None) -> Iterator[str]:
    """Hold the dataset, or a part of it, for a new run and give the run's id. A full disk ends in one sentence.

    `sweeps`: folders besides a dataset's own in which killed runs may have left temporary files. What parts wrote down
    is folded into the dataset's own files once the whole is held.

    SIGINT and SIGTERM end the run in order: workers stopped, lock released, exit status 128 and the signal's number.
    A second one kills. Raises PlanError naming who else holds the dataset, OpenUniError where the folder cannot be
    written.
    """
    run = new_id()
    try:
        with stopping.stoppable() as received, RunLock(root, run, sweeps, part):
            if part is not None:
                yield run  # of the folders that it shares with other parts it empties none
                return
            _remove_empty_work(root)
            if parts.there(root):
                parts.fold(root, verify.manifest(root).shards, run)
            yield run
            # A worker of this run may have been killed, and those of a killed run have written until a moment ago.
            layout.sweep(root, sweeps)
            _remove_empty_work(root)
    except KeyboardInterrupt:
        _exit(received)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise OpenUniError(disk_sentence(root, error)) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise OpenUniError(system_sentence(error, root)) from error
        raise


@contextmanager
def holding_store(out: Path | str, sweeps: Sequence[str] = ()) -> Iterator[Store]:
    """Hold a folder, or a place in a bucket, whose files a run puts one by one; see `holding`."""
    if not is_object_url(str(out)):
        with holding(Path(out), sweeps):
            yield LocalStore(Path(out))
        return
    try:
        with stopping.stoppable() as received, outputs.holding(str(out), new_id()) as store:
            yield store
    except KeyboardInterrupt:
        _exit(received)


def _exit(received: Sequence[int]) -> NoReturn:
    """End the process that was asked to stop."""
    number = received[0] if received else signal.SIGINT
    name = signal.Signals(number).name
    print(f"stopped by {name}; nothing is half committed: run the same command again to go on", file=sys.stderr)
    sys.exit(128 + number)


def _remove_empty_work(root: Path) -> None:
    with suppress(OSError):  # it was never made, or shards are unfinished
        (root / layout.WORK).rmdir()


def start_over(root: Path) -> None:
    """Forget what an interrupted run committed in a folder that never got a manifest: it may be of other clips.

    Raises PlanError where the folder got one. To be asked while it is held: what a run left that was killed after its
    manifest is removed all the same.
    """
    if (root / layout.MANIFEST).exists():
        raise PlanError(f"{root} holds a dataset already; choose another --out or delete it")
    store = LocalStore(root)
    catalog.retire(root)
    for folder in layout.commit_folders(layout.FOLDERS, layout.MOST_SHARDS):
        for name in filter(layout.parse_commit_name, store.list(folder)):
            store.delete(name)


def new_id() -> str:
    """A run's id: the time it began and a few random digits."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


def make_executor(execution: Execution, job: Job) -> Executor:
    """Workers for the tasks of `job`, here or on Ray."""
    if execution.workers == 0:
        return InProcess(job)
    return RayPools(
        job,
        workers=execution.workers,
        address=execution.ray_address,
        time_limit=execution.time_limit,
        worker_memory_gib=execution.worker_memory,
    )


def job_of(root: Path, run: str, manifest: Manifest, made: Recipe) -> Job:
    """What the tasks of a run on an existing dataset share."""
    limits = TypeAdapter(Limits).validate_python(manifest.configuration.get("limits", {}))
    compact = bool(manifest.configuration.get(COMPACT))
    return Job(root.resolve(), run, made, stored_normalisation(manifest), limits, compact=compact)


def recipe_of(manifest: Manifest, names: Mapping[str, str] | None = None) -> Recipe:
    """The experts that made `names` (column to fingerprint; default: all columns).

    Raises PlanError where one is not installed in that version: its column cannot be made again as it was.
    """
    prints = {column: made for column, made in (names or manifest.columns).items() if column != RGB}
    kept = manifest.configuration.get(KEEP_DOUBTFUL, False)
    for column, fingerprint in prints.items():
        installed = experts.get(expert_name(fingerprint)).fingerprint(manifest.columns, keep_doubtful=kept)
        if installed != fingerprint:
            raise PlanError(
                f"column {column} was made by {fingerprint}, and {installed} is installed: it cannot be made again as "
                f"it was; `openuni add {expert_name(fingerprint)}` makes the whole column anew"
            )
    # What a clip must have to stay was decided when RGB was committed.
    require = manifest.configuration.get("require", []) if names is None or RGB in names else []
    made = [expert_name(made) for made in prints.values()]
    return recipe(made, require, manifest.columns[RGB], manifest.columns, keep_doubtful=kept)


def expert_name(fingerprint: str) -> str:
    """`fastdepth` of `fastdepth-1-0123abcd`."""
    return fingerprint.rsplit("-", 2)[0]


def complete(
    job: Job,
    manifest: Manifest,
    executor: Executor,
    execution: Execution,
    progress: Callable[[RunProgress], None] | None = None,
    target: publishing.Target | None = None,
) -> None:
    """Do what is left of the job's columns, shard by shard, and unless it is a part fold and describe the dataset.

    `target`: the bucket that the dataset is built into or changed in, and what it has already.

    Raises OpenUniError where it cannot go on; what is committed stays.
    """
    root = job.root
    check_space(root, execution)
    plans, numbers = Plans(root, manifest), job.shards(manifest.shards)
    columns = tuple(job.recipe.columns)
    clips = manifest.clips if job.part is None else sum(plans.size(number) for number in numbers)
    stages = {stage.name: clips for stage in job.recipe.stages}
    stages["commit"] = len(numbers) * len(columns)
    with Monitor(job.home, job.run, stages, len(numbers), columns, progress) as monitor:
        monitor.log("started", clips=clips, shards=len(numbers), columns=dict(manifest.columns))
        _drive(job, numbers, plans, executor, execution, monitor, target)
        if job.part is None and not job.url:
            describe(root, job.run)
        monitor.log("finished", failures=len(failures.read(job.home)))


def describe(root: Path, run: str) -> None:
    """Write what is derived from a complete dataset: the catalog, and the data card."""
    catalog.write(root, run)
    LocalStore(root).put(layout.CARD, card.render(openuni.open(str(root))).encode(), run)


def is_complete(root: Path, manifest: Manifest) -> bool:
    """Whether every column of every shard is committed."""
    there = catalog.places(LocalStore(root), manifest)  # most often something is missing, and a listing says so
    if len(there) < manifest.shards * len(manifest.columns):
        return False
    for number in range(manifest.shards):
        for column, fingerprint in manifest.columns.items():
            record = committed(root, number, column)
            if record is None or record.fingerprint != fingerprint:
                return False
    return True


def finish_parts(root: Path, manifest: Manifest) -> bool:
    """Once nobody works on a part any more and all is committed, fold and describe the dataset. True: that is done.

    Every part asks for it when it has let go of its lock, so the last one to do so finds nobody at work.
    """
    if not is_complete(root, manifest):
        return False
    try:
        with holding(root) as run:
            describe(root, run)
    except HeldError:  # who holds a part, or folds already, sees to it
        return False
    return True


def _drive(
    job: Job,
    numbers: range,
    plans: Plans,
    executor: Executor,
    execution: Execution,
    monitor: Monitor,
    target: publishing.Target | None,
) -> None:
    """Keep the workers fed, a few shards at a time, until every column of these shards is committed."""
    known = failures.read(job.root) if job.part is None else parts.known_failures(job.root, job.part, numbers)
    upcoming = iter(numbers)
    active: dict[int, ShardBuild] = {}
    more = True
    while more or active:
        stopping.check()
        while more and executor.running < 2 * executor.slots and all(not shard.has_due for shard in active.values()):
            number = next(upcoming, None)
            if number is None:
                more = False
            else:
                check_space(job.root, execution)
                if target is not None and not target.prepare(number):
                    monitor.shard_done(number, plans.size(number))
                    continue
                active[number] = ShardBuild(job, number, plans.shard(number))
                known = _settle(active, number, known, job, monitor, target)
        for shard in active.values():
            while executor.running < 2 * executor.slots and (task := shard.due()) is not None:
                executor.submit(task)
        monitor.tick(executor.running)
        for finished in executor.wait():
            if isinstance(finished.task, Expand):
                raise TypeError("planning is over")
            if isinstance(finished.result, Fault) and finished.result.kind == "machine":
                raise OpenUniError(finished.result.error)
            if isinstance(finished.result, Fault) and finished.result.kind == "beaten" and target is not None:
                monitor.finished(finished, final=False)
                number = finished.task.shard
                target.look_again(number)
                if target.prepare(number):  # begun anew, from the RGB that counts
                    active[number] = ShardBuild(job, number, plans.shard(number))
                    known = _settle(active, number, known, job, monitor, target)
                else:
                    del active[number]
                    monitor.shard_done(number, plans.size(number))
                continue
            shard = active[finished.task.shard]
            monitor.finished(finished, final=shard.finished(finished))
            known = _settle(active, shard.number, known, job, monitor, target)


def _settle(
    active: dict[int, ShardBuild],
    number: int,
    known: list[Failure],
    job: Job,
    monitor: Monitor,
    target: publishing.Target | None,
) -> list[Failure]:
    """If nothing of this shard is under way: make its commits due, or write down what failed and close it.

    Returns the failures known afterwards.
    """
    shard = active[number]
    if not shard.idle or shard.commits():
        return known
    after = [f for f in known if f.shard != number or f.stage not in shard.remade] + shard.failures
    if after != known:
        failures.write(job.home, after, job.run)
    shard.close()
    if target is not None:
        target.release(number)
    monitor.shard_done(number, shard.clips)
    del active[number]
    return after


def check_space(root: Path, execution: Execution) -> None:
    """Raise OpenUniError when less than the wanted space is free."""
    free = shutil.disk_usage(root).free / 2**30
    if free < execution.min_free:
        raise OpenUniError(
            f"only {free:.2f} GiB are free under {root}, less than --min-free {execution.min_free:g}; "
            "make room and run the same command again"
        )
