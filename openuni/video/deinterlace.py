"""Interlaced frames made progressive: bwdif (Weston 3-field, as in FFmpeg), one frame out for each frame in.

A frame that is not flagged as interlaced passes unchanged. The filter looks at the frame before and the one after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import av
import av.error
import av.filter

from openuni.video.clock import Timed


def deinterlace(frames: Iterable[Timed]) -> Iterator[Timed]:
    """`frames` in order of presentation, with their times; flagged ones without comb and marked `deinterlaced`.

    Nothing is filtered, delayed or copied before the first interlaced frame, so progressive videos cost nothing.
    """
    before: Timed | None = None
    stream = iter(frames)
    for shown in stream:
        if shown.frame.interlaced_frame:
            yield from _filtered(before, shown, stream)
            return
        yield shown
        before = shown


def _filtered(before: Timed | None, first: Timed, rest: Iterator[Timed]) -> Iterator[Timed]:
    """From the first interlaced frame on. The frame `before` it, already given out, only lends its lines."""
    graph = _graph(first.frame)
    waiting: deque[Timed] = deque()
    discard = 0
    number = 0

    def push(shown: Timed) -> None:
        nonlocal number
        # The filter gives one frame for each, in order; its own clock only has to go forward.
        frame = shown.frame
        frame.pts, number = number, number + 1
        graph.push(frame)
        waiting.append(shown)

    def pull() -> Iterator[Timed]:
        nonlocal discard
        while waiting:
            try:
                frame = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            shown = waiting.popleft()
            if discard:
                discard -= 1
            else:
                yield Timed(frame, shown.time, shown.duration, deinterlaced=shown.interlaced or shown.deinterlaced)

    if before is not None:
        discard = 1
        push(before)
    push(first)
    yield from pull()
    for shown in rest:
        push(shown)
        yield from pull()
    graph.vpush(None)
    yield from pull()


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base, name="in"
    )
    graph.link_nodes(
        source,
        graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph
