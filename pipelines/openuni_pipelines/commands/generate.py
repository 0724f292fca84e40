"""`openuni generate`: text to all views, views to video, video to views; one clip, or every clip of a benchmark."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from openuni import printable
from openuni_pipelines import options
from openuni_pipelines.engine import predictions
from openuni_pipelines.engine.generating import GenerateConfig, Progressed, generate


@click.command("generate")
@options.of(GenerateConfig)
@options.follow_links
def generate_command(config: GenerateConfig) -> None:
    """Generate with a trained model: OUT/VIEW/KEY.npz and OUT/video/KEY/KEY.mp4, which `unibench score` reads.

    OUT/previews has pictures and videos of inputs and outputs side by side. Files that are in OUT already are not made
    again.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("generating", total=None)

        def show(news: str | Progressed) -> None:
            if isinstance(news, str):
                console.print(printable.plain(news), markup=False, highlight=False)
            else:
                bar.update(shown, completed=news.done, total=news.total)

        out = generate(config, show)
    made = {predictions.folder(view) for view in config.wanted}
    if isinstance(out, Path):
        made |= {path.name for path in out.iterdir() if not path.name.startswith(".")}
    console.print(f"{out}: {', '.join(sorted(made))}", markup=False)
