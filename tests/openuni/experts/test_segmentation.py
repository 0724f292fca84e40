"""Instances: people keep their ids, things keep theirs through gaps, crossings and absences."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openuni.experts import mediapipe_segmentation
from openuni.experts.base import DecodedClip
from openuni.experts.dis import Dis
from openuni.experts.mediapipe_segmentation import MediapipeSegmentation, _agreement, _moved_on
from openuni.experts.people import PeopleFinder, TrackedPeople
from openuni.modalities.flow import Flow
from openuni.modalities.segmentation import SegmentationModality
from openuni.sample import Annotation
from tests.openuni.experts.clips import clip

T, H, W, SIDE = 24, 120, 200, 30


def scene(
    places: dict[str, list[tuple[int, int] | None]], seen: set[int], names: dict[str, str] | None = None
) -> tuple[DecodedClip, dict[str, np.ndarray]]:
    """Flat coloured squares on noise, detected in the frames `seen`, with their true flow and masks."""
    colours = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}
    noise = np.random.default_rng(0).integers(90, 130, (H, W, 3), np.uint8)
    frames, flow = np.stack([noise] * T), np.zeros((T - 1, H, W, 2), np.float32)
    truth = {name: np.zeros((T, H, W), bool) for name in places}
    rows: list[tuple[int, list[int], str]] = []
    for name, path in places.items():
        for t, place in enumerate(path):
            if place is None:
                continue
            x, y = place
            frames[t, y : y + SIDE, x : x + SIDE] = colours[name]
            truth[name][t, y : y + SIDE, x : x + SIDE] = True
            if t in seen:
                rows.append((t, [x, y, x + SIDE, y + SIDE], (names or {}).get(name, "kite")))
            following = path[t + 1] if t + 1 < T else None
            if following is not None:
                flow[t, y : y + SIDE, x : x + SIDE] = following[0] - x, following[1] - y
    people = TrackedPeople(
        *(np.zeros((T, 0, *more), np.float32) for more in ((4,), (), (33, 3), (33, 3))),
        np.zeros(0, np.float32),
        np.zeros((T, H, W), np.uint8),
        np.array([t for t, _, _ in rows], np.int32),
        np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4),
        np.full(len(rows), 0.7, np.float32),
        tuple(name for _, _, name in rows),
    )
    found = {"people": Annotation(people, "people"), "flow": Annotation(Flow(flow), "dis")}
    return DecodedClip("squares", frames, 24.0, found), truth


def id_of(ids: np.ndarray, mask: np.ndarray) -> int:
    """The commonest id on a mask."""
    return int(np.bincount(ids[mask]).argmax())


def test_things_that_cross_keep_their_ids_and_outlines(segmenter: MediapipeSegmentation) -> None:
    red = [(10 + 6 * t, 20) for t in range(T)]
    blue = [(150 - 6 * t, 60) for t in range(T)]
    decoded, truth = scene({"red": red, "blue": blue}, set(range(0, T, 3)))
    value = segmenter.annotate(decoded).value
    SegmentationModality().check(value)
    ids = {name: {id_of(value.ids[t], truth[name][t]) for t in range(T)} for name in truth}
    assert len(ids["red"]) == len(ids["blue"]) == 1
    assert ids["red"] != ids["blue"]
    for name, mask in truth.items():
        mine = value.ids == ids[name].copy().pop()
        assert (mine & mask).sum() / (mine | mask).sum() > 0.8
    assert {i.class_name for i in value.instances} == {"kite"}


def test_a_thing_the_detector_misses_for_a_moment_goes_with_the_flow(segmenter: MediapipeSegmentation) -> None:
    path = [(10 + 4 * t, 40) for t in range(T)]
    decoded, truth = scene({"red": path}, {0, 3, 12, 15, 18, 21})
    value = segmenter.annotate(decoded).value
    assert len({id_of(value.ids[t], truth["red"][t]) for t in range(T)} - {0}) == 1
    assert (value.ids[8][truth["red"][8]] > 0).mean() > 0.8


def test_what_is_carried_on_stays_whole_where_the_flow_is_not_sure() -> None:
    """A disc that turns and grows while patches of its motion are not confirmed: it was riddled with holes."""
    y, x = np.mgrid[:H, :W] - np.array([H / 2, W / 2]).reshape(2, 1, 1)
    radius = np.hypot(x, y)
    angle, growth = 0.1, 1.05
    turned = growth * np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=-1)
    forward = (turned - np.stack([x, y], axis=-1)).astype(np.float32)
    rng = np.random.default_rng(0)
    patches = np.kron(rng.random((8, H // 6, W // 5)) < 0.3, np.ones((1, 6, 5))) > 0
    mask = radius < 25
    for t in range(8):
        mask = _moved_on(mask, Flow(np.stack([forward] * 8), patches), t)
    truth = radius < 25 * growth**8
    assert mask[truth & (radius < 30)].all()
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9  # .73 before


def test_a_new_outline_in_pieces_does_not_replace_one_that_still_fits(
    segmenter: MediapipeSegmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, truth = scene({"red": [(20 + 2 * t, 40) for t in range(T)]}, set(range(0, T, 2)))
    drawn = MediapipeSegmentation._outliner

    def failing(self: MediapipeSegmentation, frame: np.ndarray, people: TrackedPeople, t: int):  # type: ignore[no-untyped-def]
        outline = drawn(self, frame, people, t)

        def pieces(box: np.ndarray, name: str) -> tuple[np.ndarray, float]:
            mask, worth = outline(box, name)
            if t > 0:
                mask[:, : int(box[0]) + SIDE - 5] = False
            return mask, worth

        return pieces

    monkeypatch.setattr(MediapipeSegmentation, "_outliner", failing)
    ids = segmenter.annotate(found).value.ids
    for t in range(T):
        assert (ids[t] > 0)[truth["red"][t]].mean() > 0.8


def test_an_outline_without_the_head_does_not_replace_a_whole_one(
    segmenter: MediapipeSegmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is most of the thing, and yet the detector sees more: what was carried on fits its box better."""
    found, truth = scene({"red": [(20 + 2 * t, 40) for t in range(T)]}, set(range(0, T, 2)))

    def outlined(self: MediapipeSegmentation, frame: np.ndarray, people: TrackedPeople, t: int):  # type: ignore[no-untyped-def]
        def outline(box: np.ndarray, name: str) -> tuple[np.ndarray, float]:
            mask = truth["red"][t].copy()
            if t > 0:
                mask[: int(box[1]) + 10] = False
            return mask, 1.0

        return outline

    monkeypatch.setattr(MediapipeSegmentation, "_outliner", outlined)
    ids = segmenter.annotate(found).value.ids
    for t in range(T):
        assert (ids[t] > 0)[truth["red"][t]].mean() > 0.9


