"""Taking clips out of a dataset for good: afterwards no file of it holds or names them.

What is to be done is written down first (`takedowns.json`), by digests. Then the plans lose their rows, each touched
shard is unpacked into `work/` without the clips and committed again, as a repair does, and all that tells of clips is
written again. Killed at any moment, the same command goes on; no other shard is touched.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

import openuni
from openuni.choosing import Step
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import check_key
from openuni.shards import (
    bucket,
    catalog,
    columns,
    facts,
    failures,
    index,
    layout,
    lock,
    plan,
    results,
    revisions,
    tables,
    takedown,
    verify,
    view,
)
from openuni.shards.layout import Manifest
from openuni.shards.plan import Generation, Plans
from openuni.shards.takedown import Takedown, Takedowns
from openuni.storage import LocalStore, open_regular
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine import card, revising
from openuni_pipelines.engine.published import PICTURES
from openuni_pipelines.engine.recipe import RGB
from openuni_pipelines.engine.run import holding

_WORD = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_NAMING = ("key", "source_id", "video_id")
_OURS = ("shards", "index", "commits", layout.WORK)
_MOST_TEXT = 256 << 20
_LISTS = (layout.LOG, "flags.jsonl")
"""Files with a line for each thing that happened; lines that name a clip go."""
_PICTURES = ("contact_sheet.png",)


@dataclass(frozen=True, slots=True)
class RemoveConfig:
    """What is to go: every clip with one of these keys, source ids or source videos. `reason` is kept as it is."""

    keys: Sequence[str] = ()
    source_ids: Sequence[str] = ()
    video_ids: Sequence[str] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        for key in self.keys:
            check_key(key)
        if not (self.keys or self.source_ids or self.video_ids):
            raise PlanError("say what is to go: --key, --source-id, --video-id or --flags")

    @property
    def digests(self) -> dict[str, str]:
        """What was asked for, in words, by its digest."""
        named = [("key", self.keys), ("source_id", self.source_ids), ("video_id", self.video_ids)]
        return {
            takedown.digest(kind, name): f"{kind.replace('_', '-')} {name}"  # type: ignore[arg-type]
            for kind, names in named
            for name in names
        }


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal came to, or with `--dry-run` would."""

    keys: Sequence[str]
    shards: Sequence[int]
    unknown: Sequence[str]
    """What was asked for and is not in the dataset."""
    resumed: int
    """Removals that were interrupted before and are finished now."""
    still_named_in: Sequence[str]
    """Files in the folder that are not ours to change and name a clip."""


def remove(root: Path | str, wanted: RemoveConfig, *, dry_run: bool = False, staging: Path | None = None) -> Removal:
    """Take clips out of the dataset at `root`, a folder or a bucket's URL, and finish removals that were interrupted.

    Work for a bucket is done in the folder `staging` (by default below data/staging).

    Raises PlanError where no clip is meant and nothing was interrupted, or where what is to stay in a touched shard is
    damaged.

    Example:
        >>> wanted = RemoveConfig(video_ids=("bunny",), reason="its owner asked")
        >>> remove(Path("data/demo"), wanted, dry_run=True).keys
        ['bunny']
    """
    if isinstance(root, str):
        return _remove_far(root, wanted, dry_run, staging)
    if dry_run:
        return _look(root, verify.manifest(root), wanted)[1]
    with holding(root) as run:
        manifest = verify.manifest(root)
        known = takedown.read(root)
        entry, removal = _look(root, manifest, wanted)
        if entry is None and not removal.resumed:
            raise PlanError(f"{root} has no clip of {', '.join(removal.unknown)}; nothing was changed")
        if not removal.resumed:
            for problem in verify.verify_plan(root):
                raise PlanError(f"{root / problem.file} {problem.what}")
        under_way = {one for before in known.entries if not before.done for one in before.digests}
        if entry is not None and not under_way.issuperset(entry.digests):
            known = Takedowns([*known.entries, entry])
            takedown.write(root, known, run)
        gone = known.digests
        _rewrite_plans(root, manifest, known, run)
        for number in sorted({number for entry in known.entries if not entry.done for number in entry.shards}):
            made_by = {c: f for e in known.entries if not e.done for c, f in e.shards.get(number, {}).items()}
            _rewrite_shard(root, number, made_by, gone, is_built=bool(manifest.plan_sha256), run=run)
        _rewrite_lists(root, gone, run)
        catalog.write(root, run)
        LocalStore(root).put(layout.CARD, card.render(openuni.open(str(root))).encode(), run)
        takedown.write(root, _done(known), run)
        return replace(removal, still_named_in=sorted(_naming(root, gone)))


