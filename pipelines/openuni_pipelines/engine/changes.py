"""Changing a dataset that is committed: try failed clips again, make damaged samples again, add and drop columns.

All of it is one idea. A committed column is unpacked back into results, those that are to be made again are left out,
and its commit record is removed; from there an ordinary run goes on, and can be killed as any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from openuni.errors import PlanError
from openuni.experts import sets
from openuni.sample import check_key
from openuni.shards import catalog, columns, failures, layout, results, verify
from openuni.shards.failures import Failure
from openuni.shards.index import Row
from openuni.shards.layout import Manifest
from openuni.shards.verify import Problem
from openuni.storage import LocalStore
from openuni_pipelines.engine import planning
from openuni_pipelines.engine.monitor import RunProgress
from openuni_pipelines.engine.recipe import KEEP_DOUBTFUL, RGB, Recipe, recipe
from openuni_pipelines.engine.run import Execution, complete, expert_name, holding, job_of, make_executor, recipe_of
from openuni_pipelines.engine.stages import Job

Tell = Callable[[RunProgress], None] | None
_NAMES = (layout.commit_name, layout.tar_name, layout.index_name)
"""Of the files that a column has in a shard, in the order in which they go."""


def reopen_failed(job: Job) -> int:
    """Reopen the columns of the clips in `failures.parquet`, all other samples kept. Returns the number of clips.

    A clip that was dropped is in no column: the shard gets other keys, so all its columns are written again.
    """
    known = failures.read(job.root)
    for shard, again in failed(job.recipe, known, lambda shard: columns.rows(job.root, shard, RGB)).items():
        reopen(job, shard, again)
    return len({failure.key for failure in known})


def failed(
    made: Recipe, known: Sequence[Failure], rgb: Callable[[int], Sequence[Row]]
) -> dict[int, dict[str, set[str]]]:
    """What is to be made again so that these failures are tried again: keys by shard and column."""
    by_shard: defaultdict[int, list[Failure]] = defaultdict(list)
    for failure in known:
        by_shard[failure.shard].append(failure)
    found: dict[int, dict[str, set[str]]] = {}
    for shard, here in by_shard.items():
        again: defaultdict[str, set[str]] = defaultdict(set)
        kept = {row.key for row in rgb(shard)}
        for failure in here:
            for column in made.columns:
                if failure.key not in kept or failure.stage in made.upstream(made.maker(column).name):
                    again[column].add(failure.key)
        found[shard] = again
    return found


def reopen_damaged(job: Job, problems: Sequence[Problem]) -> None:
    """Reopen the columns that `problems` name. Whatever of them is whole is kept, found by its hash.

    Where RGB is damaged all columns of the shard are reopened: a clip that can no longer be cut from its video leaves
    them all. What no column is to blame for, such as the catalog, every run makes anew.
    """
    for shard, columns_again in damaged(job.recipe, problems).items():
        reopen(job, shard, columns_again)


def damaged(made: Recipe, problems: Sequence[Problem]) -> dict[int, dict[str, set[str]]]:
    """What is to be made again of what `problems` name: keys by shard and column."""
    found: defaultdict[int, dict[str, set[str]]] = defaultdict(dict)
    for problem in (problem for problem in problems if problem.column):
        names = tuple(made.columns) if problem.column == RGB else (problem.column,)
        for column in names:
            again = found[problem.shard].setdefault(column, set())
            if problem.key and column == problem.column:
                again.add(problem.key)
    return found


def reopen(job: Job, shard: int, again: Mapping[str, Collection[str]]) -> None:
    """Unpack columns of a shard without the keys that are to be made again, and remove their commit records.

    Failures that stay as they are go back beside the results. RGB's record goes last: a kill in between leaves the
    shard's keys as they were.
    """
    results.open_work(job.root, shard)
    for column in again:
        columns.unpack(job.root, shard, column, job.recipe.columns[column], again[column], job.run)
    remade = {job.recipe.maker(column): keys for column, keys in again.items()}
    for failure in failures.read(job.root):
        for stage, keys in remade.items():
            if (failure.shard, failure.stage) == (shard, stage.name) and failure.key not in keys:
                failures.save(job.root, failure, stage.fingerprint, job.run)
    for column in sorted(again, key=lambda name: name == RGB):
        columns.uncommit(job.root, shard, column)


def repair(
    root: Path, problems: Sequence[Problem], execution: Execution, progress: Tell = None, *, trust: bool = False
) -> None:
    """Make the damaged samples of a dataset again from their videos.

    Raises PlanError where there is no plan, or an expert is not installed in the version that made the column, and
    OpenUniError where a model file is a program and `trust` is not given.
    """
    manifest = verify.manifest(root)
    for problem in verify.verify_plan(root):
        raise PlanError(f"{root / problem.file} {problem.what}")
    made = repairing(root, manifest, problems, trust=trust)
    with holding(root) as run:
        job = job_of(root, run, manifest, made)
        reopen_damaged(job, problems)
        with make_executor(execution, job) as executor:
            complete(job, manifest, executor, execution, progress)


def repairing(place: Path | str, manifest: Manifest, problems: Sequence[Problem], *, trust: bool) -> Recipe:
    """What makes the damaged columns again. Raises PlanError where that cannot be done, and OpenUniError where a model
    file is a program and `trust` is not given.
    """
    touched = {problem.column for problem in problems if problem.column}
    if RGB in touched and not manifest.plan_sha256:
        raise PlanError(f"{place} was not built from videos, so its RGB cannot be made again; restore it from a copy")
    names = manifest.columns if RGB in touched else {c: p for c, p in manifest.columns.items() if c in touched}
    made = recipe_of(manifest, names)
    sets.check_trusted([expert.name for expert in made.experts], trust)
    return made


def add(
    root: Path, names: Sequence[str], execution: Execution, progress: Tell = None, *, trust: bool = False
) -> Manifest:
    """Let the experts `names` annotate what is there. Each writes its own column, also in place of another version.

    Raises PlanError where an expert would also replace a column that was not asked for, and OpenUniError where a model
    file is a program and `trust` is not given.
    """
    sets.check_trusted(names, trust)
    with holding(root) as run:
        manifest = verify.manifest(root)
        if any(columns.committed(root, shard, RGB) is None for shard in range(manifest.shards)):
            raise PlanError(f"{root} is not finished: run its `openuni build` again first")
        made = adding(root, manifest, names, _whole(root, manifest))
        then = {**manifest.columns, **made.columns}
        write_standing(root, manifest, then, run)
        manifest = replace(manifest, columns=then)
        # From here on the dataset has the column, although no shard has it yet: a killed `add` shows in `status`,
        # and the same command goes on with it.
        LocalStore(root).put(layout.MANIFEST, layout.dump_checked(manifest), run)
        job = job_of(root, run, manifest, made)
        with make_executor(execution, job) as executor:
            complete(job, manifest, executor, execution, progress)
    return manifest


def adding(place: Path | str, manifest: Manifest, names: Sequence[str], whole: Mapping[str, str]) -> Recipe:
    """What makes the columns of the experts `names`, which may read the columns that are `whole`.

    Raises PlanError where an expert would also replace a column that was not asked for.
    """
    kept = manifest.configuration.get(KEEP_DOUBTFUL, False)
    made = recipe(names, (), manifest.columns[RGB], whole, keep_doubtful=kept)
    planning.check_ready(made.experts)
    for column, fingerprint in made.columns.items():
        name = made.maker(column).name
        if name not in (*names, RGB) and manifest.columns.get(column, fingerprint) != fingerprint:
            raise PlanError(
                f"{name} is required, and would replace column {column} of {manifest.columns[column]}; "
                f"name it too if you want that: openuni add {place} {name} {' '.join(names)}"
            )
    return made


def _whole(root: Path, manifest: Manifest) -> dict[str, str]:
    """The columns that every shard has, with their fingerprints: what an expert can read."""

    def has(shard: int, column: str, made: str) -> bool:
        record = columns.committed(root, shard, column)
        return record is not None and record.fingerprint == made

    shards = range(manifest.shards)
    return {name: made for name, made in manifest.columns.items() if all(has(shard, name, made) for shard in shards)}


def drop(root: Path, column: str) -> int:
    """Remove one column; returns the bytes it took. Raises PlanError if there is none, or it is RGB."""
    with holding(root) as run:
        manifest = verify.manifest(root)
        check_droppable(column)
        store = LocalStore(root)
        naming = layout.naming(manifest)
        files = [name(shard, check_key(column), naming) for shard in range(manifest.shards) for name in _NAMES]
        there = [name for name in files if store.exists(name)]
        freed = sum(store.size(name) for name in there)
        if column in manifest.columns or there or not store.exists(catalog.HEAD):
            # The failures while the manifest tells whose they are, then the manifest: what a killed `drop` leaves is no
            # longer part of the dataset. The catalog last: where there is none, that run did not come to its end.
            kept = {name: made for name, made in manifest.columns.items() if name != column}
            write_standing(root, manifest, kept, run)
            catalog.retire(root)
            store.put(layout.MANIFEST, layout.dump_checked(replace(manifest, columns=kept)), run)
            for name in there:
                store.delete(name)
            catalog.write(root, run)
        if column not in manifest.columns and not there:
            raise PlanError(f"{root} has no column {column!r}; it has {', '.join(manifest.columns)}")
    return freed


def write_standing(root: Path, manifest: Manifest, then: Mapping[str, str], run: str) -> None:
    """Keep the failures of experts that make a column still, once the columns of `manifest` are `then`."""
    gone = set(map(expert_name, manifest.columns.values())) - set(map(expert_name, then.values()))
    known = failures.read(root)
    others = [failure for failure in known if failure.stage not in gone]
    if others != known:
        failures.write(root, others, run)


def check_droppable(column: str) -> None:
    """Raise PlanError where a dataset would be nothing without the column."""
    if column == RGB:
        raise PlanError("every other column annotates rgb; delete the folder to drop it")
