"""Runs: the predictions (or the truth) of many samples, in OpenUni's columns or in a plain folder; and resampling.

A plain folder is `runs/x/<task>/<key>.<ext>` or `runs/x/<task>/<key>/` with one file a frame in the order of names; a
suffix `_depth`, `_depths`, `_depths_exr`, `_disparity`, `_flow` or `_mask` after the key is ignored. Without task
folders, mp4 files in `runs/x` itself are generated videos, and `{prompt}-{i}.mp4` (VBench's layout) says the prompt.
`unibench.formats.predictions` says which files are read.
"""

from __future__ import annotations

import posixpath
import re
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import openuni
from openuni.errors import AbsentModalityError, InvalidAnnotationError, OpenUniError
from openuni.modalities import Modality, geometry, segmentation, skeleton
from openuni.modalities import get as modality
from openuni.modalities.depth import Depth
from openuni.sample import Record, Sample, make_key
from openuni.shards.layout import MANIFEST
from unibench.formats import coco_results, sidecar
from unibench.formats.names import Match, match_names
from unibench.formats.predictions import READERS, WHOLE_CLIP, Info, read_camera, read_info, read_video
from unibench.metrics.consistency import Camera, Views
from unibench.metrics.video import Video

ESTIMATED = ("depth", "flow", "segmentation", "skeleton", "densepose")
"""Tasks that are compared with truth."""
TASKS = (*ESTIMATED, "video", "consistency", "physics")
COLUMN_OF = {**{task: task for task in ESTIMATED}, "video": "rgb"}
"""The column of a dataset that holds a task's values."""
_SUFFIX = re.compile(r"_(depths?(_exr)?|disparity|flow|masks?)$")


class Run(ABC):
    """Values of some tasks for some keys, read one at a time."""

    path: str

    @abstractmethod
    def values(self) -> list[str]:
        """Tasks that have values of their own (`consistency` has none), in the order of `TASKS`."""

    def tasks(self) -> list[str]:
        """Tasks that can be scored, in the order of `TASKS`: consistency where there are both video and flow."""
        have = self.values()
        return [*have, "consistency"] if {"video", "flow"} <= set(have) else have

    @abstractmethod
    def keys(self, task: str) -> list[str]:
        """Keys that may have a value of this task (of `values`), sorted."""

    @abstractmethod
    def has(self, task: str, key: str) -> bool:
        """Whether `load` would find a value, without reading it."""

    @abstractmethod
    def load(self, task: str, key: str) -> Any:
        """The modality value (for `video`: a `Video`). Raises AbsentModalityError, or OpenUniError on bad bytes."""

    @abstractmethod
    def fps(self, key: str) -> float | None:
        """Frames a second of the sample, where known."""

    def camera(self, key: str) -> Camera | None:
        """The sample's camera, where known. Raises OpenUniError where its file is no camera."""
        del key
        return None

    def camera_file(self, key: str) -> Path | None:
        """The file that holds the camera, where there is one."""
        del key
        return None

    def second_take(self, key: str) -> Video | None:
        """The event of the sample's video once more, where it was filmed twice."""
        del key
        return None


def open_run(path: Path | str, info: Info | None = None) -> Run:
    """Open a dataset or a plain folder. Raises OpenUniError where `path` is neither."""
    folder = Path(path)
    if "://" in str(path) or (folder / MANIFEST).is_file():
        return Columns(str(path))
    if not folder.is_dir():
        raise OpenUniError(f"{path} is no folder; give a dataset or a folder laid out as <task>/<key>.<ext>")
    return Folder(folder, info or read_info(folder))


