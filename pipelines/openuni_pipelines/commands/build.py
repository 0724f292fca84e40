"""`openuni build` and `openuni plan`: from a source to a dataset."""

from __future__ import annotations

import click

from openuni.printable import rich
from openuni.shards import layout
from openuni.shards.parts import Part
from openuni_pipelines import options, terminal
from openuni_pipelines.engine.build import BuildConfig, build, estimate, make_plan


@click.command("build", cls=options.PluggedCommand)
@options.of(BuildConfig)
@click.option("--dry-run", is_flag=True, help="Plan, say what the build would make and need, and write nothing.")
@click.option("--retry-failed", is_flag=True, help="Try only the clips that failed before again.")
@click.option("--extend", is_flag=True, help="Add clips that are new in the source, as new shards.")
@click.option(
    "--part",
    type=options.Parts(),
    metavar="I/N",
    help="Build part I of N of a plan made by `openuni plan`; other processes build the other parts. "
    "If a part is lost, run its command again on any machine. The last part to end completes the dataset.",
)
@options.follow_links
def build_command(config: BuildConfig, dry_run: bool, retry_failed: bool, extend: bool, part: Part | None) -> None:
    """Build a dataset: plan the clips, annotate them with experts, write shards.

    Run the same command again to resume after any interruption.
    """
    terminal.say_notices(config.experts)
    terminal.print_source(config)
    if dry_run:
        with terminal.waiting(f"planning from {config.reader.name}"):
            estimated = estimate(config)
        terminal.print_estimate(estimated, config.clips_a_shard)
        return
    what = f"{config.reader.name}, part {part}," if part else config.reader.name
    terminal.say(f"building [bold]{rich(what)}[/] into [bold]{rich(config.place)}[/]")
    with terminal.bars(f"planning from {config.reader.name}") as progress:
        made = build(config, retry_failed=retry_failed, extend=extend, part=part, progress=progress)
    terminal.finish(made)


@click.command("plan", cls=options.PluggedCommand)
@options.of(BuildConfig)
@click.option("--dry-run", is_flag=True, help="Plan, say what the build would make and need, and write nothing.")
@options.follow_links
def plan_command(config: BuildConfig, dry_run: bool) -> None:
    """Plan a dataset: which clips go into which shards. `openuni build` with the same options builds it."""
    terminal.print_source(config)
    with terminal.waiting(f"planning from {config.reader.name}"):
        estimated = estimate(config) if dry_run else make_plan(config)
    terminal.print_estimate(estimated, config.clips_a_shard)
    if not dry_run:
        terminal.say(f"the plan is {rich(f'{config.place}/{layout.PLAN}')}")
