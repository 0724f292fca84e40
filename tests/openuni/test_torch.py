"""Torch's loaders over a dataset: once an epoch on any ranks and workers, and resumed anywhere as if undisturbed."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

import openuni  # noqa: E402
from openuni.errors import CorruptDataError, OpenUniError  # noqa: E402
from openuni.sample import Sample  # noqa: E402
from openuni.shards import layout  # noqa: E402
from openuni.shards.reader import Dataset  # noqa: E402
from openuni.torch import IterableDataset  # noqa: E402
from tests.openuni.shards.conftest import write_data_set  # noqa: E402, F401  a fixture

SEED, SAMPLES = 5, 25
Write = Callable[..., Path]
Batches = list[list[str]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, write_data_set: Write) -> Path:  # noqa: F811
    return write_data_set(tmp_path_factory.mktemp("torch") / "data", shards=5, per_shard=5)


@pytest.fixture
def data(root: Path) -> Dataset:
    return openuni.open(root)


def key_of(sample: Sample) -> str:
    return sample.key


def undisturbed(data: Dataset, epochs: int = 1) -> list[str]:
    at = data.order(SEED)
    return [at(position).key for position in range(epochs * SAMPLES)]


def on_ranks(data: Dataset, world_size: int, batch_size: int) -> list[IterableDataset[str]]:
    return [
        IterableDataset(data, key_of, seed=SEED, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]


def together(loaders: list[Any], steps: int | None = None) -> Batches:
    """What all ranks' loaders give in each step, sorted; all of the epoch, or so many steps."""
    given: Batches = []
    running: list[Iterator[list[str]]] = [iter(loader) for loader in loaders]
    while steps is None or len(given) < steps:
        batches = [next(rank, []) for rank in running]
        if not any(batches):
            break
        given.append(sorted(key for batch in batches for key in batch))
    return given


def cut(keys: list[str], size: int) -> Batches:
    return [sorted(keys[begin : begin + size]) for begin in range(0, len(keys), size)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (3, 2), (2, 7)])
def test_an_epoch_gives_each_sample_once_in_the_readers_order(
    data: Dataset, workers: int, world_size: int, batch_size: int
) -> None:
    datasets = on_ranks(data, world_size, batch_size)
    loaders = [DataLoader(dataset, batch_size, num_workers=workers) for dataset in datasets]
    for epoch in range(2):
        for dataset in datasets:
            dataset.set_epoch(epoch)
        order = undisturbed(data, 2)[epoch * SAMPLES :][:SAMPLES]
        assert together(loaders) == cut(order, world_size * batch_size)


