"""From a dataset to training batches: which clips fit, in which order, cropped how, cached where.

The order is a pure function of the dataset's index, the stage and the seed, and every rank computes all of it: a
step takes the next clips of one bucket (one size, one length) for *all* ranks together, and a rank loads its share.
So ranks never disagree about shapes, each clip of an epoch is taken exactly once however many ranks or workers
there are, and the state to resume from is one cursor and the few positions that wait in unfinished buckets.
"""

from __future__ import annotations

import hashlib
import io
import math
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

import openuni
from openuni import modalities
from openuni.errors import BadVideoError, CorruptDataError, InvalidAnnotationError, OpenUniError
from openuni.modalities import Box
from openuni.sample import Record, Sample
from openuni.shards.reader import Dataset
from openuni.storage import LocalStore
from openuni_model import colours
from openuni_model.batch import Item
from openuni_model.codecs import Codec
from openuni_model.config import ModelConfig
from openuni_model.prompts import Prompt, Target, choose, has_targets
from openuni_model.tasks import Draw, Stage, draw, rng_of

_ASPECTS = (1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16)
"""Width over height of the buckets; a clip goes to the nearest and is cropped at the centre."""
_UNITS: Mapping[str, tuple[int, int]] = {"pixel": (1, 1), "wan2.1": (4, 8), "wan2.2": (4, 16)}
"""How much a codec shrinks time and space."""

_MOST_DAMAGED = 10
"""Damaged clips in a row of one step after which the dataset, not a clip, is at fault."""
_DAMAGE = (CorruptDataError, BadVideoError, InvalidAnnotationError)


_NPY_HEADER = 4096
"""Bytes that the header of an array file may have; ours have 128."""


