"""`openuni status`: how far a build is, while it runs and after."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from openuni.shards import columns, failures, layout, lock, verify
from openuni_pipelines.monitor import RunProgress


@click.command("status")
@click.argument("root", metavar="DATASET", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def status_command(root: Path, as_json: bool) -> None:
    """Say what is committed, who is at work on DATASET, how fast, and what failed."""
    manifest = verify.manifest(root)
    committed = dict.fromkeys(manifest.columns, 0)
    for shard in range(manifest.shards):
        for column, fingerprint in manifest.columns.items():
            record = columns.committed(root, shard, column)
            committed[column] += record is not None and record.fingerprint == fingerprint
    holder = lock.read(root)
    running = holder is not None and lock.alive(root / layout.LOCK, holder)
    path = root / layout.PROGRESS
    progress = layout.parse_json(RunProgress, path.read_bytes(), str(path)) if path.exists() else None
    failed = Counter((failure.stage, failure.kind) for failure in failures.read(root))
    if as_json:
        state = {
            "clips": manifest.clips,
            "shards": manifest.shards,
            "committed": committed,
            "running": asdict(holder) if running and holder else None,
            "progress": asdict(progress) if progress else None,
            "failures": [{"stage": s, "kind": k, "count": n} for (s, k), n in sorted(failed.items())],
        }
        click.echo(json.dumps(state, indent=1))
        return
    console = Console()
    if running and holder:
        console.print(f"run {holder.run} is at work (process {holder.pid} on {holder.host})")
    else:
        whole = all(count == manifest.shards for count in committed.values())
        console.print("complete" if whole else "not running, not complete: run the same `openuni build` again")
    table = Table("column", "shards committed", "of", "made by")
    for column, count in committed.items():
        table.add_row(column, f"{count:,}", f"{manifest.shards:,}", manifest.columns[column])
    console.print(table)
    if progress:
        _print_progress(progress, running, console)
    for (stage, kind), count in sorted(failed.items()):
        console.print(f"{count:,} clips failed in {stage} ({kind})")


def _print_progress(progress: RunProgress, running: bool, console: Console) -> None:
    end = time.time() if running else progress.updated
    elapsed = max(end - progress.started, 1e-3)
    table = Table("stage", "clips", "of", "absent", "faults", "frames/s", "CPU s/frame")
    for name, stage in progress.stages.items():
        table.add_row(
            name,
            f"{stage.done:,}",
            f"{stage.total:,}",
            f"{stage.absent:,}" if name != "commit" else "",
            f"{stage.faults:,}",
            f"{stage.frames / elapsed:.1f}" if name != "commit" else "",
            f"{stage.seconds / stage.frames:.3f}" if stage.frames and name != "commit" else "",
        )
    console.print(f"run {progress.run}, {elapsed:,.0f} s")
    console.print(table)
    done = sum(stage.done for stage in progress.stages.values())
    left = sum(stage.total - stage.done for stage in progress.stages.values())
    if running and done and left:
        console.print(f"about {elapsed * left / done / 60:,.0f} minutes left at this rate")
