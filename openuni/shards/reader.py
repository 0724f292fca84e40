"""Reading a dataset: by key in ranged reads, or for training in a seeded order with an integer cursor."""

from __future__ import annotations

import bisect
import itertools
import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from openuni import modalities
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import SCHEMA_VERSION, Record, Sample, Status, Subset
from openuni.shards import columns, index, layout
from openuni.shards.index import Row
from openuni.shards.layout import CommitRecord, Manifest
from openuni.shards.results import Result
from openuni.storage import DOCUMENT, open_store

_WINDOW = 32
"""Shards that are shuffled together: their indices are what iteration holds in memory."""
NOT_YET = "its shard is not annotated yet"
"""Why a sample of a build that is under way lacks a modality."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The committed columns of one shard; every one has the same keys in the same order."""

    number: int
    samples: int
    first_key: str
    last_key: str
    columns: Mapping[str, CommitRecord]


class Dataset:
    """A dataset folder, local or at any fsspec URL. Open it with `openuni.open(path)`.

    `data[key]` is a Sample whose modalities are read when asked. `data[key].depth` reads one byte range. The index of
    a shard is read when a sample of it is asked for, and the last few are kept, so memory does not grow with the
    number of clips.
    """

    def __init__(self, url: str) -> None:
        """Raises PlanError when `url` is not a dataset, CorruptDataError when its manifest is damaged.

        One that is planned but has nothing committed yet opens, and is empty.
        """
        self.url = url
        self._store = open_store(url)
        try:
            data = self._store.read(layout.MANIFEST, at_most=DOCUMENT)
        except (FileNotFoundError, NotADirectoryError):
            raise PlanError(f"{url} is not a dataset: it has no {layout.MANIFEST}") from None
        self.manifest = layout.parse_json(Manifest, data, self._path(layout.MANIFEST))
        if self.manifest.schema != SCHEMA_VERSION:
            raise PlanError(f"{url} has schema {self.manifest.schema}; this version reads schema {SCHEMA_VERSION}")
        self.damaged = 0
        """Samples that `samples` left out because their bytes are not what was committed."""
        self._indices: OrderedDict[int, dict[str, list[Row]]] = OrderedDict()

    @cached_property
    def shards(self) -> list[Shard]:
        """Shards whose RGB is committed, in key order, with the columns that the manifest names.

        Raises CorruptDataError where a commit record is damaged, or the keys of a shard do not follow the one before.
        """
        files = self._store.list("commits")  # none: planned, and nothing committed yet
        names = [name for name in map(layout.parse_commit_name, files) if name and name[1] in self.manifest.columns]
        with ThreadPoolExecutor(16) as pool:
            records = pool.map(lambda name: self._commit(*name), names)
            by_shard: dict[int, dict[str, CommitRecord]] = {}
            for record in records:
                # A column that is being upgraded still has shards of the expert before: they are not this column.
                if record.fingerprint == self.manifest.columns[record.column]:
                    by_shard.setdefault(record.shard, {})[record.column] = record
        shards = [
            Shard(
                number,
                found["rgb"].samples,
                found["rgb"].first_key,
                found["rgb"].last_key,
                {name: found[name] for name in self.columns if name in found},
            )
            for number, found in sorted(by_shard.items())
            if "rgb" in found and found["rgb"].samples
        ]
        for before, after in itertools.pairwise(shards):
            if before.last_key >= after.first_key:  # a key would not be found
                raise CorruptDataError(
                    f"{self.url}: shard {after.number} begins at {after.first_key}, which does not follow "
                    f"{before.last_key} of shard {before.number}"
                )
        return shards

    @property
    def columns(self) -> list[str]:
        """Modalities of this dataset, RGB first."""
        return list(self.manifest.columns)

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: str) -> Sample:
        """The sample. Raises KeyError."""
        place = self._find(key)
        if place is None:
            raise KeyError(key)
        return self._sample(*place)

    def keys(self) -> Iterator[str]:
        """Every key, in stored order."""
        for position in range(len(self.shards)):
            yield from (row.key for row in self._rows(position)["rgb"])

    def __iter__(self) -> Iterator[Sample]:
        """Every sample, in stored order."""
        for position, shard in enumerate(self.shards):
            for row in range(shard.samples):
                yield self._sample(position, row)

    def at(self, number: int) -> Sample:
        """The sample at a place in stored order. Raises IndexError."""
        if number < 0:
            raise IndexError(number)
        for position, shard in enumerate(self.shards):
            if number < shard.samples:
                return self._sample(position, number)
            number -= shard.samples
        raise IndexError(number)

    def stored(self, position: int, names: Sequence[str]) -> Iterator[tuple[str, list[Result]]]:
        """Each key of the `position`-th shard with its undecoded members in the columns `names` that are committed."""
        rows = self._rows(position)
        number = self.shards[position].number
        for row, rgb in enumerate(rows["rgb"]):
            yield rgb.key, [self._stored(number, name, rows[name][row]) for name in names if name in rows]

    def result(self, key: str, column: str) -> Result:
        """The undecoded members of one sample in one column. Raises KeyError where its shard lacks either."""
        place = self._find(key)
        if place is None:
            raise KeyError(key)
        position, row = place
        return self._stored(self.shards[position].number, column, self._rows(position)[column][row])

    def samples(
        self,
        seed: int,
        *,
        cursor: int = 0,
        rank: int = 0,
        world: int = 1,
        load: Sequence[str] = (),
        skip_damaged: bool = False,
    ) -> Iterator[tuple[int, Sample]]:
        """`(next cursor, sample)` for training, without end; an epoch is `len(self)` positions.

        Position `cursor + rank`, then every `world`-th: over all ranks (count a loader's workers as ranks) each epoch
        takes each sample exactly once. Store the largest cursor that was trained on to resume exactly, also with
        another `world`. The order of an epoch is a permutation from (seed, epoch): shards are shuffled, then the
        samples of every 32 shards together.

        `load` names modalities to decode at once, where a sample has them. A damaged one raises CorruptDataError; with
        `skip_damaged` its sample is left out instead and counted in `self.damaged`.
        """
        if not 0 <= rank < world:
            raise OpenUniError(f"rank {rank} is not in 0…{world - 1}")
        order = Order([shard.samples for shard in self.shards], seed)
        in_a_row = 0
        while True:
            sample = self._sample(*order.locate(cursor + rank))
            cursor += world
            try:
                for name in load:
                    if name in sample:
                        sample[name]
            except CorruptDataError:
                in_a_row += 1
                if not skip_damaged or in_a_row > len(self):  # a whole epoch of damage is no dataset
                    raise
                self.damaged += 1
                continue
            in_a_row = 0
            yield cursor, sample

    def _path(self, name: str) -> str:
        return self._store.where(name)

    def _commit(self, shard: int, column: str) -> CommitRecord:
        name = layout.commit_name(shard, column)
        path = self._path(name)
        record = layout.parse_sealed(CommitRecord, self._store.read(name, at_most=DOCUMENT), path)
        if (record.shard, record.column) != (shard, column):
            raise CorruptDataError(f"{path} is the record of shard {record.shard}, column {record.column!r}")
        return record

    def _find(self, key: str) -> tuple[int, int] | None:
        position = bisect.bisect_right(self.shards, key, key=lambda shard: shard.first_key) - 1
        if position < 0 or key > self.shards[position].last_key:
            return None
        rows = self._rows(position)["rgb"]
        row = bisect.bisect_left(rows, key, key=lambda row: row.key)
        return (position, row) if row < len(rows) and rows[row].key == key else None

    def _rows(self, position: int) -> dict[str, list[Row]]:
        """Index rows of a shard by column; the most recently used shards are kept."""
        if position in self._indices:
            self._indices.move_to_end(position)
            return self._indices[position]
        shard = self.shards[position]
        rows: dict[str, list[Row]] = {}
        for column, record in shard.columns.items():
            name = layout.index_name(shard.number, column)
            path, data = self._path(name), self._store.read(name, at_most=index.MOST_BYTES)
            if layout.digest(data) != record.index.sha256:
                raise CorruptDataError(f"{path} does not match its commit record; run `openuni verify --repair`")
            rows[column] = index.decode(data, column, path)
            if record.keys_sha256 != shard.columns["rgb"].keys_sha256:
                raise CorruptDataError(
                    f"{path} has other keys than the RGB of its shard: the column belongs to another build"
                )
        self._indices[position] = rows
        if len(self._indices) > _WINDOW:
            self._indices.popitem(last=False)
        return rows

    def _sample(self, position: int, row: int) -> Sample:
        shard, rows = self.shards[position], self._rows(position)
        record = rows["rgb"][row].record
        if record is None:
            raise CorruptDataError(f"shard {shard.number}: the RGB index has no record of {rows['rgb'][row].key}")
        statuses = {
            column: rows[column][row].status if column in rows else Status(False, NOT_YET) for column in self.columns
        }
        for column in rows:
            record = replace(record, scores={**record.scores, **rows[column][row].scores})
        # A partial of this sample's rows alone, not a closure: a sample can be sent to another process.
        load = partial(self._load, shard.number, {column: rows[column][row] for column in rows})
        return Sample(replace(record, subset=_subset(record)), statuses, load)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_indices": OrderedDict()}

    def _load(self, shard: int, rows: Mapping[str, Row], column: str) -> Any:
        return modalities.get(column).decode(self._stored(shard, column, rows[column]).encoded)

    def _stored(self, shard: int, column: str, row: Row) -> Result:
        name = layout.tar_name(shard, column)
        read = self._store.read_range
        return columns.read_row(column, row, self._path(name), lambda begin, end: read(name, begin, end - begin))


