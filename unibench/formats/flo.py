"""Middlebury's `.flo` and its kin (Sintel's `.dpt`): a tag, width, height, and little-endian float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.storage import open_regular
from unibench.formats.bounded import check_size

TAG = b"PIEH"
"""The float 202021.25, little-endian: shows a byte order that is not."""
_UNKNOWN = 1e9
Singles = npt.NDArray[np.float32]


def read_flo(path: Path) -> Singles:
    """Optical flow `[H, W, 2]` in pixels (x right, y down); NaN where unknown (beyond 1e9)."""
    flow = read_tagged(path, 2)
    with np.errstate(invalid="ignore"):
        unknown = ~(np.abs(flow) <= _UNKNOWN).all(axis=-1)
    flow[unknown] = np.nan
    return flow


def read_tagged(path: Path, channels: int) -> Singles:
    """Tag, int32 width and height, then float32 rows of interleaved channels `[H, W, channels]`.

    Raises CorruptDataError where tag, size or length are wrong.
    """
    with open_regular(path) as file:
        head = file.read(12)
        if head[:4] != TAG or len(head) < 12:
            raise CorruptDataError(f"{path} does not start with {TAG!r}: another format, or another byte order")
        width, height = (int(side) for side in np.frombuffer(head, "<i4", offset=4))
        check_size(path, width, height)
        expected = width * height * channels * 4
        found = path.stat().st_size - 12
        if found != expected:
            raise CorruptDataError(
                f"{path}: {width} × {height} take {expected} bytes, the file has {found}; it is cut short"
            )
        return np.fromfile(file, "<f4").reshape(height, width, channels).astype(np.float32)
