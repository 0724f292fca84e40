"""`unibench import` and `unibench calibrate`: other people's ground truth as an OpenUni dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from openuni.errors import PlanError
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import layout, writer
from openuni_pipelines.engine import stopping
from openuni_pipelines.engine.run import holding
from unibench.formats import sidecar
from unibench.importers import FORMATS, Imported, read

_COLUMNS = ("rgb", "depth", "flow", "segmentation", "skeleton")
_VERSION = 2
_NAMED = 20
"""How much of what was left out is named; the rest is counted."""


def import_truth(name: str, src: Path, out: Path, shard_size: int, console: Console) -> int:
    """Read the clips of `src` and write them as a dataset; the number of clips.

    Raises PlanError where `out` holds a dataset, and OpenUniError naming the first file that is not what it claims.
    """
    if (out / layout.MANIFEST).exists():
        raise PlanError(f"{out} holds a dataset already; choose another --out or delete it")
    columns = dict.fromkeys(_COLUMNS, f"import-{name}-{_VERSION}")
    count = shards = 0
    with holding(out) as run:
        start_over(out)
        clips = read(name, src)
        while batch := list(
            _saved(itertools.islice(clips, shard_size), out, shards, columns, run, name, count, console)
        ):
            writer.commit_shard(out, shards, batch, columns, run)
            count += len(batch)
            shards += 1
        if not count:
            raise PlanError(f"{src} holds no clip of format {name}; point to the folder that its documentation names")
        for left in clips.left_out[:_NAMED]:
            console.print(f"left out: {left.what} {left.why}", markup=False)
        if len(clips.left_out) > _NAMED:
            console.print(f"left out: {len(clips.left_out) - _NAMED} more")
        writer.write_manifest(out, {"source": f"unibench import {name}"}, columns, count, shards, run)
    return count


def start_over(out: Path) -> None:
    """Forget what an interrupted run committed in a folder that never got a manifest: it may be of other clips."""
    for record in (out / "commits").glob("*.json"):
        record.unlink()


def _saved(
    clips: Iterator[Imported],
    out: Path,
    shard: int,
    columns: dict[str, str],
    run: str,
    name: str,
    before: int,
    console: Console,
) -> Iterator[str]:
    """Save each clip and its side-car; name its key, which ascends with the order of the source."""
    for number, clip in enumerate(clips, before):
        stopping.check()
        key = f"{number:06d}-{clip.key}"[:64]
        frames, height, width = clip.rgb.shape[:3]
        record = Record(
            key, frames, height, width, clip.fps, split="test", source=name, source_id=clip.key, video_id=key
        )
        annotations: dict[str, Annotation[Any] | str] = {"rgb": Annotation(Rgb(clip.rgb, clip.fps, exact=True), 1.0)}
        for column in _COLUMNS[1:]:
            value = getattr(clip, column)
            annotations[column] = f"{name} has none" if value is None else Annotation(value, 1.0)
        folder = out / sidecar.FOLDER / key
        if clip.camera is not None:
            layout.write_atomic(folder / "camera.npz", sidecar.encode_camera(clip.camera), run)
        if clip.normals is not None:
            layout.write_atomic(folder / "normals.npz", sidecar.encode_normals(clip.normals), run)
        if clip.notes:
            layout.write_atomic(folder / "notes.txt", ("\n".join(clip.notes) + "\n").encode(), run)
        writer.save_sample(out, shard, record, annotations, columns, run)
        console.print(f"{key}: {frames} frames of {width} × {height}" + "".join(f"\n  {note}" for note in clip.notes))
        yield key


@click.command("import")
@click.argument("src", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--format", "name", type=click.Choice(list(FORMATS)), required=True, help="How SRC is written.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Dataset folder to make.")
@click.option("--shard-size", default=64, show_default=True, type=click.IntRange(min=1), help="Clips a shard.")
def import_command(src: Path, name: str, out: Path, shard_size: int) -> None:
    """Turn ground truth of another origin into OpenUni samples: units, axes, signs and directions end canonical.

    Claims are tested where the data allow it (units, planar depth, half precision, whose motion the flow is); what was
    found is printed and kept in `truth/<key>/notes.txt`.
    """
    console = Console()
    count = import_truth(name, src, out, shard_size, console)
    console.print(f"{count} clips: {out}")


@click.command("calibrate")
@click.argument("src", type=click.Path(path_type=Path, exists=True, file_okay=False))
def calibrate_command(src: Path) -> None:
    """Settle scale, sign and direction of Unreal's motion vectors on the static pixels of a clip with a moving camera.

    The result is stored beside the frames and used by `unibench import --format unreal`.
    """
    from unibench.importers.unreal import CALIBRATION, calibrate

    found = calibrate(src)
    console = Console()
    console.print(f"motion vectors are {found.x:+g}·W·(R − .5), {found.y:+g}·H·(G − .5) pixels, {found.direction}")
    console.print(f"median error on static pixels {found.error:.4f} px; the next best reading has {found.rival:.2f} px")
    console.print(f"stored in {src / CALIBRATION}")
