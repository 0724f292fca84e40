"""A list, a table or a file of settings that claims 64 GiB is named by its size, not read into memory for minutes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openuni.errors import OpenUniError
from openuni.sources import selection
from openuni.sources.download.files import read_cookies
from openuni_pipelines.engine.collecting import read_list
from openuni_pipelines.engine.selecting import read_keys
from unibench.importers.easysynth import _poses
from unibench.scoring.journal import Journal


def _listed(path: Path) -> object:
    import duckdb

    return selection._listed(duckdb.connect(), path, "excluded")


def _stage(path: Path) -> object:
    from openuni_model.tasks import load_stage

    return load_stage(str(path))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("ids.txt", _listed),
        ("keys.txt", read_keys),
        ("cookies.txt", read_cookies),
        ("list.json", read_list),
        ("CameraPoses.csv", _poses),
        ("samples.jsonl", lambda path: Journal(path, "f", resume=True)),
        ("stage.toml", _stage),
    ],
)
def test_it_is_named_by_its_size(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    file = tmp_path / name
    file.touch()
    os.truncate(file, 64 << 30)
    with pytest.raises(OpenUniError, match=rf"{name} has .*bytes"):
        read(file)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes there")
@pytest.mark.parametrize("kind", ["png", "npy", "flo", "pfm"])
def test_a_pipe_among_the_pictures_of_a_source_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    from unibench.formats.bounded import read_npy, read_png
    from unibench.formats.flo import read_tagged
    from unibench.importers.stereo import read_pfm

    readers: dict[str, Callable[[Path], object]] = {
        "png": lambda path: read_png(path, np.uint16, 1),
        "npy": lambda path: read_npy(path, np.float32, 2),
        "flo": lambda path: read_tagged(path, 2),
        "pfm": read_pfm,
    }
    file = tmp_path / f"frame.{kind}"
    os.mkfifo(file)
    with pytest.raises(OpenUniError, match="not a regular file"):
        readers[kind](file)
