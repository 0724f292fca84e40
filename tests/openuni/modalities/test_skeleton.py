"""Skeleton: exact storage, joints that follow the pixels they stand on, and the recall of drawn pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities import Box, Encoded
from openuni.modalities.rgb import Rgb, RgbModality
from openuni.modalities.skeleton import LAYOUTS, Skeleton, SkeletonModality

modality = SkeletonModality()

# A person who faces the camera with arms and legs hanging: x, y in body heights from the top of the head.
STANDING = np.array(
    [(0, 0.08), (0.025, 0.06), (-0.025, 0.06), (0.05, 0.07), (-0.05, 0.07), (0.11, 0.2), (-0.11, 0.2), (0.15, 0.36),
     (-0.15, 0.36), (0.17, 0.5), (-0.17, 0.5), (0.07, 0.52), (-0.07, 0.52), (0.08, 0.74), (-0.08, 0.74), (0.08, 0.96),
     (-0.08, 0.96)]
)  # fmt: skip
# Joint, what hangs on it, and how far it turns (radians, left side; the right side mirrors it).
BENDS = [(5, (7, 9), (-2.2, 0.5)), (7, (9,), (-1.5, 1.5)), (11, (13, 15), (-0.8, 0.4)), (13, (15,), (-0.2, 0.9))]


def pose(rng: np.random.Generator, body_height: float, x: float, y: float) -> np.ndarray:
    joints = STANDING.copy()
    for joint, hanging, (low, high) in BENDS:
        for side, sign in ((0, 1), (1, -1)):
            angle = sign * rng.uniform(low, high)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            for child in hanging:
                joints[child + side] = joints[joint + side] + turn @ (joints[child + side] - joints[joint + side])
    return np.column_stack([joints * body_height + (x, y), np.ones(17)])


def scene(seed: int, people: int, size: int = 256) -> Skeleton:
    """One frame with people of 100–220 px side by side, joints outside the frame absent."""
    rng = np.random.default_rng(seed)
    places = [(0.3, 0.7)] if people == 1 else [(0.2, 0.45), (0.55, 0.8)]
    keypoints = np.empty((1, people, 17, 3), np.float32)
    for p in range(people):
        body_height = rng.uniform(100, 220)
        x, y = rng.uniform(*places[p]) * size, rng.uniform(5, size - body_height)
        keypoints[0, p] = pose(rng, body_height, x, y)
    return skeleton(keypoints, size, size)


def skeleton(keypoints: np.ndarray, height: int, width: int, **more) -> Skeleton:
    keypoints = keypoints.astype(np.float32)
    outside = ((keypoints[..., :2] < 0) | (keypoints[..., :2] >= (width, height))).any(axis=-1)
    keypoints[outside | (keypoints[..., 2] == 0)] = np.nan, np.nan, 0
    boxes = np.full((*keypoints.shape[:2], 4), np.nan, np.float32)
    there = (keypoints[..., 2] > 0).any(axis=-1)
    boxes[there] = np.concatenate([np.nanmin(keypoints[there, :, :2], 1), np.nanmax(keypoints[there, :, :2], 1)], -1)
    return Skeleton(keypoints, boxes, np.arange(keypoints.shape[1], dtype=np.int32), height, width, **more)


def crowd(seed: int = 0, shape: tuple[int, int, int] = (3, 40, 60), people: int = 2) -> Skeleton:
    """Random joints, a third of them absent, with world positions."""
    rng = np.random.default_rng(seed)
    keypoints = rng.random((shape[0], people, 17, 3)) * (shape[2], shape[1], 1)
    keypoints[rng.random(keypoints.shape[:3]) < 0.3, 2] = 0
    return skeleton(keypoints, *shape[1:], world=rng.normal(0, 1, keypoints.shape).astype(np.float32))


def same(a: Skeleton, b: Skeleton, tolerance: float = 1e-4) -> bool:
    pairs = [(a.keypoints, b.keypoints), (a.boxes, b.boxes), (a.world, b.world)]
    return (
        all(x is y or np.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True) for x, y in pairs)
        and np.array_equal(a.track_ids, b.track_ids)
        and (a.height, a.width, a.layout) == (b.height, b.width, b.layout)
    )


@pytest.mark.parametrize("value", [crowd(), replace(crowd(), world=None), crowd(people=0)])
def test_storage_is_lossless_and_gives_the_same_bytes(value: Skeleton) -> None:
    encoded = modality.encode(value)
    back = modality.decode(Encoded(encoded.members, json.loads(json.dumps(encoded.meta))))
    assert same(back, value, tolerance=0)
    assert modality.encode(value) == encoded


@pytest.mark.parametrize("people", [1, 2])
@pytest.mark.parametrize(
    ("sigma", "blur", "recall"), [(0.0, 0, 0.97), (0.05, 0, 0.97), (0.08, 0, 0.96), (0.03, 1, 0.89)]
)
def test_joints_are_found_again_in_noisy_and_soft_pictures(
    people: int, sigma: float, blur: float, recall: float
) -> None:
    """Over 60 scenes at 256²: joints found within 3 px by the one person who shares most of them."""
    total = found = 0
    for seed in range(60):
        value = scene(seed, people)
        picture = modality.to_picture(value)
        if blur:
            picture = cv2.GaussianBlur(picture[0], (0, 0), blur)[None]
        noise = np.random.default_rng(seed).normal(0, sigma, picture.shape).astype(np.float32)
        back = modality.from_picture(picture + noise)
        modality.check(back)
        for truth in value.keypoints[0]:
            there = truth[:, 2] > 0
            near = np.linalg.norm(back.keypoints[0, :, there, :2] - truth[there, None, :2], axis=-1) <= 3
            total += there.sum()
            found += near.sum(axis=0).max(initial=0)
    assert found / total >= recall


def test_people_keep_their_number_over_the_clip() -> None:
    rng = np.random.default_rng(0)
    left, right = pose(rng, 150, 70, 40), pose(rng, 150, 180, 40)
    step = np.array([2, 0, 0])
    keypoints = np.stack([[left + t * step, right - t * step] for t in range(8)])
    back = modality.from_picture(modality.to_picture(skeleton(keypoints, 256, 256)))
    assert back.keypoints.shape[1] == 2
    hips = back.keypoints[:, :, 11, 0]
    assert (np.abs(np.diff(hips, axis=0)) < 5).all()


def test_a_picture_without_people_is_a_skeleton_without_people() -> None:
    back = modality.from_picture(np.zeros((2, 32, 32, 3), np.float32))
    modality.check(back)
    assert back.keypoints.shape == (2, 0, 17, 3)
    assert not modality.to_picture(back).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_left_becomes_right_in_a_mirror(layout: str) -> None:
    body = LAYOUTS[layout]
    assert sorted(body.mirrored) == list(range(len(body.joints)))
    assert [body.joints[i] for i in body.mirrored[:3]] == ["nose", "right_eye", "left_eye"]
    assert sorted(tuple(sorted(body.mirrored[j] for j in limb)) for limb in body.limbs) == sorted(
        tuple(sorted(limb)) for limb in body.limbs
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.sampled_from(["flip", "crop", "double"]), st.integers(1, 15), st.integers(1, 15))
def test_joints_follow_the_pixels_they_stand_on(seed: int, operation: str, dx: int, dy: int) -> None:
    """A white pixel in the clip and a joint at its centre go through the same operation and still meet."""
    height, width = 31, 45
    rng = np.random.default_rng(seed)
    x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
    frames = np.zeros((1, height, width, 3), np.uint8)
    frames[0, y, x] = 255
    keypoints = np.zeros((1, 1, 17, 3))
    keypoints[0, 0, 7] = x + 0.5, y + 0.5, 1
    value, clip, rgb = skeleton(keypoints, height, width), Rgb(frames, 16.0), RgbModality()
    joint = 7
    if operation == "flip":
        value, clip, joint = modality.flip(value), rgb.flip(clip), 8
    elif operation == "crop":
        box = Box(dx, dy, width, height)
        value, clip = modality.crop(value, box), rgb.crop(clip, box)
    else:
        value = modality.resize(value, 2 * height, 2 * width)
        clip = replace(clip, frames=clip.frames.repeat(2, axis=1).repeat(2, axis=2))
    assert modality.shape(value) == rgb.shape(clip)
    lit = np.argwhere(clip.frames[0, ..., 0] == 255)
    if not len(lit):
        assert value.keypoints[0, 0, joint, 2] == 0
    else:
        centre = lit.mean(axis=0)[::-1] + 0.5
        assert value.keypoints[0, 0, joint, :2] == pytest.approx(centre)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.integers(2, 90), st.integers(2, 90))
def test_geometry_commutes(seed: int, height: int, width: int) -> None:
    value = crowd(seed)
    assert same(modality.flip(modality.flip(value)), value)
    assert same(modality.resize(modality.resize(value, height, width), 40, 60), value, tolerance=1e-3)
    box, mirrored = Box(5, 1, 40, 39), Box(20, 1, 55, 39)
    assert same(modality.flip(modality.crop(value, box)), modality.crop(modality.flip(value), mirrored))
    assert same(modality.crop(modality.crop(value, box), Box(0, 0, 9, 9)), modality.crop(value, Box(5, 1, 14, 10)))
    assert same(
        modality.take(modality.crop(value, box), slice(1, 3)), modality.crop(modality.take(value, slice(1, 3)), box)
    )
    modality.check(modality.crop(value, box))


def changed(joint: tuple[float, float, float]) -> Skeleton:
    keypoints = crowd().keypoints.copy()
    keypoints[0, 0, 0] = joint
    return replace(crowd(), keypoints=keypoints)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (changed((1, 1, 1.5)), "0 to 1"),
        (changed((1, 1, np.nan)), "without NaN"),
        (changed((1, 1, 0)), "NaN"),
        (changed((np.nan, 1, 1)), "NaN"),
        (changed((500, 1, 1)), "outside"),
        (changed((np.inf, 1, 1)), "outside"),
        (replace(crowd(), layout="coco18"), "layout"),
        (replace(crowd(), keypoints=crowd().keypoints[:, :, :16]), "17"),
        (replace(crowd(), boxes=crowd().boxes[:2]), "boxes"),
        (replace(crowd(), boxes=crowd().boxes[..., [2, 1, 0, 3]]), "x0"),
        (replace(crowd(), track_ids=np.int32([4, 4])), "differ"),
        (replace(crowd(), world=np.full((3, 2, 17, 3), np.inf, np.float32)), "world"),
    ],
)
def test_nonsense_is_refused(value: Skeleton, message: str) -> None:
    with pytest.raises(InvalidAnnotationError, match=message):
        modality.check(value)


@pytest.mark.parametrize(
    "change",
    [
        {"layout": "x"},
        {"layout": "coco_wholebody133"},
        {"people": 3},
        {"people": 10**6},
        {"frames": 2**20},
        {"world": False},
        {"width": -1},
    ],
)
def test_false_numbers_are_refused(change: dict) -> None:
    encoded = modality.encode(crowd())
    with pytest.raises(CorruptDataError):
        modality.decode(Encoded(encoded.members, {**encoded.meta, **change}))


def whole(seed: int = 0) -> Skeleton:
    """Random joints of the 133, a third of them absent, with world positions."""
    rng = np.random.default_rng(seed)
    keypoints = rng.random((3, 2, 133, 3)) * (60, 40, 1)
    keypoints[rng.random(keypoints.shape[:3]) < 0.3, 2] = 0
    world = rng.normal(0, 1, keypoints.shape).astype(np.float32)
    return skeleton(keypoints, 40, 60, world=world, layout="coco_wholebody133")


def test_every_layout_begins_with_the_body() -> None:
    coco = LAYOUTS["coco17"]
    for layout in LAYOUTS.values():
        assert layout.joints[:17] == coco.joints
        assert layout.limbs[:19] == coco.limbs
    assert [len(layout.joints) for layout in LAYOUTS.values()] == [17, 133]


def test_face_points_are_mirrored_as_in_the_published_layout() -> None:
    body = LAYOUTS["coco_wholebody133"]
    # COCO-WholeBody's `swap`: jaw and brows count across, the rest in pairs.
    pairs = {8: 8, 27: 27, 31: 35, 36: 45, 39: 42, 40: 47, 48: 54, 51: 51, 55: 59, 57: 57, 60: 64, 65: 67, 66: 66}
    pairs |= {i: 16 - i for i in range(8)} | {i: 43 - i for i in range(17, 22)}
    for a, b in pairs.items():
        assert (body.mirrored[23 + a], body.mirrored[23 + b]) == (23 + b, 23 + a)
    assert body.mirrored[91:112] == list(range(112, 133))
    assert body.mirrored[17:20] == [20, 21, 22]


def test_133_joints_are_stored_exactly_and_the_model_sees_the_body() -> None:
    value = whole()
    encoded = modality.encode(value)
    back = modality.decode(encoded)
    assert encoded.meta["layout"] == back.layout == "coco_wholebody133"
    for name in ("keypoints", "boxes", "world", "track_ids"):
        np.testing.assert_array_equal(getattr(back, name), getattr(value, name))
    assert same(modality.flip(modality.flip(value)), value)
    body = value.body
    modality.check(body)
    np.testing.assert_array_equal(body.keypoints, value.keypoints[:, :, :17])
    np.testing.assert_array_equal(body.world, value.world[:, :, :17])
    assert body.body is body
    np.testing.assert_array_equal(modality.to_picture(value), modality.to_picture(body))
    assert (modality.show(value) != modality.show(body)).any()
    with pytest.raises(InvalidAnnotationError, match="17"):
        modality.check(replace(value, layout="coco17"))


def test_areas_crowds_and_scores_are_stored_and_cost_nothing_where_absent() -> None:
    value = scene(3, 2)
    assert "more" not in modality.encode(value).meta
    areas = np.array([[900.5, np.nan]], np.float32)
    full = replace(value, areas=areas, crowds=np.array([False, True]), scores=np.array([[7.5, np.nan]], np.float32))
    back = modality.decode(modality.encode(full))
    for name in ("areas", "crowds", "scores"):
        np.testing.assert_array_equal(getattr(back, name), getattr(full, name))
    assert modality.resize(full, 512, 256).areas[0, 0] == 2 * areas[0, 0]
    assert np.isnan(modality.crop(full, Box(0, 0, 4, 4)).areas).all()
    with pytest.raises(InvalidAnnotationError, match="areas"):
        modality.check(replace(full, areas=-areas))
