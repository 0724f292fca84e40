"""A dataset in numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openuni.choosing import Step
from openuni.shards import facts, plan
from openuni.shards.reader import Dataset
from openuni.storage import open_regular

_MOST_REASONS = 32
_TOGETHER = 8192
"""Rows that are counted together."""
_FIELDS = ("frames", "fps", "caption", "width", "height", "subset", "split", "license")
_KINDS = ("present", "reason", "confidence")
OTHER_REASONS = "other reasons"
"""What reasons of absence beyond the first 32 of a column are counted under."""


@dataclass
class ColumnStats:
    """One column: clips that have it, why others do not, mean confidence where one is given, bytes on disk."""

    present: int = 0
    absent: dict[str, int] = field(default_factory=dict)
    confidence: float | None = None
    bytes: int = 0


@dataclass
class Stats:
    """A dataset in numbers."""

    samples: int = 0
    frames: int = 0
    hours: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)
    subsets: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    licenses: dict[str, int] = field(default_factory=dict)
    captioned: int = 0
    columns: dict[str, ColumnStats] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    funnel: tuple[Step, ...] = ()
    """How the rows of its table were chosen, and how many clips came of them: some cannot be cut, or are removed."""


def count(data: Dataset) -> Stats:
    """The numbers of `data`, from its facts (`openuni.shards.facts`)."""
    names = [*data.columns, *data.score_columns]
    columns = {name: ColumnStats() for name in names}
    stats = Stats(skipped=dict(data.manifest.skipped), columns=columns, funnel=plan.funnel(data.manifest))
    for shard in data.shards:
        for name, record in shard.columns.items():
            if name in stats.columns:  # a view may leave out some
                stats.columns[name].bytes += record.tar.size
    if not data.shards:
        return stats
    counters: defaultdict[str, Counter[str]] = defaultdict(Counter)
    confidences: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    with facts.table(data, keep=False) as path:
        for rows in _batches(data, path, [f"{name}.{kind}" for name in names for kind in _KINDS]):
            known = {name: rows[name].to_pylist() for name in rows.column_names}
            stats.samples += rows.num_rows
            stats.frames += sum(known["frames"])
            stats.hours += sum(f / fps for f, fps in zip(known["frames"], known["fps"], strict=True)) / 3600
            stats.captioned += sum(map(bool, known["caption"]))
            counters["size"].update(f"{w}×{h}" for w, h in zip(known["width"], known["height"], strict=True))
            for name in ("subset", "split", "license"):
                counters[name].update(value or "" for value in known[name])
            for name, column in stats.columns.items():
                present, reasons, sure = (known[f"{name}.{kind}"] for kind in _KINDS)
                _add(column, present, reasons, sure, confidences[name])
    stats.sizes, stats.subsets = dict(counters["size"].most_common()), dict(counters["subset"].most_common())
    stats.splits, stats.licenses = dict(counters["split"].most_common()), dict(counters["license"].most_common())
    for name, (total, number) in confidences.items():
        stats.columns[name].confidence = round(total / number, 4) if number else None
    if stats.funnel and stats.samples < stats.funnel[-1].left:
        stats.funnel += (Step(f"clips in the {'view' if data.is_view else 'dataset'}", stats.samples),)
    return stats


def _batches(data: Dataset, path: Path, fields: Sequence[str]) -> Iterator[pa.Table]:
    """Rows of the facts that `data` has, a few thousand at a time."""
    chosen, first = data.numbers, 0
    with open_regular(path) as file:
        # In one thread, as `tables` reads: pyarrow's own may hold the file still when the interpreter ends.
        table = pq.ParquetFile(file, pre_buffer=False)
        for batch in table.iter_batches(_TOGETHER, columns=[*_FIELDS, *fields], use_threads=False):
            here = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + len(batch))] - first
            first += len(batch)
            yield pa.Table.from_batches([batch]).take(pa.array(here))


def _add(
    column: ColumnStats,
    present: Sequence[bool],
    reasons: Sequence[str | None],
    confidence: Sequence[float | None],
    sums: list[float],
) -> None:
    for there, reason, sure in zip(present, reasons, confidence, strict=True):
        if there:
            column.present += 1
            if sure is not None:
                sums[0] += sure
                sums[1] += 1
        else:
            # Reasons come from experts and may be all different; memory must not grow with the number of clips.
            reason = reason or ""
            if reason not in column.absent and len(column.absent) >= _MOST_REASONS:
                reason = OTHER_REASONS
            column.absent[reason] = column.absent.get(reason, 0) + 1