def test_one_thing_of_two_classes_is_one(segmenter: MediapipeSegmentation) -> None:
    """The detector sees a dog and, less surely, a sheep in the same box, in some frames the other way round."""
    found, truth = scene({"red": [(20 + 3 * t, 40) for t in range(T)]}, set(range(0, T, 2)), {"red": "kite"})
    people = found.annotations["people"].value
    both = replace(
        people,
        thing_frames=np.repeat(people.thing_frames, 2),
        thing_boxes=np.repeat(people.thing_boxes, 2, axis=0) + np.tile([[0.0] * 4, [2, 2, -1, -1]], (T // 2, 1)),
        thing_scores=np.tile(np.array([0.6, 0.5, 0.6, 0.5, 0.4, 0.5], np.float32), T // 6),
        thing_classes=("kite", "umbrella") * (T // 2),
    )
    value = segmenter.annotate(replace(found, annotations=found.annotations | {"people": Annotation(both)})).value
    assert [i.class_name for i in value.instances] == ["kite"]
    assert all((value.ids[t] == value.instances[0].id)[truth["red"][t]].mean() > 0.8 for t in range(T))


def test_a_thing_that_leaves_and_comes_back_is_the_same_one(segmenter: MediapipeSegmentation) -> None:
    T_away = range(4, 19)
    red = [None if t in T_away else (20, 40) if t < 4 else (140, 60) for t in range(T)]
    decoded, truth = scene({"red": red}, set(range(T)))
    value = segmenter.annotate(decoded).value
    assert len(value.instances) == 1
    assert not value.ids[6:19].any()
    assert id_of(value.ids[22], truth["red"][22]) == id_of(value.ids[1], truth["red"][1])


def test_another_thing_in_its_place_is_another_one(segmenter: MediapipeSegmentation) -> None:
    red = [(20, 40) if t < 4 else None for t in range(T)]
    blue = [(140, 60) if t > 18 else None for t in range(T)]
    decoded, _ = scene({"red": red, "blue": blue}, set(range(T)), {"blue": "dog", "red": "kite"})
    assert {i.class_name for i in segmenter.annotate(decoded).value.instances} == {"kite", "dog"}


def test_a_kind_that_deeplab_knows_and_does_not_see_is_worth_half() -> None:
    rock, cow, person = np.zeros(100, np.uint8), np.repeat([0, 10], 50).astype(np.uint8), np.full(100, 15, np.uint8)
    assert _agreement("elephant", rock) == _agreement("dog", person) == 0.5
    assert _agreement("bear", cow) == _agreement("kite", rock) == 1


def looked_at(frames: np.ndarray, box: list[int], name: str) -> DecodedClip:
    """A clip in which the detector sees one thing in every frame: a person without a pose, or something else."""
    count = len(frames)
    person = name == "person"
    boxes = np.tile(np.array(box, np.float32), (count, 1))
    people = TrackedPeople(
        boxes[:, None] if person else np.zeros((count, 0, 4), np.float32),
        np.full((count, int(person)), 0.7, np.float32),
        *(np.full((count, int(person), 33, 3), np.nan, np.float32) for _ in range(2)),
        np.full(int(person), 0.7, np.float32),
        np.zeros(frames.shape[:3], np.uint8),
        np.arange(0 if person else count, dtype=np.int32),
        boxes[: 0 if person else count],
        np.full(0 if person else count, 0.7, np.float32),
        () if person else (name,) * count,
    )
    return DecodedClip("looked", frames, 12.0, {"people": Annotation(people)})


@pytest.mark.parametrize("name", ["person", "surfboard", "laptop", "kite"])
def test_what_the_picture_does_not_set_off_has_no_mask(segmenter: MediapipeSegmentation, name: str) -> None:
    """No ellipse, disc or blob stands in for a mask: neither on noise nor on a test card's bars."""
    noise = np.random.default_rng(0).integers(90, 130, (4, H, W, 3), np.uint8)
    bars = np.tile(np.arange(W) * 8 // W * 30 + 20, (4, H, 1)).astype(np.uint8)[..., None].repeat(3, 3)
    for frames in (noise, bars):
        value = segmenter.annotate(looked_at(frames, [40, 20, 120, 100], name)).value
        assert not value.ids.any()
        assert value.instances == ()


@pytest.mark.parametrize("name", ["laptop", "tv", "microwave", "book"])
def test_a_screen_that_fills_the_frame_is_no_thing(segmenter: MediapipeSegmentation, name: str) -> None:
    frames = np.full((4, H, W, 3), 40, np.uint8)
    frames[:, 8:112, 10:190] = (60, 110, 190)
    value = segmenter.annotate(looked_at(frames, [4, 4, 196, 116], name)).value
    assert (value.ids > 0).mean() < 0.5


def test_somebody_without_a_pose_is_outlined_as_they_look(
    segmenter: MediapipeSegmentation, finder: PeopleFinder, shared_data: Path
) -> None:
    """The mask of a woman from her box alone agrees with that of the pose model, which knows her skeleton."""
    plain = DecodedClip("dog", clip(shared_data / "videos" / "sam2_01_dog.mp4", 4, 4.0), 4.0, {})
    people = finder.annotate(plain).value
    blind = replace(people, landmarks=np.full_like(people.landmarks, np.nan), masks=np.zeros_like(people.masks))
    found = {"people": Annotation(blind)}
    ids = segmenter.annotate(DecodedClip("dog", plain.frames, 4.0, found)).value.ids
    shared, either = ((ids == 1) & (people.masks == 1)).sum(), ((ids == 1) | (people.masks == 1)).sum()
    assert shared / either > 0.6  # DeepLab's outline is coarse; an ellipse in the box has .4


def test_somebody_in_a_frame_that_is_shown_again_is_drawn_once(
    segmenter: MediapipeSegmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flow is unknown where a slow source shows a frame again: there is nothing new to see."""
    noise = np.random.default_rng(0).integers(90, 130, (12, H, W, 3), np.uint8)
    decoded = looked_at(noise, [40, 20, 120, 100], "person")
    looks: list[int] = []
    drawn = mediapipe_segmentation._person

    def counted(look: object, box: np.ndarray) -> np.ndarray:
        looks.append(1)
        drawn(look, box)  # type: ignore[arg-type]
        mask = np.zeros((H, W), bool)
        mask[20:100, 40:120] = True
        return mask

    monkeypatch.setattr(mediapipe_segmentation, "_person", counted)
    flow = np.zeros((11, H, W, 2), np.float32)
    for forward, expected in ((flow, 4), (np.where(np.arange(11)[:, None, None, None] == 5, flow, np.nan), 1)):
        looks.clear()
        found = decoded.annotations | {"flow": Annotation(Flow(forward.astype(np.float32)))}
        ids = segmenter.annotate(replace(decoded, annotations=found)).value.ids
        assert len(looks) == expected
        assert (ids[:, 20:100, 40:120] == 1).all()


def test_the_small_walkers_of_a_crowd_are_outlined_and_lamps_are_not(
    segmenter: MediapipeSegmentation, shared_data: Path
) -> None:
    """DeepLab is shown squares: a person of 20 × 45 pixels who is squeezed into one is nobody to it."""
    frame = clip(shared_data / "videos" / "mmtracking_demo.mp4", 17, 12.0)[16]
    walkers = [[122, 139, 149, 211], [351, 47, 374, 96], [359, 92, 386, 131], [300, 45, 319, 84]]
    lamp = [504, 91, 534, 139]
    boxes = np.array([*walkers, lamp], np.float32)[None]
    people = TrackedPeople(
        boxes,
        np.full((1, 5), 0.5, np.float32),
        np.full((1, 5, 33, 3), np.nan, np.float32),
        np.full((1, 5, 33, 3), np.nan, np.float32),
        np.full(5, 0.5, np.float32),
        np.zeros((1, *frame.shape[:2]), np.uint8),
        np.zeros(0, np.int32),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        (),
    )
    crowd = DecodedClip("crowd", frame[None], 12.0, {"people": Annotation(people)})
    assert {i.id for i in segmenter.annotate(crowd).value.instances} == {1, 2, 3, 4}


def test_nothing_is_an_empty_result_of_no_confidence(segmenter: MediapipeSegmentation) -> None:
    decoded, _ = scene({}, set())
    annotation = segmenter.annotate(decoded)
    SegmentationModality().check(annotation.value)
    assert annotation.value.instances == ()
    assert not annotation.value.ids.any()
    assert annotation.confidence == 0


def test_on_a_real_clip_woman_and_dog_are_two(
    segmenter: MediapipeSegmentation, finder: PeopleFinder, shared_data: Path
) -> None:
    plain = DecodedClip("dog", clip(shared_data / "videos" / "sam2_01_dog.mp4", 20, 15.0), 15.0, {})
    found = {"people": finder.annotate(plain), "flow": Dis().annotate(plain)}
    value = segmenter.annotate(DecodedClip("dog", plain.frames, 15.0, found)).value
    SegmentationModality().check(value)
    names = {i.id: i.class_name for i in value.instances}
    assert names[1] == "person"
    assert (value.ids == 1).any((1, 2)).all()
    dogs = [i for i, name in names.items() if name == "dog"]
    assert max((value.ids == i).any((1, 2)).mean() for i in dogs) > 0.8
