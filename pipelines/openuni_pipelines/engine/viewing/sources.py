"""Where clips come from: the columns of a dataset, or a plain folder of predictions."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openuni import modalities
from openuni.errors import AbsentModalityError, CorruptDataError, OpenUniError
from openuni.modalities import ColourRange, Encoded, Frames, Modality, Reading
from openuni.modalities.rgb import Rgb
from openuni.modalities.stored import Layout, unpack_arrays
from openuni.sample import Record, Sample, Status
from openuni.shards import facts, index, tables
from openuni.shards.layout import MANIFEST
from openuni.shards.reader import Dataset
from openuni.storage import LocalStore, open_regular
from openuni_pipelines.engine.viewing import normals
from openuni_pipelines.engine.viewing.normals import NormalMaps, Normals
from unibench import tasks
from unibench.camera import Camera
from unibench.formats import sidecar
from unibench.scoring.runs import Columns, Folder, open_run

SLAB = 1 << 15
"""Clips whose index is read at once; of more, a dataset's facts are made once and kept in a file."""
_SHEETS = "samples"
_MOST_SHEET = 64 << 20
_SPARE = 1 << 20
"""By which packed noise may be larger than the array."""


class Drawn(Protocol):
    """What is asked of a modality here."""

    reaches: ClassVar[int]

    @property
    def has_colour_range(self) -> bool: ...

    def shape(self, value: Any) -> tuple[int, int, int]: ...

    def colour_range(self, value: Any) -> ColourRange | None: ...

    def show_within(self, value: Any, within: ColourRange | None) -> Frames: ...

    def read_out(self, value: Any, frame: int, y: int, x: int) -> tuple[Reading, ...]: ...

    def take(self, value: Any, frames: slice) -> Any: ...


def drawn(column: str) -> Drawn:
    """How a column is drawn and read out."""
    return NormalMaps() if column == normals.NAME else modalities.get(column)


class Parts(ABC):
    """One column of one clip, decoded a run of frames at a time."""

    modality: Drawn

    def __init__(self, modality: Drawn, frames: int) -> None:
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
        self._stored, self._encoded = modality, encoded
        # Exact truth is one packed array a clip: its end is reached through all that comes before.
        self.quick = not any(name in encoded.members for name in ("depth.npz", "flow.npz"))

    @property
    def bytes(self) -> int:
        return sum(map(len, self._encoded.members.values()))

    def part(self, start: int, stop: int) -> Any:
        return self._stored.decode_part(self._encoded, slice(start, stop))


class NormalParts(Parts):
    """From the packed file beside a rendered clip."""

    quick = False

    def __init__(self, file: Path, record: Record) -> None:
        """Raises CorruptDataError where the file is larger than the clip's normals can be."""
        super().__init__(NormalMaps(), record.frames)
        self._file = file
        self._layout = Layout(np.float32, (record.frames, record.height, record.width, 3))
        most = math.prod(self._layout.shape) * 4 + _SPARE
        with open_regular(file) as opened:
            self._data = opened.read(most + 1)
        if len(self._data) > most:
            raise CorruptDataError(f"{file} is larger than the normals of its clip can be")

    @property
    def bytes(self) -> int:
        return len(self._data)

    def part(self, start: int, stop: int) -> Normals:
        try:
            arrays = unpack_arrays(self._data, {"normals": self._layout}, range(start, stop))
        except CorruptDataError as error:
            raise CorruptDataError(f"{self._file}: {error}") from error
        return Normals(arrays["normals"])


class HeldParts(Parts):
    """From a decoded value."""

    def __init__(self, modality: Drawn, value: Any) -> None:
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
    score_columns: Sequence[str] = ()

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

    def camera(self, key: str) -> Camera | None:
        """The camera of a clip, where known. Raises OpenUniError where its file is damaged."""
        return None

    def moments(self, key: str) -> list[str]:
        """What the frames of a clip are called, where their time says nothing."""
        return []

    def has_normals(self, key: str) -> bool:
        """Whether `read` knows the normals of a clip, which are no column of it."""
        return False

    @abstractmethod
    def table(self, first: int, stop: int) -> pa.Table:
        """What the index knows of some clips, in stored order."""

    def facts(self, told: Callable[[int], None]) -> Facts:
        """What the index knows of all clips. `told` hears of how many clips were read."""
        slabs = []
        for first in range(0, len(self), SLAB):
            slab = self.table(first, min(first + SLAB, len(self))).combine_chunks()
            slabs.append(facts.flat(slab, [*self.columns, *self.score_columns]))
            told(first + len(slab))
        if not slabs:
            return Facts(facts.flat(self.table(0, 0), self.columns))
        return Facts(pa.concat_tables(slabs, promote_options="default"))  # a score may be known in one slab alone


class Facts:
    """What the index knows of all clips, a column at a time: the columns of `openuni.shards.facts`, in stored order.

    Of a table, or of a Parquet file, of which a column is read each time that it is asked for. Thread-safe.
    """

    def __init__(self, of: pa.Table | Path) -> None:
        self._of = of
        self.schema: pa.Schema = pq.read_schema(of) if isinstance(of, Path) else of.schema

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        if not isinstance(self._of, Path):
            return self._of[name]
        with open_regular(self._of) as file:
            return tables.read(file, pa.schema([self.schema.field(name)]), str(self._of))[name]


