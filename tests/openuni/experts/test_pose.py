"""Skeletons out of the people found: COCO's joints, and what is hidden or outside is marked."""

from dataclasses import replace

import numpy as np
import pytest

from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip
from openuni.experts.mediapipe_pose import MediapipePose, presence
from openuni.experts.people import TrackedPeople
from openuni.experts.pose_quality import COCO, predicted_oks
from openuni.modalities.skeleton import LAYOUTS, SkeletonModality
from openuni.sample import Annotation

T, H, W = 4, 60, 80


def people(count: int = 2) -> TrackedPeople:
    """People who stand still in disjoint columns of the frame, every landmark visible."""
    landmarks = np.zeros((T, count, 33, 3), np.float32)
    masks = np.zeros((T, H, W), np.uint8)
    for p in range(count):
        landmarks[:, p, :, 0] = 20 + 30 * p
        landmarks[:, p, :, 1] = np.linspace(5, 55, 33)
        landmarks[:, p, :, 2] = 0.9
        masks[:, 2:58, 14 + 30 * p : 26 + 30 * p] = p + 1
    boxes = np.zeros((T, count, 4), np.float32)
    for p in range(count):
        boxes[:, p] = 14 + 30 * p, 2, 26 + 30 * p, 58
    world = np.random.default_rng(0).normal(0, 0.5, (T, count, 33, 3)).astype(np.float32)
    return TrackedPeople(
        boxes,
        np.full((T, count), 0.9, np.float32),
        landmarks,
        world,
        np.full(count, 0.7, np.float32),
        masks,
        np.zeros(0, np.int32),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        (),
    )


def skeleton(value: TrackedPeople) -> Annotation:
    decoded = DecodedClip("still", np.zeros((T, H, W, 3), np.uint8), 25.0, {"people": Annotation(value, "people")})
    annotation = MediapipePose().annotate(decoded)
    SkeletonModality().check(annotation.value)
    return annotation


def test_each_coco_joint_is_the_landmark_of_its_name() -> None:
    mediapipe = {
        "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "left_shoulder": 11,
        "right_shoulder": 12, "left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16, "left_hip": 23,
        "right_hip": 24, "left_knee": 25, "right_knee": 26, "left_ankle": 27, "right_ankle": 28,
    }  # fmt: skip
    assert [mediapipe[joint] for joint in LAYOUTS["coco17"].joints] == list(COCO)


def test_joints_places_scores_and_metres_are_those_found() -> None:
    value = people()
    annotation = skeleton(value)
    np.testing.assert_array_equal(annotation.value.keypoints, value.landmarks[:, :, COCO])
    np.testing.assert_array_equal(annotation.value.world, value.world[:, :, COCO])
    np.testing.assert_array_equal(annotation.value.boxes, value.boxes)
    assert annotation.value.track_ids.tolist() == [1, 2]
    assert annotation.confidence == pytest.approx(np.nanmean(predicted_oks(value)))


def test_a_joint_outside_the_frame_is_absent() -> None:
    value = people()
    value.landmarks[1, 0, 15] = [W + 3, 20, 0.95]
    value.landmarks[2, 0, 15] = [20, -1, 0.95]
    joints = skeleton(value).value
    wrist = COCO.index(15)
    for t in (1, 2):
        assert joints.keypoints[t, 0, wrist, 2] == 0
        assert np.isnan(joints.keypoints[t, 0, wrist, :2]).all()
        assert np.isnan(joints.world[t, 0, wrist]).all()


def test_a_joint_behind_somebody_else_is_not_believed() -> None:
    value = people()
    value.landmarks[1, 0, 15] = [50, 30, 0.95]  # in the middle of the other person
    score = skeleton(value).value.keypoints[:, 0, COCO.index(15), 2]
    assert score[1] <= 0.25
    assert (score[[0, 2, 3]] > 0.8).all()


