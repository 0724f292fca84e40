"""What is taken for a video, and how much of this machine one may ask for."""

from __future__ import annotations

from dataclasses import dataclass

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "flv", "ivf", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "mxf", "ogv", "ts", "vob", "webm", "wmv"),
    )
)
"""File name suffixes (lower case) by which the sources recognise a video."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a video may ask of this machine; whatever asks for more is a BadVideoError before memory is taken."""

    side: int = 16384
    """Width or height, pixels."""
    pixels: int = 8192 * 8192
    """Pixels of one frame."""
    seconds: float = 24 * 3600.0
    """Declared duration."""
    frames: int = 4_000_000
    """Frames decoded or sampled in one pass."""
    array_bytes: int = 4 << 30
    """Bytes of an array that holds a whole decoded video."""
