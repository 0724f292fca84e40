"""COCO's masks: polygons, run lengths in a list, and run lengths packed into text (cocoapi's maskApi).

Run lengths go down the columns and begin with the background. Here they are uint32 `[R]`, as `Objects` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from openuni.modalities.segmentation import Objects

Runs = npt.NDArray[np.uint32]
_LARGEST = 2**31


def read(part: Any, height: int, width: int) -> Runs:
    """The runs of a `segmentation` of a COCO file. Raises ValueError where it is none, or of another size.

    Example:
        >>> read({"size": [2, 3], "counts": "123"}, 2, 3).tolist()
        [1, 2, 3]
    """
    if isinstance(part, Mapping):
        if list(part["size"]) != [height, width]:
            raise ValueError(f"it is of size {part['size']}, the picture of {[height, width]}")
        counts = part["counts"]
        runs = _unpacked(counts) if isinstance(counts, str | bytes) else np.array(counts)
    elif isinstance(part, list):
        runs = _unpacked(_drawn(part, height, width))
    else:
        raise ValueError(f"a mask is polygons or run lengths, not {type(part).__name__}")
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(f"its runs do not cover the {height} × {width} pixels of the picture")
    return runs.astype(np.uint32)


def _drawn(polygons: list[Any], height: int, width: int) -> str | bytes:
    from hotcoco import mask

    if not polygons or any(len(polygon) < 6 for polygon in polygons):
        raise ValueError("a polygon has less than three corners")
    packed = mask.merge(mask.fr_py_objects(polygons, height, width))["counts"]
    return packed if isinstance(packed, str) else bytes(packed)


def _unpacked(counts: str | bytes) -> npt.NDArray[np.int64]:
    """maskApi's `rleFrString`: five bits a letter, lowest first, and from the fourth number on differences to the last
    but one."""
    letters = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8).astype(np.int64)
    letters -= 48
    if ((letters < 0) | (letters > 63)).any() or (len(letters) and letters[-1] & 32):
        raise ValueError("its packed run lengths cannot be unpacked")
    ends = np.flatnonzero((letters & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    digit = np.arange(len(letters)) - np.repeat(starts, ends - starts + 1)
    if (digit > 6).any():
        raise ValueError("its packed run lengths are too large")
    runs = np.add.reduceat((letters & 31) << (5 * digit), starts) if len(starts) else starts
    negative = (letters[ends] & 16) != 0
    runs[negative] -= np.int64(1) << (5 * (digit[ends][negative] + 1))
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if (np.abs(runs) > _LARGEST).any():
        raise ValueError("its packed run lengths are too large")
    return runs


def decode(runs: Runs, height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask `[H, W]`."""
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(columns.reshape(width, height).T)


def area(runs: Runs) -> int:
    """Pixels of the mask."""
    return int(runs[1::2].sum(dtype=np.int64))


def packed(runs: Runs, height: int, width: int) -> Any:
    """The mask as hotcoco and pycocotools compare it."""
    from hotcoco import mask

    return mask.fr_py_objects({"size": [height, width], "counts": runs.tolist()}, height, width)


def box(runs: Runs, height: int, width: int) -> list[float]:
    """x, y, width and height of the mask, as maskApi's `rleToBbox`."""
    from hotcoco import mask

    corner: list[float] = np.asarray(mask.to_bbox(packed(runs, height, width)), np.float64).ravel().tolist()
    return corner


def beside(masks: Sequence[Runs | None], height: int, width: int) -> Runs:
    """The masks of a video's frames side by side as one; None is an empty one. Σ_t of areas and overlaps are its own.

    Example:
        >>> ones, none = np.array([0, 6], np.uint32), np.array([6], np.uint32)
        >>> beside([none, ones, None, ones], 2, 3).tolist()
        [6, 6, 6, 6]
    """
    parts: list[npt.NDArray[np.int64]] = []
    for runs in masks:
        whole = np.array([height * width], np.int64) if runs is None else runs.astype(np.int64)
        # Each part has an even number of runs, so that the next begins with the background again.
        parts.append(whole if len(whole) % 2 == 0 else np.append(whole, 0))
    joined = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return _tidy(joined)


def _tidy(runs: npt.NDArray[np.int64]) -> Runs:
    """The same mask without runs of no length but the first."""
    value = np.arange(len(runs)) % 2
    kept = runs > 0
    runs, value = runs[kept], value[kept]
    if not len(runs):
        return runs.astype(np.uint32)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(value)) + 1])
    merged = np.add.reduceat(runs, starts)
    return (np.concatenate([[0], merged]) if value[0] else merged).astype(np.uint32)


def gather(
    masks: Sequence[Sequence[Runs | None]],
    boxes: npt.NDArray[np.float64],
    areas: npt.NDArray[np.float64],
    crowds: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    *,
    masked: bool = True,
) -> Objects:
    """`Objects` of masks `[T][P]`, or of boxes alone."""
    if not masked:
        return Objects(boxes, areas, crowds, scores)
    lengths = np.array([[0 if m is None else len(m) for m in row] for row in masks], np.int32).reshape(areas.shape)
    every = [m for row in masks for m in row if m is not None]
    runs = np.concatenate(every).astype(np.uint32) if every else np.zeros(0, np.uint32)
    return Objects(boxes, areas, crowds, scores, runs, lengths)


def draw(
    masks: Sequence[Sequence[Runs | None]], order: Sequence[int], frames: int, height: int, width: int
) -> npt.NDArray[np.int32]:
    """Ids `[T, H, W]`, instance p with p + 1; those later in `order` lie on top."""
    ids = np.zeros((frames, height, width), np.int32)
    for t, row in enumerate(masks):
        for p in order:
            runs = row[p]
            if runs is not None:
                ids[t][decode(runs, height, width)] = p + 1
    return ids
