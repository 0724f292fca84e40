"""`folder`: every video below a folder, cut into shots, the shots into clips; captions from side-cars if there are any.

A caption lies beside its video as `<stem>.json` (`{"caption": "…"}`) or `<stem>.txt`.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import ClassVar

from openuni.errors import BadVideoError, OpenUniError, PlanError
from openuni.sample import Clip, make_key
from openuni.sources.base import Entry, Request, Skipped, Source
from openuni.sources.shots import find_shots, windows
from openuni.video import SUFFIXES

CAPTION_BYTES = 64 * 1024
_TOO_SHORT = "shot shorter than the shortest clip"


class Folder(Source):
    """One row a video file; its id, and the `video_id` of its clips, is the path below `--videos`."""

    name: ClassVar[str] = "folder"

    def entries(self, request: Request) -> Iterator[Entry | Skipped]:
        rows = videos_below(video_root(self.name, request))
        for _, below in groupby(rows, key=_parent):
            siblings = list(below)
            stems = Counter(PurePosixPath(name).stem for name in siblings if isinstance(name, str))
            for name in siblings:
                if isinstance(name, Skipped):
                    yield name
                else:
                    # The suffix is part of a key only where it tells two videos apart.
                    path = PurePosixPath(name)
                    yield Entry(name, {"key": name if stems[path.stem] > 1 else path.with_suffix("").as_posix()})

    def expand(self, entry: Entry, request: Request) -> list[Clip | Skipped]:
        root = video_root(self.name, request)
        video = root / entry.id
        if not _is_inside(video, root):
            return [Skipped(entry.id, "path leaves the folder")]
        try:
            caption = _caption(video, root)
            shots = find_shots(video, request.min_seconds, request.limits)
        except BadVideoError as error:
            return [Skipped(entry.id, f"unreadable video: {str(error).removeprefix(f'{video}: ')}")]
        except _BadCaptionError as error:
            return [Skipped(entry.id, str(error))]
        clips: list[Clip | Skipped] = []
        pieces = [piece for shot in shots for piece in windows(shot, request.clip_seconds)]
        for index, piece in enumerate(pieces):
            name = f"{entry.id}-{index:04d}"
            if piece.seconds < request.min_seconds:
                clips.append(Skipped(name, _TOO_SHORT))
                continue
            clips.append(
                Clip(
                    key=make_key(f"{entry.fields['key']}-{index:04d}"),
                    video=str(video),
                    start=piece.start,
                    end=piece.end,
                    caption=caption,
                    source=self.name,
                    source_id=name,
                    video_id=entry.id,
                    license=self.license,
                )
            )
        return clips


def _parent(row: str | Skipped) -> str:
    return str(PurePosixPath(row.id if isinstance(row, Skipped) else row).parent)


def video_root(source: str, request: Request) -> Path:
    """The folder `--videos`, resolved. Raises PlanError where it is not given or not there."""
    if request.videos is None:
        raise PlanError(f"source {source} needs a folder of videos: give --videos FOLDER")
    if not request.videos.is_dir():
        raise PlanError(f"{request.videos} is not a folder; give --videos the folder that holds the video files")
    return request.videos.resolve()


def videos_below(root: Path) -> Iterator[str | Skipped]:
    """Paths relative to `root`, with `/`, of the video files below it, folder by folder in the order of their names.

    A video is known by its suffix. Symbolic links to folders are not followed, links that leave `root` are refused.
    """
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            items = sorted(os.scandir(folder), key=lambda item: item.name)
        except OSError:
            yield Skipped(_printable(folder, root), "folder cannot be listed")
            continue
        pending += [folder / item.name for item in reversed(items) if item.is_dir(follow_symlinks=False)]
        for item in items:
            path = folder / item.name
            if item.is_symlink() and path.is_dir():
                yield Skipped(_printable(path, root), "symbolic link to a folder")
            elif path.suffix.lower() in SUFFIXES and not path.is_dir():
                name = _printable(path, root)
                if name != path.relative_to(root).as_posix():
                    yield Skipped(name, "file name is not UTF-8")
                elif not _is_inside(path, root):
                    yield Skipped(name, "symbolic link that leaves the folder")
                elif not path.is_file():
                    yield Skipped(name, "not a regular file")
                else:
                    yield name


def _is_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # a broken link, a loop
        return False


def _printable(path: Path, root: Path) -> str:
    """The relative path; bytes that are no UTF-8 as escapes, so that it can be logged and stored."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


class _BadCaptionError(OpenUniError):
    """A side-car that cannot be used; the message is the reason to skip the video."""


def _caption(video: Path, root: Path) -> str:
    """The side-car's caption, or "" without one."""
    for suffix in (".json", ".txt"):
        path = video.with_suffix(suffix)
        if not path.is_file():
            continue
        if not _is_inside(path, root):
            raise _BadCaptionError("caption file is a symbolic link that leaves the folder")
        with path.open("rb") as file:
            data = file.read(CAPTION_BYTES + 1)
        if len(data) > CAPTION_BYTES:
            raise _BadCaptionError(f"caption file is larger than {CAPTION_BYTES} bytes")
        text = data.decode("utf-8-sig", "replace")
        return _plain(_json_caption(text) if suffix == ".json" else text)
    return ""


def _json_caption(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _BadCaptionError("caption file is not JSON") from error
    caption = value.get("caption") if isinstance(value, dict) else None
    if not isinstance(caption, str):
        raise _BadCaptionError('caption file is not of the form {"caption": "…"}')
    return caption


def _plain(text: str) -> str:
    """Without control characters (line breaks and tabs become spaces) and without halves of surrogate pairs."""
    text = text.encode("utf-8", "replace").decode()
    spaced = "".join(" " if c in "\n\r\t" else c for c in text)
    return "".join(c for c in spaced if unicodedata.category(c) != "Cc").strip()
