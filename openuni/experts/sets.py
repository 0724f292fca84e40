"""Named sets of experts: what `--experts light`, `paper` and `production` stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

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
        >>> expand(["sam_vit_b"])
        ('sam_vit_b', 'raft_large')
    """
    known = registry.names("experts")
    if unknown := [name for name in names if name not in SETS and name not in known]:
        raise OpenUniError(
            f"there is no expert {', '.join(unknown)}; sets: {', '.join(SETS)}; experts: {', '.join(known)}"
        )
    single = [name for name in names if name not in SETS]
    by_modality = {base.get(name).modality: name for name in single}
    chosen = [by_modality.get(base.get(name).modality, name) for set_ in names if set_ in SETS for name in SETS[set_]]
    return completed(tuple(dict.fromkeys([*chosen, *single])))


def completed(names: Sequence[str], stored: Collection[str] = ()) -> tuple[str, ...]:
    """`names`, and experts for what these read where none of them makes it and it is not among the modalities `stored`.

    Example:
        >>> completed(["sam_vit_b"], stored=["flow"])
        ('sam_vit_b',)
    """
    all_names = list(names)
    running = [expert for name in names for expert in with_required(name)]
    made = {*stored, *(expert.modality for expert in running)}
    for name in (other for expert in running for other in expert.otherwise):
        if (modality := base.get(name).modality) not in made:
            made.add(modality)
            all_names.append(name)
    return tuple(all_names)


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
