"""`openuni doctor`: is this environment fit to build, train and score?"""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from openuni_pipelines.engine.environment import examine

_STYLES = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command("doctor")
def doctor_command() -> None:
    """Check packages, OpenCV's versions, memory, disk and model files; exit with 1 if something is wrong."""
    checks = list(examine())
    table = Table("check", "verdict", "what")
    for check in checks:
        style = _STYLES[check.verdict]
        table.add_row(check.name, f"[{style}]{check.verdict}[/]", escape(check.what))
    Console().print(table)
    if any(check.verdict == "bad" for check in checks):
        sys.exit(1)
