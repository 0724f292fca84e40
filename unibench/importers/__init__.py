"""Other people's ground truth in OpenUni's terms: one file a format, each `read_…(src)` a stream of clips."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from openuni.errors import OpenUniError
from unibench.importers.base import Categories, Imported, LeftOut

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
    "youtube-vis": "youtube_vis:read_youtube_vis",
    "voc": "voc:read_voc",
    "cityscapes": "cityscapes:read_cityscapes",
}
"""Where each format's reader is, by the name that the command line takes."""


class Clips(Iterator[Imported]):
    """The clips of a source, one at a time; `left_out` is what has not become one, and `categories` the names of the
    source's categories, of what has been read so far.

    Raises OpenUniError where two tables of a source name one category differently.
    """

    def __init__(self, stream: Iterator[Imported | LeftOut | Categories]) -> None:
        self._stream = stream
        self.left_out: list[LeftOut] = []
        self.categories: dict[int, str] = {}

    def __next__(self) -> Imported:
        for item in self._stream:
            if isinstance(item, Imported):
                return item
            if isinstance(item, LeftOut):
                self.left_out.append(item)
                continue
            for number, name in item.names.items():
                if self.categories.setdefault(number, name) != name:
                    raise OpenUniError(
                        f"category {number} is {name!r} in one table and {self.categories[number]!r} in another; "
                        "import them apart"
                    )
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


__all__ = ["FORMATS", "Categories", "Clips", "Imported", "LeftOut", "read"]
