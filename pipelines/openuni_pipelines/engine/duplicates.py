"""Clips that are nearly the same, found by the perceptual hashes in the index, and by features if asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openuni import features, perceptual
from openuni.choosing import Rows, Step
from openuni.errors import PlanError
from openuni.experts.clip_features import ClipFeatures
from openuni.experts.scores import sampled_picture
from openuni.perceptual import Hashes
from openuni.shards import facts, layout, view
from openuni.shards.reader import Dataset
from openuni.shards.view import View
from openuni.storage import write_atomic

_BETTER = (("pixels", "the largest frame"), ("frames", "the most frames"), ("sharpness", "the sharpest"))
"""By what a cluster's clip is kept, in this order; of those that are equal in all, the first key."""

_FEATURES = f"{ClipFeatures.modality}.hashes"


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """What is written of the near-duplicates beside the view without them."""

    clusters: Path | None = None
    """Where to write every cluster, one JSON line each."""
    alike: float | None = field(default=None, metadata={"min": 0.5, "max": 1.0, "shown": "not compared"})
    """Also leave out clips whose features (of `openuni add DATASET scores_features`) have at least this cosine, such as
    .85. This finds mirrored, captioned and cropped copies, but also other shots of a scene."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Clips that show the same: the one that is kept, why, and the others."""

    kept: str
    why: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deduplication:
    """The view without duplicates, and what was found."""

    view: View
    clusters: Sequence[Cluster]
    without_hashes: int
    """Clips that could not be compared by hashes: their column is missing, or they show nothing."""
    without_features: int
    """Clips that could not be compared by features, where that was asked for."""


def dedup(data: Dataset, config: DedupConfig = DedupConfig(), out: Path | str | None = None) -> Deduplication:
    """Find near-duplicates in a dataset or view, and write a view without them to `out`, a file or a URL, if any.

    Raises PlanError where no clip has hashes, or features are asked for and none has any.

    Example:
        >>> found = dedup(openuni.open("data/mine"), out="alone.json")  # doctest: +SKIP
        >>> [(cluster.kept, cluster.others) for cluster in found.clusters]  # doctest: +SKIP
        [('harbour-0003', ('harbour-0011',))]
    """
    known = _comparable(data, config.alike is not None)
    hashes = matrix(known["hashes"])
    pairs, unknown = perceptual.near(hashes), 0
    if config.alike is not None:
        codes = features.decode(known[_FEATURES])
        unknown = int((~codes.any(axis=1)).sum())
        pairs = np.concatenate([pairs, features.near(codes, config.alike)])
    found = perceptual.clusters(pairs)
    made = [_cluster(known.take(pa.array(rows))) for rows in found]
    left_out = {key for cluster in made for key in cluster.others}
    keys = [key for key in known["key"].to_pylist() if key not in left_out]
    funnel = [Step("all", len(known)), Step("one of each cluster of near-duplicates", len(keys))]
    dataset = data.url if out is None else view.dataset_of(data.url, out)
    asked = {} if config.alike is None else {"alike": config.alike}
    rule = {"dedup": {"bits": perceptual.NEAR, **asked, "clusters": len(made)}}
    result = View(dataset, rule, funnel, keys)
    if config.clusters is not None:
        lines = [json.dumps(asdict(cluster), ensure_ascii=False) + "\n" for cluster in made]
        write_atomic(config.clusters, "".join(lines).encode(), "dedup", sweeps=True)
    if out is not None:
        view.write(out, result, "dedup")
    blind = (hashes == perceptual.NONE).sum(axis=1) > hashes.shape[1] - perceptual.ENOUGH
    return Deduplication(result, made, int(blind.sum()), unknown)


def _comparable(data: Dataset, with_features: bool) -> pa.Table:
    """Key, hashes, features and what clips are kept by, of every clip of `data`. Raises PlanError where these lack."""
    fields = ["key", "hashes", "width", "height", "frames"]
    with facts.table(data) as path:
        names = pq.read_schema(path).names
        if "hashes" not in names:
            raise PlanError(f"{data.url} has no perceptual hashes to compare; run: openuni add {data.url} scores")
        if with_features and _FEATURES not in names:
            raise PlanError(f"{data.url} has no features to compare; run: openuni add {data.url} scores_features")
        more = [name for name in ("sharpness", *([_FEATURES] if with_features else [])) if name in names]
        known = pq.read_table(path, columns=[*fields, *more])
    pixels = pc.multiply(known["width"].cast(pa.int64()), known["height"].cast(pa.int64()))
    known = known.append_column("pixels", pixels)
    return known.filter(pc.is_in(known["key"], pa.array(list(data.keys())))) if data.is_view else known


def _cluster(clips: pa.Table) -> Cluster:
    """Which of a few clips is kept, and by what it stands out."""
    left, why = clips.to_pylist(), ""
    for name, words in _BETTER:
        values = [clip.get(name) or 0 for clip in left]
        if len(set(values)) > 1:
            best = max(values)
            left, why = [clip for clip in left if (clip.get(name) or 0) == best], why or words
    kept = min(clip["key"] for clip in left)
    others = sorted(key for key in clips["key"].to_pylist() if key != kept)
    return Cluster(kept, why or "the first key", tuple(others))


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
