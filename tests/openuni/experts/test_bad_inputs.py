"""What is not a whole person gives an empty result or one of low confidence in all that is about people, and no error.

Where no real picture is at hand one is made, and called so: the mannequin is our own baked body in grey, the cartoon
man is drawn, the crowd is one man pasted, and the face is cut out of a real clip. The rabbit is a real cartoon.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.kinds import flat_colours
from openuni.body import Body, rasterise
from openuni.errors import OpenUniError
from openuni.experts.base import DecodedClip
from openuni.experts.body_fit import BodyFit
from openuni.experts.mediapipe_pose import MediapipePose
from openuni.experts.mediapipe_segmentation import MediapipeSegmentation
from openuni.experts.people import FIRM, PeopleFinder
from openuni.modalities.densepose import DensePose, DensePoseModality
from openuni.modalities.segmentation import SegmentationModality
from openuni.modalities.skeleton import SkeletonModality
from openuni.sample import Annotation
from tests.openuni.experts.clips import clip

pytest.importorskip("embreex")
FRAMES, H, W, FPS = 12, 360, 640, 12.0
LOW = 0.5
"""Confidence below which an annotation is not to be relied upon, as the documentation says."""


Seen = tuple[Annotation, Annotation, Annotation | None]


@pytest.fixture
def look(finder: PeopleFinder, segmenter: MediapipeSegmentation) -> Callable[[np.ndarray], Seen]:
    """Skeleton, segmentation and DensePose of a clip, each checked; None where DensePose abstains and says why."""
    body = BodyFit()
    body.setup()

    def annotate(frames: np.ndarray) -> Seen:
        found = {"people": finder.annotate(DecodedClip("bad", frames, FPS, {}))}
        decoded = DecodedClip("bad", frames, FPS, found)
        skeleton, segmentation = MediapipePose().annotate(decoded), segmenter.annotate(decoded)
        SkeletonModality().check(skeleton.value)
        SegmentationModality().check(segmentation.value)
        try:
            densepose = body.annotate(decoded)
        except OpenUniError as error:
            if "no body could be trusted in any frame" not in str(error):
                raise
            return skeleton, segmentation, None
        DensePoseModality().check(densepose.value)
        return skeleton, segmentation, densepose

    return annotate


def handheld(picture: np.ndarray, noise: float = 4.0) -> np.ndarray:
    """A picture filmed: it drifts a little and has noise, so that no two frames are alike."""
    rng = np.random.default_rng(0)
    frames = []
    for t in range(FRAMES):
        drift = np.array([[1, 0, 1.3 * t], [0, 1, 0.4 * t]])
        moved = cv2.warpAffine(picture, drift, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        frames.append(np.clip(moved + rng.normal(0, noise, moved.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


def mannequin(heading: float) -> np.ndarray:
    """The baked body at rest, grey, lit from above, on a pale wall."""
    body = Body.load()
    turned = np.tile(np.eye(3), (1, len(body.parents), 1, 1))
    turned[0, 0] = cv2.Rodrigues(np.array([0.0, heading, 0.0]))[0]
    vertices = body.pose(turned)[0]
    scale = 0.85 * H / 1.7
    surface = rasterise(body, (vertices - vertices.mean(0)) * [scale, -scale, -scale] + [W / 2, H / 2, 0], H, W)
    inside = surface.part > 0
    depth = np.where(inside, surface.depth, 0)
    slope_y, slope_x = np.gradient(cv2.GaussianBlur(depth, (3, 3), 0))
    light = (0.77 - 0.4 * slope_x - 0.5 * slope_y) / np.sqrt(1 + slope_x**2 + slope_y**2)
    grey = np.where(inside, 70 + 120 * np.clip(light, 0, 1), 225)
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def cartoon() -> np.ndarray:
    """A drawn man who waves."""
    picture = np.full((H, W, 3), (160, 220, 255), np.uint8)
    skin, white, black = (255, 220, 180), (255, 255, 255), (0, 0, 0)
    cv2.circle(picture, (320, 80), 40, skin, -1)
    for x in (305, 335):
        cv2.circle(picture, (x, 72), 8, white, -1)
        cv2.circle(picture, (x, 72), 3, black, -1)
    cv2.ellipse(picture, (320, 95), (15, 8), 0, 0, 180, (200, 40, 40), -1)
    cv2.rectangle(picture, (285, 120), (355, 220), (220, 40, 40), -1)
    for shoulder, hand in (((285, 130), (230, 200)), ((355, 130), (410, 90))):
        cv2.line(picture, shoulder, hand, skin, 16)
    for hip, foot in (((300, 220), (290, 320)), ((340, 220), (355, 320))):
        cv2.line(picture, hip, foot, (40, 40, 160), 22)
    return picture


def labelled(densepose: Annotation | None) -> float:
    """Share of the pixels that DensePose labels."""
    if densepose is None:
        return 0.0
    value: DensePose = densepose.value
    return float((value.values[..., 0] > 0).mean())


def believed(densepose: Annotation | None) -> float:
    """The highest confidence with which DensePose labels anybody in any frame."""
    if densepose is None or not labelled(densepose):
        return 0.0
    return float(np.nanmax(densepose.value.confidence))


@pytest.mark.parametrize("heading", [-0.5, 0.0, 0.8, 3.0])
def test_a_mannequin_is_nobody_to_rely_on(look: Callable[[np.ndarray], Seen], heading: float) -> None:
    skeleton, segmentation, densepose = look(handheld(mannequin(heading)))
    assert skeleton.confidence < LOW
    assert skeleton.scores["people"] == 0
    assert all(instance.score < LOW for instance in segmentation.value.instances)
    assert believed(densepose) < LOW


def test_a_cartoon_is_nobody_to_rely_on(look: Callable[[np.ndarray], Seen], asset: Callable[[str], Path]) -> None:
    for frames in (handheld(cartoon()), clip(asset("demo-bigbuckbunny"), FRAMES, 8.0)):
        skeleton, segmentation, densepose = look(frames)
        assert skeleton.confidence < LOW
        assert all(i.score < LOW for i in segmentation.value.instances if i.class_name == "person")
        assert believed(densepose) < LOW


def test_a_face_that_fills_the_frame_has_no_body(
    look: Callable[[np.ndarray], Seen], asset: Callable[[str], Path]
) -> None:
    man = clip(asset("demo-carphone"), FRAMES, 8.0)
    face = np.stack([cv2.resize(f[60:330, 130:430], (W, H), interpolation=cv2.INTER_CUBIC) for f in man])
    skeleton, segmentation, densepose = look(face)
    assert skeleton.confidence < LOW
    assert segmentation.confidence < LOW
    assert labelled(densepose) == 0


@pytest.mark.parametrize("level", [0, 255, "noise"])
def test_nothing_at_all_is_an_empty_result_of_no_confidence(
    look: Callable[[np.ndarray], Seen], level: int | str
) -> None:
    rng = np.random.default_rng(0)
    size = (FRAMES, H, W, 3)
    frames = rng.integers(0, 256, size, np.uint8) if level == "noise" else np.full(size, level, np.uint8)
    skeleton, segmentation, densepose = look(frames)
    assert skeleton.value.keypoints.shape[1] == 0
    assert not segmentation.value.ids.any()
    assert (skeleton.confidence, segmentation.confidence, densepose.confidence) == (0, 0, 0)
    assert labelled(densepose) == 0


def test_the_shapes_of_a_test_card_are_no_things(look: Callable[[np.ndarray], Seen], shared_data: Path) -> None:
    """The detector takes a part of the coloured disc for a surfboard (.53)."""
    _, segmentation, _ = look(clip(shared_data / "videos_edge" / "torchcodec_av1_video.mkv", FRAMES, FPS))
    assert segmentation.value.instances
    assert all(instance.score < 0.4 for instance in segmentation.value.instances)


@pytest.fixture
def man(shared_data: Path) -> np.ndarray:
    """A man who plays with a ball, cut out of a real clip."""
    return clip(shared_data / "videos" / "sam2_05_default_juggle.mp4", FRAMES, FPS)[:, 20:345, 285:425]


def pasted(man: np.ndarray, places: list[tuple[int, int]], width: int, height: int, rows: int = H) -> np.ndarray:
    frames = np.full((len(man), rows, W, 3), 128, np.uint8)
    for x, y in places:
        for frame, shown in zip(frames, man, strict=True):
            frame[y : y + height, x : x + width] = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)
    return frames


def test_a_person_of_ten_pixels_is_nobody(look: Callable[[np.ndarray], Seen], man: np.ndarray) -> None:
    skeleton, segmentation, densepose = look(pasted(man, [(100, 100)], 5, 10))
    assert skeleton.confidence == 0
    assert all(i.class_name != "person" and i.score < LOW for i in segmentation.value.instances)
    assert labelled(densepose) == 0


def test_twenty_people_are_looked_at_eight_at_a_time_and_nobody_is_drawn_twice(
    look: Callable[[np.ndarray], Seen],
    man: np.ndarray,
) -> None:
    width, height, rows = 90, 178, 540  # the detector finds no smaller ones in a crowd
    places = [(90 * (i % 7) + 5, 180 * (i // 7)) for i in range(20)]
    skeleton, segmentation, densepose = look(pasted(man, places, width, height, rows))
    seen = (skeleton.value.keypoints[..., 2] > 0).any(-1)
    assert seen.sum(1).max() == 8
    ids = segmentation.value.ids
    chiefly = [np.bincount(ids[:, y : y + height, x : x + width].ravel())[1:].argmax() + 1 for x, y in places]
    assert sorted(chiefly) == list(range(1, 21))
    on_people = np.zeros((rows, W), np.uint8)
    for x, y in places:
        on_people[y : y + height, x : x + width] = 1
    around = cv2.dilate(on_people, np.ones((3, 3), np.uint8)) == 0  # outlines are good to a pixel at best
    assert not ids[:, around].any()
    assert densepose is not None
    assert densepose.value.values[:, on_people > 0].any()
    assert not densepose.value.values[:, around].any()


def test_people_are_believed_as_far_as_they_are_supported(finder: PeopleFinder, man: np.ndarray) -> None:
    found = finder.annotate(DecodedClip("man", pasted(man, [(250, 20)], 140, 325), FPS, {})).value
    np.testing.assert_allclose(found.belief, np.minimum(found.support / FIRM, 1))
    assert found.belief.max() > 0.7  # he moves, and is believed
    still = finder.annotate(DecodedClip("picture", pasted(man[[0] * FRAMES], [(250, 20)], 140, 325), FPS, {})).value
    assert (still.belief < LOW).all()


def test_somebody_in_a_still_picture_is_drawn_with_low_confidence(
    look: Callable[[np.ndarray], Seen], man: np.ndarray
) -> None:
    _, _, densepose = look(pasted(man[[0] * FRAMES], [(250, 20)], 140, 325))
    assert labelled(densepose) > 0.02
    assert believed(densepose) < LOW


def test_somebody_on_a_real_monitor_is_nobody_to_rely_on(
    look: Callable[[np.ndarray], Seen], shared_data: Path, man: np.ndarray
) -> None:
    desk = cv2.imread(str(shared_data / "depth" / "tum" / "1.png"))[40:220, 150:470, ::-1]
    desk = cv2.resize(np.ascontiguousarray(desk), (W, H), interpolation=cv2.INTER_CUBIC)
    whole = clip(shared_data / "videos" / "sam2_05_default_juggle.mp4", FRAMES, FPS)[:, :300, 180:520]
    there = np.array([(188, 123), (462, 127), (450, 356), (187, 346)], np.float32)
    height, width = whole.shape[1:3]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    onto = cv2.getPerspectiveTransform(corners, there)
    lit = cv2.fillConvexPoly(np.zeros((H, W), np.uint8), there.astype(np.int32), 1)[..., None] > 0
    frames = np.stack([np.where(lit, cv2.warpPerspective(frame, onto, (W, H)), desk) for frame in whole])
    skeleton, segmentation, densepose = look(frames)
    assert skeleton.confidence < LOW
    assert skeleton.scores["people"] == 0
    assert skeleton.scores["people_in_sight"] > 0, "he is seen, and doubted"
    assert all(i.score < LOW for i in segmentation.value.instances if i.class_name == "person")
    assert believed(densepose) < LOW


def test_a_cartoon_made_of_a_real_clip_is_nobody_to_rely_on(
    look: Callable[[np.ndarray], Seen], shared_data: Path
) -> None:
    real = clip(shared_data / "videos" / "sam2_05_default_juggle.mp4", FRAMES, FPS)
    skeleton, segmentation, densepose = look(np.stack([flat_colours(frame) for frame in real]))
    assert skeleton.confidence < LOW
    assert skeleton.scores["people"] == 0
    assert all(i.score < LOW for i in segmentation.value.instances if i.class_name == "person")
    assert believed(densepose) < LOW
