"""From a source's rows to a frozen plan, and what a plan will cost."""

from __future__ import annotations

import importlib.util
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openuni import assets
from openuni.choosing import Step
from openuni.errors import AssetError, OpenUniError, PlanError
from openuni.experts import Expert, known_answers
from openuni.sample import Clip
from openuni.shards import plan
from openuni.shards.plan import Tally
from openuni.sources import Request, Skipped, Source
from openuni.sources.rows import RowSource
from openuni.video import Normalisation
from openuni_pipelines.engine import environment, stopping
from openuni_pipelines.engine.executors import Executor, Fault
from openuni_pipelines.engine.recipe import Recipe
from openuni_pipelines.engine.stages import MAX_ATTEMPTS, Expand

# KiB a frame at 832×480 as our codecs store real clips (`benchmarks/modality_codecs.py`; of depth, which takes 110 in
# 16 bits, what ten leave of it: `benchmarks/depth_codecs.py`). A modality that is not listed counts as 110.
_KIB_PER_FRAME = {
    "rgb": 8.0,
    "depth": 34.0,
    "flow": 45.0,
    "segmentation": 2.7,
    "densepose": 12.0,
    "skeleton": 0.5,
    "scores": 0.02,
    "scores_text": 0.02,
    "scores_features": 0.02,
}
_BRING_OPENCV = {"mediapipe", "ultralytics"}
"""Packages that want an OpenCV of their own beside ours."""
_MEASURED_PIXELS = 832 * 480
_COST_PIXELS = 640 * 360
_USUAL_FPS = 30.0
"""Where clips keep their own rate, which is known once they are opened."""


# Seconds of a core for a frame of 832×480 pixels: decoding it, and FFV1 encoding what was said of it (docs/scale.md);
# of the other modalities the encoding was not measured, and counts as nothing.
_DECODE = 0.009
_ENCODE = {"depth": 0.042, "flow": 0.049}


@dataclass(frozen=True, slots=True)
class CardUse:
    """What an expert makes of a card: how fast it is there, and the cores that decode ahead of it and encode behind."""

    expert: str
    frames_per_second: float
    measured: bool
    """On this machine (`openuni doctor --experts`), or published."""
    hours: float
    cores: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build will make and need: clips, frames, hours of video, bytes by column, CPU hours by expert."""

    clips: int
    skipped: dict[str, int]
    """Rows of the source that became no clip, by reason."""
    frames: int
    video_hours: float
    column_bytes: dict[str, int]
    makers: dict[str, str]
    """The stage that makes a column."""
    cpu_hours: dict[str, float]
    cards: tuple[CardUse, ...]
    """Of the experts whose speed on a card is known."""
    missing_assets: tuple[str, ...]
    funnel: tuple[Step, ...] = ()
    """The rows that were left after each step of choosing them."""


def write(
    path: Path,
    source: Source,
    request: Request,
    executor: Executor,
    shard_size: int,
    run: str,
    limit: int | None = None,
) -> Tally:
    """Plan the clips of `source` into `path`: in SQL where its rows are a table, otherwise row by row."""
    if isinstance(source, RowSource):
        return plan.write_rows(path, source, request, shard_size, run, limit)
    return plan.write(path, clips(executor, source, request, limit), shard_size, run)


def clips(executor: Executor, source: Source, request: Request, limit: int | None) -> Iterator[Clip | Skipped]:
    """The source's clips in the order of its rows; rows whose videos must be opened are expanded by `executor`."""
    found = 0
    for clip in _expanded(executor, source, request):
        stopping.check()
        if limit is not None and found >= limit and isinstance(clip, Clip):
            break
        found += isinstance(clip, Clip)
        if isinstance(clip, Clip) and not clip.license:
            raise PlanError(f"source {source.name} gave clip {clip.key} without a license; say 'unknown' at least")
        yield clip
    # Past the limit there may be rows under way whose clips nobody waits for.
    while executor.running:
        stopping.check()
        executor.wait()


