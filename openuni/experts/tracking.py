"""Who is who: people of one frame joined to the tracks of the frames before, one to one.

Small on purpose. The kept libraries (norfair, supervision's ByteTrack, trackers) associate boxes; what holds two
people apart while they touch is the pose and the look of their clothes, and neither fits through a box-only interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

TORSO = (11, 12, 23, 24)
"""Shoulders and hips among MediaPipe's 33 landmarks."""
STEADY = (0, 7, 8, 11, 12, 13, 14, 23, 24, 25, 26)
"""Landmarks that tell where a person is without swinging far in a frame: head, shoulders, elbows, hips, knees."""
_HUES, _SATURATIONS, _VALUES = 12, 4, 8
_SAME_CLOTHES = 0.85
"""Least likeness of colours (Bhattacharyya) of somebody who comes back, in light that may have changed."""
_CLEARLY = 0.05
"""How much better than any other the clothes must agree for somebody to be taken for whom they were before."""
_FARTHEST = 3.0
"""Sizes that somebody moves unseen, at most; who left over an edge may come back anywhere along it."""
_PART = 0.4
"""Share of a box that lies on somebody's mask from which it is a part of them: a hand, a face, a print on a shirt."""


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A person seen in one frame: always a box, and where one was found a pose with its mask."""

    box: Floats
    """x0, y0, x1, y1 in pixels, inside the frame."""
    score: float
    look: Floats
    """Colours of the clothes, a histogram with sum 1."""
    detected: float = 0.0
    """Score of the detector's box for this person in this frame; 0 where there is none."""
    landmarks: Floats | None = None
    """`[33, 3]`: x, y in pixels, visibility 0–1."""
    world: Floats | None = None
    """`[33, 3]` metres about the middle of the hips: x right, y down, z away from the camera."""
    mask: Bytes | None = None
    """Probability × 255 that a pixel is this person, in a window of the frame: whole frames would fill the memory."""
    corner: tuple[int, int] = (0, 0)
    """Where the window's first pixel lies: x, y."""

    @property
    def size(self) -> float:
        """Square root of the box's area, in pixels."""
        return float(np.sqrt(np.prod(self.box[2:] - self.box[:2])))

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that the mask covers."""
        assert self.mask is not None
        (x, y), (height, width) = self.corner, self.mask.shape
        return slice(y, y + height), slice(x, x + width)


@dataclass(slots=True)
class Track:
    """One person's sightings by frame."""

    sightings: dict[int, Sighting] = field(default_factory=dict)

    def nearest(self, frame: int, count: int = 1) -> list[int]:
        """The `count` frames nearest to `frame` in which the person is seen, the nearest first."""
        return sorted(self.sightings, key=lambda t: abs(t - frame))[:count]

    def gap(self, frame: int) -> int:
        """Frames from `frame`, either way, to where the person is seen."""
        return min(abs(t - frame) for t in self.sightings)

    def box_at(self, frame: int) -> Floats:
        """The box expected outside the frames seen: the nearest one, moved on by its motion for at most five frames."""
        frames = self.nearest(frame, 2)
        box = self.sightings[frames[0]].box
        if len(frames) == 1 or abs(frames[1] - frames[0]) > 10:
            return box
        before = self.sightings[frames[1]].box
        motion = ((box + np.roll(box, 2)) / 2 - (before + np.roll(before, 2)) / 2) / (frames[0] - frames[1])
        moved: Floats = box + motion * np.clip(frame - frames[0], -5, 5)
        return moved

    def look_at(self, frame: int) -> Floats:
        """The mean look of the 30 sightings nearest to a frame."""
        look: Floats = np.mean([self.sightings[t].look for t in self.nearest(frame, 30)], axis=0)
        return look