class Columns(Run):
    """A dataset in OpenUni's columns.

    A sample answers to its key and, where it is the only clip of a video file, to that file's name without the suffix:
    so what `openuni build --source folder` makes of `<key>.mp4` stands for `<key>`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = openuni.open(path)

    def values(self) -> list[str]:
        return [task for task in COLUMN_OF if COLUMN_OF[task] in self.data.columns]

    def keys(self, task: str) -> list[str]:
        column = COLUMN_OF[task]
        return [key for key in self._keys if column in self.data[key]] if column in self.data.columns else []

    def has(self, task: str, key: str) -> bool:
        try:
            return COLUMN_OF[task] in self.sample(key)
        except AbsentModalityError:
            return False

    def subset(self, key: str) -> str:
        """The subset (`single_person`, `two_person`, `general`) that a sample belongs to."""
        return self.sample(key).record.subset

    def sample(self, key: str) -> Sample:
        """The sample that answers to `key`. Raises AbsentModalityError where none does, or several do."""
        if key in self.data:
            return self.data[key]
        clips = self._clips.get(key, [])
        if len(clips) == 1:
            return self.data[clips[0]]
        if clips:
            raise AbsentModalityError(f"{self.path}: the video {key!r} was cut into {len(clips)} clips: {clips[0]}, …")
        raise AbsentModalityError(f"{self.path} has no sample {key!r} and no clip of a video of that name")

    @cached_property
    def _keys(self) -> list[str]:
        return sorted(self.data.keys())

    @cached_property
    def _clips(self) -> dict[str, list[str]]:
        """Keys of the clips of every video, by the video's name without the suffix, as a key."""
        clips: dict[str, list[str]] = {}
        for sample in self.data:
            if sample.record.video_id:
                clips.setdefault(make_key(posixpath.splitext(sample.record.video_id)[0]), []).append(sample.key)
        return clips

    def load(self, task: str, key: str) -> Any:
        sample = self.sample(key)
        value = sample[COLUMN_OF[task]]
        return Video(value.frames, value.fps, sample.caption or None) if task == "video" else value

    def fps(self, key: str) -> float | None:
        return self.sample(key).record.fps

    def camera(self, key: str) -> Camera | None:
        file = self.camera_file(key)
        if file is None:
            return None
        camera = sidecar.read_camera(file)
        return Camera(camera.intrinsics, camera.pose)

    def camera_file(self, key: str) -> Path | None:
        """The side-car of rendered and imported truth; None where the dataset is not a local folder."""
        file = Path(self.path) / sidecar.FOLDER / key / "camera.npz"
        return file if file.is_file() else None


class Folder(Run):
    """Ordinary files; see the module's table."""

    def __init__(self, folder: Path, info: Info | None = None) -> None:
        self.path = str(folder)
        self.info = info or Info()
        self._folder = folder
        self._entries: dict[str, dict[str, Path]] = {}
        self._truth: dict[str, Record] = {}
        self._pictures: dict[str, str] = {}
        self._results = coco_results.find(folder)

    def answer_to(self, truth: Columns) -> Match:
        """From now on give also what is named as the source named its clips by the key that `truth` has for it; how the
        names matched."""
        self._truth = {sample.key: sample.record for sample in truth.data}
        self._entries = {}
        names = {name for task in ESTIMATED for name in self._files(task)}
        return match_names(self._truth.values(), names)

    def values(self) -> list[str]:
        return [task for task in COLUMN_OF if self._of(task)]

    def keys(self, task: str) -> list[str]:
        return sorted(self._of(task))

    def has(self, task: str, key: str) -> bool:
        return key in self._of(task)

    def load(self, task: str, key: str) -> Any:
        entry = self.entry(task, key)
        if entry == self._results:
            record = self._truth[key]
            value = coco_results.skeleton(entry, self._pictures.get(key, ""), record.height, record.width)
        else:
            value = READERS[task](entry, self.info)
        if task != "video":
            modality(COLUMN_OF[task]).check(value)
        return value

    def fps(self, key: str) -> float | None:
        return self.info.fps

    def camera(self, key: str) -> Camera | None:
        file = self.camera_file(key)
        return None if file is None else read_camera(file)

    def camera_file(self, key: str) -> Path | None:
        file = self._folder / "camera" / f"{key}.npz"
        return file if file.is_file() else None

    def second_take(self, key: str) -> Video | None:
        file = self._folder / "second_take" / f"{key}.mp4"
        return read_video(file, self.info) if file.is_file() else None

    def entry(self, task: str, key: str) -> Path:
        """The file or folder of a sample. Raises AbsentModalityError where there is none."""
        entry = self._of(task).get(key)
        if entry is None:
            raise AbsentModalityError(f"{self._folder / task} has no file or folder for {key!r}")
        return entry

    def _of(self, task: str) -> dict[str, Path]:
        """The entry of each key, that of the truth where it is known."""
        if task not in self._entries:
            files = self._files(task)
            keys = match_names(self._truth.values(), files).keys if self._truth else {}
            self._entries[task] = {keys.get(name, name): path for name, path in files.items()}
            if task == "skeleton" and self._results is not None:
                self._pictures = {key: name for name, key in keys.items()}
                self._entries[task] = dict.fromkeys(self._truth, self._results)
        return self._entries[task]

    def _files(self, task: str) -> dict[str, Path]:
        """The entry of each name, as a key; the first by name where two give one key."""
        if task == "skeleton" and self._results is not None:
            return dict.fromkeys(coco_results.read(self._results), self._results)
        root = self._folder / task
        flat = task == "video" and not any((self._folder / name).is_dir() for name in COLUMN_OF)
        entries: dict[str, Path] = {}
        for path in sorted((self._folder if flat else root).iterdir()) if flat or root.is_dir() else []:
            if path.suffix.lower() in WHOLE_CLIP or (path.is_dir() and not flat):
                stem = path.name if path.is_dir() else path.stem
                entries.setdefault(make_key(_SUFFIX.sub("", stem)), path)
        return entries


