"""Views: chosen by SQL over the index, with their funnel, and usable wherever a dataset is."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import openuni
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, split_of
from openuni.shards import catalog, facts, view, writer
from openuni.shards.view import View
from openuni_pipelines.engine.exporting import merge
from openuni_pipelines.engine.selecting import CAMERA, SelectConfig, select
from openuni_pipelines.engine.viewing.flags import Flags
from tests.s3 import BUCKET, Server

COLUMNS = {"rgb": "made-1"}
COUNT = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of 8 videos in three shards, with scores `number` and, for even ones, `half`."""
    root = tmp_path_factory.mktemp("data") / "d"
    keys = [f"clip-{number:02d}" for number in range(COUNT)]
    for shard in range(3):
        mine = keys[shard * 8 : shard * 8 + 8]
        for key in mine:
            number = int(key[-2:])
            scores = {"number": float(number)} | ({"half": number / 2} if number % 2 == 0 else {})
            frames = np.random.default_rng(number).integers(0, 255, (4, 16, 24, 3), np.uint8)
            record = Record(key, 4, 16, 24, 8.0, f"clip {number}", video_id=f"video-{number // 3}", scores=scores)
            annotation = Annotation(Rgb(frames, 8.0, exact=True), scores=scores)
            writer.save_sample(root, shard, record, {"rgb": annotation}, COLUMNS, "run")
        writer.commit_shard(root, shard, mine, COLUMNS, "run")
    writer.write_manifest(root, {"source": "made"}, COLUMNS, COUNT, 3, "run")
    catalog.write(root, "run")
    return root


def chosen(data: Path, *where: str, **rule: object) -> list[int]:
    made = select(openuni.open(data), where, SelectConfig(**rule), None)  # type: ignore[arg-type]
    return [int(key[-2:]) for key in made.view.keys]


def test_conditions_quantiles_and_missing_scores(data: Path) -> None:
    assert chosen(data, "number >= 20") == [20, 21, 22, 23]
    assert chosen(data, "half > 10") == [22]
    assert chosen(data, "number > 3 and half is null and caption like '%5'") == [5, 15]
    assert chosen(data, "number >= quantile_cont(number, .9) over ()") == [21, 22, 23]
    # A quantile is of what is left at its step.
    assert chosen(data, "number < 10", "number >= quantile_cont(number, .5) over ()") == [5, 6, 7, 8, 9]


def test_the_funnel_counts_each_step_and_the_view_keeps_rule_funnel_and_keys(data: Path, tmp_path: Path) -> None:
    for name in ("v.json", "v.parquet"):
        out = tmp_path / name
        made = select(openuni.open(data), ["number >= 4", "half is not null"], SelectConfig(sample=5, seed=3), out)
        assert [(step.what, step.left) for step in made.view.funnel] == [
            ("all", 24),
            ("number >= 4", 20),
            ("half is not null", 10),
            ("sample", 5),
        ]
        again = view.read(out)
        assert again.rule == {"where": ["number >= 4", "half is not null"], "sample": 5, "seed": 3}
        assert list(again.keys) == list(made.view.keys)
        assert again.funnel == made.view.funnel
        opened = openuni.open(out)
        assert list(opened.keys()) == list(made.view.keys)
        assert opened.lacking == 0
    assert json.loads((tmp_path / "v.json").read_text())["dataset"] == str(data.resolve())
    inside = data / "inside.json"
    select(openuni.open(data), ["number = 1"], SelectConfig(), inside)
    assert json.loads(inside.read_text())["dataset"] == "."
    moved = data.rename(data.with_name("moved"))
    assert list(openuni.open(moved / "inside.json").keys()) == ["clip-01"]
    moved.rename(data)
    inside.unlink()


