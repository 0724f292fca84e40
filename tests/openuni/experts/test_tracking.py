"""Tracks over a whole clip, without a network: sightings of known people, joined as the expert joins them.

IDF1 (Ristani et al., ECCV workshops 2016) is py-motmetrics'.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from openuni.experts import tracking
from openuni.experts.tracking import Sighting, Track

motmetrics = pytest.importorskip("motmetrics")
FPS, SHAPE, PATIENCE = 12, (360, 640), 18
CLOTHES = np.eye(60) * 0.8 + 0.2 / 60


def person(
    x: float, clothes: int, posed: bool = True, y: float = 80.0, width: float = 60.0, height: float = 200.0
) -> Sighting:
    """Somebody whose middle is at x, inside the frame; their body's mask fills the box where they are posed."""
    low, high = np.clip([x - width / 2, y], 0, SHAPE[::-1]), np.clip([x + width / 2, y + height], 0, SHAPE[::-1])
    landmarks = np.ones((33, 3))
    landmarks[:, 0], landmarks[:, 1] = x, np.linspace(y, y + height, 33)
    mask = np.full((int(high[1] - low[1]), max(1, int(high[0] - low[0]))), 255, np.uint8)
    return Sighting(
        np.concatenate([low, high]),
        0.9,
        CLOTHES[clothes],
        0.7,
        landmarks if posed else None,
        np.zeros((33, 3)) if posed else None,
        mask if posed else None,
        (int(low[0]), int(low[1])),
    )


Clip = list[dict[int, Sighting]]


def followed(clip: Clip) -> list[Track]:
    """The tracks of a clip of sightings by person, of whom the tracker is told nothing."""
    tracks: list[Track] = []
    for t, people in enumerate(clip):
        live = [track for track in tracks if track.gap(t) <= PATIENCE]
        seen = list(people.values())
        joined = tracking.assign(live, seen, t)
        for i, j in joined.items():
            live[i].sightings[t] = seen[j]
        tracks += [Track({t: seen[j]}) for j in sorted(set(range(len(seen))) - set(joined.values()))]
    return tracking.whole(tracking.rejoined(tracks, SHAPE))


def idf1(clip: Clip, tracks: list[Track], real: Mapping[int, bool] | None = None) -> float:
    """IDF1 of tracks against the people of a clip, without those who are `real[person] = False`."""
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for t, people in enumerate(clip):
        truth = {k: s for k, s in people.items() if real is None or real.get(k, True)}
        mine = {i: track.sightings[t] for i, track in enumerate(tracks) if t in track.sightings}
        away = [[1 - tracking.overlap(a.box, b.box) for b in mine.values()] for a in truth.values()]
        distances = np.array(away, np.float64).reshape(len(truth), len(mine))
        accumulator.update(list(truth), list(mine), np.where(distances < 0.5, distances, np.nan))
    summary = motmetrics.metrics.create().compute(accumulator, metrics=["idf1"], name="clip")
    return float(summary["idf1"].iloc[0])


def test_two_who_cross_and_hide_each_other_keep_their_names() -> None:
    clip = [{0: person(100 + 12 * t, 0), 1: person(540 - 12 * t, 1)} for t in range(36)]
    for t in range(16, 22):  # the one behind is not seen
        del clip[t][1]
    tracks = followed(clip)
    assert len(tracks) == 2
    assert idf1(clip, tracks) == 1


def test_who_leaves_and_comes_back_over_the_same_edge_is_known_again() -> None:
    away = range(12, 60)
    clip = [{0: person(620 if t < 6 else 639, 0), 1: person(200, 1)} for t in range(72)]
    for t in away:
        del clip[t][0]
    tracks = followed(clip)
    assert len(tracks) == 2
    assert idf1(clip, tracks) == 1


def test_another_one_in_other_clothes_gets_a_name_of_their_own() -> None:
    clip: Clip = [{0: person(620, 0)} if t < 12 else {1: person(620, 1)} if t > 50 else {} for t in range(70)]
    assert idf1(clip, followed(clip)) == 1


def test_of_two_in_like_clothes_nobody_is_guessed() -> None:
    """Two players of one team left; one comes back: a new name rather than perhaps the wrong one."""
    clip: Clip = [{0: person(560, 0), 1: person(630, 0)} if t < 12 else {} for t in range(70)]
    for t in range(50, 70):
        clip[t] = {1: person(600, 0)}
    assert len(followed(clip)) == 3


def test_long_hidden_in_three_pieces_is_one_person() -> None:
    clip: Clip = [{0: person(300 + t, 0)} if t % 40 < 10 else {} for t in range(100)]
    tracks = followed(clip)
    assert len(tracks) == 1
    assert idf1(clip, tracks) == 1


def test_one_man_who_talks_with_his_hands_is_one() -> None:
    """A hand before the face and one at the side are detected as people; he hides nobody."""
    man = [person(320, 0, width=220, height=280, y=60) for _ in range(40)]
    clip = [{0: whole} for whole in man]
    for t in range(8, 20):
        clip[t][1] = person(300, 2, posed=False, y=120, width=70, height=80)
    for t in range(25, 40):
        clip[t][2] = person(390, 3, posed=False, y=200, width=60, height=70)
    tracks = followed(clip)
    assert len(tracks) == 1
    assert idf1(clip, tracks, {1: False, 2: False}) == 1


def test_a_child_in_front_and_somebody_small_behind_are_people() -> None:
    clip = [
        {0: person(320, 0, width=220, height=280, y=60), 1: person(320, 1, y=200, width=60, height=120)}
        | {2: person(470, 2, posed=False, y=100, width=50, height=90)}
        for _ in range(24)
    ]
    tracks = followed(clip)
    assert len(tracks) == 3
    assert idf1(clip, tracks) == 1


def test_two_who_embrace_are_two() -> None:
    clip = [{0: person(310 - max(0, 60 - 4 * t), 0), 1: person(330 + max(0, 60 - 4 * t), 1)} for t in range(36)]
    for t in range(20, 28):
        del clip[t][0]
    tracks = followed(clip)
    assert len(tracks) == 2
    assert idf1(clip, tracks) == 1


def test_a_crowd_with_gaps_keeps_its_names() -> None:
    """Eight people on paths of their own, each missed in a third of the frames: IDF1 .9 of what is seen."""
    rng = np.random.default_rng(0)
    start, speed = rng.uniform(60, 580, 8), rng.uniform(-6, 6, 8)
    clip: Clip = []
    for t in range(48):
        x = np.abs(start + speed * t)
        x = np.where(x > 640, 1280 - x, x)
        shown = rng.random(8) > 1 / 3
        clip.append({k: person(x[k], k, y=60 + 10.0 * k) for k in range(8) if shown[k]})
    assert idf1(clip, followed(clip)) > 0.9


def test_where_nobody_is_nobody_is_followed() -> None:
    assert followed([{}, {}]) == []
