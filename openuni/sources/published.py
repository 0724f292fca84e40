"""The published OpenUni, and UnityVideo's training table: clips whose views are videos (films), one file for each.

`Tars` is the layout on the hub, `train/<Source>/<view>/…_partNNN.tar.gz` of 9 to 13 GB; each part is streamed once and
not kept. `TrainingTable` is a CSV of `video,prompt,depth,densepose,raft,segmentation,skeleton` that names local files.
Films of one clip share an id: the file name without folders and suffix, or, in the table, the video's path.
"""

from __future__ import annotations

import csv
import http.client
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol
from urllib.parse import quote

from openuni.errors import AssetError, OpenUniError, PlanError
from openuni.sources import tars
from openuni.sources.base import Skipped
from openuni.sources.text import CONTROLS
from openuni.storage import open_regular
from openuni.video import SUFFIXES

COLUMNS = ("rgb", "depth", "flow", "segmentation", "densepose", "skeleton")
"""RGB first: the others are joined to it."""
_FOLDERS = {
    "rgb": "rgb",
    "video": "rgb",
    "videos": "rgb",
    "depth": "depth",
    "flow": "flow",
    "raft": "flow",
    "optical_flow": "flow",
    "segmentation": "segmentation",
    "densepose": "densepose",
    "skeleton": "skeleton",
}
"""What a view's folder, or its column in the table, may be called."""  # fmt: skip
_PART = re.compile(r"(?:.*/)?train/(?P<source>[^/]+)/(?P<view>[^/]+)/[^/]+\.tar\.gz")
_LARGEST = 1 << 30
"""Bytes of a film; a larger one is left out."""
_LARGEST_CELL = 1 << 20
_TRIES = 3
_TIMEOUT = 60.0
BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, http.client.HTTPException)
"""What reading a part raises where it is cut off or damaged."""


@dataclass(frozen=True, slots=True)
class Film:
    """A view of a clip, as a file on this disk; a `is_scratch` one is the reader's to delete."""

    id: str
    file: Path
    is_scratch: bool


class Part(ABC):
    """Films of one view that come one after another, from beginning to end."""

    name: str
    column: str

    @abstractmethod
    def films(self, is_wanted: Callable[[str], bool], scratch: Path) -> Iterator[Film | Skipped]:
        """Those whose id is wanted; others are passed over unread. Raises AssetError where they cannot be had."""


class Published(Protocol):
    """A data set that is published as films."""

    @property
    def license(self) -> str: ...

    def parts(self) -> list[Part]:
        """Every part, in order, RGB's first."""

    def captions(self) -> Iterator[tuple[str, str]]:
        """Id and caption of the clips that have one."""


@dataclass(frozen=True, slots=True)
class _TarPart(Part):
    name: str
    column: str
    size: int
    open: Callable[[], IO[bytes]]

    def films(self, is_wanted: Callable[[str], bool], scratch: Path) -> Iterator[Film | Skipped]:
        given = set[str]()
        for tried in range(1, _TRIES + 1):
            try:
                yield from self._once(lambda id: id not in given and is_wanted(id), scratch, given)
                return
            except BROKEN as error:
                if tried == _TRIES:
                    raise AssetError(
                        f"{self.name} cannot be read to its end ({error or type(error).__name__}); run the same "
                        "command again: it goes on with this part"
                    ) from error

    def _once(self, is_wanted: Callable[[str], bool], scratch: Path, given: set[str]) -> Iterator[Film | Skipped]:
        with self.open() as stream:
            counted = _Counted(stream)
            with tars.unpacking(counted) as tar:
                for number, info in enumerate(tar):
                    path = PurePosixPath(info.name)
                    if not info.isreg() or path.suffix.lower() not in SUFFIXES or not is_wanted(path.stem):
                        continue
                    given.add(path.stem)
                    if info.size > _LARGEST:
                        yield Skipped(path.stem, f"larger than {_LARGEST >> 30} GiB")
                        continue
                    member = tar.extractfile(info)
                    assert member is not None
                    film = scratch / f"{number}{path.suffix.lower()}"
                    with film.open("wb") as file:
                        shutil.copyfileobj(member, file)
                    yield Film(path.stem, film, True)
            while counted.read(1 << 20):
                pass
            if counted.count != self.size:  # cut between two members, a tar looks whole
                raise EOFError(f"it ended after {counted.count:,} of {self.size:,} bytes")


class _Counted:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.count = stream, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data