def _remove_far(url: str, wanted: RemoveConfig, dry_run: bool, staging: Path | None) -> Removal:
    """As a new revision: what had the clips is deleted once that stands. A shard at a time is written again here."""
    if dry_run:
        return _look_far(url, wanted)
    with revising.changing(url, staging) as change:
        root, run, store = change.root, change.run, change.store
        bucket.empty(root)  # plans that a killed removal has rewritten are fetched again
        change.stage(change.base.manifest)
        manifest, known = change.base.manifest, takedown.read(root)
        entry, removal = _found(
            wanted, known, _clips_far(url, root, manifest), _left_out(root, manifest), change.base.made_by
        )
        removal = replace(removal, resumed=int(change.is_resumed))
        if entry is None:
            if not change.is_resumed:
                raise PlanError(f"{url} has no clip of {', '.join(removal.unknown)}; nothing was changed")
            return replace(removal, still_named_in=_naming_far(store, known.digests))
        known = Takedowns([*known.entries, entry])
        takedown.write(root, known, run)
        _rewrite_plans(root, manifest, known, run)
        folder = revisions.change_folder(change.base, repr(entry.digests).encode())
        made = change.made(folder)
        for number, made_by in sorted(entry.shards.items()):
            if all((number, column) in made for column in made_by):
                continue
            for column in made_by:
                bucket.fetch(store, change.base.records[number, column], root, run)
            _rewrite_shard(root, number, made_by, known.digests, is_built=bool(manifest.plan_sha256), run=run)
            for column in made_by:
                bucket.push(store, root, number, column, folder)
            bucket.forget(root, number, made_by)
        _rewrite_lists(root, known.digests, run)
        takedown.write(root, _done(takedown.read(root)), run)
        change.publish(verify.manifest(root), change.made(folder), failures.read(root))
        return replace(removal, still_named_in=_naming_far(store, known.digests))


def _look_far(url: str, wanted: RemoveConfig) -> Removal:
    store = ObjectStore(url)
    base = revisions.current(store)
    if base is None:
        raise PlanError(f"{url} is not a dataset: it has no {layout.MANIFEST}")
    with tempfile.TemporaryDirectory(prefix="openuni-look-") as folder:
        root = Path(folder)
        bucket.stage(store, base.files, base.manifest, root, "look")
        clips, left_out = _clips_far(url, root, base.manifest), _left_out(root, base.manifest)
        return _found(wanted, takedown.read(root), clips, left_out, base.made_by)[1]


def _look(root: Path, manifest: Manifest, wanted: RemoveConfig) -> tuple[Takedown | None, Removal]:
    """What a removal would do: its record, if there is anything to do, and in words. Nothing is written."""
    plans = Plans(root, manifest)
    clips = ((number, *clip) for number in range(manifest.shards) for clip in _clips(root, plans, number))
    return _found(wanted, takedown.read(root), clips, _left_out(root, manifest), partial(_committed, root))


