"""The frames and values of clips, decoded when they are asked for; the last few clips stay in memory."""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from openuni import modalities
from openuni.errors import AbsentModalityError, OpenUniError
from openuni.modalities import Frames, Reading
from openuni.modalities.skeleton import LAYOUTS, Skeleton
from openuni.sample import Sample
from openuni.shards.reader import Dataset
from unibench import tasks
from unibench.tasks import Setup
from unibench.tasks.drawing import difference

_MOST_BYTES = 1 << 30
"""Of decoded arrays and pictures that are kept."""
_QUALITY = 92
_THUMBNAIL = 320
"""Longer side of a thumbnail, pixels."""


@dataclass(frozen=True, slots=True)
class View:
    """One column of one clip, decoded: its value, and its frames for people, uint8 `[T, H, W, 3]`."""

    value: Any
    frames: Frames

    @property
    def bytes(self) -> int:
        arrays = [self.frames, *(getattr(self.value, name) for name in getattr(type(self.value), "__slots__", ()))]
        return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What the page says of a column of a clip. `source` names the dataset it comes from, empty for the first."""

    name: str
    source: str
    present: bool
    reason: str
    expert: str
    confidence: float | None


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What the page says of a clip."""

    key: str
    caption: str
    frames: int
    height: int
    width: int
    fps: float
    record: dict[str, str | float | None]
    columns: list[ColumnFacts]


@dataclass(frozen=True, slots=True)
class Bodies:
    """Joints and boxes as numbers, so that the page draws them as crisp lines. NaN is written as None.

    `joints[t][p]` is a flat list of x, y, score; `boxes[t][p]` x0, y0, x1, y1; `limbs` are pairs of joints.
    """

    tracks: list[int]
    limbs: list[tuple[int, int]]
    names: list[str]
    joints: list[list[list[float | None]]]
    boxes: list[list[list[float | None]]]


