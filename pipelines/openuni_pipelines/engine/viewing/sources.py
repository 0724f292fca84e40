"""Where clips come from: the columns of a dataset, or a plain folder of predictions."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from openuni import modalities
from openuni.errors import AbsentModalityError, OpenUniError
from openuni.modalities import Encoded, Modality
from openuni.sample import Record, Sample, Status
from openuni.shards import index
from openuni.shards.reader import Dataset
from unibench import tasks
from unibench.scoring.runs import Columns, Folder, open_run


class Parts(ABC):
    """One column of one clip, decoded a run of frames at a time."""

    def __init__(self, modality: Modality[Any], frames: int) -> None:
        self.modality, self.frames = modality, frames

    quick = True
    """Whether a part costs less than the whole."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """That it holds in memory."""

    @abstractmethod
    def part(self, start: int, stop: int) -> Any:
        """The value of these frames."""


class StoredParts(Parts):
    """From the bytes of a shard, whose hash was checked."""

    def __init__(self, modality: Modality[Any], frames: int, encoded: Encoded) -> None:
        super().__init__(modality, frames)
        self._encoded = encoded
        # Exact truth is one packed array a clip: its end is reached through all that comes before.
        self.quick = not any(name in encoded.members for name in ("depth.npz", "flow.npz"))

    @property
    def bytes(self) -> int:
        return sum(map(len, self._encoded.members.values()))

    def part(self, start: int, stop: int) -> Any:
        return self.modality.decode_part(self._encoded, slice(start, stop))


class HeldParts(Parts):
    """From a decoded value."""

    def __init__(self, modality: Modality[Any], value: Any) -> None:
        super().__init__(modality, modality.shape(value)[0])
        self.value = value

    @property
    def bytes(self) -> int:
        return size_of(self.value)

    def part(self, start: int, stop: int) -> Any:
        return self.modality.take(self.value, slice(start, stop))


def size_of(value: Any) -> int:
    """Bytes of the arrays of a value."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(size_of(getattr(value, field.name)) for field in fields(value)) if is_dataclass(value) else 0


