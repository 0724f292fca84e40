"""`openuni doctor`: is this environment fit to build, train and score, and do its networks answer as published?"""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from openuni import printable
from openuni_pipelines import options
from openuni_pipelines.engine.environment import examine

_STYLES = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command("doctor")
@click.option(
    "--experts", is_flag=True, help="Compare networks with their published outputs, and measure their speed and memory."
)
@options.trust
@click.argument("names", nargs=-1, metavar="[NAME]...")
def doctor_command(experts: bool, trust: bool, names: tuple[str, ...]) -> None:
    """Check packages, OpenCV's versions, memory, disk and model files; exit with 1 if something is wrong.

    With --experts: check the experts or sets NAME, by default all whose weights are on this machine. Data cards report
    the results, and `openuni plan` estimates with the measured speed.
    """
    if names and not experts:
        raise click.UsageError(f"give --experts to examine {' '.join(names)}")
    if experts:
        _examine_experts(names, trust)
        return
    checks = list(examine())
    table = Table("check", "verdict", "what")
    for check in checks:
        style = _STYLES[check.verdict]
        table.add_row(check.name, f"[{style}]{check.verdict}[/]", escape(check.what))
    Console().print(table)
    if any(check.verdict == "bad" for check in checks):
        sys.exit(1)


def _examine_experts(names: tuple[str, ...], trust: bool) -> None:
    from openuni.experts import known_answers

    wrong = 0
    for found in known_answers.examine(names, trust=trust):
        wrong += found.verdict in ("differs", "failed")
        click.echo(f"{found.expert}: {printable.plain(found.said)}" + (f" [{found.cited}]" if found.cited else ""))
        if found.pace:
            click.echo(f"  {printable.plain(found.pace)}")
    if wrong:
        sys.exit(1)
