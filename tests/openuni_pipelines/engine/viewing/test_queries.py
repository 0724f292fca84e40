"""Filters, order and histograms agree with DuckDB on the same table, and a large grid scrolls to its last clip."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import openuni
from openuni.errors import OpenUniError
from openuni.modalities.depth import Depth
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, Sample
from openuni.shards import catalog, facts, writer
from openuni_pipelines.engine.viewing.catalogue import Catalogue, Query
from openuni_pipelines.engine.viewing.clips import Clips
from openuni_pipelines.engine.viewing.flags import Flags
from openuni_pipelines.engine.viewing.server import Viewer, open_in_background
from openuni_pipelines.engine.viewing.sources import Parts, Source, Stored, _schema

ROWS = 20_000
COLUMNS = {"rgb": "rgb-1", "depth": "depth-1"}


class Made(Source):
    """An index without clips."""

    def __init__(self, rows: int) -> None:
        rng = np.random.default_rng(0)
        self.url, self.columns = "made", ["rgb", "depth"]
        present = rng.random(rows) < 0.8
        words = np.array(["a cat runs", "A Dog sits", "rain on a roof", "two people dance"])
        subsets = np.array(["general", "single_person", "two_person"])
        known = {
            "key": [f"clip-{number:07d}" for number in range(rows)],
            "frames": rng.integers(8, 200, rows).tolist(),
            "height": [480] * rows,
            "width": [832] * rows,
            "fps": rng.choice([16.0, 24.0, 30.0], rows).tolist(),
            "caption": words[rng.integers(0, 4, rows)].tolist(),
            "subset": subsets[rng.integers(0, 3, rows)].tolist(),
            "split": ["train"] * rows,
            "source": ["made"] * rows,
            "rgb.present": [True] * rows,
            "depth.present": present.tolist(),
            "depth.reason": ["" if one else "too dark" for one in present],
            "depth.confidence": [float(c) if p else None for p, c in zip(present, rng.random(rows), strict=True)],
        }
        schema = _schema(self.columns)
        arrays = [pa.array(known.get(field.name, [None] * rows), field.type) for field in schema]
        self.whole = pa.Table.from_arrays(arrays, names=schema.names)
        self.let = threading.Event()
        self.let.set()

    def __len__(self) -> int:
        return int(self.whole.num_rows)

    def __contains__(self, key: str) -> bool:
        return False

    def sample(self, key: str) -> Sample:
        raise OpenUniError(f"no clip {key}")

    def read(self, key: str, column: str) -> Parts:
        raise OpenUniError(f"no clip {key}")

    def table(self, first: int, stop: int) -> pa.Table:
        if stop - first > 1000:  # the index as a whole
            self.let.wait()
        return self.whole.slice(first, stop - first)


@pytest.mark.parametrize(
    ("query", "where", "order"),
    [
        (Query(words="CAT"), "caption ilike '%cat%'", "key"),
        (
            Query(words="a dog", ranges={"frames": (50, 80)}),
            "caption ilike '%dog%' and frames between 50 and 80",
            "key",
        ),
        (
            Query(choices={"subset": ("general", "two_person")}, sort="depth.confidence", order="descending"),
            "subset in ('general', 'two_person')",
            '"depth.confidence" desc nulls last, key',
        ),
        (Query(absent=("depth", "too dark"), sort="frames"), 'not "depth.present"', "frames, key"),
        (
            Query(ranges={"depth.confidence": (0.25, 0.5)}, sort="fps"),
            '"depth.confidence" between .25 and .5',
            "fps, key",
        ),
        (Query(order="descending"), "true", "key desc"),
    ],
)
def test_filters_and_order_are_those_of_duckdb(query: Query, where: str, order: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    made = Made(ROWS)
    catalogue = Catalogue(made)
    whole = made.whole.select(["key", "caption", "frames", "fps", "subset", "depth.present", "depth.confidence"])
    connection = duckdb.connect()
    connection.register("clips", whole)
    expected = [
        row[0] for row in connection.execute(f"select key from clips where {where} order by {order}").fetchall()
    ]
    assert expected
    assert list(catalogue.keys(catalogue.find(query))) == expected


def test_a_large_index_is_folded_once_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    for shard in range(3):
        keys = [f"clip-{shard}-{number}" for number in range(4)]
        for number, key in enumerate(keys):
            record = Record(key, 2, 8, 8, 8.0, caption=f"clip {number}", scores={"sharp": number} if shard else {})
            rgb = Annotation(Rgb(np.zeros((2, 8, 8, 3), np.uint8), 8.0))
            depth = Annotation(Depth(np.ones((2, 8, 8), np.float32), "metric"), number / 4) if number else "too dark"
            writer.save_sample(root, shard, record, {"rgb": rgb, "depth": depth}, COLUMNS, "run")
        writer.commit_shard(root, shard, keys, COLUMNS, "run")
    writer.write_manifest(root, {}, COLUMNS, 12, 3, "run")
    catalog.write(root, "run")
    small = Catalogue(Stored(openuni.open(root)))
    found = [small.facets(), *(small.values(name).tolist() for name in small.numbers)]
    assert facts.kept(openuni.open(root).store) is None  # a small dataset is left as it is
    monkeypatch.setattr("openuni_pipelines.engine.viewing.sources.SLAB", 5)
    queries = [Query(words="clip 3"), Query(absent=("depth", "")), Query(sort="sharp", order="descending")]
    for _ in range(2):  # made, then read
        large = Catalogue(Stored(openuni.open(root)))
        assert repr([large.facets(), *(large.values(name).tolist() for name in large.numbers)]) == repr(found)
        for query in queries:
            assert large.find(query).tolist() == small.find(query).tolist()
            cards = large.cards(large.find(query), query.sort)
            assert cards == small.cards(small.find(query), query.sort)
        assert large.read == 12
        assert facts.kept(openuni.open(root).store) == root / facts.TABLE


def test_a_large_grid_scrolls_to_its_end_and_shows_clips_before_the_index_is_read(tmp_path: Path, page: Any) -> None:
    made = Made(100_000)
    made.let.clear()
    viewer = Viewer(Clips(made), Flags(tmp_path / "flags.jsonl"))
    open_in_background(viewer)
    page.goto(viewer.url)
    page.wait_for_selector("text=clip-0000003")  # the index has not been read
    page.wait_for_selector("text=reading the index")
    made.let.set()
    page.wait_for_function("() => state.facets && !document.getElementById('reading').textContent")
    page.evaluate("document.getElementById('grid').scrollTop = 1e9")
    page.wait_for_selector("text=clip-0099999")
    assert page.locator(".card").count() < 100  # only those in sight exist
    page.evaluate("document.getElementById('grid').scrollTop /= 2")
    page.wait_for_selector("text=/clip-00(49|50)/")
    page.evaluate("bringBack(77_777)")  # from a clip back to its card
    page.wait_for_selector("text=clip-0077777")
    viewer.close()
