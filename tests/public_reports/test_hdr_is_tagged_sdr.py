"""HDR stored as if its code values were BT.709 (librephotos#2044)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openuni.sample import Clip
from openuni.video import decode_video, normalise
from tests.openuni.video.films import hdr


def test_reference_white_of_pq_is_bright_and_neutral(tmp_path: Path) -> None:
    """203 cd/m², PQ signal .581, is where white paper lies (BT.2408): 148 as it stands, 230 tone-mapped."""
    white = np.broadcast_to(np.array([round(876 * 0.581) + 64, 512, 512], np.uint16), (64, 96, 3))
    video = normalise(Clip("k", str(hdr(tmp_path / "a.mkv", white, 16))))
    frames, _ = decode_video(video.mp4)
    assert np.abs(frames.astype(int) - 230).max() <= 2
    assert video.origin.transfer == "pq"
