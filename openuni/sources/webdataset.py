"""`webdataset`: tars of video2dataset, and any WebDataset with a video, and JSON or text beside it, a sample.

`--videos` is a folder of uncompressed tars (`00000.tar`, …). Nothing is unpacked: a clip names the bytes of its
video in the tar, so the tars must stay where they are until the dataset is built. Members of a sample stand together
and share what is before the first dot of their file names.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from openuni.choosing import quoted, text
from openuni.errors import PlanError
from openuni.source_fields import encode
from openuni.sources import selection
from openuni.sources.base import Request, Skipped
from openuni.sources.folder import video_root
from openuni.sources.rows import RowSource
from openuni.sources.selection import Fields, Relation, clock
from openuni.sources.tars import Header
from openuni.sources.text import UnknownEncodingError, decode
from openuni.storage import open_regular
from openuni.video import SUFFIXES
from openuni.video.member import Member

_LARGEST_TEXT = 1 << 20
"""Bytes of a JSON or text member; a larger one is left unread."""
_MOST_NUMBERS = 200
"""Numbers of JSON members that become scores, by name, first come."""
_FIELDS = "source_fields"
_TEXTS = ("id", "video", "caption", "video_id", "license", "duration", "width", "height", _FIELDS)
_VIDEO = ("video_id", "videoid", "url")
"""What may name the source video, best first."""
_EXACT = 2**53
"""Beyond it not every whole number is a float."""


@dataclass(frozen=True)
class WebDataset(RowSource):
    """A clip a sample, keyed by the tar's name and the sample's.

    The numbers of its JSON become scores, all else in it source fields.
    """

    name: ClassVar[str] = "webdataset"
    needs: ClassVar[tuple[str, ...]] = ("videos",)

    def check(self, request: Request) -> None:
        _tars(request)

    def rows(self, request: Request, scratch: Path) -> Relation:
        target, numbers, remarks = scratch / "samples.jsonl", dict[str, str](), list[Skipped]()
        with target.open("w", encoding="utf-8", errors="backslashreplace") as lines:
            for sample in _samples(request):
                if isinstance(sample, Skipped):
                    remarks.append(sample)
                    continue
                row = sample.row()
                for column in row:
                    # DuckDB tells no `Score` from a `score`: the first spelling is kept.
                    if column not in _TEXTS and len(numbers) < _MOST_NUMBERS:
                        numbers.setdefault(column.lower(), column)
                try:
                    row[_FIELDS] = encode(others) if (others := sample.others(numbers.values(), row)) else None
                except ValueError as error:
                    remarks.append(Skipped(f"{sample.id}.json", f"{error}; they were left out"))
                lines.write(json.dumps(row) + "\n")
        columns = {**dict.fromkeys(_TEXTS, "VARCHAR"), **dict.fromkeys(numbers.values(), "DOUBLE")}
        typed = ", ".join(f"{text(column)}: {text(kind)}" for column, kind in columns.items())
        listed = selection.listed([target])
        sql = f"read_json({listed}, format = 'newline_delimited', columns = {{{typed}}})"
        return Relation(sql, video_root(self.name, request), remarks=tuple(remarks))

    def fields(self, columns: Mapping[str, str], rows: Relation) -> Fields:
        return Fields(
            id="id",
            takes_paths=True,
            video="video",
            video_id="video_id",
            duration=clock("duration"),
            caption="caption",
            license=f"coalesce(nullif(trim(license), ''), {text(self.license)})",
            scores={column: quoted(column) for column in columns if column not in _TEXTS},
            source_fields=_FIELDS,
        )

    def listing(self, request: Request) -> Iterator[str | Skipped]:
        """The videos in the tars; what is wrong with a tar is said with the rows."""
        for sample in _samples(request, read=False):
            if isinstance(sample, _Sample) and sample.video:
                yield sample.video


@dataclass(slots=True)
class _Sample:
    """What a tar holds of one sample."""

    id: str
    video: str = ""
    """Its path below `--videos`, as `Member.path` writes it."""
    caption: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    """Its JSON."""

    def row(self) -> dict[str, Any]:
        said = self.about
        source = next((str(said[name]) for name in _VIDEO if said.get(name)), self.id)
        texts = {
            name: str(said[name]) for name in ("license", "duration", "width", "height") if said.get(name) is not None
        }
        caption = self.caption or (said["caption"] if isinstance(said.get("caption"), str) else "")
        taken = {name.lower() for name in _TEXTS}
        numbers = {
            name: float(value)
            for name, value in said.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and name.lower() not in taken
            and name.isprintable() and name and abs(value) < 1e300 and math.isfinite(value)
        }  # fmt: skip
        return {"id": self.id, "video": self.video or None, "caption": caption, "video_id": source, **texts, **numbers}

    def others(self, scores: Collection[str], row: Mapping[str, Any]) -> dict[str, Any]:
        """What the JSON says beside `scores` and the texts of its `row` that a clip has as they are."""
        named = next((name for name in _VIDEO if self.about.get(name)), "")
        texts = {"caption": row["caption"], named: row["video_id"], "license": row.get("license")}
        return {
            name: value
            for name, value in self.about.items()
            if not (isinstance(value, str) and texts.get(name) == value)
            and not (name in scores and name in row and not (isinstance(value, int) and abs(value) > _EXACT))
        }


def _samples(request: Request, read: bool = True) -> Iterator[_Sample | Skipped]:
    """The samples of all tars in order. Without `read`, text and JSON are not."""
    root = video_root(WebDataset.name, request)
    for tar in _tars(request):
        below = tar.relative_to(root).as_posix()
        try:
            with open_regular(tar) as file, tarfile.open(fileobj=file, mode="r:", tarinfo=Header) as archive:
                members = (info for info in archive if info.isreg() and not info.issparse())
                for key, together in groupby(members, key=lambda info: _split(info.name)[0]):
                    yield from _sample(archive, tar, root, key, list(together), read)
        except (tarfile.TarError, OSError, EOFError) as error:
            yield Skipped(below, f"tar cannot be read on: {error}")


def _sample(
    archive: tarfile.TarFile, tar: Path, root: Path, key: str, members: list[tarfile.TarInfo], read: bool
) -> Iterator[_Sample | Skipped]:
    below = tar.relative_to(root)
    name = f"{below.with_suffix('').as_posix()}/{key}".replace("/", "-")
    if not _is_plain(key):
        yield Skipped(name.encode("utf-8", "backslashreplace").decode(), "member's name leaves the tar's folder")
        return
    sample = _Sample(name)
    for info in members:
        suffix = _split(info.name)[1].lower()
        if f".{suffix}" in SUFFIXES and not sample.video:
            sample.video = Member(below, info.offset_data, info.size).path(info.name)
        elif read and suffix in ("json", "txt"):
            if info.size > _LARGEST_TEXT:
                yield Skipped(f"{name}.{suffix}", f"larger than {_LARGEST_TEXT} bytes")
                continue
            stream = archive.extractfile(info)
            data = stream.read() if stream else b""
            if suffix == "txt":
                try:
                    sample.caption = decode(data).value.strip()
                except UnknownEncodingError as error:
                    yield Skipped(f"{name}.txt", str(error))
                continue
            try:
                about = json.loads(data)
            except (ValueError, RecursionError):
                about = None
            if isinstance(about, dict):
                sample.about = about
            else:
                yield Skipped(f"{name}.json", "not a JSON object")
    yield sample


def _split(name: str) -> tuple[str, str]:
    """A sample's key, and what its member is.

    Example:
        >>> _split("a.b/0001.rgb.mp4")
        ('a.b/0001', 'rgb.mp4')
    """
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return (path.parent / stem).as_posix(), suffix


def _is_plain(key: str) -> bool:
    return key.isprintable() and not key.startswith("/") and ".." not in PurePosixPath(key).parts


def _tars(request: Request) -> list[Path]:
    """The tars below `--videos`, in order. Raises PlanError where there is none."""
    root = video_root(WebDataset.name, request)
    tars = [path for path in sorted(root.rglob("*.tar")) if path.is_file() and path.resolve().is_relative_to(root)]
    if not tars:
        raise PlanError(f"{root} holds no .tar; compressed tars must be uncompressed (gunzip *.tar.gz) first")
    return tars
