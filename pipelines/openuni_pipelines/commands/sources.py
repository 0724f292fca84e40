"""`openuni sources`: what each source needs, what is at hand, and its tables from the hub."""

from __future__ import annotations

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from openuni import printable, registry, sources
from openuni.sources import hub
from openuni_pipelines import terminal


@click.group("sources")
def sources_command() -> None:
    """Where clips come from: tables and videos at hand in data/sources/NAME (or $OPENUNI_SOURCES/NAME)."""


@sources_command.command("list")
def list_() -> None:
    """Every source: its license, and what of it is at hand."""
    table = Table("source", "license", "tables", "videos", "on the hub", box=None)
    for name in registry.names("sources"):
        source = sources.get(name)
        at_hand = [hub.look(name, kind) for kind in ("metadata", "videos")]
        shown = [f"{place.files:,} files, {decimal(place.bytes)}" if place.files else "-" for place in at_hand]
        table.add_row(name, printable.rich(source.license), *shown, source.hub.repository if source.hub else "-")
    Console().print(table)


@sources_command.command("fetch")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask, download.")
def fetch(name: str, yes: bool) -> None:
    """Download the tables of source NAME from the hub; its size and license are shown first. No video is fetched.

    HF_ENDPOINT names a mirror, HF_TOKEN an account. Run it again to go on after an interruption.
    """
    source = sources.get(name)
    what = hub.published(source)
    target = hub.folder(name) / "metadata"
    click.echo(f"{what.hub.repository} at {what.commit[:12]}: {len(what.files)} files, {decimal(what.bytes)}")
    click.echo(f"license: {source.license} (its card: {what.license})")
    click.echo(f"into:    {target}")
    if not yes:
        click.confirm("download?", abort=True)
    with terminal.counting("tables") as progress:
        done = 0

        def show(_: str, size: int) -> None:
            nonlocal done
            done += size
            progress(done, what.bytes)

        hub.fetch(source, what, show)
    click.echo(f"next: openuni build --source {name} --dry-run")
