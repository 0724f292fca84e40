"""`openuni index`: fold what is committed into the catalog, so that opening a dataset of any size takes three reads."""

from __future__ import annotations

from pathlib import Path

import click

from openuni.printable import count, rich
from openuni.shards import catalog, verify
from openuni_pipelines import options, terminal
from openuni_pipelines.engine import revising
from openuni_pipelines.engine.run import holding


@click.command("index")
@click.argument("root", metavar="DATASET", type=options.Place(exists=True))
def index_command(root: Path | str) -> None:
    """Rewrite DATASET's catalog. Every build does so at its end; use this for datasets of older versions."""
    if isinstance(root, str):
        records, where = revising.index(root), f"{root}/{catalog.TABLE}"
    else:
        verify.manifest(root)
        with holding(root) as run:
            records, where = catalog.write(root, run), str(root / catalog.TABLE)
    terminal.say(f"{count(records, 'commit record')} in [bold]{rich(where)}[/]")
