"""`openuni index`: fold what is committed into the catalog, so that opening a dataset of any size takes three reads."""

from __future__ import annotations

from pathlib import Path

import click

from openuni.printable import count, rich
from openuni.shards import catalog, verify
from openuni_pipelines import terminal
from openuni_pipelines.engine.run import holding


@click.command("index")
@click.argument("root", metavar="DATASET", type=click.Path(path_type=Path, exists=True, file_okay=False))
def index_command(root: Path) -> None:
    """Rewrite DATASET's catalog. Every build does so at its end; use this for datasets of older versions."""
    verify.manifest(root)
    with holding(root) as run:
        records = catalog.write(root, run)
    terminal.say(f"{count(records, 'commit record')} in [bold]{rich(str(root / catalog.TABLE))}[/]")