def _found(
    wanted: RemoveConfig,
    known: Takedowns,
    clips: Iterable[tuple[int, str, set[str]]],
    left_out: Iterable[str],
    made_by: Callable[[int], Mapping[str, str]],
) -> tuple[Takedown | None, Removal]:
    """What is wanted out of the `clips`, shard, key and digests of each, and of the names of rows that became none."""
    asked = wanted.digests
    keys: set[str] = set()
    met: set[str] = set()
    shards: dict[int, Mapping[str, str]] = {}
    for number, key, named in clips:
        if hit := asked.keys() & named:
            met |= hit
            keys.add(key)
            shards[number] = made_by(number)
    for name in left_out:
        met.update(asked.keys() & set(takedown.digests_in(name)))
    pending = sum(not entry.done for entry in known.entries)
    unknown = sorted(asked[one] for one in asked.keys() - met)
    removal = Removal(sorted(keys), sorted(shards), unknown, pending, ())
    if not met:
        return None, removal
    digests = sorted({*(takedown.digest("key", key) for key in keys), *met})
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Takedown(now, wanted.reason, digests, len(keys), shards), removal


def _done(known: Takedowns) -> Takedowns:
    """The columns of the shards are only needed while it is under way."""
    return Takedowns([replace(one, shards={}, plans={}, done=True) for one in known.entries])


def _clips_far(url: str, root: Path, manifest: Manifest) -> Iterator[tuple[int, str, set[str]]]:
    """Shard, key and digests of each clip that a dataset in a bucket has, or that the plans in `root` have."""
    plans = Plans(root, manifest)
    for number in range(manifest.shards):
        for clip in plans.shard(number):
            yield number, clip.key, takedown.digests_of(clip)
    data = openuni.open(url)
    if not data.shards:
        return
    numbers = (shard.number for shard in data.shards for _ in range(shard.samples))
    with facts.table(data) as path, open_regular(path) as file:
        fields = pa.schema([index.schema(RGB).field(field) for field in _NAMING])
        for number, row in zip(numbers, tables.rows(file, fields, str(path)), strict=True):
            yield number, row["key"], _digests(row)


def _digests(row: Mapping[str, str | None]) -> set[str]:
    return {takedown.digest(kind, named) for kind in _NAMING if (named := row[kind])}  # type: ignore[arg-type]


def _left_out(root: Path, manifest: Manifest) -> Iterator[str]:
    """Names of the rows that became no clip."""
    for number in range(len(plan.generations(manifest))):
        with suppress(FileNotFoundError):
            yield from plan.skipped_names(root / plan.name_of(number))


def _clips(root: Path, plans: Plans, number: int) -> Iterator[tuple[str, set[str]]]:
    """Key and digests of each clip that a shard has, or was planned to have."""
    for clip in plans.shard(number):
        yield clip.key, takedown.digests_of(clip)
    if columns.committed(root, number, RGB) is None:
        return
    name = layout.index_name(number, RGB, layout.naming_of(root))
    fields = pa.schema([index.schema(RGB).field(field) for field in _NAMING])
    with open_regular(root / name) as file:
        for row in tables.rows(file, fields, str(root / name)):
            yield row["key"], _digests(row)


def _committed(root: Path, number: int) -> dict[str, str]:
    """Columns of a shard that are committed, with their fingerprints; none where RGB is not."""
    folder = posixpath.dirname(layout.commit_name(number, RGB, layout.naming_of(root)))
    named = filter(None, map(layout.parse_commit_name, LocalStore(root).list(folder)))
    records = [columns.committed(root, number, column) for shard, column in named if shard == number]
    made_by = {record.column: record.fingerprint for record in records if record is not None}
    return made_by if RGB in made_by else {}


