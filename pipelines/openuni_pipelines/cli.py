"""The two commands, `openuni` and `unibench`. Each subcommand's module is imported only when it is called."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

import openuni as package
from openuni import printable
from openuni.errors import OpenUniError
from openuni.storage import system_sentence


class LazyGroup(click.Group):
    """A group whose subcommands are named as `module:attribute`, with their one-line help, and imported on use."""

    def __init__(self, *args: Any, commands_at: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._at:
            return None
        module, _, attribute = self._at[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._at.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Errors that a user can act on are one sentence on standard error and exit status 1, never a traceback."""
        _print_whatever_the_locale()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has gone; click leaves quietly
            raise
        except (OpenUniError, OSError) as error:
            if os.environ.get("OPENUNI_TRACEBACK"):
                raise
            click.secho("error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(printable.plain(_sentence(error)), err=True)
            sys.exit(1)


def _print_whatever_the_locale() -> None:
    r"""A terminal that is not UTF-8 (LC_ALL=C, a Windows code page) shows `\u2026` for what it has no sign for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _sentence(error: OpenUniError | OSError) -> str:
    """Our errors are sentences already; the system's become one: a folder that cannot be made, a disk that is full."""
    return str(error) if isinstance(error, OpenUniError) else system_sentence(error)


def _at(module: str, attribute: str, summary: str) -> tuple[str, str]:
    return f"openuni_pipelines.commands.{module}:{attribute}", summary


@click.group(
    cls=LazyGroup,
    commands_at={
        "build": _at("build", "build_command", "Build a dataset: plan, annotate, commit; resumable."),
        "plan": _at("build", "plan_command", "Plan a dataset and estimate what it will cost."),
        "launch": _at("launch", "launch", "Write a job file that builds a plan in parts, on a batch system."),
        "add": _at("add", "add_command", "Add columns to a finished dataset, or upgrade them."),
        "drop": _at("add", "drop_command", "Remove one column of a dataset."),
        "remove": _at("remove", "remove_command", "Take clips out of a dataset for good."),
        "status": _at("status", "status_command", "Show how far a build is, while it runs and after."),
        "verify": _at("verify", "verify_command", "Check every hash, member and frame count of a dataset."),
        "index": _at("index", "index_command", "Rewrite the catalog, from which a dataset opens fast."),
        "select": _at("select", "select_command", "Choose clips by their scores, as a view that opens like a dataset."),
        "dedup": _at("dedup", "dedup_command", "Find near-duplicates, and write a view without them."),
        "stats": _at("stats", "stats_command", "Count what a dataset has, and draw a contact sheet."),
        "view": _at("view", "view_command", "Look at a dataset in the browser, every column side by side."),
        "push": _at("copy", "push_command", "Copy a dataset into a bucket; resumable."),
        "pull": _at("copy", "pull_command", "Copy a dataset from a bucket or the hub; resumable."),
        "export": _at("export", "export_command", "Write conventional WebDataset files, one tar per shard."),
        "export-weights": _at(
            "export_weights", "export_weights_command", "Write a model's weights, also for diffusers."
        ),
        "assets": _at("assets", "assets", "List, fetch and verify model files."),
        "sources": _at("sources", "sources_command", "List sources; fetch tables and videos, import published views."),
        "doctor": _at("environment", "doctor_command", "Check whether this environment can build, train and score."),
        "train": _at("train", "train_command", "Train the unified DiT; resumable bit for bit."),
        "generate": _at("generate", "generate_command", "Generate, control or estimate with a trained model."),
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package.__version__, prog_name="openuni")
def openuni() -> None:
    """Build video datasets with dense modalities, train a model on them, and generate with it."""


@click.group(
    cls=LazyGroup,
    commands_at={
        "render": _at("render", "render_command", "Render scenes with exact ground truth."),
        "collect": _at("collect", "collect_command", "Choose real clips as controls and references."),
        "import": _at("import_truth", "import_command", "Import ground truth from Unreal, Sintel, KITTI and others."),
        "calibrate": _at("import_truth", "calibrate_command", "Find the scale and sign of Unreal's motion vectors."),
        "score": _at("score", "score_command", "Score predictions against ground truth."),
        "compare": _at("compare", "compare_command", "Compare two reports, with paired bootstrap intervals."),
        "doctor": _at("doctor", "doctor_command", "Check stored truth, and the conventions of predictions."),
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package.__version__, prog_name="unibench")
def unibench() -> None:
    """Make or import exact ground truth, and score predictions against it."""
