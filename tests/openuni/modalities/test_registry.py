"""Modalities are found by their entry points, built-in ones and those of other distributions alike."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from openuni import modalities, registry
from openuni.errors import OpenUniError


@pytest.fixture
def installed_thermal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on `sys.path` that looks as if `pip install openuni-thermal` had filled it."""
    shutil.copy(Path(__file__).parent / "thermal.py", tmp_path / "openuni_thermal.py")
    info = tmp_path / "openuni_thermal-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openuni-thermal\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[openuni.modalities]\nthermal = openuni_thermal:ThermalModality\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("openuni_thermal", None)


def test_a_sixth_modality_is_one_file_and_an_entry_point(installed_thermal: Path) -> None:
    modality = modalities.get("thermal")
    value = type(modality.from_picture(np.zeros((1, 1, 1, 3), np.float32)))(
        np.linspace(280, 360, 3 * 8 * 10, dtype=np.float32).reshape(3, 8, 10)
    )
    modality.check(value)
    assert np.abs(modality.decode(modality.encode(value)).kelvin - value.kelvin).max() <= 0.0051
    assert np.abs(modality.from_picture(modality.to_picture(value)).kelvin - value.kelvin).max() < 1e-3
    assert modality.show(value).shape == (3, 8, 10, 3)


def test_the_built_in_ones_come_first_and_an_unknown_one_is_named(installed_thermal: Path) -> None:
    names = registry.names("modalities")
    assert set(names[:6]) == {"rgb", "depth", "flow", "segmentation", "densepose", "skeleton"}
    assert names[6:] == ["thermal"]
    with pytest.raises(OpenUniError, match=r"'sound'.*thermal"):
        modalities.get("sound")


def test_without_the_distribution_the_modality_is_unknown() -> None:
    with pytest.raises(OpenUniError, match="thermal"):
        modalities.get("thermal")


@pytest.mark.parametrize("name", ["rgb", "depth", "flow", "segmentation", "densepose", "skeleton"])
def test_every_built_in_modality_says_its_name_and_prompt(name: str) -> None:
    modality = modalities.get(name)
    assert modality.name == name
    assert len(modality.prompt) > 10
