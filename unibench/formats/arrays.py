"""npz and npy of plain arrays: sizes are judged from their headers before memory is taken, and nothing is unpickled."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError

LARGEST = 8 << 30
"""Bytes of arrays in one file above which its headers are taken for hostile."""


def load_arrays(file: Path, most: int = LARGEST) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an npz by name, or of an npy as ``, of at most `most` bytes in all.

    Raises InvalidAnnotationError on anything else.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.savez(folder / "a.npz", depth=np.ones((2, 4, 6), np.float32))
        >>> load_arrays(folder / "a.npz")["depth"].shape
        (2, 4, 6)
    """
    try:
        if file.suffix.lower() == ".npy":
            with file.open("rb") as opened:
                _check(_nbytes(opened), most, file)
            return {"": np.load(file, allow_pickle=False)}
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            _check(sum(_member_nbytes(archive, member) for member in members), most, file)
        with np.load(file, allow_pickle=False) as archive_of_arrays:
            names = [member.filename.removesuffix(".npy") for member in members]
            return {name: archive_of_arrays[name] for name in names}
    except (
        OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, RuntimeError, SyntaxError,
        MemoryError, OverflowError, RecursionError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise InvalidAnnotationError(f"{file} is not an npy or npz of plain arrays: {error}") from error


def one_of(arrays: Mapping[str, npt.NDArray[Any]], names: Sequence[str], file: Path) -> npt.NDArray[Any]:
    """The array with one of these names, or the only one. Raises InvalidAnnotationError."""
    for name in names:
        if name in arrays:
            return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    have = ", ".join(arrays) or "no array"
    raise InvalidAnnotationError(f"{file} has {have}; expected one named {' or '.join(names)}")


def pack(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """A compressed npz without pickles; the same arrays give the same bytes."""
    # np.savez stamps no time of its own into the archive (zipfile's default of 1980), so bytes repeat.
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _check(claimed: int, most: int, file: Path) -> None:
    if claimed > most:
        raise InvalidAnnotationError(f"{file} claims {claimed} bytes of arrays; at most {most} are read here")


def _member_nbytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    with archive.open(member) as opened:
        return _nbytes(opened)


def _nbytes(file: IO[bytes]) -> int:
    """Bytes of the array that an npy header announces."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version}")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("objects need unpickling")
    if dtype.kind in "cmMV":
        raise ValueError(f"{dtype} is neither whole nor real numbers")
    return math.prod(shape) * dtype.itemsize
