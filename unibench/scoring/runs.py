"""Runs: the predictions (or the truth) of many samples, in OpenUni's columns or in a plain folder.

A plain folder is `runs/x/<task>/<key>.<ext>` or `runs/x/<task>/<key>/` with one file a frame in the order of names; a
suffix `_depth`, `_depths`, `_depths_exr`, `_disparity`, `_flow` or `_mask` after the key is ignored. Without task
folders, mp4 files in `runs/x` itself are generated videos, and `{prompt}-{i}.mp4` (VBench's layout) says the prompt.
Each task (`unibench.tasks`) says which files it reads.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

import openuni
from openuni.errors import AbsentModalityError, InvalidAnnotationError, OpenUniError
from openuni.sample import Record, Sample, make_key
from openuni.shards import view
from openuni.shards.layout import MANIFEST
from openuni.storage import DOCUMENT, LocalStore, open_store
from unibench import tasks
from unibench.camera import Camera
from unibench.formats import coco_results, sidecar
from unibench.formats.arrays import LARGEST, load_arrays
from unibench.formats.names import Match, match_names, match_numbers, match_samples
from unibench.formats.plain import WHOLE_CLIP
from unibench.metrics.video import Video
from unibench.tasks import Info, Run

_Rate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
_SUFFIX = re.compile(r"_(depths?(_exr)?|disparity|flow|masks?)$")


def read_info(folder: Path) -> Info:
    """`predictions.json` of a plain folder, or its defaults: `fps`, and the options of tasks under their names.

    {"depth": {"kind": "metric" | "relative" | "affine_disparity", "metres": 0.001}, "fps": 16,
    "skeleton": {"layout": "coco17"}}. Raises OpenUniError where it says something unknown.
    """
    file = folder / "predictions.json"
    try:
        text = LocalStore(folder).read(file.name, at_most=DOCUMENT)
    except FileNotFoundError:
        return Info()
    options = {task.name: task.Options for task in tasks.stored() if task.Options is not None}
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or set(data) - {"fps", *options}:
            raise OpenUniError(f"{file} has unknown entries; it may have {', '.join(sorted({'fps', *options}))}")
        fps = TypeAdapter(_Rate | None).validate_python(data.get("fps"))
        said: dict[str, Any] = {
            name: TypeAdapter(options[name]).validate_python(data[name]) for name in options if name in data
        }
        return Info(fps, said)
    except (ValueError, ValidationError, RecursionError) as error:
        raise OpenUniError(f"{file} cannot be used: {error}") from error


def read_camera(file: Path) -> Camera:
    """`intrinsics` `[T, 3, 3]` and `poses` `[T, 4, 4]` (camera to world) of an npz."""
    arrays = load_arrays(file)
    for name, side in (("intrinsics", 3), ("poses", 4)):
        if name not in arrays or arrays[name].ndim != 3 or arrays[name].shape[1:] != (side, side):
            raise InvalidAnnotationError(f"{file} must have `{name}` [T, {side}, {side}]")
    return Camera(arrays["intrinsics"].astype(np.float64), arrays["poses"].astype(np.float64)).checked()


def open_run(path: Path | str, info: Info | None = None) -> Run:
    """Open a dataset, a view of one, or a plain folder. Raises OpenUniError where `path` is none of them."""
    folder = Path(path)
    if "://" in str(path) or view.is_view(str(path)) or (folder / MANIFEST).is_file():
        return Columns(str(path))
    if not folder.is_dir():
        raise OpenUniError(
            f"{path} is not a folder; give a dataset, a view of one, or a folder laid out as <task>/<key>.<ext>"
        )
    return Folder(folder, info or read_info(folder))


class Columns(Run):
    """A dataset in OpenUni's columns, or a view of one.

    A sample answers to its key and, where it is the only clip of a video file, to that file's name without the suffix:
    so what `openuni build --source folder` makes of `<key>.mp4` stands for `<key>`. Told which truth it predicts, it
    answers to the key of the true clip that has its original name.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = openuni.open(path)
        self._own: dict[str, str] = {}
        self._answered: tuple[str, Match] | None = None

    def answer_to(self, truth: Columns) -> Match:
        """From now on give samples also by the key that `truth` has for the clip of their original name; how the names
        matched."""
        if self._answered is None or self._answered[0] != truth.path:
            match = match_samples((s.record for s in truth.data), (s.record for s in self.data))
            self._own = {key: own for own, key in match.keys.items()}
            self._answered = truth.path, match
        return self._answered[1]

    def values(self) -> list[str]:
        return [task.name for task in tasks.stored() if task.column in self.data.columns]

    def keys(self, task: str) -> list[str]:
        column = tasks.get_stored(task).column
        return [key for key in self._keys if column in self.data[key]] if column in self.data.columns else []

    def has(self, task: str, key: str) -> bool:
        try:
            return tasks.get_stored(task).column in self.sample(key)
        except AbsentModalityError:
            return False

    def subset(self, key: str) -> str:
        """The subset (`single_person`, `two_person`, `general`) that a sample belongs to."""
        return self.sample(key).record.subset

    def sample(self, key: str) -> Sample:
        """The sample that answers to `key`. Raises AbsentModalityError where none does, or several do."""
        key = self._own.get(key, key)
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

    def load(self, task: str, key: str, most: int = LARGEST) -> Any:
        del most  # members are bounded by the index, and decoded to the sizes that it records
        return tasks.get_stored(task).of_sample(self.sample(key))

    def digest(self, task: str, key: str) -> str:
        if task in ("camera", "second_take"):
            with self._camera_file(key) as file:
                return "" if file is None or task != "camera" else file_digest([file])
        try:
            column, sample = tasks.get_stored(task).column, self.sample(key)
        except AbsentModalityError:
            return ""
        if column not in sample:
            return ""
        members = self.data.result(sample.key, column).members
        digest = hashlib.sha256()
        for name, data in sorted(members.items()):
            digest.update(f"{name} {len(data)}\n".encode() + data)
        return digest.hexdigest()

    def fps(self, key: str) -> float | None:
        return self.sample(key).record.fps

    def camera(self, key: str) -> Camera | None:
        with self._camera_file(key) as file:
            return None if file is None else sidecar.read_camera(file).checked()

    @contextmanager
    def _camera_file(self, key: str) -> Iterator[Path | None]:
        """The side-car of rendered and imported truth, or a copy of it; None where there is none."""
        name = f"{sidecar.FOLDER}/{self._own.get(key, key)}/camera.npz"
        if "://" not in self.data.url:
            file = Path(self.data.url) / name
            yield file if file.is_file() else None
            return
        try:
            data = open_store(self.data.url).read(name, at_most=DOCUMENT)
        except FileNotFoundError:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="openuni-camera-") as folder:
            copy = Path(folder) / "camera.npz"
            copy.write_bytes(data)
            yield copy


