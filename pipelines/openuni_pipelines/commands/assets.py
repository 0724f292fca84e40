"""`openuni assets`: see, fetch and verify the pinned model files and demo clips."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

import openuni.assets as cache
from openuni import registry
from openuni.assets import Asset
from openuni.errors import AssetError
from openuni.experts import sets
from openuni.printable import rich

_WIDE = 160


@click.group()
def assets() -> None:
    """Model files and demo clips: pinned by SHA-256, fetched once, kept in $OPENUNI_HOME/assets.

    Of a few files the SHA-256 is not published; `list` says so. Their commit is pinned, and what the hub tells of the
    file on the first fetch holds from then on.
    """


@assets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_(as_json: bool) -> None:
    """List every asset: license, size, where its checksum is from, whether it is on this machine, and what uses it."""
    installed = cache.installed().values()
    if as_json:
        rows = [
            {
                "name": entry.asset.name,
                "license": entry.asset.license,
                "bytes": entry.asset.size,
                "sha256": cache.checksum(entry.asset),
                "checksum": _checksum(entry.asset),
                "light": entry.asset.light,
                "cached": cache.is_cached(entry.asset),
                "path": str(cache.place(entry.asset)),
                "used_by": entry.used_by,
                "sources": [str(source) for source in entry.asset.sources],
            }
            for entry in installed
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(title=f"assets in {cache.folder()}", title_justify="left", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("license")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("checksum", no_wrap=True)
    table.add_column("cached")
    table.add_column("used by")
    for entry in installed:
        asset, cached = entry.asset, "yes" if cache.is_cached(entry.asset) else "-"
        table.add_row(
            asset.name,
            asset.license,
            "?" if asset.size is None else decimal(asset.size),
            _checksum(asset),
            cached,
            ", ".join(entry.used_by),
        )
    # In a pipe there is no edge to fit to, and rich's 80 columns would cut licenses short.
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


@assets.command()
@click.argument("names", nargs=-1, metavar="[NAME|EXPERT|SET]...")
@click.option("--all", "everything", is_flag=True, help="Every asset, including gigabytes of production weights.")
@click.option("--light", is_flag=True, help="The assets of the light experts and the demo.")
def fetch(names: tuple[str, ...], everything: bool, light: bool) -> None:
    """Download assets into the cache: by name, by expert, or by set (light, paper, production). Good files that are
    there already are kept. Exit status 1 if any failed."""
    wanted = _wanted(names, everything, light)
    if not wanted:
        raise click.UsageError("name an asset, or give --light or --all; `openuni assets list` shows them")
    failed = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        for asset in wanted:
            # No total at first: a package client tells nothing until it has the package, so the bar pulses.
            bar = bars.add_task(asset.name, total=None)

            def show(done: int, total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done, total=total)

            try:
                file = cache.fetch(asset, show)
            except AssetError as error:
                failed.append(asset.name)
                bars.console.print(f"[red]{rich(str(error))}[/red]", soft_wrap=True)
                bars.remove_task(bar)
            else:
                size = file.stat().st_size
                bars.update(bar, completed=size, total=size)
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


@assets.command()
def verify() -> None:
    """Check the hash of every asset on this machine; exit with 1 if one is not the pinned file."""
    installed = [entry.asset for entry in cache.installed().values()]
    verdicts = cache.verify(installed)
    for verdict in verdicts:
        told = "" if verdict.asset.sha256 else ", as the hub told"
        click.echo(f"{verdict.asset.name}: {verdict.problem or f'ok{told}'}")
    bad = [verdict for verdict in verdicts if verdict.problem]
    click.echo(f"{len(verdicts)} of {len(installed)} assets cached in {cache.folder()}, {len(bad)} bad")
    if bad:
        again = " ".join(verdict.asset.name for verdict in bad)
        click.echo(f"fetch them again: openuni assets fetch {again}", err=True)
        sys.exit(1)


def _checksum(asset: Asset) -> str:
    """Whom we believe it of."""
    return "pinned" if asset.sha256 else "told by the hub"


def _wanted(names: tuple[str, ...], everything: bool, light: bool) -> list[Asset]:
    """The assets asked for by name, by expert or by set, each once. Raises click.UsageError on an unknown name."""
    installed = [entry.asset for entry in cache.installed().values()]
    known = [asset.name for asset in installed]
    experts = [name for name in names if name in sets.SETS or name in registry.names("experts")]
    if unknown := [name for name in names if name not in known and name not in experts]:
        raise click.UsageError(f"there is no asset {', '.join(unknown)}; known: {', '.join(known)}")
    # Each by itself: beside a set, an expert would take the place of one in it.
    wanted = {*names, *(asset.name for expert in experts for asset in sets.assets_of([expert]))}
    return [asset for asset in installed if everything or asset.name in wanted or (light and asset.light)]