class Order:
    """A seeded permutation of (shard, row) pairs without a table of them: position → place."""

    def __init__(self, sizes: list[int], seed: int) -> None:
        if not sum(sizes):
            raise PlanError("the dataset has no committed sample yet")
        self._sizes = sizes
        self._seed = seed
        self._total = sum(sizes)
        self._epoch = -1
        self._window: tuple[int, int] = (0, 0)
        self._places: list[tuple[int, int]] = []

    def locate(self, position: int) -> tuple[int, int]:
        """Shard position and row at a training position, counted over all epochs."""
        epoch, position = divmod(position, self._total)
        if epoch != self._epoch:
            self._epoch = epoch
            self._shards = list(range(len(self._sizes)))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._shards)
            self._window = (0, 0)
        if not self._window[0] <= position < self._window[1]:
            self._enter(position)
        return self._places[position - self._window[0]]

    def _enter(self, position: int) -> None:
        begin = 0
        for first in range(0, len(self._shards), _WINDOW):
            shards = self._shards[first : first + _WINDOW]
            end = begin + sum(self._sizes[shard] for shard in shards)
            if position < end:
                self._places = [(shard, row) for shard in shards for row in range(self._sizes[shard])]
                random.Random(f"{self._seed}/{self._epoch}/{first}").shuffle(self._places)
                self._window = (begin, end)
                return
            begin = end


def _subset(record: Record) -> Subset:
    """Clips that the source did not route are routed by the number of people that were tracked."""
    people = record.scores.get("people")
    if record.subset != "general" or people is None:
        return record.subset
    return "single_person" if people == 1 else "two_person" if people == 2 else "general"
