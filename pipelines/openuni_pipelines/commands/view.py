"""`openuni view`: a dataset in the browser."""

from __future__ import annotations

import sys
import threading
import webbrowser
from pathlib import Path

import click

from openuni import printable
from openuni.errors import PlanError
from openuni_pipelines import options
from openuni_pipelines.engine.viewing.clips import Clips, Differences
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer
from openuni_pipelines.engine.viewing.sources import open_source
from unibench.report import report


@click.command("view")
@click.argument("path", metavar="DATASET")
@click.option("--gt", metavar="TRUTH", help="Also show the columns of this dataset, and where the two differ.")
@click.option(
    "--report",
    "report_file",
    type=click.Path(path_type=Path, exists=True),
    help="Sort and filter by the scores of this report.json too.  [default: DATASET/score/report.json, if it is there]",
)
@click.option(
    "--flags",
    "flags_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where flags are kept, one JSON line each.  [default: DATASET/flags.jsonl, or here if DATASET is a URL]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on the loopback interface; 0 takes a free one."
)
@click.option("--browser/--no-browser", default=None, help="Open the page.  [default: at a terminal]")
@options.follow_links
def view_command(
    path: str, gt: str | None, report_file: Path | None, flags_file: Path | None, port: int, browser: bool | None
) -> None:
    """Look at DATASET: its clips in a grid, and every column of a clip side by side, frame by frame.

    Only this machine can open the page, and only by its link. Ctrl-C ends it. From another machine, forward the
    port: `ssh -L 8000:127.0.0.1:8000 host`, with `--port 8000`.
    """
    flags = Flags(flags_file or (Path() if "://" in path else Path(path)) / "flags.jsonl")
    clips, truth = Clips(open_source(path, gt)), Clips(open_source(gt), "truth") if gt else None
    others = [truth, Differences(clips, truth)] if truth else []
    try:
        viewer = Viewer(clips, flags, others, _scored(report_file, path), port=port)
    except OSError as error:
        raise PlanError(f"port {port} cannot be used: {error.strerror}; leave out --port, or name another") from error
    click.echo(f"{printable.plain(path)} is at {viewer.url}  (Ctrl-C ends it)")
    if sys.stdout.isatty() if browser is None else browser:
        threading.Timer(0.2, webbrowser.open, [viewer.url]).start()
    try:
        viewer.serve()
    except KeyboardInterrupt:
        click.echo("")


def _scored(file: Path | None, path: str) -> dict[str, dict[str, float]]:
    """The scores of every clip in a report, by task and column."""
    usual = Path(path) / "score" / "report.json"
    if file is None and ("://" in path or not usual.is_file()):
        return {}
    scored: dict[str, dict[str, float]] = {}
    for sample in report.read(file or usual).samples:
        for name, (value, _) in sample.scores.items():
            scored.setdefault(f"{sample.task}/{name}", {})[sample.key] = value
    return scored
