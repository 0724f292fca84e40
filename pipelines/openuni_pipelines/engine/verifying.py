"""Every hash, member and frame count of a dataset, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openuni.errors import OpenUniError
from openuni.shards import bucket, columns, layout, revisions, verify
from openuni.shards.layout import CommitRecord, Manifest
from openuni.shards.verify import Checked, Problem
from openuni.storage import LocalStore
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine.parallel import mapping
from openuni_pipelines.engine.recipe import RGB
from openuni_pipelines.engine.run import Execution

_LITTLE = 256 << 20
"""Bytes that are checked in less time than Ray takes to start."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, a `Checked` a shard and column, and what is not as it was committed, in order."""

    checked: Sequence[Checked]
    problems: Sequence[Problem]

    @property
    def samples(self) -> int:
        return sum(one.samples for one in self.checked if one.column == RGB)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.checked)


def check(
    root: Path,
    manifest: Manifest,
    execution: Execution,
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check every column of every shard; `quick` decodes nothing. `progress` is told how many of how many are done."""
    work = [_Look(root, shard, column, not quick) for shard in range(manifest.shards) for column in manifest.columns]
    workers = execution.workers
    if workers is None and execution.ray_address is None and _size(root, work) < _LITTLE:
        workers = 0
    checked: list[Checked] = []
    with mapping(workers, execution.ray_address) as run:
        for one in run(_check, work):
            checked.append(one)
            progress(len(checked), len(work))
    whole = [*verify.verify_plan(root), *verify.verify_catalog(root)]
    found = [*whole, *(problem for one in checked for problem in one.problems)]
    return Report(checked, sorted(found, key=lambda p: (p.shard, p.column, p.key)))


def check_far(
    store: ObjectStore,
    manifest: Manifest,
    execution: Execution,
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """The same for a dataset in a bucket: each column is fetched into a temporary folder, and checked there."""
    changed = revisions.current(store) if revisions.latest(store) else None
    known = changed.records if changed else {}
    work = [
        _FarLook(store, manifest, shard, column, not quick, {name: known.get((shard, name)) for name in (RGB, column)})
        for shard in range(manifest.shards)
        for column in manifest.columns
    ]
    checked: list[Checked] = []
    with mapping(0 if execution.workers is None else execution.workers, execution.ray_address) as run:
        for one in run(_check_far, work):
            checked.append(one)
            progress(len(checked), len(work))
    return Report(checked, [*_far_plan(store), *(problem for one in checked for problem in one.problems)])


def _far_plan(store: ObjectStore) -> Iterator[Problem]:
    with tempfile.TemporaryDirectory(prefix="openuni-verify-") as folder:
        try:
            bucket.pull_plan(store, Path(folder), "verify")
        except OpenUniError as error:
            yield Problem(-1, "", "", layout.PLAN, str(error))


@dataclass(frozen=True, slots=True)
class _Look:
    root: Path
    shard: int
    column: str
    decode: bool


@dataclass(frozen=True, slots=True)
class _FarLook:
    store: ObjectStore
    manifest: Manifest
    shard: int
    column: str
    decode: bool
    records: Mapping[str, CommitRecord | None]
    """By column; None: each from its own file."""


def _check(look: _Look) -> Checked:
    return verify.verify_column(look.root, look.shard, look.column, decode=look.decode)


def _check_far(look: _FarLook) -> Checked:
    with tempfile.TemporaryDirectory(prefix="openuni-verify-") as folder:
        root = Path(folder)
        try:
            for column, record in look.records.items():
                only = column != look.column
                if record is None:
                    bucket.pull(look.store, look.shard, column, root, "verify", index_only=only)
                else:
                    bucket.fetch(look.store, record, root, "verify", index_only=only)
        except OpenUniError as error:
            problem = Problem(look.shard, look.column, "", _record(look), str(error))
            return Checked(look.shard, look.column, 0, 0, 0, (problem,))
        LocalStore(root).put(layout.MANIFEST, layout.dump_checked(look.manifest), "verify")
        return verify.verify_column(root, look.shard, look.column, decode=look.decode)


def _record(look: _FarLook) -> str:
    return layout.commit_name(look.shard, look.column, layout.naming(look.manifest))


def _size(root: Path, work: Sequence[_Look]) -> int:
    records = (columns.committed(root, look.shard, look.column) for look in work)
    return sum(record.tar.size for record in records if record is not None)
