"""What the commands print: bars while they work, tables when they are done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table

from openuni import printable
from openuni.shards import layout

if TYPE_CHECKING:  # most commands print without these, which take half a second to import
    from openuni.choosing import Step
    from openuni_pipelines.engine.build import BuildConfig, Summary
    from openuni_pipelines.engine.monitor import RunProgress
    from openuni_pipelines.engine.planning import Estimate

EXIT_WITH_FAILURES = 3
"""The build is complete, but clips or modalities are missing from it; `failures.parquet` says which and why."""


def say(text: str) -> None:
    """A line of Rich markup on standard error, where it mixes with no output that is piped on."""
    Console(stderr=True).print(text)


def say_notices(experts: Sequence[str]) -> None:
    """What these experts' licenses ask of whoever chooses them."""
    from openuni.experts import sets

    for name, notice in sets.notices(experts).items():
        say(f"[yellow]{escape(name)}: {escape(notice)}[/]")


def waiting(doing: str) -> Status:
    """Say what is being done, while there is nothing to count."""
    return Console(stderr=True).status(doing)


@contextmanager
def bars(doing: str) -> Iterator[Callable[[RunProgress], None]]:
    """A bar a stage, drawn by calling what comes out; until the first call it says what is being done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda progress: None
        return
    drawn = Progress(
        TextColumn("{task.description:>22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    status = console.status(doing)

    def draw(progress: RunProgress) -> None:
        if not drawn.tasks:
            status.stop()
            drawn.start()
        known = {task.description: task.id for task in drawn.tasks}
        for name, stage in progress.stages.items():
            bar = known[name] if name in known else drawn.add_task(name, total=stage.total, rate="")
            rate = f"{stage.worked / max(progress.updated - progress.started, 1e-3):.2f}/s" if stage.worked else ""
            drawn.update(bar, completed=stage.done, rate=rate)

    try:
        status.start()
        yield draw
    finally:
        status.stop()
        drawn.stop()


@contextmanager
def counting(doing: str) -> Iterator[Callable[[int, int], None]]:
    """One bar for things done of a known number: `(done, total)`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(console=console) as drawn:
        bar = drawn.add_task(doing, total=None)
        yield lambda done, total: drawn.update(bar, completed=done, total=total)


def finish(summary: Summary) -> None:
    """Print what a run came to; exit with status 3 where clips or modalities failed."""
    print_summary(summary)
    if summary.failures:
        sys.exit(EXIT_WITH_FAILURES)


def print_summary(summary: Summary) -> None:
    """Columns, clips that were dropped, the first failures, and what to do next."""
    from openuni_pipelines import left_out
    from openuni_pipelines.engine.stages import MAX_ATTEMPTS

    console = Console(stderr=True)
    table = Table("column", "present", "absent")
    for column, present in summary.present.items():
        table.add_row(column, f"{present:,}", f"{summary.samples - present:,}")
    console.print(table)
    dropped = summary.planned - summary.samples
    console.print(
        f"{printable.count(summary.samples, 'sample')} in {printable.rich(str(summary.root))}, "
        f"{printable.count(dropped, 'clip')} dropped, "
        f"{printable.count(sum(summary.skipped.values()), 'source row')} left out, {summary.seconds:.0f} s"
        + (f"; part {summary.part} is through" if summary.part else "")
    )
    here = summary.part is None and isinstance(summary.root, Path)
    for line in left_out.lines(Path(summary.root), summary.skipped) if here else ():
        console.print(line, highlight=False)
    for failure in summary.failures[:10]:
        console.print(
            f"  [yellow]{printable.rich(failure.key)}[/] {failure.stage}: {printable.rich(failure.error)}",
            highlight=False,
        )
    if len(summary.failures) > 10:
        console.print(f"  … and {len(summary.failures) - 10} more")
    if summary.failures:
        console.print(
            f"{printable.count(len(summary.failures), 'failure')}, after up to {MAX_ATTEMPTS} attempts each: "
            f"{printable.rich(f'{summary.root}/{layout.FAILURES}')}"
        )
    if summary.new_files:
        some = ", ".join(printable.rich(name) for name in summary.new_files[:5])
        console.print(
            f"[yellow]{printable.count(len(summary.new_files), 'video')} that came after the plan[/], and so not in it "
            f"({some}{', …' if len(summary.new_files) > 5 else ''}); add with --extend"
        )
    where = printable.rich(str(summary.root))
    if summary.complete:
        console.print(f"next: openuni verify {where} && openuni stats {where}")
    else:
        console.print(f"other parts are not through yet: openuni status {where}")


