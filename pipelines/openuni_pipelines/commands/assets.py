"""`openuni assets`: see, fetch and verify the pinned model files and demo clips."""

from __future__ import annotations

import json
import sys
from collections import defaultdict

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

import openuni.assets as catalogue
from openuni import registry
from openuni.errors import AssetError
from openuni.experts import base as experts

_WIDE = 160
_NAME = click.Choice(catalogue.names())


@click.group()
def assets() -> None:
    """Model files and demo clips: pinned by SHA-256, fetched once, kept in $OPENUNI_HOME/assets."""


@assets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(as_json: bool) -> None:
    """Every asset: license, size, whether it is on this machine, and which experts use it."""
    users = _users()
    pinned = [catalogue.get(name) for name in catalogue.names()]
    if as_json:
        rows = [
            {
                "name": asset.name,
                "license": asset.license,
                "bytes": asset.size,
                "sha256": asset.sha256,
                "light": asset.light,
                "cached": catalogue.is_cached(asset.name),
                "path": str(catalogue.place(asset.name)),
                "used_by": users[asset.name],
                "sources": [str(source) for source in asset.sources],
            }
            for asset in pinned
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(title=f"assets in {catalogue.folder()}", title_justify="left", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("license")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("cached")
    table.add_column("used by")
    for asset in pinned:
        cached = "yes" if catalogue.is_cached(asset.name) else "-"
        table.add_row(asset.name, asset.license, _size(asset.size), cached, ", ".join(users[asset.name]) or "-")
    # In a pipe there is no edge to fit to, and rich's 80 columns would cut licenses short.
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


@assets.command()
@click.argument("names", nargs=-1, type=_NAME, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every asset, gigabytes of production weights included.")
@click.option("--light", is_flag=True, help="What the CPU experts and the demo use.")
def fetch(names: tuple[str, ...], everything: bool, light: bool) -> None:
    """Bring assets into the cache; those that are there and good are kept. Exits 1 if any failed."""
    wanted = [
        name for name in catalogue.names() if everything or name in names or (light and catalogue.get(name).light)
    ]
    if not wanted:
        raise click.UsageError("name an asset, or give --light or --all; `openuni assets list` shows them")
    failed = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        for name in wanted:
            # No total at first: a package client tells nothing until it has the package, so the bar pulses.
            bar = bars.add_task(name, total=None)

            def show(done: int, total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done, total=total)

            try:
                catalogue.fetch(name, show)
            except AssetError as error:
                failed.append(name)
                bars.console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
                bars.remove_task(bar)
            else:
                size = catalogue.get(name).size
                bars.update(bar, completed=size, total=size)
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


@assets.command()
def verify() -> None:
    """Hash every asset that is on this machine again. Exits 1 if one is not the pinned file."""
    verdicts = catalogue.verify()
    for verdict in verdicts:
        click.echo(f"{verdict.asset.name}: {verdict.problem or 'ok'}")
    bad = [verdict for verdict in verdicts if verdict.problem]
    click.echo(f"{len(verdicts)} of {len(catalogue.names())} assets cached in {catalogue.folder()}, {len(bad)} bad")
    if bad:
        again = " ".join(verdict.asset.name for verdict in bad)
        click.echo(f"fetch them again: openuni assets fetch {again}", err=True)
        sys.exit(1)


def _users() -> defaultdict[str, list[str]]:
    """The experts that need each asset."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for expert in registry.names("experts"):
        for asset in experts.get(expert).assets:
            users[asset].append(expert)
    return users


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
