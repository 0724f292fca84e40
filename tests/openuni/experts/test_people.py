"""People: who is who through crossings and gaps, and the expert on real clips and on nothing."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from openuni.errors import CorruptDataError
from openuni.experts import tracking
from openuni.experts.base import DecodedClip
from openuni.experts.people import (
    MOST_PEOPLE,
    PeopleFinder,
    TrackedPeople,
    _may_be_hidden,
    _shown,
    _Tries,
    continued,
    exclusive,
    settled,
)
from openuni.experts.tracking import Sighting, Track
from openuni.modalities import Encoded
from openuni.video import read_frames
from tests.openuni.experts.clips import clip

RED, BLUE = (np.eye(2)[i].astype(float) for i in range(2))


def sighting(x: float, look: np.ndarray, y: float = 100.0, size: float = 40.0) -> Sighting:
    return Sighting(np.array([x, y, x + size, y + 2 * size]), 0.9, look, 0.6)


def figure(x: float) -> Sighting:
    """A standing person about x, with landmarks on a vertical line and a mask 30 pixels wide."""
    landmarks = np.zeros((33, 3))
    landmarks[:, 0], landmarks[:, 1], landmarks[:, 2] = x, np.linspace(20, 180, 33), 1
    mask = np.full((180, 30), 230, np.uint8)
    return Sighting(
        np.array([x - 15.0, 10, x + 15, 190]), 0.9, RED, 0.6, landmarks, np.zeros((33, 3)), mask, (int(x) - 15, 10)
    )


def test_boxes_that_cross_are_told_apart_by_their_clothes() -> None:
    tracks = [Track({0: sighting(100, RED)}), Track({0: sighting(110, BLUE)})]
    joined = tracking.assign(tracks, [sighting(104, BLUE), sighting(106, RED)], 1)
    assert joined == {0: 1, 1: 0}


def test_one_sighting_continues_one_track() -> None:
    tracks = [Track({0: sighting(100, RED)}), Track({0: sighting(104, RED)})]
    assert len(tracking.assign(tracks, [sighting(102, RED)], 1)) == 1


def test_nobody_jumps_across_the_picture_or_changes_size_at_once() -> None:
    tracks = [Track({0: sighting(100, RED)})]
    assert tracking.assign(tracks, [sighting(400, RED)], 1) == {}
    assert tracking.assign(tracks, [sighting(100, RED, size=200.0)], 1) == {}


def test_a_moving_person_is_expected_ahead_and_met_after_an_occlusion() -> None:
    track = Track({t: sighting(100 + 5 * t, RED) for t in range(5)})
    np.testing.assert_allclose(track.box_at(6)[0], 130)
    np.testing.assert_allclose(track.box_at(-1)[0], 95)  # also backwards
    assert tracking.assign([track], [sighting(165, RED)], 12) == {0: 0}


def test_two_crops_of_one_person_are_one_sighting() -> None:
    assert len(tracking.distinct([figure(50), figure(52), figure(120)])) == 2


def test_a_weak_sighting_counts_only_where_it_continues_a_sure_one() -> None:
    def ball(t: int, x: float, score: float, name: str = "sports ball") -> tuple[int, Sighting, str]:
        return t, Sighting(np.array([x, 50, x + 20, 70]), score, RED, score), name

    chain = [ball(0, 10, 0.7), ball(2, 30, 0.25), ball(4, 55, 0.22)]
    strays = [ball(2, 400, 0.35), ball(9, 60, 0.35), ball(2, 32, 0.3, "cat")]
    kept = continued([*chain, *strays], 2)
    assert [id(thing) for thing in kept] == [id(thing) for thing in chain]
    assert continued([], 2) == []


def test_a_weak_sighting_of_a_part_is_no_second_thing() -> None:
    """A dog's head with the hand of whoever feeds it was a dog of its own, for as long as it was carried along."""

    def dog(t: int, box: list[float], score: float) -> tuple[int, Sighting, str]:
        return t, Sighting(np.array(box), score, RED, score), "dog"

    whole = [dog(t, [231, 189, 369, 276], 0.7) for t in (0, 4)] + [dog(2, [231, 189, 369, 276], 0.68)]
    head = dog(2, [195, 187, 290, 242], 0.28)
    beside = dog(2, [350, 189, 470, 276], 0.28)
    found = continued([*whole, head, beside], 2)
    assert not any(thing is head for thing in found)
    assert any(thing is beside for thing in found)
    assert len(found) == 4


