"""`openuni stats`: what a dataset holds, as a table, JSON and one picture."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import cv2
from rich.console import Console
from rich.table import Table

import openuni
from openuni import contact_sheet, printable
from openuni.sample import Sample
from openuni.shards.reader import Dataset
from openuni.storage import write_atomic

_MOST_REASONS = 32
OTHER_REASONS = "other reasons"
"""What reasons of absence beyond the first 32 of a column are counted under."""


@dataclass
class ColumnStats:
    """One column: clips that have it, why others do not, mean confidence where one is given, bytes on disk."""

    present: int = 0
    absent: dict[str, int] = field(default_factory=dict)
    confidence: float | None = None
    bytes: int = 0


@dataclass
class Stats:
    """A dataset in numbers."""

    samples: int = 0
    frames: int = 0
    hours: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)
    subsets: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    licenses: dict[str, int] = field(default_factory=dict)
    captioned: int = 0
    columns: dict[str, ColumnStats] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


def count(data: Dataset) -> Stats:
    """Stream the index of `data` into numbers."""
    stats = Stats(skipped=dict(data.manifest.skipped), columns={name: ColumnStats() for name in data.columns})
    sizes: Counter[str] = Counter()
    subsets: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    licenses: Counter[str] = Counter()
    confidences: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for shard in data.shards:
        for name, record in shard.columns.items():
            stats.columns[name].bytes += record.tar.size
    for sample in data:
        known = sample.record
        stats.samples += 1
        stats.frames += known.frames
        stats.hours += known.frames / known.fps / 3600
        stats.captioned += bool(known.caption)
        sizes[f"{known.width}×{known.height}"] += 1
        subsets[known.subset] += 1
        splits[known.split] += 1
        licenses[known.license] += 1
        for name, status in sample.statuses.items():
            column = stats.columns[name]
            if status.present:
                column.present += 1
                if status.confidence is not None:
                    confidences[name][0] += status.confidence
                    confidences[name][1] += 1
            else:
                # Reasons come from experts and may be all different; memory must not grow with the number of clips.
                known_reason = status.reason in column.absent or len(column.absent) < _MOST_REASONS
                reason = status.reason if known_reason else OTHER_REASONS
                column.absent[reason] = column.absent.get(reason, 0) + 1
    stats.sizes, stats.subsets = dict(sizes.most_common()), dict(subsets.most_common())
    stats.splits, stats.licenses = dict(splits.most_common()), dict(licenses.most_common())
    for name, (total, number) in confidences.items():
        stats.columns[name].confidence = round(total / number, 4)
    return stats


@click.command("stats")
@click.argument("path", metavar="DATASET")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Contact sheet PNG.  [default: DATASET/contact_sheet.png, or here where DATASET is a URL]",
)
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Clips on the contact sheet, spread over the dataset; 0 draws none.",
)
def stats_command(path: str, as_json: bool, sheet: Path | None, rows: int) -> None:
    """Count what DATASET holds, and draw a contact sheet: a row a clip, a column a modality."""
    data = openuni.open(path)
    stats = count(data)
    if as_json:
        click.echo(json.dumps(asdict(stats), indent=1, ensure_ascii=False))
    else:
        _print(path, stats)
    if rows and stats.samples:
        target = sheet or (Path() if "://" in path else Path(path)) / "contact_sheet.png"
        picture = contact_sheet.draw(_spread(data, rows), data.columns)
        _, png = cv2.imencode(".png", picture[..., ::-1])
        write_atomic(target, png.tobytes(), str(os.getpid()))
        click.echo(f"contact sheet: {target}", err=True)


def _spread(data: Dataset, rows: int) -> list[Sample]:
    """`rows` samples, evenly over the stored order."""
    total = len(data)
    return [data[total * row // min(rows, total)] for row in range(min(rows, total))]


def _print(path: str, stats: Stats) -> None:
    console = Console()
    console.print(
        f"[bold]{printable.rich(path)}[/]: {stats.samples:,} clips, {stats.frames:,} frames, {stats.hours:.3f} hours, "
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
    table = Table("column", "clips", "absent", "confidence", "MiB", "KiB/frame")
    for name, column in stats.columns.items():
        reasons = "; ".join(f"{number:,} × {printable.rich(reason)}" for reason, number in column.absent.items())
        confidence = "" if column.confidence is None else f"{column.confidence:.3f}"
        size = column.bytes
        per_frame = size / 1024 / max(stats.frames, 1)
        table.add_row(
            printable.rich(name),
            f"{column.present:,}",
            reasons,
            confidence,
            f"{size / 2**20:,.2f}",
            f"{per_frame:,.1f}",
        )
    console.print(table)
