"""A source for tests: each mp4 of a folder is one clip, its key and caption the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from openuni.errors import OpenUniError
from openuni.sample import Clip
from openuni.sources import Entry, Request, Skipped, Source


@dataclass(frozen=True)
class ToySource(Source):
    name: ClassVar[str] = "toy"
    license: ClassVar[str] = "CC0-1.0"
    only: str = ""
    """Only files whose name begins so."""

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        if request.videos is None:
            raise OpenUniError("give --videos")
        for path in sorted(request.videos.glob(f"{self.only}*.mp4")):
            yield Entry(path.stem, {"path": str(path)})

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        if entry.id.startswith("skip"):
            return [Skipped(entry.id, "asked to be skipped")]
        return [
            Clip(
                entry.id,
                entry.fields["path"],
                caption=f"toy {entry.id}",
                source=self.name,
                source_id=entry.id,
                video_id=entry.id,
                license=self.license,
                scores={"motion": 1.5},
            )
        ]
