"""`openuni status`: how far a build is, while it runs and after."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from openuni.printable import count, plain, rich
from openuni_pipelines import options
from openuni_pipelines.engine.monitor import RunProgress
from openuni_pipelines.engine.stages import MAX_ATTEMPTS
from openuni_pipelines.engine.state import FarState, State, look, look_far


@click.command("status")
@click.argument("root", metavar="DATASET", type=options.Place(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def status_command(root: Path | str, as_json: bool) -> None:
    """Show what is finished, who is working on DATASET, how fast, and what failed."""
    if isinstance(root, str):
        _print_far(look_far(root), as_json)
        return
    state = look(root)
    holder, manifest, progress = state.holder, state.manifest, state.progress
    if manifest is None:
        if holder is not None:
            click.echo(plain(f"run {holder.run} is planning (process {holder.pid} on {holder.host})"))
        return
    if as_json:
        document = {
            "clips": manifest.clips,
            "shards": manifest.shards,
            "committed": state.committed,
            "running": asdict(holder) if holder else None,
            "progress": asdict(progress) if progress else None,
            "seconds_left": progress.seconds_left() if progress and holder else None,
            "parts": [
                {
                    "part": str(one.part),
                    "running": asdict(one.holder) if one.holder else None,
                    "progress": asdict(one.progress) if one.progress else None,
                }
                for one in state.parts
            ],
            "failures": [{"stage": s, "kind": k, "count": n} for (s, k), n in sorted(state.failed.items())],
        }
        click.echo(json.dumps(document, indent=1))
        return
    console = Console()
    if state.parts:
        _print_parts(state, console)
    elif holder:
        console.print(rich(f"run {holder.run} is at work (process {holder.pid} on {holder.host})"))
    else:
        console.print("complete" if state.complete else "not running, not complete: run the same `openuni build` again")
    table = Table("column", "shards committed", "of", "made by")
    for column, shards in state.committed.items():
        table.add_row(column, f"{shards:,}", f"{manifest.shards:,}", manifest.columns[column])
    console.print(table)
    if progress and not state.parts:
        _print_progress(progress, holder is not None, console)
    for (stage, kind), clips in sorted(state.failed.items()):
        console.print(f"{count(clips, 'clip')} failed in {stage} ({rich(kind)})")


def _print_far(state: FarState, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(state), indent=1))
        return
    console = Console()
    for name, holder in state.leases.items():
        who = f"run {holder.run}, process {holder.pid} on {holder.host}"
        console.print(rich(f"{name}: {who}; a lease that stays behind is found dead by the next run"))
    table = Table("column", "shards committed", "of")
    for column, shards in state.committed.items():
        table.add_row(rich(column), f"{shards:,}", f"{state.shards:,}")
    console.print(table)
    console.print("complete" if state.complete else "not complete: run the same `openuni build` again")


def _print_parts(state: State, console: Console) -> None:
    """A line a part that has begun, and which have not."""
    table = Table("part", "shards", "of", "at work", "minutes left", "faults")
    for one in state.parts:
        progress, holder = one.progress, one.holder
        through = progress is not None and progress.finished
        who = f"process {holder.pid} on {holder.host}" if holder else "through" if through else "LOST: run it again"
        left = progress.seconds_left() if progress and holder else None
        table.add_row(
            str(one.part),
            f"{progress.shards_done:,}" if progress else "",
            f"{progress.shards:,}" if progress else "",
            rich(who),
            "" if left is None else f"{left / 60:,.0f}",
            f"{sum(progress.faults.values()):,}" if progress else "",
        )
    console.print(table)
    begun = {one.part.number for one in state.parts}
    missing = [str(number) for number in range(1, state.parts[0].part.of + 1) if number not in begun]
    if missing:
        more = ", …" if len(missing) > 20 else ""
        console.print(f"not begun, of {state.parts[0].part.of:,}: {', '.join(missing[:20])}{more}")
    if state.complete:
        console.print("every part is through; run any of them, or `openuni index`, to complete the dataset")


def _print_progress(progress: RunProgress, running: bool, console: Console) -> None:
    elapsed = max(progress.updated - progress.started, 1e-3)
    table = Table("stage", "clips", "of", "clips/s", "worker s/clip", "absent", "faults")
    for name, stage in progress.stages.items():
        table.add_row(
            "commit (columns)" if name == "commit" else rich(name),
            f"{stage.done:,}",
            f"{stage.total:,}",
            f"{stage.worked / elapsed:.2f}",
            f"{stage.seconds / stage.worked:.2f}" if stage.worked else "",
            f"{stage.absent:,}",
            f"{stage.faults:,}",
        )
    state = "at work" if running else "finished" if progress.finished else "stopped"
    console.print(
        f"run {rich(progress.run)}: {state}, {elapsed:,.0f} s, "
        f"{progress.shards_done:,} of {count(progress.shards, 'shard')}"
    )
    console.print(table)
    faults = ", ".join(f"{times:,} {rich(kind)}" for kind, times in sorted(progress.faults.items()))
    if faults:
        console.print(f"faults (each tried again, up to {MAX_ATTEMPTS} times): {faults}")
    if running:
        left = progress.seconds_left()
        known = "time left not known yet" if left is None else f"about {left / 60:,.0f} minutes left"
        console.print(f"{count(progress.running, 'task')} under way, {known}")
