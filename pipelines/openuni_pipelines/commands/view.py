"""`openuni view`: a dataset in the browser."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import NoReturn

import click

from openuni import printable
from openuni_pipelines import options


@click.command("view")
@click.argument("path", metavar="[DATASET]", required=False)
@click.option(
    "--pred",
    "runs",
    multiple=True,
    metavar="RUN",
    help="Predictions, as for `unibench score`: a dataset, view or plain folder; give it twice to compare two runs.",
)
@click.option("--gt", metavar="TRUTH", help="Also show the columns of this dataset or view, and where the two differ.")
@click.option(
    "--report",
    "report_file",
    type=click.Path(path_type=Path, exists=True),
    help="Also sort and filter by the scores of this report.json.  [default: score/report.json of the run]",
)
@click.option(
    "--flags",
    "flags_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for flags, one JSON line each.  [default: DATASET/flags.jsonl, or here if DATASET is a URL]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on the loopback interface; 0 takes a free one."
)
@click.option(
    "--export",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the page and all clips to this folder, for any web host, and exit.",
)
@click.option("--clip", "key", metavar="KEY", help="Start at this clip.")
@click.option("--browser/--no-browser", default=None, help="Open the page.  [default: at a terminal]")
@options.follow_links
def view_command(
    path: str | None,
    runs: tuple[str, ...],
    gt: str | None,
    report_file: Path | None,
    flags_file: Path | None,
    port: int,
    out: Path | None,
    key: str | None,
    browser: bool | None,
) -> None:
    """Look at DATASET: its clips in a grid, and every column of a clip side by side, frame by frame.

    DATASET may also be a plain folder of predictions, or a training run (its samples, step by step). With --gt, the
    truth and the error are shown beside each column, and the worst clips come first if the run was scored. Two --pred
    compare two runs.

    Only this machine can open the page, and only by its link. Ctrl-C ends it. From another machine, forward the
    port: `ssh -L 8000:127.0.0.1:8000 host`, with `--port 8000`.
    """
    shown = [*([path] if path else []), *runs]
    if not 1 <= len(shown) <= 2:
        raise click.UsageError("name a DATASET, or one or two runs with --pred")
    # What follows takes a second to import, of which `--help` needs nothing.
    from openuni_pipelines.engine import stopping
    from openuni_pipelines.engine.viewing.opening import open_viewer

    viewer = open_viewer(shown, gt, report_file, flags_file, port)
    if out is not None:
        from openuni_pipelines import terminal
        from openuni_pipelines.engine.viewing.publishing import publish

        with terminal.counting("clips") as progress:
            written = publish(viewer, out, progress)
        click.echo(
            f"{printable.count(written, 'clip')} in {out}: put it on a web host, or `python -m http.server -d {out}`"
        )
        return
    link = viewer.url if key is None else viewer.link(key)
    try:
        with stopping.stoppable():
            click.echo(f"{printable.plain(shown[0])} is at {link}  (Ctrl-C ends it)")
            if sys.stdout.isatty() if browser is None else browser:
                threading.Timer(0.2, webbrowser.open, [link]).start()
            viewer.serve()
    except KeyboardInterrupt:
        click.echo("")
        _leave()


def _leave() -> NoReturn:
    """End the process at once, though threads read the index or decode: an interpreter that ends takes them down in the
    middle of C++, which aborts the process. Only what is always done at the end is done: scratch folders go."""
    atexit._run_exitfuncs()
    os._exit(0)
