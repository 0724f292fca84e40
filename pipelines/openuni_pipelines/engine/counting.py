"""A dataset in numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from openuni.choosing import Step
from openuni.shards import plan
from openuni.shards.reader import Dataset

_MOST_REASONS = 32
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
    """How the rows of its table were chosen."""


def count(data: Dataset) -> Stats:
    """Stream the index of `data` into numbers."""
    names = [*data.columns, *data.score_columns]
    columns = {name: ColumnStats() for name in names}
    stats = Stats(skipped=dict(data.manifest.skipped), columns=columns, funnel=plan.funnel(data.manifest))
    sizes: Counter[str] = Counter()
    subsets: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    licenses: Counter[str] = Counter()
    confidences: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for shard in data.shards:
        for name, record in shard.columns.items():
            if name in stats.columns:  # a view may leave out some
                stats.columns[name].bytes += record.tar.size
    for sample in data:
        known = sample.record
        stats.samples += 1
        stats.frames += known.frames
        stats.hours += known.frames / known.fps / 3600
        stats.captioned += bool(known.caption)
        sizes[f"{known.width}×{known.height}"] += 1
        subsets[known.subset] += 1
        splits[known.split] += 1
        licenses[known.license] += 1
        for name, status in sample.statuses.items():
            column = stats.columns[name]
            if status.present:
                column.present += 1
                if status.confidence is not None:
                    confidences[name][0] += status.confidence
                    confidences[name][1] += 1
            else:
                # Reasons come from experts and may be all different; memory must not grow with the number of clips.
                known_reason = status.reason in column.absent or len(column.absent) < _MOST_REASONS
                reason = status.reason if known_reason else OTHER_REASONS
                column.absent[reason] = column.absent.get(reason, 0) + 1
    stats.sizes, stats.subsets = dict(sizes.most_common()), dict(subsets.most_common())
    stats.splits, stats.licenses = dict(splits.most_common()), dict(licenses.most_common())
    for name, (total, number) in confidences.items():
        stats.columns[name].confidence = round(total / number, 4)
    return stats
