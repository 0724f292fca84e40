"""The facts of clips as one flat table."""

from __future__ import annotations

import pyarrow as pa

from openuni.shards import facts


def test_hashes_of_one_column_never_stand_for_another_s() -> None:
    """`scores_text` measures no hashes: its empty lists hid those of `scores`, and `dedup` had nothing to compare."""
    columns = {"key": pa.array(["a", "b"])}
    for column, hashes in {
        "scores": [[1] * 10, None],
        "scores_features": [[7] * 32] * 2,
        "scores_text": [[], []],
    }.items():
        columns |= {
            f"{column}.present": pa.array([True, True]),
            f"{column}.reason": pa.array(["", ""]),
            f"{column}.expert": pa.array(["e", "e"]),
            f"{column}.confidence": pa.array([None, None], pa.float64()),
            f"{column}.scores": pa.array([[("n", 1.0)], []], pa.map_(pa.string(), pa.float64())),
            f"{column}.hashes": pa.array(hashes, pa.list_(pa.uint64())),
        }
    made = facts.flat(pa.table(columns), ["scores", "scores_features", "scores_text"])
    assert made["hashes"].to_pylist() == [[1] * 10, None]
    assert made["scores_features.hashes"].to_pylist() == [[7] * 32] * 2
    assert made["n"].to_pylist() == [1.0, None]
