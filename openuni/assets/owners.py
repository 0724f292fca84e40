"""The assets of everything that is installed, collected from their owners; nothing is listed twice.

An expert and a source carry theirs in the class attribute `assets`. What is neither names a tuple of them in the
entry-point group `openuni.assets`, in a module that imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from openuni import registry
from openuni.assets.cache import Asset
from openuni.errors import AssetError


@dataclass(frozen=True, slots=True)
class Installed:
    """An asset and the registered names of those that use it."""

    asset: Asset
    used_by: tuple[str, ...]


def installed() -> dict[str, Installed]:
    """Every asset by name: built-in owners first, in their order, then those of other distributions.

    Raises AssetError where two owners give one name, or one file of the cache, to different assets.

    Example:
        >>> installed()["fastdepth"].used_by
        ('fastdepth',)
    """
    known: dict[str, Installed] = {}
    places: dict[str, str] = {}
    for owner, asset in _owned():
        before = known.get(asset.name, Installed(asset, ()))
        if before.asset != asset or places.setdefault(asset.filename, asset.name) != asset.name:
            others = ", ".join(before.used_by) or places[asset.filename]
            raise AssetError(f"{owner} and {others} disagree about asset {asset.name!r} ({asset.filename}); rename one")
        known[asset.name] = Installed(asset, (*before.used_by, owner))
    return known


def get(name: str) -> Asset:
    """The asset of that name. Raises AssetError listing the known names.

    Example:
        >>> get("fastdepth").license
        'MIT'
    """
    known = installed()
    if name not in known:
        raise AssetError(f"unknown asset {name!r}; known: {', '.join(known)}")
    return known[name].asset


def _owned() -> Iterator[tuple[str, Asset]]:
    """Owner's name and asset."""
    for group in ("experts", "sources"):
        for name in registry.names(group):
            yield from ((name, asset) for asset in registry.load(group, name).assets)
    for name in registry.names("assets"):
        yield from ((name, asset) for asset in registry.load("assets", name))
