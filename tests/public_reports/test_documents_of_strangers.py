"""Tables and side-cars beside truth and predictions: bounded and regular, with or without a mark; short palettes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openuni.errors import CorruptDataError, OpenUniError
from unibench.formats import bounded, coco_truth, prompts
from unibench.formats.palette import read_indices


@pytest.mark.parametrize(
    "read", [bounded.read_bytes, bounded.read_text, coco_truth.load, lambda p: prompts._table(p, 0)]
)
def test_a_pipe_a_device_a_folder_and_a_huge_file_are_refused(tmp_path: Path, read: object) -> None:
    assert callable(read)
    pipe, huge = tmp_path / "pipe", tmp_path / "huge"
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(OpenUniError):
            read(path)
    with pytest.raises(CorruptDataError, match="more than"):
        read(huge)


def test_a_huge_mask_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptDataError, match="more than"):
        read_indices(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [1, 7, 24])
def test_masks_of_short_palettes_are_read(tmp_path: Path, bits: int, width: int) -> None:
    """As PIL, optipng and pngquant write them."""
    ids = np.random.default_rng(bits).integers(0, 1 << bits, (9, width), dtype=np.uint8)
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette(list(np.random.default_rng(0).integers(0, 255, 3 << bits)))
    picture.save(tmp_path / "a.png", bits=bits)
    assert (tmp_path / "a.png").read_bytes()[24] == bits
    np.testing.assert_array_equal(read_indices(tmp_path / "a.png"), ids)


def test_a_table_that_an_editor_marked_is_read(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text("\ufeff1 2 3\n4 5 6\n", "utf-8")
    np.testing.assert_array_equal(bounded.read_numbers(tmp_path / "poses.txt", 3), [[1, 2, 3], [4, 5, 6]])
