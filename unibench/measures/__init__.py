"""The learned measures of VBench's dimensions: which are at hand, what is missing for the others, and loading them.

A measure is at hand where its weights are in the asset cache and its libraries (`openuni[measures]`) are installed.
The networks have the names and shapes of the published files and give what the published code gives with equal
weights (`tests/unibench/measures`); whether they give VBench's numbers with the published weights has not been tried,
so what they measure is marked unvalidated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from openuni import assets
from openuni.errors import AssetError
from unibench.metrics.video import Measures

_LIBRARIES = ("torch", "torchvision", "timm", "open_clip")
SMALLEST = 128
"""RAFT and AMT halve 1/8-size features three times; below 128 pixels the smallest of these has a side of one."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A field of `Measures`: what measures it, the columns that rest on it, its weights, and how these are loaded."""

    what: str
    columns: tuple[str, ...]
    weights: tuple[str, ...]
    load: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Survey:
    """What this machine can measure: `weights` maps a field of `Measures` to the SHA-256 of its files.

    `notes` says of each column (`video/imaging_quality`) why it is absent, or that it is unvalidated.
    """

    weights: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def _dino(weights: Path) -> Any:
    from unibench.measures import dino

    return dino.features(weights)


def _clip(weights: Path) -> Any:
    from unibench.measures import clip

    return clip.features(weights)


def _aesthetic(weights: Path, head: Path) -> Any:
    from unibench.measures import clip

    return clip.aesthetic(weights, head)


def _musiq(weights: Path) -> Any:
    from unibench.measures import musiq

    return musiq.quality(weights)


def _raft(weights: Path) -> Any:
    from unibench.measures import raft

    return raft.flow(weights)


def _amt(weights: Path) -> Any:
    from unibench.measures import amt

    return amt.interpolator(weights)


def _viclip(weights: Path) -> Any:
    from unibench.measures import viclip

    return viclip.similarity(weights)


_MOVING = ("temporal_flickering", "dynamic_degree", "dynamic_degree_motion")

LEARNED: Mapping[str, Learned] = {
    "subject": Learned("DINO ViT-B/16", ("subject_consistency",), ("dino-vitb16",), _dino),
    "background": Learned("CLIP ViT-B/32", ("background_consistency",), ("clip-vit-b32",), _clip),
    "flow": Learned("RAFT (Things)", _MOVING, ("raft-things",), _raft),
    "interpolate": Learned("AMT-S", ("motion_smoothness",), ("amt-s",), _amt),
    "aesthetic": Learned(
        "CLIP ViT-L/14 and LAION's linear head", ("aesthetic_quality",), ("clip-vit-l14", "laion-aesthetic"), _aesthetic
    ),
    "imaging": Learned("MUSIQ (SPAQ)", ("imaging_quality",), ("musiq-spaq",), _musiq),
    "overall": Learned("ViCLIP-L/14", ("overall_consistency",), ("viclip-l14",), _viclip),
}
"""By field of `Measures`."""


def survey() -> Survey:
    """Look, hash, load nothing."""
    weights: dict[str, str] = {}
    notes: dict[str, str] = {}
    for name, learned in LEARNED.items():
        missing = _missing(learned)
        if not missing:
            weights[name] = " ".join(assets.get(asset).sha256 for asset in learned.weights)
        note = missing or f"by {learned.what}; not compared with VBench's own numbers"
        notes |= {f"video/{column}": f"unvalidated: {note}" for column in learned.columns}
    quality = {name for name in LEARNED if name != "overall"}
    if not quality <= weights.keys():
        notes["video/quality_score"] = "needs all seven quality dimensions"
    else:
        notes["video/quality_score"] = "unvalidated: rests on measures that are"
    return Survey(weights, notes)


def load(weights: Mapping[str, str]) -> Measures:
    """The measures that a survey named. Raises AssetError where one is no longer at hand, or its file does not fit."""
    made = {}
    for name in weights:
        learned = LEARNED[name]
        if missing := _missing(learned):
            raise AssetError(f"the protocol measures with {learned.what}, but {missing}")
        made[name] = learned.load(*(assets.path(asset) for asset in learned.weights))
    return Measures(**made, smallest=SMALLEST)


def _missing(learned: Learned) -> str:
    """What keeps a measure from running and how to mend it; empty where nothing does."""
    for asset in learned.weights:
        if not assets.is_cached(asset):
            wanted = " ".join(learned.weights)
            size = sum(assets.get(each).size for each in learned.weights) / 1e6
            licence = "; ".join(dict.fromkeys(assets.get(each).licence for each in learned.weights))
            return f"no weights of {learned.what}; `openuni assets fetch {wanted}` brings {size:.0f} MB ({licence})"
        try:
            assets.path(asset)
        except AssetError as error:
            return str(error)
    if absent := [library for library in _LIBRARIES if find_spec(library) is None]:
        return f"{absent[0]} is not installed; `pip install 'openuni[measures]'` brings it"
    return ""
