"""`openuni push` and `openuni pull`: a dataset to a bucket or the hub, and back."""

from __future__ import annotations

from pathlib import Path

import click
from rich.filesize import decimal

from openuni.printable import count, plain
from openuni_pipelines import options, terminal
from openuni_pipelines.engine import copying
from openuni_pipelines.engine.copying import Copied


@click.command("push")
@click.argument("root", metavar="DATASET", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("url", metavar="URL")
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@options.follow_links
def push_command(root: Path, url: str, dry_run: bool) -> None:
    """Copy DATASET, a folder, to URL (s3://BUCKET/FOLDER, gs://…, az://…, hf://datasets/OWNER/NAME); later, only what
    has changed.

    The hub takes the token in HF_TOKEN; a repository that is not there is created as your account's settings say.
    Every hash is checked. Run the same command again after an interruption; nothing is copied twice.
    """
    with terminal.counting("putting columns") as progress:
        copied = copying.push(root, url, dry_run=dry_run, progress=progress)
    _print(copied, "put" if not dry_run else "would be put", url)


@click.command("pull")
@click.argument("url", metavar="URL")
@click.argument("root", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--columns",
    type=options.Names(),
    default="",
    help="Copy only RGB and these columns, comma-separated.  [default: all]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@options.follow_links
def pull_command(url: str, root: Path, columns: tuple[str, ...], dry_run: bool) -> None:
    """Copy the dataset at URL into FOLDER, where you can work on it as if it had been built there.

    Every hash is checked. Run the same command again after an interruption; nothing is copied twice.
    """
    with terminal.counting("fetching columns") as progress:
        copied = copying.pull(url, root, columns, dry_run=dry_run, progress=progress)
    _print(copied, "fetched" if not dry_run else "would be fetched", str(root))


def _print(copied: Copied, what: str, where: str) -> None:
    there = f"; {copied.there:,} are there" if copied.there else ""
    done = f"{count(copied.columns, 'column')} of {count(copied.shards, 'shard')} ({decimal(copied.bytes)})"
    click.echo(plain(f"{done} {what}: {where}{there}"), err=True)
