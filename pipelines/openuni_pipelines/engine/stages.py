"""The units of work of a build, and what one worker process does with each. Messages carry paths, never frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from openuni import assets, experts, modalities
from openuni.errors import InvalidAnnotationError, OpenUniError
from openuni.experts import DecodedClip, Expert, Measured
from openuni.modalities import Encoded
from openuni.sample import Annotation, Clip, Record, Status, split_of
from openuni.shards import bucket, columns, layout, lock, parts, results
from openuni.shards.parts import Part
from openuni.shards.results import ColumnNote, DamagedResultError, Result
from openuni.sources import Entry, Request, Skipped, Source
from openuni.storage.objects import ObjectStore
from openuni.video import Limits, Normalisation, normalise
from openuni_pipelines.engine.recipe import RGB, Kind, Recipe, Stage

MAX_ATTEMPTS = 3
"""Faults of one clip in one stage after which the run goes on without it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of one run share."""

    root: Path
    run: str
    recipe: Recipe
    normalisation: Normalisation
    limits: Limits
    part: Part | None = None
    """The part of the plan that the run carries out; None: all of it."""
    url: str = ""
    """The place in an object store that the dataset is built for; `root` only stages it then."""
    compact: bool = True
    """Whether what experts predict is stored compactly, at the errors that modalities state."""
    records: str = layout.COMMITS
    """The folder there for the run's commit records; of a change that is not published yet, its own."""

    @property
    def home(self) -> Path:
        """Where the run's lock, log, progress and failures lie."""
        return parts.home(self.root, self.part)

    def shards(self, total: int) -> range:
        """The run's shards out of all."""
        return range(total) if self.part is None else self.part.shards(total)


@dataclass(frozen=True, slots=True)
class Expand:
    """Find the clips of one row of the source."""

    source: Source
    entry: Entry
    request: Request


@dataclass(frozen=True, slots=True)
class Run:
    """One stage at work on clip `key` of a shard; a commit works on the whole shard, and its `key` is empty."""

    shard: int
    key: str
    stage: Stage
    clip: Clip | None = None
    """What normalisation cuts out of its video; the other stages read what is stored."""
    keys: tuple[str, ...] = ()
    """The clips that a commit packs."""


