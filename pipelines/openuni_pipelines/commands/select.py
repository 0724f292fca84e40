"""`openuni select`: a view of a dataset, by SQL over its scores."""

from __future__ import annotations

import click
from rich.console import Console

import openuni
from openuni.printable import count
from openuni_pipelines import options, terminal
from openuni_pipelines.engine.selecting import SelectConfig, Selection, select


@click.command("select")
@click.argument("path", metavar="DATASET")
@options.of(SelectConfig)
@click.option(
    "--where",
    multiple=True,
    help="Condition in SQL over a clip's scores and fields; may be repeated, each is a further step.",
)
@click.option(
    "--out",
    metavar="FILE",
    help="Where to write the view: a .json or .parquet file, also in a bucket.  [default: only count]",
)
@options.follow_links
def select_command(rule: SelectConfig, path: str, where: tuple[str, ...], out: str | None) -> None:
    """Choose clips of DATASET, and write a view: their keys, and the rule that chose them.

    A view opens wherever a dataset does: train --data view.json, stats, view, export, select again. Nothing is copied
    or measured again. `--where "sharpness > quantile_cont(sharpness, .9) over ()"` keeps the sharpest tenth.
    """
    with terminal.waiting(f"choosing from {path}"):
        made = select(openuni.open(path), where, rule, out)
    _print(made)
    if out is not None:
        click.echo(f"{count(len(made.view.keys), 'clip')}: {out}")


def _print(made: Selection) -> None:
    console = Console(stderr=True)
    terminal.print_funnel(console, made.view.funnel)
    console.print(f"in {made.seconds:.1f} s", highlight=False)
