"""`openuni add` and `openuni drop`: change single columns of a finished dataset."""

from __future__ import annotations

import time
from pathlib import Path

import click

from openuni_pipelines import options, terminal
from openuni_pipelines.engine import changes
from openuni_pipelines.engine.build import summary
from openuni_pipelines.engine.run import Execution

_FOLDER = options.Place(
    exists=True, only_folder="columns of a dataset in an object store cannot be changed yet; copy it to a folder"
)


@click.command("add")
@click.argument("root", metavar="DATASET", type=_FOLDER)
@click.argument("experts", metavar="EXPERT...", nargs=-1, required=True)
@options.trust
@options.of(Execution)
@options.follow_links
def add_command(execution: Execution, root: Path, experts: tuple[str, ...], trust: bool) -> None:
    """Let each EXPERT annotate the clips of DATASET and write its column; the other columns are not touched.

    A column that another version or another expert has made is replaced. Run the same command again to resume.
    """
    terminal.say_notices(experts)
    begin = time.monotonic()
    with terminal.bars(f"opening {root}") as progress:
        changes.add(root, experts, execution, progress, trust=trust)
    terminal.finish(summary(root, time.monotonic() - begin))


@click.command("drop")
@click.argument("root", metavar="DATASET", type=_FOLDER)
@click.argument("column")
@options.follow_links
def drop_command(root: Path, column: str) -> None:
    """Remove COLUMN from DATASET and free its space."""
    freed = changes.drop(root, column)
    click.echo(f"{column} removed from {root}: {freed / 2**20:,.1f} MiB freed")