Task = Expand | Run


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to: seconds of work, frames looked at, and for `Expand` the clips."""

    seconds: float
    frames: int = 0
    present: bool = True
    clips: list[Clip | Skipped] = field(default_factory=list)


class SetupError(OpenUniError):
    """An expert that cannot be set up on this machine; no clip is to blame."""


class Worker:
    """Does tasks, in as many threads as call `run`. Experts are set up on first use and kept.

    Each thread decodes its clip before, and encodes what was said of it after, its turn at the expert. So the card of a
    GPU expert works on one clip while others are decoded ahead of it and encoded behind it (FFmpeg lets go of Python's
    lock), and no more clips are in memory than there are threads.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._experts: dict[str, Expert] = {}
        self._setting_up = threading.Lock()
        self._turns: dict[str, AbstractContextManager[object]] = {}
        """By expert, what a thread holds while it is at it: a lock, unless the expert takes turns itself."""

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore(self.job.url)

    def run(self, task: Task) -> Outcome:
        begin = time.perf_counter()
        if isinstance(task, Expand):
            clips = task.source.expand(task.entry, task.request)
            return Outcome(time.perf_counter() - begin, clips=clips)
        match task.stage.kind:
            case Kind.NORMALISE:
                frames, present = self._normalise(task)
            case Kind.ANNOTATE:
                frames, present = self._annotate(task)
            case Kind.COMMIT:
                frames, present = self._commit(task), True
            case Kind.STORED:
                raise TypeError(f"{task.stage.name} is committed: nothing makes it")
        return Outcome(time.perf_counter() - begin, frames, present)

    def close(self) -> None:
        for expert in self._experts.values():
            expert.teardown()
        self._experts.clear()

    def save_absent(self, task: Run, reason: str) -> None:
        """Record that this clip has not what the stage makes, and why."""
        record = _record(task.clip, 0, 0, 0, 0.0) if task.clip else None
        self._save(task, ColumnNote(Status(False, reason, task.stage.fingerprint), record=record), {})

    def _normalise(self, task: Run) -> tuple[int, bool]:
        clip = task.clip
        if clip is None:
            raise TypeError(f"{task.key} comes without the clip that it is cut from")
        try:
            video = normalise(clip, self.job.normalisation, self.job.limits)
        except OpenUniError as error:
            self.save_absent(task, str(error))
            return 0, False
        meta = {"frames": video.frames, "height": video.height, "width": video.width, "exact": False}
        meta |= asdict(video.origin)
        scores = {**clip.scores, "repeated_frames": round(video.repeated_frames, 6)}
        record = _record(replace(clip, scores=scores), video.frames, video.height, video.width, video.fps)
        note = ColumnNote(Status(True, expert=task.stage.fingerprint), meta, scores, record)
        self._save(task, note, {"mp4": video.mp4})
        return video.frames, True

    def _annotate(self, task: Run) -> tuple[int, bool]:
        expert = self._expert(task.stage.name)
        rgb = modalities.get(RGB).decode(self._stored(task, RGB).encoded)
        clip = DecodedClip(task.key, rgb.frames, rgb.fps, self._required(task, expert))
        try:
            with self._turns[expert.name]:
                annotation = expert.annotate(clip)
        except OpenUniError as error:
            # The expert abstains, which is an answer; nonsense in an annotation is a failure and raises below.
            # The reason is counted over clips: it must not begin with this one's name.
            self.save_absent(task, str(error).removeprefix(f"{task.key}: "))
            return len(rgb.frames), False
        scores = {name: round(float(value), 6) for name, value in annotation.scores.items()}
        confidence, floor = _rounded(annotation.confidence), expert.floor()
        if floor and not self.job.recipe.keep_doubtful and (reason := floor.reason(annotation)):
            doubtful = Status(False, reason, task.stage.fingerprint, confidence)
            self._save(task, ColumnNote(doubtful, scores=scores), {})
            return len(rgb.frames), False
        encoded = _encode(expert, annotation, rgb.frames.shape[:3], compact=self.job.compact)
        status = Status(True, expert=task.stage.fingerprint, confidence=confidence)
        note = ColumnNote(status, encoded.meta, scores, provenance={**annotation.provenance, **expert.told()})
        self._save(task, note, encoded.members)
        return len(rgb.frames), True

    def _commit(self, task: Run) -> int:
        root, run, shard, stage = self.job.root, self.job.run, task.shard, task.stage
        samples = ((key, results.load(root, shard, key, stage.fingerprint)) for key in task.keys)
        guard = partial(lock.check, self.job.home, run)
        record = columns.commit(root, shard, stage.column, stage.fingerprint, samples, run, guard)
        if self.job.url:
            record = bucket.push(self._store, root, shard, stage.column, self.job.records)
        return record.samples

    def _save(self, task: Run, note: ColumnNote, members: Mapping[str, bytes]) -> None:
        result = Result(task.stage.column, note, members)
        results.save(self.job.root, task.shard, task.key, task.stage.fingerprint, result, self.job.run)

    def _required(self, task: Run, expert: Expert) -> dict[str, Annotation[object]]:
        """What the required experts said of this clip; one that has nothing to say is left out."""
        found: dict[str, Annotation[object]] = {}
        for name in expert.requires:
            stored = self._stored(task, name)
            if stored.note.status.present:
                value = _decode(experts.get(name), stored.encoded)
                found[name] = Annotation(value, stored.note.status.confidence, stored.note.scores)
        for modality in expert.reads:
            if not self.job.recipe.makes(modality):
                continue
            stored = self._stored(task, self.job.recipe.maker(modality).name)
            if stored.note.status.present:
                value = modalities.get(modality).decode(stored.encoded)
                found[modality] = Annotation(value, stored.note.status.confidence, stored.note.scores)
        return found

    def _stored(self, task: Run, name: str) -> Result:
        """What stage `name` made of the task's clip: the unfinished result if it is whole, else what is committed."""
        root, stage = self.job.root, self.job.recipe[name]
        if results.exists(root, task.shard, task.key, stage.fingerprint):
            try:
                return results.load(root, task.shard, task.key, stage.fingerprint)
            except DamagedResultError:
                record = columns.committed(root, task.shard, stage.column)
                if record is None or record.fingerprint != stage.fingerprint:
                    raise
        return columns.read(root, task.shard, stage.column, task.key)

    def _expert(self, name: str) -> Expert:
        with self._setting_up:
            if name not in self._experts:
                expert = experts.get(name)()
                try:
                    assets.stage(expert.assets)
                    expert.setup()
                except Exception as error:
                    said = str(error) if isinstance(error, OpenUniError) else f"{type(error).__name__}: {error}"
                    raise SetupError(f"expert {name} cannot be set up: {said}") from error
                self._turns[name] = nullcontext() if expert.concurrent else threading.Lock()
                self._experts[name] = expert
            return self._experts[name]


def _encode(expert: Expert, annotation: Annotation[object], clip: tuple[int, ...], *, compact: bool) -> Encoded:
    """Check and encode what an expert returned of a clip of so many frames, rows and columns.

    Raises InvalidAnnotationError on nonsense.
    """
    if expert.modality is None:
        return expert.encode_findings(annotation.value)
    if isinstance(annotation.value, Measured):
        return results.encode_hashes(annotation.value.hashes)
    modality = modalities.get(expert.modality)
    modality.check(annotation.value)
    if (shape := modality.shape(annotation.value)) != clip:
        raise InvalidAnnotationError(
            f"{expert.name} annotated {_size(shape)} of a clip of {_size(clip)} (frames × height × width)"
        )
    return modality.encode_compact(annotation.value) if compact else modality.encode(annotation.value)


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _decode(expert: type[Expert], encoded: Encoded) -> object:
    if expert.modality is None:
        return expert.decode_findings(encoded)
    return modalities.get(expert.modality).decode(encoded)


def _record(clip: Clip, frames: int, height: int, width: int, fps: float) -> Record:
    return Record(
        key=clip.key,
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        caption=clip.caption,
        subset=clip.subset,
        split=split_of(clip.video_id or clip.key),
        source=clip.source,
        source_id=clip.source_id,
        video_id=clip.video_id or clip.key,
        license=clip.license,
        start=clip.start,
        end=clip.end,
        scores=dict(clip.scores),
        source_fields=clip.source_fields,
    )


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(float(confidence), 6)
