"""Which subset a clip belongs to: by how many people were tracked, over all windows of its shot.

A long shot becomes several clips, and somebody may turn away in one of them. The windows of a shot (same `video_id`,
same score `shot`) that one shard holds share one number of people: that of most of them. Where no number has most, the
shot is in doubt, and its number is no whole one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from openuni.sample import Record, Subset
from openuni.shards.index import Row

PEOPLE, OF_SHOT, SHOT = "people", "people_of_shot", "shot"


def of_shots(shots: Sequence[tuple[str, float] | None], people: Sequence[float | None]) -> list[float | None]:
    """The number of people of each clip's shot, from each clip's shot (None: not known) and own number.

    Example:
        >>> of_shots([("a", 0.0)] * 3 + [("a", 1.0)], [1.0, 1.0, 0.0, 2.0])
        [1.0, 1.0, 1.0, 2.0]
        >>> of_shots([("a", 0.0)] * 2, [1.0, 2.0])
        [1.5, 1.5]
    """
    numbers: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
    for shot, number in zip(shots, people, strict=True):
        if shot is not None and number is not None:
            numbers[shot].append(number)
    agreed = {shot: _agreed(each) for shot, each in numbers.items()}
    return [
        number if shot is None or number is None else agreed[shot] for shot, number in zip(shots, people, strict=True)
    ]


def _agreed(numbers: Sequence[float]) -> float:
    (commonest, count), *_ = Counter(numbers).most_common(1)
    return commonest if 2 * count > len(numbers) else math.floor(min(numbers)) + 0.5


def add_to_rows(rows: Mapping[str, Sequence[Row]]) -> None:
    """Put `people_of_shot` beside `people` into the scores of a shard's index rows by column, in place."""
    records = [row.record for row in rows["rgb"]]
    shots = [
        (record.video_id, record.scores[SHOT]) if record is not None and SHOT in record.scores else None
        for record in records
    ]
    for column in rows.values():
        people = [row.scores.get(PEOPLE) for row in column]
        for row, number in zip(column, of_shots(shots, people), strict=True):
            if number is not None:
                row.scores[OF_SHOT] = number


def people_of_shots(rgb: pa.Table, people: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same over a shard's table: its RGB index and each clip's own number."""
    numbers = pc.map_lookup(rgb["scores"], SHOT, "first").to_pylist()
    videos = rgb["video_id"].to_pylist()
    shots = [None if n is None else (video, n) for video, n in zip(videos, numbers, strict=True)]
    return pa.chunked_array([pa.array(of_shots(shots, people.to_pylist()), pa.float64())])


def subset(record: Record) -> Subset:
    """Clips that the source did not route are routed by the number of people of their shot."""
    people = record.scores.get(OF_SHOT, record.scores.get(PEOPLE))
    if record.subset != "general" or people is None:
        return record.subset
    return "single_person" if people == 1 else "two_person" if people == 2 else "general"


def subsets(routed: pa.ChunkedArray, people: pa.ChunkedArray) -> pa.ChunkedArray:
    """`subset` for a whole shard, from what the source said and the numbers of people."""
    counted = pc.and_(pc.equal(routed, "general"), pc.is_valid(people))
    single, two = pc.equal(people, 1.0), pc.equal(people, 2.0)
    by_number = pc.if_else(single, "single_person", pc.if_else(two, "two_person", "general"))
    return pc.if_else(counted, by_number, routed)
