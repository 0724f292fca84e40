"""`unibench doctor`: does the benchmark measure what it says, and do these predictions keep its conventions?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from openuni.errors import OpenUniError
from openuni.printable import count, plain, rich
from unibench import tasks as scored
from unibench.scoring import doctor
from unibench.scoring.places import at_hand
from unibench.scoring.plan import STANDARD, open_place, open_standard, place
from unibench.scoring.runs import open_run
from unibench.scoring.samples import comparable_pairs
from unibench.tasks import Run

_SCENES = (("fall", 1), ("collide", 2), ("projectile", 3), ("fly", 4))
"""Rendered on the spot where there is no truth: enough motion and depth for every corruption to show."""


@click.command("doctor")
@click.option(
    "--gt", help=f"The truth to check, also in s3://….  [default: {STANDARD}, else four small scenes rendered now]"
)
@click.option("--pred", help="Predictions whose conventions are to be checked, also in s3://….")
@click.option(
    "--depth-kind",
    type=click.Choice(["metric", "relative", "affine_disparity"]),
    help="What the numbers in plain depth files are.",
)
@click.option("--limit", type=click.IntRange(min=1), default=8, show_default=True, help="Samples to look at.")
def doctor_command(gt: str | None, pred: str | None, depth_kind: str | None, limit: int) -> None:
    """Check storage, that corrupted predictions score worse, and with --pred the conventions of predictions.

    Exit status 1 where a check fails or a mistaken convention is found.
    """
    console = Console()
    with ExitStack() as here:
        gt, pred = (None if run is None else here.enter_context(at_hand(run, _say)) for run in (gt, pred))
        if pred is None:
            sys.exit(_check_truth(console, gt, limit))
        truth = open_standard() if gt is None else open_run(gt)
        sys.exit(_check_predictions(console, open_place(place(pred, depth_kind)), truth, limit))


def _say(news: str) -> None:
    click.echo(plain(news), err=True)


def _check_truth(console: Console, gt: str | None, limit: int) -> int:
    failures = 0
    table = Table(title="the benchmark itself", title_justify="left", title_style="bold")
    for heading in ("task", "check", "errors, weakest first", ""):
        table.add_column(heading, overflow="fold")
    for task, key, true in _values(gt, limit):
        stored = doctor.storage(task, true)
        verdict = "ok" if stored.ok else "FAILS"
        table.add_row(task, rich(f"{key}: stored"), f"{stored.error:.3g} (allowed {stored.bound:.3g})", verdict)
        failures += not stored.ok
        for ladder in doctor.ladders(task, true):
            errors = "  ".join(f"{error:.3g}" for error in ladder.errors)
            table.add_row(task, rich(f"{key}: {ladder.corruption}"), errors, "ok" if ladder.ok else "FAILS")
            failures += not ladder.ok
    console.print(table)
    console.print(f"{failures} checks fail" if failures else "every check passes")
    return 1 if failures else 0


def _check_predictions(console: Console, predictions: Run, truth: Run, limit: int) -> int:
    tasks = [task for task in scored.estimated() if task in predictions.values() and task in truth.values()]
    if not tasks:
        raise OpenUniError(f"{predictions.path} and {truth.path} share no task")
    found = 0
    for task in tasks:
        pairs = comparable_pairs(task, predictions, truth, limit)
        finding = doctor.diagnose(task, pairs)
        found += finding is not None
        console.print(
            rich(str(finding)) if finding else f"{task}: no mistaken convention in {count(len(pairs), 'sample')}"
        )
    return 1 if found else 0


def _values(gt: str | None, limit: int) -> Iterator[tuple[str, str, Any]]:
    """True values by task and key: of the dataset, or of scenes rendered now."""
    if gt is None and not STANDARD.is_dir():
        from unibench.rendering.render import modalities
        from unibench.rendering.truth import trace
        from unibench.scenes.families import Spec, build

        for family, seed in _SCENES[:limit]:
            values = modalities(trace(build(Spec(family, seed, frames=6, height=96, width=96))))
            for task in ("depth", "flow", "segmentation"):
                yield task, f"{family}-{seed}", getattr(values, task)
        return
    truth = open_run(gt or STANDARD)
    for task in scored.estimated():
        if task in truth.values():
            for key in truth.keys(task)[:limit]:
                yield task, key, truth.load(task, key)