def test_masks_are_exclusive_and_each_keeps_its_own_bones() -> None:
    a, b = figure(60), figure(80)
    label = exclusive({0: a, 3: b}, 200, 200)
    assert set(np.unique(label)) == {0, 1, 4}
    assert (label[50:150, 60] == 1).all()
    assert (label[50:150, 80] == 4).all()
    # between the two, each pixel goes to the nearer body
    assert (label[50:150, 66] == 1).all()
    assert (label[50:150, 74] == 4).all()


def test_colours_are_a_distribution_even_of_nothing() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    for where in (np.ones((20, 20), bool), np.zeros((20, 20), bool)):
        assert np.isclose(tracking.colours(frame, where).sum(), 1)


def people(frames: int = 3, count: int = 2, things: int = 2) -> TrackedPeople:
    rng = np.random.default_rng(0)
    landmarks = rng.random((frames, count, 33, 3)).astype(np.float32)
    landmarks[:1, :1] = np.nan
    return TrackedPeople(
        boxes=rng.random((frames, count, 4)).astype(np.float32),
        scores=rng.random((frames, count)).astype(np.float32),
        landmarks=landmarks,
        world=rng.random((frames, count, 33, 3)).astype(np.float32),
        support=rng.random(count).astype(np.float32),
        masks=rng.integers(0, count + 1, (frames, 8, 10)).astype(np.uint8),
        thing_frames=np.arange(things, dtype=np.int32),
        thing_boxes=rng.random((things, 4)).astype(np.float32),
        thing_scores=rng.random(things).astype(np.float32),
        thing_classes=("dog", "sports ball")[:things],
    )


@pytest.mark.parametrize(("count", "things"), [(2, 2), (0, 0), (1, 0), (0, 1)])
def test_findings_come_back_as_they_were(count: int, things: int) -> None:
    value = people(count=count, things=things)
    back = PeopleFinder.decode_findings(PeopleFinder.encode_findings(value))
    for name in TrackedPeople.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(value, name))


def test_findings_of_other_bytes_are_refused() -> None:
    encoded = PeopleFinder.encode_findings(people())
    cut = Encoded({"people.npz": encoded.members["people.npz"][:-40]}, encoded.meta)
    more = Encoded(encoded.members, {**encoded.meta, "people": MOST_PEOPLE})
    stranger = PeopleFinder.encode_findings(replace(people(), masks=np.full((3, 8, 10), 9, np.uint8)))
    for bad in (cut, more, stranger):
        with pytest.raises(CorruptDataError):
            PeopleFinder.decode_findings(bad)


def test_two_people_who_embrace_stay_two(finder: PeopleFinder, shared_data: Path) -> None:
    frames = clip(shared_data / "videos" / "mmaction2_demo_skeleton.mp4", 72, 28.0)
    found = finder.annotate(DecodedClip("two", frames, 28.0, {})).value
    assert found.count == 2
    seen = ~np.isnan(found.landmarks[..., 0, 0])
    assert seen.mean() > 0.85
    hips = found.landmarks[:, :, [23, 24], 0].mean(-1)
    both = seen.all(1)
    # the one in grey is on the left throughout; the other never is
    left = hips[both, 0] < hips[both, 1]
    assert max(left.mean(), 1 - left.mean()) > 0.95


def test_heads_that_are_exchanged_for_a_frame_go_back() -> None:
    masks = np.zeros((9, 20, 20), np.uint8)
    masks[:, 4:, :10], masks[:, 4:, 10:] = 1, 2
    right = masks.copy()
    for t in (3, 5):
        masks[t, 4:8] = masks[t, 4:8, ::-1]
    np.testing.assert_array_equal(settled(masks, 2), right)
    np.testing.assert_array_equal(settled(masks, 0), masks)


def test_two_who_walk_past_each_other_keep_their_edge() -> None:
    masks = np.zeros((9, 20, 60), np.uint8)
    for t in range(9):
        masks[t, :, 5 + 5 * t :] = 2
        masks[t, 6:, 5 * t : 5 + 5 * t] = 1
        masks[t, :6, :] = 0
    np.testing.assert_array_equal(settled(masks, 2), masks)


