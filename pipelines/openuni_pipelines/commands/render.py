"""`unibench render`: procedural scenes with exact truth, as an OpenUni dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from rich.console import Console

from openuni.errors import OpenUniError
from openuni.printable import count, rich
from openuni_pipelines import options, terminal
from openuni_pipelines.engine.parallel import Parallel
from openuni_pipelines.engine.rendering import SceneSet, check_standard, render_set
from openuni_pipelines.engine.truth_in_bucket import folder_of

if TYPE_CHECKING:
    from unibench.standard import Standard

_OF_THE_STANDARD = ("scenes", "frames", "size", "fps", "seed", "families", "purpose")
"""Options that a standard set decides itself."""


@click.command("render")
@click.option(
    "--standard",
    "standard_name",
    type=click.Choice(["estimation", "small", "ci"]),
    help="Render this standard set, and check its truth against the record.",
)
@click.option(
    "--out",
    type=options.Place(),
    help="Dataset to make or resume: a folder, or s3://…, gs://…, az://….  "
    "[default with --standard: data/unibench, else data/unibench-NAME]",
)
@options.staging
@options.of(SceneSet)
@click.option(
    "--previews/--no-previews",
    default=True,
    show_default=True,
    help="Write a contact sheet and a video of each scene to OUT/previews.",
)
@options.of(Parallel)
@click.option("--dry-run", is_flag=True, help="Say what would be made, and write nothing.")
@options.follow_links
def render_command(
    scene_set: SceneSet,
    parallel: Parallel,
    standard_name: str | None,
    out: Path | str | None,
    staging: Path | None,
    previews: bool,
    dry_run: bool,
) -> None:
    """Render procedural scenes with exact truth: the same seed gives the same truth on any number of workers.

    A killed run resumes. `truth.json` has the hash of every clip's truth. The videos are rendered, not real.
    """
    from unibench import standard

    wanted = None if standard_name is None else standard.get(standard_name)
    if wanted is not None:
        _check_frozen(wanted, click.get_current_context())
        scene_set, out = SceneSet.of(wanted, scene_set.rgb, scene_set.shard_size), out or wanted.place
    elif out is None:
        raise OpenUniError("say where with --out, or which frozen set with --standard")
    console = Console()
    made = f"{count(scene_set.scenes, 'clip')} in {count(scene_set.shards, 'shard')}"
    if dry_run:
        families = ", ".join(scene_set.families)
        console.print(f"{made}: {families}; {rich(str(out))}")
        return
    with terminal.counting("scenes") as progress:
        render_set(out, scene_set, parallel, staging=staging, preview=previews, progress=progress)
    if wanted is not None:
        check_standard(folder_of(out, staging), wanted)
        console.print(f"the truth of all {wanted.scenes} scenes is that of the standard set {wanted.name}")
    console.print(f"{made}: {rich(str(out))}")


def _check_frozen(wanted: Standard, context: click.Context) -> None:
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name in _OF_THE_STANDARD:
            raise OpenUniError(f"--standard {wanted.name} is frozen; leave out {option.opts[0]}")
