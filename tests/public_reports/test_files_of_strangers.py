"""Pipes, devices, patterns and nonsense where the newest commands expect a file: one sentence, at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from openuni.errors import OpenUniError, PlanError
from openuni.sources import Skipped
from openuni.sources.base import Request
from openuni.sources.table import Table
from openuni.video import encode_video
from openuni_pipelines.engine.generating import read_image
from unibench.report import report


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.mp4").write_bytes(encode_video(np.zeros((4, 32, 32, 3), np.uint8), 8.0))
    return folder


def chosen(metadata: Path, videos: Path, **more: object) -> Iterator[str]:
    request = Request(videos=videos, metadata=metadata, **more)  # type: ignore[arg-type]
    yield from (e.id for e in Table().entries(request) if not isinstance(e, Skipped))


@pytest.mark.parametrize("name", ["rows[1].csv", "ro*.csv", "row?1.csv", "it's.csv"])
def test_a_table_is_the_file_of_that_name_and_no_pattern(tmp_path: Path, videos: Path, name: str) -> None:
    """DuckDB read `rows1.csv` where `rows[1].csv` was named, without a word."""
    (tmp_path / "rows1.csv").write_text("video,caption\nb,theirs\n")
    (tmp_path / name).write_text("video,caption\na,mine\n")
    assert list(chosen(tmp_path / name, videos)) == ["a"]


def test_a_pipe_among_tables_is_refused(tmp_path: Path, videos: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    os.mkfifo(folder / "rows.csv")
    with pytest.raises(OpenUniError, match=r"rows\.csv is not a regular file"):
        list(chosen(folder, videos))


@pytest.mark.parametrize(
    "row", ["a,9999999-01-01 00:00:00,x", "a,infinity,x", "a,-5,x", "a,nan,x", "a,1e400,x", "a,99:99:99,\x1b[31m"]
)
def test_a_table_with_times_that_are_none_leaves_the_row_out_or_is_refused(
    tmp_path: Path, videos: Path, row: str
) -> None:
    (tmp_path / "t.csv").write_text(f"video,start,caption\nb,0,fine\n{row}\n")
    with suppress(PlanError):  # which is one sentence; anything else would be a traceback
        assert set(chosen(tmp_path / "t.csv", videos)) <= {"a", "a-99:99:99", "b-0", "b", "a-362439"}


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"P6 70000 70000 255\n"])
def test_an_image_that_is_none_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(OpenUniError, match="no image that can be read"):
        read_image(tmp_path / "a.png")


def test_an_image_that_is_a_device_a_pipe_or_a_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (Path("/dev/zero"), tmp_path / "pipe.png", tmp_path):
        with pytest.raises(OpenUniError, match="is not a regular file"):
            read_image(path)


def test_a_report_that_is_huge_or_a_pipe_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "report.json").open("wb") as file:
        file.truncate(1 << 38)
    with pytest.raises(OpenUniError, match="is not a report"):
        report.read(tmp_path)
    (tmp_path / "report.json").unlink()
    os.mkfifo(tmp_path / "report.json")
    with pytest.raises(OpenUniError, match="is not a regular file"):
        report.read(tmp_path)


def test_unityvideo_weights_with_the_right_names_and_other_shapes_are_one_sentence(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from openuni_model.config import ModelConfigError
    from openuni_model.unityvideo import _OWN, open_unityvideo

    names = {*_OWN, "base.patch_embedding.weight", "base.patch_embedding.bias", "base.head.head.weight",
             "base.head.head.bias", "base.head.modulation", "base.time_embedding.0.weight",
             "base.text_embedding.0.weight", "base.blocks.0.ffn.0.weight"}  # fmt: skip
    for number, shape in enumerate(((), (1,), (4, 4), (2, 3, 1, 2, 2))):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({name: torch.zeros(shape) for name in names}, folder / "a.safetensors")
        with pytest.raises(ModelConfigError, match=r"a\.safetensors"):
            open_unityvideo(folder)
    pipes = tmp_path / "pipes"
    pipes.mkdir()
    os.mkfifo(pipes / "a.safetensors")
    with pytest.raises(ModelConfigError, match="not a regular file"):
        open_unityvideo(pipes)
