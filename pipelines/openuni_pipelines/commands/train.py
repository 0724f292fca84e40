"""`openuni train`: a stage of the curriculum on a dataset, resumable at any moment, alone or under torchrun."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openuni import printable
from openuni_model.training import TrainConfig
from openuni_pipelines import options

if TYPE_CHECKING:  # torch is loaded when training starts, not for --help
    from openuni_model.trainer import Report

_SPEAK_SECONDS = 30


@click.command("train")
@options.of(TrainConfig)
@click.option("--dry-run", is_flag=True, help="Say what would be trained and what it needs; train nothing.")
@click.option(
    "--fit",
    metavar="CARD",
    help="With --dry-run: suggest flags that fit a card, by name (H100, 4090) or memory (80GiB).",
)
@options.follow_links
def train_command(config: TrainConfig, dry_run: bool, fit: str | None) -> None:
    """Train the unified model on a dataset.

    On several GPUs: torchrun --nproc-per-node 8 -m openuni_pipelines train …

    After Ctrl-C or SIGTERM the step is finished and a checkpoint written; a second one ends at once.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    from openuni_model import training
    from openuni_model.parallel import joined_world
    from openuni_pipelines.engine.estimates import score_estimate

    transformers_logging.disable_progress_bar()
    # Same bits on the same machine, also after a resume; an operation that cannot promise them warns.
    torch.use_deterministic_algorithms(True, warn_only=True)
    signals = Signals()
    with joined_world(config.device) as world, Screen(Console(stderr=True, quiet=world.rank > 0)) as screen:
        if dry_run:
            training.dry_run(config, screen.show, world=world, fit=fit)
            return
        with signals:
            training.train(config, screen.show, world=world, stop=signals.came, score=score_estimate)
    if signals.number:
        sys.exit(128 + signals.number)


class Signals:
    """SIGINT and SIGTERM, the first of each run: noted for the end of the step. Later ones act as they always do."""

    def __init__(self) -> None:
        self.number = 0

    def came(self) -> bool:
        return self.number > 0

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self.__exit__()


class Screen:
    """Sentences, and a bar of the steps; where there is no terminal, a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spoken = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=None, said="")

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, news: str | Report) -> None:
        """A sentence, or a step."""
        if isinstance(news, str):
            style = "yellow" if news.startswith("warning") else None
            self._console.print(printable.plain(news), style=style, markup=False, highlight=False)
            return
        rate, waits = news.clips / news.seconds, news.waited / news.seconds
        line = f"loss {news.loss:.4f}  {rate:.1f} clips/s  waiting {waits:.0%}"
        self._bar.update(self._task, completed=news.step, total=news.steps, said=line)
        if not self._console.is_terminal and time.monotonic() > self._spoken + _SPEAK_SECONDS:
            self._spoken = time.monotonic()
            self._console.print(f"step {news.step:,} of {news.steps:,}: {line}")
        if news.skipped:
            keys = printable.plain(", ".join(news.keys))
            self._console.print(f"step {news.step}: no finite loss, nothing changed; clips {keys}", markup=False)
