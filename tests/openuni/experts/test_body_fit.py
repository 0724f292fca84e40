"""DensePose by fitting: right on a body that is known, and silent where a body cannot be trusted."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.body import Body, Surface, rasterise
from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip
from openuni.experts.body_fit import LEAST, MEDIAPIPE, BodyFit
from openuni.experts.dis import Dis
from openuni.experts.people import LANDMARKS, PeopleFinder, TrackedPeople
from openuni.modalities.densepose import DOUBTS, DensePoseModality
from openuni.sample import Annotation
from tests.openuni.body import posed
from tests.openuni.experts.clips import clip

pytest.importorskip("embreex")
FRAMES = 6


@pytest.fixture(scope="module")
def expert() -> BodyFit:
    expert = BodyFit()
    expert.setup()
    return expert


def actor(seed: int = 3) -> tuple[TrackedPeople, list[Surface]]:
    """One person who turns, as perfect findings, and the surfaces that are truly seen."""
    body = Body.load()
    rng = np.random.default_rng(seed)
    rotations = np.stack([posed.random_rotations(body, np.random.default_rng(seed))] * FRAMES)
    for t in range(FRAMES):
        rotations[t, 0] = rotations[0, 0] @ cv2.Rodrigues(np.array([0, 0.05 * t, 0]))[0]
    vertices = body.pose(rotations)
    vertices -= vertices.mean(1, keepdims=True)
    seen = posed.observe(body, vertices, rng, 0.005, 0.01)
    truth = [rasterise(body, posed.picture(v), posed.HEIGHT, posed.WIDTH) for v in vertices]
    landmarks = np.full((FRAMES, 1, LANDMARKS, 3), [320, 180, 1], np.float32)
    world = np.zeros((FRAMES, 1, LANDMARKS, 3), np.float32)
    rows = [MEDIAPIPE[name] for name in body.landmark_names]
    landmarks[:, 0, rows, :2] = seen.points
    world[:, 0, rows] = seen.space * [1, -1, -1]
    corners = np.stack([posed.picture(v)[:, :2] for v in vertices])
    return TrackedPeople(
        boxes=np.concatenate([corners.min(1), corners.max(1)], 1)[:, None].astype(np.float32),
        scores=np.full((FRAMES, 1), 0.9, np.float32),
        landmarks=landmarks,
        world=world,
        support=np.array([0.7], np.float32),
        masks=np.stack([(s.part > 0).astype(np.uint8) for s in truth]),
        thing_frames=np.zeros(0, np.int32),
        thing_boxes=np.zeros((0, 4), np.float32),
        thing_scores=np.zeros(0, np.float32),
        thing_classes=(),
    ), truth


def decoded(people: TrackedPeople) -> DecodedClip:
    frames = np.zeros((*people.masks.shape, 3), np.uint8)
    return DecodedClip("actor", frames, 25.0, {"people": Annotation(people, "people")})


def test_a_known_body_gets_its_parts_and_charts(expert: BodyFit) -> None:
    people, truth = actor()
    annotation = expert.annotate(decoded(people))
    values = annotation.value.values
    DensePoseModality().check(annotation.value)
    assert annotation.confidence > 0.8
    for t, surface in enumerate(truth):
        found = Surface(values[t, ..., 0], values[t, ..., 1], values[t, ..., 2], surface.depth)
        agreement = posed.compare(surface, found)
        assert agreement.parts > 0.87
        assert agreement.left_right < 0.02
        assert max(agreement.u, agreement.v) < 0.06
        assert agreement.overlap > 0.97  # the mask is filled


def test_nothing_is_drawn_outside_the_mask_or_in_another_name(expert: BodyFit) -> None:
    people, _ = actor()
    masks = people.masks.copy()
    masks[:, :, :315] = 0
    value = expert.annotate(decoded(replace(people, masks=masks))).value.values
    assert not value[masks == 0].any()


@pytest.mark.parametrize(
    ("doubt", "reason"),
    [
        ("hidden", "is hidden"),
        ("unsupported", "no person"),
        ("elsewhere", "cut off"),
        ("mask", "cover its mask"),
        ("limbs", "landmarks"),
    ],
)
def test_what_cannot_be_trusted_is_left_out_with_the_reason(expert: BodyFit, doubt: str, reason: str) -> None:
    people, _ = actor()
    landmarks, masks, support = people.landmarks.copy(), people.masks.copy(), people.support.copy()
    if doubt == "hidden":
        landmarks[..., 2] = 0.2
    if doubt == "unsupported":
        support[:] = 0.1
    if doubt == "elsewhere":
        landmarks[..., 1] += 190
        masks = np.roll(masks, 190, axis=1)
        masks[:, :190] = 0
    if doubt == "mask":
        masks = np.roll(masks, 120, axis=2)
    if doubt == "limbs":
        landmarks[..., :2] = np.random.default_rng(0).uniform(100, 260, landmarks[..., :2].shape)
    bad = replace(people, landmarks=landmarks, masks=masks, support=support)
    with pytest.raises(OpenUniError, match=reason):
        expert.annotate(decoded(bad))


def test_a_person_trusted_in_some_frames_is_drawn_in_those(expert: BodyFit) -> None:
    people, _ = actor()
    masks = people.masks.copy()
    masks[2] = np.roll(masks[2], 150, axis=1)
    annotation = expert.annotate(decoded(replace(people, masks=masks)))
    value = annotation.value
    assert annotation.scores == {"densepose_painted": 5, "densepose_left_out": 1}
    assert value.values.any((1, 2, 3)).tolist() == [True, True, False, True, True, True]
    assert value.confidence[2, 0] < LEAST <= value.confidence[1, 0]
    assert [DOUBTS[d - 1] if d else "" for d in value.doubt[:, 0]] == [
        *["", "", "the body does not cover its mask"],
        *[""] * 3,
    ]


def test_a_ball_before_the_body_is_not_body(expert: BodyFit) -> None:
    people, _ = actor()
    x, y = 320, 180  # the middle of the body
    ball = replace(
        people,
        thing_frames=np.array([2], np.int32),
        thing_boxes=np.array([[x - 10, y - 10, x + 10, y + 10]], np.float32),
        thing_scores=np.array([0.8], np.float32),
        thing_classes=("sports ball",),
    )
    values = expert.annotate(decoded(ball)).value.values
    assert not values[2, y - 6 : y + 6, x - 6 : x + 6].any()
    assert values[3, y, x, 0] > 0  # nothing was seen there
    tie = replace(ball, thing_classes=("tie",))
    assert expert.annotate(decoded(tie)).value.values[2, y, x, 0] > 0


def test_a_ball_is_out_of_the_body_on_its_way_between_two_sightings(expert: BodyFit) -> None:
    people, _ = actor()
    x, y = 320, 180
    boxes = [[x - 30, y - 10, x - 10, y + 10], [x + 10, y - 10, x + 30, y + 10]]
    flown = replace(
        people,
        thing_frames=np.array([1, 3], np.int32),
        thing_boxes=np.array(boxes, np.float32),
        thing_scores=np.array([0.8, 0.3], np.float32),
        thing_classes=("sports ball", "frisbee"),  # the detector wavers
    )
    values = expert.annotate(decoded(flown)).value.values
    assert not values[2, y - 6 : y + 6, x - 6 : x + 6].any()


def test_the_fit_takes_one_thread_and_gives_back_the_rest(expert: BodyFit) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    people, _ = actor()
    with threadpool_limits(limits=2, user_api="blas"):
        wide = expert.annotate(decoded(people)).value.values
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
    with threadpool_limits(limits=1, user_api="blas"):
        np.testing.assert_array_equal(expert.annotate(decoded(people)).value.values, wide)


def test_nobody_and_somebody_too_small_give_an_empty_result(expert: BodyFit) -> None:
    people, _ = actor()
    shrunk = people.boxes.copy()
    shrunk[..., 2:] = shrunk[..., :2] + 10
    nobody = {name: getattr(people, name)[:, :0] for name in ("boxes", "scores", "landmarks", "world")}
    empty = replace(people, **nobody, support=people.support[:0], masks=people.masks * 0)
    for bad in (replace(people, boxes=shrunk), empty):
        annotation = expert.annotate(decoded(bad))
        DensePoseModality().check(annotation.value)
        assert not annotation.value.values.any()
        assert annotation.confidence == 0


def test_without_the_expert_people_the_reason_is_given(expert: BodyFit) -> None:
    with pytest.raises(OpenUniError, match="'people'"):
        expert.annotate(DecodedClip("x", np.zeros((1, 8, 8, 3), np.uint8), 25.0, {}))


@pytest.fixture(scope="module", params=["sam2_01_dog", "sam2_05_default_juggle"])
def single(request: pytest.FixtureRequest, finder: PeopleFinder, shared_data: Path) -> DecodedClip:
    frames = clip(shared_data / "videos" / f"{request.param}.mp4", 24, 24.0)
    plain = DecodedClip(request.param, frames, 24.0, {})
    return replace(plain, annotations={"people": finder.annotate(plain), "dis": Dis().annotate(plain)})


def test_parts_follow_the_flow_on_real_people(expert: BodyFit, single: DecodedClip) -> None:
    """Issue's bar: parts agree with the parts of the next frame under the flow, on pixels that both frames show."""
    part = expert.annotate(single).value.values[..., 0]
    flow = single.annotations["dis"].value
    rows, columns = np.mgrid[: part.shape[1], : part.shape[2]]
    same = total = 0
    for t in range(len(part) - 1):
        x = np.rint(columns + flow.forward[t, ..., 0]).astype(int).clip(0, part.shape[2] - 1)
        y = np.rint(rows + flow.forward[t, ..., 1]).astype(int).clip(0, part.shape[1] - 1)
        there = part[t + 1][y, x]
        both = (part[t] > 0) & (there > 0) & ~flow.occluded[t]
        same, total = same + (part[t] == there)[both].sum(), total + both.sum()
    assert total > 10000
    assert same / total >= 0.90
