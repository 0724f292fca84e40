"""The frames and values of clips: the one asked for is decoded first and alone, the rest in runs; the last stay."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from openuni import modalities
from openuni.errors import OpenUniError
from openuni.modalities import ColourRange, Frames, Reading
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.skeleton import LAYOUTS
from openuni.sample import Sample
from openuni_pipelines.engine.viewing import normals
from openuni_pipelines.engine.viewing.kept import Kept
from openuni_pipelines.engine.viewing.sources import HeldParts, Parts, Source, drawn, size_of
from unibench import tasks
from unibench.tasks import Setup
from unibench.tasks.drawing import difference

RUN = 16
"""Frames that are decoded together."""
_MOST_PICTURES = 512 << 20
_MOST_STORED = 256 << 20
_MOST_VALUES = 1 << 30
"""Of decoded values: single frames for the pointer, and whole clips where a part costs as much."""
_MOST_THUMBNAILS = 64 << 20
_SEEN = 3
"""Frames, spread over a clip, that say from where to where its colours go."""
_ARROWS = 32
"""Along the longer side of a frame."""
_QUALITY = 90
_THUMBNAIL = 320
"""Longer side of a thumbnail, pixels."""
Place = tuple[str, str]
"""Key and column."""


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
    moments: list[str]
    """What each frame is called, where its time says nothing."""
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    """By name, a score of each run that is looked at."""


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


@dataclass(frozen=True, slots=True)
class Arrows:
    """Motion of a frame every `step` pixels: rows of x, y, u, v in pixels, to be drawn `scale` times as long."""

    step: int
    scale: float
    rows: list[list[float]]


class Clips:
    """The clips of one source, by key and column. Thread-safe; what several ask for is decoded once."""

    def __init__(self, data: Source, source: str = "") -> None:
        self.data, self.source = data, source
        self._parts = Kept[Place, Parts](_MOST_STORED, lambda parts: parts.bytes)
        self._values = Kept[tuple[str, str, int], Any](_MOST_VALUES, size_of)
        self._ranges = Kept[Place, ColourRange | None](1 << 20, lambda _: 64)
        self._runs = Kept[tuple[str, str, int], list[bytes]](_MOST_PICTURES, lambda run: sum(map(len, run)))
        self._thumbnails = Kept[str, bytes](_MOST_THUMBNAILS, len)

    @property
    def held(self) -> int:
        """Bytes that are kept in memory."""
        return sum(kept.bytes for kept in (self._parts, self._values, self._runs, self._thumbnails))

    def sample(self, key: str) -> Sample:
        """Raises OpenUniError where there is no such clip."""
        return self.data.sample(key)

    def facts(self, key: str) -> ClipFacts:
        """What is known of a clip without decoding it."""
        sample = self.sample(key)
        record = sample.record
        more = ("subset", "split", "source", "source_id", "video_id", "license", "start", "end")
        shown = {name: getattr(record, name) for name in more} | dict(record.scores)
        own = {f"source: {name}": _told(value) for name, value in record.source_fields.items()}
        size = (record.frames, record.height, record.width, record.fps)
        return ClipFacts(key, record.caption, *size, shown | own, list(self.columns(key)), self.data.moments(key))

    def columns(self, key: str) -> Iterator[ColumnFacts]:
        """Every column, and what the clip has of it."""
        for name, status in self.sample(key).statuses.items():
            if name not in self.data.columns:  # numbers, which `facts` shows
                continue
            yield ColumnFacts(name, self.source, status.present, status.reason, status.expert, status.confidence)
        if self.data.has_normals(key):
            yield ColumnFacts(normals.NAME, self.source, True, "", "", None)

    def frame(self, key: str, column: str, number: int) -> bytes:
        """A frame as JPEG, decoded alone. Raises OpenUniError beyond the clip's end, AbsentModalityError, or
        CorruptDataError where the bytes are damaged."""
        run = self._runs.peek((key, column, number // RUN))
        if run is not None and number >= 0:
            return run[number % RUN]
        self._check(key, column, number, 1)
        return _jpeg(self._picture(key, column, number))

    def run(self, key: str, column: str, first: int, count: int) -> bytes:
        """Some frames, each as its length (32 bits, little-endian) and a JPEG. Raises as `frame` does."""
        stop = min(first + count, self._check(key, column, first, 1))
        pictures: list[bytes] = []
        for number in range(first // RUN, (stop - 1) // RUN + 1):
            pictures += self._run(key, column, number)
        skipped = first // RUN * RUN
        kept = pictures[first - skipped : stop - skipped]
        return b"".join(struct.pack("<I", len(picture)) + picture for picture in kept)

    def thumbnail(self, key: str) -> bytes:
        """The middle frame, small, as JPEG; of the first column that the clip has."""
        return self._thumbnails.get(key, lambda: self._thumbnail(key))

    def readings(self, key: str, column: str, frame: int, y: int, x: int) -> tuple[Reading, ...]:
        """What a column says of one pixel. Raises OpenUniError outside the clip."""
        frames = self._check(key, column, frame, 1)
        value = self.still(key, column, frame)
        modality = drawn(column)
        _, height, width = modality.shape(value)
        if not (0 <= y < height and 0 <= x < width):
            raise OpenUniError(f"{key}: ({x}, {y}) of frame {frame} lies outside {frames} frames of {width}×{height}")
        return modality.read_out(value, 0, y, x)

    def people(self, key: str) -> Bodies:
        """The people of a clip. Raises AbsentModalityError where it has no skeleton."""
        value = self.whole(key, "skeleton")
        body = LAYOUTS[value.layout]
        frames, people, joints, numbers = value.keypoints.shape  # there may be nobody: no size can be left to -1
        flat, boxes = value.keypoints.reshape(frames, people, joints * numbers), value.boxes
        return Bodies(value.track_ids.tolist(), list(body.limbs), list(body.joints), _listed(flat), _listed(boxes))

    def arrows(self, key: str, column: str, frame: int) -> Arrows:
        """Motion on a lattice of a frame. Raises OpenUniError where the column is no flow."""
        self._check(key, column, frame, 1)
        value = self.still(key, column, frame)
        if not isinstance(value, Flow):
            raise OpenUniError(f"{key}: {column} is no flow")
        _, height, width = drawn(column).shape(value)
        step = max(max(height, width) // _ARROWS, 4)
        ys, xs = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
        motion = value.forward[0][ys, xs] if len(value.forward) else np.full((len(xs), 2), np.nan)
        known = ~np.isnan(motion[:, 0])
        rows = np.column_stack([xs + 0.5, ys + 0.5, motion])[known]
        usual = (self.colours(key, column) or (0.0, 1.0))[1]
        fastest = float(np.hypot(rows[:, 2], rows[:, 3]).max(initial=0.0))
        return Arrows(step, step * min(1.5 / usual, 4 / max(fastest, 1e-6)), np.round(rows, 2).tolist())

    def legend(self, key: str, column: str) -> str:
        """What the colours of a clip's map mean, with their numbers; empty where they have none."""
        within = self.colours(key, column)
        return "" if within is None else _legend(self.still(key, column, 0), *within)

    def camera(self, key: str) -> list[list[float]]:
        """Where the camera is and looks in every frame: x, y, z in metres and the direction of its view in x and z;
        nothing where that is not known."""
        camera = self.data.camera(key)
        if camera is None:
            return []
        rows: list[list[float]] = np.column_stack([camera.pose[:, :3, 3], camera.pose[:, [0, 2], 2]]).round(4).tolist()
        return rows

    def still(self, key: str, column: str, number: int) -> Any:
        """The value of one frame, and of those after it that its own picture needs."""
        parts = self.parts(key, column)
        stop = min(number + 1 + parts.modality.reaches, parts.frames)
        whole = None if parts.quick else self._values.peek((key, column, -1))
        if whole is not None:
            return parts.modality.take(whole, slice(number, stop))
        return self._values.get((key, column, number), lambda: parts.part(number, stop))

    def whole(self, key: str, column: str) -> Any:
        """The value of all frames."""
        parts = self.parts(key, column)
        return self._values.get((key, column, -1), lambda: parts.part(0, parts.frames))

    def parts(self, key: str, column: str) -> Parts:
        """Raises AbsentModalityError, or CorruptDataError where the bytes are damaged."""
        return self._parts.get((key, column), lambda: self.data.read(key, column))

    def colours(self, key: str, column: str) -> ColourRange | None:
        """From where to where the colours of a clip's map go, judged by a few frames all over it."""
        if not drawn(column).has_colour_range:  # then no frame need be decoded for it
            return None
        return self._ranges.get((key, column), lambda: self._colours(key, column))

    def _colours(self, key: str, column: str) -> ColourRange | None:
        parts = self.parts(key, column)
        if not parts.quick:
            self.whole(key, column)  # once, where each of these frames would cost as much
        last = max(parts.frames - 1 - parts.modality.reaches, 0)
        numbers = np.unique(np.linspace(0, last, _SEEN).astype(int)).tolist()
        with ThreadPoolExecutor(_SEEN) as pool:  # somebody waits for these frames alone
            found = list(pool.map(lambda at: parts.modality.colour_range(self.still(key, column, at)), numbers))
        ranges = [one for one in found if one is not None]
        if not ranges:
            return None
        # The median: one frame of noise (of a flow, say) does not wash out all others.
        return min(low for low, _ in ranges), float(np.median([high for _, high in ranges]))

    def _picture(self, key: str, column: str, number: int) -> npt.NDArray[np.uint8]:
        """One frame for people. The first of a clip is in its own colours: those of the clip take more frames (of exact
        truth all), which the run that brings this frame again decodes."""
        within = self.colours(key, column) if self._ranges.begun((key, column)) else None
        value, modality = self.still(key, column, number), drawn(column)
        picture: npt.NDArray[np.uint8] = modality.show_within(value, within)[0]
        return picture

    def pictures(self, key: str, column: str, start: int, stop: int) -> Frames:
        """A run of frames for people."""
        parts = self.parts(key, column)
        if not parts.quick:
            parts = HeldParts(parts.modality, self.whole(key, column))
        modality, within = parts.modality, self.colours(key, column)
        value = parts.part(start, min(stop + modality.reaches, parts.frames))
        # One frame at a time: its arrays stay in the processor's cache (measured: half the time of a run at once).
        alone = (modality.take(value, slice(at, at + 1 + modality.reaches)) for at in range(stop - start))
        return np.stack([modality.show_within(one, within)[0] for one in alone])

    def _run(self, key: str, column: str, number: int) -> list[bytes]:
        start, stop = number * RUN, min(number * RUN + RUN, self.length(key, column))
        make = lambda: [_jpeg(frame) for frame in self.pictures(key, column, start, stop)]  # noqa: E731
        return self._runs.get((key, column, number), make)

    def _thumbnail(self, key: str) -> bytes:
        present = next((column.name for column in self.columns(key) if column.present), self.data.columns[0])
        frame = self._picture(key, present, self.length(key, present) // 2)
        scale = min(1.0, _THUMBNAIL / max(frame.shape[:2]))
        size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
        return _jpeg(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))

    def length(self, key: str, column: str) -> int:
        """Frames of a column."""
        return self.parts(key, column).frames

    def _check(self, key: str, column: str, first: int, count: int) -> int:
        frames = self.length(key, column)
        if not 0 <= first <= frames - count:
            raise OpenUniError(f"{key}: there is no frame {first} of {frames}")
        return frames