def _rewrite_plans(root: Path, manifest: Manifest, known: Takedowns, run: str) -> None:
    """Empty the rows of the clips in every plan and the tables beside them, and let the manifest name the new plans.

    The digests of the new plans are written down before they take their places: a removal that was killed in between
    knows its own plan from a damaged one.
    """
    gone = known.digests
    generations = plan.generations(manifest)
    if not generations:
        return
    expected = {name: sha for entry in known.entries for name, sha in entry.plans.items()}
    made = []
    with tempfile.TemporaryDirectory(prefix="openuni-plan-") as scratch:
        for number, generation in enumerate(generations):
            path = root / plan.name_of(number)
            now = layout.file_record(path).sha256
            if now not in (generation.plan_sha256, expected.get(path.name)):
                raise PlanError(f"{path} is not the plan that the manifest was written for; restore it from a copy")
            target = Path(scratch) / path.name
            if plan.write_without(path, target, lambda key: takedown.digest("key", key) in gone):
                now = layout.file_record(target).sha256
                last = replace(known.entries[-1], plans={**known.entries[-1].plans, path.name: now})
                known = Takedowns([*known.entries[:-1], last])
                takedown.write(root, known, run)
                layout.write_atomic(path, target.read_bytes(), run)
            beside = plan.skipped_beside(path)
            with suppress(FileNotFoundError):
                target = Path(scratch) / beside.name
                if plan.write_skipped_without(
                    beside, target, lambda name: not gone.isdisjoint(takedown.digests_in(name))
                ):
                    layout.write_atomic(beside, target.read_bytes(), run)
            made.append(Generation(generation.clips, generation.shards, now))
    if made == generations:
        return
    configuration = dict(manifest.configuration)
    digest = made[0].plan_sha256
    if plan.GENERATIONS in configuration:
        configuration[plan.GENERATIONS] = [asdict(one) for one in made]
        digest = layout.digest(" ".join(one.plan_sha256 for one in made).encode())
    changed = replace(manifest, configuration=configuration, plan_sha256=digest)
    catalog.retire(root)
    layout.write_atomic(root / layout.MANIFEST, layout.dump_checked(changed), run)


def _rewrite_shard(
    root: Path, number: int, made_by: Mapping[str, str], gone: frozenset[str], *, is_built: bool, run: str
) -> None:
    """Commit the columns `made_by` of a shard again without the clips that are gone, and delete what else has them.

    A column whose record is missing was unpacked before, by a removal that was killed: its samples lie in `work/`.
    """
    catalog.retire(root)
    facts.forget(root)
    _rewrite_films(root, number, gone, run)
    results.open_work(root, number)
    prints = {column: made if is_built else f"{made}.{column}" for column, made in made_by.items()}
    holding_them = [column for column in made_by if _holds(root, number, column, gone)]
    for column in holding_them:
        _unpack(root, number, column, prints[column], gone, run)
    for column in sorted(holding_them, key=lambda name: name == RGB):
        columns.uncommit(root, number, column)
    _delete_results(root, number, gone)
    _delete_uncommitted(root, number)
    keys = _keys(root, number, prints)
    for column in sorted(made_by, key=lambda name: name != RGB):
        if columns.committed(root, number, column) is None:
            stored = ((key, results.load(root, number, key, prints[column])) for key in keys)
            columns.commit(root, number, column, made_by[column], stored, run, partial(lock.check, root, run))
    if made_by:
        results.close_work(root, number)


def _holds(root: Path, number: int, column: str, gone: frozenset[str]) -> bool:
    if columns.committed(root, number, column) is None:
        return False
    return any(takedown.digest("key", row.key) in gone for row in columns.rows(root, number, column))


def _unpack(root: Path, number: int, column: str, fingerprint: str, gone: frozenset[str], run: str) -> None:
    for row in columns.rows(root, number, column):
        if takedown.digest("key", row.key) in gone:
            continue
        try:
            stored = columns.read_stored(root, number, column, row)
        except CorruptDataError as error:
            raise PlanError(f"{error}; then remove the clips again: what is to stay must be whole") from None
        results.save(root, number, row.key, fingerprint, stored, run)


def _keys(root: Path, number: int, prints: Mapping[str, str]) -> list[str]:
    """The keys that the shard has from now on."""
    if RGB not in prints:
        return []
    if columns.committed(root, number, RGB) is not None:
        return [row.key for row in columns.rows(root, number, RGB)]
    return sorted(key for key, made in results.saved(root, number) if made == prints[RGB])


def _delete_results(root: Path, number: int, gone: frozenset[str]) -> None:
    store = LocalStore(root)
    for name in store.list(layout.work_name(number)):
        if takedown.digest("key", name.rpartition("/")[2].partition(".")[0]) in gone:
            store.delete(name)


