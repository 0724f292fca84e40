"""The caption beside a video: `<stem>.json`, `<stem>.txt`, or either behind the whole file name.

JSON is read as `{"caption": "…"}`. What downloaders leave there (img2dataset, video2dataset: a status, no caption) is
not an error: the text file is used, or the video goes without a caption; what was not used is said.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openuni.errors import OpenUniError
from openuni.sources import text
from openuni.sources.text import UnknownEncodingError

CAPTION_BYTES = 64 * 1024
"""The largest caption file that is read."""
SUFFIXES = (".json", ".txt")
"""Of side-cars, in the order they are asked; upper case counts as well."""


class BadCaptionError(OpenUniError):
    """A side-car that cannot be used; the message is the reason to skip the video."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a side-car that the user should know, though its video is kept."""

    file: str
    what: str


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption as plain text, "" without one, and what is to be said of the files it might have come from."""

    text: str
    remarks: tuple[Remark, ...] = ()


_LONGEST_NAME = 255
"""Bytes that a file's name may have; `.json` in place of `.mp4` may be one too many."""


def side_cars(video: Path) -> Iterator[Path]:
    """Where the caption of `video` may lie, best first."""
    for suffix in SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            for path in (video.with_suffix(spelled), video.with_name(video.name + spelled)):
                if len(os.fsencode(path.name)) <= _LONGEST_NAME:
                    yield path


def read(video: Path, root: Path) -> Caption:
    """The caption of `video`, a file below `root`.

    Raises BadCaptionError where a side-car is damaged, too large, in an unknown encoding, or a link out of `root`.
    """
    remarks: list[Remark] = []
    for path in side_cars(video):
        if not path.is_file():
            continue
        decoded = _decoded(path, root)
        if decoded.is_guessed:
            remarks.append(Remark(path.name, f"caption file is not UTF-8 and was read as {decoded.encoding}"))
        if path.suffix.lower() == ".txt":
            return _caption(decoded.value, path, remarks)
        captions = _json_captions(decoded.value)
        if captions:
            if len(captions) > 1:
                remarks.append(Remark(path.name, "caption file has several captions; the first was used"))
            return _caption(captions[0], path, remarks)
        remarks.append(Remark(path.name, "side-car JSON without a caption was not used"))
    return Caption("", tuple(remarks))


def _decoded(path: Path, root: Path) -> text.Text:
    try:
        inside = path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # a broken link, a loop
        inside = False
    if not inside:
        raise BadCaptionError("caption file is a symbolic link that leaves the folder")
    with path.open("rb") as file:
        data = file.read(CAPTION_BYTES + 1)
    if len(data) > CAPTION_BYTES:
        raise BadCaptionError(f"caption file is larger than {CAPTION_BYTES} bytes")
    try:
        return text.decode(data)
    except UnknownEncodingError as error:
        raise BadCaptionError(f"caption file: {error}") from error


def _json_captions(value: str) -> list[str]:
    """The captions in a side-car; none in one that is somebody else's."""
    try:
        content = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadCaptionError("caption file is not JSON") from error
    caption = content.get("caption") if isinstance(content, dict) else None
    captions = caption if isinstance(caption, list) else [caption]
    return [c for c in captions if isinstance(c, str)]


def _caption(value: str, path: Path, remarks: list[Remark]) -> Caption:
    if re.search(text.CONTROLS, value):
        remarks.append(Remark(path.name, text.CONTROLS_REMOVED))
    return Caption(_plain(value), tuple(remarks))


def _plain(value: str) -> str:
    """Without control characters (line breaks and tabs become spaces) and without halves of surrogate pairs."""
    value = value.encode("utf-8", "replace").decode().replace("\r\n", "\n")
    spaced = "".join(" " if c in "\n\r\t" else c for c in value)
    return re.sub(text.CONTROLS, "", spaced).strip()
