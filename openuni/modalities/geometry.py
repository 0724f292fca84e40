"""Geometry that several modalities share. Arrays are `[T, H, W, …]`."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from openuni.errors import InvalidAnnotationError
from openuni.modalities.base import Box

A = TypeVar("A", bound=np.generic)


def nearest(array: npt.NDArray[A], height: int, width: int) -> npt.NDArray[A]:
    """Resize by the pixel whose area holds the new pixel's centre: source = ⌊(i + ½)·H / height⌋. Invents no value."""
    rows = (2 * np.arange(height) + 1) * array.shape[1] // (2 * height)
    columns = (2 * np.arange(width) + 1) * array.shape[2] // (2 * width)
    return np.ascontiguousarray(array[:, rows[:, None], columns])


def crop(array: npt.NDArray[A], box: Box) -> npt.NDArray[A]:
    """Rows and columns of `box`. Raises InvalidAnnotationError where the box is empty or leaves the frame."""
    check_box(box, *array.shape[1:3])
    return np.ascontiguousarray(array[:, box.y0 : box.y1, box.x0 : box.x1])


def mirror(array: npt.NDArray[A]) -> npt.NDArray[A]:
    """Left to right."""
    return np.ascontiguousarray(array[:, :, ::-1])


def check_box(box: Box, height: int, width: int) -> None:
    """Raise InvalidAnnotationError where the box is empty or leaves the frame."""
    if not (0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height):
        raise InvalidAnnotationError(f"{box} does not lie inside a frame of {width}×{height} pixels")


def span(frames: slice, length: int) -> tuple[int, int]:
    """First and last-exclusive frame of a slice with step 1. Raises InvalidAnnotationError where it is empty."""
    start, stop, step = frames.indices(length)
    if step != 1 or stop <= start:
        raise InvalidAnnotationError(f"{frames} is not a run of frames out of {length}")
    return start, stop


def check_array(what: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int | str, ...]) -> None:
    """Raise InvalidAnnotationError unless `array` has this type and shape; a letter stands for any length ≥ 1."""
    fits = (
        isinstance(array, np.ndarray)
        and array.dtype == np.dtype(dtype)
        and array.ndim == len(shape)
        and all(n >= 1 if isinstance(want, str) else n == want for n, want in zip(array.shape, shape, strict=True))
    )
    if not fits:
        have = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        want = f"{np.dtype(dtype)} [{', '.join(map(str, shape))}]"
        raise InvalidAnnotationError(f"{what} is {have}; it must be {want}")
