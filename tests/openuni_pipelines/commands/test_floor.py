"""What an expert doubts itself is left out of a dataset with the reason, or kept where that is asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openuni
from openuni.errors import AbsentModalityError
from openuni.shards import verify
from openuni.video import encode_video

pytestmark = pytest.mark.usefixtures("toys")
Command = Callable[..., subprocess.CompletedProcess[str]]


def ok(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture
def clips(make_clips: Callable[..., Path], tmp_path: Path) -> Path:
    """One clip that moves, and one of noise, in which no pixel of a frame is anywhere in the next."""
    folder = make_clips(tmp_path / "v", ["moves"])
    noise = np.random.default_rng(0).integers(0, 256, (10, 48, 48, 3), dtype=np.uint8)
    (folder / "noise.mp4").write_bytes(encode_video(noise, 16.0))
    return folder


def test_what_is_below_the_floor_is_absent_with_the_reason_and_the_evidence(
    build: Command, clips: Path, tmp_path: Path
) -> None:
    ok(build(clips, tmp_path / "d", "dis"))
    data = openuni.open(tmp_path / "d")
    status = data["noise"].statuses["flow"]
    assert not status.present
    assert "confidence below 0.25: most of the flow is off by more than a pixel" in status.reason
    assert "--keep-doubtful" in status.reason
    assert status.confidence is not None
    assert status.confidence < 0.25
    with pytest.raises(AbsentModalityError, match="--keep-doubtful keeps it"):
        _ = data["noise"].flow
    assert data["moves"].statuses["flow"].present
    assert not verify.verify_column(tmp_path / "d", 0, "flow").problems


def test_one_option_keeps_everything_and_stays_with_the_dataset(
    build: Command, openuni_command: Command, clips: Path, tmp_path: Path
) -> None:
    ok(build(clips, tmp_path / "d", "dis", "--keep-doubtful"))
    data = openuni.open(tmp_path / "d")
    assert data["noise"].statuses["flow"].present
    assert data["noise"].flow.forward.shape == (9, 48, 48, 2)
    # Floors and none never mix in one dataset.
    assert "choose another --out" in build(clips, tmp_path / "d", "dis").stderr
    ok(openuni_command("add", tmp_path / "d", "dis", "--workers", 0, "--min-free", 0))
    assert openuni.open(tmp_path / "d")["noise"].statuses["flow"].present
