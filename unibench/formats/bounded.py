"""Bounded reading of other people's files: pictures, arrays and numbered sequences."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni.errors import CorruptDataError
from openuni.storage import DOCUMENT, open_regular

MOST_PIXELS = 2**25
"""Pixels of a frame above which a header is taken for hostile: 33 million, a 7680 × 4320 picture."""


def read_bytes(path: Path, most: int = DOCUMENT) -> bytes:
    """A document of somebody's. Raises CorruptDataError on a pipe, a device, a folder and more than `most` bytes."""
    with open_regular(path) as file:
        data = file.read(most + 1) if path.stat().st_size <= most else None
    if data is None or len(data) > most:
        raise CorruptDataError(f"{path} has more than {most} bytes, which no file of its kind has")
    return data


def read_text(path: Path, errors: str = "strict") -> str:
    """As `read_bytes`, in UTF-8 with or without a mark at its begin. Raises UnicodeDecodeError, too."""
    return read_bytes(path).decode("utf-8-sig", errors)


def sequence(folder: Path, pattern: str) -> list[Path]:
    """Files of `folder` that match, in the order of the last number in their names.

    Raises CorruptDataError where there is none, two carry one number, or a number in the middle is missing.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(folder.glob(pattern)) if folder.is_dir() else ():
        digits = re.findall(r"\d+", path.stem)
        if not digits:
            continue
        number = int(digits[-1])
        if number in numbered:
            raise CorruptDataError(f"{folder}: {path.name} and {numbered[number].name} are both frame {number}")
        numbered[number] = path
    if not numbered:
        raise CorruptDataError(f"{folder} holds no numbered {pattern}; is the folder complete?")
    missing = sorted(set(range(min(numbered), max(numbered) + 1)) - set(numbered))
    if missing:
        raise CorruptDataError(
            f"{folder}: frame {missing[0]} of {pattern} is missing; copy it, or split the clip there"
        )
    return [numbered[number] for number in sorted(numbered)]


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """An 8-bit picture, `[H, W, 3]` RGB."""
    picture = _read(path, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def read_rgbs(paths: Sequence[Path]) -> npt.NDArray[np.uint8]:
    """Pictures of one size, `[T, H, W, 3]`. Raises CorruptDataError naming the first that differs."""
    return same_size([read_rgb(path) for path in paths], paths)


def same_size(frames: Sequence[npt.NDArray[Any]], paths: Sequence[Path]) -> npt.NDArray[Any]:
    """Frames stacked. Raises CorruptDataError naming the first file whose size differs from the first one's."""
    for frame, path in zip(frames, paths, strict=True):
        if frame.shape != frames[0].shape:
            raise CorruptDataError(f"{path} is {frame.shape}, {paths[0].name} is {frames[0].shape}; sizes must agree")
    return np.stack(frames)


def read_png(path: Path, dtype: type[np.uint8] | type[np.uint16], channels: int) -> npt.NDArray[Any]:
    """A PNG as it is stored, `[H, W]` or `[H, W, channels]`, in the order of its own channels (RGB, not BGR).

    Raises CorruptDataError where the bit depth or the number of channels is another.
    """
    with open_regular(path) as file:
        head = file.read(26)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 26:
        raise CorruptDataError(f"{path} is not a PNG; the file is damaged or misnamed")
    width, height, bits, kind = struct.unpack_from(">IIBB", head, 16)
    found = {0: 1, 2: 3, 4: 2, 6: 4}.get(kind, 0)
    if (bits, found) != (np.dtype(dtype).itemsize * 8, channels):
        raise CorruptDataError(
            f"{path}: PNG of {bits} bits and {found or 'palette'} channels; this encoding has "
            f"{np.dtype(dtype).itemsize * 8} bits and {channels}: was it re-saved by another program?"
        )
    check_size(path, width, height)
    image = _read(path, cv2.IMREAD_UNCHANGED)
    if channels == 3:
        image = image[..., ::-1]
    elif channels == 4:
        image = image[..., [2, 1, 0, 3]]
    return np.ascontiguousarray(image)


def read_npy(path: Path, dtype: npt.DTypeLike, dimensions: int) -> npt.NDArray[Any]:
    """An array file of a given type and number of dimensions; never unpickles, and looks at the header first."""
    try:
        open_regular(path).close()
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CorruptDataError(f"{path} is not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype) or array.ndim != dimensions:
        found = f"{array.dtype} with {array.ndim} dimensions" if isinstance(array, np.ndarray) else "an archive"
        raise CorruptDataError(f"{path} holds {found}; expected {np.dtype(dtype)} with {dimensions}")
    check_size(path, array.shape[1], array.shape[0])
    return np.array(array)


def check_size(path: Path, width: int, height: int) -> None:
    """Raise CorruptDataError for a size that is empty or beyond `MOST_PIXELS`, before memory is taken for it."""
    if min(width, height) < 1 or width * height > MOST_PIXELS:
        raise CorruptDataError(f"{path} claims {width} × {height} pixels; at most {MOST_PIXELS} are read")


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a PNG, JPEG or PNM by its header. Raises CorruptDataError where it is none, or too large.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.png"
        >>> _ = file.write_bytes(cv2.imencode(".png", np.zeros((3, 5), np.uint8))[1].tobytes())
        >>> picture_size(file)
        (3, 5)
    """
    if not path.is_file():
        raise CorruptDataError(f"{path} is missing; is the folder complete?")
    with path.open("rb") as file:
        size = _png_size(file) or _jpeg_size(file) or _pnm_size(file)
    if size is None:
        raise CorruptDataError(f"{path} is not a readable picture; the file is damaged or misnamed")
    check_size(path, size[1], size[0])
    return size


def _png_size(file: IO[bytes]) -> tuple[int, int] | None:
    head = file.read(24)
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    width, height = struct.unpack_from(">II", head, 16)
    return height, width


def _jpeg_size(file: IO[bytes]) -> tuple[int, int] | None:
    """From the start of frame, behind any other segment (ITU-T T.81, annex B)."""
    file.seek(0)
    if file.read(2) != b"\xff\xd8":
        return None
    while len(marker := file.read(4)) == 4 and marker[0] == 0xFF:
        kind, length = marker[1], struct.unpack_from(">H", marker, 2)[0]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            body = file.read(5)
            return struct.unpack_from(">HH", body, 1) if len(body) == 5 else None
        file.seek(max(length - 2, 0), 1)
    return None


def _pnm_size(file: IO[bytes]) -> tuple[int, int] | None:
    file.seek(0)
    head = re.match(rb"P[1-6]\s(?:#[^\n]*\n|\s)*(\d{1,9})\s(?:#[^\n]*\n|\s)*(\d{1,9})\s", file.read(1024))
    return None if head is None else (int(head[2]), int(head[1]))


def read_numbers(path: Path, columns: int) -> npt.NDArray[np.float64]:
    """A text table of numbers `[N, columns]`; lines that start with # are comments."""
    rows = []
    for number, line in enumerate(read_text(path, "replace").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != columns:
            raise CorruptDataError(f"{path}, line {number}: expected {columns} numbers, found {line[:80]!r}")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, columns)


def _read(path: Path, flags: int) -> npt.NDArray[Any]:
    picture_size(path)
    try:
        image = cv2.imread(str(path), flags)
    except cv2.error as error:  # a picture beyond OpenCV's own bound
        raise CorruptDataError(f"{path} is refused by OpenCV: {error}") from error
    if image is None:
        raise CorruptDataError(f"{path} is not a readable picture; the file is damaged or misnamed")
    check_size(path, image.shape[1], image.shape[0])
    return np.asarray(image)
