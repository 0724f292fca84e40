"""Film comes back out of 3:2 pulldown frame by frame; progressive and plain interlaced video stays as it was."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from openuni.sample import Clip
from openuni.video import Normalisation, decode_video, normalise, presented_frames, read_frames
from openuni.video.limits import Limits
from openuni.video.telecine import examine
from tests.openuni.video.films import Rgb, combed, film, interlaced, number_of, numbered, telecined
from tests.openuni.video.test_deinterlace import comb

LOSSLESS = {"qp": "0", "x264-params": "interlaced=1:keyint=24"}


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("skip", range(5))
def test_every_frame_of_a_lossless_film_comes_back_bit_for_bit(tmp_path: Path, order: str, skip: int) -> None:
    original, _ = decode_video(film(tmp_path / "film.mkv", 64, rate=24, options={"qp": "0"}))
    path = telecined(tmp_path / "a.mkv", 64, order=order, skip=skip, codec="libx264", options=LOSSLESS)
    frames = list(presented_frames(path))
    numbers = [number_of(frame.rgb) for frame in frames]
    # Of what is cut off within a cycle a single field may be left, at both ends.
    whole = frames[numbers.index(5) :][:54]
    assert [number_of(frame.rgb) for frame in whole] == list(range(5, 59))
    np.testing.assert_array_equal(np.stack([frame.rgb for frame in whole]), original[5:59])
    steps = [after.time - before.time for before, after in itertools.pairwise(whole[3:])]
    assert max(abs(step - Fraction(1, 24)) for step in steps) <= Fraction(1, 1000)  # Matroska counts milliseconds


def test_a_clip_of_a_dvd_has_the_film_s_frames_once_each_and_says_so(tmp_path: Path) -> None:
    path = telecined(tmp_path / "a.mpg", 80)
    assert [number_of(frame) for frame in read_frames(path, fps=24.0)] == list(range(80))
    video = normalise(Clip("k", str(path), start=1.0, end=2.0))
    assert (video.origin.detelecined, video.origin.deinterlaced) == (True, False)
    own = normalise(Clip("k", str(path)), Normalisation(None))
    assert (own.frames, own.fps, own.repeated_frames) == (80, pytest.approx(24.0), 0.0)
    frames, _ = decode_video(video.mp4)
    assert [number_of(frame) for frame in frames] == [24 + 3 * k // 2 for k in range(16)]


def test_a_late_start_gives_the_frames_that_decoding_from_zero_gives(tmp_path: Path) -> None:
    lossy = {"crf": "30", "x264-params": "interlaced=1:keyint=13"}
    path = telecined(tmp_path / "a.mkv", 240, codec="libx264", options=lossy)
    plain = list(read_frames(path, fps=24.0))
    assert len(plain) == 240
    for start in (3, 60, 97, 98, 99, 100, 101, 171, 236):
        late = list(read_frames(path, start / 24, fps=24.0))
        np.testing.assert_array_equal(np.stack(late), np.stack(plain[start:]), err_msg=str(start))


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_drawings_that_stay_for_some_frames_keep_their_time(tmp_path: Path, order: str) -> None:
    def drawn(number: int) -> Rgb:
        return numbered(number if number < 40 else number // 3)

    path = telecined(tmp_path / "a.mpg", 120, order=order, picture=drawn)
    shown = [number_of(frame) for frame in read_frames(path, fps=24.0)]
    assert shown == [k if k < 40 else k // 3 for k in range(120)]


def test_video_after_the_film_loses_no_frame(tmp_path: Path) -> None:
    path = telecined(tmp_path / "a.mpg", 80, after=[combed(k) for k in range(40)])
    frames = list(presented_frames(path))
    assert len(frames) == 80 + 40
    assert max(comb(frame.rgb) for frame in frames[81:]) < 1


def test_what_is_not_film_is_left_alone(tmp_path: Path) -> None:
    def still(number: int) -> Rgb:
        return numbered(3)

    assert examine(interlaced(tmp_path / "interlaced.mpg", 150), Limits()) is None
    assert examine(telecined(tmp_path / "still.mpg", 120, picture=still), Limits()) is None
    progressive = film(tmp_path / "progressive.mpg", 60, rate=30, codec="mpeg2video")
    assert examine(progressive, Limits()) is None
    assert [number_of(frame.rgb) for frame in presented_frames(progressive)] == list(range(60))
