"""What a scored task is: one class in one file that owns how its values are read, resampled, compared and doubted.

A task is found by its name in the entry-point group `unibench.tasks`, built in or from another distribution. There are
three kinds: `Task` (anything scored), `Stored` (a run holds its values: in a column, or in `<task>/<key>` of a plain
folder) and `Estimated` (compared with truth of the same modality).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from openuni import modalities
from openuni.errors import InvalidAnnotationError
from openuni.modalities import Modality
from openuni.sample import Sample
from unibench.camera import Camera
from unibench.formats.arrays import LARGEST
from unibench.metrics.base import Metric
from unibench.metrics.densepose import Geodesics
from unibench.metrics.depth import ALIGNMENTS, MAX_DEPTH, Alignment
from unibench.metrics.video import Measures, Video
from unibench.tasks.checks import Corruption, Finding, Mistake, shifts
from unibench.tasks.drawing import Image, Panel, difference

V = TypeVar("V")
Shape = tuple[int, int, int]
"""Frames, height and width."""
Rates = tuple[float | None, float | None]
"""Frames a second of a prediction and of its truth, where known."""
UNKNOWN_RATES: Rates = (None, None)


@dataclass(frozen=True, slots=True)
class Setup:
    """What metrics are made with: the protocol's decisions, VBench's measures, and geodesics on a body."""

    max_depth: float = MAX_DEPTH
    alignments: tuple[Alignment, ...] = ALIGNMENTS
    measures: Measures = field(default_factory=Measures)
    geodesics: Geodesics | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """What the files of a plain folder cannot say themselves: their frame rate, and by task its `Options`."""

    fps: float | None = None
    tasks: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.fps, tuple(sorted(self.tasks.items()))))


@dataclass(frozen=True, slots=True)
class Variants:
    """Columns `<name>/<measure>` that take the same measures in several ways; `ranked` ones must agree on a winner."""

    what: str
    names: tuple[str, ...]
    measures: tuple[str, ...]
    ranked: tuple[str, ...]


class Run(ABC):
    """Values of some tasks for some keys, read one at a time: predictions, or truth. It can be pickled."""

    path: str

    @abstractmethod
    def values(self) -> list[str]:
        """Stored tasks that have values here, in the order of the registry."""

    @abstractmethod
    def keys(self, task: str) -> list[str]:
        """Keys that may have a value of this stored task, sorted."""

    @abstractmethod
    def has(self, task: str, key: str) -> bool:
        """Whether `load` would find a value, without reading it."""

    @abstractmethod
    def load(self, task: str, key: str, most: int = LARGEST) -> Any:
        """The value, which takes at most `most` bytes. Raises AbsentModalityError, or OpenUniError on bad bytes."""

    @abstractmethod
    def digest(self, task: str, key: str) -> str:
        """Hex digits over the bytes that `load` reads (`camera`, `second_take`: those files); empty where absent."""

    @abstractmethod
    def fps(self, key: str) -> float | None:
        """Frames a second of the sample, where known."""

    def camera(self, key: str) -> Camera | None:
        """The sample's camera, where known. Raises OpenUniError where its file is not a camera."""
        del key
        return None

    def second_take(self, key: str) -> Video | None:
        """The event of the sample's video once more, where it was filmed twice."""
        del key
        return None


