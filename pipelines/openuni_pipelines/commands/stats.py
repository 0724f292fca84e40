"""`openuni stats`: what a dataset holds, as a table, JSON and one picture."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

import openuni
from openuni import contact_sheet, printable
from openuni.sample import Sample
from openuni.shards import view
from openuni.shards.reader import Dataset
from openuni.storage import write_atomic
from openuni_pipelines import funnel, options, terminal
from openuni_pipelines.engine.counting import Stats, count


@click.command("stats")
@click.argument("path", metavar="DATASET")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the contact sheet (PNG).  [default: DATASET/contact_sheet.png, or here if DATASET is a URL]",
)
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Clips on the contact sheet, spread over the dataset; 0 draws none.",
)
@options.follow_links
def stats_command(path: str, as_json: bool, sheet: Path | None, rows: int) -> None:
    """Count what DATASET has, and draw a contact sheet: one row per clip, one column per modality."""
    data = openuni.open(path)
    stats = count(data)
    if as_json:
        click.echo(json.dumps(asdict(stats), indent=1))
    else:
        _print(path, stats)
    if rows and stats.funnel:
        target = _picture(path, "funnel")
        _write_png(target, funnel.draw(stats.funnel))
        click.echo(f"funnel: {target}", err=True)
    if rows and stats.samples:
        target = sheet or _picture(path, "contact_sheet")
        _write_png(target, contact_sheet.draw(_spread(data, rows), data.columns))
        click.echo(f"contact sheet: {target}", err=True)


def _picture(path: str, name: str) -> Path:
    """In the dataset's folder; beside a view, and named after it."""
    if view.is_view(path):
        return Path(path).with_suffix(f".{name}.png")
    return (Path() if "://" in path else Path(path)) / f"{name}.png"


def _write_png(target: Path, picture: npt.NDArray[np.uint8]) -> None:
    _, png = cv2.imencode(".png", picture[..., ::-1])
    write_atomic(target, png.tobytes(), str(os.getpid()), sweeps=True)


def _spread(data: Dataset, rows: int) -> list[Sample]:
    """`rows` samples, evenly over the stored order."""
    total = len(data)
    return [data[total * row // min(rows, total)] for row in range(min(rows, total))]


def _print(path: str, stats: Stats) -> None:
    console = Console()
    console.print(
        f"[bold]{printable.rich(path)}[/]: {printable.count(stats.samples, 'clip')}, "
        f"{printable.count(stats.frames, 'frame')}, {stats.hours:.3f} hours, "
        f"{stats.captioned:,} with a caption"
    )
    for title, counts in (
        ("sizes", stats.sizes),
        ("subsets", stats.subsets),
        ("splits", stats.splits),
        ("licenses", stats.licenses),
        ("left out", stats.skipped),
    ):
        if counts:
            console.print(
                f"  {title}: " + ", ".join(f"{printable.rich(name)} {number:,}" for name, number in counts.items())
            )
    terminal.print_funnel(console, stats.funnel)
    table = Table("column", "clips", "absent", "confidence", "size", "a frame")
    for name, column in stats.columns.items():
        reasons = "; ".join(f"{number:,} × {printable.rich(reason)}" for reason, number in column.absent.items())
        confidence = "" if column.confidence is None else f"{column.confidence:.3f}"
        size = column.bytes
        per_frame = size / max(stats.frames, 1)
        table.add_row(
            printable.rich(name),
            f"{column.present:,}",
            reasons,
            confidence,
            decimal(size),
            decimal(round(per_frame)),
        )
    console.print(table)
