"""Tables whose text columns hold lists, structures or bytes: printed with brackets they would train a model on them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openuni.errors import PlanError
from openuni.sources import Request
from openuni.sources.table import Table


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("caption", [["a dog", "a dog runs"], ["a cat"]], r"VARCHAR\[\]"),
        ("caption", [{"en": "a dog"}, {"en": "a cat"}], r"STRUCT\(en VARCHAR\)"),
        ("caption", [b"a dog", b"\xff"], "BLOB"),
        ("video", [["a.mp4"], ["b.mp4"]], r"VARCHAR\[\]"),
    ],
)
def test_they_are_refused_and_the_remedy_is_named(tmp_path: Path, column: str, values: list[object], kind: str) -> None:
    (tmp_path / "videos").mkdir()
    table = {"video": ["a.mp4", "b.mp4"], "caption": ["a dog", "a cat"]} | {column: values}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    request = Request(tmp_path / "videos", tmp_path / "rows.parquet")
    with pytest.raises(PlanError, match=rf"rows\.parquet: column '{column}' holds {kind} .*--map {column}=COLUMN"):
        Table().check(request)
