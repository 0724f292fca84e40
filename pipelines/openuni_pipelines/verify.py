"""`openuni verify`: every hash, member and frame count of a data set, in parallel, with the clip's name on a fault."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from openuni.shards import verify
from openuni.shards.verify import Checked


@click.command("verify")
@click.argument("root", metavar="DATASET", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--quick", is_flag=True, help="Hashes and tar members only; decode nothing.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify_command(root: Path, quick: bool, workers: int | None, as_json: bool) -> None:
    """Check that DATASET holds what was committed. Exit status 1 names what does not."""
    manifest = verify.manifest(root)
    work = [(shard, column) for shard in range(manifest.shards) for column in manifest.columns]
    results: list[Checked] = []
    # Spawned, not forked: the codecs start threads, and a forked copy of a held lock would hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers or os.cpu_count() or 1, len(work)), mp_context=context) as pool:
        jobs = [pool.submit(verify.verify_column, root, shard, column, decode=not quick) for shard, column in work]
        console = Console(stderr=True)
        for job in track(
            as_completed(jobs), "verifying", total=len(jobs), console=console, disable=not console.is_terminal
        ):
            results.append(job.result())
    problems = sorted(
        (problem for result in results for problem in result.problems), key=lambda p: (p.shard, p.column, p.key)
    )
    samples = sum(result.samples for result in results if result.column == "rgb")
    if as_json:
        report = {
            "ok": not problems,
            "samples": samples,
            "columns": {
                column: {
                    "present": sum(r.present for r in results if r.column == column),
                    "bytes": sum(r.bytes for r in results if r.column == column),
                }
                for column in manifest.columns
            },
            "problems": [asdict(problem) for problem in problems],
        }
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        for problem in problems:
            click.echo(f"{problem.file}: {problem.what}" + (f" (clip {problem.key})" if problem.key else ""))
        size = sum(result.bytes for result in results)
        looked = "hashes and members" if quick else "hashes, members and values"
        click.echo(
            f"{root}: {samples:,} samples in {manifest.shards:,} shards, {len(manifest.columns)} columns, "
            f"{size / 2**20:,.1f} MiB: " + (f"{len(problems)} problems" if problems else f"{looked} are as committed")
        )
    if problems:
        sys.exit(1)
