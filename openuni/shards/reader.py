"""Reading a dataset: by key or number in ranged reads, or for training in a seeded order with an integer cursor."""

from __future__ import annotations

import bisect
import io
import itertools
import operator
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from openuni import modalities
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import SCHEMA_VERSION, Sample, Status
from openuni.shards import catalog, columns, facts, index, layout, plan, results, routing, tables
from openuni.shards.index import Row
from openuni.shards.layout import CommitRecord, Manifest
from openuni.shards.results import Result
from openuni.storage import DOCUMENT, Cache, LocalStore, Store, open_regular, open_store

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
    """A dataset folder, local or at any fsspec URL, or a view of some of it. Open one with `openuni.open(path)`.

    `data["key"]` and `data[0]` are Samples, whose modalities are read when asked: `data[0].depth` reads one byte range.
    `data[10:20]`, `data.filter(…)` and `data.select(…)` are views: Datasets that share what was read, and copy nothing.
    The index of a shard is read when a sample of it is asked for, and the last few are kept, so memory does not grow
    with the number of clips.

    Example:
        >>> import openuni
        >>> data = openuni.open("data/demo")
        >>> data
        Dataset('data/demo', 3 samples of rgb, depth, flow)
        >>> len(data), data[-1].key, "bunny" in data
        (3, 'carphone', True)
        >>> data["bunny"].depth.values.shape
        (4, 16, 24)
        >>> [sample.key for sample in data[:2]]
        ['bikes-street', 'bunny']
    """

    def __init__(self, url: str, cache: Cache | None = None) -> None:
        """Raises PlanError when `url` is not a dataset, CorruptDataError when its manifest is damaged.

        `cache` keeps what is read of samples, if the dataset is not on this machine. One that is planned but has
        nothing committed yet opens, and is empty.
        """
        self.url = url
        self._store = open_store(url)
        self._cache = None if isinstance(self._store, LocalStore) else cache
        try:
            data = self._store.read(layout.MANIFEST, at_most=DOCUMENT)
        except (FileNotFoundError, NotADirectoryError):
            raise PlanError(f"{url} is not a dataset: it has no {layout.MANIFEST}") from None
        self.manifest = layout.parse_json(Manifest, data, self._path(layout.MANIFEST))
        self._manifest_sha256 = layout.digest(data)
        if self.manifest.schema != SCHEMA_VERSION:
            raise PlanError(f"{url} has schema {self.manifest.schema}; this version reads schema {SCHEMA_VERSION}")
        self.lacking = 0
        """Keys of a view that the dataset does not have, or no longer."""
        self.damaged = 0
        """Samples that `samples` left out because their bytes are not what was committed."""
        self._columns = [name for name in self.manifest.columns if not layout.holds_numbers(name)]
        self._indices: OrderedDict[int, dict[str, list[Row]]] = OrderedDict()
        self._chosen: range | npt.NDArray[np.int64] | None = None
        """Which samples a view has, by their number in the whole dataset; None: all."""

    def records(self) -> list[CommitRecord]:
        """The commit records of the manifest's columns, also of shards whose clips were all removed."""
        # A column that is being upgraded still has shards of the expert before: they are not this column.
        return [r for r in self._commits() if r.fingerprint == self.manifest.columns.get(r.column)]

    @cached_property
    def shards(self) -> list[Shard]:
        """Shards whose RGB is committed, in key order, with the columns that the manifest names.

        Raises CorruptDataError where a commit record is damaged, or the keys of a shard do not follow the one before.
        """
        by_shard: dict[int, dict[str, CommitRecord]] = {}
        for record in self.records():
            by_shard.setdefault(record.shard, {})[record.column] = record
        shards = [
            Shard(
                number,
                committed["rgb"].samples,
                committed["rgb"].first_key,
                committed["rgb"].last_key,
                {name: committed[name] for name in self.manifest.columns if name in committed},
            )
            for number, committed in sorted(by_shard.items())
            if "rgb" in committed and committed["rgb"].samples
        ]
        starts = set(plan.starts(self.manifest))
        for before, after in itertools.pairwise(shards):
            if after.number not in starts and before.last_key >= after.first_key:  # a key would not be found
                raise CorruptDataError(
                    f"{self.url}: shard {after.number} begins at {after.first_key}, which does not follow "
                    f"{before.last_key} of shard {before.number}"
                )
        return shards

    @property
    def columns(self) -> list[str]:
        """Modalities of this dataset or view, RGB first."""
        return list(self._columns)

    @property
    def score_columns(self) -> list[str]:
        """Columns of numbers: their scores are in every sample's record, and `sample["scores"]` gives theirs alone."""
        return [name for name in self.manifest.columns if layout.holds_numbers(name)]

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"Dataset({self.url!r}, {len(self):,} samples of {', '.join(self.columns)})"

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    @overload
    def __getitem__(self, item: SupportsIndex | str) -> Sample: ...

    @overload
    def __getitem__(self, item: slice) -> Dataset: ...

    def __getitem__(self, item: SupportsIndex | str | slice) -> Sample | Dataset:
        """The sample of a key or at a place in stored order (negative: from the end), or a view of a slice.

        Raises KeyError or IndexError.
        """
        if isinstance(item, slice):
            return self._view(_chosen=self._numbers[item])
        if isinstance(item, str):
            place = self._find(item)
            if place is None:
                raise KeyError(item)
            return self._sample(*place)
        number = operator.index(item)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.url} has {len(self)} samples: there is no sample {number}")
        return self._sample(*self._place(int(self._numbers[number])))

    def __iter__(self) -> Iterator[Sample]:
        """Every sample, in stored order."""
        for number in self._numbers:
            yield self._sample(*self._place(int(number)))

    def keys(self) -> Iterator[str]:
        """Every key, in stored order.

        Example:
            >>> list(openuni.open("data/demo").keys())
            ['bikes-street', 'bunny', 'carphone']
        """
        kept = self._kept_keys()
        if kept is not None:
            yield from kept.take(pa.array(np.asarray(self._numbers, np.int64))).to_pylist()
            return
        for number in self._numbers:
            position, row = self._place(int(number))
            yield self._rows(position)["rgb"][row].key

    def select(self, names: Sequence[str]) -> Dataset:
        """A view with these columns alone, in the dataset's order: no other's tars are read.

        What the index knows of a sample (its record, with the scores of every column) stays whole. Raises OpenUniError
        naming the columns there are.

        Example:
            >>> openuni.open("data/demo").select(["rgb", "flow"])
            Dataset('data/demo', 3 samples of rgb, flow)
        """
        if unknown := [name for name in names if name not in self._columns]:
            raise OpenUniError(f"{self.url} has no column {', '.join(unknown)}; it has {', '.join(self._columns)}")
        return self._view(_columns=[name for name in self._columns if name in names])

    def filter(self, predicate: pc.Expression | Callable[[Sample], bool]) -> Dataset:
        """A view of the samples for which `predicate` holds, answered from the index: nothing is decoded.

        An expression of `pyarrow.compute` is evaluated a shard at a time. Its fields are those of `Record` and, for
        every column of the dataset, `depth.present`, `depth.reason`, `depth.expert`, `depth.confidence` and
        `depth.scores` (a map). A function is called with each Sample, whose `record` and `statuses` are at hand; it is
        slower by far and takes anything. Raises OpenUniError where an expression does not fit the index.

        Example:
            >>> import pyarrow.compute as pc
            >>> data = openuni.open("data/demo")
            >>> confident = data.filter((pc.field("frames") >= 4) & (pc.field("depth.confidence") > 0.5))
            >>> list(confident.keys())
            ['bikes-street', 'carphone']
            >>> [sample.key for sample in data.filter(lambda sample: "rabbit" in sample.caption)]
            ['bunny']
        """
        numbers = np.asarray(self._numbers, np.int64)
        if isinstance(predicate, pc.Expression):
            passing = self._passing(numbers, predicate)
        else:
            passing = np.fromiter((bool(predicate(sample)) for sample in self), np.bool_, len(numbers))
        return self._view(_chosen=numbers[passing])

    def only(self, keys: Sequence[str]) -> Dataset:
        """A view of the samples with these keys, in stored order. `lacking` of it says how many keys are not here.

        Example:
            >>> list(openuni.open("data/demo").only(["carphone", "bunny"]).keys())
            ['bunny', 'carphone']
        """
        wanted = pa.array(keys, pa.string())
        stored = self._stored_keys()
        here = np.flatnonzero(pc.is_in(stored, wanted).to_numpy(zero_copy_only=False))
        chosen = np.intersect1d(here, np.asarray(self._numbers, np.int64))
        return self._view(_chosen=chosen, lacking=len(pc.unique(wanted)) - len(chosen))

    @property
    def is_view(self) -> bool:
        """Whether some samples of the dataset may not be in this."""
        return self._chosen is not None

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Which samples of the whole dataset are here, by their places in its stored order, ascending."""
        return np.sort(np.asarray(self._numbers, np.int64))

    @property
    def store(self) -> Store:
        """Where its files are read."""
        return self._store

    def table(self) -> pa.Table:
        """What the index knows of every sample here, in this order: the fields that `filter` speaks of.

        About a kilobyte a sample, most of it captions. Raises PlanError where nothing is committed yet.

        Example:
            >>> openuni.open("data/demo").table()["depth.confidence"].to_pylist()
            [0.75, 0.25, 0.75]
        """
        if not self.shards:
            raise PlanError(f"{self.url} has no committed sample yet; `openuni status` says how far its build is")
        numbers = np.asarray(self._numbers, np.int64)
        positions = np.searchsorted(self._ends, numbers, side="right") - 1
        used, which = np.unique(positions, return_inverse=True)
        with ThreadPoolExecutor(8) as pool:  # far away, an index is mostly waiting
            everything = pa.concat_tables(pool.map(self.facts, used.tolist() or [0]))
        if self._chosen is None:
            return everything
        ends = np.asarray(self._ends)
        begins = np.cumsum([0, *(ends[used + 1] - ends[used])])
        return everything.take(pa.array(begins[which] + numbers - ends[positions]))

    def stored(self, position: int, names: Sequence[str]) -> Iterator[tuple[str, list[Result]]]:
        """Each key of the `position`-th shard with its undecoded members in the columns `names` that are committed.

        Of those that this view has, of a dataset all.
        """
        rows, shard = self._rows(position), self.shards[position]
        numbers, edges = self._by_shard
        for row in numbers[edges[position] : edges[position + 1]] - self._ends[position]:
            yield (
                rows["rgb"][row].key,
                [self._stored(self._tar(shard, name), name, rows[name][row]) for name in names if name in rows],
            )

    def result(self, key: str, column: str) -> Result:
        """The undecoded members of one sample in one column. Raises KeyError where its shard lacks either."""
        place = self._find(key)
        if place is None:
            raise KeyError(key)
        position, row = place
        return self._stored(self._tar(self.shards[position], column), column, self._rows(position)[column][row])

    def samples(
        self,
        seed: int,
        *,
        cursor: int = 0,
        rank: int = 0,
        world_size: int = 1,
        load: Sequence[str] = (),
        skip_damaged: bool = False,
    ) -> Iterator[tuple[int, Sample]]:
        """`(next cursor, sample)` for training, without end; an epoch is `len(self)` positions.

        Position `cursor + rank`, then every `world_size`-th: over all ranks (count a loader's workers as ranks) each
        epoch takes each sample exactly once. Store the largest cursor that was trained on to resume exactly, also with
        another `world_size`. The order of an epoch is a permutation from (seed, epoch): shards are shuffled, then the
        samples of every 32 shards together. `openuni.torch` brings it into torch's loaders.

        `load` names modalities to decode at once, where a sample has them. A damaged one raises CorruptDataError; with
        `skip_damaged` its sample is left out instead and counted in `self.damaged`.

        Example:
            >>> stream = openuni.open("data/demo").samples(seed=0)
            >>> first_epoch = [next(stream)[1].key for _ in range(3)]
            >>> sorted(first_epoch)
            ['bikes-street', 'bunny', 'carphone']
            >>> resumed = openuni.open("data/demo").samples(seed=0, cursor=2)
            >>> next(resumed)[1].key == first_epoch[2]
            True
        """
        if not 0 <= rank < world_size:
            raise OpenUniError(f"rank {rank} is not in 0…{world_size - 1}")
        at = self.order(seed)
        in_a_row = 0
        while True:
            sample = at(cursor + rank)
            cursor += world_size
            try:
                for name in load:
                    if name in sample:
                        sample[name]
            except CorruptDataError:
                in_a_row += 1
                if not skip_damaged or in_a_row > len(self):  # an epoch of damage alone is not a dataset
                    raise
                self.damaged += 1
                continue
            in_a_row = 0
            yield cursor, sample

    def order(self, seed: int) -> Callable[[int], Sample]:
        """The sample at each position of the training order that `samples` describes, counted over all epochs.

        Raises PlanError where there is no sample.

        Example:
            >>> at = openuni.open("data/demo").order(seed=0)
            >>> len({at(position).key for position in range(3)})
            3
        """
        numbers, edges = self._by_shard
        if self._chosen is not None and not len(numbers):
            raise PlanError(f"{self.url}: no sample is left in this view; loosen its filter or slice")
        sizes = np.diff(edges)
        (used,) = np.nonzero(sizes)
        order = Order(sizes[used].tolist(), seed)

        def sample(position: int) -> Sample:
            shard, row = order.locate(position)
            return self._sample(*self._place(int(numbers[edges[used[shard]] + row])))

        return sample

    @property
    def _numbers(self) -> range | npt.NDArray[np.int64]:
        """Which samples this has, by their number in the whole dataset."""
        return range(self._ends[-1]) if self._chosen is None else self._chosen

    @cached_property
    def _ends(self) -> list[int]:
        """Where each shard begins in the whole dataset, then how many samples that has."""
        return [0, *itertools.accumulate(shard.samples for shard in self.shards)]

    @cached_property
    def _by_shard(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
        """This view's numbers in stored order, and where the ones of each shard begin among them."""
        numbers = np.sort(np.asarray(self._numbers, np.int64))
        return numbers, np.searchsorted(numbers, self._ends)

    def _view(self, **changed: Any) -> Dataset:
        """This with other attributes; everything else, the list of shards and the read indices too, is shared."""
        view = object.__new__(Dataset)
        view.__dict__ |= self.__dict__ | {"_ends": self._ends} | changed
        view.__dict__.pop("_by_shard", None)
        return view

    def _place(self, number: int) -> tuple[int, int]:
        """Shard position and row of a sample, by its number in the whole dataset."""
        position = bisect.bisect_right(self._ends, number) - 1
        return position, number - self._ends[position]

    def _passing(self, numbers: npt.NDArray[np.int64], predicate: pc.Expression) -> npt.NDArray[np.bool_]:
        of_all = self._passing_facts(predicate)
        if of_all is not None:
            return of_all[numbers]
        passing = np.zeros(len(numbers), np.bool_)
        positions = np.searchsorted(self._ends, numbers, side="right") - 1
        for position in np.unique(positions):
            known_here = self.facts(int(position))
            rows = pa.array(np.arange(known_here.num_rows))
            try:
                kept = known_here.append_column("row", rows).filter(predicate)["row"].to_numpy()
            except pa.ArrowException as error:
                known = ", ".join(known_here.column_names)
                reason = str(error).splitlines()[0]
                raise OpenUniError(f"the filter does not fit the index: {reason}; its fields are {known}") from error
            here = positions == position
            passing[here] = np.isin(numbers[here] - self._ends[position], kept)
        return passing

    def _passing_facts(self, predicate: pc.Expression) -> npt.NDArray[np.bool_] | None:
        """For which clips of the whole dataset it holds; None where the facts are not kept or do not tell."""
        import pyarrow.dataset as ds  # which imports pandas, where it is installed

        with facts.there(self._store) as path:
            if path is None:
                return None
            try:
                found = ds.dataset(path).scanner(columns={"holds": predicate}).to_table()["holds"]
            except (pa.ArrowException, OSError):  # `depth.scores` and `depth.expert` are not among them
                return None
        holds = pc.fill_null(found, False).to_numpy()
        return holds if len(holds) == self._ends[-1] and holds.dtype == np.bool_ else None

    def facts(self, position: int) -> pa.Table:
        """What the index knows of the samples of the `position`-th shard: the fields that `filter` speaks of."""
        shard = self.shards[position]
        tables = {column: self._table(shard, column) for column in shard.columns}
        of_record = [name for name in index.schema("rgb").names if name not in index.schema("depth").names]
        known = tables["rgb"].select(["key", *of_record])
        people = [pc.map_lookup(table["scores"], "people", "first") for table in tables.values()]
        number = routing.people_of_shots(tables["rgb"], pc.coalesce(*people[::-1]))
        known = known.set_column(known.column_names.index("subset"), "subset", routing.subsets(known["subset"], number))
        for column in self.manifest.columns:
            for name in ("present", "reason", "expert", "confidence", "scores"):
                kind = index.schema(column).field(name).type
                unknown = {"present": False, "reason": NOT_YET}.get(name)
                values = tables[column][name] if column in tables else pa.array([unknown] * shard.samples, kind)
                known = known.append_column(f"{column}.{name}", values)
            if layout.holds_numbers(column):
                kind = index.schema(column).field("hashes").type
                hashes = tables[column]["hashes"] if column in tables else pa.array([None] * shard.samples, kind)
                known = known.append_column(f"{column}.hashes", hashes)
        return known

    def _stored_keys(self) -> pa.ChunkedArray:
        """Every key of the whole dataset, in stored order."""
        kept = self._kept_keys()
        if kept is not None:
            return kept
        with ThreadPoolExecutor(16) as pool:  # far away, an index is mostly waiting
            keys = list(pool.map(lambda shard: self._table(shard, "rgb")["key"].combine_chunks(), self.shards))
        return pa.chunked_array(keys, pa.string())

    def _kept_keys(self) -> pa.ChunkedArray | None:
        """The same from the facts, where they are kept."""
        with facts.there(self._store) as path:
            if path is None:
                return None
            with open_regular(path) as file:
                stored = tables.read(file, pa.schema([index.schema("rgb").field("key")]), str(path))["key"]
            return stored if len(stored) == self._ends[-1] else None

    def _table(self, shard: Shard, column: str) -> pa.Table:
        """What an index says of its clips; where their members lie is the larger part of it, and is not read."""
        path, data = self._index(shard, column)
        schema = pa.schema([field for field in index.schema(column) if field.name != "members"])
        return tables.read(io.BytesIO(data), schema, path)

    def _indices_of(self, shard: Shard) -> dict[str, tuple[str, bytes]]:
        """Path and bytes of a shard's indices by column. Far away all are asked for at once: a reader waits once."""
        if isinstance(self._store, LocalStore):
            return {column: self._index(shard, column) for column in shard.columns}
        with ThreadPoolExecutor(len(shard.columns)) as pool:
            read = pool.map(partial(self._index, shard), shard.columns)
            return dict(zip(shard.columns, read, strict=True))

    def _index(self, shard: Shard, column: str) -> tuple[str, bytes]:
        """Path and bytes of an index. Raises CorruptDataError where they are not what was committed."""
        record = shard.columns[column]
        name = layout.index_at(record, self._naming)
        path, data = self._path(name), self._read(name, index.MOST_BYTES)
        if layout.digest(data) != record.index.sha256:
            raise CorruptDataError(f"{path} does not match its commit record; run `openuni verify --repair`")
        if record.keys_sha256 != shard.columns["rgb"].keys_sha256:
            raise CorruptDataError(
                f"{path} has other keys than the RGB of its shard: the column belongs to another build"
            )
        return path, data

    def _path(self, name: str) -> str:
        return self._store.where(name)

    def _read(self, name: str, at_most: int) -> bytes:
        try:
            return self._store.read(name, at_most=at_most)
        except FileNotFoundError:
            raise CorruptDataError(f"{self._path(name)} is missing; run `openuni verify --repair`") from None

    def _commits(self) -> list[CommitRecord]:
        """The commit records: from the catalog, or where there is none of just this dataset, each from its own file."""
        own = layout.revised(self.manifest)
        if own is not None:
            return catalog.read_named(self._store, own.files[catalog.TABLE])
        folded = catalog.read(self._store, self.manifest, self._manifest_sha256)
        if folded is not None:
            return folded
        places = catalog.places(self._store, self.manifest)  # none: planned, and nothing committed yet
        names = [layout.commit_name(*place, self._naming) for place in places if place[1] in self.manifest.columns]
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self._commit, names))

    def _commit(self, name: str) -> CommitRecord:
        record = catalog.commit_record(self._store, name)
        if record is None:
            raise CorruptDataError(f"{self._path(name)} is missing; run `openuni verify --repair`")
        return record

    def _find(self, key: str) -> tuple[int, int] | None:
        for first, end in itertools.pairwise([*self._generations, len(self.shards)]):
            position = bisect.bisect_right(self.shards, key, first, end, key=lambda shard: shard.first_key) - 1
            if position >= first and (place := self._look(position, key)) is not None:
                return place
        return None

    @property
    def _generations(self) -> list[int]:
        """Positions at which the order of keys begins anew: a dataset that was extended has several."""
        starts = plan.starts(self.manifest)
        return sorted({0, *(bisect.bisect_left(self.shards, n, key=lambda shard: shard.number) for n in starts)})

    def _look(self, position: int, key: str) -> tuple[int, int] | None:
        if key > self.shards[position].last_key:
            return None
        rows = self._rows(position)["rgb"]
        row = bisect.bisect_left(rows, key, key=lambda row: row.key)
        if row == len(rows) or rows[row].key != key:
            return None
        return (position, row) if self._ends[position] + row in self._numbers else None

    def _rows(self, position: int) -> dict[str, list[Row]]:
        """Index rows of a shard by column; the most recently used shards are kept."""
        if position in self._indices:
            self._indices.move_to_end(position)
            return self._indices[position]
        shard = self.shards[position]
        rows: dict[str, list[Row]] = {}
        for column, (path, data) in self._indices_of(shard).items():
            rows[column], samples = index.decode(data, column, path), shard.columns[column].samples
            if len(rows[column]) != samples:
                raise CorruptDataError(f"{path} has {len(rows[column])} samples, its commit record {samples}")
        routing.add_to_rows(rows)
        self._indices[position] = rows
        if len(self._indices) > _WINDOW:
            self._indices.popitem(last=False)
        return rows

    def _sample(self, position: int, row: int) -> Sample:
        shard, rows = self.shards[position], self._rows(position)
        record = rows["rgb"][row].record
        if record is None:
            raise CorruptDataError(f"shard {shard.number}: the RGB index has no record of {rows['rgb'][row].key}")
        shown = [*self._columns, *self.score_columns]
        statuses = {column: rows[column][row].status if column in rows else Status(False, NOT_YET) for column in shown}
        for column in rows:
            record = replace(record, scores={**record.scores, **rows[column][row].scores})
        # A partial of this sample's rows alone, not a closure: a sample can be sent to another process.
        load = partial(self._load, {name: (self._tar(shard, name), rows[name][row]) for name in shown if name in rows})
        load_fields = partial(self._fields, self._tar(shard, "rgb"), rows["rgb"][row])
        return Sample(replace(record, subset=routing.subset(record)), statuses, load, load_fields)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_indices": OrderedDict()}

    def _load(self, places: Mapping[str, tuple[str, Row]], column: str) -> Any:
        tar, row = places[column]
        if layout.holds_numbers(column):
            return dict(row.scores)
        return modalities.get(column).decode(self._stored(tar, column, row).encoded)

    def _fields(self, tar: str, row: Row) -> Mapping[str, Any]:
        """What `KEY.json` says of the source's row; nothing else of the sample is read."""
        note = tuple(member for member in row.members if member.field == results.note_field("rgb"))
        if not note:
            raise CorruptDataError(f"{self._path(tar)}: {row.key} has no member {results.note_field('rgb')}")
        record = self._stored(tar, "rgb", replace(row, members=note)).note.record
        return {} if record is None else record.source_fields

    def _tar(self, shard: Shard, column: str) -> str:
        return layout.tar_at(shard.columns[column], self._naming)

    @property
    def _naming(self) -> str | None:
        return layout.naming(self.manifest)

    def _stored(self, tar: str, column: str, row: Row) -> Result:
        def fetched(begin: int, end: int) -> bytes:
            return self._store.read_range(tar, begin, end - begin)

        cache, name = self._cache, columns.sha256_of(row)
        if cache is None:
            return columns.read_row(column, row, self._path(tar), fetched)

        def near(begin: int, end: int) -> bytes:
            return cache.get(name, end - begin, lambda: fetched(begin, end))

        def again(begin: int, end: int) -> bytes:
            cache.put(name, data := fetched(begin, end))
            return data

        try:
            return columns.read_row(column, row, self._path(tar), near)
        except CorruptDataError:  # what is kept, perhaps, and not what is far away
            return columns.read_row(column, row, self._path(tar), again)


class Order:
    """A seeded permutation of (shard, row) pairs without a table of them: position → place.

    Example:
        >>> order = Order([2, 1], seed=0)
        >>> sorted(order.locate(position) for position in range(3))
        [(0, 0), (0, 1), (1, 0)]
    """

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
