"""`openuni dedup`: near-duplicates, and a view without them."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

import openuni
from openuni import printable
from openuni_pipelines import options, terminal
from openuni_pipelines.engine.duplicates import DedupConfig, Deduplication, dedup

_SHOWN = 10


@click.command("dedup")
@click.argument("path", metavar="DATASET")
@options.of(DedupConfig)
@click.option(
    "--out",
    metavar="FILE",
    help="Where to write the view without duplicates: .json or .parquet, also in a bucket.  [default: only look]",
)
@options.follow_links
def dedup_command(config: DedupConfig, path: str, out: str | None) -> None:
    """Find near-duplicates in DATASET: clips encoded again, scaled, slightly cropped, or boxed in bars.

    Clips are compared by the perceptual hashes that `openuni add DATASET scores` measures, and with --alike by their
    features. Of each cluster, the clip with the largest frame is kept; at a tie the longest, then the sharpest, then
    the first by key.
    """
    with terminal.waiting(f"comparing the clips of {path}"):
        found = dedup(openuni.open(path), config, out)
    _print(found)
    if out is not None:
        click.echo(f"{printable.count(len(found.view.keys), 'clip')}: {out}")


def _print(found: Deduplication) -> None:
    console = Console(stderr=True)
    table = Table("kept", "why", "left out")
    for cluster in found.clusters[:_SHOWN]:
        others = ", ".join(map(printable.rich, cluster.others[:4]))
        table.add_row(printable.rich(cluster.kept), cluster.why, others + (", …" if len(cluster.others) > 4 else ""))
    if found.clusters:
        console.print(table)
    if len(found.clusters) > _SHOWN:
        console.print(f"… and {len(found.clusters) - _SHOWN:,} more; --clusters FILE has every cluster")
    gone = sum(len(cluster.others) for cluster in found.clusters)
    console.print(
        f"{printable.count(len(found.clusters), 'cluster')}, {printable.count(gone, 'clip')} left out, "
        f"{len(found.view.keys):,} kept"
    )
    if found.without_hashes:
        console.print(
            f"kept because too few hashes to compare are known: {printable.count(found.without_hashes, 'clip')}"
        )
    if found.without_features:
        console.print(f"not compared by features: {printable.count(found.without_features, 'clip')}")