@pytest.mark.parametrize("name", ["v.json", "v.parquet"])
def test_a_view_may_lie_in_a_bucket(data: Path, s3: Server, name: str) -> None:
    url = f"s3://{BUCKET}/d/views/{name}"
    select(openuni.open(data), ["number = 1"], SelectConfig(), url)
    assert list(openuni.open(url).keys()) == ["clip-01"]
    view.write(url, View(view.dataset_of(f"s3://{BUCKET}/d", url), {}, (), ["clip-01"]), "run")
    assert view.read(url).dataset == f"s3://{BUCKET}/d"
    with pytest.raises(PlanError, match=r"gone\.json is not there"):
        openuni.open(f"s3://{BUCKET}/gone.json")
    with pytest.raises(PlanError, match="written to a folder or a bucket"):
        select(openuni.open(data), ["number = 1"], SelectConfig(), f"memory://d/{name}")


def test_a_view_reads_trains_exports_and_is_chosen_from_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.json"
    select(openuni.open(data), ["number in (1, 9, 10)"], SelectConfig(), out)
    opened = openuni.open(out)
    assert len(opened) == 3
    assert opened["clip-09"].rgb.frames.shape == (4, 16, 24, 3)
    assert "clip-02" not in opened
    stream = opened.samples(seed=0)
    assert {next(stream)[1].key for _ in range(3)} == {"clip-01", "clip-09", "clip-10"}
    files = merge(opened, tmp_path / "merged", ["rgb"])
    assert [file.name for file in files] == ["000000.tar", "000001.tar"]
    assert [int(key[-2:]) for key in select(opened, ["number > 1"], SelectConfig(), None).view.keys] == [9, 10]
    document = json.loads(out.read_text())
    document["keys"].append("gone")
    out.write_text(json.dumps(document))
    assert (len(openuni.open(out)), openuni.open(out).lacking) == (3, 1)


def test_keys_flags_and_views_are_taken_and_left_out(data: Path, tmp_path: Path) -> None:
    listed = tmp_path / "keys.txt"
    listed.write_text("clip-03\nclip-05\nnot-there\n")
    assert chosen(data, keys=listed) == [3, 5]
    flags = Flags(tmp_path / "flags.jsonl")
    flags.set("clip-03", "blurred")
    flags.set("clip-04", "a mistake")
    flags.set("clip-04", "")
    assert chosen(data, keys=listed, exclude=flags.path) == [5]
    assert 4 in chosen(data, exclude=flags.path)
    pq.write_table(pa.table({"key": ["clip-07"]}), tmp_path / "k.parquet")
    assert chosen(data, keys=tmp_path / "k.parquet") == [7]
    listed.write_text("clip-03\n../etc\n")
    with pytest.raises(CorruptDataError, match="entry 2"):
        chosen(data, keys=listed)


def test_samples_are_seeded_and_balance_is_even(data: Path) -> None:
    assert chosen(data, sample=6) == chosen(data, sample=6) != chosen(data, sample=6, seed=1)
    assert set(chosen(data, sample=6)) < set(chosen(data, sample=12))
    # Buckets of 20, 3 and 1.
    bucket = "case when number < 20 then 'a' when number < 23 then 'b' else 'c' end"
    even = chosen(data, balance=bucket)
    assert Counter("a" if n < 20 else "b" if n < 23 else "c" for n in even) == {"a": 1, "b": 1, "c": 1}
    filled = chosen(data, balance=bucket, sample=10)
    assert Counter("a" if n < 20 else "b" if n < 23 else "c" for n in filled) == {"a": 6, "b": 3, "c": 1}
    assert len(chosen(data, balance="half")) == 12  # each value once, and none of the clips without


@pytest.mark.parametrize("seed", [0, 5])
def test_splits_are_by_source_video_and_those_that_the_index_has(data: Path, seed: int) -> None:
    shares = {"val": 0.3, "test": 0.3}
    parts = {}
    for split in ("train", "val", "test"):
        rule = SelectConfig(split=split, seed=seed, **shares)  # type: ignore[arg-type]
        try:
            parts[split] = [int(key[-2:]) for key in select(openuni.open(data), (), rule, None).view.keys]
        except PlanError:
            parts[split] = []
    assert sorted(number for part in parts.values() for number in part) == list(range(COUNT))
    for split, numbers in parts.items():
        assert all(split_of(f"video-{n // 3}", seed=seed, **shares) == split for n in numbers)


