"""`openuni launch`: a ready job file for a batch system."""

from __future__ import annotations

import click

from openuni_pipelines import options
from openuni_pipelines.engine.build import BuildConfig
from openuni_pipelines.engine.launching import SlurmConfig, slurm


@click.group("launch")
def launch() -> None:
    """Write job files that build the parts of a plan."""


@launch.command("slurm", context_settings={"ignore_unknown_options": True})
@options.of(SlurmConfig)
@click.argument("words", metavar="-- BUILD_OPTIONS...", nargs=-1, required=True, type=click.UNPROCESSED)
def slurm_command(config: SlurmConfig, words: tuple[str, ...]) -> None:
    """Print a Slurm job array that runs `openuni build BUILD_OPTIONS`, one part per task.

    \b
        openuni launch slurm --parts 64 --gpus 1 -- --source koala36m --out /shared/d > build.sbatch
        openuni plan --source koala36m --out /shared/d
        sbatch build.sbatch
    """
    # A wrong option is named now, not by 64 tasks in the night.
    build: BuildConfig = _build_options(list(words), prog_name="openuni build", standalone_mode=False)
    click.echo(slurm(config, build, words), nl=False)


@click.command("build", cls=options.PluggedCommand)
@options.of(BuildConfig)
@options.follow_links
def _build_options(build: BuildConfig) -> BuildConfig:
    """What `openuni build` would be asked to do; the options that change a whole dataset are none of a part's."""
    return build
