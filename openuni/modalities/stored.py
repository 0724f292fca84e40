"""What stored bytes must pass before they become a value: they may come from anywhere.

The numbers that decode a value travel as JSON and are validated against a dataclass; arrays travel as npz without
pickle, and their shapes are compared with the expected ones before any memory is taken.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from openuni.errors import CorruptDataError, InvalidAnnotationError
from openuni.modalities.base import Encoded, Modality

MOST_PIXELS = 2**31
"""Frames × height × width that a stored clip may claim: 8 GiB of float32. Longer clips must be cut."""

M = TypeVar("M")
V = TypeVar("V")
Count = Annotated[int, Field(ge=1, le=2**20, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError, OSError, MemoryError
)  # fmt: skip
"""What the zip and npy readers raise on bytes that are not theirs."""


@dataclass(frozen=True, slots=True)
class Size:
    """Frames, height and width of the clip, kept with every stored annotation and compared with its bytes."""

    frames: Count
    height: Count
    width: Count

    def __post_init__(self) -> None:
        if self.frames * self.height * self.width > MOST_PIXELS:
            raise ValueError(f"{self.frames}×{self.height}×{self.width} is more than {MOST_PIXELS} pixels")


def write_meta(meta: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return asdict(meta)


def read_meta(kind: type[M], encoded: Encoded) -> M:
    """The dataclass `kind` out of `encoded.meta`. Raises CorruptDataError naming the first wrong field."""
    try:
        # mypy asks whether the instances can be hashed; the class can.
        read: M = _adapter(kind).validate_python(dict(encoded.meta))  # type: ignore[arg-type]
        return read
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise CorruptDataError(f"stored numbers: {where}: {first['msg']}; annotate this clip again") from None


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Made once a kind: making one takes longer than decoding a small frame."""
    return TypeAdapter(kind)


def member(encoded: Encoded, suffix: str) -> bytes:
    """The bytes of one member. Raises CorruptDataError where it is missing."""
    if suffix not in encoded.members:
        have = ", ".join(encoded.members) or "nothing"
        raise CorruptDataError(f"member {suffix} is missing (the sample has {have}); annotate this clip again")
    return encoded.members[suffix]


def checked(modality: Modality[V], value: V) -> V:
    """`value` if it passes the modality's check. Raises CorruptDataError: stored nonsense is not the caller's fault."""
    try:
        modality.check(value)
    except InvalidAnnotationError as error:
        raise CorruptDataError(f"stored {modality.name}: {error}; annotate this clip again") from None
    return value


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A compressed npz. The same arrays give the same bytes: NumPy writes no time stamps into it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: np.ascontiguousarray(a) for name, a in arrays.items()})
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Layout:
    """What an array in an npz must look like."""

    dtype: type[np.generic]
    shape: tuple[int, ...]


def unpack_arrays(
    data: bytes, expected: Mapping[str, Layout], part: range | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `pack_arrays`, exactly those `expected`; with `part`, those rows of each, and nothing after them is
    unpacked.

    Raises CorruptDataError where the archive is not one, names differ, or an array has another type or shape. Both
    the size that the archive claims and the shape that the array claims are compared first, so neither a zip bomb
    nor a false header takes memory.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [info.filename for info in archive.infolist()]
            if sorted(names) != sorted(f"{name}.npy" for name in expected):
                raise CorruptDataError(f"npz holds {sorted(names)[:9]} instead of {sorted(expected)}")
            return {name: _read_array(archive, name, layout, part) for name, layout in expected.items()}
    except _UNREADABLE as error:
        raise CorruptDataError(f"npz cannot be read: {error}") from error


def _read_array(archive: zipfile.ZipFile, name: str, layout: Layout, part: range | None) -> npt.NDArray[Any]:
    size = math.prod(layout.shape) * np.dtype(layout.dtype).itemsize
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CorruptDataError(f"npz array {name} is packed in a way that NumPy does not write")
    claimed = info.file_size
    if not size <= claimed <= size + 4096:  # an npy header is 128 bytes, rarely a few more
        raise CorruptDataError(f"npz array {name} has {claimed} bytes instead of {size}")
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
        if shape != layout.shape or dtype != np.dtype(layout.dtype) or fortran:
            raise CorruptDataError(f"npz array {name} is {dtype} {shape} instead of {layout}")
        if part is not None:
            row = size // max(shape[0], 1)
            file.seek(row * part.start, io.SEEK_CUR)
            shape, size = (len(part), *shape[1:]), row * len(part)
        body = file.read(size)
    if len(body) != size:
        raise CorruptDataError(f"npz array {name} is cut short")
    return np.frombuffer(body, dtype).reshape(shape).copy()
