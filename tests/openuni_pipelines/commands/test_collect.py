"""`unibench collect`: what it chooses, what it freezes, and that the rest of the system takes it as it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from openuni.errors import CorruptDataError, PlanError
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import writer
from openuni.shards.reader import Dataset
from openuni_pipelines.cli import unibench
from openuni_pipelines.engine.collecting import copy, freeze, read_list
from unibench.scoring.runs import open_run
from unibench.standard.collect import LIST, SUBSETS, Candidate, select

COLUMNS = {"rgb": "normalised-1", "depth": "toy-1", "flow": "toy-2"}
CLIPS = 90


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """30 videos of three clips each, a third of every split; every third clip has no flow."""
    root, rng, keys = tmp_path_factory.mktemp("built"), np.random.default_rng(0), list[str]()
    for n in range(CLIPS):
        rgb = Rgb(rng.integers(0, 255, (2, 16, 16, 3), np.uint8), 16.0, exact=True)
        depth = Depth(rng.uniform(1, 2, (2, 16, 16)).astype(np.float32), "metric", exact=True)
        flow = Flow(rng.normal(0, 1, (1, 16, 16, 2)).astype(np.float32), exact=True)
        split = ("train", "val", "test")[n // 3 % 3]
        record = Record(f"clip-{n:03d}", 2, 16, 16, 16.0, caption=f"clip {n}", subset=SUBSETS[n % 3], split=split,
                        video_id=f"video {n // 3}", license="CC-BY-4.0")  # type: ignore[arg-type]  # fmt: skip
        values = {"rgb": Annotation(rgb), "depth": Annotation(depth), "flow": Annotation(flow) if n % 9 else "blurred"}
        writer.save_sample(root, n // 45, record, values, COLUMNS, "run")
        keys.append(record.key)
    for shard in range(2):
        writer.commit_shard(root, shard, keys[45 * shard : 45 * shard + 45], COLUMNS, "run")
    writer.write_manifest(root, {"source": "test"}, COLUMNS, CLIPS, 2, "run")
    return Dataset(str(root))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(unibench, ["collect", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def candidates(rng: np.random.Generator, count: int) -> list[Candidate]:
    """Clips of `count` / 2 videos; three in four are of no subset, one in five has the last view."""
    made = []
    for n in range(count):
        subset = SUBSETS[int(rng.choice(3, p=[0.15, 0.1, 0.75]))]
        views = ("depth", "flow", "skeleton") if rng.random() < 0.2 else ("depth", "flow")
        made.append(Candidate(f"k{n}", f"v{n // 2}", "test", subset, views))
    return made


def test_the_choice_is_even_over_subsets_and_views_though_the_data_are_not() -> None:
    found = candidates(np.random.default_rng(0), 2000)
    picked = select(found, 90, seed=0)
    cells = Counter((one.subset, view) for one, view in picked)
    assert set(cells.values()) == {10}
    assert len(cells) == 9
    assert all(view in one.views for one, view in picked)
    assert len({one.video for one, _ in picked}) == 90


def test_cells_that_run_dry_leave_their_share_to_the_others() -> None:
    rare = [Candidate(f"r{n}", f"r{n}", "test", "two_person", ("skeleton",)) for n in range(4)]
    many = [Candidate(f"m{n}", f"m{n}", "test", "general", ("depth",)) for n in range(50)]
    assert Counter(one.subset for one, _ in select(rare + many, 30, 0)) == {"two_person": 4, "general": 26}
    assert len(select(rare + many, 200, 0)) == 54


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_clips() -> None:
    found = candidates(np.random.default_rng(1), 1000)
    shuffled = [found[n] for n in np.random.default_rng(2).permutation(len(found))]
    assert select(found, 40, 0) == select(shuffled, 40, 0)
    assert {one.key for one, _ in select(found, 40, 0)} != {one.key for one, _ in select(found, 40, 1)}


def test_collected_clips_are_the_stored_ones_and_off_the_training_split(built: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "real"
    output = run("--data", built.url, "--out", out, "--count", "6")
    assert "6 clips" in output
    frozen, made = read_list(out / LIST), Dataset(str(out))
    assert [clip.key for clip in frozen.clips] == list(made.keys())
    assert Counter(clip.subset for clip in frozen.clips) == dict.fromkeys(SUBSETS, 2)
    for sample in made:
        source = built[sample.key]
        assert sample.record == source.record
        assert sample.record.split == "test"
        assert sample.statuses == source.statuses
        np.testing.assert_array_equal(sample.rgb.frames, source.rgb.frames)
        np.testing.assert_array_equal(sample.depth.values, source.depth.values)
    assert made.manifest.columns == COLUMNS


def test_a_list_makes_the_same_data_set_again_and_notices_a_changed_clip(built: Dataset, tmp_path: Path) -> None:
    first = freeze(built, tmp_path / "a", 6, 0, ("test", "val"))
    assert {clip.split for clip in first.clips} <= {"test", "val"}
    run("--data", built.url, "--out", tmp_path / "b", "--list", tmp_path / "a" / LIST)
    for name in ("shards/000000.rgb.tar", "shards/000000.flow.tar", LIST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    document = json.loads((tmp_path / "a" / LIST).read_text())
    document["clips"][2]["sha256"]["depth"] = "0" * 64
    (tmp_path / "changed.json").write_text(json.dumps(document))
    with pytest.raises(CorruptDataError, match=rf"{document['clips'][2]['key']}: depth"):
        copy(built, tmp_path / "c", read_list(tmp_path / "changed.json"))
    document["clips"][2]["key"] = "unknown"
    (tmp_path / "changed.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match="no clip unknown"):
        copy(built, tmp_path / "c", read_list(tmp_path / "changed.json"))
    for clip, part, wrong, why in (
        (0, "sha256", {}, "lacks hashes"),
        (1, "split", "train", "trained on"),
    ):
        document = json.loads((tmp_path / "a" / LIST).read_text())
        document["clips"][clip][part] = wrong
        (tmp_path / "changed.json").write_text(json.dumps(document))
        with pytest.raises(CorruptDataError, match=why):
            read_list(tmp_path / "changed.json")
    (tmp_path / "none.json").write_text('{"clips": "all"}')
    with pytest.raises(CorruptDataError, match=r"none\.json"):
        read_list(tmp_path / "none.json")


@pytest.mark.slow
def test_two_workers_copy_the_same_bytes(built: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openuni_pipelines.engine.collecting.SHARD_SIZE", 3)
    freeze(built, tmp_path / "here", 6, 0, ("test",))
    run("--data", built.url, "--out", tmp_path / "there", "--count", "6", "--workers", "2")
    here = {path.relative_to(tmp_path / "here"): path for path in (tmp_path / "here" / "shards").rglob("*.tar")}
    assert len(here) == 2 * len(COLUMNS)
    for name, path in here.items():
        assert (tmp_path / "there" / name).read_bytes() == path.read_bytes()
    assert (tmp_path / "there" / LIST).read_bytes() == (tmp_path / "here" / LIST).read_bytes()


def test_too_few_clips_and_a_folder_in_use_end_in_one_sentence(built: Dataset, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"only 10 source videos in split test .*--count 10"):
        freeze(built, tmp_path / "x", 11, 0, ("test",))
    assert not (tmp_path / "x" / "dataset.json").exists()
    freeze(built, tmp_path / "x", 3, 0, ("test",))
    with pytest.raises(PlanError, match="holds a dataset already"):
        freeze(built, tmp_path / "x", 3, 0, ("test",))


def test_what_an_interrupted_run_left_is_not_taken_for_the_next_ones(
    built: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "real"
    monkeypatch.setattr("openuni_pipelines.engine.collecting.SHARD_SIZE", 2)
    with monkeypatch.context() as killed:
        killed.setattr(writer, "write_manifest", lambda *_: (_ for _ in ()).throw(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            freeze(built, out, 8, 0, ("test",))
    frozen = freeze(built, out, 3, 5, ("test",))
    assert list(Dataset(str(out)).keys()) == [clip.key for clip in frozen.clips]


def test_verify_score_and_training_take_it_as_any_data_set(built: Dataset, tmp_path: Path) -> None:
    from openuni_pipelines.cli import openuni

    out = tmp_path / "real"
    freeze(built, out, 5, 0, ("test",))
    assert CliRunner().invoke(openuni, ["verify", str(out)]).exit_code == 0
    truth = open_run(out)
    assert len(truth.keys("depth")) == len(truth.keys("video")) == 5
    pytest.importorskip("torch")
    from openuni_model.config import preset
    from openuni_model.data import Buckets, why_not
    from openuni_model.tasks import load_stage

    reasons = {why_not(built[key].record, load_stage("2"), Buckets(preset("nano"))) for key in truth.keys("depth")}
    assert reasons == {"split test"}
