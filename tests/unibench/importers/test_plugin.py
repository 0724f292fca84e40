"""A format of another distribution is imported by one function, with no edit of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import openuni
from openuni.errors import OpenUniError
from unibench import importers


def write(src: Path) -> np.ndarray:
    src.mkdir()
    ids = np.zeros((2, 16, 24), np.uint8)
    ids[:, 4:8, 4:8], ids[:, 0] = 3, 255
    np.savez(src / "walk.npz", rgb=np.full((2, 16, 24, 3), 90, np.uint8), ids=ids)
    (src / "notes.txt").write_text("of the author")
    return ids


@pytest.mark.usefixtures("toys")
def test_a_toy_format_is_known_after_ours() -> None:
    names = importers.names()
    assert names.index("davis") < names.index("toy") == len(names) - 1
    with pytest.raises(OpenUniError, match=r"no 'mine' among the installed unibench.importers.*toy"):
        importers.read("mine", Path())


@pytest.mark.usefixtures("toys")
def test_the_command_imports_it_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    ids = write(tmp_path / "src")
    command = [sys.executable, "-c", "from openuni_pipelines.cli import unibench; unibench()", "import"]
    done = subprocess.run(
        [*command, str(tmp_path / "src"), "--format", "toy", "--out", str(tmp_path / "gt")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert "left out: " in done.stdout
    assert "1 clip, 1 left out" in done.stdout
    assert "notes.txt is not read: only .npz are" in done.stdout
    data = openuni.open(str(tmp_path / "gt"))
    (sample,) = data
    assert sample.key == "000000-toy-walk"
    np.testing.assert_array_equal(sample.segmentation.ids, np.where(ids == 255, 0, ids))
    np.testing.assert_array_equal(sample.segmentation.ignored, ids == 255)
