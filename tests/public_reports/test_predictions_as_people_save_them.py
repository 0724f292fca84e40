"""`predictions.json` as editors save it, and what is none; arrays of no real numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from openuni.errors import InvalidAnnotationError, OpenUniError
from unibench.formats.arrays import load_arrays
from unibench.scoring.runs import read_info


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_it_is_read_in_the_encodings_that_editors_write(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "predictions.json").write_bytes('{"fps": 8, "depth": {"kind": "metric"}}'.encode(encoding))
    info = read_info(tmp_path)
    assert (info.fps, set(info.tasks)) == (8, {"depth"})


def test_a_pipe_or_a_huge_file_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "predictions.json"
    os.mkfifo(file)
    with pytest.raises(OpenUniError, match=r"predictions\.json"):
        read_info(tmp_path)
    file.unlink()
    with file.open("wb") as opened:
        opened.truncate(1 << 38)
    with pytest.raises(OpenUniError, match=r"predictions\.json"):
        read_info(tmp_path)


@pytest.mark.parametrize("kind", ["complex64", "M8[s]", "m8[s]", "i4,f4"])
def test_arrays_of_no_real_numbers_are_unusable(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 16, 24), kind))
    np.savez(tmp_path / "a.npz", np.zeros((4, 16, 24), kind))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InvalidAnnotationError, match="neither whole nor real numbers"):
            load_arrays(tmp_path / name)
