"""Two kills of each command that is soon done; `make soak` kills every writing command twenty times."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.kill_commands import CHEAP, Command, Harness, commands


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Command]:
    return commands(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("name", CHEAP)
def test_a_killed_command_run_again_ends_the_same_and_leaves_nothing(
    name: str, made: list[Command], tmp_path: Path
) -> None:
    (command,) = (command for command in made if command.line[1] == name)
    row = Harness(tmp_path / "kills", seed=0).strike(command, kills=2)
    assert (row.kills, row.identical) == (2, 2)
    assert [*row.problems, *row.half_written, *row.left_behind] == []
