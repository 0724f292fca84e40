"""The sample: an RGB clip with any of its dense modalities. Everything else in the system speaks only this.

A `Clip` is planned (where its pixels come from), a `Record` is stored (what the index knows of it), an `Annotation`
is what an expert says of one clip in one modality, and a `Sample` is a record with its modalities, read when asked.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from openuni.errors import AbsentModalityError, OpenUniError

SCHEMA_VERSION = 1

Subset = Literal["single_person", "two_person", "general"]
Split = Literal["train", "val", "test"]
V = TypeVar("V")

# One ustar header holds 100 characters; the longest member suffix in use stays far below the 36 that are left.
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_key(key: str) -> str:
    """Return `key` if it can name a sample: 1–64 of `A–Z a–z 0–9 _ -`, so no dot, folder or control character.

    WebDataset takes everything up to the first dot as the key, and a key becomes a file name. Raises OpenUniError.

    Example:
        >>> check_key("bikes-street")
        'bikes-street'
        >>> check_key("bikes.street")
        Traceback (most recent call last):
            ...
        openuni.errors.OpenUniError: 'bikes.street' cannot be a sample key: use 1 to 64 letters, digits, '_' or '-'
    """
    if not _KEY.fullmatch(key):
        raise OpenUniError(f"{key!r} cannot be a sample key: use 1 to 64 letters, digits, '_' or '-'")
    return key


def make_key(text: str) -> str:
    """A legal key for any text: itself if legal, else a readable stem and eight hex digits of its SHA-256.

    Example:
        >>> make_key("videos/Street No. 5.mp4")
        'videos_Street_No_5_mp4-f5d129cb'
    """
    if _KEY.fullmatch(text):
        return text
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:55]
    return f"{stem}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def split_of(video_id: str, *, val: float = 0.01, test: float = 0.01, seed: int = 0) -> Split:
    """The split of a source video, from a hash of its id: clips of one video never fall on two sides.

    Another `seed` gives other splits.

    Example:
        >>> split_of("bikes")
        'train'
    """
    text = f"{seed}/{video_id}" if seed else video_id
    u = int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12], 16) / 16**12
    return "test" if u < test else "val" if u < test + val else "train"


@dataclass(frozen=True, slots=True)
class Clip:
    """A span of a source video that is to become a sample.

    `start` and `end` (exclusive; None: to the end) are seconds of presentation time since the video's first frame.
    `crop` is x0, y0, x1, y1 in pixels of the upright (rotated) source frame. `video_id` names the source video.
    `source_fields` is what the source's row says beside all this, as JSON's values. Raises OpenUniError where the key
    is not one, or the span is empty.

    Example:
        >>> Clip("bikes-street", "videos/bikes.mp4", start=5.48, end=7.48, video_id="bikes").license
        'unknown'
    """

    key: str
    video: str
    start: float = 0.0
    end: float | None = None
    crop: tuple[int, int, int, int] | None = None
    caption: str = ""
    source: str = ""
    source_id: str = ""
    video_id: str = ""
    license: str = "unknown"
    subset: Subset = "general"
    scores: Mapping[str, float] = field(default_factory=dict)
    source_fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_key(self.key)
        end = math.inf if self.end is None else self.end
        if not 0 <= self.start < end or self.start == math.inf or self.end == math.inf:
            raise OpenUniError(f"{self.key}: span {self.start}–{self.end} s is empty, negative or not finite")


@dataclass(frozen=True, slots=True)
class Annotation(Generic[V]):
    """What one expert says of one clip: a modality's value and how far to trust it (0–1, or None: no estimate).

    `scores` are facts about the clip that the index should carry (`people`: how many were tracked). `provenance` says
    on what a network ran (`device`, `batch`), and is stored beside the value.

    Example:
        >>> import numpy as np
        >>> from openuni.modalities.depth import Depth
        >>> depth = np.ones((4, 16, 24), np.float32)  # [T, H, W]
        >>> Annotation(Depth(depth, "relative"), confidence=0.9).confidence
        0.9
    """

    value: V
    confidence: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a sample has a modality, from whom, how sure, and if not, why.

    Example:
        >>> openuni.open("data/demo")["bunny"].statuses["depth"]
        Status(present=True, reason='', expert='fastdepth-1', confidence=0.25)
    """

    present: bool
    reason: str = ""
    expert: str = ""
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What the index knows of a stored sample. `width`, `height`, `frames` and `fps` are those of the stored RGB.

    `start` and `end` are the span in seconds of the source video `video_id`. `source_fields` is what the source's row
    says beside all this; the index has the short ones, `Sample.source_fields` has all.

    Example:
        >>> record = openuni.open("data/demo")["bunny"].record
        >>> record.frames, record.height, record.width, record.fps
        (4, 16, 24, 16.0)
    """

    key: str
    frames: int
    height: int
    width: int
    fps: float
    caption: str = ""
    subset: Subset = "general"
    split: Split = "train"
    source: str = ""
    source_id: str = ""
    video_id: str = ""
    license: str = "unknown"
    start: float = 0.0
    end: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    source_fields: Mapping[str, Any] = field(default_factory=dict)


class Sample:
    """A stored sample. `sample.depth` (or `sample["depth"]`) reads, checks and decodes that modality on first use.

    Example:
        >>> sample = openuni.open("data/demo")["bunny"]
        >>> sample
        Sample('bunny', 4×16×24 @ 16 fps, rgb, depth, flow)
        >>> sample.flow.forward.shape  # float32 [T-1, H, W, 2], pixels, x right and y down
        (3, 16, 24, 2)
        >>> "skeleton" in sample
        False
    """

    def __init__(
        self,
        record: Record,
        statuses: Mapping[str, Status],
        load: Callable[[str], Any],
        load_fields: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """`load_fields` reads the source's fields where the record may not have them all."""
        self.record = record
        self.statuses = statuses
        self._load = load
        self._load_fields = load_fields
        self._values: dict[str, Any] = {}
        self._fields: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def caption(self) -> str:
        return self.record.caption

    @property
    def source_fields(self) -> Mapping[str, Any]:
        """What the source's row says beside what the record says, by the source's own names, as JSON's values.

        The record has the short ones. All are in `KEY.json`, of which this is one ranged read, the first time.

        Example:
            >>> dict(openuni.open("data/demo")["bunny"].source_fields)
            {}
        """
        if self._fields is None:
            self._fields = self.record.source_fields if self._load_fields is None else self._load_fields()
        return self._fields

    def __contains__(self, modality: str) -> bool:
        status = self.statuses.get(modality)
        return status is not None and status.present

    def __getitem__(self, modality: str) -> Any:
        """The modality's value. Raises AbsentModalityError with the reason where the sample has none."""
        if modality not in self._values:
            status = self.statuses.get(modality)
            if status is None:
                known = ", ".join(self.statuses) or "none"
                raise AbsentModalityError(f"{self.key}: the dataset has no column {modality!r} (it has: {known})")
            if not status.present:
                raise AbsentModalityError(f"{self.key}: {modality} is absent: {status.reason or 'no reason recorded'}")
            self._values[modality] = self._load(modality)
        return self._values[modality]

    def __getattr__(self, modality: str) -> Any:
        # Looked up in __dict__: while a sample is unpickled it has no attributes yet.
        if modality not in self.__dict__.get("statuses", ()):
            raise AttributeError(f"Sample has no attribute or modality {modality!r}")
        return self[modality]

    def __repr__(self) -> str:
        have = ", ".join(name for name in self.statuses if name in self)
        r = self.record
        return f"Sample({self.key!r}, {r.frames}×{r.height}×{r.width} @ {r.fps:g} fps, {have})"
