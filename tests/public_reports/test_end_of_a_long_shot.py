"""The last .4 s of a long shot is dropped as shorter than the shortest clip."""

from __future__ import annotations

import itertools

from openuni.sources.shots import Shot, windows


def test_windows_cover_the_shot_and_none_is_too_short() -> None:
    for seconds in (5.4, 10.2, 61.0, 5.0625):
        pieces = windows(Shot(0.0, seconds), 5.0625, 0.5)
        assert pieces[0].start == 0
        assert pieces[-1].end == seconds
        assert all(0.5 <= piece.seconds <= 5.0625 + 1e-9 for piece in pieces)
        assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
