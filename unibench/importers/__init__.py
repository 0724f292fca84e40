"""Other people's ground truth in OpenUni's terms: one file a format, each `read_…(src)` a stream of clips."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from openuni.errors import OpenUniError
from unibench.importers.base import Imported, LeftOut

FORMATS = {
    "sintel": "middlebury:read_sintel",
    "middlebury": "middlebury:read_middlebury",
    "middlebury-stereo": "stereo:read_middlebury_stereo",
    "flyingchairs": "middlebury:read_flying_chairs",
    "kitti": "kitti:read_kitti",
    "tum": "tum:read_tum",
    "icl": "tum:read_icl",
    "tartanair-v1": "tartanair:read_tartanair_v1",
    "tartanair-v2": "tartanair:read_tartanair_v2",
    "kubric": "kubric:read_kubric",
    "unreal": "unreal:read_unreal",
    "easysynth": "easysynth:read_easysynth",
    "unrealcv": "unrealcv:read_unrealcv",
    "davis": "davis:read_davis",
    "coco": "coco:read_coco",
}
"""Where each format's reader is, by the name that the command line takes."""


class Clips(Iterator[Imported]):
    """The clips of a source, one at a time; `left_out` is what has not become one, of what has been read so far."""

    def __init__(self, stream: Iterator[Imported | LeftOut]) -> None:
        self._stream = stream
        self.left_out: list[LeftOut] = []

    def __next__(self) -> Imported:
        for item in self._stream:
            if isinstance(item, Imported):
                return item
            self.left_out.append(item)
        raise StopIteration


def read(name: str, src: Path) -> Clips:
    """Stream the clips of a folder in a format. Raises OpenUniError listing the formats, or (while it is read) naming a
    bad file."""
    if name not in FORMATS:
        raise OpenUniError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    if not src.is_dir():
        raise OpenUniError(f"{src} is no folder; give the one that holds the files of {name}")
    module, function = FORMATS[name].split(":")
    return Clips(getattr(import_module(f"unibench.importers.{module}"), function)(src))


__all__ = ["FORMATS", "Clips", "Imported", "LeftOut", "read"]
