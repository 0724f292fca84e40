"""`openuni verify`: every hash, member and frame count of a dataset, in parallel, with the clip's name on a fault."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from openuni.printable import plain
from openuni.shards import verify
from openuni.shards.layout import Manifest
from openuni.shards.verify import Checked, Problem
from openuni_pipelines.engine import changes
from openuni_pipelines.engine.run import execution_from, execution_options


@click.command("verify")
@click.argument("root", metavar="DATASET", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--quick", is_flag=True, help="Hashes and tar members only; decode nothing.")
@click.option("--repair", is_flag=True, help="Make damaged samples again from their videos, then check again.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@execution_options
def verify_command(root: Path, quick: bool, repair: bool, as_json: bool, **options: Any) -> None:
    """Check that DATASET holds what was committed. Exit status 1 names what does not."""
    execution = execution_from(options)
    manifest = verify.manifest(root)
    console = Console(stderr=True)
    results, problems = check(root, manifest, quick, execution.workers, console)
    if problems and repair:
        _print_problems(problems, err=True)
        changes.repair(root, problems, execution, console)
        results, problems = check(root, manifest, quick, execution.workers, console)
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
        _print_problems(problems)
        size = sum(result.bytes for result in results)
        looked = "hashes and members" if quick else "hashes, members and values"
        click.echo(
            f"{root}: {samples:,} samples in {manifest.shards:,} shards, {len(manifest.columns)} columns, "
            f"{size / 2**20:,.1f} MiB: " + (f"{len(problems)} problems" if problems else f"{looked} are as committed")
        )
    if problems:
        sys.exit(1)


def check(
    root: Path, manifest: Manifest, quick: bool, workers: int | None, console: Console
) -> tuple[list[Checked], list[Problem]]:
    """Every column of every shard, and all problems in order."""
    work = [(shard, column) for shard in range(manifest.shards) for column in manifest.columns]
    results: list[Checked] = []
    # Spawned, not forked: the codecs start threads, and a forked copy of a held lock would hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(workers or os.cpu_count() or 1, len(work))), mp_context=context) as pool:
        jobs = [pool.submit(verify.verify_column, root, shard, column, decode=not quick) for shard, column in work]
        for job in track(
            as_completed(jobs), "verifying", total=len(jobs), console=console, disable=not console.is_terminal
        ):
            results.append(job.result())
    found = [*verify.verify_plan(root), *(problem for result in results for problem in result.problems)]
    return results, sorted(found, key=lambda p: (p.shard, p.column, p.key))


def _print_problems(problems: Sequence[Problem], *, err: bool = False) -> None:
    for problem in problems:
        where = f" (clip {problem.key})" if problem.key else ""
        click.echo(plain(f"{problem.file}: {problem.what}{where}"), err=err)
