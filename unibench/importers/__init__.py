"""Other people's ground truth in OpenUni's terms: one file a format, each `read_…(src)` a stream of clips."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from openuni.errors import OpenUniError
from unibench.importers.base import Imported

FORMATS = {
    "sintel": "middlebury:read_sintel",
    "middlebury": "middlebury:read_middlebury",
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


def read(name: str, src: Path) -> Iterator[Imported]:
    """Stream the clips of a folder in a format. Raises OpenUniError listing the formats, or naming a bad file."""
    if name not in FORMATS:
        raise OpenUniError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    if not src.is_dir():
        raise OpenUniError(f"{src} is no folder; give the one that holds the files of {name}")
    module, function = FORMATS[name].split(":")
    clips: Iterator[Imported] = getattr(import_module(f"unibench.importers.{module}"), function)(src)
    yield from clips


__all__ = ["FORMATS", "Imported", "read"]
