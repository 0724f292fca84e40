"""Images, as videos of one frame, through the default build: all that a single frame has, and flow with its reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("mediapipe")

import openuni
from openuni import assets
from openuni.errors import AbsentModalityError
from openuni.shards import verify
from openuni.video import encode_video
from tests.conftest import moving_picture


def test_an_image_gets_everything_but_flow(tmp_path: Path, asset: Callable[[str], Path]) -> None:
    """At 30 fps a frame is on screen for less than one of ours, at 4 fps for four of them: both are one image."""
    for name, entry in assets.installed().items():
        if entry.asset.light:
            asset(name)
    (tmp_path / "v").mkdir()
    for fps in (4, 30):
        (tmp_path / "v" / f"image{fps}.mp4").write_bytes(encode_video(moving_picture(fps, 1, 96), float(fps)))
    options = ("--source", "folder", "--videos", tmp_path / "v", "--out", tmp_path / "d", "--min-free", 0)
    code = "from openuni_pipelines.cli import openuni; openuni()"
    command = [sys.executable, "-c", code, "build", *options, "--min-frames", 1, "--workers", 0]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "XNNPACK" not in done.stderr
    assert "inference_feedback_manager" not in done.stderr

    data = openuni.open(str(tmp_path / "d"))
    assert list(data.keys()) == ["image30-0000", "image4-0000"]
    for sample in data:
        assert sample.rgb.frames.shape[0] == sample.depth.values.shape[0] == sample.segmentation.ids.shape[0] == 1
        assert sample.skeleton.keypoints.shape[0] == sample.densepose.values.shape[0] == 1
        with pytest.raises(AbsentModalityError, match="flow needs two frames, the clip has 1"):
            sample.flow  # noqa: B018
    for column in data.columns:
        assert verify.verify_column(tmp_path / "d", 0, column).problems == ()
