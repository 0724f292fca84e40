"""`openuni add` and `openuni drop`: change single columns of a finished dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from openuni_pipelines.commands.build import finish, summary
from openuni_pipelines.engine import changes
from openuni_pipelines.engine.run import execution_from, execution_options


@click.command("add")
@click.argument("root", metavar="DATASET", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("experts", metavar="EXPERT...", nargs=-1, required=True)
@execution_options
def add_command(root: Path, experts: tuple[str, ...], **options: Any) -> None:
    """Let each EXPERT annotate the clips of DATASET and write its column; the other columns are not touched.

    A column that another version or another expert has made is replaced. Run the same command again to resume.
    """
    console = Console(stderr=True)
    begin = time.monotonic()
    changes.add(root, experts, execution_from(options), console)
    finish(summary(root, time.monotonic() - begin), console)


@click.command("drop")
@click.argument("root", metavar="DATASET", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("column")
def drop_command(root: Path, column: str) -> None:
    """Remove COLUMN from DATASET and free its space."""
    freed = changes.drop(root, column)
    click.echo(f"{column} is gone from {root}, {freed / 2**20:,.1f} MiB are free again")
