"""`openuni export-weights`, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from click.testing import CliRunner  # noqa: E402

from openuni.errors import PlanError  # noqa: E402
from openuni_model.weights import load_model, save_model  # noqa: E402
from openuni_pipelines.commands.export_weights import export_weights_command  # noqa: E402
from tests.openuni_model.conftest import random_model, tiny_config  # noqa: E402


def test_a_model_is_written_whole_in_a_type_of_choice_and_nothing_is_overwritten(tmp_path: Path) -> None:
    model = random_model(tiny_config())
    save_model(tmp_path / "model", model.config, model.state_dict(), "")
    arguments = ["--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--dtype", "bfloat16"]
    result = CliRunner().invoke(export_weights_command, arguments)
    assert result.exit_code == 0, result.output
    assert "README.md, config.json, model.safetensors" in result.output
    back = load_model(tmp_path / "out")
    assert back.config == model.config
    assert torch.equal(back.in_weight_KDI, model.in_weight_KDI.to(torch.bfloat16))
    again = CliRunner().invoke(export_weights_command, arguments)
    assert isinstance(again.exception, PlanError)
    assert "is not empty" in str(again.exception)