def _expanded(executor: Executor, source: Source, request: Request) -> Iterator[Clip | Skipped]:
    entries = source.entries(request)
    if not source.opens_videos:
        for entry in entries:
            if isinstance(entry, Skipped):
                yield entry
            else:
                yield from source.expand(entry, request)
        return
    # Results are handed out in the order of the rows, whichever worker is faster: the same source, the same plan.
    ready: dict[str, list[Clip | Skipped]] = {}
    order: deque[str | Skipped] = deque()
    waiting: set[str] = set()
    attempts: dict[str, int] = {}
    more = True
    while more or order:
        stopping.check()
        while more and executor.running < 2 * executor.slots and len(order) < 64 * executor.slots:
            match next(entries, None):
                case None:
                    more = False
                case Skipped() as skipped:
                    order.append(skipped)
                case entry if entry.id in waiting:
                    order.append(Skipped(entry.id, "two rows of one id"))
                case entry:
                    order.append(entry.id)
                    waiting.add(entry.id)
                    executor.submit(Expand(source, entry, request))
        for finished in executor.wait():
            task, result = finished.task, finished.result
            if not isinstance(task, Expand):
                raise TypeError(f"{task} is not part of planning")
            row = task.entry.id
            if not isinstance(result, Fault):
                ready[row] = result.clips
            elif result.kind == "machine":
                raise OpenUniError(result.error)
            else:
                attempts[row] = attempts.get(row, 0) + (result.kind != "lost")
                if attempts[row] < MAX_ATTEMPTS:
                    executor.submit(task)
                else:
                    ready[row] = [Skipped(row, f"planning {result.kind}: {result.error}")]
        while order:
            head = order[0]
            if isinstance(head, Skipped):
                yield head
            elif head in ready:
                waiting.remove(head)
                yield from ready.pop(head)
            else:
                break
            order.popleft()


def estimate(tally: Tally, normalisation: Normalisation, made: Recipe) -> Estimate:
    """Frames from the clips' spans (an open end counts as the longest clip), bytes and hours from measured rates."""
    fps = normalisation.fps or _USUAL_FPS
    longest = normalisation.max_frames / fps
    seconds = min(tally.seconds, tally.clips * longest) + tally.open_ended * longest
    frames = round(seconds * fps)
    pixels = normalisation.short_side**2 * 16 / 9
    return Estimate(
        clips=tally.clips,
        skipped=tally.skipped,
        frames=frames,
        video_hours=seconds / 3600,
        column_bytes=column_bytes(frames, normalisation, made),
        makers={column: made.maker(column).name for column in made.columns},
        cpu_hours={
            expert.name: frames * expert.seconds_per_frame * pixels / _COST_PIXELS / 3600 for expert in made.experts
        },
        cards=tuple(use for expert in made.experts if (use := card_use(expert, frames, pixels))),
        missing_assets=missing_assets(made.experts),
        funnel=tally.funnel,
    )


def card_use(expert: type[Expert], frames: int, pixels: float) -> CardUse | None:
    """What `frames` of so many pixels take of a card; None of an expert that uses none, or of unknown speed.

    Networks see pictures of a fixed size, so their speed does not follow the pixels; decoding and encoding do.

    Example:
        >>> from openuni.experts import get
        >>> card_use(get("video_depth_anything_small"), 133 * 3600, 832 * 480)
        CardUse(expert='video_depth_anything_small', frames_per_second=133.0, measured=False, hours=1.0, cores=7)
    """
    found = known_answers.speed(expert) if expert.resources.gpus else None
    measured = found is not None and found.on_card
    speed = found.frames_per_second if found is not None and measured else expert.frames_per_second
    if not expert.resources.gpus or not speed:
        return None
    seconds = (_DECODE + _ENCODE.get(expert.modality or "", 0.0)) * pixels / _MEASURED_PIXELS
    return CardUse(expert.name, speed, measured, frames / speed / 3600, max(1, math.ceil(seconds * speed)))


def column_bytes(frames: int, normalisation: Normalisation, made: Recipe) -> dict[str, int]:
    """What so many frames are expected to take in each column."""
    share = normalisation.short_side**2 * 16 / 9 / _MEASURED_PIXELS
    return {column: round(frames * 1024 * _KIB_PER_FRAME.get(column, 110.0) * share) for column in made.columns}


def missing_assets(experts: tuple[type[Expert], ...]) -> tuple[str, ...]:
    """Names of model files that the experts need and this machine does not have."""
    return tuple(sorted({asset.name for expert in experts for asset in expert.assets if not assets.is_cached(asset)}))


def check_ready(experts: tuple[type[Expert], ...]) -> None:
    """Raise PlanError or AssetError naming what to install or fetch where experts lack packages or model files, a model
    file is not the pinned one, or two packages that share OpenCV's folder have left a mixture in it."""
    for expert in experts:
        missing = [name for name in expert.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise PlanError(
                f"expert {expert.name} needs {', '.join(missing)}; run: pip install '{expert.installed_by}', "
                "or name other --experts"
            )
    mixing = [expert.name for expert in experts if _BRING_OPENCV & set(expert.packages)]
    if mixing and (conflict := environment.opencv_conflict(environment.opencv_versions())):
        raise PlanError(f"expert {mixing[0]} needs one OpenCV: {conflict}")
    needed = {asset.name: asset for expert in experts for asset in expert.assets}
    if names := sorted(name for name, asset in needed.items() if not assets.place(asset).is_file()):
        raise AssetError(f"model files are missing: {', '.join(names)}. Run: openuni assets fetch {' '.join(names)}")
    for asset in needed.values():
        assets.path(asset)
