"""Interlaced video keeps its comb (pyav#327)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openuni.sample import Clip
from openuni.video import decode_video, normalise
from tests.openuni.video.films import interlaced


def test_a_stored_clip_has_no_comb(tmp_path: Path) -> None:
    video = normalise(Clip("k", str(interlaced(tmp_path / "a.mpg", 25))))
    lines = decode_video(video.mp4)[0][:, 26:54].astype(int)
    next_line = np.abs(np.diff(lines, axis=1)).mean()
    line_after = np.abs(lines[:, 2:] - lines[:, :-2]).mean()
    assert next_line < line_after
    assert video.origin.deinterlaced