class Task(ABC):
    """What is scored. Only `name`, `metric`, `keys`, `load` and `panels` must be said; the rest has a usual answer."""

    name: ClassVar[str]
    needs_truth: ClassVar[bool] = True
    by_default: ClassVar[bool] = True
    """Whether it is scored where the user does not name tasks."""
    variants: ClassVar[Variants | None] = None

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """The stored values of a prediction that a sample of this task may rest on (`camera`, `second_take` too)."""

    @property
    def rests_on(self) -> tuple[str, ...]:
        """The same of the truth; none where truth is not looked at."""
        return self.reads if self.needs_truth else ()

    def offered(self, values: Set[str]) -> bool:
        """Whether a run that holds these stored values can be scored."""
        return set(self.reads) <= values

    @abstractmethod
    def keys(self, predictions: Run, truth: Run | None) -> list[str]:
        """The samples to score, sorted."""

    @abstractmethod
    def metric(self, setup: Setup) -> Metric[Any, Any]:
        """A fresh metric."""

    @abstractmethod
    def load(self, predictions: Run, key: str, most: int = LARGEST) -> Any:
        """The prediction. Raises AbsentModalityError, or OpenUniError on bad bytes."""

    def load_truth(self, truth: Run, key: str) -> Any:
        """The true value as `metric` wants it. Raises InvalidAnnotationError where the truth cannot be scored on."""
        del truth, key
        return None

    def size(self, true: Any) -> Shape | None:
        """Frames, height and width of what `load_truth` gave; None where there is no truth."""
        del true
        return None

    def align(self, predicted: Any, true: Any, rates: Rates) -> Any:
        """The prediction on the truth's frames and pixels. Raises InvalidAnnotationError where it cannot be."""
        del true, rates
        return predicted

    def compared(self, predicted: Any, true: Any) -> tuple[Any, Any]:
        """The two values as `metric` wants them."""
        return predicted, true

    def nothing(self, true: Any) -> Any | None:
        """The prediction that nothing is there; None where a missing prediction cannot be penalised."""
        del true
        return None

    @abstractmethod
    def panels(self, predicted: Any, true: Any, frame: int, setup: Setup) -> list[Panel]:
        """Truth, prediction and error of one frame for people; `predicted` lies on the truth's frames."""

    def shown(self, predictions: Run, truth: Run | None, key: str, setup: Setup) -> tuple[list[Panel], int]:
        """Panels of the middle frame of a sample, and which frame that is."""
        del truth
        video = predictions.load("video", key)
        middle = len(video.frames) // 2
        return self.panels(video, None, middle, setup), middle


