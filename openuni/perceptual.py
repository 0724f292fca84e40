"""Perceptual hashes: 64 bits a frame that stay nearly the same when it is encoded, scaled or cropped a little.

A frame's hash says which of its lowest frequencies lie above their median (the DCT hash of Zauner, 2010, as in the
library pHash). Two clips are near-duplicates where three of their five hashed frames are: within eight bits of any
frame of the other, or of its middle.

`near` looks at all pairs where they are few. Of many it looks at those that agree on a random choice of bits (bit
sampling: Indyk and Motwani, STOC 1998) in one of 24 tables; it is seeded, so the same hashes give the same pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from openuni.modalities import Box, Frames

Hashes = npt.NDArray[np.uint64]

FRAMES = 5
"""Frames of a clip that are hashed."""
NONE = 0
"""The hash of a frame that shows nothing: it is like no other."""
_SIDE = 32
_KEPT = 8
_FLAT = 2.0
"""Standard deviation, in levels of 255, below which a frame shows nothing."""
NEAR = 8
"""Bits of 64 in which two frames may differ; of two that have nothing in common 32 do."""
ENOUGH = 3
"""Frames that must be near."""
_FEW = 1_000_000
"""Pairs of clips that are all looked at."""
_TABLES = 24
_WINDOW = 16
"""Neighbours that a hash is paired with, among those equal in a table's bits: the others are reached over these."""
_AT_ONCE = 1 << 16
Pairs = npt.NDArray[np.int64]
"""Row numbers `[N, 2]`."""
_INNER = 0.86
"""Side of the middle of a frame that is hashed too: what is left where some 7 % were cropped at each edge."""


def clip_hashes(frames: Frames, picture: Box) -> tuple[int, ...]:
    """Hashes of the picture in five frames `[T, H, W, 3]` spread over a clip, then of the middle of each: ten in all.

    Example:
        >>> frames = np.random.default_rng(0).integers(0, 256, (8, 36, 64, 3), np.uint8)
        >>> len(clip_hashes(frames, Box(0, 0, 64, 36)))
        10
    """
    inset_x = round((picture.x1 - picture.x0) * (1 - _INNER) / 2)
    inset_y = round((picture.y1 - picture.y0) * (1 - _INNER) / 2)
    middle = Box(picture.x0 + inset_x, picture.y0 + inset_y, picture.x1 - inset_x, picture.y1 - inset_y)
    places = ((np.arange(FRAMES) + 0.5) * len(frames) / FRAMES).astype(np.intp)
    return tuple(frame_hash(frames[t], box) for box in (picture, middle) for t in places)


def frame_hash(frame: Frames, box: Box) -> int:
    """The hash of what `box` shows of a frame `[H, W, 3]`; `NONE` of a picture of one colour."""
    part = np.ascontiguousarray(frame[box.y0 : box.y1, box.x0 : box.x1])
    if not part.size:
        return NONE
    gray = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return NONE
    low = cv2.dct(small)[1 : _KEPT + 1, 1 : _KEPT + 1].ravel()
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near(ours: Hashes, theirs: Hashes | None = None) -> Pairs:
    """Which clips are near-duplicates: pairs of rows of hashes `[N, 10]`, of `ours` and `theirs`, or among `ours`.

    Among `ours` each pair comes once, the smaller number first; of many that are all the same only as many pairs as
    connect them.

    Example:
        >>> hashes = np.array([[1 << n for n in range(10)], [1 << 40] * 10, [1 << n for n in range(10)]], np.uint64)
        >>> near(hashes * np.uint64(0xFFFFFF)).tolist()
        [[0, 2]]
    """
    others = ours if theirs is None else theirs
    is_few = len(ours) * len(others) <= _FEW
    candidates = _all(len(ours), len(others)) if is_few else _tables(ours, theirs)
    found = [pairs[_are_near(ours[pairs[:, 0]], others[pairs[:, 1]])] for pairs in _cut(candidates, theirs is None)]
    return np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)


def clusters(pairs: Pairs) -> list[list[int]]:
    """Rows that are connected by pairs, each cluster sorted.

    Example:
        >>> clusters(np.array([[0, 4], [4, 7], [2, 3]]))
        [[0, 4, 7], [2, 3]]
    """
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while parent.setdefault(row, row) != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for a, b in pairs.tolist():
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    together: dict[int, list[int]] = {}
    for row in sorted(parent):
        together.setdefault(root(row), []).append(row)
    return [together[first] for first in sorted(together)]


