"""Who is on a screen: the outline of a monitor in a real office and of drawn ones, and people before it who are not."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.experts import screens

H, W = 180, 320


def wall(quad: list[tuple[int, int]], noise: float = 3.0) -> np.ndarray:
    """A pale wall with a dark surface on it, filmed."""
    picture = np.full((H, W, 3), 190, np.uint8)
    cv2.fillPoly(picture, [np.array(quad, np.int32)], (50, 60, 70), cv2.LINE_AA)
    return np.clip(picture + np.random.default_rng(0).normal(0, noise, picture.shape), 0, 255).astype(np.uint8)


UPRIGHT = [(60, 30), (260, 30), (260, 150), (60, 150)]
SIDEWAYS = [(70, 25), (250, 40), (246, 140), (66, 160)]
MAN = np.array([120.0, 55, 180, 138])


@pytest.mark.parametrize("quad", [UPRIGHT, SIDEWAYS])
@pytest.mark.parametrize(
    ("box", "within"),
    [
        (MAN, True),
        (np.add(MAN, [0, 10, 0, 32]), False),  # stands before it: the feet are on the floor
        (np.add(MAN, [110, 0, 110, 0]), False),  # beside it
        (np.array([5.0, 5, 315, 175]), False),
    ],
)
def test_somebody_is_within_an_outline_or_reaches_beyond(
    quad: list[tuple[int, int]], box: np.ndarray, within: bool
) -> None:
    assert screens.framed(wall(quad), box) == within


def test_three_sides_are_no_outline_and_neither_is_a_frame_with_bars() -> None:
    open_below = wall([(60, 30), (260, 30), (260, 400), (60, 400)])
    assert not screens.framed(open_below, MAN)
    letterbox = np.zeros((H, W, 3), np.uint8)
    coarse = np.random.default_rng(0).integers(0, 255, (12, 30, 3), np.uint8)
    letterbox[24:-24] = cv2.resize(coarse, (W, H - 48))
    assert not screens.framed(letterbox, MAN)


def test_who_is_on_a_screen_most_of_the_time_is() -> None:
    frames = np.stack([wall(UPRIGHT)] * 10)
    boxes = np.full((10, 3, 4), np.nan, np.float32)
    boxes[2:8, 0] = MAN
    boxes[:, 1] = np.add(MAN, [0, 10, 0, 32])
    boxes[9, 2] = MAN
    assert screens.on_screens(frames, boxes).tolist() == [True, False, True]


def test_a_real_monitor_is_an_outline_of_what_it_shows_alone(shared_data: Path) -> None:
    """The monitor of TUM's office, closer by, and two who would stand before it and beside it."""
    desk = np.ascontiguousarray(cv2.imread(str(shared_data / "depth" / "tum" / "1.png"))[40:220, 150:470, ::-1])
    assert screens.framed(desk, np.array([120.0, 75, 200, 170]))
    assert not screens.framed(desk, np.array([100.0, 20, 220, 179]))
    assert not screens.framed(desk, np.array([240.0, 60, 290, 160]))
