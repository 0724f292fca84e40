"""What an expert is: a model that looks at a clip once and says what it sees, in one modality."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from openuni import assets, registry
from openuni.assets import Asset
from openuni.errors import OpenUniError
from openuni.experts.floors import FLOORS, Floor
from openuni.modalities import Encoded, Frames
from openuni.sample import Annotation


@dataclass(frozen=True, slots=True)
class Resources:
    """What one instance of an expert occupies while it works. `cpus` is also its number of threads."""

    cpus: int = 1
    gpus: float = 0.0
    memory_gib: float = 1.0


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """What an expert is shown: the stored frames, uint8 `[T, H, W, 3]`, decoded from the very bytes in the shard."""

    key: str
    frames: Frames
    fps: float
    annotations: Mapping[str, Annotation[Any]]
    """What the experts named in `requires` said of this clip, by expert name, and what the dataset has of the
    modalities in `reads`, by modality. An absent one is left out."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an expert that measures annotates a clip with, beside the numbers in `Annotation.scores`.

    `hashes`: numbers of 64 bits by which clips are compared: the perceptual hashes of `scores`, the code of
    `scores_features`.
    """

    hashes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Licenses:
    """Terms of an expert's code, of its weights and of what they were trained on; "none" where there is no such."""

    code: str
    weights: str
    data: str


class Expert(ABC):
    """A model behind one interface. Instances are cheap: weights load in `setup`, never in the constructor.

    `requires` names experts that run before on the same clip (a detector whose boxes three others share runs once).
    An expert with `modality = None` makes no column: it only finds things for others. One whose modality is `scores`,
    or begins with `scores_`, measures: it annotates a clip with `Measured` and scores, and its column holds numbers.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever the output changes; columns of two versions never mix."""
    modality: ClassVar[str | None]
    license: ClassVar[str]
    """Of its code, its network's included; each of its `assets` has its own."""
    training_data: ClassVar[str] = ""
    """What its weights have learned from, and under which terms; where it is contested, that."""
    noncommercial: ClassVar[str] = ""
    """Why it may not be used for profit (code, weights or training data), if so; `--commercial` refuses it."""
    runs_code: ClassVar[str] = ""
    """Why its weights cannot be loaded without running what is in them, if so; it needs `--trust`."""
    notice: ClassVar[str] = ""
    """What whoever chooses it must know of its license, said where it is chosen."""
    resources: ClassVar[Resources] = Resources()
    assets: ClassVar[tuple[Asset, ...]] = ()
    """Model files that `setup` loads; `openuni assets` finds them here, and a build brings them to each node."""
    requires: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    """Those of `requires` that it can do without: it is shown also clips on which they have nothing to say."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Import names beyond the base installation; checked before a build starts."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Modalities that it also looks at where the dataset has them, whichever expert made them."""
    otherwise: ClassVar[tuple[str, ...]] = ()
    """Experts that make modalities of `reads` where neither another chosen one nor the dataset does."""
    installed_by: ClassVar[str] = "openuni[build]"
    """What brings `packages`, as pip spells it."""
    concurrent: ClassVar[bool] = False
    """Whether `annotate` may look at several clips at once, in threads, because it takes turns at the network itself
    (`weights.Batches` does). Else a clip waits for the one before, and only decoding and encoding overlap with it."""
    seconds_per_frame: ClassVar[float] = 0.1
    """A rough cost at 640×360 on one thread, for estimates before the first measurement."""
    frames_per_second: ClassVar[float | None] = None
    """What its publishers say of it on a card, for estimates until `openuni doctor --experts` has measured it here."""

    def setup(self) -> None:  # noqa: B027  many experts have nothing to load
        """Load weights from the asset cache. Called once in the process that will annotate."""

    @abstractmethod
    def annotate(self, clip: DecodedClip) -> Annotation[Any]:
        """Look at one clip. Raises OpenUniError (with the reason) where it has nothing trustworthy to say."""

    @staticmethod
    def encode_findings(value: Any) -> Encoded:
        """Bytes of what an expert without a modality found, for the processes of those that require it."""
        raise NotImplementedError("an expert without a modality says how its findings are stored")

    @staticmethod
    def decode_findings(encoded: Encoded) -> Any:
        """Inverse of `encode_findings`."""
        raise NotImplementedError("an expert without a modality says how its findings are stored")

    def teardown(self) -> None:  # noqa: B027
        """Release what `setup` took."""

    @classmethod
    def licenses(cls) -> Licenses:
        """Whose terms apply: those of its code, its weights and their training data.

        Example:
            >>> get("depth_anything_v2_large").licenses().weights
            'CC-BY-NC-4.0'
        """
        weights = "; ".join(dict.fromkeys(asset.license for asset in cls.assets))
        return Licenses(cls.license, weights or "none", cls.training_data or ("not stated" if weights else "none"))

    @classmethod
    def told(cls) -> dict[str, str]:
        """For provenance, the SHA-256 of those of its weights of which only the hub tells it, as it is kept here."""
        unpinned = [asset for asset in cls.assets if asset.sha256 is None]
        return {f"{asset.name}, SHA-256 told by the hub": assets.checksum(asset) or "unknown" for asset in unpinned}

    @classmethod
    def floor(cls) -> Floor | None:
        """The confidence below which its annotation of a clip is left out, if there is one."""
        return FLOORS.get(cls.name)

    @classmethod
    def fingerprint(cls, columns: Mapping[str, str] | None = None, *, keep_doubtful: bool = False) -> str:
        """`name-version-hash`, the hash over weights, the floor and what the required experts' fingerprints are.

        `columns`, fingerprints by modality: what an expert with `reads` sees of the dataset is part of its own. None:
        of what the experts in `otherwise` make.
        `keep_doubtful`: of a column that no floor was applied to.
        """
        parts: dict[str, Any] = {
            "assets": [asset.identity for asset in cls.assets],
            "requires": [get(name).fingerprint(keep_doubtful=keep_doubtful) for name in cls.requires],
        }
        if (floor := cls.floor()) is not None and not keep_doubtful:
            parts["floor"] = floor.least
        if columns is None:
            makers = [get(name) for name in cls.otherwise]
            columns = {str(maker.modality): maker.fingerprint(keep_doubtful=keep_doubtful) for maker in makers}
        if read := {name: made for name, made in columns.items() if name in cls.reads}:
            parts["reads"] = read
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
        return f"{cls.name}-{cls.version}-{digest}"


def get(name: str) -> type[Expert]:
    """The expert registered as `name`.

    Raises OpenUniError where there is none, or its class does not say what every expert must.
    """
    expert: type[Expert] = registry.load("experts", name)
    if problem := _problem(expert, name):
        raise OpenUniError(f"expert {name!r} ({expert.__module__}.{expert.__qualname__}) {problem}; repair its package")
    return expert


@cache
def _problem(expert: Any, name: str) -> str:
    """What a class registered as an expert lacks, if anything: told before a build, not in the middle of one."""
    is_expert = isinstance(expert, type) and issubclass(expert, Expert)
    if not is_expert:
        return "is no subclass of openuni.experts.Expert"
    if missing := [each for each in ("name", "version", "modality", "license") if not hasattr(expert, each)]:
        return f"does not say its {', '.join(missing)}"
    if expert.name != name:
        return f"is registered under another name than its own, {expert.name!r}"
    if not isinstance(expert.version, int):
        return f"has version {expert.version!r}, which is no whole number"
    known, modality = registry.names("modalities"), expert.modality
    if modality is not None and modality not in known and modality.partition("_")[0] != "scores":
        return f"makes {modality!r}, which is no modality: {', '.join(known)}, or scores"
    return ""
