"""What a source is: rows of somebody's metadata (or a folder of videos), each of which becomes clips."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from openuni import registry
from openuni.assets import Asset
from openuni.sample import Clip
from openuni.sources.hub import Hub
from openuni.video import Limits


@dataclass(frozen=True, slots=True)
class Request:
    """What a build asks of any source; what only one source knows are that source's own fields."""

    videos: Path | None = None
    """The folder that holds the video files."""
    metadata: Path | None = None
    """The source's own table (a file or a folder of them)."""
    clip_seconds: float = 5.0625
    """Longest clip; 81 frames at 16 fps."""
    min_seconds: float = 0.5
    """Shortest clip worth keeping."""
    frames: tuple[int, int] | None = None
    """Fewest and most frames of a clip, where clips keep the rate of their video: see `at_rate`."""
    limits: Limits = Limits()  # noqa: RUF009  frozen
    """What a video may ask of this machine while it is planned."""

    def at_rate(self, fps: float) -> Request:
        """What is asked of a video of so many frames a second, by a source that has seen it.

        Example:
            >>> Request(frames=(8, 81)).at_rate(2.0).clip_seconds
            40.5
        """
        if self.frames is None:
            return self
        fewest, most = self.frames
        return replace(self, clip_seconds=most / fps, min_seconds=fewest / fps if fewest > 1 else 0.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the source before any video is opened; small, picklable, made of plain values. No two share an `id`."""

    id: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that becomes no clip, and why. Counted and reported, never silent."""

    id: str
    reason: str


class Source(ABC):
    """`entries` is cheap and streams; `expand` may open the video (to find its shots) and runs in parallel.

    A source with options is a frozen dataclass: its fields, each with a docstring, are options of `openuni build
    --source NAME`, and their names are its own.
    """

    name: ClassVar[str]
    license: ClassVar[str] = "unknown"
    assets: ClassVar[tuple[Asset, ...]] = ()
    """Videos of its own; `openuni assets` finds them here."""
    hub: ClassVar[Hub | None] = None
    """Where its tables are published."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Of `metadata` and `videos`, which are looked for in their default places where they are not given."""
    has_urls: ClassVar[bool] = False
    """Whether its rows say where on the web their videos are, so that `openuni sources download` can get them."""
    opens_videos: ClassVar[bool] = True
    """Whether `expand` opens video files; where it does not, rows are expanded without a trip to a worker."""

    @property
    def options(self) -> dict[str, Any]:
        """The options as they were given, in plain values: what may not change between two runs on one dataset."""
        return {} if not is_dataclass(self) else json.loads(json.dumps(asdict(self), default=str))

    @property
    def remarks(self) -> list[str]:
        """What to say of how it finds clips, before it does."""
        return []

    def going_on(self, options: Mapping[str, Any]) -> Source:
        """This source, with what was left open as it is in a dataset that was made with `options`."""
        return self

    def check(self, request: Request) -> None:
        """Raise OpenUniError where something is missing, before a folder is made for what comes out."""
        next(iter(self.entries(request)), None)

    @abstractmethod
    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        """Stream the source's rows in a fixed order. Raises OpenUniError naming what is missing and where to put it."""

    @abstractmethod
    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        """The clips of one row."""


def get(name: str) -> Source:
    """The source registered as `name`, with its options at their defaults."""
    source: Source = registry.load("sources", name)()
    return source