@dataclass(frozen=True, slots=True)
class Tars:
    """The hub's layout, in a folder or in the repository OWNER/NAME of the hub; of one `source`, or of all."""

    where: str
    source: str = ""
    table: Path | None = None
    """A CSV with the captions."""
    license: str = "unknown"

    def parts(self) -> list[Part]:
        """Raises PlanError where there are none, AssetError where the hub does not answer."""
        listed = self._in_folder() if Path(self.where).is_dir() else self._on_hub()
        parts: list[Part] = []
        sources = set[str]()
        for name, (size, opened) in sorted(listed.items()):
            match = _PART.fullmatch(name)
            column = _FOLDERS.get(match["view"].lower()) if match else None
            if match is None or column is None:
                continue
            sources.add(match["source"])
            if self.source in ("", match["source"]):
                parts.append(_TarPart(name, column, size, opened))
        if not any(part.column == "rgb" for part in parts):
            raise PlanError(
                f"{self.where} has no train/{self.source or 'SOURCE'}/rgb/*.tar.gz; "
                f"its sources: {', '.join(sorted(sources)) or 'none'}"
            )
        return sorted(parts, key=lambda part: (COLUMNS.index(part.column), part.name))

    def captions(self) -> Iterator[tuple[str, str]]:
        return iter(()) if self.table is None else _captions(self.table, lambda video: PurePosixPath(video).stem)

    def _in_folder(self) -> dict[str, tuple[int, Callable[[], IO[bytes]]]]:
        root = Path(self.where).resolve()
        return {
            path.relative_to(root.parent).as_posix() if root.name == "train" else path.relative_to(root).as_posix(): (
                path.stat().st_size,
                lambda path=path: open_regular(path),  # type: ignore[misc]
            )
            for path in root.rglob("*.tar.gz")
            if path.is_file()
        }

    def _on_hub(self) -> dict[str, tuple[int, Callable[[], IO[bytes]]]]:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise OpenUniError("huggingface_hub is not installed; run: pip install 'openuni[build]'") from error
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN"))
        try:
            about = api.dataset_info(self.where, files_metadata=True)
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).partition("\n")[0]
            raise AssetError(
                f"{self.where} is neither a folder nor a data set of the hub: {why}; check the name, HF_ENDPOINT and "
                "HF_TOKEN"
            ) from error
        base = f"{api.endpoint}/datasets/{self.where}/resolve/{about.sha or 'main'}"
        return {
            file.rfilename: (
                int(file.size or 0),
                _Address(f"{base}/{quote(file.rfilename)}", os.environ.get("HF_TOKEN")),
            )
            for file in about.siblings or ()
        }


@dataclass(frozen=True, slots=True)
class _Address:
    url: str
    token: str | None

    def __call__(self) -> IO[bytes]:
        request = urllib.request.Request(self.url)
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")  # not for the store it leads to
        opened: IO[bytes] = urllib.request.urlopen(request, timeout=_TIMEOUT)
        return opened


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """UnityVideo's CSV, whose paths lie below `videos`."""

    table: Path
    videos: Path
    license: str = "unknown"

    def parts(self) -> list[Part]:
        """Raises PlanError where the table has no column `video`."""
        columns = _header(self.table)
        if "video" not in columns:
            raise PlanError(f"{self.table} has no column video; it has {', '.join(columns)}")
        named = {_FOLDERS[column]: column for column in columns if column in _FOLDERS}
        return [_TablePart(self.table, self.videos, column, named[column]) for column in COLUMNS if column in named]

    def captions(self) -> Iterator[tuple[str, str]]:
        return _captions(self.table, lambda video: video)


class _TablePart(Part):
    def __init__(self, table: Path, videos: Path, column: str, called: str) -> None:
        self.name, self.column = f"{table.name}: {called}", column
        self._table, self._root, self._called = table, videos.resolve(), called

    def films(self, is_wanted: Callable[[str], bool], scratch: Path) -> Iterator[Film | Skipped]:
        for row in _rows(self._table):
            video, path = row.get("video") or "", row.get(self._called) or ""
            if not video or not path or not is_wanted(video):
                continue
            file = self._root / path
            if not _is_inside(file, self._root):
                yield Skipped(video, f"{self._called} is missing, or outside the folder of videos")
            else:
                yield Film(video, file, False)


def _is_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root) and path.is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def _header(table: Path) -> list[str]:
    with _opened(table) as rows:
        return list(rows.fieldnames or ())


def _captions(table: Path, id_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    columns = _header(table)
    video = next((name for name in ("video", "path", "id") if name in columns), None)
    caption = next((name for name in ("prompt", "caption") if name in columns), None)
    if video is None or caption is None:
        raise PlanError(f"{table} has no columns video and prompt; it has {', '.join(columns)}")
    for row in _rows(table):
        if row.get(video) and row.get(caption):
            yield id_of(row[video]), re.sub(CONTROLS, "", row[caption])


def _rows(table: Path) -> Iterator[dict[str, str]]:
    with _opened(table) as rows:
        try:
            yield from rows
        except csv.Error as error:
            raise PlanError(f"{table}, line {rows.line_num}: {error}") from error


@contextmanager
def _opened(table: Path) -> Iterator[Any]:
    csv.field_size_limit(_LARGEST_CELL)
    with open_regular(table):  # a pipe would be waited for
        pass
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        yield csv.DictReader(_lines(file, table))


def _lines(file: IO[str], table: Path) -> Iterator[str]:
    while line := file.readline(_LARGEST_CELL):
        if len(line) == _LARGEST_CELL:  # a hole, or no table at all
            raise PlanError(f"{table} has a line of more than {_LARGEST_CELL:,} characters; it is no CSV table")
        yield line