def test_of_two_who_were_given_one_head_it_is_whose_mask_it_is() -> None:
    """Two who embrace touch, so that the other's head is no farther than a few pixels from either's mask."""
    value = people()
    value.masks[:, 2:58, 20:50] = np.where(np.arange(20, 50) < 35, 1, 2)
    value.landmarks[1:, 1, :11, 0] = 31  # the second one's head is put on the first one's, in all frames but one
    value.landmarks[1:, 0, :11, 0] = 30
    score = skeleton(value).value.keypoints[..., :5, 2]
    assert (score[1:, 1] <= 0.25).all()
    assert (score[1:, 0] > 0.8).all()
    assert (score[0] > 0.8).all()


def test_heads_close_to_each_other_are_two() -> None:
    value = people()
    value.masks[:, 2:58, 20:50] = np.where(np.arange(20, 50) < 35, 1, 2)
    value.landmarks[:, 0, :11, 0], value.landmarks[:, 1, :11, 0] = 32, 37
    assert (skeleton(value).value.keypoints[..., :5, 2] > 0.8).all()


def test_frames_without_a_pose_are_absent_and_people_without_one_are_left_out() -> None:
    value = people()
    value.landmarks[2, 0] = np.nan
    value.world[2, 0] = np.nan
    assert (skeleton(value).value.keypoints[2, 0, :, 2] == 0).all()
    value.landmarks[:, 0] = np.nan
    assert skeleton(value).value.track_ids.tolist() == [2]


def test_what_the_detector_doubts_has_low_confidence() -> None:
    value = people()
    doubted = replace(value, support=np.full(2, 0.1, np.float32))
    assert skeleton(doubted).confidence < 0.3 < skeleton(value).confidence


def test_nobody_is_an_empty_skeleton_of_no_confidence() -> None:
    annotation = skeleton(people(0))
    assert annotation.value.keypoints.shape == (T, 0, 17, 3)
    assert annotation.confidence == 0


def test_without_the_expert_people_the_reason_is_given() -> None:
    with pytest.raises(OpenUniError, match="'people'"):
        MediapipePose().annotate(DecodedClip("x", np.zeros((1, 8, 8, 3), np.uint8), 25.0, {}))


def cast(*cast_: tuple[float, float, bool]) -> TrackedPeople:
    """People of a support, seen for a share of 20 frames, posed or not."""
    frames, count = 20, len(cast_)
    boxes = np.full((frames, count, 4), np.nan, np.float32)
    landmarks = np.full((frames, count, 33, 3), np.nan, np.float32)
    for p, (_, share, posed) in enumerate(cast_):
        seen = round(share * frames)
        boxes[:seen, p] = 0, 0, 30, 100
        if posed:
            landmarks[:seen, p] = 1
    scores = np.where(np.isnan(boxes[..., 0]), np.float32(np.nan), np.float32(0.9))
    support = np.array([support for support, _, _ in cast_], np.float32)
    masks = np.zeros((frames, 8, 8), np.uint8)
    things = np.zeros((0, 4), np.float32)
    return TrackedPeople(
        boxes, scores, landmarks, landmarks, support, masks, np.zeros(0, np.int32), things, things[:, 0], ()
    )


@pytest.mark.parametrize(
    ("who", "number"),
    [
        ([(0.8, 1.0, True)], 1),
        ([(0.8, 1.0, True), (0.7, 0.6, True)], 2),
        ([(0.8, 1.0, True), (0.6, 0.1, True)], 1),  # somebody passes for a moment
        ([(0.8, 1.0, True), (0.5, 0.4, False)], 1),  # a headrest that is taken for a person now and then
        ([(0.8, 1.0, True), (0.3, 1.0, True), (0.3, 0.9, True)], 3.5),  # one stands out of a crowd
        ([(0.8, 1.0, True), (0.3, 0.9, True)], 2.5),  # one, or two
        ([(0.4, 1.0, True)], 0),  # a mannequin, a drawing, a swimmer: in doubt
        ([(0.8, 0.3, True)], 0),
        ([], 0),
    ],
)
def test_a_clip_is_of_whom_it_shows_over_time(who: list[tuple[float, float, bool]], number: float) -> None:
    scores = presence(cast(*who))
    assert scores["people"] == number
    assert scores["people_in_sight"] == pytest.approx(sum(share for _, share, _ in who))
