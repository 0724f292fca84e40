"""Routing by shot: the windows of one shot are of one subset."""

from __future__ import annotations

import pyarrow as pa
import pytest

from openuni.sample import Record, Status
from openuni.shards import routing
from openuni.shards.index import Row


@pytest.mark.parametrize(
    ("people", "agreed"),
    [([1.0, 1.0, 0.0], 1.0), ([2.0, 1.0, 2.0, 2.0], 2.0), ([1.0, 2.0], 1.5), ([0.0, 0.0, 1.0], 0.0), ([7.5], 7.5)],
)
def test_a_shot_is_routed_by_most_of_its_windows_and_in_doubt_by_none(people: list[float], agreed: float) -> None:
    shots: list[tuple[str, float] | None] = [("v", 3.0)] * len(people)
    assert routing.of_shots(shots, list(people)) == [agreed] * len(people)


def test_other_shots_other_videos_and_clips_without_a_shot_are_on_their_own() -> None:
    shots = [("v", 0.0), ("v", 0.0), ("v", 1.0), ("w", 0.0), None, ("v", 0.0)]
    assert routing.of_shots(shots, [1.0, 1.0, 2.0, 0.0, 5.0, None]) == [1.0, 1.0, 2.0, 0.0, 5.0, None]


def test_rows_and_tables_are_routed_alike() -> None:
    people = [1.0, 1.0, 0.0, 2.0]
    records = [Record(str(k), 4, 16, 24, 16.0, video_id="v", scores={"shot": 0.0 if k < 3 else 1.0}) for k in range(4)]
    rgb = [Row(record.key, 0, Status(True), (), dict(record.scores), record) for record in records]
    skeleton = [Row(str(k), 0, Status(True), (), {"people": number}) for k, number in enumerate(people)]
    routing.add_to_rows({"rgb": rgb, "skeleton": skeleton})
    assert [row.scores["people_of_shot"] for row in skeleton] == [1.0, 1.0, 1.0, 2.0]
    assert "people_of_shot" not in rgb[0].scores
    kind = pa.map_(pa.string(), pa.float64())
    table = pa.table(
        {"video_id": ["v"] * 4, "scores": pa.array([list(record.scores.items()) for record in records], kind)}
    )
    numbers = routing.people_of_shots(table, pa.chunked_array([people]))
    assert numbers.to_pylist() == [1.0, 1.0, 1.0, 2.0]
    general = pa.chunked_array([["general"] * 4])
    assert routing.subsets(general, numbers).to_pylist() == ["single_person"] * 3 + ["two_person"]