def test_bad_rules_say_what_is_wrong_and_write_nothing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.json"
    for where, match in (("nonsense > 1", "nonsense.*known: key"), ("number >", "syntax"), ("number > 99", "no clip")):
        with pytest.raises(PlanError, match=match) as said:
            select(openuni.open(data), [where], SelectConfig(), out)
        assert not re.search("Error|file_row_number|hashes", str(said.value))
    with pytest.raises(PlanError, match=r"\.json or \.parquet"):
        select(openuni.open(data), [], SelectConfig(), tmp_path / "v.txt")
    with pytest.raises(PlanError, match="perceptual hashes"):
        select(openuni.open(data), [], SelectConfig(disjoint_from=str(data), keys=None), out)
    with pytest.raises(PlanError, match="more than all"):
        SelectConfig(val=0.6, test=0.6)
    assert not out.exists()
    for text in ("{}", "[1", '{"dataset": "x", "rule": {}, "funnel": [], "keys": ["../x"]}'):
        out.write_text(text)
        with pytest.raises(OpenUniError, match=r"v\.json"):
            openuni.open(out)
    with pytest.raises(PlanError, match="file of the dataset"):
        select(openuni.open(data), [], SelectConfig(), data / "dataset.json")


def test_facts_are_kept_with_their_catalog_and_made_anew_for_another(data: Path) -> None:
    facts.forget(data)
    opened = openuni.open(data)
    with facts.table(opened) as path:
        assert path.parent != data
    with facts.table(opened) as path:
        assert path == data / facts.TABLE
        stored = pq.read_table(path)
    assert stored["key"].to_pylist() == list(opened.keys())
    assert stored["half"].null_count == 12
    catalog.retire(data)
    assert facts.kept(opened.store) is None
    catalog.write(data, "run")
    assert facts.kept(opened.store) == data / facts.TABLE
    broken = (data / facts.HEAD).read_text().replace("size", "sise")
    (data / facts.HEAD).write_text(broken)
    assert facts.kept(opened.store) is None
    assert chosen(data, "number = 3") == [3]


def test_what_a_killed_choice_left_is_taken_away_by_the_next(data: Path, tmp_path: Path) -> None:
    facts.forget(data)
    left = [data / ".facts.json.facts.00112233.tmp", data / ".facts.parquet.facts.00112233.tmp",
            tmp_path / ".v.json.select.00112233.tmp"]  # fmt: skip
    draft = tmp_path / ".w.json.select.00112233.tmp"
    for path in (*left, draft):
        path.write_text("half")
    select(openuni.open(data), (), SelectConfig(), tmp_path / "v.json")
    assert [path.name for path in left if path.exists()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [draft.name, "v.json"]


def test_the_class_of_a_camera_is_its_largest_motion() -> None:
    import duckdb

    def camera(x: float = 0, y: float = 0, zoom: float = 0, roll: float = 0, shake: float = 0) -> str:
        row = f"SELECT {x} camera_x, {y} camera_y, {zoom} camera_zoom, {roll} camera_roll, {shake} camera_shake"
        return duckdb.sql(f"SELECT {CAMERA} FROM ({row})").fetchall()[0][0]  # type: ignore[no-any-return]

    assert camera() == "static"
    assert camera(shake=0.1) == camera(x=0.05, shake=0.1) == "shake"
    assert camera(x=0.1, shake=0.05) == "pan"
    assert camera(x=-0.3, y=0.1) == "pan"
    assert camera(x=0.1, y=-0.3) == "tilt"
    assert camera(x=0.01, zoom=0.2) == "zoom in"
    assert camera(zoom=-0.2) == "zoom out"
    assert camera(roll=0.5, x=0.05) == "roll"
