"""The reader: by key, by cursor, from a URL, and by WebDataset itself."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.compute as pc
import pytest
import webdataset

import openuni
from openuni.errors import AbsentModalityError, CorruptDataError, OpenUniError, PlanError
from openuni.sample import Sample
from openuni.shards import layout
from openuni.shards.reader import Order
from openuni.storage.remote import RemoteStore
from openuni_pipelines.engine.exporting import merge

from .conftest import COLUMNS, H, T, W, key_of, values_of

Write = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_data_set: Write) -> Path:
    return write_data_set(tmp_path / "data")


def test_a_sample_by_key_holds_what_was_written(root: Path) -> None:
    data = openuni.open(str(root))
    assert len(data) == 12
    assert data.columns == list(COLUMNS)
    for number in (0, 7, 11):
        frames, depth, flow = values_of(number)
        sample = data[key_of(number)]
        np.testing.assert_array_equal(sample.rgb.frames, frames)
        np.testing.assert_allclose(sample.depth.values, depth, rtol=1e-3)
        np.testing.assert_allclose(sample.flow.forward, flow, atol=1 / 32)
        assert sample.caption == f"sample {number}"
        assert (sample.record.frames, sample.record.height, sample.record.width) == (T, H, W)
        assert sample.statuses["depth"].confidence == 0.75


def test_keys_come_in_stored_order_and_unknown_ones_raise(root: Path) -> None:
    data = openuni.open(str(root))
    keys = list(data.keys())
    assert keys == sorted(key_of(number) for number in range(12))
    assert [sample.key for sample in data] == keys
    assert data[5].key == keys[5]
    for absent in ("clip-00000x", "aaa", "zzz", "clip-00003-"):
        assert absent not in data
        with pytest.raises(KeyError):
            data[absent]
    with pytest.raises(IndexError):
        data[12]


def test_numbers_and_slices_read_as_a_list_of_the_keys_does(root: Path) -> None:
    data = openuni.open(root)
    keys = list(data.keys())
    assert isinstance(data, openuni.Dataset)
    assert [data[n].key for n in range(-12, 12)] == keys + keys
    assert data[np.int64(3)].key == keys[3]
    for outside in (12, -13):
        with pytest.raises(IndexError, match="12 samples"):
            data[outside]
    for part in (slice(3, 9), slice(None, None, 5), slice(-2, None), slice(None, None, -1), slice(5, 5)):
        view = data[part]
        assert len(view) == len(keys[part])
        assert list(view.keys()) == [sample.key for sample in view] == keys[part]
        assert [key for key in keys if key in view] == sorted(keys[part])
    view = data[3:9]
    assert view[-1].key == keys[8]
    assert [sample.key for sample in view[1:3]] == keys[4:6]
    with pytest.raises(KeyError):
        view[keys[2]]
    with pytest.raises(IndexError):
        view[6]
    assert repr(view) == f"Dataset({str(root)!r}, 6 samples of rgb, depth, flow)"


def test_selected_columns_are_all_that_is_read_and_records_stay_whole(root: Path) -> None:
    data = openuni.open(root).select(["flow", "rgb"])
    assert data.columns == ["rgb", "flow"]
    for shard in range(3):
        (root / layout.tar_name(shard, "depth")).unlink()
    for number, (sample, whole) in enumerate(zip(data, openuni.open(root), strict=True)):
        np.testing.assert_allclose(sample.flow.forward, values_of(number)[2], atol=1 / 32)
        assert "depth" not in sample
        assert sample.record == whole.record
    with pytest.raises(AbsentModalityError, match="has no column 'depth'"):
        data[0]["depth"]
    with pytest.raises(OpenUniError, match="has no column depth, normals; it has rgb, flow"):
        data.select(["depth", "normals"])


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        (pc.field("depth.present"), lambda sample: "depth" in sample),
        (
            pc.field("caption").isin(["sample 2", "sample 11"]),
            lambda sample: sample.caption in ("sample 2", "sample 11"),
        ),
        (pc.field("subset") == "two_person", lambda sample: sample.record.subset == "two_person"),
        (pc.field("flow.confidence") > 0.5, lambda sample: sample.statuses["flow"].confidence > 0.5),
        (
            pc.map_lookup(pc.field("flow.scores"), "people", "first") < 2,
            lambda sample: sample.record.scores["people"] < 2,
        ),
    ],
)
def test_a_filter_is_answered_from_the_index_alone(
    root: Path, expression: pc.Expression, function: Callable[[Sample], bool]
) -> None:
    whole = openuni.open(root)
    kept = [sample.key for sample in whole if function(sample)]
    for tar in root.rglob("*.tar"):
        tar.unlink()
    for view in (whole.filter(expression), whole.filter(function)):
        assert list(view.keys()) == kept
        assert len(view) == len(kept)
        assert [sample.key for sample in view[1:]] == kept[1:]
    backwards = whole[::-1].filter(expression)
    assert list(backwards.keys()) == kept[::-1]
    assert list(whole[4:8].filter(expression).keys()) == [key for key in kept if key in whole[4:8]]


def test_a_filter_that_does_not_fit_the_index_names_the_fields(root: Path) -> None:
    data = openuni.open(root)
    with pytest.raises(OpenUniError, match=r"No match for FieldRef.*its fields are key, frames, .*depth\.confidence"):
        data.filter(pc.field("depht.present"))
    with pytest.raises(PlanError, match="no sample is left"):
        next(data.filter(pc.field("frames") > 1000).samples(seed=0))


def test_a_view_trains_on_its_samples_alone_once_an_epoch(root: Path) -> None:
    data = openuni.open(root)
    for view in (data[::-2], data.filter(pc.field("depth.present")), data[4:8]):
        stream = view.samples(seed=2)
        epochs = [[next(stream)[1].key for _ in range(len(view))] for _ in range(2)]
        assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(view.keys())
        resumed = view.samples(seed=2, cursor=len(view) + 1)
        assert [next(resumed)[1].key for _ in range(len(view) - 1)] == epochs[1][1:]
    whole, all_of_it = data.samples(seed=2), data[:].samples(seed=2)
    assert [next(whole)[1].key for _ in range(24)] == [next(all_of_it)[1].key for _ in range(24)]


def test_a_view_shares_what_was_read(root: Path) -> None:
    data = openuni.open(root)
    first = data[0]
    for index in root.rglob("*.parquet"):
        index.unlink()
    view = data[:4].select(["rgb"])
    assert view[0].record == first.record
    assert view[3].key == key_of(3)
    sent = pickle.loads(pickle.dumps(view))  # noqa: S301  our own bytes
    assert len(sent) == 4
    assert len(pickle.dumps(view)) < 20_000


def test_an_absent_modality_says_why(root: Path) -> None:
    sample = openuni.open(str(root))[key_of(4)]
    assert "depth" not in sample
    assert "flow" in sample
    with pytest.raises(AbsentModalityError, match="every fifth has none"):
        _ = sample.depth
    with pytest.raises(AttributeError):
        _ = sample.skeleton
    with pytest.raises(AbsentModalityError, match="has no column 'skeleton'"):
        _ = sample["skeleton"]


def test_the_subset_follows_the_number_of_people(root: Path) -> None:
    data = openuni.open(str(root))
    assert [data[n].record.subset for n in range(3)] == ["general", "single_person", "two_person"]


def test_a_url_reads_like_a_folder_and_only_ranges_are_read(root: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/bucket/data", recursive=True)
    data = openuni.open("memory://bucket/data")
    np.testing.assert_array_equal(data[key_of(7)].rgb.frames, values_of(7)[0])


def test_a_second_epoch_over_a_url_reads_what_is_kept_here_and_not_what_is_damaged(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").put(str(root), "/bucket/kept", recursive=True)
    url, near = "memory://bucket/kept", tmp_path / "near"
    fetched: list[str] = []
    read_range = RemoteStore.read_range

    def counting(self: RemoteStore, name: str, offset: int, size: int) -> bytes:
        fetched.append(name)
        return read_range(self, name, offset, size)

    monkeypatch.setattr(RemoteStore, "read_range", counting)

    def epoch() -> int:
        fetched.clear()
        data = openuni.open(url, cache_dir=near)
        for number in range(9):
            np.testing.assert_array_equal(data[key_of(number)].rgb.frames, values_of(number)[0])
        return sum(name.endswith(".tar") for name in fetched)

    assert epoch() == 9
    assert epoch() == 0
    flipped = next(path for path in sorted(near.glob("??/*")))
    flipped.write_bytes(bytes(byte ^ 1 for byte in flipped.read_bytes()))
    assert epoch() == 1
    assert epoch() == 0
    assert openuni.open(str(root), cache_dir=tmp_path / "unused")[0].rgb.frames.size
    assert not list((tmp_path / "unused").glob("??/*"))  # what is on this machine is not copied


@pytest.mark.parametrize("world", [1, 3, 5])
def test_each_epoch_takes_each_sample_once_whatever_the_number_of_ranks(root: Path, world: int) -> None:
    data = openuni.open(str(root))
    epochs = 2
    taken: list[str] = []
    ranks = [data.samples(seed=1, rank=rank, world_size=world) for rank in range(world)]
    cursor = 0
    while cursor < epochs * len(data):
        for rank in ranks:
            cursor_after, sample = next(rank)
            taken.append(sample.key)
        cursor = cursor_after
    assert Counter(taken[: len(data)]) == Counter(data.keys())
    assert Counter(taken[len(data) : 2 * len(data)]) == Counter(data.keys())


def test_a_cursor_resumes_exactly_also_with_another_number_of_ranks(root: Path) -> None:
    data = openuni.open(str(root))
    stream = data.samples(seed=3)
    whole = [next(stream)[1].key for _ in range(30)]
    resumed = data.samples(seed=3, cursor=10)
    assert [next(resumed)[1].key for _ in range(20)] == whole[10:]
    pair = [data.samples(seed=3, cursor=10, rank=rank, world_size=2) for rank in range(2)]
    assert [next(pair[n % 2])[1].key for n in range(20)] == whole[10:]


def test_epochs_and_seeds_differ() -> None:
    order, other = Order([40, 40, 40], seed=0), Order([40, 40, 40], seed=1)
    first = [order.locate(n) for n in range(120)]
    second = [order.locate(n) for n in range(120, 240)]
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != [other.locate(n) for n in range(120)]


def test_order_is_a_permutation_over_many_windows_and_can_jump() -> None:
    sizes = [3, 0, 7, 1, 5] * 30
    order = Order(sizes, seed=5)
    total = sum(sizes)
    places = [order.locate(n) for n in range(total)]
    assert sorted(places) == [(s, r) for s, size in enumerate(sizes) for r in range(size)]
    jumping = Order(sizes, seed=5)
    for n in (total - 1, 0, total // 2, total + 3, 1):
        expected = places[n] if n < total else Order(sizes, seed=5).locate(n)
        assert jumping.locate(n) == expected


def test_plain_webdataset_reads_each_column(root: Path) -> None:
    for column, field in (("rgb", "mp4"), ("depth", "depth.mkv"), ("flow", "flow.mkv")):
        urls = [str(root / layout.tar_name(shard, column)) for shard in range(3)]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
        assert [sample["__key__"] for sample in samples] == [key_of(number) for number in range(12)]
        note = "json" if column == "rgb" else f"{column}.json"
        for sample in samples:
            assert (field in sample) == json.loads(sample[note])["status"]["present"]
        if column == "rgb":
            assert json.loads(samples[3]["json"])["caption"] == "sample 3"


def test_plain_webdataset_reads_a_merged_export(root: Path, tmp_path: Path) -> None:
    data = openuni.open(str(root))
    files = merge(data, tmp_path / "merged", ["rgb", "depth", "flow"])
    samples = list(webdataset.WebDataset([str(file) for file in files], shardshuffle=False))
    assert len(samples) == 12
    assert {"mp4", "json", "depth.mkv", "depth.json", "flow.mkv", "flow.json"} <= set(samples[0])
    again = merge(data, tmp_path / "again", ["rgb", "depth", "flow"])
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    with pytest.raises(PlanError, match="no column skeleton"):
        merge(data, tmp_path / "x", ["skeleton"])


def test_a_flipped_bit_is_a_typed_error_with_the_clips_name(root: Path) -> None:
    path = root / layout.tar_name(1, "depth")
    data = bytearray(path.read_bytes())
    member = openuni.open(str(root))._rows(1)["depth"][2].members[-1]
    data[member.offset + member.size // 2] ^= 1
    path.write_bytes(data)
    reopened = openuni.open(str(root))
    with pytest.raises(CorruptDataError, match=key_of(6)):
        _ = reopened[key_of(6)].depth
    assert reopened[key_of(7)].depth.values.shape == (T, H, W)


def test_training_may_leave_damaged_samples_out_and_counts_them(root: Path) -> None:
    path = root / layout.tar_name(1, "flow")
    data = bytearray(path.read_bytes())
    member = openuni.open(str(root))._rows(1)["flow"][2].members[-1]
    data[member.offset] ^= 1
    path.write_bytes(data)
    reopened = openuni.open(str(root))
    stream = reopened.samples(seed=0, load=["flow"], skip_damaged=True)
    taken = {next(stream)[1].key for _ in range(11)}
    assert taken == {key_of(number) for number in range(12)} - {key_of(6)}
    next(stream)  # of the second epoch: by now the damaged one was met
    assert reopened.damaged >= 1
    stream = reopened.samples(seed=0, load=["flow"])
    with pytest.raises(CorruptDataError, match=key_of(6)):
        list(itertools.islice(stream, 12))


def test_a_column_of_another_build_is_refused(root: Path, tmp_path: Path, write_data_set: Write) -> None:
    other = write_data_set(tmp_path / "other", shards=3, per_shard=3)
    for name in (layout.tar_name(1, "depth"), layout.index_name(1, "depth"), layout.commit_name(1, "depth")):
        (root / name).write_bytes((other / name).read_bytes())
    with pytest.raises(CorruptDataError, match="other keys"):
        openuni.open(str(root))[key_of(5)]


def test_a_column_that_is_being_upgraded_counts_as_absent(root: Path) -> None:
    manifest = json.loads((root / layout.MANIFEST).read_text())
    manifest["columns"]["depth"] = "test-2"
    (root / layout.MANIFEST).write_text(json.dumps(manifest))
    sample = openuni.open(str(root))[key_of(0)]
    assert "depth" not in sample
    assert "not annotated yet" in sample.statuses["depth"].reason


def test_what_is_no_data_set_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="is not a dataset"):
        openuni.open(str(tmp_path))
    (tmp_path / layout.MANIFEST).write_text('{"schema": 1}')
    with pytest.raises(CorruptDataError, match="valid Manifest"):
        openuni.open(str(tmp_path))


def test_a_sample_can_be_sent_to_another_process(root: Path) -> None:
    data = openuni.open(str(root))
    sent = pickle.loads(pickle.dumps(data[key_of(7)]))  # noqa: S301  our own bytes
    np.testing.assert_array_equal(sent.rgb.frames, values_of(7)[0])
    assert len(pickle.dumps(data[key_of(7)])) < 20_000


def test_nothing_is_unpickled(root: Path, tmp_path: Path) -> None:
    """A pickle in place of a JSON note is refused, not run."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    from openuni.shards.results import decode_note

    with pytest.raises(CorruptDataError):
        decode_note(pickle.dumps(Bomb()), "hostile.tar", column="depth")
    assert not (tmp_path / "exploded").exists()
