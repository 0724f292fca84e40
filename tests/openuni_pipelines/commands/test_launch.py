"""`openuni launch slurm`: the job file is one that bash runs, and its tasks are parts of one build."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from openuni.shards.parts import Part
from openuni_pipelines.cli import openuni as command

pytestmark = pytest.mark.usefixtures("toys")


def test_the_tasks_of_the_job_file_build_the_dataset(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    videos, out = make_clips(tmp_path / "the videos", ["a", "b"]), tmp_path / "d"
    words = ["--source", "toy", "--videos", str(videos), "--out", str(out), "--experts", "toy_depth",
             "--shard-size", "1", "--workers", "0", "--min-free", "0"]  # fmt: skip
    done = CliRunner().invoke(command, ["launch", "slurm", "--parts", "2", "--gpus", "1", "--", *words])
    assert done.exit_code == 0, done.output
    assert "#SBATCH --array=1-2\n" in done.output
    assert "#SBATCH --gpus-per-task=1\n" in done.output
    assert f"openuni status {out}\n" in done.output
    assert CliRunner().invoke(command, ["plan", *words]).exit_code == 0
    file = tmp_path / "build.sbatch"
    file.write_text(done.output)
    for task in (1, 2):
        env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SLURM_JOB_ID": f"t{task}",
                            "SLURM_ARRAY_TASK_ID": str(task), "SLURM_TMPDIR": str(tmp_path)}  # fmt: skip
        ran = subprocess.run(["bash", file], env=env, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert f"part {Part(number=task, of=2)} is through" in ran.stderr
        assert not (tmp_path / f"openuni-t{task}").exists()
    assert (out / "catalog.json").exists()


def test_what_a_part_cannot_do_and_what_build_does_not_know_is_refused_at_once(tmp_path: Path) -> None:
    for wrong in ("--part=1/2", "--retry-failed", "--sauce=x"):
        done = CliRunner().invoke(command, ["launch", "slurm", "--parts", "2", "--", "--source", "toy", wrong])
        assert done.exit_code == 2
        assert "No such option" in done.output


def test_options_of_the_source_are_known(tmp_path: Path) -> None:
    words = ["--source", "koala36m", "--at-least", "aesthetic_score=4.5", "--out", str(tmp_path / "d")]
    done = CliRunner().invoke(command, ["launch", "slurm", "--parts", "2", "--", *words])
    assert done.exit_code == 0, done.output
    assert "--at-least aesthetic_score=4.5" in done.output
