"""Names that a terminal or Rich would obey: shown as text, by every command that prints them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import unibench
from openuni_pipelines import cli

NASTY = "a[/red]\x1b[31m\x9b31m\u202e[bold]"


def write(root: Path, scale: float) -> Path:
    (root / "depth").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for key in ("one", "two"):
        depth = rng.uniform(1, 9, (2, 8, 8)).astype(np.float32)
        np.savez(root / f"depth/{key}.npz", depth=depth * scale * rng.uniform(0.9, 1.1, depth.shape))
    (root / "predictions.json").write_text(json.dumps({"depth": {"kind": "metric"}}))
    return root


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    truth = write(tmp_path / "truth", 1.0)
    for name, scale in (("a", 1.0), ("b", 1.2)):
        config = unibench.ScoreConfig(name=f"{name}{NASTY}", out=tmp_path / f"out-{name}", page=False)
        unibench.score(write(tmp_path / name, scale), truth, config=config)
    return tmp_path


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_reports_of_strangers_are_compared_without_a_control_character(scored: Path, options: list[str]) -> None:
    done = CliRunner().invoke(cli.unibench, ["compare", *options, str(scored / "out-a"), str(scored / "out-b")])
    assert done.exit_code == 0, done.output
    assert not [c for c in done.output if c in "\x1b\x9b\u202e"]
    assert "[/red]" in done.output  # shown, not obeyed: Rich would have failed on it


def test_a_folder_with_markup_in_its_name_is_written_and_named(tmp_path: Path) -> None:
    out = tmp_path / "x[" / "red]y"
    done = CliRunner().invoke(
        cli.unibench, ["render", "--scenes", "1", "--frames", "2", "--size", "32", "--workers", "0", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "[/red]" in done.output.replace("\n", "")
