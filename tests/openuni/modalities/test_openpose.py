"""OpenPose pictures: the stated colour at each joint, and nothing where a joint is not seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from openuni.modalities.openpose import JOINTS, draw_openpose
from openuni.modalities.skeleton import LAYOUTS, Skeleton

# Colours of joints 0 to 17, as published.
COLOURS = [
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
]  # fmt: skip


def person(points: Mapping[str, tuple[float, float]], layout: str = "coco17") -> Skeleton:
    """One frame of 240 × 320 pixels with one person, who has these joints only."""
    names = LAYOUTS[layout].joints
    keypoints = np.full((1, 1, len(names), 3), (np.nan, np.nan, 0), np.float32)
    for name, place in points.items():
        keypoints[0, 0, names.index(name)] = *place, 1
    boxes = np.array([[[0, 0, 320, 240]]], np.float32)
    return Skeleton(keypoints, boxes, np.ones(1, np.int32), 240, 320, layout)


def spread(layout: str) -> dict[str, tuple[float, float]]:
    """Every joint of a layout 14 pixels apart from the others; each hand in a row of its own."""
    places = [number if number < 91 else number + 14 for number in range(len(LAYOUTS[layout].joints))]
    return {
        name: (16.5 + 14 * (place % 21), 16.5 + 14 * (place // 21))
        for name, place in zip(LAYOUTS[layout].joints, places, strict=True)
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_joint_has_its_colour(layout: str) -> None:
    places = spread(layout)
    picture = draw_openpose(person(places, layout))[0]
    (ax, ay), (bx, by) = places["left_shoulder"], places["right_shoulder"]
    places["neck"] = (ax + bx) / 2, (ay + by) / 2
    for joint, colour in zip(JOINTS, COLOURS, strict=True):
        x, y = places[joint]
        assert tuple(picture[int(y), int(x)]) == colour, joint
    body = LAYOUTS[layout]
    for number in (number for hand in body.hands for number in hand):
        x, y = places[body.joints[number]]
        assert tuple(picture[int(y), int(x)]) == (0, 0, 255)
    for number in body.face:
        x, y = places[body.joints[number]]
        assert tuple(picture[int(y), int(x)]) == (255, 255, 255)


def test_a_limb_is_dimmed_and_has_its_own_colour() -> None:
    picture = draw_openpose(person({"left_hip": (100.5, 50.5), "left_knee": (100.5, 150.5)}))[0]
    assert tuple(picture[100, 100]) == (0, 102, 153)  # 0.6 of limb 10's (0, 170, 255)
    assert picture[100, 96].any()  # four pixels to each side
    assert not picture[100, 94].any()
    hand = person({"left_thumb_1": (40.5, 40.5), "left_thumb_2": (80.5, 40.5)}, "coco_wholebody133")
    assert tuple(draw_openpose(hand)[0, 40, 60]) == (255, 77, 0)  # limb 1 of 20: a hue of 18 degrees


def test_the_neck_lies_between_the_shoulders_and_needs_both() -> None:
    both = {"left_shoulder": (140.5, 60.5), "right_shoulder": (100.5, 60.5), "nose": (120.5, 30.5)}
    assert tuple(draw_openpose(person(both))[0, 60, 120]) == (255, 85, 0)
    del both["right_shoulder"]
    alone = draw_openpose(person(both))[0]
    assert {tuple(colour) for colour in alone.reshape(-1, 3)} == {(0, 0, 0), COLOURS[0], COLOURS[5]}


def test_what_is_hardly_seen_and_feet_are_left_out() -> None:
    hidden = person(spread("coco_wholebody133"), "coco_wholebody133")
    hidden.keypoints[..., 2] = 0.29
    assert not draw_openpose(hidden).any()
    assert not draw_openpose(person({"left_heel": (50.5, 50.5)}, "coco_wholebody133")).any()


def test_frames_without_people_and_limbs_that_leave_the_frame() -> None:
    nobody = Skeleton(
        np.zeros((2, 0, 133, 3), np.float32), np.zeros((2, 0, 4), np.float32), np.zeros(0, np.int32), 24, 32,
        "coco_wholebody133",
    )  # fmt: skip
    assert draw_openpose(nobody).shape == (2, 24, 32, 3)
    leaving = draw_openpose(person({"left_hip": (300.5, 50.5), "left_knee": (400.5, 50.5)}))[0]
    assert tuple(leaving[50, 319]) == (0, 102, 153)
