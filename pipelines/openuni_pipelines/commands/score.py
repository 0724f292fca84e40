"""`unibench score`: predictions against truth, sample by sample, in this process or on Ray, resumable."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace

import click
from rich.console import Console
from rich.progress import Progress

from openuni import printable
from openuni_pipelines import options, terminal
from openuni_pipelines.engine.parallel import Parallel, mapping
from openuni_pipelines.engine.rendering import SceneSet, check_standard, render_set
from unibench import standard
from unibench.report import report
from unibench.scoring import places
from unibench.scoring.config import Progressed, ScoreConfig
from unibench.scoring.plan import STANDARD, NoTruthError, plan
from unibench.scoring.score import score


@click.command("score")
@click.option("--pred", required=True, help="A dataset or view (path or URL), or a folder of files, also in s3://….")
@click.option(
    "--gt", help=f"The truth: a dataset, view or folder (path or URL).  [default: the standard set, {STANDARD}]"
)
@options.of(ScoreConfig)
@options.of(Parallel, workers=0)
@click.option("--dry-run", is_flag=True, help="Say what would be scored, and stop.")
@options.follow_links
def score_command(config: ScoreConfig, parallel: Parallel, pred: str, gt: str | None, dry_run: bool) -> None:
    """Score predictions against exact truth; write report.json and report.html."""
    console = Console(stderr=True)
    try:
        _score(config, parallel, pred, gt, dry_run, console)
    except NoTruthError:
        if not _wants_small_set():
            raise
        _render_small(parallel)
        _score(replace(config, standard="small"), parallel, pred, gt, dry_run, console)


def _score(config: ScoreConfig, parallel: Parallel, pred: str, gt: str | None, dry_run: bool, console: Console) -> None:
    side_by_side = mapping(parallel.workers, parallel.ray_address)
    with Progress(console=console, disable=not console.is_terminal) as bar, side_by_side as mapped:
        shown = bar.add_task("scoring", total=None)

        def show(news: str | Progressed) -> None:
            if isinstance(news, str):
                console.print(printable.plain(news), markup=False, highlight=False, soft_wrap=True)
            else:
                bar.update(shown, completed=news.done, total=news.total)

        if dry_run:
            with places.at_hand(pred, show) as here, places.at_hand(gt, show) if gt else nullcontext() as true:
                show(str(plan(here, true, config, show)))
            return
        made = score(pred, gt, config=config, progress=show, map=mapped)
    Console().print(report.tables(made))
    for warning in made.warnings:
        console.print(f"[yellow]warning:[/yellow] {printable.rich(warning)}")


def _wants_small_set() -> bool:
    """Whether somebody is there who says yes to the small standard set."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return click.confirm(
        "No standard set is here. Render the small one now (minutes on two cores) and score on it?", err=True
    )


def _render_small(parallel: Parallel) -> None:
    wanted = standard.get("small")
    with terminal.counting("scenes") as progress:
        # Rendering takes minutes on all cores, where scoring on one takes seconds.
        spread = replace(parallel, workers=parallel.workers or None)
        render_set(wanted.place, SceneSet.of(wanted, "shaded", 64), spread, progress=progress)
    check_standard(wanted.place, wanted)
