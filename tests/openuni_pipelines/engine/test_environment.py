"""`openuni doctor`, and that this very environment has one OpenCV."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from openuni_pipelines.cli import openuni
from openuni_pipelines.engine import environment


def test_this_environment_has_one_version_of_opencv() -> None:
    assert environment.opencv_conflict(environment.opencv_versions()) is None


def test_two_versions_of_opencv_are_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"opencv-python": "5.0.0.93", "opencv-contrib-python": "5.1.0.95"}
    monkeypatch.setattr(environment, "opencv_versions", lambda: versions)
    result = CliRunner().invoke(openuni, ["doctor"], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "pip install opencv-python==5.0.0.93 opencv-contrib-python==5.0.0.93" in result.output


def test_the_report_names_every_extra_and_the_model_files() -> None:
    result = CliRunner().invoke(openuni, ["doctor"], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    for name in ("build", "people", "render", "score", "train", "model files", "shared memory"):
        assert name in result.output