class Clips:
    """The clips of one dataset, by key and column. Thread-safe; one clip's column is decoded once at a time."""

    def __init__(self, data: Dataset, source: str = "") -> None:
        self.data, self.source = data, source
        self._views: OrderedDict[tuple[str, str], Future[View]] = OrderedDict()
        self._lock = threading.Lock()  # the reader's own caches are not made for threads
        self._reading = threading.Lock()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="decode")

    def sample(self, key: str) -> Sample:
        """Raises OpenUniError where there is no such clip."""
        with self._reading:
            try:
                return self.data[key]
            except KeyError:
                raise OpenUniError(f"{self.data.url} has no clip {key}") from None

    def facts(self, key: str) -> ClipFacts:
        """What is known of a clip without decoding it."""
        sample = self.sample(key)
        record = sample.record
        more = ("subset", "split", "source", "source_id", "video_id", "license", "start", "end")
        shown = {name: getattr(record, name) for name in more} | dict(record.scores)
        size = (record.frames, record.height, record.width, record.fps)
        return ClipFacts(key, record.caption, *size, shown, list(self.columns(key)))

    def columns(self, key: str) -> Iterator[ColumnFacts]:
        """Every column of the dataset, and what the clip has of it."""
        for name, status in self.sample(key).statuses.items():
            if name not in self.data.columns:  # numbers, which `facts` shows
                continue
            yield ColumnFacts(name, self.source, status.present, status.reason, status.expert, status.confidence)

    def prepare(self, key: str, columns: Sequence[str]) -> None:
        """Begin to decode, so that all columns of a clip are on their way together."""
        for column in columns:
            self._begin(key, column)

    def view(self, key: str, column: str) -> View:
        """Raises AbsentModalityError, or CorruptDataError where the bytes are damaged."""
        return self._begin(key, column).result()

    def frame(self, key: str, column: str, number: int) -> bytes:
        """A frame as JPEG. Raises OpenUniError beyond the clip's end."""
        frames = self.view(key, column).frames
        if not 0 <= number < len(frames):
            raise OpenUniError(f"{key}: there is no frame {number} of {len(frames)}")
        return _jpeg(frames[number])

    def run(self, key: str, column: str, first: int, count: int) -> bytes:
        """Some frames, each as its length (32 bits, little-endian) and a JPEG."""
        pictures = [_jpeg(frame) for frame in self.view(key, column).frames[first : first + count]]
        return b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)

    def thumbnail(self, key: str) -> bytes:
        """The middle frame, small, as JPEG; of the first column where the clip has no RGB."""
        frames = self.view(key, self.data.columns[0]).frames
        frame = frames[len(frames) // 2]
        scale = min(1.0, _THUMBNAIL / max(frame.shape[:2]))
        size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
        return _jpeg(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))

    def readings(self, key: str, column: str, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        """What a column says of one pixel. Raises OpenUniError outside the clip."""
        value = self.view(key, column).value
        modality = modalities.get(column)
        frames, height, width = modality.shape(value)
        if not (0 <= frame < frames and 0 <= y < height and 0 <= x < width):
            raise OpenUniError(f"{key}: ({x}, {y}) of frame {frame} lies outside {frames} frames of {width}×{height}")
        return modality.read_out(value, frame, y, x)

    def people(self, key: str) -> Bodies:
        """The people of a clip. Raises AbsentModalityError where it has no skeleton."""
        value = self.view(key, "skeleton").value
        assert isinstance(value, Skeleton)
        body = LAYOUTS[value.layout]
        joints, boxes = value.keypoints.reshape(*value.keypoints.shape[:2], -1), value.boxes
        return Bodies(value.track_ids.tolist(), list(body.limbs), list(body.joints), _listed(joints), _listed(boxes))

    def _begin(self, key: str, column: str) -> Future[View]:
        with self._lock:
            at = (key, column)
            if at not in self._views:
                self._views[at] = self._pool.submit(self._decode, key, column)
                self._forget()
            self._views.move_to_end(at)
            return self._views[at]

    def _decode(self, key: str, column: str) -> View:
        sample = self.sample(key)
        if column not in self.data.columns:
            raise AbsentModalityError(f"{self.data.url} has no column {column}")
        value = sample[column]
        return View(value, modalities.get(column).show(value))

    def _forget(self) -> None:
        """Drop the longest unused views beyond the bound; one that is being decoded counts when it is done."""
        sizes = {
            at: future.result().bytes
            for at, future in self._views.items()
            if future.done() and future.exception() is None
        }
        total = sum(sizes.values())
        for at, size in sizes.items():
            if total <= _MOST_BYTES:
                break
            del self._views[at]
            total -= size


class Differences(Clips):
    """Where the columns of a dataset differ from those of the truth, as `unibench` draws it; nothing to read out."""

    def __init__(self, predicted: Clips, truth: Clips) -> None:
        super().__init__(predicted.data, "error")
        self._predicted, self._truth = predicted, truth

    def columns(self, key: str) -> Iterator[ColumnFacts]:
        """The columns that both have of a clip; the others say why there is no error to show."""
        there = self._truth.sample(key).statuses if key in self._truth.data else {}
        for name, status in self.sample(key).statuses.items():
            if name not in there or not (status.present and there[name].present):
                missing = "the prediction" if not status.present else "the truth"
                yield ColumnFacts(name, self.source, False, f"{missing} has none", "", None)
            else:
                yield ColumnFacts(name, self.source, True, "", "", None)

    def readings(self, key: str, column: str, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        """None: a picture of errors has no units of its own."""
        return ()

    def _decode(self, key: str, column: str) -> View:
        found, true = self._predicted.view(key, column), self._truth.view(key, column)
        if found.frames.shape != true.frames.shape:
            raise OpenUniError(
                f"{key}: {column} has another size or length than its truth; score it to see it resampled"
            )
        if column not in tasks.estimated():
            pairs = zip(true.frames, found.frames, strict=True)
            return View(None, np.stack([difference(there, here).image for there, here in pairs]))
        task, setup = tasks.get_estimated(column), Setup()
        frames = [task.panels(found.value, true.value, frame, setup)[-1].image for frame in range(len(true.frames))]
        return View(None, np.stack(frames))


def _jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    # Without chroma subsampling: thin coloured lines of a skeleton would blur.
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return bytes(cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes())


def _listed(values: npt.NDArray[np.float32]) -> list[list[list[float | None]]]:
    """Nested lists with None for NaN, which JSON does not have."""
    return [
        [[None if np.isnan(number) else round(float(number), 2) for number in row] for row in frame] for frame in values
    ]
