"""Named sets of experts: what `--experts light`, `paper` and `production` stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openuni import registry
from openuni.assets import Asset
from openuni.errors import OpenUniError
from openuni.experts import base

SETS = {
    "light": ("fastdepth", "dis", "mediapipe_segmentation", "mediapipe_pose", "body_fit"),
    "paper": ("depth_anything_v2_small", "raft_large", "sam_vit_h", "dwpose", "densepose_torchscript"),
    "production": ("depth_anything_v2_small", "raft_large", "sam_vit_h", "vitpose", "body_fit"),
}
"""An expert a modality. `light` runs on any CPU. `paper` is what the paper names; it needs `--trust`, for
DensePose is published as a program. `production` is what may be published and sold."""


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Experts by name, sets by what they stand for; an expert named beside a set takes the place of the set's own.

    Raises OpenUniError on an unknown name.

    Example:
        >>> expand(["light"])[:2]
        ('fastdepth', 'dis')
        >>> expand(["light", "raft_large"])
        ('fastdepth', 'raft_large', 'mediapipe_segmentation', 'mediapipe_pose', 'body_fit')
    """
    known = registry.names("experts")
    if unknown := [name for name in names if name not in SETS and name not in known]:
        raise OpenUniError(
            f"there is no expert {', '.join(unknown)}; sets: {', '.join(SETS)}; experts: {', '.join(known)}"
        )
    single = [name for name in names if name not in SETS]
    # Also what they build on: SAM brings the flow along which it follows things.
    by_modality = {expert.modality: expert.name for name in single for expert in with_required(name)}
    chosen = [by_modality.get(base.get(name).modality, name) for set_ in names if set_ in SETS for name in SETS[set_]]
    return tuple(dict.fromkeys([*chosen, *single]))


def assets_of(names: Sequence[str]) -> list[Asset]:
    """What these experts and sets, and all that they require, load.

    Example:
        >>> [asset.name for asset in assets_of(["dwpose"])]
        ['rf-detr-medium', 'dwpose-384']
    """
    found: dict[str, Asset] = {}
    for name in expand(names):
        for expert in with_required(name):
            found |= {asset.name: asset for asset in expert.assets}
    return list(found.values())


def check_commercial(names: Sequence[str]) -> None:
    """Raise OpenUniError naming each expert, or one that it requires, that may not be used for profit, and why."""
    reasons = {
        expert.name: expert.noncommercial
        for name in expand(names)
        for expert in with_required(name)
        if expert.noncommercial
    }
    if reasons:
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise OpenUniError(f"--commercial refuses {said}; choose others, `--experts production` say")


def check_trusted(names: Sequence[str], trust: bool) -> None:
    """Raise OpenUniError naming each expert, or one that it requires, whose model file runs code, without `trust`."""
    programs = {e.name: e.runs_code for name in expand(names) for e in with_required(name) if e.runs_code}
    if programs and not trust:
        said = "; ".join(f"{name}: {reason}" for name, reason in programs.items())
        raise OpenUniError(
            f"{said}. Its hash is pinned; give --trust if you trust who published it, or choose another (`body_fit`)"
        )


def notices(names: Sequence[str]) -> dict[str, str]:
    """What is to be said where these experts are chosen, by the expert's name.

    Example:
        >>> list(notices(["production", "yolo_pose"]))
        ['yolo_pose']
    """
    return {expert.name: expert.notice for name in expand(names) for expert in with_required(name) if expert.notice}


def with_required(name: str) -> Iterator[type[base.Expert]]:
    """The experts that one builds on, and itself, the first to run first."""
    expert = base.get(name)
    for needed in expert.requires:
        yield from with_required(needed)
    yield expert
