"""`unibench import` and `unibench calibrate`: other people's ground truth as an OpenUni dataset."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from openuni import printable
from openuni_pipelines import options
from openuni_pipelines.engine.importing import Clip, import_truth
from openuni_pipelines.engine.parallel import Parallel
from unibench.importers import LeftOut, names

_NAMED = 20
"""How much of what was left out is named; the rest is counted."""


@click.command("import")
@click.argument("src", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--format", "name", type=click.Choice(names()), required=True, help="Format of SRC.")
@click.option(
    "--out", type=options.Place(), required=True, help="Dataset to make: a folder, or s3://…, gs://…, az://…."
)
@options.staging
@click.option("--shard-size", default=64, show_default=True, type=click.IntRange(min=1), help="Clips per shard.")
@options.of(Parallel, workers=0)
@options.follow_links
def import_command(
    parallel: Parallel, src: Path, name: str, out: Path | str, staging: Path | None, shard_size: int
) -> None:
    """Convert ground truth of another format into samples, in OpenUni's units, axes, signs and directions.

    What the source claims is tested where the data allow it (units, planar depth, half precision, whether flow includes
    moving objects). Results are printed and kept in `truth/<key>/notes.txt`.
    """
    console = Console()

    left_out = 0

    def say(news: Clip | LeftOut) -> None:
        nonlocal left_out
        if isinstance(news, LeftOut):
            left_out += 1
            if left_out <= _NAMED:
                console.print(f"left out: {printable.rich(news.what)} {printable.rich(news.why)}")
            return
        frames = printable.count(news.frames, "frame")
        console.print(f"{printable.rich(news.key)}: {frames} of {news.width} × {news.height}")
        for note in news.notes:
            console.print(f"  {printable.rich(note)}")

    clips = import_truth(name, src, out, parallel, staging=staging, shard_size=shard_size, progress=say)
    if left_out > _NAMED:
        console.print(f"left out: {left_out - _NAMED} more")
    more = f", {left_out} left out" if left_out else ""
    console.print(f"{printable.count(clips, 'clip')}{more}: {printable.rich(str(out))}")


@click.command("calibrate")
@click.argument("src", type=click.Path(path_type=Path, exists=True, file_okay=False))
def calibrate_command(src: Path) -> None:
    """Find the scale, sign and direction of Unreal's motion vectors, from static pixels of a clip with a moving camera.

    The result is stored beside the frames and used by `unibench import --format unreal`.
    """
    from unibench.importers.unreal import CALIBRATION, calibrate

    found = calibrate(src)
    console = Console()
    console.print(f"motion vectors are {found.x:+g}·W·(R − .5), {found.y:+g}·H·(G − .5) pixels, {found.direction}")
    console.print(f"median error on static pixels {found.error:.4f} px; the next best reading has {found.rival:.2f} px")
    console.print(f"stored in {printable.rich(str(src / CALIBRATION))}")
