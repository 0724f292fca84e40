"""Frames dropped and repeated where a container has no usable clock (pyav#469, omxplayer#378, torchvision#1155)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openuni.sample import Clip
from openuni.video import decode_video, normalise
from tests.openuni.video.films import film, joined, number_of, packed


def joined_ts(folder: Path) -> Path:
    parts = [film(folder / f"{k}.ts", 16, first=16 * k, container="mpegts") for k in range(2)]
    return joined(folder / "all.ts", *parts)


def h264_avi(folder: Path) -> Path:
    return film(folder / "a.avi", 32, options={"bf": "3"})


def packed_avi(folder: Path) -> Path:
    return packed(folder / "a.avi", 33)


@pytest.mark.parametrize(("make", "clock"), [(joined_ts, "joined"), (h264_avi, "counted"), (packed_avi, "counted")])
def test_each_frame_is_stored_once_and_in_order(tmp_path: Path, make: Callable[[Path], Path], clock: str) -> None:
    video = normalise(Clip("k", str(make(tmp_path))))
    frames, _ = decode_video(video.mp4)
    assert [number_of(frame) for frame in frames] == list(range(len(frames)))
    assert len(frames) in (32, 33)
    assert (video.origin.clock, video.repeated_frames) == (clock, 0)