def test_workers_that_outlive_an_epoch_hear_of_the_next(data: Dataset) -> None:
    (dataset,) = on_ranks(data, 1, 4)
    loader = DataLoader(dataset, 4, num_workers=2, persistent_workers=True)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        assert together([loader]) == cut(undisturbed(data, 3)[epoch * SAMPLES :][:SAMPLES], 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_of_the_end_of_an_epoch_goes_on_with_the_next(data: Dataset, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    (dataset,) = on_ranks(data, 1, 4)
    loader = stateful.StatefulDataLoader(dataset, 4, num_workers=workers)
    together([loader])
    (other,) = on_ranks(data, 1, 4)
    resumed = stateful.StatefulDataLoader(other, 4, num_workers=workers)
    resumed.load_state_dict(loader.state_dict())
    other.set_epoch(1)
    assert together([resumed]) == cut(undisturbed(data, 2)[SAMPLES:], 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_resumes_exactly_on_one_then_three_then_two_ranks(data: Dataset, workers: int) -> None:
    """The state is of rank 0, and stands for all; the ranks, the batches and the epoch change under way."""
    given: list[str] = []
    state: dict[str, Any] | None = None
    for world_size, batch_size, steps in ((1, 4, 2), (3, 2, 2), (2, 3, None), (2, 3, 1)):
        datasets = on_ranks(data, world_size, batch_size)
        for dataset in datasets:
            if state is not None:
                dataset.load_state_dict(pickle.loads(pickle.dumps(state)))  # noqa: S301  our own bytes
        batches = together([DataLoader(dataset, batch_size, num_workers=workers) for dataset in datasets], steps)
        state = datasets[0].state_dict(batches=len(batches))
        if not workers:
            assert datasets[0].state_dict() == state
        expected = undisturbed(data, 2)[len(given) :][: sum(map(len, batches))]
        assert batches == cut(expected, world_size * batch_size)
        given += expected
    assert len(given) == SAMPLES + 6


@pytest.mark.parametrize("workers", [0, 2])
def test_torchdatas_loader_resumes_in_the_middle_of_an_epoch_on_other_ranks(data: Dataset, workers: int) -> None:
    """1 → 3 → 2 ranks of one global batch of 6, each time after a number of steps that workers do not divide."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    given: Batches = []
    state: dict[str, Any] | None = None
    for world_size, batch_size, steps in ((1, 6, 1), (3, 2, 2), (2, 3, None)):
        datasets = on_ranks(data, world_size, batch_size)
        loaders = [stateful.StatefulDataLoader(each, batch_size, num_workers=workers) for each in datasets]
        for dataset, loader in zip(datasets, loaders, strict=True):
            dataset.set_epoch(1)
            if state is not None:
                loader.load_state_dict(pickle.loads(pickle.dumps(state)))  # noqa: S301  our own bytes
        given += together(loaders, steps)
        state = loaders[0].state_dict()
    assert given == cut(undisturbed(data, 2)[SAMPLES:], 6)


def test_a_state_of_workers_refuses_another_cut_in_one_sentence(data: Dataset) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    (dataset,) = on_ranks(data, 1, 6)
    loader = stateful.StatefulDataLoader(dataset, 6, num_workers=2)
    together([loader], 1)
    state = loader.state_dict()["_snapshot"]["_worker_snapshots"]["worker_1"]["dataset_state"]
    with pytest.raises(OpenUniError, match="2 workers and a global batch of 6; keep both"):
        dataset.load_state_dict(state)


def test_workers_read_ahead_so_the_dataset_asks_how_far_the_loader_is(data: Dataset) -> None:
    (dataset,) = on_ranks(data, 1, 4)
    together([DataLoader(dataset, 4, num_workers=1)], 2)
    with pytest.raises(OpenUniError, match="batches="):
        dataset.state_dict()
    assert dataset.state_dict(batches=2)["cursor"] == 8
    assert dataset.state_dict(batches=100)["cursor"] == SAMPLES
    dataset.set_epoch(3)
    assert dataset.state_dict()["cursor"] == 3 * SAMPLES


def test_a_state_of_other_data_or_another_seed_is_refused(data: Dataset) -> None:
    state = IterableDataset(data, seed=SEED).state_dict()
    with pytest.raises(OpenUniError, match="25 samples in the order of seed 5, not of 25 in that of seed 6"):
        IterableDataset(data, seed=6).load_state_dict(state)
    with pytest.raises(OpenUniError, match="not of 10"):
        IterableDataset(data[:10], seed=SEED).load_state_dict(state)


def test_what_cannot_be_loaded_is_refused_at_once(data: Dataset) -> None:
    with pytest.raises(OpenUniError, match="rank 3 is not in 0…2"):
        IterableDataset(data, rank=3, world_size=3)
    with pytest.raises(OpenUniError, match="batch of 0 samples"):
        IterableDataset(data, batch_size=0)
    with pytest.raises(OpenUniError, match="no sample to train on"):
        IterableDataset(data[:0])


def test_the_rank_is_that_of_torch_distributed(data: Dataset) -> None:
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    torch.distributed.init_process_group("fake", store=fake.FakeStore(), rank=1, world_size=3)
    try:
        dataset = IterableDataset(data)
        assert (dataset.rank, dataset.world_size) == (1, 3)
    finally:
        torch.distributed.destroy_process_group()


def test_without_a_transform_samples_come_with_the_selected_columns_decoded(data: Dataset) -> None:
    dataset = IterableDataset[Sample](data.select(["rgb", "flow"]), seed=SEED, batch_size=2)
    batch = next(iter(DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=list)))
    for sample in batch:
        assert sorted(sample._values) == ["flow", "rgb"]
        assert sample.rgb.frames.shape == (4, 16, 24, 3)


def test_a_damaged_sample_is_an_error_that_names_it(root: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(root, tmp_path / "damaged")
    tar = damaged / layout.tar_name(2, "flow")
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(CorruptDataError, match="clip-000"):
        list(IterableDataset(openuni.open(damaged), seed=SEED))
