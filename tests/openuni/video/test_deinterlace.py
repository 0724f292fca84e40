"""No comb is left, progressive frames are untouched, and a late start gives the very same frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.sample import Clip
from openuni.video import normalise, presented_frames, probe, read_frames
from tests.openuni.video.films import combed, film, interlaced


def comb(frame: npt.NDArray[np.uint8]) -> float:
    """How much more a line differs from the next than from the one after that; ≤ 1 without comb."""
    lines = frame[26:54].astype(int)
    return float(np.abs(np.diff(lines, axis=0)).mean() / (np.abs(lines[2:] - lines[:-2]).mean() + 1))


def test_the_comb_is_taken_out(tmp_path: Path) -> None:
    path = interlaced(tmp_path / "a.mpg")
    frames = list(presented_frames(path))
    assert probe(path).interlaced
    assert [float(frame.time) for frame in frames] == [k / 25 for k in range(50)]
    assert comb(combed(20)) > 10
    assert max(comb(frame.rgb) for frame in frames) < 1
    assert normalise(Clip("k", str(path))).origin.deinterlaced


def test_a_late_start_gives_the_frames_that_decoding_from_zero_gives(tmp_path: Path) -> None:
    path = interlaced(tmp_path / "a.mpg", 150)
    plain = list(read_frames(path, fps=25.0))
    assert len(plain) == 150
    for start in (0.08, 2.4, 4.4, 5.96):
        late = list(read_frames(path, start, fps=25.0))
        np.testing.assert_array_equal(np.stack(late), np.stack(plain[round(25 * start) :]), err_msg=str(start))


def test_a_progressive_film_is_not_filtered(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mpg", 30, rate=25, codec="mpeg2video", picture=combed)
    assert not probe(path).interlaced
    assert min(comb(frame.rgb) for frame in presented_frames(path)) > 5
    assert not normalise(Clip("k", str(path))).origin.deinterlaced
