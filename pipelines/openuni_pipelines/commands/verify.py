"""`openuni verify`: every hash, member and frame count of a dataset, with the clip's name on a fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.filesize import decimal

from openuni.errors import PlanError
from openuni.printable import count, plain
from openuni.shards import bucket, failures, layout, verify
from openuni.shards.failures import Failure
from openuni.shards.layout import Manifest
from openuni.shards.verify import Problem
from openuni.storage.objects import ObjectStore
from openuni_pipelines import options, terminal
from openuni_pipelines.engine import changes, revising, verifying
from openuni_pipelines.engine.recipe import RGB
from openuni_pipelines.engine.run import Execution
from openuni_pipelines.engine.verifying import Report


@click.command("verify")
@click.argument("root", metavar="DATASET", type=options.Place(exists=True))
@click.option("--quick", is_flag=True, help="Hashes and tar members only; decode nothing.")
@click.option("--repair", is_flag=True, help="Make damaged samples again from their videos, then check again.")
@options.trust
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@options.staging
@options.of(Execution)
@options.follow_links
def verify_command(
    execution: Execution,
    root: Path | str,
    quick: bool,
    repair: bool,
    trust: bool,
    as_json: bool,
    staging: Path | None,
) -> None:
    """Check every byte and value of DATASET against what was committed.

    Exit status 1: there is damage, which is named. Exit status 3: --repair had to drop the clips that it names, because
    they can no longer be made from their videos.
    """
    dropped: list[Failure] = []
    manifest, report = _check(root, execution, quick)
    if report.problems and repair:
        _print_problems(report.problems, err=True)
        with terminal.bars("reopening damaged columns") as bars:
            if isinstance(root, str):
                new = revising.repair(root, report.problems, execution, bars, trust=trust, staging=staging)
            else:
                before = failures.read(root)
                changes.repair(root, report.problems, execution, bars, trust=trust)
                new = [one for one in failures.read(root) if one not in before]
        dropped = [one for one in new if one.stage == RGB or one.kind == "refused"]
        manifest, report = _check(root, execution, quick)
    if as_json:
        document = {
            "ok": not report.problems,
            "samples": report.samples,
            "columns": {
                column: {
                    "present": sum(one.present for one in report.checked if one.column == column),
                    "bytes": sum(one.bytes for one in report.checked if one.column == column),
                }
                for column in manifest.columns
            },
            "problems": [asdict(problem) for problem in report.problems],
        }
        click.echo(json.dumps(document, indent=1))
    else:
        _print_problems(report.problems)
        looked = "hashes and members" if quick else "hashes, members and values"
        verdict = count(len(report.problems), "problem") if report.problems else f"{looked} are as committed"
        click.echo(
            f"{root}: {count(report.samples, 'sample')} in {count(manifest.shards, 'shard')}, "
            f"{count(len(manifest.columns), 'column')}, {decimal(report.bytes)}: {verdict}"
        )
    for one in dropped:
        click.echo(plain(f"clip {one.key} could not be made again and was dropped: {one.stage}: {one.error}"), err=True)
    if report.problems:
        sys.exit(1)
    if dropped:
        sys.exit(3)


def _check(root: Path | str, execution: Execution, quick: bool) -> tuple[Manifest, Report]:
    if isinstance(root, Path):
        manifest = verify.manifest(root)
        with terminal.counting("verifying") as progress:
            return manifest, verifying.check(root, manifest, execution, quick=quick, progress=progress)
    store = ObjectStore(root)
    far = bucket.read_manifest(store)
    if far is None:
        raise PlanError(f"{root} is not a dataset: it has no {layout.MANIFEST}")
    with terminal.counting("verifying") as progress:
        return far, verifying.check_far(store, far, execution, quick=quick, progress=progress)


def _print_problems(problems: Sequence[Problem], *, err: bool = False) -> None:
    for problem in problems:
        where = f" (clip {problem.key})" if problem.key else ""
        click.echo(plain(f"{problem.file}: {problem.what}{where}"), err=err)
