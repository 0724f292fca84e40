"""`folder`: every video below a folder, cut into shots, the shots into clips; captions from side-cars if there are any.

A caption lies beside its video as `<stem>.json` (`{"caption": "…"}`) or `<stem>.txt`. What lies there and is neither a
video nor such a file is left out by name.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from openuni.errors import BadVideoError, PlanError
from openuni.sample import Clip, make_key
from openuni.sources import captions, transnet
from openuni.sources.base import Entry, Request, Skipped, Source
from openuni.sources.captions import BadCaptionError
from openuni.sources.shots import Detector, find_shots, windows
from openuni.video import SUFFIXES, probe

UNDER_WAY = ".download"
"""The folder below one of videos that holds what is being downloaded, which is not looked at."""
_WITHOUT = "; dissolves in which things move are not found without openuni[shots]"
_TOO_SHORT = "shot shorter than the shortest clip"


@dataclass(frozen=True)
class Folder(Source):
    """One row a video file; its id, and the `video_id` of its clips, is the path below `--videos`."""

    shots: Detector | None = None
    """What finds cuts and dissolves: adaptive (PySceneDetect's detector) or transnetv2, which adds dissolves in which
    things move, and needs openuni[shots]. Default: transnetv2 where it is installed."""

    name: ClassVar[str] = "folder"
    needs: ClassVar[tuple[str, ...]] = ("videos",)

    @property
    def options(self) -> dict[str, Any]:
        """As of any source, with the detector that is used; that of datasets from before there were two is not said."""
        return {} if self.detector == "adaptive" else {"shots": self.detector}

    @property
    def detector(self) -> Detector:
        return self.shots or ("adaptive" if transnet.missing() else "transnetv2")

    @property
    def remarks(self) -> list[str]:
        if self.detector == "transnetv2":
            return ["shots: by PySceneDetect and TransNetV2"]
        return [f"shots: by PySceneDetect{'' if self.shots else _WITHOUT}"]

    def going_on(self, options: Mapping[str, Any]) -> Folder:
        return replace(self, shots=self.shots or options.get("shots", "adaptive"))

    def check(self, request: Request) -> None:
        if self.shots == "transnetv2" and (package := transnet.missing()):
            raise PlanError(f"--shots transnetv2 needs {package}; run: pip install 'openuni[shots]'")
        super().check(request)

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
            caption = captions.read(video, root)
            request = request.at_rate(probe(video, request.limits).own_fps)
            shots = find_shots(video, request.min_seconds, request.limits, self.detector)
        except BadVideoError as error:
            return [Skipped(entry.id, f"unreadable video: {str(error).removeprefix(f'{video}: ')}")]
        except BadCaptionError as error:
            return [Skipped(entry.id, str(error))]
        folder = PurePosixPath(entry.id).parent
        clips: list[Clip | Skipped] = [Skipped(str(folder / said.file), said.what) for said in caption.remarks]
        pieces = [
            (number, piece)
            for number, shot in enumerate(shots)
            for piece in windows(shot, request.clip_seconds, request.min_seconds)
        ]
        for index, (number, piece) in enumerate(pieces):
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
                    caption=caption.text,
                    source=self.name,
                    source_id=name,
                    video_id=entry.id,
                    license=self.license,
                    scores={"shot": float(number)},
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

    A video is known by its suffix; any other file but a caption is `Skipped`. Symbolic links to folders are not
    followed, links that leave `root` are refused.
    """
    pending = [""]
    while pending:
        below = pending.pop()
        try:
            items = sorted(os.scandir(f"{root}/{below}"), key=attrgetter("name"))
        except OSError:
            yield Skipped(_printable(root / below, root), "folder cannot be listed")
            continue
        folders: list[str] = []
        captioned: set[str] | None = None
        for item in items:
            path = below + item.name
            # Nearly all are plain files below a folder that no link was followed into: nothing is resolved for them.
            if item.is_file(follow_symlinks=False) and path.isprintable() and _has_suffix(item.name):
                yield path
                continue
            if item.is_dir(follow_symlinks=False):
                if item.name != UNDER_WAY:
                    folders.append(f"{path}/")
                continue
            if captioned is None:
                captioned = {part for item in items if _is_video(item) for part in (_stem(item.name), item.name)}
            if (row := _odd(item, root, captioned)) is not None:
                yield row
        pending += reversed(folders)


def _odd(item: os.DirEntry[str], root: Path, captioned: Container[str]) -> str | Skipped | None:
    """What is not plainly a video: one after all, or why not; None for what needs no word."""
    path = Path(item.path)
    name = _printable(path, root)
    if path.is_dir():
        return Skipped(name, "symbolic link to a folder") if item.is_symlink() else None
    if name != path.relative_to(root).as_posix():
        return Skipped(name, "file name is not UTF-8")
    if not _is_video(item):
        reason = _no_video(path, captioned)
        return Skipped(name, reason) if reason else None
    if not _is_inside(path, root):
        return Skipped(name, "symbolic link that leaves the folder")
    return name if path.is_file() else Skipped(name, "not a regular file")


def _has_suffix(name: str) -> bool:
    """As a path's suffix would tell, at a third of the time: a folder may have millions."""
    stem, _, suffix = name.rpartition(".")
    return f".{suffix}".lower() in SUFFIXES and stem.strip(".") != ""


def _is_video(item: os.DirEntry[str]) -> bool:
    if not _has_suffix(item.name):
        return False
    # An entry knows plain files without a look at the disk, and raises for a link that leads to itself.
    return not (Path(item).is_dir() if item.is_symlink() else item.is_dir())


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


def _no_video(path: Path, captioned: Container[str]) -> str:
    """Why a file that is not a video is left out; "" for the caption of one."""
    if path.suffix.lower() not in captions.SUFFIXES:
        return f"not a video by its suffix ({path.suffix.lower() or 'it has none'})"
    return "" if path.stem in captioned else "caption file without a video of its name"


def _is_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # a broken link, a loop
        return False


def _printable(path: Path, root: Path) -> str:
    """The relative path; bytes that are not UTF-8 as escapes, so that it can be logged and stored."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()
