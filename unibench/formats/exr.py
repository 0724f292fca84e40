"""OpenEXR, bounded: a header is judged before pixels are read, and half precision is known for what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError, InvalidAnnotationError
from unibench.formats.bounded import MOST_PIXELS, read_text

Singles = npt.NDArray[np.float32]

_MOST_BYTES = 2**32
"""Bytes that all channels of a file may take, at most."""
_MOST_RATIO = 1100
"""Bytes of pixels for each byte of file, at most: no compression of OpenEXR exceeds deflate's 1032."""


@dataclass(frozen=True, slots=True, eq=False)
class Exr:
    """One part of a file: channels by full name, each `[H, W]` of the display window (zero outside the data window).

    A channel keeps its own type: float32, float16 or uint32. `header` has the attributes by name.
    """

    path: Path
    channels: Mapping[str, npt.NDArray[Any]]
    header: Mapping[str, Any]

    def single(self, suffix: str) -> Singles:
        """The one float32 channel whose name ends so. Raises naming file and channel: missing, double, or half."""
        found = [name for name in self.channels if name.endswith(suffix)]
        if len(found) != 1:
            raise CorruptDataError(
                f"{self.path}: {len(found) or 'no'} channels end in {suffix!r}; render that pass, once. "
                f"The file has: {', '.join(sorted(self.channels))[:300]}"
            )
        values = self.channels[found[0]]
        if values.dtype != np.float32:
            raise InvalidAnnotationError(
                f"{self.path}: channel {found[0]} is {values.dtype}, which keeps 11 bits and ends at 65,504; "
                "render with 32 bits (in Unreal: 'Use 32 Bit Post Process Materials')"
            )
        return values


def read_exr(path: Path) -> tuple[Exr, ...]:
    """All parts of a file. Raises CorruptDataError for a header beyond the bounds before memory is taken."""
    import OpenEXR

    if not path.is_file():
        raise CorruptDataError(f"{path} is missing")
    try:
        with OpenEXR.File(str(path), header_only=True) as file:
            headers = [dict(part.header) for part in file.parts]
    except (RuntimeError, ValueError, TypeError, OSError, MemoryError) as error:
        raise CorruptDataError(f"{path} is not a readable OpenEXR file: {error}") from error
    total = sum(_bytes(path, header) for header in headers)
    if not headers or total > min(_MOST_BYTES, _MOST_RATIO * path.stat().st_size):
        raise CorruptDataError(
            f"{path} claims {total} bytes of pixels in {path.stat().st_size} of file; it is not read"
        )
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            parts = tuple(_part(path, part) for part in file.parts)
    except (RuntimeError, ValueError, TypeError, OSError, MemoryError) as error:
        raise CorruptDataError(f"{path}: its pixels cannot be read: {error}") from error
    if len(parts) != len(headers):  # OpenEXR prints what is wrong with a part's pixels, and leaves the part out
        raise CorruptDataError(
            f"{path}: the pixels of {len(headers) - len(parts)} parts cannot be read; it is cut short"
        )
    return parts


def read_depth(path: Path) -> Singles:
    """The depth channel `[H, W]` of the first part: Z, depth.Z, V, Y or R, of any float type."""
    channels = read_exr(path)[0].channels
    for name in ("Z", "depth.Z", "V", "Y", "R"):
        if name in channels:
            return np.asarray(channels[name], np.float32)
    raise InvalidAnnotationError(f"{path} has channels {', '.join(channels)}; expected depth in Z, V, Y or R")


def cryptomatte(exr: Exr, layer: str) -> tuple[npt.NDArray[np.uint32], dict[int, str]]:
    """Hashes `[H, W]` of what covers most of each pixel, and names by hash, of a Cryptomatte layer ending in `layer`.

    Cryptomatte specification 1.2.0: the hash is the bit pattern of a float32; the manifest writes the same 32 bits as
    eight hex digits, most significant first. Raises CorruptDataError where layer or manifest is missing, and
    InvalidAnnotationError where the pixels' hashes are none of the manifest's.
    """
    keys = [k for k, v in exr.header.items() if re.fullmatch(r"cryptomatte/\w+/name", k) and str(v).endswith(layer)]
    if len(keys) != 1:
        raise CorruptDataError(f"{exr.path} has {len(keys) or 'no'} Cryptomatte named {layer!r}; render object ids")
    prefix = keys[0].removesuffix("name")
    name = str(exr.header[keys[0]])
    names = _manifest(exr, prefix)
    found = next((c for c in exr.channels if re.fullmatch(rf".*{re.escape(name)}00\.(R|r|red)", c)), None)
    if found is None:
        raise CorruptDataError(f"{exr.path}: Cryptomatte {name} has no channel {name}00.R")
    pixels = exr.channels[found]
    if pixels.dtype != np.float32:
        raise InvalidAnnotationError(f"{exr.path}: channel {found} is {pixels.dtype}; hashes need 32 bits")
    hashes = pixels.view(np.uint32)
    shown = set(np.unique(hashes).tolist()) - {0}
    if names and shown and not shown & set(names):
        raise InvalidAnnotationError(f"{exr.path}: no hash in {found} is in the manifest; is its byte order swapped?")
    return hashes, names


def _manifest(exr: Exr, prefix: str) -> dict[int, str]:
    text = exr.header.get(f"{prefix}manifest")
    beside = exr.header.get(f"{prefix}manif_file")
    if text is None and beside is not None:
        path = exr.path.with_name(Path(str(beside)).name)  # the name only: a header must not lead elsewhere
        text = read_text(path) if path.is_file() else None
    if text is None:
        raise CorruptDataError(
            f"{exr.path}: its Cryptomatte has no manifest, inside or beside; hashes alone name nothing"
        )
    try:
        return {int(value, 16): name for name, value in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise CorruptDataError(
            f"{exr.path}: its Cryptomatte manifest is not a table of names and hashes: {error}"
        ) from error


def _bytes(path: Path, header: Mapping[str, Any]) -> int:
    """Bytes of all channels, from the header alone; display and data window are both bounded."""
    for window in ("dataWindow", "displayWindow"):
        (x0, y0), (x1, y1) = (np.asarray(corner).tolist() for corner in header[window])
        width, height = x1 - x0 + 1, y1 - y0 + 1
        if min(width, height) < 1 or width * height > MOST_PIXELS:
            raise CorruptDataError(f"{path}: {window} of {width} × {height} pixels; at most {MOST_PIXELS} are read")
        if window == "dataWindow":
            pixels = width * height
    return int(pixels) * 4 * len(header["channels"])


def _part(path: Path, part: Any) -> Exr:
    (x0, y0), (x1, y1) = (np.asarray(corner).tolist() for corner in part.header["displayWindow"])
    (u0, v0), (u1, v1) = (np.asarray(corner).tolist() for corner in part.header["dataWindow"])
    channels = {}
    for name, channel in part.channels.items():
        values = np.asarray(channel.pixels)
        if values.shape != (v1 - v0 + 1, u1 - u0 + 1):
            raise CorruptDataError(f"{path}: channel {name} is subsampled; truth has one value a pixel")
        full = np.zeros((y1 - y0 + 1, x1 - x0 + 1), values.dtype)
        left, top, right, bottom = max(x0, u0), max(y0, v0), min(x1, u1) + 1, min(y1, v1) + 1
        if left < right and top < bottom:
            full[top - y0 : bottom - y0, left - x0 : right - x0] = values[
                top - v0 : bottom - v0, left - u0 : right - u0
            ]
        channels[name] = full
    return Exr(path, channels, dict(part.header))
