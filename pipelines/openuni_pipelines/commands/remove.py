"""`openuni remove`: take clips out of a dataset for good."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from openuni.printable import count, plain
from openuni.shards import takedown
from openuni_pipelines import options
from openuni_pipelines.engine.removing import Removal, RemoveConfig, remove
from openuni_pipelines.engine.selecting import read_keys


@click.command("remove")
@click.argument("root", metavar="DATASET", type=options.Place(exists=True))
@click.option("--key", "keys", multiple=True, help="Key of a clip; may be repeated.")
@click.option("--source-id", "source_ids", multiple=True, help="All clips of this row of the source.")
@click.option("--video-id", "video_ids", multiple=True, help="All clips of this source video.")
@click.option(
    "--flags",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Clips named in a file: the viewer's flags, a list of keys, or a view.",
)
@click.option("--reason", default="", help="The reason, for the record.")
@click.option("--dry-run", is_flag=True, help="Say which clips and shards would change, and change nothing.")
@options.staging
@options.follow_links
def remove_command(
    root: Path | str,
    keys: tuple[str, ...],
    source_ids: tuple[str, ...],
    video_ids: tuple[str, ...],
    flags: Path | None,
    reason: str,
    dry_run: bool,
    staging: Path | None,
) -> None:
    """Take clips out of DATASET: their shards are rewritten without them, and no file names them any more.

    The record, DATASET/takedowns.json, has only digests. Run the same command again after an interruption.
    Exit status 1: other files in the folder still name a clip; they are listed.
    """
    listed = read_keys(flags) if flags else []
    wanted = RemoveConfig((*keys, *listed), source_ids, video_ids, reason)
    removal = remove(root, wanted, dry_run=dry_run, staging=staging)
    _print(root, removal, dry_run)
    if removal.still_named_in:
        sys.exit(1)


def _print(root: Path | str, removal: Removal, dry_run: bool) -> None:
    for name in removal.unknown:
        click.echo(plain(f"not in the dataset: {name}"), err=True)
    if dry_run:
        for key in removal.keys:
            click.echo(plain(key))
    if removal.resumed:
        said = "to be finished" if dry_run else "finished"
        click.echo(f"{count(removal.resumed, 'removal')} interrupted before, {said}", err=True)
    said = "to be removed" if dry_run else "removed"
    clips, shards = count(len(removal.keys), "clip"), count(len(removal.shards), "shard")
    click.echo(f"{clips} {said}, of {shards} of {root}", err=True)
    if not dry_run:
        click.echo(f"recorded in {root}/{takedown.FILE}", err=True)
    for name in removal.still_named_in:
        click.echo(plain(f"{root}/{name} still names a clip: delete it, or make it again"), err=True)