class Stored(Task, Generic[V]):
    """A task whose values a run holds."""

    Options: ClassVar[type | None] = None
    """A frozen dataclass whose fields `predictions.json` may give under the task's name; all have defaults."""

    @property
    @abstractmethod
    def column(self) -> str:
        """The column of a dataset that holds the values."""

    @abstractmethod
    def read(self, entry: Path, info: Info, most: int = LARGEST) -> V:
        """A value from a file or folder of a plain run. Raises InvalidAnnotationError."""

    def arrays(self, value: V) -> dict[str, npt.NDArray[Any]]:
        """What a prediction's npz holds, which `read` understands; usually all arrays of the value, by their names."""
        members = {each.name: getattr(value, each.name) for each in fields(cast(Any, value))}
        return {name: array for name, array in members.items() if isinstance(array, np.ndarray)}

    @abstractmethod
    def pick(self, value: V, index: npt.NDArray[np.int64]) -> V:
        """The frames at these positions, which may repeat."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.name,)

    @cached_property
    def modality(self) -> Modality[Any]:
        """The modality of the column."""
        return modalities.get(self.column)

    def options(self, info: Info) -> Any:
        """What `predictions.json` says of this task, or the defaults."""
        return info.tasks.get(self.name) or (self.Options() if self.Options else None)

    def of_sample(self, sample: Sample) -> V:
        """The value in a sample of a dataset."""
        value: V = sample[self.column]
        return value

    def check(self, value: V) -> None:
        """Raise InvalidAnnotationError where a value from a plain folder is none of this modality."""
        self.modality.check(value)

    def shape(self, value: V) -> Shape:
        return self.modality.shape(value)

    def cut(self, value: V, frames: int) -> V:
        """The first frames."""
        first: V = self.modality.take(value, slice(0, frames))
        return first

    def resize(self, value: V, height: int, width: int) -> V:
        resized: V = self.modality.resize(value, height, width)
        return resized

    def load(self, predictions: Run, key: str, most: int = LARGEST) -> V:
        value: V = predictions.load(self.name, key, most)
        return value

    def resample(self, value: V, shape: Shape, rates: Rates) -> V:
        """The prediction on the truth's frames; the same object where nothing differs.

        Time: at equal (or unknown) frame rates frame t is frame t and what is longer is cut; at different `rates`
        (prediction's, truth's) the true frame t takes the predicted frame that is shown at its middle,
        ⌊(t + ½)·p / q⌋. Space: as `resize` does. Raises InvalidAnnotationError where the prediction is too short.
        """
        frames, height, width = shape
        have = self.shape(value)[0]
        if (rate := differing(rates)) is not None:
            index = np.floor((np.arange(frames) + 0.5) * rate[0] / rate[1]).astype(np.int64)
            if index[-1] >= have:
                raise InvalidAnnotationError(f"{self.name}: {have} frames at {rate[0]:g} fps end before the truth does")
            value = self.pick(value, index)
        elif have > frames:
            value = self.cut(value, frames)
        elif have < frames:
            raise InvalidAnnotationError(
                f"{self.name}: {have} frames predicted, the truth has {frames}; predict all, or say the fps"
            )
        return value if self.shape(value)[1:] == (height, width) else self.resize(value, height, width)


class Estimated(Stored[V]):
    """A task whose prediction and truth are values of one modality, which has the task's name."""

    judge: ClassVar[str]
    """The column by which the doctor judges corruptions and mistakes."""

    @property
    def column(self) -> str:
        return self.name

    @abstractmethod
    def nothing(self, true: Any) -> V:
        """The prediction that nothing is there."""

    @property
    @abstractmethod
    def corruptions(self) -> Mapping[str, Corruption]:
        """By name, what must worsen the score at every step."""

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Conventions that predictions often get wrong."""
        return (self.mirrored(), *shifts())

    def mirrored(self) -> Mistake:
        return Mistake("the prediction is mirrored left to right", lambda value: self.modality.flip(value))

    def suspect(self, pairs: Sequence[tuple[V, V]]) -> Finding | None:
        """A mistake that no score shows, where (prediction, truth) pairs tell it otherwise."""
        del pairs
        return None

    def keys(self, predictions: Run, truth: Run | None) -> list[str]:
        return predictions.keys(self.name) if truth is None else truth.keys(self.name)

    def load_truth(self, truth: Run, key: str) -> Any:
        return truth.load(self.name, key)

    def size(self, true: Any) -> Shape | None:
        return self.shape(true)

    def align(self, predicted: V, true: Any, rates: Rates) -> V:
        size = self.size(true)
        return predicted if size is None else self.resample(predicted, size, rates)

    def error(self, predicted: V, true: V, column: str | None = None) -> float:
        """What `column` (else `judge`) says as an error of at least 0, less is better; NaN where it is undefined."""
        metric = self.metric(self.judging(column or self.judge))
        score = metric.update("doctor", *self.compared(predicted, true)).get(column or self.judge)
        value = math.nan if score is None else score.value
        return 1 - value if self.rises(column or self.judge) else value

    def judging(self, column: str) -> Setup:
        """The least setup in which `column` is computed."""
        del column
        return Setup()

    def rises(self, column: str) -> bool:
        """Whether more of a column is better (it is then a share of 1)."""
        return next(c for c in self.metric(Setup()).columns if c.name == column).better == "higher"

    def stored_error(self, true: V, stored: V) -> tuple[float, float]:
        """The error of truth that was stored and read again, and the most that its stored precision allows."""
        return self.error(stored, true), 1e-12

    def panels(self, predicted: V, true: V, frame: int, setup: Setup) -> list[Panel]:
        del setup
        there, here = self.picture(true, frame), self.picture(predicted, frame)
        return [Panel("truth", there), Panel("prediction", here), difference(there, here)]

    def comparison(self, predicted: V, true: V, setup: Setup) -> Callable[[int], list[Panel]]:
        """`panels` of any frame of a clip. What its frames decide together, an alignment say, is decided once, here."""
        return lambda frame: self.panels(predicted, true, frame, setup)

    def picture(self, value: V, frame: int) -> Image:
        """A frame as the modality shows itself."""
        part = self.modality.take(value, slice(frame, frame + 1))
        return np.asarray(self.modality.show(part)[0], dtype=np.uint8)

    def shown(self, predictions: Run, truth: Run | None, key: str, setup: Setup) -> tuple[list[Panel], int]:
        if truth is None:
            return super().shown(predictions, truth, key, setup)
        true = truth.load(self.name, key)
        predicted = self.resample(self.load(predictions, key), self.shape(true), (predictions.fps(key), truth.fps(key)))
        middle = self.shape(true)[0] // 2
        return self.panels(predicted, true, middle, setup), middle


def differing(rates: Rates) -> tuple[float, float] | None:
    """The two rates where both are known and differ."""
    predicted, true = rates
    return None if predicted is None or true is None or abs(predicted / true - 1) <= 1e-3 else (predicted, true)
