"""Finding clips: filters, order and histograms, answered from the index alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from openuni.errors import OpenUniError
from openuni.sample import Record
from openuni_pipelines.engine.viewing.sources import Facts, Source

BINS = 32
_RECORD_NUMBERS = ("frames", "height", "width", "fps", "start")
_CHOICES = ("subset", "split", "source", "license")
_MOST_CHOICES = 64
"""Values of a field that the page offers; one with more is searched for in words."""
_Text = Annotated[str, Field(max_length=400)]
_Name = Annotated[str, Field(max_length=200)]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Query:
    """Which clips, in which order. Everything that is set must hold.

    `words` are looked for in key and caption, whatever their case. `choices` gives the allowed values of a field,
    `ranges` the allowed span of a number (a clip without that number is left out), `absent` a column and, if it is not
    empty, the reason why clips lack it. `sort` names a number or `key`; clips without the number come last.
    """

    words: _Text = ""
    choices: Mapping[_Name, tuple[_Text, ...]] = field(default_factory=dict)
    ranges: Mapping[_Name, tuple[float, float]] = field(default_factory=dict)
    absent: tuple[_Name, _Text] | None = None
    flagged: bool = False
    sort: _Name = "key"
    order: Literal["ascending", "descending"] = "ascending"


QUERY = TypeAdapter(Query)
_EVERYTHING = Query()
_SHOWN = ("key", "caption", "frames", "height", "width", "fps", "subset")
"""Of a clip, on its card."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` clips lie between `edges[i]` and `edges[i + 1]`; `missing` have no such number."""

    field: str
    edges: list[float]
    counts: list[int]
    missing: int


@dataclass(frozen=True, slots=True)
class Facets:
    """What can be asked of a dataset: its numbers, and the values of its fields and reasons with their counts."""

    numbers: list[str]
    choices: dict[str, dict[str, int]]
    absent: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Card:
    """What the grid shows of a clip."""

    number: int
    key: str
    caption: str
    frames: int
    height: int
    width: int
    fps: float
    subset: str
    absent: list[str]
    value: float | None
    """The number by which the clips are sorted."""


