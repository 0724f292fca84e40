"""`openuni build` and `openuni plan`: from a source to a dataset. Plan, annotate, commit; resumable at any moment."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

import openuni
from openuni import registry, sources
from openuni.errors import PlanError
from openuni.shards import columns, failures, layout, plan, verify
from openuni.shards.failures import Failure
from openuni.shards.layout import Manifest
from openuni.shards.plan import Plan, Tally
from openuni.sources import Request
from openuni.video import Limits, Normalisation
from openuni_pipelines.engine import changes, planning
from openuni_pipelines.engine.executors import Executor
from openuni_pipelines.engine.run import (
    Execution,
    check_space,
    complete,
    execution_from,
    execution_options,
    holding,
    make_executor,
    new_id,
)
from openuni_pipelines.engine.recipe import Recipe, recipe, rgb_fingerprint
from openuni_pipelines.engine.stages import MAX_ATTEMPTS, Job

LIGHT = ("fastdepth", "dis", "mediapipe_segmentation", "mediapipe_pose", "body_fit")
"""All five modalities on a plain CPU, with weights that package registries carry."""
_LIMITS = Limits()
EXIT_WITH_FAILURES = 3
"""The build is complete, but clips or modalities are missing from it; `failures.parquet` says which and why."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for."""

    out: Path
    source: str
    request: Request
    recipe: Recipe
    normalisation: Normalisation
    limits: Limits
    shard_size: int
    limit: int | None
    execution: Execution

    @property
    def configuration(self) -> dict[str, Any]:
        """What may not change between two runs on one dataset."""
        return {
            "source": self.source,
            "videos": str(self.request.videos) if self.request.videos else None,
            "metadata": str(self.request.metadata) if self.request.metadata else None,
            "clip_seconds": self.request.clip_seconds,
            "min_seconds": self.request.min_seconds,
            "normalisation": asdict(self.normalisation),
            "limits": asdict(self.limits),
            "shard_size": self.shard_size,
            "limit": self.limit,
            "require": sorted(self.recipe[name].column for name in self.recipe.required[1:]),
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What a build came to."""

    root: Path
    planned: int
    samples: int
    present: Mapping[str, int]
    skipped: Mapping[str, int]
    failures: Sequence[Failure]
    seconds: float


def build(settings: Settings, console: Console, *, retry_failed: bool = False) -> Summary:
    """Run or resume a build. Raises OpenUniError where it cannot go on; what is committed stays.

    `retry_failed` takes up the clips of `failures.parquet` again, and no other that is committed.
    """
    begin = time.monotonic()
    made, root = settings.recipe, settings.out
    planning.check_ready(made.experts)
    _check_source(settings)
    with holding(root) as run, ExitStack() as stack:
        manifest = _resume(settings)
        # Before hours of planning as well as before each shard.
        check_space(root, settings.execution)
        job = _job(settings, run)
        if manifest is not None and retry_failed:
            changes.reopen_failed(job)
        executor = stack.enter_context(make_executor(settings.execution, job))
        if manifest is None:
            manifest = _make_plan(settings, executor, run, console)
        complete(job, manifest, executor, settings.execution, console)
    return summary(root, time.monotonic() - begin)


def _check_source(settings: Settings) -> None:
    """Let the source say what it lacks before a folder is made for it, by asking for its first row."""
    if not (settings.out / layout.MANIFEST).exists():
        next(iter(sources.get(settings.source).entries(settings.request)), None)


def _make_plan(settings: Settings, executor: Executor, run: str, console: Console) -> Manifest:
    """Ask the source, write the plan and then the manifest, whose presence says that the plan is whole."""
    with console.status(f"planning from {settings.source}"):
        rows = planning.clips(executor, settings.source, settings.request, settings.limit)
        tally = plan.write(settings.out / layout.PLAN, rows, settings.shard_size, run)
    frozen = Plan(settings.out / layout.PLAN)
    manifest = Manifest(
        configuration=settings.configuration,
        columns=settings.recipe.columns,
        clips=frozen.clips,
        shards=frozen.shards,
        plan_sha256=layout.file_record(settings.out / layout.PLAN).sha256,
        skipped=tally.skipped,
        openuni=openuni.__version__,
    )
    layout.write_atomic(settings.out / layout.MANIFEST, layout.seal(manifest), run)
    return manifest


def _resume(settings: Settings) -> Manifest | None:
    """The manifest of an earlier run with the same configuration, or None in a new folder.

    Raises PlanError naming what differs: another configuration never mixes into a dataset.
    """
    if not (settings.out / layout.MANIFEST).exists():
        ours = {layout.PLAN, layout.SKIPPED, layout.LOCK, layout.LOG, layout.PROGRESS}
        if any(path.name not in ours and not path.name.startswith(".") for path in settings.out.iterdir()):
            raise PlanError(f"{settings.out} is not empty and not a dataset; choose another --out")
        return None
    manifest = verify.manifest(settings.out)
    wanted = settings.configuration
    changed = [name for name in wanted if wanted[name] != manifest.configuration.get(name)]
    if changed:
        what = "; ".join(f"{name} was {manifest.configuration.get(name)!r}, now {wanted[name]!r}" for name in changed)
        raise PlanError(f"{settings.out} was built with another configuration ({what}); choose another --out")
    if dict(manifest.columns) != settings.recipe.columns:
        raise PlanError(
            f"{settings.out} has columns {_named(manifest.columns)}, this build would make {_named(settings.recipe.columns)}; "
            "choose another --out, or change single columns with `openuni add` and `openuni drop`"
        )
    for problem in verify.verify_plan(settings.out):
        raise PlanError(f"{settings.out / layout.PLAN} {problem.what}")
    return manifest


def _named(prints: Mapping[str, str]) -> str:
    return ", ".join(f"{column} ({fingerprint})" for column, fingerprint in prints.items())


def _job(settings: Settings, run: str) -> Job:
    return Job(settings.out.resolve(), run, settings.recipe, settings.normalisation, settings.limits)


def summary(root: Path, seconds: float) -> Summary:
    """What the dataset at `root` holds now."""
    manifest = verify.manifest(root)
    present = dict.fromkeys(manifest.columns, 0)
    samples = 0
    for number in range(manifest.shards):
        for column in manifest.columns:
            record = columns.committed(root, number, column)
            if record is not None:
                present[column] += record.present
                samples += record.samples if column == "rgb" else 0
    return Summary(root, manifest.clips, samples, present, manifest.skipped, failures.read(root), seconds)


def source_options(command: F) -> F:
    """Options that `plan` and `build` share."""
    options = [
        click.option("--source", required=True, help="Where clips come from: " + ", ".join(registry.names("sources"))),
        click.option("--videos", type=click.Path(path_type=Path, exists=True), help="Folder that holds the videos."),
        click.option(
            "--metadata", type=click.Path(path_type=Path, exists=True), help="The source's table: a file or a folder."
        ),
        click.option("--out", type=click.Path(path_type=Path), help="Dataset folder.  [default: data/SOURCE]"),
        click.option(
            "--experts", default="light", show_default=True, help="Experts by name, comma-separated, or 'light'."
        ),
        click.option("--require", default="", help="Modalities (comma-separated) without which a clip is dropped."),
        click.option("--fps", default=16.0, show_default=True, help="Frames a second of the stored clips."),
        click.option("--size", default=480, show_default=True, help="Shorter side in pixels; never enlarged."),
        click.option("--max-frames", default=81, show_default=True, help="Longest clip, in frames."),
        click.option("--min-frames", default=8, show_default=True, help="Shortest clip, in frames."),
        click.option("--max-pixels", default=_LIMITS.pixels, show_default=True, help="Larger frames are refused."),
        click.option("--max-seconds", default=_LIMITS.seconds, show_default=True, help="Longer videos are refused."),
        click.option("--shard-size", default=128, show_default=True, help="Clips a shard."),
        click.option("--limit", type=click.IntRange(min=1), help="Stop planning after so many clips."),
    ]
    for option in reversed(options):
        command = option(command)
    return execution_options(command)


def settings_from(
    *,
    source: str,
    videos: Path | None,
    metadata: Path | None,
    out: Path | None,
    experts: str,
    require: str,
    fps: float,
    size: int,
    max_frames: int,
    min_frames: int,
    max_pixels: int,
    max_seconds: float,
    shard_size: int,
    limit: int | None,
    execution: Execution,
) -> Settings:
    """Options as typed settings. Raises OpenUniError on what cannot be."""
    sources.get(source)
    names = LIGHT if experts == "light" else tuple(name.strip() for name in experts.split(",") if name.strip())
    if not 0 < fps <= 240 or size < 16 or not 1 <= min_frames <= max_frames or shard_size < 1:
        raise PlanError(
            "--fps must lie in (0, 240], --size be at least 16, 1 ≤ --min-frames ≤ --max-frames, 1 ≤ --shard-size"
        )
    normalisation = Normalisation(fps=fps, short_side=size, max_frames=max_frames, min_frames=min_frames)
    made = recipe(names, [name.strip() for name in require.split(",") if name.strip()], rgb_fingerprint(normalisation))
    limits = replace(_LIMITS, pixels=max_pixels, seconds=max_seconds)
    return Settings(
        out=out or Path("data") / source,
        source=source,
        request=Request(videos, metadata, clip_seconds=max_frames / fps, min_seconds=min_frames / fps, limits=limits),
        recipe=made,
        normalisation=normalisation,
        limits=limits,
        shard_size=shard_size,
        limit=limit,
        execution=execution,
    )


@click.command("build")
@source_options
@click.option("--dry-run", is_flag=True, help="Plan, say what the build would make and need, and write nothing.")
@click.option("--retry-failed", is_flag=True, help="Also take up the clips that failed before.")
def build_command(dry_run: bool, retry_failed: bool, **options: Any) -> None:
    """Build a dataset: plan the clips, let experts annotate them, pack verified shards.

    Run the same command again to resume after any interruption.
    """
    console = Console(stderr=True)
    settings = settings_from(execution=execution_from(options), **options)
    if dry_run:
        _dry_run(settings, console)
        return
    console.print(f"building [bold]{settings.source}[/] into [bold]{settings.out}[/]")
    finish(build(settings, console, retry_failed=retry_failed), console)


def finish(made: Summary, console: Console) -> None:
    """Print what a run came to; exit with status 3 where clips or modalities failed."""
    _print_summary(made, console)
    if made.failures:
        sys.exit(EXIT_WITH_FAILURES)


@click.command("plan")
@source_options
@click.option("--dry-run", is_flag=True, help="Write nothing, only say what the build would make and need.")
def plan_command(dry_run: bool, **options: Any) -> None:
    """Plan a dataset: which clips, in which shards; `openuni build` with the same options carries it out."""
    console = Console(stderr=True)
    settings = settings_from(execution=execution_from(options), **options)
    if dry_run:
        _dry_run(settings, console)
        return
    _check_source(settings)
    with holding(settings.out) as run:
        manifest = _resume(settings)
        if manifest is None:
            with make_executor(settings.execution, _job(settings, run)) as executor:
                manifest = _make_plan(settings, executor, run, console)
    tally = Tally(manifest.clips, skipped=dict(manifest.skipped))
    for clip in Plan(settings.out / layout.PLAN):
        tally.seconds += 0.0 if clip.end is None else clip.end - clip.start
        tally.open_ended += clip.end is None
    _print_estimate(settings, tally)
    console.print(f"the plan is {settings.out / layout.PLAN}")


def _dry_run(settings: Settings, console: Console) -> None:
    job = _job(settings, new_id())
    with (
        tempfile.TemporaryDirectory(prefix="openuni-plan-") as scratch,
        make_executor(settings.execution, job) as executor,
        console.status(f"planning from {settings.source}"),
    ):
        rows = planning.clips(executor, settings.source, settings.request, settings.limit)
        tally = plan.write(Path(scratch) / layout.PLAN, rows, settings.shard_size, job.run)
    _print_estimate(settings, tally)


def _print_estimate(settings: Settings, tally: Tally) -> None:
    console = Console()
    recipe_ = settings.recipe
    estimate = planning.estimate(tally, settings.normalisation, recipe_.experts, tuple(settings.recipe.columns))
    shards = -(-estimate.clips // settings.shard_size)
    console.print(
        f"{estimate.clips:,} clips in {shards:,} shards, about {estimate.frames:,} frames, "
        f"{estimate.video_hours:.2f} hours of video"
    )
    for reason, count in sorted(tally.skipped.items(), key=lambda item: -item[1]):
        console.print(f"  left out: {count:,} × {reason}")
    table = Table("column", "expert", "expected size", "CPU hours")
    for column, size in estimate.column_bytes.items():
        maker = recipe_.maker(column).name
        hours = estimate.cpu_hours.get(maker)
        table.add_row(column, maker, f"{size / 2**20:,.1f} MiB", "" if hours is None else f"{hours:.2f}")
    console.print(table)
    if estimate.missing_assets:
        names = " ".join(estimate.missing_assets)
        console.print(f"[yellow]model files are missing[/]; run: openuni assets fetch {names}")


def _print_summary(summary: Summary, console: Console) -> None:
    table = Table("column", "present", "absent")
    for column, present in summary.present.items():
        table.add_row(column, f"{present:,}", f"{summary.samples - present:,}")
    console.print(table)
    dropped = summary.planned - summary.samples
    console.print(
        f"{summary.samples:,} samples in {summary.root}, {dropped:,} clips dropped, "
        f"{sum(summary.skipped.values()):,} source rows left out, {summary.seconds:.0f} s"
    )
    for failure in summary.failures[:10]:
        console.print(f"  [yellow]{failure.key}[/] {failure.stage}: {failure.error}", highlight=False)
    if len(summary.failures) > 10:
        console.print(f"  … and {len(summary.failures) - 10} more")
    if summary.failures:
        console.print(
            f"{len(summary.failures)} failures, after up to {MAX_ATTEMPTS} attempts each: "
            f"{summary.root / layout.FAILURES}"
        )
    console.print(f"next: openuni verify {summary.root} && openuni stats {summary.root}")