def print_source(config: BuildConfig) -> None:
    """How the source will find clips, and what it has at hand."""
    if not (config.root / layout.MANIFEST).exists():
        for remark in config.reader.remarks:
            say(printable.rich(remark))
    _print_places(config)


def _print_places(config: BuildConfig) -> None:
    """What a source that wants tables or videos has at hand, what it lacks and the next command, on one screen."""
    source = config.reader
    if not source.needs or (
        config.videos is not None and (config.metadata is not None or "metadata" not in source.needs)
    ):
        return
    from openuni.sources import hub

    console = Console(stderr=True, highlight=False)
    console.print(f"source [bold]{source.name}[/]: {printable.rich(source.license)}")
    lacks = []
    for kind in source.needs:
        given = config.metadata if kind == "metadata" else config.videos
        if given is not None:
            console.print(f"  {kind:<8}  {printable.rich(str(given))}")
            continue
        place = hub.look(source.name, kind)
        lacks += [] if place.files else [kind]
        what = (
            f"{printable.count(place.files, 'file')}, {decimal(place.bytes)}"
            if place.files
            else "[yellow]nothing there[/]"
        )
        console.print(f"  {kind:<8}  {printable.rich(str(place.path))}: {what}")
    if "metadata" in lacks and source.hub:
        console.print(f"  next: openuni sources fetch {source.name}")
    elif lacks == ["videos"] and source.has_urls:
        console.print("  next: put the videos there, or give --videos FOLDER")
        console.print(f"  or:   openuni sources download --source {source.name} --sample 1000")
    elif lacks:
        options = " ".join(f"--{kind} FOLDER" for kind in lacks)
        console.print(f"  next: put the {' and the '.join(lacks)} there, or give {options}")


def print_funnel(console: Console, funnel: Sequence[Step]) -> None:
    """What each step of choosing rows left; nothing where none were chosen."""
    if not funnel:
        return
    from openuni_pipelines.funnel import share

    table = Table("step", "rows left", "of all", "dropped")
    for before, step in zip((funnel[0], *funnel), funnel, strict=False):
        dropped = f"{before.left - step.left:,}" if step.left < before.left else ""
        table.add_row(printable.rich(step.what), f"{step.left:,}", share(step.left, funnel[0].left), dropped)
    console.print(table)


def print_estimate(estimate: Estimate, shard_size: int) -> None:
    """What a build will make and need, on standard output."""
    console = Console()
    console.print(
        f"{printable.count(estimate.clips, 'clip')} in {printable.count(-(-estimate.clips // shard_size), 'shard')}, "
        f"about {printable.count(estimate.frames, 'frame')}, "
        f"{estimate.video_hours:.2f} hours of video"
    )
    print_funnel(console, estimate.funnel)
    for reason, count in sorted(estimate.skipped.items(), key=lambda item: -item[1]):
        console.print(f"  left out: {count:,} × {printable.rich(reason)}")
    table = Table("column", "expert", "expected size", "CPU hours")
    for column, size in estimate.column_bytes.items():
        maker = estimate.makers[column]
        hours = estimate.cpu_hours.get(maker)
        table.add_row(column, maker, decimal(size), "" if hours is None else f"{hours:.2f}")
    console.print(table)
    for use in estimate.cards:
        how = "measured" if use.measured else "published; `openuni doctor --experts` measures it"
        console.print(
            f"on a GPU: {use.expert}, {use.frames_per_second:.3g} frames a second ({how}): {use.hours:.2f} hours; "
            f"CPU cores that feed it: {use.cores}",
            soft_wrap=True,
        )
    if estimate.missing_assets:
        names = " ".join(estimate.missing_assets)
        console.print(f"[yellow]model files are missing[/]; run: openuni assets fetch {names}")