class Catalogue:
    """The index of a source, a column at a time.

    Clips in stored order are known at once. The first who asks for more has the whole index read in the background,
    and waits: until then every processor is there for the page.
    """

    def __init__(self, data: Source, scored: Mapping[str, Mapping[str, float]] | None = None) -> None:
        """`scored`: further numbers, by name and key."""
        self._data, self._columns = data, data.columns
        self._length = len(data)
        self._scored = dict(scored or {})
        self._find = lru_cache(16)(self._search)
        self._number = lru_cache(64)(self._read_number)
        # What cards and searches take is held: of a million clips the captions are the most of it, some hundred MB.
        self._column = lru_cache(64)(lambda name: self._facts[name])
        self.read = 0
        """Clips whose index has been read."""
        self._lock = threading.Lock()
        self._reading: Future[Facts] | None = None

    def _read(self, reading: Future[Facts]) -> None:
        try:
            facts = self._data.facts(self._told)
            self.read = self._length
            reading.set_result(facts)
        except BaseException as error:  # noqa: BLE001  whoever waits for the facts is told
            reading.set_exception(error)

    def _told(self, clips: int) -> None:
        self.read = clips

    @property
    def _facts(self) -> Facts:
        with self._lock:
            if self._reading is None:
                self._reading = Future()
                threading.Thread(target=self._read, args=[self._reading], name="index", daemon=True).start()
        return self._reading.result()

    @cached_property
    def _scores(self) -> list[str]:
        """Every number but those of the record, which are taken one by one."""
        record = Record.__dataclass_fields__
        return sorted(
            f.name
            for f in self._facts.schema
            if pa.types.is_floating(f.type) and f.name not in record and f.name not in self._confidences
        )

    @property
    def _confidences(self) -> list[str]:
        return [f"{name}.confidence" for name in [*self._columns, *self._data.score_columns]]

    def __len__(self) -> int:
        return self._length

    @property
    def numbers(self) -> list[str]:
        """Fields that can be sorted and ranged over."""
        return [*_RECORD_NUMBERS, *self._confidences[: len(self._columns)], *self._scores, *self._scored]

    @property
    def _choices(self) -> list[str]:
        """Fields of few values: those of the record, and which expert each column is of."""
        known = self._facts.schema.names
        return [*_CHOICES, *(name for column in self._columns if (name := f"{column}.expert") in known)]

    def facets(self) -> Facets:
        """Raises nothing: a field with too many values is left out."""
        choices = {name: _counts(self._facts[name]) for name in self._choices}
        absent = {
            name: _counts(self._facts[f"{name}.reason"].filter(pc.invert(self._facts[f"{name}.present"])))
            for name in self._columns
        }
        return Facets(
            [name for name in self.numbers if not np.isnan(self._number(name)).all()],
            {name: counts for name, counts in choices.items() if 1 < len(counts) <= _MOST_CHOICES},
            {name: counts for name, counts in absent.items() if counts},
        )

    def find(self, query: Query, flagged: frozenset[str] = frozenset()) -> npt.NDArray[np.int64]:
        """Numbers of the clips that fit, in the order asked for. Raises OpenUniError where a field is not known."""
        if query == _EVERYTHING:
            return np.arange(len(self), dtype=np.int64)
        return self._find(QUERY.dump_json(query), flagged if query.flagged else frozenset())

    def cards(self, numbers: npt.NDArray[np.int64], sort: str) -> list[Card]:
        """The cards of some clips."""
        rows = self._rows(numbers)
        values = None if sort == "key" else self._number(sort)[numbers]
        lacks = {name: pc.invert(rows[f"{name}.present"]).to_pylist() for name in self._columns}
        cards = []
        for at, (number, row) in enumerate(zip(numbers, rows.select(_SHOWN).to_pylist(), strict=True)):
            value = None if values is None or np.isnan(values[at]) else float(values[at])
            row["caption"] = (row["caption"] or "")[:400]
            cards.append(Card(int(number), **row, absent=[name for name in lacks if lacks[name][at]], value=value))
        return cards

    def _rows(self, numbers: npt.NDArray[np.int64]) -> pa.Table:
        """From the table, or while it is being read from the few shards they lie in."""
        if not len(numbers):
            return self._data.table(0, 0)
        if self._reading is not None and self._reading.done():
            names = [*_SHOWN, *(f"{name}.present" for name in self._columns)]
            return pa.table({name: self._column(name).take(pa.array(numbers)) for name in names})
        first = int(numbers.min())
        return self._data.table(first, int(numbers.max()) + 1).take(pa.array(numbers - first))

    def keys(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        """The keys of some clips."""
        return np.asarray(self._column("key").take(pa.array(numbers)).to_numpy(), np.object_)

    def values(self, name: str) -> npt.NDArray[np.float64]:
        """A number of every clip, NaN where it has none. Raises OpenUniError where there is no such number."""
        return self._number(name)

    def details(self, number: int) -> dict[str, dict[str, str]]:
        """What a clip can be chosen by: its fields, and why it lacks columns."""
        choices = {name: self._column(name)[number].as_py() or "" for name in self._choices}
        reasons = {name: self._column(f"{name}.reason")[number].as_py() or "" for name in self._columns}
        return {"choices": choices, "reasons": reasons}

    def histogram(self, name: str, numbers: npt.NDArray[np.int64]) -> Histogram:
        """Over the clips `numbers`, between the ends of the whole dataset, so that bars of two queries compare."""
        everything = self._number(name)
        values = everything[numbers]
        known = values[~np.isnan(values)]
        span = (
            (float(np.nanmin(everything)), float(np.nanmax(everything))) if not np.isnan(everything).all() else (0, 1)
        )
        counts, edges = np.histogram(known, BINS, span)
        return Histogram(name, edges.tolist(), counts.tolist(), len(values) - len(known))

    def _search(self, encoded: bytes, flagged: frozenset[str]) -> npt.NDArray[np.int64]:
        query = QUERY.validate_json(encoded)
        fits = np.ones(len(self), np.bool_)
        for condition in self._conditions(query, flagged):
            fits &= condition
        (numbers,) = np.nonzero(fits)
        if query.sort != "key":
            values = self._number(query.sort)[numbers]
            if query.order == "descending":
                values = -values
            numbers = numbers[np.argsort(values, kind="stable")]  # NaN is last either way
        elif query.order == "descending":
            numbers = numbers[::-1]
        return numbers.astype(np.int64)

    def _conditions(self, query: Query, flagged: frozenset[str]) -> Iterator[npt.NDArray[np.bool_]]:
        for word in query.words.split():
            found = [
                pc.match_substring(pc.fill_null(self._column(name), ""), word, ignore_case=True)
                for name in ("key", "caption")
            ]
            yield pc.or_(*found).to_numpy()
        for name, allowed in query.choices.items():
            if name not in self._choices:
                raise OpenUniError(f"there is no choice of {name!r}; there is {', '.join(self._choices)}")
            yield pc.is_in(self._facts[name], pa.array(allowed, pa.string())).to_numpy()
        for name, (low, high) in query.ranges.items():
            values = self._number(name)
            yield (values >= low) & (values <= high)
        if query.absent is not None:
            column, reason = query.absent
            if column not in self._columns:
                raise OpenUniError(f"there is no column {column!r}; there is {', '.join(self._columns)}")
            yield ~self._column(f"{column}.present").to_numpy()
            if reason:
                yield pc.fill_null(pc.equal(self._facts[f"{column}.reason"], reason), False).to_numpy()
        if query.flagged:
            yield pc.is_in(self._column("key"), pa.array(sorted(flagged), pa.string())).to_numpy()

    def _read_number(self, name: str) -> npt.NDArray[np.float64]:
        """A number of every clip, NaN where it has none."""
        if name not in self.numbers:
            raise OpenUniError(f"there is no number {name!r}; there is {', '.join(self.numbers)}")
        if name in self._scored:
            by_key = self._scored[name]
            return np.array([by_key.get(key, np.nan) for key in self._facts["key"].to_pylist()], np.float64)
        return np.asarray(self._facts[name].cast(pa.float64()).to_numpy(), np.float64)


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    counted = sorted(pc.value_counts(values).to_pylist(), key=lambda row: -row["counts"])
    return {row["values"] or "": row["counts"] for row in counted[: _MOST_CHOICES + 1]}
