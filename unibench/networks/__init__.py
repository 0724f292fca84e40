"""The learned measures of VBench's dimensions: which are at hand, what is missing for the others, and loading them.

A measure is at hand where its weights are in the asset cache and its libraries (`openuni[measures]`) are installed.
The networks have the names and shapes of the published files and give what the published code gives with equal
weights (`tests/unibench/networks`); whether they give VBench's numbers with the published weights has not been tried,
so what they measure is marked unvalidated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pkgutil import resolve_name

from openuni import assets
from openuni.assets import Asset
from openuni.errors import AssetError
from unibench.metrics.video import Measures
from unibench.networks import pinned

_LIBRARIES = ("torch", "torchvision", "timm", "open_clip")
SMALLEST = 128
"""RAFT and AMT halve 1/8-size features three times; below 128 pixels the smallest of these has a side of one."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A field of `Measures`: what measures it, the columns that rest on it, its weights, and where these are loaded."""

    what: str
    columns: tuple[str, ...]
    weights: tuple[Asset, ...]
    loader: str
    """`module:function` of this package; the function takes the files of the weights, in their order."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What this machine can measure: `weights` maps a field of `Measures` to the SHA-256 of its files.

    `notes` says of each column (`video/imaging_quality`) why it is absent, or that it is unvalidated.
    """

    weights: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


_MOVING = ("temporal_flickering", "dynamic_degree", "dynamic_degree_motion")

LEARNED: Mapping[str, Learned] = {
    "subject": Learned("DINO ViT-B/16", ("subject_consistency",), (pinned.DINO,), "dino:features"),
    "background": Learned("CLIP ViT-B/32", ("background_consistency",), (pinned.CLIP_B32,), "clip:features"),
    "flow": Learned("RAFT (Things)", _MOVING, (pinned.RAFT,), "raft:flow"),
    "interpolate": Learned("AMT-S", ("motion_smoothness",), (pinned.AMT,), "amt:interpolator"),
    "aesthetic": Learned(
        "CLIP ViT-L/14 and LAION's linear head",
        ("aesthetic_quality",),
        (pinned.CLIP_L14, pinned.LAION_AESTHETIC),
        "clip:aesthetic",
    ),
    "imaging": Learned("MUSIQ (SPAQ)", ("imaging_quality",), (pinned.MUSIQ,), "musiq:quality"),
    "overall": Learned("ViCLIP-L/14", ("overall_consistency",), (pinned.VICLIP,), "viclip:similarity"),
}
"""By field of `Measures`."""


def survey() -> Survey:
    """Look, hash, load nothing."""
    weights: dict[str, str] = {}
    notes: dict[str, str] = {}
    for name, learned in LEARNED.items():
        missing = _missing(learned)
        if not missing:
            weights[name] = " ".join(asset.identity for asset in learned.weights)
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
        loader = resolve_name(f"{__name__}.{learned.loader}")
        made[name] = loader(*(assets.path(asset) for asset in learned.weights))
    return Measures(**made, smallest=SMALLEST)


def _missing(learned: Learned) -> str:
    """What keeps a measure from running and the remedy; empty where nothing does."""
    for asset in learned.weights:
        if not assets.is_cached(asset):
            wanted = " ".join(each.name for each in learned.weights)
            size = sum(each.size or 0 for each in learned.weights) / 1e6
            license = "; ".join(dict.fromkeys(each.license for each in learned.weights))
            return f"no weights of {learned.what}; `openuni assets fetch {wanted}` brings {size:.0f} MB ({license})"
        try:
            assets.path(asset)
        except AssetError as error:
            return str(error)
    if absent := [library for library in _LIBRARIES if find_spec(library) is None]:
        return f"{absent[0]} is not installed; `pip install 'openuni[measures]'` brings it"
    return ""
