"""`openuni add` and `openuni drop`: change single columns of a finished dataset."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click
from rich.filesize import decimal

from openuni_pipelines import options, terminal
from openuni_pipelines.engine import changes, revising
from openuni_pipelines.engine.build import far_summary, summary
from openuni_pipelines.engine.run import Execution

_DATASET = options.Place(exists=True)


@click.command("add")
@click.argument("root", metavar="DATASET", type=_DATASET)
@click.argument("experts", metavar="EXPERT...", nargs=-1, required=True)
@options.trust
@options.staging
@options.of(Execution)
@options.follow_links
def add_command(
    execution: Execution, root: Path | str, experts: tuple[str, ...], trust: bool, staging: Path | None
) -> None:
    """Annotate the clips of DATASET with each EXPERT, and write its column. Other columns are not touched.

    A column that another version or another expert made is replaced. Run the same command again to resume.
    """
    terminal.say_notices(experts)
    begin = time.monotonic()
    with terminal.bars(f"opening {root}") as progress:
        if isinstance(root, str):
            revising.add(root, experts, execution, progress, trust=trust, staging=staging)
        else:
            changes.add(root, experts, execution, progress, trust=trust)
    made = far_summary(root) if isinstance(root, str) else summary(root)
    terminal.finish(replace(made, seconds=time.monotonic() - begin))


@click.command("drop")
@click.argument("root", metavar="DATASET", type=_DATASET)
@click.argument("column")
@options.follow_links
def drop_command(root: Path | str, column: str) -> None:
    """Remove COLUMN from DATASET and free its space."""
    freed = revising.drop(root, column) if isinstance(root, str) else changes.drop(root, column)
    click.echo(f"{column} removed from {root}: {decimal(freed)} freed")