class Stored(Source):
    """The columns of a dataset. `own` says by which key of its own it has a clip, where that is another."""

    def __init__(self, data: Dataset, own: dict[str, str] | None = None) -> None:
        self.data, self.url, self.columns = data, data.url, data.columns
        self.score_columns = data.score_columns
        self._own = own or {}
        self._open = ExitStack()
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
        if column == normals.NAME and self.has_normals(key):
            return NormalParts(self._beside(sample.key, "normals.npz"), sample.record)
        _check_present(self, sample, column)
        with self._lock:
            encoded = self.data.result(sample.key, column).encoded
        return StoredParts(modalities.get(column), sample.record.frames, encoded)

    def camera(self, key: str) -> Camera | None:
        file = self._beside(self._own.get(key, key), "camera.npz")
        return sidecar.read_camera(file).checked() if file.is_file() else None

    def has_normals(self, key: str) -> bool:
        return self._beside(self._own.get(key, key), "normals.npz").is_file()

    def _beside(self, own: str, name: str) -> Path:
        """Where a file beside the columns would be; there is none beside a dataset at a URL."""
        return sidecar.SideCar.of(self.url, own).folder / name

    def facts(self, told: Callable[[int], None]) -> Facts:
        kept = facts.kept(self.data.store)
        if self._own or self.data.is_view or (kept is None and len(self) <= SLAB):
            return super().facts(told)
        # For as long as this process looks at it: where it cannot be kept beside the catalog, it is a scratch file.
        return Facts(self._open.enter_context(facts.table(self.data, told)) if kept is None else kept)

    def table(self, first: int, stop: int) -> pa.Table:
        table = self.data[first:stop].table()
        if not self._own:
            return table
        names = {own: key for key, own in self._own.items()}
        keys = pa.array([names.get(key, key) for key in table["key"].to_pylist()], table["key"].type)
        return table.set_column(table.column_names.index("key"), "key", keys)


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

    def camera(self, key: str) -> Camera | None:
        return self._run.camera(key)

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


class Steps(Source):
    """The sheets that `openuni train --sample-every` writes, as one clip: a frame is a step of the training."""

    def __init__(self, run: Path) -> None:
        self._files = _sheets(run)
        self._store = LocalStore(run / _SHEETS)
        self.url, self.columns = str(run), ["rgb"]

    def __len__(self) -> int:
        return 1

    def __contains__(self, key: str) -> bool:
        return key == _SHEETS

    def sample(self, key: str) -> Sample:
        if key not in self:
            raise OpenUniError(f"{self.url} has no clip {key}; its one clip is {_SHEETS}")
        frames, height, width, _ = self._frames.shape
        record = Record(key, frames, height, width, 2.0, caption=f"samples after {self._when}", source="train")
        return Sample(record, {"rgb": Status(True)}, lambda column: Rgb(self._frames, 2.0))

    def moments(self, key: str) -> list[str]:
        return [f"step {int(file.stem)}" for file in self._files]

    @property
    def _when(self) -> str:
        steps = [int(file.stem) for file in self._files]
        return f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps from {steps[0]} to {steps[-1]}"

    def read(self, key: str, column: str) -> Parts:
        return HeldParts(modalities.get("rgb"), self.sample(key)["rgb"])

    def table(self, first: int, stop: int) -> pa.Table:
        record = self.sample(_SHEETS).record
        row = {name: getattr(record, name) for name in ("key", *_record_names())} | {"rgb.present": True}
        return pa.Table.from_pylist([row][first:stop], _schema(self.columns))

    @cached_property
    def _frames(self) -> Any:
        sheets = [sheet for file in self._files if (sheet := self._sheet(file.name)) is not None]
        if len(sheets) < len(self._files) or any(sheet.shape != sheets[-1].shape for sheet in sheets):
            raise CorruptDataError(f"{self.url}/{_SHEETS}: a sheet is no picture, or has another size than the last")
        return np.stack(sheets)[..., ::-1].copy()

    def _sheet(self, name: str) -> Any:
        data = self._store.read(name, at_most=_MOST_SHEET)
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def _sheets(run: Path) -> list[Path]:
    return sorted(file for file in (run / _SHEETS).glob("*.png") if file.stem.isdecimal())


def open_source(path: str, truth: str | None = None) -> Source:
    """A dataset or a view of one, a plain folder or a training run; with `truth`, its clips also answer to the keys of
    the clips that they predict.

    Raises OpenUniError where `path` is none of them.
    """
    if "://" not in path and not (Path(path) / MANIFEST).is_file() and _sheets(Path(path)):
        return Steps(Path(path))
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
    return Rgb(np.ascontiguousarray(video.frames), fps or getattr(video, "fps", None) or 16.0)


def _record_names() -> list[str]:
    others = [*index.schema("depth").names, "source_fields"]  # which is no single value
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