class Differences(Clips):
    """Where the columns of a prediction differ from those of the truth, as `unibench` draws it; nothing to read out."""

    def __init__(self, predicted: Clips, truth: Clips, source: str = "error") -> None:
        super().__init__(predicted.data, source)
        self._predicted, self._truth = predicted, truth
        self._comparisons = Kept[Place, _Comparison](_MOST_VALUES, lambda comparison: comparison.bytes)

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

    def length(self, key: str, column: str) -> int:
        return self._predicted.length(key, column)

    def legend(self, key: str, column: str) -> str:
        """As `unibench` draws it."""
        return ""

    def _picture(self, key: str, column: str, number: int) -> npt.NDArray[np.uint8]:
        picture: npt.NDArray[np.uint8] = self.pictures(key, column, number, number + 1)[0]
        return picture

    def pictures(self, key: str, column: str, start: int, stop: int) -> Frames:
        compare = self._comparisons.get((key, column), lambda: self._comparison(key, column)).error
        return np.stack([compare(frame) for frame in range(start, stop)])

    def _comparison(self, key: str, column: str) -> _Comparison:
        # All of both: what a depth is worth is said after it was aligned to the truth over the whole clip.
        found, true = self._predicted.whole(key, column), self._truth.whole(key, column)
        modality = modalities.get(column)
        if modality.shape(found) != modality.shape(true):
            raise OpenUniError(
                f"{key}: {column} has another size or length than its truth; score it to see it resampled"
            )
        if column in tasks.estimated():
            panels = tasks.get_estimated(column).comparison(found, true, Setup())
        else:
            shown = (modality.show(true), modality.show(found))
            panels = lambda frame: [difference(*(of[frame] for of in shown))]  # noqa: E731

        def error(frame: int) -> npt.NDArray[np.uint8]:
            drawn = panels(frame)
            if not drawn:
                raise OpenUniError(f"{key}: its {column} cannot be compared with the truth: one of them knows no pixel")
            return drawn[-1].image

        return _Comparison(error, size_of(found) + size_of(true))


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Draws where a frame is wrong; it keeps `bytes` of both values alive."""

    error: Callable[[int], npt.NDArray[np.uint8]]
    bytes: int


def wheel() -> bytes:
    """The colours of a flow's directions, as JPEG: at each place that of motion towards it from the middle."""
    y, x = (np.mgrid[:72, :72].astype(np.float32) - 35.5) / 35.5
    motion = np.stack([x, y], axis=-1)
    motion[np.hypot(x, y) > 1] = np.nan
    return _jpeg(modalities.get("flow").show_within(Flow(motion[None]), (0.0, 1.0))[0])


def _told(value: Any) -> str | float | None:
    """A field of the source's row as a cell shows it."""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return cast("str | float | None", value)


def _jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    # Without chroma subsampling: thin coloured lines of a skeleton would blur.
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes())


def _legend(value: Any, low: float, high: float) -> str:
    if isinstance(value, Flow):
        return f"hue is direction, full colour {high:.3g} px a frame; faster is darker, black unknown"
    if isinstance(value, Depth) and value.kind != "affine_disparity" and low > 0:
        unit = " m" if value.kind == "metric" else " (relative)"
        return f"yellow {1 / high:.3g}{unit}, violet {1 / low:.3g}{unit}, black unknown"
    return f"yellow {high:.3g} (near), violet {low:.3g} (far), affine disparity; black unknown"


def _listed(values: npt.NDArray[np.float32]) -> list[list[list[float | None]]]:
    """Nested lists with None for NaN, which JSON does not have."""
    rounded = np.round(values.astype(np.float64), 2)
    numbers = rounded.astype(np.object_)
    numbers[np.isnan(rounded)] = None
    listed: list[list[list[float | None]]] = numbers.tolist()
    return listed
