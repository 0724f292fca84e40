"""Palette PNG: the index of each pixel is the id (DAVIS, Kubric, BlenderProc); the colours are for people.

OpenCV turns indices into colours, so the chunks are read here (PNG specification, ISO/IEC 15948): indices of
8 bits, or of 1, 2 or 4, which programs write where a palette is short.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from unibench.formats.bounded import check_size, read_bytes, read_png

_LARGEST = 256 << 20
"""Bytes of a file: as many as its most pixels take, and more."""


def read_indices(path: Path) -> npt.NDArray[np.uint8]:
    """Ids `[H, W]` of a palette PNG, or a greyscale one of 8 bits. Raises CorruptDataError on any other."""
    data = read_bytes(path, _LARGEST) if path.is_file() else b""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        raise CorruptDataError(f"{path} is missing or no PNG")
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if kind == 0:
        return np.asarray(read_png(path, np.uint8, 1))
    if bits not in (1, 2, 4, 8) or (kind, interlaced) != (3, 0):
        raise CorruptDataError(f"{path}: {bits} bits, colour type {kind}; ids need a palette, not interlaced")
    check_size(path, width, height)
    packed, at = b"", 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    line = 1 + (width * bits + 7) // 8
    wanted = height * line
    try:
        raw = zlib.decompressobj().decompress(packed, wanted)
    except zlib.error as error:
        raise CorruptDataError(f"{path} is damaged: {error}") from error
    if len(raw) != wanted:
        raise CorruptDataError(f"{path} is cut short: {len(raw)} of {wanted} bytes of pixels")
    lines = np.frombuffer(raw, np.uint8).reshape(height, line)
    return _unpacked(_unfilter(lines[:, 0], lines[:, 1:].astype(np.int32), path), bits)[:, :width]


def _unpacked(lines: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """The indices in each byte, the leftmost pixel in its high bits."""
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return ((lines[..., None] >> shifts) & ((1 << bits) - 1)).reshape(len(lines), -1).astype(np.uint8)


def _unfilter(filters: npt.NDArray[np.uint8], lines: npt.NDArray[np.int32], path: Path) -> npt.NDArray[np.uint8]:
    """Undo PNG's line filters (clause 9) for one byte a step."""
    out = np.zeros_like(lines)
    above = np.zeros(lines.shape[1], np.int32)
    for row, (kind, line) in enumerate(zip(filters, lines, strict=True)):
        if kind == 0:
            out[row] = line
        elif kind == 1:
            out[row] = np.cumsum(line) & 255
        elif kind == 2:
            out[row] = (line + above) & 255
        elif kind in (3, 4):
            left = corner = 0
            for column, value in enumerate(line.tolist()):
                up = int(above[column])
                guess = (left + up) // 2 if kind == 3 else _paeth(left, up, corner)
                left, corner = (value + guess) & 255, up
                out[row, column] = left
        else:
            raise CorruptDataError(f"{path}: line {row} has the unknown filter {kind}")
        above = out[row]
    return out.astype(np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))