def test_a_person_alone_keeps_one_id_and_a_mask(finder: PeopleFinder, shared_data: Path) -> None:
    frames = clip(shared_data / "videos" / "sam2_01_dog.mp4", 40, 15.0)
    found = finder.annotate(DecodedClip("dog", frames, 15.0, {})).value
    assert found.count == 1
    assert (~np.isnan(found.scores)).all()
    assert "dog" in found.thing_classes
    assert (found.masks > 0).any((1, 2)).all()


@pytest.mark.parametrize("name", ["cotracker_bear", "psd_testvideo", "psd_counter"])
def test_nobody_is_found_where_nobody_is(finder: PeopleFinder, shared_data: Path, name: str) -> None:
    frames = clip(shared_data / "videos" / f"{name}.mp4", 8, 10.0)
    annotation = finder.annotate(DecodedClip(name, frames, 10.0, {}))
    assert annotation.value.count == 0
    assert annotation.confidence is None
    assert not annotation.value.masks.any()


def test_a_leaf_at_rest_is_nobody(finder: PeopleFinder, shared_data: Path) -> None:
    """The detector takes it for somebody at .4, and the landmark model finds a pose in it; it never moves."""
    frames = islice(read_frames(shared_data / "videos" / "psd_testvideo.mp4", fps=10.0), 24, 34)
    leaf = np.stack([cv2.resize(frame, (640, 360), interpolation=cv2.INTER_AREA) for frame in frames])
    assert finder.annotate(DecodedClip("leaf", leaf, 10.0, {})).value.count == 0


def test_a_cartoon_rabbit_is_nobody_to_rely_on(finder: PeopleFinder, asset: Callable[[str], Path]) -> None:
    found = finder.annotate(DecodedClip("rabbit", clip(asset("demo-bigbuckbunny"), 16, 8.0), 8.0, {})).value
    assert (found.support < 0.45).all()


def test_a_man_cut_off_at_the_chest_is_one_man(finder: PeopleFinder, asset: Callable[[str], Path]) -> None:
    frames = clip(asset("demo-carphone"), 16, 8.0)
    found = finder.annotate(DecodedClip("car", frames, 8.0, {})).value
    assert (~np.isnan(found.scores[:, 0])).mean() > 0.9
    # hips and knees lie below the frame, and say so
    knees = found.landmarks[:, 0, [25, 26], 1]
    assert (np.nan_to_num(knees, nan=np.inf) > frames.shape[1]).mean() > 0.9


def test_the_small_people_of_a_street_are_seen_in_squares(finder: PeopleFinder, shared_data: Path) -> None:
    """A frame as a whole shows the detector four people of some thirty, and a lamp as another one."""
    frame = clip(shared_data / "videos" / "mmtracking_demo.mp4", 1, 12.0)[0]
    boxes = [seen.box for seen in finder._look_closer(frame, finder._detect(frame)[0])]
    assert len(boxes) >= 15
    assert max(tracking.overlap(np.array([504.0, 91, 534, 139]), box) for box in boxes) < 0.5  # the lamp


