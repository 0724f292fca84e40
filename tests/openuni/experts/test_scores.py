"""Numbers of clips whose answers are known, because the clips are made so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni import perceptual
from openuni.experts import DecodedClip
from openuni.experts.dis import Dis
from openuni.experts.scores import Scores, motion
from openuni.experts.text_area import TextArea, _line
from openuni.modalities import Box
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import Instance, Segmentation
from openuni.modalities.skeleton import Skeleton
from openuni.sample import Annotation
from openuni.video import decode_video, decode_video_part, encode_video

T, H, W, FPS = 12, 96, 128, 8.0
DIAGONAL = math.hypot(H, W)


def texture(seed: int, height: int = H, width: int = W) -> np.ndarray:
    """A picture with detail at every scale, uint8 `[H, W, 3]`."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for size in (4, 8, 16, 32):
        picture += cv2.resize(rng.uniform(0, 1, (size, size, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture / 4 * 200 + 25, 0, 255).astype(np.uint8)


def panning(shift: int = 2, frames: int = T) -> np.ndarray:
    """The scene shifts to the right by `shift` px a frame."""
    wide = texture(1, H, W + shift * frames)
    return np.stack([wide[:, shift * (frames - t) : shift * (frames - t) + W] for t in range(frames)])


def coded(frames: np.ndarray) -> np.ndarray:
    """As a dataset stores and reads them."""
    return decode_video(encode_video(frames, FPS))[0]


def scores_of(frames: np.ndarray, **found: object) -> dict[str, float]:
    annotations = {name: Annotation(value) for name, value in found.items()}
    return dict(Scores().annotate(DecodedClip("clip", frames, FPS, annotations)).scores)


def field(a: float, b: float, zoom: float = 0.0, roll: float = 0.0) -> Flow:
    y, x = np.mgrid[:H, :W] + 0.5
    x, y = x - W / 2, y - H / 2
    one = np.stack([a + zoom * x - roll * y, b + roll * x + zoom * y], -1)
    return Flow(np.repeat(one[None], T - 1, axis=0).astype(np.float32))


def test_a_still_clip_is_static_and_one_that_moves_is_not() -> None:
    assert scores_of(coded(np.repeat(texture(0)[None], T, axis=0)))["static"] > 0.85  # a key frame may differ
    assert scores_of(coded(panning()))["static"] == 0
    half = panning()
    half[T // 2 :] = half[T // 2]
    assert scores_of(half)["static"] == pytest.approx((T // 2 - 1) / (T - 1))


def test_flicker_is_the_swing_of_brightness_and_a_fade_or_a_pan_has_none() -> None:
    still = np.repeat(texture(0)[None], T, axis=0).astype(np.int16)
    flickering = still + np.where(np.arange(T) % 2, 8, -8)[:, None, None, None]
    assert scores_of(coded(flickering.clip(0, 255).astype(np.uint8)))["flicker"] == pytest.approx(16, abs=1)
    fading = (still * np.linspace(1, 0.2, T)[:, None, None, None]).astype(np.uint8)
    assert scores_of(fading)["flicker"] < 0.3
    assert scores_of(coded(panning()))["flicker"] < 0.5


def test_blur_lowers_sharpness_and_exposure_counts_clipped_pixels() -> None:
    sharp = panning()
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in sharp])
    assert scores_of(blurred)["sharpness"] < 0.25 * scores_of(sharp)["sharpness"]
    for level, name in ((0, "underexposed"), (255, "overexposed")):
        frames = panning()
        frames[:, 20:68, 20:84] = level
        assert scores_of(frames)[name] == pytest.approx(0.25, abs=0.02)
    assert scores_of(np.full((T, H, W, 3), 51, np.uint8))["brightness"] == pytest.approx(0.2)


@pytest.mark.parametrize("colour", [0, 255, 90])
@pytest.mark.parametrize(("top", "bottom", "left", "right"), [(12, 12, 0, 0), (0, 0, 16, 16), (10, 6, 8, 8)])
def test_planted_bars_are_found_to_the_line(colour: int, top: int, bottom: int, left: int, right: int) -> None:
    frames = panning()
    frames[:, :top], frames[:, H - bottom :] = colour, colour
    frames[:, :, :left], frames[:, :, W - right :] = colour, colour
    scores = scores_of(coded(frames))
    tall, wide = 1 - (top + bottom) / H, 1 - (left + right) / W
    assert scores["letterbox"] == pytest.approx(1 - tall, abs=2.1 / H)
    assert scores["pillarbox"] == pytest.approx(1 - wide, abs=2.1 / W)
    assert scores["border"] == pytest.approx(1 - tall * wide, abs=0.05)


def test_no_bars_are_seen_in_a_plain_picture_a_night_sky_or_darkness() -> None:
    night = panning()
    for x in range(W):  # a skyline that is not straight
        night[:, : 20 + int(12 * math.sin(x / 9)), x] = 0
    for frames in (panning(), night, np.zeros((T, H, W, 3), np.uint8)):
        assert scores_of(frames)["border"] == 0


def test_motion_and_camera_of_known_flow() -> None:
    pan = motion(field(3.0, 0.0), FPS)
    assert pan["motion"] == pytest.approx(3 * FPS / DIAGONAL, rel=1e-3)
    assert pan["camera_x"] == pytest.approx(3 * FPS / DIAGONAL, rel=1e-3)
    assert abs(pan["camera_zoom"]) < 1e-6
    zoom = motion(field(0, 0, zoom=0.02), FPS)
    assert zoom["camera_zoom"] == pytest.approx(0.02 * FPS, rel=1e-3)
    assert abs(zoom["camera_x"]) < 1e-6
    roll = motion(field(0, 0, roll=0.03), FPS)
    assert roll["camera_roll"] == pytest.approx(0.03 * FPS, rel=1e-3)
    assert pan["camera_fit"] == zoom["camera_fit"] == roll["camera_fit"] == 1.0
    assert motion(field(0, 0), FPS)["motion"] == 0
    assert motion(Flow(np.full((T - 1, H, W, 2), np.nan, np.float32)), FPS) == {}


def test_what_moves_before_a_still_camera_is_not_its_motion() -> None:
    flow = field(0.0, 0.0)
    flow.forward[:, 20:70, 30:90] = (6.0, 1.0)  # a quarter of the frame
    scores = motion(flow, FPS)
    assert abs(scores["camera_x"]) < 0.01 * scores["motion"]
    assert scores["camera_fit"] == pytest.approx(0.75, abs=0.03)


def test_a_shaking_camera_shakes_around_its_path() -> None:
    flow = field(2.0, 0.0)
    flow.forward[::2, ..., 1] += 3.0
    flow.forward[1::2, ..., 1] -= 3.0
    scores = motion(flow, FPS)
    assert scores["camera_x"] == pytest.approx(2 * FPS / DIAGONAL, rel=0.01)
    assert scores["camera_shake"] > 2.9 * FPS / DIAGONAL


def test_a_pan_and_a_zoom_are_recognised_through_an_expert_of_flow() -> None:
    frames = panning(2)
    flow = Dis().annotate(DecodedClip("clip", frames, FPS, {})).value
    assert scores_of(frames, flow=flow)["camera_x"] == pytest.approx(2 * FPS / DIAGONAL, rel=0.1)
    big = texture(3, 3 * H, 3 * W)
    closer = []
    for t in range(T):
        s = 1.02**-t
        h, w = round(3 * H * s / 2) * 2, round(3 * W * s / 2) * 2
        y, x = (3 * H - h) // 2, (3 * W - w) // 2
        closer.append(cv2.resize(big[y : y + h, x : x + w], (W, H), interpolation=cv2.INTER_AREA))
    frames = np.stack(closer)
    flow = Dis().annotate(DecodedClip("clip", frames, FPS, {})).value
    assert scores_of(frames, flow=flow)["camera_zoom"] == pytest.approx(0.02 * FPS, rel=0.15)


def test_people_are_counted_over_time_and_the_largest_is_measured() -> None:
    ids = np.zeros((T, H, W), np.int32)
    ids[:, 10:58, 10:42] = 1  # 48·32 px of one person, throughout
    ids[: T // 2, 70:90, 80:100] = 2
    ids[:, :5, :5] = 3
    table = (Instance(1, "person"), Instance(2, "person"), Instance(3, "dog"))
    scores = scores_of(panning(), segmentation=Segmentation(ids, table))
    assert scores["people_most"] == 2
    assert scores["people_mean"] == 1.5
    assert scores["person_area"] == pytest.approx(48 * 32 / (H * W))
    keypoints = np.full((T, 1, 17, 3), np.nan, np.float32)
    keypoints[..., 2] = 0
    keypoints[: T // 4, 0, 0] = (20, 20, 0.9)
    boxes = np.full((T, 1, 4), np.nan, np.float32)
    boxes[: T // 4, 0] = (0, 0, W / 2, H / 2)
    skeleton = Skeleton(keypoints, boxes, np.array([1], np.int32), H, W)
    scores = scores_of(panning(), skeleton=skeleton)
    assert (scores["people_most"], scores["people_mean"], scores["person_area"]) == (1, 0.25, 0.25)
    assert "people_most" not in scores_of(panning())


def test_hashes_stay_near_when_a_frame_is_encoded_scaled_and_boxed_and_differ_between_clips() -> None:
    frame = texture(5, 2 * H, 2 * W)
    here = perceptual.frame_hash(frame, Box(0, 0, 2 * W, 2 * H))
    small = cv2.resize(frame, (W, H), interpolation=cv2.INTER_AREA)
    again = coded(np.repeat(small[None], 4, axis=0))[0]
    assert (here ^ perceptual.frame_hash(again, Box(0, 0, W, H))).bit_count() <= 4
    others = [perceptual.frame_hash(texture(seed, 2 * H, 2 * W), Box(0, 0, 2 * W, 2 * H)) for seed in range(10, 60)]
    assert min((here ^ other).bit_count() for other in others) > 12
    assert perceptual.frame_hash(np.full((H, W, 3), 7, np.uint8), Box(0, 0, W, H)) == perceptual.NONE
    boxed = np.zeros((T, H + 32, W, 3), np.uint8)
    boxed[:, 16:-16] = panning()
    plain = Scores().annotate(DecodedClip("a", panning(), FPS, {})).value.hashes
    framed = Scores().annotate(DecodedClip("b", boxed, FPS, {})).value.hashes
    assert framed == plain


def test_text_that_is_planted_is_found_and_its_area_is_right(asset: Callable[[str], Path]) -> None:
    asset("text-detector"), asset("text-reader")
    expert = TextArea()
    expert.setup()
    height, width = 240, 426
    plain = np.repeat(texture(7, height, width)[None], 4, axis=0)
    titled = plain.copy()
    for frame in titled:
        cv2.putText(frame, "SUBTITLES ARE HERE", (40, 215), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2)
    (wide, tall), _ = cv2.getTextSize("SUBTITLES ARE HERE", cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    found = expert.annotate(DecodedClip("t", titled, FPS, {})).scores
    assert found["text_area"] == pytest.approx(wide * tall / (height * width), rel=0.5)
    assert found["text_lines"] >= 1
    assert expert.annotate(DecodedClip("p", plain, FPS, {})).scores["text_area"] < 0.002
    mask, _ = expert.find(titled[0])
    y, x = np.nonzero(mask)
    assert y.min() > 170
    assert y.max() < 235
    assert x.min() == pytest.approx(40, abs=12)
    assert x.max() == pytest.approx(40 + wide, abs=12)
    expert.teardown()


def test_what_a_detector_takes_for_text_counts_only_if_it_can_be_read_or_is_a_long_line(
    asset: Callable[[str], Path], shared_data: Path
) -> None:
    """In the frame of a bear and that of a dog, the detector is 99 % sure of fur and grass."""
    asset("text-detector"), asset("text-reader")
    expert = TextArea()
    expert.setup()
    for video, number in (("cotracker_bear", 36), ("sam2_01_dog", 36)):
        frames, _ = decode_video_part(shared_data / "videos" / f"{video}.mp4", range(number, number + 1))
        frame = cv2.resize(frames[0], (480, 270), interpolation=cv2.INTER_AREA)
        mask, lines = expert.find(frame)
        assert (lines, mask.any()) == (0, False), video
        cv2.putText(frame, "42", (430, 30), cv2.FONT_HERSHEY_DUPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        mask, lines = expert.find(frame)
        assert lines == 1, video
        y, x = np.nonzero(mask)
        assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((430, 453, 16, 30), abs=8)
    expert.teardown()


def test_a_line_is_laid_flat_from_where_its_reading_begins() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[20:30, 10:50] = np.linspace(0, 250, 40, dtype=np.uint8)[None, :, None]
    level = np.array([[10, 20], [50, 20], [50, 30], [10, 30]], np.float32)
    for turned in range(4):
        line = _line(picture, np.roll(level, turned, axis=0))
        assert line.shape == (48, 192, 3)
        assert np.all(np.diff(line[24, 8:-8, 0].astype(int)) >= 0)
    # One that stands is turned to the left: what was on top is at the right.
    standing = np.ascontiguousarray(np.rot90(picture, -1))
    line = _line(standing, np.array([[30, 10], [40, 10], [40, 50], [30, 50]], np.float32))
    assert line.shape == (48, 192, 3)
    assert np.all(np.diff(line[24, 8:-8, 0].astype(int)) >= 0)