def overlap(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes."""
    # In plain numbers: NumPy takes ten times as long over four of them, and a crowd has many pairs.
    (left, top, right, bottom), (x0, y0, x1, y1) = a.tolist(), b.tolist()
    shared = max(min(right, x1) - max(left, x0), 0.0) * max(min(bottom, y1) - max(top, y0), 0.0)
    both = (right - left) * (bottom - top) + (x1 - x0) * (y1 - y0) - shared
    return shared / both if both > 0 else 0.0


def pairs(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], least: float = 0.5) -> dict[int, int]:
    """Which box of `b` `[M, 4]` is each of `a` `[N, 4]`: one to one, with the largest sum of overlaps above `least`.

    Example:
        >>> pairs(np.array([[0, 0, 10, 10], [20, 0, 30, 10]]), np.array([[21, 0, 30, 10], [90, 0, 99, 9]]))
        {1: 0}
    """
    from scipy.optimize import linear_sum_assignment

    if not len(a) or not len(b):
        return {}
    table = np.array([[overlap(x, y) for y in b.astype(np.float64)] for x in a.astype(np.float64)])
    rows, columns = linear_sum_assignment(np.where(table > least, -table, 0.0))
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if table[r, c] > least}


def apart(pose: Floats, others: Floats) -> Floats:
    """Mean distance in pixels, `[S]`, between the steady landmarks of a pose `[33, 3]` and others `[S, 33, 3]`.

    Weighted by visibility.
    """
    rows = list(STEADY)
    pose, others = pose[rows], others[:, rows]
    weight = np.minimum(pose[:, 2], others[..., 2]) + 1e-3
    distance = np.linalg.norm(pose[:, :2] - others[..., :2], axis=-1)
    mean: Floats = (distance * weight).sum(-1) / weight.sum(-1)
    return mean


def distinct(sightings: Sequence[Sighting]) -> list[Sighting]:
    """The sightings without doubles, the surest first.

    Two poses whose steady landmarks lie within a tenth of a person's size, or whose masks cover the same flesh, are one
    person seen through two crops.
    """
    kept: list[Sighting] = []
    for new in sorted(sightings, key=lambda s: -s.score):
        if all(not same(new, old) for old in kept):
            kept.append(new)
    return kept


def same(a: Sighting, b: Sighting) -> bool:
    """Whether two sightings in one frame are of one person."""
    if a.landmarks is not None and b.landmarks is not None:
        near = apart(a.landmarks, b.landmarks[None])[0] < 0.1 * min(a.size, b.size)
        return bool(near) or _shared(a, b) > 0.6
    return overlap(a.box, b.box) > 0.6


def _shared(a: Sighting, b: Sighting) -> float:
    """Intersection of two masks over the smaller one."""
    if a.mask is None or b.mask is None or overlap(a.box, b.box) == 0:
        return 0.0
    high = max(a.window[0].stop, b.window[0].stop), max(a.window[1].stop, b.window[1].stop)
    here, there = np.zeros((2, *high), np.bool_)
    here[a.window], there[b.window] = a.mask > 127, b.mask > 127
    return float((here & there).sum() / max(1, min(here.sum(), there.sum())))


def likeness(track: Track, seen: Sequence[Sighting], frame: int) -> Floats:
    """How well each of S sightings continues a track, `[S]`, 0–1 (0: it cannot). Place first, clothes second.

    The tolerance for place grows with the frames since the track was last seen, so that a person who comes out from
    behind something is met again, and the clothes decide between two who come out together.
    """
    before = track.sightings[track.nearest(frame)[0]]
    tolerance = 0.25 * (1 + 0.25 * min(track.gap(frame) - 1, 12))
    box, boxes = track.box_at(frame), np.array([s.box for s in seen])
    distance = np.linalg.norm((box[:2] + box[2:] - boxes[:, :2] - boxes[:, 2:]) / 2, axis=1)
    posed = {k: s.landmarks for k, s in enumerate(seen) if s.landmarks is not None}
    if before.landmarks is not None and posed:
        moved = np.concatenate([before.landmarks[:, :2] + (box - before.box)[:2], before.landmarks[:, 2:]], 1)
        distance[list(posed)] = apart(moved, np.stack(list(posed.values())))
    distance /= max(before.size, 1.0)
    sizes = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    grown = np.abs(np.log(np.maximum(sizes, 1.0) / max(before.size, 1.0)))
    place = np.exp(-((distance / tolerance) ** 2) / 2)
    clothes = np.sqrt(track.look_at(frame) * np.array([s.look for s in seen])).sum(1)  # Bhattacharyya coefficient
    return np.where((distance > 3 * tolerance) | (grown > 1.4 * tolerance), 0.0, place * clothes**2)


def assign(tracks: Sequence[Track], seen: Sequence[Sighting], frame: int, least: float = 0.15) -> dict[int, int]:
    """The one-to-one assignment (sighting of each continued track) with the largest sum of likeness above `least`."""
    from scipy.optimize import linear_sum_assignment

    if not tracks or not seen:
        return {}
    table = np.array([likeness(track, seen, frame) for track in tracks])
    rows, columns = linear_sum_assignment(np.where(table > least, -table, 0.0))
    return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if table[r, c] > least}


def rejoined(tracks: Sequence[Track], shape: tuple[int, int]) -> list[Track]:
    """Tracks with those put together that are one person who was out of sight: gone over an edge, or hidden for long.

    A track continues one that ended before it began if the clothes agree, clearly better than with anybody else's, and
    the way between is no longer than `_FARTHEST` sizes; `shape` is the frame's height and width. In doubt they stay
    two: a wrong name is worse than a new one.
    """
    pending = sorted(tracks, key=lambda k: min(k.sightings))
    while (pair := _surest(pending, shape)) is not None:
        first, later = pair
        first.sightings |= later.sightings
        pending = [track for track in pending if track is not later]
    return pending


def _surest(tracks: Sequence[Track], shape: tuple[int, int]) -> tuple[Track, Track] | None:
    """The two tracks that are most clearly one person, the earlier first."""
    if not tracks:
        return None
    table = np.array([[_comes_back(a, b, shape) for b in tracks] for a in tracks])
    for i, j in zip(*np.unravel_index(np.argsort(-table, axis=None), table.shape), strict=True):
        if table[i, j] < _SAME_CLOTHES:
            return None
        others = np.concatenate([np.delete(table[i], j), np.delete(table[:, j], i)])
        # A rival that could follow the other two, too, is a third piece of the same person rather than another one.
        if table[i, j] > others.max(initial=0) + _CLEARLY or _in_turn(tracks, int(i), int(j), table):
            return tracks[i], tracks[j]
    return None


def _in_turn(tracks: Sequence[Track], i: int, j: int, table: Floats) -> bool:
    """Whether all rivals of a pair are at other times than both: then there is nobody to mix them up with."""
    rivals = {int(k) for k in np.flatnonzero(table[i])} | {int(k) for k in np.flatnonzero(table[:, j])}
    spans = [(min(tracks[k].sightings), max(tracks[k].sightings)) for k in sorted(rivals | {i, j})]
    return all(a[1] < b[0] for a, b in pairwise(sorted(spans)))


def _comes_back(before: Track, after: Track, shape: tuple[int, int]) -> float:
    """Likeness of clothes of a track and a later one that may be the same person, 0 where it cannot."""
    end, start = max(before.sightings), min(after.sightings)
    if end >= start:
        return 0.0
    left, back = before.sightings[end], after.sightings[start]
    if abs(np.log(max(back.size, 1.0) / max(left.size, 1.0))) > np.log(2):
        return 0.0
    way = np.abs(left.box[:2] + left.box[2:] - back.box[:2] - back.box[2:]) / 2 / max(left.size, back.size, 1.0)
    for side in _edges(left.box, shape) & _edges(back.box, shape):
        way[1 - side % 2] = 0.0
    if np.linalg.norm(way) > _FARTHEST:
        return 0.0
    return float(np.sqrt(before.look_at(end) * after.look_at(start)).sum())


def _edges(box: Floats, shape: tuple[int, int]) -> set[int]:
    """Which sides of the frame a box touches, as places in the box: 0 left, 1 top, 2 right, 3 bottom."""
    height, width = shape
    margin = 0.02 * max(shape)
    away = np.array([box[0], box[1], width - box[2], height - box[3]])
    # Nearly everybody's feet are at the bottom of a close picture; nobody comes back from there by walking.
    return set(np.flatnonzero(away < margin).tolist()) & {0, 2}


def whole(tracks: Sequence[Track]) -> list[Track]:
    """Tracks without those that are parts of somebody: never posed, smaller, and lying on their body all along."""
    return [track for track in tracks if not any(_part_of(track, other) for other in tracks if other is not track)]


def _part_of(track: Track, other: Track) -> bool:
    posed = sum(seen.landmarks is not None for seen in track.sightings.values())
    common = [t for t in track.sightings if t in other.sightings and other.sightings[t].mask is not None]
    if posed > 0.2 * len(track.sightings) or len(common) < 0.5 * len(track.sightings):
        return False
    pairs = [(track.sightings[t], other.sightings[t]) for t in common]
    smaller = np.median([a.size / max(b.size, 1.0) for a, b in pairs]) < 0.8
    return bool(smaller and np.mean([_covered(a.box, b) for a, b in pairs]) > _PART)


def _covered(box: Floats, by: Sighting) -> float:
    """Share of a box that lies on somebody's mask."""
    assert by.mask is not None
    low, high = np.floor(box[:2] - by.corner).astype(int), np.ceil(box[2:] - by.corner).astype(int)
    (x0, y0), (x1, y1) = np.maximum(low, 0), np.maximum(high, 0)
    return float((by.mask[y0:y1, x0:x1] > 127).sum() / max(1.0, float(np.prod(box[2:] - box[:2]))))


def colours(frame: npt.NDArray[np.uint8], where: npt.NDArray[np.bool_]) -> Floats:
    """Histogram of hue and saturation, beside one of brightness, over the pixels `where`; it sums to 1."""
    pixels = frame[where]
    if len(pixels) == 0:
        bins = _HUES * _SATURATIONS + _VALUES
        return np.full(bins, 1 / bins)
    hsv = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0].astype(int)
    tint = hsv[:, 0] * _HUES // 180 * _SATURATIONS + hsv[:, 1] * _SATURATIONS // 256
    # Hue is noise where there is hardly any colour: such pixels count by brightness alone.
    tinted = np.bincount(tint[hsv[:, 1] > 30], minlength=_HUES * _SATURATIONS)
    bright = np.bincount(hsv[:, 2] * _VALUES // 256, minlength=_VALUES)
    both = np.concatenate([tinted, bright]).astype(np.float64)
    share: Floats = both / both.sum()
    return share
