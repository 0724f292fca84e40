"""From a source to a dataset: plan, annotate, commit; resumable at any moment."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import openuni
from openuni import outputs, sources, storage
from openuni.errors import PlanError
from openuni.experts import sets
from openuni.sample import Clip
from openuni.shards import bucket, columns, failures, layout, lease, parts, plan, revisions, takedown, verify
from openuni.shards.failures import Failure
from openuni.shards.layout import Manifest
from openuni.shards.parts import Part
from openuni.shards.plan import Generation, NoClipsError, Plan, Plans, Tally
from openuni.sources import Request, Skipped, Source, hub
from openuni.sources.folder import videos_below
from openuni.sources.rows import RowSource
from openuni.sources.selection import PLANNED_BEFORE
from openuni.storage import is_object_url
from openuni.storage.objects import ObjectStore
from openuni.video import FASTEST, Limits, Normalisation
from openuni_pipelines.engine import changes, planning, publishing, revising
from openuni_pipelines.engine.executors import Executor
from openuni_pipelines.engine.monitor import RunProgress
from openuni_pipelines.engine.planning import Estimate
from openuni_pipelines.engine.recipe import (
    COMPACT,
    KEEP_DOUBTFUL,
    RGB,
    Recipe,
    recipe,
    rgb_fingerprint,
    stored_normalisation,
)
from openuni_pipelines.engine.revising import Change
from openuni_pipelines.engine.run import (
    Execution,
    check_space,
    complete,
    finish_parts,
    holding,
    is_complete,
    make_executor,
    new_id,
)
from openuni_pipelines.engine.stages import Job

_LIMITS = Limits()
_OPTIONS = "options"
"""The source's, in the configuration of a dataset whose source has any."""


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build, from what, into which folder, and how the work is done. Raises PlanError on what cannot be.

    Example:
        >>> BuildConfig(source="folder", videos=Path("videos"), experts=("dis",)).root
        PosixPath('data/folder')
    """

    source: Source | str = field(metadata={"plugins": "sources"})
    """Where clips come from, by name; a source with options of its own as an object."""
    videos: Path | None = field(default=None, metadata={"exists": True, "shown": "data/sources/SOURCE/videos"})
    """Folder with the videos."""
    metadata: Path | None = field(default=None, metadata={"exists": True, "shown": "data/sources/SOURCE/metadata"})
    """The source's table: a file or a folder."""
    out: Path | str | None = field(default=None, metadata={"shown": "data/SOURCE"})
    """Dataset folder, or a place in an object store: s3://BUCKET/FOLDER, gs://…, az://…"""
    staging: Path | None = field(default=None, metadata={"shown": "data/staging/BUCKET-FOLDER"})
    """With --out in an object store: local folder for unfinished shards, one for each part."""
    experts: tuple[str, ...] = ("light",)
    """Experts by name, comma-separated, or a set: 'light', 'paper', 'production'. An expert named beside a set replaces
    the set's expert for the same modality."""
    commercial: bool = False
    """Refuse experts whose code, weights or training data may not be used for profit."""
    trust: bool = False
    """Allow model files that are programs (DensePose's), each only with its pinned SHA-256."""
    keep_doubtful: bool = False
    """Keep annotations whose confidence is below the expert's floor; otherwise they are left out, with the reason."""
    require: tuple[str, ...] = ()
    """Drop clips that lack one of these modalities (comma-separated)."""
    fps: float | Literal["source"] = 16.0
    """Frames per second of the stored clips; 'source' keeps every frame of a video, at the video's own rate."""
    size: int = 480
    """Shorter side of the stored clips, in pixels; smaller videos are not enlarged."""
    crf: int = 18
    """Quality of the stored clips: x264's constant rate factor, 0 (best) to 51."""
    max_frames: int = 81
    """Longest clip, in frames."""
    min_frames: int = 8
    """Shortest clip, in frames."""
    max_pixels: int = _LIMITS.pixels
    """Refuse videos with larger frames."""
    max_seconds: float = _LIMITS.seconds
    """Refuse longer videos."""
    shard_size: int = 128
    """Clips per shard."""
    shard_bytes: int | None = field(default=None, metadata={"min": 1, "shown": "whatever --shard-size clips take"})
    """Instead of --shard-size: target size of a shard's largest tar, in bytes, estimated for clips of --max-frames."""
    limit: int | None = field(default=None, metadata={"min": 1})
    """Plan at most this many clips."""
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if self.staging is not None and not self.url:
            raise PlanError("--staging is for an --out in an object store (s3://…); a folder is built where it is")
        if (
            (self.fps != "source" and not 0 < self.fps <= FASTEST)
            or self.size < 16
            or not 0 <= self.crf <= 51
            or not 1 <= self.min_frames <= self.max_frames
            or self.shard_size < 1
        ):
            raise PlanError(
                f"--fps must be 'source' or lie in (0, {FASTEST:g}], --size be at least 16, --crf lie in [0, 51], "
                "1 ≤ --min-frames ≤ --max-frames, 1 ≤ --shard-size"
            )

    @property
    def root(self) -> Path:
        """The dataset folder; of one in an object store, the folder that stages it here."""
        if self.url:
            return self.staging or outputs.staging(self.url)
        return Path(self.out or Path("data") / self.reader.name)

    @property
    def url(self) -> str:
        """The place in an object store, without a slash at its end; empty where the dataset is a folder."""
        return self.out.rstrip("/") if isinstance(self.out, str) and is_object_url(self.out) else ""

    @property
    def place(self) -> str:
        """Where the dataset is, for people."""
        return self.url or str(self.root)

    @cached_property
    def reader(self) -> Source:
        """The source. Raises OpenUniError where none has that name."""
        return sources.get(self.source) if isinstance(self.source, str) else self.source

    def input(self, kind: Literal["metadata", "videos"]) -> Path | None:
        """Where the source's tables or videos are: what is given, or the default place if there is anything."""
        given = self.metadata if kind == "metadata" else self.videos
        found = given or (hub.default(self.reader.name, kind) if kind in self.reader.needs else None)
        # Resolved: the plan names videos by it, and the next run may have another working directory.
        return found.resolve() if found else None

    @property
    def request(self) -> Request:
        """What the source is asked for."""
        fps = self.normalisation.fps
        return Request(
            self.input("videos"),
            self.input("metadata"),
            # Of tables whose videos are not opened: no clip is longer than at a frame a second.
            clip_seconds=self.max_frames / (fps or 1.0),
            # One frame can be had of any shot, however short: an image is on screen for the time of a frame.
            min_seconds=self.min_frames / fps if fps and self.min_frames > 1 else 0.0,
            frames=None if fps else (self.min_frames, self.max_frames),
            limits=self.limits,
        )

    @property
    def clips_a_shard(self) -> int:
        """How many clips make a shard.

        Example:
            >>> BuildConfig(source="folder", experts=("dis",), shard_bytes=1 << 30).clips_a_shard
            280
        """
        if self.shard_bytes is None:
            return self.shard_size
        clip = planning.column_bytes(self.max_frames, self.normalisation, self.recipe)
        return max(1, self.shard_bytes // max(clip.values()))

    @property
    def normalisation(self) -> Normalisation:
        fps = None if self.fps == "source" else self.fps
        return Normalisation(fps, self.size, self.max_frames, self.min_frames, self.crf)

    @property
    def limits(self) -> Limits:
        return replace(_LIMITS, pixels=self.max_pixels, seconds=self.max_seconds)

    @cached_property
    def recipe(self) -> Recipe:
        """The stages of the build. Raises OpenUniError on experts that are unknown or contradict each other."""
        if self.commercial:
            sets.check_commercial(self.experts)
        sets.check_trusted(self.experts, self.trust)
        return self._recipe(rgb_fingerprint(self.normalisation))

    def recipe_on(self, manifest: Manifest) -> Recipe:
        """The stages of a build that goes on with this dataset, whose clips stay of the version that they are."""
        return self._recipe(manifest.columns[RGB]) if RGB in manifest.columns else self.recipe

    def _recipe(self, rgb: str) -> Recipe:
        return recipe(sets.expand(self.experts), self.require, rgb, keep_doubtful=self.keep_doubtful)

    @property
    def recorded(self) -> dict[str, Any]:
        """What may not change between two runs on one dataset."""
        return {
            "source": self.reader.name,
            "videos": str(place) if (place := self.input("videos")) else None,
            "metadata": str(place) if (place := self.input("metadata")) else None,
            "clip_seconds": self.request.clip_seconds,
            "min_seconds": self.request.min_seconds,
            "normalisation": asdict(self.normalisation),
            "limits": asdict(self.limits),
            "shard_size": self.clips_a_shard,
            "limit": self.limit,
            "require": sorted({*self.require}),
            **({KEEP_DOUBTFUL: True} if self.keep_doubtful else {}),
            **({_OPTIONS: self.reader.options} if self.reader.options else {}),
        }

    def going_on(self, manifest: Manifest) -> BuildConfig:
        """This build with what it leaves open to its source as the dataset has it."""
        return replace(self, source=self.reader.going_on(manifest.configuration.get(_OPTIONS, {})))

    def job(self, run: str, part: Part | None = None, manifest: Manifest | None = None) -> Job:
        """What the tasks of run `run` share; `manifest` of the dataset that it goes on with."""
        made = self.recipe_on(manifest) if manifest else self.recipe
        normalisation = stored_normalisation(manifest) if manifest else self.normalisation
        compact = manifest is None or bool(manifest.configuration.get(COMPACT))
        return Job(self.root.resolve(), run, made, normalisation, self.limits, part, self.url, compact)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a build came to."""

    root: Path | str
    planned: int
    samples: int
    present: Mapping[str, int]
    skipped: Mapping[str, int]
    failures: Sequence[Failure]
    seconds: float
    new_files: Sequence[str] = ()
    """Videos that came into the folder after the plan was made, and are not in it."""
    part: Part | None = None
    """What was built, and what the numbers tell of; None: the whole."""
    complete: bool = True
    """Whether the whole dataset is."""


def build(
    config: BuildConfig,
    *,
    retry_failed: bool = False,
    extend: bool = False,
    part: Part | None = None,
    progress: Callable[[RunProgress], None] | None = None,
) -> Summary:
    """Run or resume a build. Raises OpenUniError where it cannot go on; what is committed stays.

    `retry_failed` takes up the clips of `failures.parquet` again, and no other that is committed. `extend` plans the
    clips that the source has gained since, as new shards, once all that is planned is committed. `part` builds that
    part of a plan that is there (`make_plan`), beside other processes that build the others; the last one to end
    completes the dataset. `progress` is called from this thread, once a finished task and at least twice a second while
    workers are busy.

    Example:
        >>> config = BuildConfig(
        ...     source="folder", videos=Path("videos"), out=Path("data/mine"), experts=("dis",),
        ...     execution=Execution(workers=0),
        ... )
        >>> summary = build(config)
        >>> summary.samples, dict(summary.present)
        (1, {'rgb': 1, 'flow': 1})
    """
    begin = time.monotonic()
    planning.check_ready(config.recipe.experts)
    _check_source(config)
    store = _claimed(config)
    if part is not None:
        _check_divisible(config, part, store, retry_failed or extend)
    if store is not None and (extend or retry_failed) and _is_whole(store):
        _change(config, retry_failed=retry_failed, progress=progress)
        return far_summary(store.url, time.monotonic() - begin)
    if part is not None and store is not None:  # parts in a bucket share no folder: each stages in its own
        config = replace(config, staging=config.root / f"{part.number}-of-{part.of}")
    root = config.root
    with _holding(config, store, part) as run, ExitStack() as stack:
        manifest = _resume(config)
        # Before hours of planning as well as before each shard.
        check_space(root, config.execution)
        job = config.job(run, part, manifest)
        if manifest is not None and retry_failed:
            changes.reopen_failed(job)
        executor = stack.enter_context(make_executor(config.execution, job))
        if manifest is None:
            manifest = _make_plan(config, executor, run)
        elif extend and is_complete(root, manifest):
            manifest = _extend(config, manifest, executor, run)
        target = None
        if store is not None:
            changed = revisions.current(store) if revisions.latest(store) else None
            if changed is None:
                bucket.push_plan(store, root, run)
            target = publishing.Target(job, changed.records if changed else None)
        complete(job, manifest, executor, config.execution, progress, target)
        if store is not None:
            whole = publishing.finish(store, manifest, run)
            return replace(far_summary(store.url, time.monotonic() - begin, part), complete=whole)
    if part is not None:
        whole = finish_parts(root, manifest)
        return replace(summary(root, time.monotonic() - begin, part), complete=whole)
    return replace(summary(root, time.monotonic() - begin), new_files=_new_files(config, manifest))


def _is_whole(store: ObjectStore) -> bool:
    """Whether the bucket has a dataset, all of it: before, `--extend` and `--retry-failed` have nothing to change."""
    found = revisions.current(store)
    return found is not None and found.is_complete


def _change(config: BuildConfig, *, retry_failed: bool, progress: Callable[[RunProgress], None] | None) -> None:
    """Extend the complete dataset in a bucket, or try its failed clips again, as a new revision of it."""
    with revising.changing(config.url, config.root) as change:
        config = replace(config, staging=change.root)
        base = change.base.manifest
        if retry_failed:
            change.stage(base)
            _resume(config)
            revising.retry_failed(change, config.recipe_on(base), config.execution, progress)
            return
        manifest = _staged_extension(change) or base
        change.stage(manifest)
        _resume(config)
        if manifest is base:
            with make_executor(config.execution, config.job(change.run, manifest=base)) as executor:
                manifest = _extend(config, base, executor, change.run)
        if manifest is not base:
            job = change.job(manifest, config.recipe_on(base), layout.dump_checked(manifest))
            change.carry_out(job, manifest, config.execution, progress)


def _staged_extension(change: Change) -> Manifest | None:
    """What a killed run has planned in the staging folder beyond what the bucket has."""
    if not (change.root / layout.MANIFEST).exists():
        return None
    staged, base = verify.manifest(change.root), change.base.manifest
    before = plan.generations(base)
    is_next = plan.generations(staged)[:-1] == before and staged.columns == base.columns
    return staged if is_next and not verify.verify_plan(change.root) else None


def make_plan(config: BuildConfig) -> Estimate:
    """Write the plan alone, or read the one that is there, and say what carrying it out will cost."""
    _check_source(config)
    store = _claimed(config)
    with _holding(config, store, None) as run:
        manifest = _resume(config)
        if manifest is None:
            with _planner(config, run) as executor:
                manifest = _make_plan(config, executor, run)
        if store is not None and not revisions.latest(store):
            bucket.push_plan(store, config.root, run)
    seconds, open_ended = Plans(config.root, manifest).spans()
    tally = Tally(manifest.clips, seconds, open_ended, dict(manifest.skipped), plan.funnel(manifest))
    return planning.estimate(tally, config.normalisation, config.recipe)


def _planner(config: BuildConfig, run: str) -> Executor:
    """Where a plan alone is made, without the experts. Rows that open no video need no workers, and so no Ray."""
    opens = config.reader.opens_videos
    execution = config.execution if opens else replace(config.execution, workers=0, ray_address=None)
    return make_executor(execution, replace(config.job(run), recipe=Recipe((), (), ())))


def estimate(config: BuildConfig) -> Estimate:
    """What a build would make and need. Writes nothing below the dataset's folder."""
    run, reader = new_id(), config.reader
    with tempfile.TemporaryDirectory(prefix="openuni-plan-") as folder, _planner(config, run) as executor:
        scratch = Path(folder)
        if isinstance(reader, RowSource):
            tally = plan.count_rows(reader, config.request, scratch, config.limit)
        else:
            target = scratch / layout.PLAN
            tally = planning.write(target, reader, config.request, executor, config.clips_a_shard, run, config.limit)
    return planning.estimate(tally, config.normalisation, config.recipe)


def summary(root: Path, seconds: float = 0.0, part: Part | None = None) -> Summary:
    """What the dataset at `root` holds now, or a part of it."""
    manifest = verify.manifest(root)
    shards = range(manifest.shards) if part is None else part.shards(manifest.shards)
    present = dict.fromkeys(manifest.columns, 0)
    samples = 0
    for number in shards:
        for column in manifest.columns:
            record = columns.committed(root, number, column)
            if record is not None:
                present[column] += record.present
                samples += record.samples if column == RGB else 0
    planned, failed = manifest.clips, parts.all_failures(root, manifest.shards)
    if part is not None:
        plans = Plans(root, manifest)
        planned = sum(plans.size(number) for number in shards)
        failed = [failure for failure in failed if failure.shard in shards]
    return Summary(root, planned, samples, present, manifest.skipped, failed, seconds, part=part)


def far_summary(url: str, seconds: float = 0.0, part: Part | None = None) -> Summary:
    """What the dataset in a bucket holds now, or a part of it."""
    store = ObjectStore(url)
    found = revisions.current(store)
    if found is None:
        raise PlanError(f"{store.url} is not a dataset: it has no {layout.MANIFEST}")
    manifest = found.manifest
    shards = range(manifest.shards) if part is None else part.shards(manifest.shards)
    records = [record for record in found.records.values() if record.shard in shards]
    present = dict.fromkeys(manifest.columns, 0)
    for record in records:
        present[record.column] += record.present
    with tempfile.TemporaryDirectory(prefix="openuni-") as folder:
        bucket.stage(store, found.files, manifest, Path(folder), "summary")
        plans = Plans(Path(folder), manifest)
        planned = sum(map(plans.size, shards))
        failed = failures.read(Path(folder))
    if not found.number:  # the table of them is made when all parts are through
        places = [(record.shard, record.column) for record in records]
        failed = bucket.read_failures(store, bucket.records(store, places))
    samples = sum(record.samples for record in records if record.column == RGB)
    return Summary(store.url, planned, samples, present, manifest.skipped, failed, seconds, part=part)


def _claimed(config: BuildConfig) -> ObjectStore | None:
    """The bucket that is built into, marked as ours; None for a folder."""
    if not config.url:
        return None
    store = ObjectStore(config.url)
    bucket.claim(store)
    return store


@contextmanager
def _holding(config: BuildConfig, store: ObjectStore | None, part: Part | None) -> Iterator[str]:
    """Hold the dataset or part for a new run; of one in a bucket, also its lease, and bring its plan here."""
    if store is None:
        with holding(config.root, part=part) as run:
            yield run
        return
    storage.claim(config.root)
    with holding(config.root, part=part) as run, lease.holding(store, run, part):
        bucket.pull_plan(store, config.root, run, outdated=revisions.former(store))
        yield run


def _check_divisible(config: BuildConfig, part: Part, store: ObjectStore | None, changes_all: bool) -> None:
    """Raise PlanError where there is nothing to divide yet, or what is asked for is of a whole dataset."""
    if changes_all:
        raise PlanError("--retry-failed and --extend change a whole dataset: they take no --part")
    planned = store.exists(layout.MANIFEST) if store else (config.root / layout.MANIFEST).exists()
    if not planned:
        raise PlanError(
            f"{config.place} has no plan that could be divided; make it once with the same options: "
            f"openuni plan … --out {config.place}"
        )


def _check_source(config: BuildConfig) -> None:
    """Let the source say what it lacks before a folder is made for it, before a row is read."""
    config.recipe  # noqa: B018  raises on what cannot be
    if not (config.root / layout.MANIFEST).exists():
        config.reader.check(config.request)


def _make_plan(config: BuildConfig, executor: Executor, run: str) -> Manifest:
    """Ask the source, write the plan and then the manifest, whose presence says that the plan is whole."""
    path = config.root / layout.PLAN
    tally = planning.write(path, config.reader, config.request, executor, config.clips_a_shard, run, config.limit)
    frozen = Plan(path)
    manifest = Manifest(
        configuration=layout.laid_out(
            {
                **config.recorded,
                COMPACT: True,
                "listing": _listing(config.input("videos")),
                **({plan.FUNNEL: [asdict(step) for step in tally.funnel]} if tally.funnel else {}),
            },
            frozen.shards,
        ),
        columns=config.recipe.columns,
        clips=frozen.clips,
        shards=frozen.shards,
        plan_sha256=layout.file_record(path).sha256,
        skipped=tally.skipped,
        openuni=openuni.__version__,
    )
    layout.write_atomic(config.root / layout.MANIFEST, layout.dump_checked(manifest), run)
    return manifest


def _extend(config: BuildConfig, manifest: Manifest, executor: Executor, run: str) -> Manifest:
    """Plan what the source has and the dataset has not, as shards after those that are there.

    The plan is a file of its own, and the manifest, which names it, is written last: a run that is killed in between
    leaves a plan that the next one replaces. What was planned before, and its files, stay byte for byte.
    """
    before = plan.generations(manifest)
    path = config.root / plan.name_of(len(before))
    listing = _listing(config.input("videos"))  # before the rows: what comes in meanwhile is told of at the end
    try:
        tally, skipped = _plan_new(config, manifest, executor, path, run)
    except NoClipsError:
        return manifest
    added = Generation(tally.clips, Plan(path).shards, layout.file_record(path).sha256)
    generations = [*before, added]
    shards = manifest.shards + added.shards
    configuration = {
        **manifest.configuration,
        "listing": listing,
        plan.GENERATIONS: [asdict(generation) for generation in generations],
    }
    if manifest.shards <= layout.PER_FOLDER:  # one that is larger stays as it is laid out: no file is moved
        configuration = layout.laid_out(configuration, shards)
    extended = replace(
        manifest,
        configuration=configuration,
        clips=manifest.clips + added.clips,
        shards=shards,
        # Of all plans, so that whoever compares two datasets by it sees that this one has grown.
        plan_sha256=layout.digest(" ".join(generation.plan_sha256 for generation in generations).encode()),
        skipped=skipped,
    )
    layout.write_atomic(config.root / layout.MANIFEST, layout.dump_checked(extended), run)
    return extended


def _plan_new(
    config: BuildConfig, manifest: Manifest, executor: Executor, path: Path, run: str
) -> tuple[Tally, dict[str, int]]:
    """Plan into `path` what the dataset has not. Returns what came of it, and all that is left out, old and new."""
    reader = config.going_on(manifest).reader
    reader.check(config.request)
    if isinstance(reader, RowSource):
        known = tuple(config.root / plan.name_of(number) for number in range(len(plan.generations(manifest))))
        taken_down = takedown.read(config.root).digests
        tally = plan.write_rows(
            path, reader, config.request, config.clips_a_shard, run, config.limit, known, taken_down
        )
        # All rows were judged again.
        return tally, {reason: count for reason, count in tally.skipped.items() if reason != PLANNED_BEFORE}
    keys = {clip.key for clip in Plans(config.root, manifest)}
    left_out = _left_out(config.root, manifest)
    taken_down = takedown.read(config.root).digests

    def is_new(row: Clip | Skipped) -> bool:
        if isinstance(row, Skipped):
            return row.id not in left_out and taken_down.isdisjoint(takedown.digests_in(row.id))
        return row.key not in keys and taken_down.isdisjoint(takedown.digests_of(row))

    rows = planning.clips(executor, reader, config.request, None)
    tally = plan.write(path, itertools.islice(filter(is_new, rows), config.limit), config.clips_a_shard, run)
    return tally, dict(Counter(manifest.skipped) + Counter(tally.skipped))


def _left_out(root: Path, manifest: Manifest) -> set[str]:
    """Names of the source's rows that became no clip."""
    plans = range(len(plan.generations(manifest)))
    return {row.id for number in plans for row in plan.skipped(root / plan.name_of(number))}


def _listing(videos: Path | None) -> str | None:
    """A digest of the names of the videos in the folder."""
    if videos is None:
        return None
    return layout.digest("\n".join(name for name in videos_below(videos.resolve()) if isinstance(name, str)).encode())


def _new_files(config: BuildConfig, manifest: Manifest) -> tuple[str, ...]:
    """Names of videos that the plan does not know. None are named under --limit, which leaves out others anyway."""
    videos, before = config.input("videos"), manifest.configuration.get("listing")
    if videos is None or before is None or config.limit is not None or _listing(videos) == before:
        return ()
    root = videos.resolve()
    known = {clip.video for clip in Plans(config.root, manifest)}
    left_out = _left_out(config.root, manifest)
    # What is left out of a video is named after it: `NAME-0003`.
    left_out |= {name.rpartition("-")[0] for name in left_out}
    return tuple(
        name
        for name in videos_below(root)
        if isinstance(name, str) and str(root / name) not in known and name not in left_out
    )


def _resume(config: BuildConfig) -> Manifest | None:
    """The manifest of an earlier run with the same configuration, or None in a new folder.

    Raises PlanError naming what differs: another configuration never mixes into a dataset.
    """
    root = config.root
    if not (root / layout.MANIFEST).exists():
        ours = {layout.PLAN, layout.SKIPPED, layout.LOCK, layout.LOG, layout.PROGRESS}
        present = [path for path in root.iterdir() if path.name not in ours and not path.name.startswith(".")]
        # Somebody who keeps shards on another disk links an empty folder first.
        if any(not path.is_dir() or any(path.iterdir()) for path in present):
            raise PlanError(f"{root} is not empty and not a dataset; choose another --out")
        return None
    manifest = verify.manifest(root)
    told, begun = manifest.configuration, stored_normalisation(manifest)
    normal = {**told.get("normalisation", {}), **asdict(begun)}
    before = {**told, "normalisation": normal}
    as_begun = replace(config.normalisation, undo_pulldown=begun.undo_pulldown)
    now = {**config.going_on(manifest).recorded, "normalisation": asdict(as_begun)}
    compared = [*now, *(name for name in (_OPTIONS, KEEP_DOUBTFUL) if name not in now)]
    if changed := [name for name in compared if now.get(name) != before.get(name)]:
        what = "; ".join(f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in changed)
        raise PlanError(f"{root} was built with another configuration ({what}); choose another --out")
    if dict(manifest.columns) != (made := config.recipe_on(manifest).columns):
        raise PlanError(
            f"{root} has columns {_named(manifest.columns)}, this build would make {_named(made)}; "
            "choose another --out, or change single columns with `openuni add` and `openuni drop`"
        )
    for problem in verify.verify_plan(root):
        raise PlanError(f"{root / layout.PLAN} {problem.what}")
    return manifest


def _named(prints: Mapping[str, str]) -> str:
    return ", ".join(f"{column} ({fingerprint})" for column, fingerprint in prints.items())
