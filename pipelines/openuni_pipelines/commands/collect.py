"""`unibench collect`: real clips of a built dataset, frozen as a list and copied into a small one of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal, cast

import click
from rich.console import Console

import openuni
from openuni import printable
from openuni.printable import rich
from openuni.sample import Split
from openuni_pipelines import options
from openuni_pipelines.engine import collecting
from openuni_pipelines.engine.parallel import Parallel
from unibench.standard import collect


@click.command("collect")
@click.option("--data", required=True, help="The built dataset to choose from: a folder, or any fsspec URL.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Dataset folder to make.")
@click.option("--count", default=200, show_default=True, type=click.IntRange(min=1), help="Clips.")
@click.option("--seed", default=0, show_default=True, help="Seed of the choice.")
@click.option(
    "--split",
    "splits",
    default="test",
    show_default=True,
    type=options.Names(Literal["test", "val"]),
    help="Splits to choose from: test, val, or test,val. Training reads neither.",
)
@click.option(
    "--list",
    "frozen",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=f"Copy the clips of this {collect.LIST} instead of choosing, and check that none has changed.",
)
@options.of(Parallel, workers=0)
@options.follow_links
def collect_command(
    parallel: Parallel,
    data: str,
    out: Path,
    count: int,
    seed: int,
    splits: tuple[str, ...],
    frozen: Path | None,
) -> None:
    """Choose real clips, evenly over subsets and views, as controls and references for generation.

    OUT is a small dataset (`openuni generate --bench OUT`, `unibench score --gt OUT`); OUT/collected.json lists its
    clips and their hashes. Training never sees them: no dataset has their source videos in its training split.
    """
    source = openuni.open(data if "://" in data else Path(data).absolute())  # workers may stand elsewhere
    if frozen is not None:
        made = collecting.copy(source, out, collecting.read_list(frozen), parallel)
    else:
        chosen_from = cast(tuple[Split, ...], tuple(dict.fromkeys(splits)))
        made = collecting.freeze(source, out, count, seed, chosen_from, parallel)
    console = Console()
    for title, counted in (
        ("subsets", Counter(clip.subset for clip in made.clips)),
        ("chosen for", Counter(clip.view for clip in made.clips)),
    ):
        console.print(f"  {title}: " + ", ".join(f"{rich(name)} {number}" for name, number in sorted(counted.items())))
    console.print(f"{printable.count(len(made.clips), 'clip')}: {rich(str(out))}; list {rich(str(out / collect.LIST))}")
