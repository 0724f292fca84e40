"""A dataset for torch's loaders: exactly once an epoch over all ranks and workers, resumed exactly anywhere.

The order is the reader's: a seeded permutation for each epoch (`Dataset.samples`). It is cut into global batches, of
which each rank takes its share and each worker every so many-th. So what all ranks have seen after n steps is a prefix
of the order whatever the number of ranks and workers, and one integer, the cursor, says where it ends. (Streaming by
MosaicML cuts by batch for the same reason: `streaming/base/dataset.py`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import distributed
from torch.utils.data import IterableDataset as TorchDataset
from torch.utils.data import get_worker_info

from openuni.errors import OpenUniError
from openuni.sample import Sample
from openuni.shards.reader import Dataset

T = TypeVar("T")


class IterableDataset(TorchDataset[T]):
    """One epoch of a dataset or view, for `torch.utils.data.DataLoader` or `torchdata`'s `StatefulDataLoader`.

    Yields `transform(sample)`, or without one the Sample itself with its columns decoded (give the loader a
    `collate_fn` then). `data.select(…)` says which columns are decoded, `data.filter(…)` which samples there are.

    `batch_size` is that of the loader. `rank` and `world_size` are those of `torch.distributed` where it is
    initialised, else 0 and 1. The last global batch of an epoch holds what is left: its ranks' shares differ by at most
    one sample, and where fewer samples than ranks are left, some ranks have one batch less.

    Iterating gives the epoch that `set_epoch` named, from its start or, after `load_state_dict`, from the cursor on.
    A damaged sample raises CorruptDataError.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from openuni.torch import IterableDataset
        >>> data = openuni.open("data/demo").select(["rgb", "depth"])
        >>> dataset = IterableDataset(data, lambda sample: sample.rgb.frames, seed=0, batch_size=2)
        >>> [tuple(batch.shape) for batch in DataLoader(dataset, batch_size=2)]  # uint8 [B, T, H, W, 3]
        [(2, 4, 16, 24, 3), (1, 4, 16, 24, 3)]
    """

    def __init__(
        self,
        data: Dataset,
        transform: Callable[[Sample], T] | None = None,
        *,
        seed: int = 0,
        batch_size: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Raises OpenUniError where there is no sample, the rank is not in the world, or a batch would be empty."""
        joined = distributed.is_available() and distributed.is_initialized()
        self.rank = rank if rank is not None else distributed.get_rank() if joined else 0
        self.world_size = world_size if world_size is not None else distributed.get_world_size() if joined else 1
        if not 0 <= self.rank < self.world_size:
            raise OpenUniError(f"rank {self.rank} is not in 0…{self.world_size - 1}")
        if batch_size < 1:
            raise OpenUniError(f"a batch of {batch_size} samples is none; give the loader's batch_size, 1 or more")
        if not len(data):
            raise OpenUniError(f"{data.url}: there is no sample to train on; build some, or loosen the view's filter")
        self.data = data
        self.transform = transform
        self.seed = seed
        self.batch_size = batch_size
        self._start = 0
        """Cursor from which an epoch begins on all workers together."""
        self._next = 0
        """Cursor of the global batch that this process comes to next."""
        self._resumed = False
        """Whether `_next` is where this worker goes on, instead of `_start`."""
        self._shared_start = torch.zeros(1, dtype=torch.int64).share_memory_()
        """`_start` of the loader's process, for workers that outlive an epoch."""
        self._read_ahead = torch.zeros(1, dtype=torch.bool).share_memory_()
        """Set by workers: the loader's process cannot know how far they have come."""

    @property
    def epoch(self) -> int:
        """The epoch that iterating gives."""
        return self._start // len(self.data)

    def set_epoch(self, epoch: int) -> None:
        """Give this epoch from now on; call it before each epoch. One that was resumed in the middle goes on there."""
        self._begin_at(self._start if epoch == self.epoch else epoch * len(self.data))

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where reading stands, as plain numbers, the same on every rank.

        A `StatefulDataLoader` asks for it by itself. With a `DataLoader` that has workers say how many `batches` it
        has given since the epoch began or was resumed: workers read ahead. Raises OpenUniError where that is missing.
        """
        worker = get_worker_info()
        cursor, workers = self._next, worker.num_workers if worker else 0
        if batches is not None:
            cursor, workers = min(self._start + batches * self._global_batch, self._end), 0
        elif worker is None and self._read_ahead:
            raise OpenUniError("workers read ahead of the loader: say state_dict(batches=…), how many it has given")
        epoch = self.epoch if worker else cursor // len(self.data)
        state = {"seed": self.seed, "epoch": epoch, "cursor": cursor, "samples": len(self.data)}
        return state | {"workers": workers, "global_batch_size": self._global_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, also with another number of ranks, workers or samples a batch.

        A state that a `StatefulDataLoader` took of its workers is in as many parts, cut by global batches: it goes on
        with as many workers and the same global batch, on any number of ranks. Raises OpenUniError where they differ,
        or the state is of other data or another seed.
        """
        if (state["seed"], state["samples"]) != (self.seed, len(self.data)):
            raise OpenUniError(
                f"this state is of {state['samples']} samples in the order of seed {state['seed']}, not of "
                f"{len(self.data)} in that of seed {self.seed}; give the same data and seed"
            )
        if not state["workers"]:
            self._begin_at(state["cursor"])
            return
        worker = get_worker_info()
        if worker is None or (worker.num_workers, self._global_batch) != (state["workers"], state["global_batch_size"]):
            raise OpenUniError(
                f"this state is of a loader with {state['workers']} workers and a global batch of "
                f"{state['global_batch_size']}; keep both, or resume from state_dict(batches=…) of the dataset"
            )
        self._start, self._next, self._resumed = state["epoch"] * len(self.data), state["cursor"], True

    def __iter__(self) -> Iterator[T]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            self._read_ahead[0] = True
        if not self._resumed:
            self._start = int(self._shared_start)
            self._next = self._start + number * self._global_batch
        self._resumed = False
        return self._samples(workers)

    def _begin_at(self, cursor: int) -> None:
        self._start = self._next = cursor
        self._shared_start[0] = cursor
        self._read_ahead.zero_()

    def _samples(self, workers: int) -> Iterator[T]:
        at = self.data.order(self.seed)
        end = self._end
        while (begin := self._next) < end:
            batch = range(begin + self.rank, min(begin + self._global_batch, end), self.world_size)
            for position in batch:
                if position == batch[-1]:  # before it is given: a loader asks for the state between two batches
                    self._next = self._after(begin, workers)
                yield self._read(at(position))
            self._next = self._after(begin, workers)

    def _after(self, begin: int, workers: int) -> int:
        """The cursor of this process's next global batch: of the next epoch's first where there is none."""
        following = begin + workers * self._global_batch
        return following if workers > 1 else min(following, self._end)

    def _read(self, sample: Sample) -> T:
        if self.transform is not None:
            return self.transform(sample)
        for name in self.data.columns:
            if name in sample:
                sample[name]
        return cast(T, sample)

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size

    @property
    def _end(self) -> int:
        return (self.epoch + 1) * len(self.data)