def resample(task: str, value: Any, frames: int, height: int, width: int, rates: tuple[float, float] | None) -> Any:
    """The prediction on the truth's frames; the same object where nothing differs.

    Time: at equal (or unknown) frame rates frame t is frame t and what is longer is cut; at different `rates`
    (prediction's, truth's) the true frame t takes the predicted frame that is shown at its middle, ⌊(t + ½)·p / q⌋.
    Space: depth bilinearly (as DepthCrafter and Video Depth Anything do; the nearest pixel where a neighbour is NaN),
    everything else as its modality resizes. Raises InvalidAnnotationError where the prediction is too short, and for
    flow of another rate, whose vectors mean another span of time.
    """
    kind: Modality[Any] = modality(COLUMN_OF[task])
    have = _shape(task, value)
    if rates is not None and abs(rates[0] / rates[1] - 1) > 1e-3:
        if task == "flow":
            raise InvalidAnnotationError(f"flow at {rates[0]:g} fps cannot be compared with truth at {rates[1]:g} fps")
        index = np.floor((np.arange(frames) + 0.5) * rates[0] / rates[1]).astype(np.int64)
        if index[-1] >= have[0]:
            raise InvalidAnnotationError(f"{task}: {have[0]} frames at {rates[0]:g} fps end before the truth does")
        value = _pick(task, value, index)
    elif have[0] > frames:
        value = kind.take(value, slice(0, frames))
    elif have[0] < frames:
        raise InvalidAnnotationError(
            f"{task}: {have[0]} frames predicted, the truth has {frames}; predict all, or say the fps"
        )
    if _shape(task, value)[1:] == (height, width):
        return value
    return _resize_depth(value, height, width) if task == "depth" else kind.resize(value, height, width)


def load_views(run: Run, key: str) -> Views:
    """RGB, flow, and depth and segmentation where the sample has them, resampled to the RGB's frames.

    Raises AbsentModalityError without RGB or flow.
    """
    video, rate = run.load("video", key), run.fps(key)
    frames, height, width, _ = video.frames.shape
    rates = None if rate is None else (rate, video.fps)
    found: dict[str, Any] = {}
    for task in ("flow", "depth", "segmentation"):
        if task in run.values():
            try:
                found[task] = resample(task, run.load(task, key), frames, height, width, rates)
            except AbsentModalityError:
                if task == "flow":
                    raise
    camera = run.camera(key)
    return Views(video.frames, **found, camera=None if camera is None else camera.cut(frames))


def _shape(task: str, value: Any) -> tuple[int, int, int]:
    if task == "video":
        frames, height, width, _ = value.frames.shape
        return frames, height, width
    return modality(COLUMN_OF[task]).shape(value)


def _pick(task: str, value: Any, index: npt.NDArray[np.int64]) -> Any:
    """The frames at these positions."""
    if task == "skeleton":
        return skeleton.at_frames(value, index)
    if task == "segmentation":
        return segmentation.at_frames(value, index)
    if task == "video":
        return replace(value, frames=value.frames[index])
    if task == "densepose":
        return replace(value, values=value.values[index], confidence=None)
    return replace(value, values=value.values[index])


def _resize_depth(depth: Depth, height: int, width: int) -> Depth:
    near = geometry.nearest(depth.values, height, width)
    smooth = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in depth.values])
    return replace(depth, values=np.where(np.isfinite(smooth) & np.isfinite(near), smooth, near))
