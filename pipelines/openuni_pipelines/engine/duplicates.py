"""Clips that are nearly the same, found by the perceptual hashes in the index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from openuni import perceptual
from openuni.choosing import Rows
from openuni.errors import PlanError
from openuni.experts.scores import sampled_picture
from openuni.perceptual import Hashes
from openuni.shards import layout
from openuni.shards.reader import Dataset


def shared(rows: Rows, data: Dataset, other: Dataset) -> Iterator[tuple[list[str], str]]:
    """Keys of the rows that are left which `other` also has, by key, source id or video, and by what they show.

    Raises PlanError where the rows have no hashes.
    """
    records = [sample.record for sample in other]
    found = rows.fetch(["key", "source_id", "video_id"])
    for name in ("key", "source_id", "video_id"):
        theirs = {getattr(record, name) for record in records} - {"", None}
        same = [here in theirs for here in found[name].to_pylist()]
        yield found["key"].filter(pa.array(same)).to_pylist(), f"no {name.replace('_', ' ')} of {other.url}"
    if "hashes" not in rows.columns:
        raise PlanError(f"{data.url} has no perceptual hashes to compare; run: openuni add {data.url} scores")
    found = rows.fetch(["key", "hashes"])
    ours = matrix(found["hashes"])
    pairs = perceptual.near(ours, hashes_of(other))
    keys = found["key"].to_pylist()
    yield sorted({keys[here] for here, _ in pairs}), f"no near-duplicate of {other.url}"


def hashes_of(data: Dataset) -> Hashes:
    """The hashes `[N, 10]` of every clip of a small dataset: from its frames where the index has none."""
    if layout.SCORES in data.score_columns:
        stored = data.table()[f"{layout.SCORES}.hashes"]
        if not stored.null_count:
            return matrix(stored)
    hashes = []
    for sample in data:
        frames = sample.rgb.frames
        hashes.append(perceptual.clip_hashes(frames, sampled_picture(frames)))
    return np.array(hashes, np.uint64).reshape(-1, 2 * perceptual.FRAMES)


def matrix(column: pa.ChunkedArray) -> Hashes:
    """Lists of hashes as `[N, 10]`; a clip without any gets those that are like no other."""
    wide = 2 * perceptual.FRAMES
    rows = [row if row and len(row) == wide else [perceptual.NONE] * wide for row in column.to_pylist()]
    return np.array(rows, np.uint64).reshape(-1, wide)