def _rewrite_films(root: Path, number: int, gone: frozenset[str], run: str) -> None:
    """Write the tars of a shard's films that an import kept as they were again, without those of the clips."""
    store = LocalStore(root)
    for name in store.list(PICTURES):
        if not name.startswith(f"{PICTURES}/{number:06d}."):
            continue
        try:
            with open_regular(root / name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                members = tar.getmembers()
                kept = [one for one in members if takedown.digest("key", one.name.partition(".")[0]) not in gone]
                if kept and len(kept) < len(members):
                    with store.create(name, run) as target, results.open_tar_for_writing(target) as fresh:
                        for one in kept:
                            content = tar.extractfile(one)
                            results.add_member(fresh, one.name, content.read() if content else b"")
        except tarfile.TarError as error:
            raise PlanError(
                f"{root / name} is not a whole tar ({error}); restore it from a copy or delete it, then remove the "
                "clips again"
            ) from error
        if not kept:
            store.delete(name)


def _delete_uncommitted(root: Path, number: int) -> None:
    """Tars and indices without a commit record: of runs that were killed, whose samples still lie in `work/`."""
    store, naming = LocalStore(root), layout.naming_of(root)
    for name_of in (layout.tar_name, layout.index_name):
        folder, _, like = name_of(number, RGB, naming).rpartition("/")
        shard, suffix = like.split(RGB)
        for name in store.list(folder):
            column = name.removeprefix(f"{folder}/{shard}").removesuffix(suffix)
            is_of_shard = name == f"{folder}/{shard}{column}{suffix}"
            if is_of_shard and not store.exists(layout.commit_name(number, column, naming)):
                store.delete(name)


def _rewrite_lists(root: Path, gone: frozenset[str], run: str) -> None:
    """What else names clips: failures, logs, flags, views, and pictures that may show one."""
    store = LocalStore(root)
    facts.forget(root)
    known = failures.read(root)
    kept = [failure for failure in known if takedown.digest("key", failure.key) not in gone]
    if kept != known:
        failures.write(root, kept, run)
    for name in _LISTS:
        if store.exists(name):
            lines = store.read(name, at_most=_MOST_TEXT).splitlines(keepends=True)
            silent = [line for line in lines if not _names(line, gone)]
            if len(silent) < len(lines):
                store.put(name, b"".join(silent), run)
    for name in _PICTURES:
        store.delete(name)
    for path in sorted(root.iterdir()):
        if path.suffix in view.SUFFIXES and (stored := _view(path)) is not None:
            keys = [key for key in stored.keys if takedown.digest("key", key) not in gone]
            if len(keys) < len(stored.keys):
                steps = [*stored.funnel, Step("taken down", len(keys))]
                view.write(path, view.View(view.dataset_of(stored.dataset, path), stored.rule, steps, keys), run)


def _view(path: Path) -> view.View | None:
    if path.name in (layout.MANIFEST, layout.PLAN, layout.FAILURES, catalog.HEAD, catalog.TABLE, takedown.FILE):
        return None
    try:
        return view.read(path)
    except OpenUniError:
        return None


def _naming(root: Path, gone: frozenset[str]) -> Iterator[str]:
    """Files of the folder that name a clip as a word; shards and their indices were just written without it."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if name.partition("/")[0] in _OURS or not path.is_file() or path.is_symlink():
            continue
        if _names(name.encode(), gone) or (path.stat().st_size <= _MOST_TEXT and _names(path.read_bytes(), gone)):
            yield name


def _naming_far(store: ObjectStore, gone: frozenset[str]) -> list[str]:
    """Files in the bucket that are not ours and name a clip as a word."""

    def tells(name: str) -> bool:
        return _names(name.encode(), gone) or (
            store.size(name) <= _MOST_TEXT and _names(store.read(name, at_most=_MOST_TEXT), gone)
        )

    return [name for name in revisions.foreign(store) if tells(name)]


def _names(data: bytes, gone: frozenset[str]) -> bool:
    words = {match.group().decode() for match in _WORD.finditer(data)}
    return any(takedown.digest("key", word) in gone for word in words)
