"""What a source is: rows of somebody's metadata (or a folder of videos), each of which becomes clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from openuni import registry
from openuni.assets import Asset
from openuni.sample import Clip
from openuni.video import Limits


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked of a source."""

    videos: Path | None = None
    """The folder that holds the video files."""
    metadata: Path | None = None
    """The source's own table (a file or a folder of them)."""
    clip_seconds: float = 5.0625
    """Longest clip; 81 frames at 16 fps."""
    min_seconds: float = 0.5
    """Shortest clip worth keeping."""
    columns: tuple[str, ...] = ()
    """FIELD=COLUMN: what a table calls what a clip needs."""
    where: str = ""
    """Which rows, in SQL."""
    sample: int | None = None
    """A seeded choice of so many of them."""
    sample_seed: int = 0
    limits: Limits = Limits()  # noqa: RUF009  frozen
    """What a video may ask of this machine while it is planned."""


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
    """`entries` is cheap and streams; `expand` may open the video (to find its shots) and runs in parallel."""

    name: ClassVar[str]
    license: ClassVar[str] = "unknown"
    assets: ClassVar[tuple[Asset, ...]] = ()
    """Videos of its own; `openuni assets` finds them here."""
    opens_videos: ClassVar[bool] = True
    """Whether `expand` opens video files; where it does not, rows are expanded without a trip to a worker."""

    @abstractmethod
    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        """Stream the source's rows in a fixed order. Raises OpenUniError naming what is missing and where to put it."""

    @abstractmethod
    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        """The clips of one row."""


def get(name: str) -> Source:
    """The source registered as `name`."""
    source: Source = registry.load("sources", name)()
    return source