class DataError(OpenUniError):
    """A dataset that cannot be trained on as asked."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The size that clips are brought to: frames, rows and columns of pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Buckets:
    """How clips are brought to buckets that a model's codec and patches divide."""

    config: ModelConfig

    def bucket(self, record: Record) -> Bucket | None:
        """The bucket of a clip, or None where it has too few frames. Short clips take half or a quarter as many."""
        frames = next((n for n in self.lengths if n <= record.frames), None)
        if frames is None:
            return None
        aspect = min(_ASPECTS, key=lambda a: abs(math.log(a * record.height / record.width)))
        return Bucket(frames, *self.sides(aspect))

    @property
    def lengths(self) -> list[int]:
        """The buckets' lengths, longest first."""
        most = self.config.frames
        return [n for n in dict.fromkeys(self.length(n) for n in (most, most // 2, most // 4)) if n > 0]

    def length(self, frames: int) -> int:
        """The most frames, up to `frames`, that codec and patch take: multiples of the patch, or 4k + 1 for Wan."""
        time, patch = _UNITS[self.config.codec][0], self.config.patch[0]
        return frames // patch * patch if time == 1 else (frames - 1) // time * time + 1

    def latents(self, bucket: Bucket) -> tuple[int, int, int]:
        """Frames, rows and columns of a bucket's latents."""
        time, space = _UNITS[self.config.codec]
        frames = bucket.frames if time == 1 else (bucket.frames - 1) // time + 1
        return frames, bucket.height // space, bucket.width // space

    def tokens(self, bucket: Bucket) -> int:
        """Tokens of one stream of a clip."""
        return math.prod(self.config.grid(*self.latents(bucket)))

    @cached_property
    def most_tokens(self) -> int:
        """Tokens of one stream of the largest bucket."""
        return max(self.tokens(Bucket(self.lengths[0], *self.sides(aspect))) for aspect in _ASPECTS)

    def sides(self, aspect: float) -> tuple[int, int]:
        """Height and width of this aspect (width over height) with the configured area. Raises DataError."""
        if not 1 / 16 <= aspect <= 16:
            raise DataError(f"--aspect {aspect:g}: it must be from 1/16 to 16, width over height")
        unit = _UNITS[self.config.codec][1] * math.lcm(*self.config.patch[1:])
        height = max(1, round(self.config.size / math.sqrt(aspect) / unit)) * unit
        width = max(1, round(self.config.size * math.sqrt(aspect) / unit)) * unit
        return height, width


def why_not(record: Record, stage: Stage, fit: Buckets, split: str = "train") -> str | None:
    """Why a clip is not trained on, or with another `split` not looked at, or None."""
    if record.split != split:
        return f"split {record.split}"
    if stage.subsets and record.subset not in stage.subsets:
        return f"subset {record.subset}"
    if fit.bucket(record) is None:
        return f"fewer than {min(fit.lengths)} frames"
    return None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a stage finds in a dataset: clips by bucket, clips with each view, clips left out by reason."""

    buckets: Mapping[Bucket, int]
    views: Mapping[str, int]
    dropped: Mapping[str, int]

    @property
    def clips(self) -> int:
        return sum(self.buckets.values())


def survey(data: Dataset, stage: Stage, fit: Buckets) -> Survey:
    """Count, from the index alone. Raises DataError where nothing is left, or a view of the stage is nowhere."""
    buckets: Counter[Bucket] = Counter()
    views: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for sample in data:
        reason, bucket = why_not(sample.record, stage, fit), fit.bucket(sample.record)
        if reason is not None or bucket is None:
            dropped[reason or ""] += 1
            continue
        buckets[bucket] += 1
        views.update(view for view in stage.modalities if view in sample)
    if not buckets:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise DataError(f"{data.url}: no clip fits stage {stage.name} ({reasons}); change the stage or the data")
    if absent := [view for view in stage.modalities if not views[view]]:
        raise DataError(
            f"{data.url}: no clip of stage {stage.name} has {', '.join(absent)}; annotate them "
            "(openuni add) or leave them out (--modalities)"
        )
    return Survey(buckets, views, dropped)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where training stands in the order: the next position, and positions drawn that wait for their bucket to fill."""

    position: int = 0
    waiting: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One clip of a step: where it is in the order, and which bucket it is brought to."""

    position: int
    key: str
    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Plan:
    """One training step: its clips on all ranks, and the cursor from which the next step follows."""

    entries: tuple[Entry, ...]
    after: Cursor


def plan_steps(
    data: Dataset, stage: Stage, fit: Buckets, *, clips_of: Callable[[Bucket], int], seed: int, cursor: Cursor
) -> Iterator[Plan]:
    """Steps without end, each of `clips_of` its bucket, from `cursor` on, which a run of other steps may have left."""
    waiting: dict[Bucket, list[Entry]] = {}

    def take(position: int, sample: Sample) -> Entry:
        bucket = fit.bucket(sample.record)
        assert bucket is not None  # `why_not` was asked before
        entry = Entry(position, sample.key, bucket)
        waiting.setdefault(bucket, []).append(entry)
        return entry

    def step(bucket: Bucket, after: int) -> Plan:
        clips = clips_of(bucket)
        entries, waiting[bucket] = waiting[bucket][:clips], waiting[bucket][clips:]
        left = sorted(entry.position for entries in waiting.values() for entry in entries)
        return Plan(tuple(entries), Cursor(after, tuple(left)))

    for position in cursor.waiting:
        take(position, next(data.samples(seed, cursor=position))[1])
    # Where steps were larger before, more may wait than one of now takes: the oldest first, as after any resume.
    while full := [bucket for bucket, entries in waiting.items() if len(entries) >= clips_of(bucket)]:
        yield step(min(full, key=lambda bucket: waiting[bucket][0].position), cursor.position)
    for after, sample in data.samples(seed, cursor=cursor.position):
        if why_not(sample.record, stage, fit) is not None:
            continue
        bucket = take(after - 1, sample).bucket
        if len(waiting[bucket]) == clips_of(bucket):
            yield step(bucket, after)


@dataclass(frozen=True, slots=True)
class Example:
    """A clip ready to be noised: its latents, what it trains, and the rest of its random numbers.

    `damaged` names the clips whose place it took, with the reasons.
    """

    item: Item
    draw: Draw
    rng: np.random.Generator
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """Loads entries: reads only the views that are drawn, brings them to their bucket, encodes or fetches the cache.

    Clips longer than their bucket are cut into whole windows, of which one is drawn; geometry is not random
    otherwise, so a cached latent is the one that would have been computed, and the loss is the same.
    """

    url: str
    stage: Stage
    fit: Buckets
    seed: int
    codec: Codec
    cache: Path | None = None
    data_cache: Path | None = None
    data_cache_size: int = 100 * 10**9

    @cached_property
    def data(self) -> Dataset:
        return openuni.open(self.url, cache_dir=self.data_cache, cache_size=self.data_cache_size)

    def load(self, entry: Entry) -> Example:
        """The clip of an entry, or where it is damaged the next one in the order that has its bucket.

        So every rank has as many clips as planned, and a resumed run takes the same ones. Raises DataError after
        `_MOST_DAMAGED` damaged clips in a row.
        """
        damaged: list[str] = []
        for each in islice(self._from(entry), _MOST_DAMAGED):
            try:
                return replace(self._load(each), damaged=tuple(damaged))
            except _DAMAGE as error:
                damaged.append(f"{each.key}: {error}")
        raise DataError(f"{self.url}: {len(damaged)} damaged clips in a row, the last {damaged[-1]}; openuni verify")

    def _from(self, entry: Entry) -> Iterator[Entry]:
        yield entry
        for after, sample in self.data.samples(self.seed, cursor=entry.position + 1):
            if why_not(sample.record, self.stage, self.fit) is None and self.fit.bucket(sample.record) == entry.bucket:
                yield Entry(after - 1, sample.key, entry.bucket)

    def _load(self, entry: Entry) -> Example:
        rng = rng_of(self.seed, "train", entry.position)
        sample = self.data[entry.key]
        window = int(rng.integers(sample.record.frames // entry.bucket.frames))
        drawn = draw(rng, [name for name in self.stage.modalities if name in sample], self.stage, self.config.shift)
        prompts = self._prompts(sample, drawn.views, entry, window)
        latents = {
            view: self.latent(sample, view, entry.bucket, window, prompts[view].target if view in prompts else None)
            for view in drawn.views
        }
        texts = {view: prompt.text for view, prompt in prompts.items()}
        return Example(Item(sample.key, sample.caption, latents, texts), drawn, rng)

    def _prompts(self, sample: Sample, views: Sequence[str], entry: Entry, window: int) -> dict[str, Prompt]:
        """The prompt of each view, from random numbers of their own: draws and noise are those of a run without."""
        if not self.stage.prompts:
            return {}
        rng = rng_of(self.seed, "prompt", entry.position)
        # One draw a view of the stage, in its order, so that a view's prompt does not hang on the others drawn.
        seeds = {view: int(rng.integers(1 << 63)) for view in self.stage.modalities}
        values = {
            view: window_of(sample, view, entry.bucket, window) if has_targets(view) else None
            for view in views
            if view != "rgb"
        }
        return {
            view: choose(np.random.default_rng(seeds[view]), view, value, self.stage) for view, value in values.items()
        }

    @property
    def config(self) -> ModelConfig:
        return self.fit.config

    def latent(self, sample: Sample, view: str, bucket: Bucket, window: int, target: Target | None = None) -> Tensor:
        """The latents of one view of one window of a clip, from the cache where it has them."""
        if self.cache is None:
            return self.codec.encode(picture(sample, view, bucket, window, self.config, target))
        shown = "" if target is None else "-" + hashlib.sha256(repr(target.ids).encode()).hexdigest()[:16]
        name = f"{sample.key}.{view}{shown}.{window}.{bucket.frames}x{bucket.height}x{bucket.width}.npy"
        name = f"{self._fingerprint}/{hashlib.sha256(sample.key.encode()).hexdigest()[:2]}/{name}"
        store = LocalStore(self.cache)
        kept = _kept(store, name, (self.config.channels, *self.fit.latents(bucket)))
        if kept is not None:
            return kept
        latents = self.codec.encode(picture(sample, view, bucket, window, self.config, target))
        with store.create(name, "latents") as file:
            np.save(file, latents.numpy(), allow_pickle=False)
        return latents

    @cached_property
    def _fingerprint(self) -> str:
        """Changes with the codec and with any column of the dataset, so that a stale latent is never read."""
        manifest = self.data.manifest
        codec = self.config.codec + (" tiled" if self.codec.tiled else "")
        text = f"{codec} {self.config.pictures} {sorted(manifest.columns.items())} {manifest.plan_sha256}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kept(store: LocalStore, name: str, shape: tuple[int, ...]) -> Tensor | None:
    """Latents of the cache, or None where there are none, or they are damaged: they are then made again."""
    try:
        data = store.read(name, at_most=math.prod(shape) * 4 + _NPY_HEADER)
        latents = np.load(io.BytesIO(data), allow_pickle=False)
    except (FileNotFoundError, CorruptDataError, ValueError, EOFError, SyntaxError, MemoryError):
        return None
    if not isinstance(latents, np.ndarray) or latents.shape != shape or latents.dtype != np.float32:
        return None
    return torch.from_numpy(latents)


def picture(
    sample: Sample, view: str, bucket: Bucket, window: int, config: ModelConfig, target: Target | None = None
) -> modalities.Pictures:
    """The model's picture of one window of a view; with a `target` of that alone."""
    value = window_of(sample, view, bucket, window)
    return colours.to_picture(view, value if target is None else target.select(value), config)


def window_of(sample: Sample, view: str, bucket: Bucket, window: int) -> Any:
    """One window of a view's value, cropped at the centre and resized to the bucket."""
    modality, value = modalities.get(view), sample[view]
    value = modality.take(value, slice(window * bucket.frames, (window + 1) * bucket.frames))
    _, height, width = modality.shape(value)
    value = modality.crop(value, centre_box(height, width, bucket))
    return modality.resize(value, bucket.height, bucket.width)


def centre_box(height: int, width: int, bucket: Bucket) -> Box:
    """The largest centred box of the bucket's aspect."""
    scale = min(height / bucket.height, width / bucket.width)
    h, w = max(1, round(bucket.height * scale)), max(1, round(bucket.width * scale))
    y, x = (height - h) // 2, (width - w) // 2
    return Box(x, y, x + w, y + h)


class _Entries(torch_data.Dataset[list[Example]]):
    """What torch_data.DataLoader workers run: a list of entries in, their examples out."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, entries: Any) -> list[Example]:
        return [self._reader.load(entry) for entry in entries]


class _Shares:
    """A rank's share of each planned step, in micro-batches; remembers the plans that the workers are ahead by."""

    def __init__(self, plans: Iterator[Plan], rank: int, world: int, accumulate: int) -> None:
        self._plans, self._rank, self._world, self._accumulate = plans, rank, world, accumulate
        self.ahead: list[Plan] = []

    def __iter__(self) -> Iterator[Sequence[Entry]]:
        for plan in self._plans:
            self.ahead.append(plan)
            mine = plan.entries[self._rank :: self._world]
            size = len(mine) // self._accumulate
            for i in range(self._accumulate):
                yield mine[i * size : (i + 1) * size]


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches the workers too; the trainer needs them for the step that it finishes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def load_steps(
    reader: Reader, plans: Iterator[Plan], *, rank: int, world: int, accumulate: int, workers: int
) -> Iterator[tuple[Plan, list[list[Example]]]]:
    """For every planned step its plan and this rank's examples, as `accumulate` micro-batches, in order.

    `workers` processes read ahead; with 0 this process reads when asked.
    """
    shares = _Shares(plans, rank, world, accumulate)
    loader = torch_data.DataLoader(
        _Entries(reader),
        sampler=shares,
        batch_size=None,
        num_workers=workers,
        # Spawned, not forked: the codecs start threads, and a forked copy of a held lock would hang.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_ignore_interrupts,
    )
    examples = iter(loader)
    while True:
        step = [next(examples) for _ in range(accumulate)]
        yield shares.ahead.pop(0), step
