"""Features of what a clip shows, in 256 bytes, and the clips whose features are alike.

A clip's features are the mean of its frames' directions, so they change little where a clip is mirrored, cropped,
captioned or coded again. They are projected onto 256 random signs (Achlioptas, 2003), which keeps the cosine of two
clips to some hundredths, and less for those that are alike; each number is stored in one byte.

`near` compares all clips where they are few. Of many it asks usearch's graph (HNSW: Malkov and Yashunin, TPAMI 2020),
which is built by one thread, so the same features give the same pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from openuni.errors import PlanError
from openuni.perceptual import Pairs

if TYPE_CHECKING:
    import pyarrow as pa

Codes = npt.NDArray[np.int8]
"""Features of clips `[N, 256]`; zeros where nothing is known of one. Only their direction counts."""

SIZE = 256
_NUMBERS = SIZE // 8
"""Numbers of 64 bits that hold a code."""
_FEW = 20_000
"""Clips that are all compared with each other."""
_NEIGHBOURS = 16
"""Of each clip; in larger groups the others are reached over these."""
_AT_ONCE = 1024


def encode(frames: npt.NDArray[np.float32]) -> tuple[int, ...]:
    """The code of a clip, 32 numbers of 64 bits, from the features `[T, C]` of its frames.

    Example:
        >>> len(encode(np.ones((5, 1280), np.float32)))
        32
    """
    directions = frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-12)
    signs = np.random.default_rng(0).integers(0, 2, (frames.shape[1], SIZE)) * 2 - 1
    code = directions.mean(axis=0).astype(np.float64) @ signs
    code = np.rint(code * (127 / max(float(np.abs(code).max()), 1e-12))).astype(np.int8)
    return tuple(code.view("<u8").tolist())


def decode(column: pa.ChunkedArray) -> Codes:
    """The codes of clips, as the index holds them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.fill_null(pc.equal(pc.list_value_length(column), _NUMBERS), False).to_numpy()
    codes = np.zeros((len(column), SIZE), np.int8)
    flat = pc.list_flatten(column.filter(pa.array(known))).to_numpy()
    codes[known] = flat.astype("<u8").view(np.int8).reshape(-1, SIZE)
    return codes


def near(codes: Codes, cosine: float) -> Pairs:
    """Which clips' features have at least this cosine: pairs of row numbers, the smaller first, each once.

    Of each clip only the 16 nearest count: in a larger group not every pair is listed. Raises PlanError where there are
    so many clips that usearch is needed, and it is not installed.

    Example:
        >>> codes = np.random.default_rng(0).integers(-99, 99, (3, 256)).astype(np.int8)
        >>> near(np.concatenate([codes, codes[1:2] // 2]), 0.95).tolist()
        [[1, 3]]
    """
    rows = np.flatnonzero(codes.any(axis=1))
    compare = _compared if len(rows) <= _FEW else _asked
    ours, theirs = compare(codes[rows], cosine)
    pairs = np.stack([rows[ours], rows[theirs]], axis=1)
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _compared(codes: Codes, cosine: float) -> tuple[Any, Any]:
    """Each clip with its nearest ones, by all cosines."""
    lengths = np.linalg.norm(codes.astype(np.float32), axis=1, keepdims=True)
    directions = codes / lengths
    most = min(_NEIGHBOURS, len(codes) - 1)
    ours, theirs = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for begin in range(0, len(codes) if most > 0 else 0, _AT_ONCE):
        cosines = directions[begin : begin + _AT_ONCE] @ directions.T
        own = np.arange(len(cosines))
        cosines[own, begin + own] = -2
        nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        row, place = np.nonzero(np.take_along_axis(cosines, nearest, axis=1) >= cosine)
        ours.append(begin + row)
        theirs.append(nearest[row, place])
    return np.concatenate(ours), np.concatenate(theirs)


def _asked(codes: Codes, cosine: float) -> tuple[Any, Any]:
    """Each clip with its nearest ones, as an index of approximate neighbours knows them."""
    try:
        from usearch.index import Index
    except ImportError:
        raise PlanError(
            f"comparing features of {len(codes):,} clips needs usearch; run: pip install 'openuni[build]'"
        ) from None
    index = Index(ndim=SIZE, metric="cos", dtype="i8")
    index.add(np.arange(len(codes)), codes, threads=1)
    ours, theirs = [], []
    for begin in range(0, len(codes), _AT_ONCE):
        found = index.search(codes[begin : begin + _AT_ONCE], _NEIGHBOURS + 1)  # itself is one
        row, place = np.nonzero(found.distances <= 1 - cosine)
        ours.append(begin + row)
        theirs.append(found.keys[row, place].astype(np.intp))
    return np.concatenate(ours), np.concatenate(theirs)
