"""The units of work of a build, and what one worker process does with each. Messages carry paths, never frames."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from openuni import assets, experts, modalities, sources
from openuni.errors import InvalidAnnotationError, OpenUniError
from openuni.experts import DecodedClip, Expert
from openuni.modalities import Encoded
from openuni.sample import Annotation, Clip, Record, Status, split_of
from openuni.shards import columns, lock, results
from openuni.shards.results import ColumnNote, DamagedResultError, Result
from openuni.sources import Entry, Request, Skipped
from openuni.video import Limits, Normalisation, normalise

MAX_ATTEMPTS = 3
"""Faults of one clip in one stage after which the run goes on without it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of one run share."""

    root: Path
    run: str
    normalisation: Normalisation
    limits: Limits
    fingerprints: Mapping[str, str]
    """By expert name, and `rgb` for the normalised clip itself."""


@dataclass(frozen=True, slots=True)
class Expand:
    """Find the clips of one row of the source."""

    source: str
    entry: Entry
    request: Request


@dataclass(frozen=True, slots=True)
class Normalise:
    """Cut a clip out of its video and encode it."""

    shard: int
    clip: Clip


@dataclass(frozen=True, slots=True)
class Annotate:
    """Let one expert look at one stored clip."""

    shard: int
    key: str
    expert: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Write one column of one shard from the results that carry `fingerprint`."""

    shard: int
    column: str
    fingerprint: str
    keys: tuple[str, ...]


Task = Expand | Normalise | Annotate | Commit


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
    """Does tasks one after another. Experts are set up on first use and kept."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._experts: dict[str, Expert] = {}

    def run(self, task: Task) -> Outcome:
        begin = time.perf_counter()
        match task:
            case Expand():
                clips = sources.get(task.source).expand(task.entry, task.request)
                return Outcome(time.perf_counter() - begin, clips=clips)
            case Normalise():
                frames, present = self._normalise(task)
            case Annotate():
                frames, present = self._annotate(task)
            case Commit():
                frames, present = self._commit(task), True
        return Outcome(time.perf_counter() - begin, frames, present)

    def close(self) -> None:
        for expert in self._experts.values():
            expert.teardown()
        self._experts.clear()

    def save_absent(self, task: Normalise | Annotate, reason: str) -> None:
        """Record that this clip has no such modality, and why."""
        name = "rgb" if isinstance(task, Normalise) else task.expert
        key = task.clip.key if isinstance(task, Normalise) else task.key
        column = "rgb" if isinstance(task, Normalise) else _column(task.expert)
        fingerprint = self.job.fingerprints[name]
        record = _record(task.clip, 0, 0, 0, 0.0) if isinstance(task, Normalise) else None
        note = ColumnNote(Status(False, reason, fingerprint), record=record)
        results.save(self.job.root, task.shard, key, fingerprint, Result(column, note), self.job.run)

    def _normalise(self, task: Normalise) -> tuple[int, bool]:
        clip, fingerprint = task.clip, self.job.fingerprints["rgb"]
        try:
            video = normalise(clip, self.job.normalisation, self.job.limits)
        except OpenUniError as error:
            self.save_absent(task, str(error))
            return 0, False
        meta = {"frames": video.frames, "height": video.height, "width": video.width, "exact": False}
        meta |= asdict(video.origin)
        scores = {**clip.scores, "repeated_frames": round(video.repeated_frames, 6)}
        record = _record(replace(clip, scores=scores), video.frames, video.height, video.width, video.fps)
        note = ColumnNote(Status(True, expert=fingerprint), meta, scores, record)
        result = Result("rgb", note, {"mp4": video.mp4})
        results.save(self.job.root, task.shard, clip.key, fingerprint, result, self.job.run)
        return video.frames, True

    def _annotate(self, task: Annotate) -> tuple[int, bool]:
        root, fingerprint = self.job.root, self.job.fingerprints[task.expert]
        expert = self._expert(task.expert)
        rgb = modalities.get("rgb").decode(self._stored(task.shard, task.key, "rgb").encoded)
        clip = DecodedClip(task.key, rgb.frames, rgb.fps, self._required(task, expert))
        try:
            annotation = expert.annotate(clip)
        except OpenUniError as error:
            # The expert abstains, which is an answer; nonsense in an annotation is a failure and raises below.
            # The reason is counted over clips: it must not begin with this one's name.
            self.save_absent(task, str(error).removeprefix(f"{task.key}: "))
            return len(rgb.frames), False
        encoded = _encode(expert, annotation, len(rgb.frames))
        status = Status(True, expert=fingerprint, confidence=_rounded(annotation.confidence))
        scores = {name: round(float(value), 6) for name, value in annotation.scores.items()}
        result = Result(_column(task.expert), ColumnNote(status, encoded.meta, scores), encoded.members)
        results.save(root, task.shard, task.key, fingerprint, result, self.job.run)
        return len(rgb.frames), True

    def _required(self, task: Annotate, expert: Expert) -> dict[str, Annotation[object]]:
        """What the required experts said of this clip; one that has nothing to say is left out."""
        found: dict[str, Annotation[object]] = {}
        for name in expert.requires:
            stored = self._stored(task.shard, task.key, name)
            if stored.note.status.present:
                value = _decode(experts.get(name), stored.encoded)
                found[name] = Annotation(value, stored.note.status.confidence, stored.note.scores)
        return found

    def _stored(self, shard: int, key: str, name: str) -> Result:
        """The unfinished result if there is one and it is whole, else what is committed."""
        root, fingerprint = self.job.root, self.job.fingerprints[name]
        if results.exists(root, shard, key, fingerprint):
            try:
                return results.load(root, shard, key, fingerprint)
            except DamagedResultError:
                record = columns.committed(root, shard, _column(name))
                if record is None or record.fingerprint != fingerprint:
                    raise
        return columns.read(root, shard, _column(name), key)

    def _commit(self, task: Commit) -> int:
        root, run, shard, fingerprint = self.job.root, self.job.run, task.shard, task.fingerprint
        samples = ((key, results.load(root, shard, key, fingerprint)) for key in task.keys)
        guard = partial(lock.check, root, run)
        return columns.commit(root, shard, task.column, fingerprint, samples, run, guard).samples

    def _expert(self, name: str) -> Expert:
        if name not in self._experts:
            expert = experts.get(name)()
            try:
                assets.stage(expert.assets)
                expert.setup()
            except Exception as error:
                raise SetupError(f"expert {name} cannot be set up: {type(error).__name__}: {error}") from error
            self._experts[name] = expert
        return self._experts[name]


def _column(name: str) -> str:
    """The column that an expert fills; one that only finds things for others has a pseudo-column of its own name."""
    return "rgb" if name == "rgb" else experts.get(name).modality or name


def _encode(expert: Expert, annotation: Annotation[object], frames: int) -> Encoded:
    """Check and encode what an expert returned. Raises InvalidAnnotationError on nonsense."""
    if expert.modality is None:
        return expert.encode_findings(annotation.value)
    modality = modalities.get(expert.modality)
    modality.check(annotation.value)
    if modality.shape(annotation.value)[0] != frames:
        raise InvalidAnnotationError(
            f"{expert.name} annotated {modality.shape(annotation.value)[0]} frames of a clip of {frames}"
        )
    return modality.encode(annotation.value)


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
    )


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(float(confidence), 6)
