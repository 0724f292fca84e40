"""Frames through a filter of libavfilter that gives one frame for each, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import av
import av.error
import av.filter

from openuni.video.clock import Timed


def through(frames: Iterable[Timed], name: str, options: str) -> Iterator[tuple[Timed, av.VideoFrame]]:
    """Each of `frames` with what the filter makes of it. Their PTS are lost."""
    graph: av.filter.Graph | None = None
    waiting: deque[Timed] = deque()

    def made() -> Iterator[tuple[Timed, av.VideoFrame]]:
        while graph is not None and waiting:
            try:
                frame = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield waiting.popleft(), frame

    for number, shown in enumerate(frames):
        graph = graph or _graph(shown.frame, name, options)
        shown.frame.pts = number  # the filter's own clock only has to go forward
        graph.push(shown.frame)
        waiting.append(shown)
        yield from made()
    if graph is not None:
        graph.vpush(None)
        yield from made()


def _graph(frame: av.VideoFrame, name: str, options: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base, name="in"
    )
    graph.link_nodes(source, graph.add(name, options), graph.add("buffersink")).configure()
    return graph