def _all(ours: int, others: int) -> Iterator[Pairs]:
    for row in range(ours):
        yield np.stack([np.full(others, row), np.arange(others)], axis=1).astype(np.int64)


def _tables(ours: Hashes, theirs: Hashes | None) -> Iterator[Pairs]:
    """Pairs of rows of which some hash agrees on a table's bits, and is near."""
    tokens, rows = _shown(ours)
    bits = int(np.clip(np.log2(max(len(tokens), 2)) - 2, 10, 24))  # some four that agree by chance
    rng = np.random.default_rng(0)
    for _ in range(_TABLES):
        mask = np.uint64(sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)))
        order = np.argsort(tokens & mask, kind="stable")
        ordered, mine = tokens[order], rows[order]
        masked = ordered & mask
        if theirs is not None:
            yield from _across(ordered, masked, mine, theirs, mask)
            continue
        for step in range(1, _WINDOW + 1):
            equal = np.flatnonzero(masked[step:] == masked[:-step])
            if not len(equal):
                break
            equal = equal[_bits(ordered[equal] ^ ordered[equal + step]) <= NEAR]
            yield np.stack([mine[equal], mine[equal + step]], axis=1)


def _across(ordered: Hashes, masked: Hashes, mine: Pairs, theirs: Hashes, mask: np.uint64) -> Iterator[Pairs]:
    """Pairs of ours, sorted by their masked hashes, and those of theirs that are equal to them and near."""
    other, rows = _shown(theirs)
    low = np.searchsorted(masked, other & mask, side="left").tolist()
    high = np.searchsorted(masked, other & mask, side="right").tolist()
    for begin, end, token, row in zip(low, high, other, rows.tolist(), strict=True):
        near_ones = begin + np.flatnonzero(_bits(ordered[begin:end] ^ token) <= NEAR)
        if len(near_ones):
            yield np.stack([mine[near_ones], np.full(len(near_ones), row)], axis=1).astype(np.int64)


def _shown(hashes: Hashes) -> tuple[Hashes, Pairs]:
    """All hashes `[M]` that are of something, and the row of each."""
    tokens = np.ascontiguousarray(hashes).ravel()
    shows = np.flatnonzero(tokens != NONE)
    return tokens[shows], shows // hashes.shape[1]


def _cut(candidates: Iterator[Pairs], among: bool) -> Iterator[Pairs]:
    """Candidates in portions of a bounded size, each pair of them once; `among` one set, the smaller number first."""
    waiting: list[Pairs] = []
    count = 0

    def portions() -> Iterator[Pairs]:
        pairs = np.concatenate(waiting)
        if among:
            pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
        # As one number each: to sort rows of two takes numpy many times as long.
        joined = np.unique((pairs[:, 0] << 32) | pairs[:, 1])
        pairs = np.stack([joined >> 32, joined & 0xFFFFFFFF], axis=1)
        for begin in range(0, len(pairs), _AT_ONCE):
            yield pairs[begin : begin + _AT_ONCE]

    for pairs in candidates:
        waiting.append(pairs)
        count += len(pairs)
        if count >= 16 * _AT_ONCE:
            yield from portions()
            waiting, count = [], 0
    if waiting:
        yield from portions()


def _are_near(a: Hashes, b: Hashes) -> npt.NDArray[np.bool_]:
    """Whether three frames of each row of `a` `[N, 10]` are near some of `b`'s, and three of `b`'s near some of `a`'s.

    A frame is compared with the other's frame and with its middle.
    """
    whole_a, middle_a, whole_b, middle_b = a[:, :FRAMES], a[:, FRAMES:], b[:, :FRAMES], b[:, FRAMES:]
    close = np.zeros((len(a), FRAMES, FRAMES), np.bool_)
    for left, right in ((whole_a, whole_b), (middle_a, whole_b), (whole_a, middle_b)):
        shows = (left != NONE)[:, :, None] & (right != NONE)[:, None, :]
        close |= shows & (_bits(left[:, :, None] ^ right[:, None, :]) <= NEAR)
    matched = np.minimum(close.any(axis=2).sum(axis=1), close.any(axis=1).sum(axis=1))
    near_enough: npt.NDArray[np.bool_] = matched >= ENOUGH
    return near_enough


def _bits(x: Hashes) -> npt.NDArray[np.uint64]:
    """How many bits of each number are set (Warren, Hacker's Delight, 5–1)."""
    one, two, four = (np.uint64(n) for n in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    x = x - ((x >> np.uint64(1)) & one)
    x = (x & two) + ((x >> np.uint64(2)) & two)
    x = (x + (x >> np.uint64(4))) & four
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
