"""`unibench compare`: two scored runs, sample by sample."""

from __future__ import annotations

import json

import click
from pydantic import TypeAdapter
from rich.console import Console

from openuni import printable
from unibench.report import report


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare_command(first: str, second: str, as_json: bool) -> None:
    """Say how B differs from A, with paired bootstrap intervals.

    A and B are folders that `unibench score` wrote into (or their parents), or report.json files, also in s3://….
    Runs scored under different protocols are refused.
    """
    compared = report.compare_runs(first, second)
    if as_json:
        document = TypeAdapter(report.Comparison).dump_json(compared)
        click.echo(json.dumps(json.loads(document), indent=1))
        return
    Console().print(report.comparison_table(compared))
    for warning in compared.warnings:
        click.secho(printable.plain(f"warning: {warning}"), fg="yellow", err=True)