def textured(shift: float) -> np.ndarray:
    """A frame of soft noise, moved to the right."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 40, 3), np.uint8)
    wide = cv2.resize(noise, (640, 192), interpolation=cv2.INTER_CUBIC)
    return cv2.warpAffine(wide, np.array([[1, 0, shift], [0, 1, 0]], np.float64), (640, 192))[:, 200:440]


def test_frames_that_a_slow_source_shows_again_are_known() -> None:
    frames = np.stack([textured(20.0 * (t // 3)) for t in range(12)])
    assert _shown(DecodedClip("slow", frames, 12.0, {})) == [0, 3, 6, 9]
    assert _shown(DecodedClip("fast", frames[::3], 12.0, {})) == [0, 1, 2, 3]


def test_what_creeps_along_is_looked_at_again() -> None:
    """No step of it is more than the noise of a code; between two jumps it would pass for one frame."""
    steps = [0.0, *(60 + 0.2 * t for t in range(8)), 120.0]
    shown = _shown(DecodedClip("creeping", np.stack([textured(x) for x in steps]), 24.0, {}))
    assert shown[:2] == [0, 1]
    assert 3 <= len(shown) < len(steps)
    assert shown[-1] == len(steps) - 1


def test_a_crowd_shown_again_is_looked_at_once(
    finder: PeopleFinder, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = clip(shared_data / "videos" / "mmtracking_demo.mp4", 3, 3.0)
    looks: list[int] = []
    look = finder._look_closer
    monkeypatch.setattr(finder, "_look_closer", lambda frame, seen: looks.append(1) or look(frame, seen))
    found = finder.annotate(DecodedClip("crowd", np.repeat(slow, 4, axis=0), 12.0, {})).value
    assert len(looks) == 3
    assert found.count >= 15
    np.testing.assert_array_equal(np.isnan(found.scores[0::4]), np.isnan(found.scores[3::4]))
    assert len(found.thing_frames) % 4 == 0


def test_where_somebody_small_has_no_pose_the_model_is_not_asked_again_at_once() -> None:
    tries = _Tries(6)
    small, large = np.array([100.0, 100, 130, 170]), np.array([300.0, 20, 420, 340])
    for box in (small, large):
        tries.note(box, 10, found=False)
    assert not tries.worth(small + 3, 12)
    assert not tries.worth(small, 8)  # tracks are followed backwards, too
    assert tries.worth(small, 16)
    assert tries.worth(small + 25, 12)
    assert tries.worth(large, 12)
    tries.note(small, 16, found=True)
    tries.note(small, 17, found=False)  # it is lost in single frames
    assert tries.worth(small, 18)


def test_who_is_small_is_looked_for_behind_others_only_where_others_are() -> None:
    """Alone at their place, the crop would be the one in which nobody was found just before."""
    small, large = np.array([100.0, 100, 130, 170]), np.array([300.0, 20, 420, 340])
    assert not _may_be_hidden(small, [small + 60])
    assert _may_be_hidden(small, [small + 60, small + 20])
    assert _may_be_hidden(large, [])


def test_a_square_frame_and_a_large_person_are_seen_once(finder: PeopleFinder, shared_data: Path) -> None:
    """Who is cut off by the squares' edges is not seen again in pieces."""
    frame = clip(shared_data / "videos" / "sam2_05_default_juggle.mp4", 1, 12.0)[0]
    crops = (frame, frame[:, 140:500], np.ascontiguousarray(cv2.resize(frame[60:300, 107:533], (640, 360))))
    for crop in crops:
        seen = finder._detect(np.ascontiguousarray(crop))[0]
        assert len(finder._look_closer(np.ascontiguousarray(crop), seen)) == len(seen) == 1


def test_twenty_people_and_one_of_ten_pixels_are_no_error(finder: PeopleFinder, shared_data: Path) -> None:
    man = clip(shared_data / "videos" / "sam2_05_default_juggle.mp4", 3, 12.0)[:, 20:345, 285:425]
    crowd = np.full((3, 360, 640, 3), 128, np.uint8)
    for i in range(20):
        y, x = 10 + 175 * (i // 10), 5 + 63 * (i % 10)
        crowd[:, y : y + 160, x : x + 60] = [cv2.resize(f, (60, 160), interpolation=cv2.INTER_AREA) for f in man]
    found = finder.annotate(DecodedClip("crowd", crowd, 12.0, {})).value
    assert found.count <= 25
    assert (~np.isnan(found.landmarks[..., 0, 0])).sum(1).max(initial=0) <= 8  # a crowd's poses are bounded
    tiny = np.full((3, 360, 640, 3), 128, np.uint8)
    tiny[:, 100:110, 100:105] = [cv2.resize(f, (5, 10), interpolation=cv2.INTER_AREA) for f in man]
    assert not finder.annotate(DecodedClip("tiny", tiny, 12.0, {})).value.masks.any()


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 20, 300), (3, 90, 64)])
def test_tiny_clips_of_noise_are_no_error(finder: PeopleFinder, shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert finder.annotate(DecodedClip("noise", frames, 25.0, {})).value.boxes.shape[0] == shape[0]


def test_the_same_clip_gives_the_same_people(finder: PeopleFinder, shared_data: Path) -> None:
    decoded = DecodedClip("dog", clip(shared_data / "videos" / "sam2_01_dog.mp4", 6, 30.0), 30.0, {})
    a, b = (finder.annotate(decoded).value for _ in range(2))
    for name in TrackedPeople.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