class Folder(Run):
    """Ordinary files; see the module's table."""

    def __init__(self, folder: Path, info: Info | None = None) -> None:
        self.path = str(folder)
        self.info = info or Info()
        self._folder = folder
        self._entries: dict[str, dict[str, Path]] = {}
        self._truth: dict[str, Record] = {}
        self._true_columns: dict[str, set[str]] = {}
        self._answered: tuple[str, Match] | None = None
        self._categories: dict[int, str] = {}
        self._pictures: dict[str, dict[str, str]] = {}
        self._results = coco_results.find(folder)

    def answer_to(self, truth: Columns) -> Match:
        """From now on give also what is named as the source named its clips by the key that `truth` has for it; how the
        names matched."""
        if self._answered is not None and self._answered[0] == truth.path:
            return self._answered[1]
        self._truth = {sample.key: sample.record for sample in truth.data}
        self._true_columns = {s.key: {c for c in truth.data.columns if c in s} for s in truth.data}
        self._categories = categories_of(truth)
        self._entries = {}
        tables = [task for task in self._results if task in truth.values()]
        match = Match({}, (), ())
        for task in (*(task for task in tasks.estimated() if task not in self._results), *tables):
            match = match.joined(self._match(task))
        if "segmentation" in tables and (
            unknown := coco_results.unknown_categories(self._results["segmentation"], self._categories)
        ):
            said = f"{unknown} detections left out, of a category_id that the truth does not have"
            match = replace(match, remarks=(*match.remarks, said))
        self._answered = truth.path, match
        return match

    def values(self) -> list[str]:
        return [task.name for task in tasks.stored() if self._of(task.name)]

    def keys(self, task: str) -> list[str]:
        return sorted(self._of(task))

    def has(self, task: str, key: str) -> bool:
        return key in self._of(task)

    def load(self, task: str, key: str, most: int = LARGEST) -> Any:
        kind, entry = tasks.get_stored(task), self.entry(task, key)
        if entry == self._results.get(task):
            value: Any = self._detected(task, entry, key)
        else:
            value = kind.read(entry, self.info, most)
        kind.check(value)
        return value

    def _detected(self, task: str, table: Path, key: str) -> Any:
        """What a `results.json` has of a true clip."""
        record, name = self._truth[key], self._pictures[task].get(key, "")
        if task == "skeleton":
            return coco_results.skeleton(table, name, record.height, record.width)
        size = record.frames, record.height, record.width
        return coco_results.segmentation(table, name, *size, self._categories)

    def digest(self, task: str, key: str) -> str:
        beside = task in ("camera", "second_take")
        entry = self._beside(task, key) if beside else self._of(task).get(key)
        if entry is None:
            return ""
        if entry == self._results.get(task):
            return coco_results.digest(entry, self._pictures[task].get(key, ""))
        files = [entry] if entry.is_file() else [p for p in entry.rglob("*") if p.is_file()]
        return file_digest(sorted(files))

    def fps(self, key: str) -> float | None:
        return self.info.fps

    def camera(self, key: str) -> Camera | None:
        file = self._beside("camera", key)
        return None if file is None else read_camera(file)

    def second_take(self, key: str) -> Video | None:
        file = self._beside("second_take", key)
        return None if file is None else tasks.get_stored("video").read(file, self.info)

    def _beside(self, what: str, key: str) -> Path | None:
        file = self._folder / what / f"{key}.{'npz' if what == 'camera' else 'mp4'}"
        return file if file.is_file() else None

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
            keys = self._match(task).keys if self._truth else {}
            self._entries[task] = {keys.get(name, name): path for name, path in files.items()}
            if task in self._results:
                self._pictures[task] = {key: name for name, key in keys.items()}
                self._entries[task] = dict.fromkeys(self._truth, self._results[task])
        return self._entries[task]

    def _match(self, task: str) -> Match:
        """Whose the entries of a task are: first of clips whose truth has it, in which those of one name may differ."""
        files = self._files(task)
        if task in self._results:
            return match_numbers(self._truth.values(), files)
        column = tasks.get_stored(task).column
        match = match_names((record for key, record in self._truth.items() if column in self._true_columns[key]), files)
        others = match_names(self._truth.values(), match.unknown)
        return Match(match.keys | others.keys, match.ambiguous + others.ambiguous, others.unknown)

    def _files(self, task: str) -> dict[str, Path]:
        """The entry of each name, as a key; the first by name where two give one key."""
        if task in self._results:
            return dict.fromkeys(coco_results.read(self._results[task]), self._results[task])
        root = self._folder / task
        flat = task == "video" and not any((self._folder / kind.name).is_dir() for kind in tasks.stored())
        entries: dict[str, Path] = {}
        for path in sorted((self._folder if flat else root).iterdir()) if flat or root.is_dir() else []:
            if path.suffix.lower() in WHOLE_CLIP or (path.is_dir() and not flat):
                stem = path.name if path.is_dir() else path.stem
                entries.setdefault(make_key(_SUFFIX.sub("", stem)), path)
        return entries


def categories_of(truth: Columns) -> dict[int, str]:
    """The names of the categories of imported truth by their numbers in its source. Raises OpenUniError where it has
    something else in their place."""
    try:
        said = truth.data.manifest.configuration.get("categories") or {}
        return TypeAdapter(dict[int, str]).validate_python(said)
    except ValidationError as error:
        raise OpenUniError(
            f"{truth.path}: its categories are not a table of numbers and names; import it again"
        ) from error


def with_options(info: Info, task: str, **changes: Any) -> Info:
    """The same, with some options of one task changed."""
    options = replace(tasks.get_stored(task).options(info), **changes)
    return replace(info, tasks={**info.tasks, task: options})


def file_digest(files: Iterable[Path]) -> str:
    """Hex digits over names and bytes of files; of one that is too large to be read, over its size."""
    digest = hashlib.sha256()
    for file in files:
        if (size := file.stat().st_size) > LARGEST:
            digest.update(f"{file.name} {size}\n".encode())
            continue
        with file.open("rb") as opened:
            digest.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
