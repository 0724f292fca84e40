"""Interlaced frames made progressive: bwdif (Weston 3-field, as in FFmpeg), one frame out for each frame in.

A frame that is not flagged as interlaced passes unchanged. The filter looks at the frame before and the one after.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from openuni.video import filtering
from openuni.video.clock import Timed

_BWDIF = "mode=send_frame:parity=auto:deint=interlaced"


def deinterlace(frames: Iterable[Timed]) -> Iterator[Timed]:
    """`frames` in order of presentation, with their times; flagged ones without comb and marked `deinterlaced`.

    Nothing is filtered, delayed or copied before the first interlaced frame, so progressive videos cost nothing.
    """
    before: Timed | None = None
    stream = iter(frames)
    for shown in stream:
        if shown.interlaced:
            yield from _filtered(before, shown, stream)
            return
        yield shown
        before = shown


def _filtered(before: Timed | None, first: Timed, rest: Iterator[Timed]) -> Iterator[Timed]:
    """From the first interlaced frame on. The frame `before` it, already given out, only lends its lines."""
    lent = [] if before is None else [before]
    made = filtering.through(itertools.chain(lent, [first], rest), "bwdif", _BWDIF)
    for shown, frame in itertools.islice(made, len(lent), None):
        yield replace(shown, frame=frame, deinterlaced=shown.interlaced or shown.deinterlaced)
