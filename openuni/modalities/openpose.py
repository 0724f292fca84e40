"""Skeletons as the OpenPose pictures that published pose-conditioned models take."""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
import numpy.typing as npt

from openuni.modalities.base import Frames
from openuni.modalities.skeleton import DRAWN, HAND_LIMBS, LAYOUTS, Skeleton

Floats = npt.NDArray[np.float32]

JOINTS = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
"""OpenPose's 18 joints in its order (its COCO model; Cao et al., arXiv:1812.08008)."""
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
_DIM = 0.6
"""Brightness of a limb; a joint has the whole of its colour."""
_WIDTH = 4
"""Pixels, whatever the frame's size: half the width of a limb, the radius of a joint of body and hand."""
_HAND_WIDTH = 2
_FACE_RADIUS = 3
_HAND_COLOUR, _FACE_COLOUR = (0.0, 0.0, 255.0), (255.0, 255.0, 255.0)


def draw_openpose(skeleton: Skeleton) -> Frames:
    """The people of a skeleton of any layout as OpenPose's 18 joints, uint8 `[T, H, W, 3]`, RGB on black.

    The neck is the middle between the shoulders, and is hidden where one of them is. Hands are drawn where the layout
    has them, joints in blue, and faces as white points; feet are not. A joint with a score below .3 is left out, with
    its limbs. Joint and limb number i have hue 20·i degrees. Order, colours and sizes are those of ControlNet 1.1
    (Zhang et al., arXiv:2302.05543; `annotator/openpose/util.py` of `lllyasviel/ControlNet-v1-1-nightly`), with the
    joints over the dimmed limbs, as DWPose's authors draw them (`IDEA-Research/DWPose`). Sizes are in pixels and do
    not grow with the frame: published models are trained on pictures of about 512 pixels.

    Example:
        >>> points = np.full((1, 1, 17, 3), (np.nan, np.nan, 0), np.float32)
        >>> points[0, 0, 0] = 20.5, 30.5, 1  # a nose
        >>> boxes, tracks = np.array([[[16, 26, 25, 35]]], np.float32), np.ones(1, np.int32)
        >>> draw_openpose(Skeleton(points, boxes, tracks, 48, 64))[0, 30, 20]
        array([255,   0,   0], dtype=uint8)
    """
    layout = LAYOUTS[skeleton.layout]
    frames = len(skeleton.keypoints)
    pictures = np.zeros((frames, skeleton.height, skeleton.width, 3), np.uint8)
    bodies = _eighteen(skeleton.body.keypoints)
    for t in range(frames):
        _bodies(pictures[t], bodies[t])
        for part in layout.hands:
            for hand in skeleton.keypoints[t][:, list(part)]:
                _hand(pictures[t], hand)
        for point in skeleton.keypoints[t][:, list(layout.face)].reshape(-1, 3):
            _disc(pictures[t], point, _FACE_COLOUR, _FACE_RADIUS)
    return pictures


def _eighteen(coco: Floats) -> Floats:
    """OpenPose's joints `[…, 18, 3]` from COCO's `[…, 17, 3]`."""
    names = LAYOUTS["coco17"].joints
    shoulders = coco[..., [names.index("left_shoulder"), names.index("right_shoulder")], :]
    neck = shoulders.mean(axis=-2)
    neck[..., 2] = shoulders[..., 2].min(axis=-1)
    known = np.concatenate([coco, neck[..., None, :]], axis=-2)
    chosen: Floats = known[..., [(*names, "neck").index(joint) for joint in JOINTS], :]
    return chosen


def _bodies(picture: Frames, people: Floats) -> None:
    colours = [_hue(joint / len(JOINTS)) for joint in range(len(JOINTS))]
    for (a, b), colour in zip(_LIMBS, colours, strict=False):  # one limb fewer than joints
        for joints in people:
            if _seen(joints[a]) and _seen(joints[b]):
                _limb(picture, joints[a], joints[b], colour)
    picture[:] = (picture * _DIM).astype(np.uint8)
    for joint, colour in enumerate(colours):
        for joints in people:
            _disc(picture, joints[joint], colour, _WIDTH)


def _limb(picture: Frames, a: Floats, b: Floats, colour: tuple[float, ...]) -> None:
    """An ellipse whose long axis is the limb, of whole pixels and degrees as in the published drawing."""
    x, y = (a[:2] + b[:2]) / 2
    across, down = (a[:2] - b[:2]).tolist()
    axes, turn = (int(math.hypot(across, down) / 2), _WIDTH), int(math.degrees(math.atan2(down, across)))
    outline = cv2.ellipse2Poly((int(x), int(y)), axes, turn, 0, 360, 1)
    cv2.fillConvexPoly(picture, outline, colour)


def _hand(picture: Frames, joints: Floats) -> None:
    for number, (a, b) in enumerate(HAND_LIMBS):
        if _seen(joints[a]) and _seen(joints[b]):
            cv2.line(picture, _pixel(joints[a]), _pixel(joints[b]), _hue(number / len(HAND_LIMBS)), _HAND_WIDTH)
    for joint in joints:
        _disc(picture, joint, _HAND_COLOUR, _WIDTH)


def _disc(picture: Frames, joint: Floats, colour: tuple[float, ...], radius: int) -> None:
    if _seen(joint):
        cv2.circle(picture, _pixel(joint), radius, colour, cv2.FILLED)


def _seen(joint: Floats) -> bool:
    return bool(joint[2] >= DRAWN)


def _pixel(joint: Floats) -> tuple[int, int]:
    """The pixel that the joint lies in."""
    return math.floor(joint[0]), math.floor(joint[1])


def _hue(part: float) -> tuple[float, ...]:
    """The full colour at this part of the circle of hues."""
    return tuple(255 * channel for channel in colorsys.hsv_to_rgb(part, 1, 1))
