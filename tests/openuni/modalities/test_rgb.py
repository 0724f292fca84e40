"""RGB: lossless where asked, close where not; refuses what is not a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import Box, Encoded
from openuni.modalities.rgb import Rgb, RgbModality

modality = RgbModality()


def clip(height: int = 64, width: int = 96) -> Rgb:
    """A smooth gradient that moves."""
    y, x = np.mgrid[:height, :width]
    frames = [np.stack([x * 2 + t, y * 3, x + y + 4 * t], -1) % 200 for t in range(5)]
    return Rgb(np.stack(frames).astype(np.uint8), 16.0)


def test_exact_clips_are_lossless_also_of_odd_size() -> None:
    for value in (replace(clip(), exact=True), replace(clip(33, 47), exact=True)):
        back = modality.decode(modality.encode(value))
        assert np.array_equal(back.frames, value.frames)
        assert (back.fps, back.exact) == (16.0, True)


def test_other_clips_are_close_and_their_bytes_repeat() -> None:
    encoded = modality.encode(clip())
    back = modality.decode(encoded)
    assert back.fps == 16.0
    assert np.abs(back.frames.astype(int) - clip().frames).mean() < 4
    assert modality.encode(clip()) == encoded


def test_picture_is_exact() -> None:
    assert np.array_equal(modality.from_picture(modality.to_picture(clip())).frames, clip().frames)


def test_geometry_keeps_pixels() -> None:
    value = clip()
    assert np.array_equal(modality.flip(modality.flip(value)).frames, value.frames)
    assert np.array_equal(modality.crop(value, Box(3, 5, 9, 11)).frames, value.frames[:, 5:11, 3:9])
    assert np.array_equal(modality.take(value, slice(1, 3)).frames, value.frames[1:3])
    half = modality.resize(value, 32, 48).frames
    expected = value.frames.reshape(5, 32, 2, 48, 2, 3).mean(axis=(2, 4))
    assert np.abs(half - expected).max() <= 0.75


@pytest.mark.parametrize("box", [Box(0, 0, 97, 64), Box(-1, 0, 5, 5), Box(5, 5, 5, 9)])
def test_a_crop_outside_the_frame_is_refused(box: Box) -> None:
    with pytest.raises(InvalidAnnotationError, match="inside"):
        modality.crop(clip(), box)


def test_nonsense_is_refused() -> None:
    for value in (replace(clip(), fps=0), replace(clip(), frames=clip().frames.astype(np.float32))):
        with pytest.raises(InvalidAnnotationError):
            modality.check(value)
    with pytest.raises(InvalidAnnotationError, match="even"):
        modality.encode(clip(33, 47))


def test_a_video_of_another_size_or_no_video_is_refused() -> None:
    encoded = modality.encode(clip())
    for broken in (
        Encoded(encoded.members, {**encoded.meta, "frames": 4}),
        Encoded(encoded.members, {**encoded.meta, "width": 94}),
        Encoded({"mp4": b"nothing"}, encoded.meta),
        Encoded({"mp4": encoded.members["mp4"][:-900]}, encoded.meta),
    ):
        with pytest.raises(CorruptDataError):
            modality.decode(broken)