class Source(ABC):
    """Clips by key. Thread-safe."""

    url: str
    columns: list[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __contains__(self, key: str) -> bool: ...

    @abstractmethod
    def sample(self, key: str) -> Sample:
        """Raises OpenUniError where there is no such clip."""

    @abstractmethod
    def read(self, key: str, column: str) -> Parts:
        """Raises AbsentModalityError, or CorruptDataError where the bytes are damaged."""

    @abstractmethod
    def table(self, first: int, stop: int) -> pa.Table:
        """What the index knows of some clips, in stored order."""


class Stored(Source):
    """The columns of a dataset. `own` says by which key of its own it has a clip, where that is another."""

    def __init__(self, data: Dataset, own: dict[str, str] | None = None) -> None:
        self.data, self.url, self.columns = data, data.url, data.columns
        self._own = own or {}
        self._lock = threading.Lock()  # the reader's caches are not made for threads

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return self._own.get(key, key) in self.data

    def sample(self, key: str) -> Sample:
        with self._lock:
            try:
                return self.data[self._own.get(key, key)]
            except KeyError:
                raise OpenUniError(f"{self.url} has no clip {key}") from None

    def read(self, key: str, column: str) -> Parts:
        sample = self.sample(key)
        _check_present(self, sample, column)
        with self._lock:
            encoded = self.data.result(sample.key, column).encoded
        return StoredParts(modalities.get(column), sample.record.frames, encoded)

    def table(self, first: int, stop: int) -> pa.Table:
        return self.data[first:stop].table()


class Plain(Source):
    """A plain folder of predictions, as `unibench score` reads it. A size is known once a clip is looked at, or from
    the truth."""

    def __init__(self, run: Folder, truth: Columns | None = None) -> None:
        self._run, self._truth = run, truth
        self.url = run.path
        self._task_of = {tasks.get_stored(name).column: name for name in run.values()}
        self.columns = sorted(self._task_of, key=lambda column: (column != "rgb", column))

    @cached_property
    def _keys(self) -> list[str]:
        return sorted({key for task in self._task_of.values() for key in self._run.keys(task)})

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return any(self._run.has(task, key) for task in self._task_of.values())

    def sample(self, key: str) -> Sample:
        if key not in self:
            raise OpenUniError(f"{self.url} has no prediction of {key}")
        statuses = {
            column: Status(True) if self._run.has(task, key) else Status(False, "no such file")
            for column, task in self._task_of.items()
        }
        present = next(column for column in self.columns if statuses[column].present)
        value = self._load(key, present)
        frames, height, width = modalities.get(present).shape(value)
        known = self._known(key)
        fps = self._run.fps(key) or (value.fps if present == "rgb" else known.fps if known else 16.0)
        sized = Record(key, frames, height, width, fps)
        record = replace(known, frames=frames, height=height, width=width, fps=fps) if known else sized
        return Sample(record, statuses, lambda column: self._load(key, column))

    def read(self, key: str, column: str) -> Parts:
        if column not in self._task_of or not self._run.has(self._task_of[column], key):
            raise AbsentModalityError(f"{self.url} has no {column} of {key}")
        return HeldParts(modalities.get(column), self._load(key, column))

    def table(self, first: int, stop: int) -> pa.Table:
        rows = [self._row(key) for key in self._keys[first:stop]]
        return pa.Table.from_pylist(rows, _schema(self.columns))

    def _known(self, key: str) -> Record | None:
        """What the truth says of the clip."""
        return None if self._truth is None or not self._truth.has("video", key) else self._truth.sample(key).record

    def _row(self, key: str) -> dict[str, Any]:
        record = self._known(key) or Record(key, 0, 0, 0, self._run.fps(key) or 0.0)
        row = {name: getattr(record, name) for name in _record_names()} | {"key": key}
        for column, task in self._task_of.items():
            there = self._run.has(task, key)
            row |= {f"{column}.present": there, f"{column}.reason": "" if there else "no such file"}
        return row

    def _load(self, key: str, column: str) -> Any:
        value = self._run.load(self._task_of[column], key)
        return value if column != "rgb" else _rgb(value, self._run.fps(key))


def open_source(path: str, truth: str | None = None) -> Source:
    """A dataset or a plain folder; with `truth`, its clips also answer to the keys of the clips that they predict.

    Raises OpenUniError where `path` is neither.
    """
    run = open_run(path)
    told = open_run(truth) if truth is not None else None
    true = told if isinstance(told, Columns) else None
    if isinstance(run, Columns):
        own = {} if true is None else {key: name for name, key in run.answer_to(true).keys.items() if name != key}
        return Stored(run.data, own)
    assert isinstance(run, Folder)
    if true is not None:
        run.answer_to(true)
    if not run.values():
        known = ", ".join(f"{task.name}/" for task in tasks.stored())
        raise OpenUniError(f"{path} is no dataset, and has no folder of predictions; it may have {known}")
    return Plain(run, true)


def _check_present(source: Source, sample: Sample, column: str) -> None:
    status = sample.statuses.get(column)
    if status is None:
        raise AbsentModalityError(f"{source.url} has no column {column}")
    if not status.present:
        raise AbsentModalityError(f"{sample.key}: {column} is absent: {status.reason or 'no reason recorded'}")


def _rgb(video: Any, fps: float | None) -> Any:
    """A generated video as the column RGB."""
    from openuni.modalities.rgb import Rgb

    return Rgb(np.ascontiguousarray(video.frames), fps or getattr(video, "fps", None) or 16.0)


def _record_names() -> list[str]:
    others = index.schema("depth").names
    return [name for name in index.schema("rgb").names if name not in others]


def _schema(columns: list[str]) -> pa.Schema:
    """That of `Dataset.table`."""
    rgb = index.schema("rgb")
    fields = [rgb.field("key"), *(rgb.field(name) for name in _record_names())]
    for column in columns:
        stored = index.schema(column)
        fields += [
            stored.field(name).with_name(f"{column}.{name}").with_nullable(True)
            for name in ("present", "reason", "expert", "confidence", "scores")
        ]
    return pa.schema(fields)
