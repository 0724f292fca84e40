"""`openuni export --layout merged`: conventional WebDataset files, one tar a shard with all members of a sample."""

from __future__ import annotations

from pathlib import Path

import click

import openuni
from openuni.printable import count
from openuni_pipelines import options, terminal
from openuni_pipelines.engine.exporting import merge


@click.command("export")
@click.argument("path", metavar="DATASET")
@click.option("--layout", "layout_name", type=click.Choice(["merged"]), default="merged", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the tar files.")
@click.option("--columns", type=options.Names(), default="", help="Columns to take, comma-separated.  [default: all]")
@click.option("--openpose", is_flag=True, help="Add skeletons as OpenPose pictures, KEY.openpose.mp4.")
@options.follow_links
def export_command(path: str, layout_name: str, out: Path, columns: tuple[str, ...], openpose: bool) -> None:
    """Write DATASET as conventional WebDataset: one tar per shard, with all fields of a sample together.

    With --openpose also what pose-conditioned models (ControlNet and the like) are trained on and take: each clip's
    skeletons drawn as OpenPose draws them, with hands and faces where an expert found them (dwpose).
    """
    data = openuni.open(path)
    with terminal.counting("exporting") as progress:
        chosen = list(columns) or [*data.columns, *data.score_columns]
        files = merge(data, out, chosen, openpose=openpose, progress=progress)
    click.echo(f"{count(len(files), f'{layout_name} file')} in {out}")
