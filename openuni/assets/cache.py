"""The cache: `$OPENUNI_HOME/assets`, by default `~/.cache/openuni/assets` (`$XDG_CACHE_HOME` is respected)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from openuni.assets.sources import Source
from openuni.errors import AssetError


@dataclass(frozen=True, slots=True)
class Asset:
    """One pinned file. `filename` is its place in the cache, relative, with `/`.

    `size` is in bytes; None where no public record tells it, so that the hash alone decides.

    `light` marks what the CPU experts and the demo use.

    Example:
        >>> from openuni.assets import HubFile
        >>> weights = Asset(
        ...     name="toy",
        ...     filename="toy/weights.safetensors",
        ...     license="Apache-2.0",
        ...     sha256="3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
        ...     size=99_173_660,
        ...     sources=(HubFile("someone/toy", "5426e4f0f36572d16453bbda7a8389317b1bef99", "weights.safetensors"),),
        ... )
    """

    name: str
    filename: str
    license: str
    sha256: str
    size: int | None
    sources: tuple[Source, ...]
    light: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found at an asset's place: `problem` is None for the pinned bytes."""

    asset: Asset
    path: Path
    problem: str | None


def folder() -> Path:
    """The cache folder; it may not exist yet.

    Example:
        >>> folder().name
        'assets'
    """
    home = os.environ.get("OPENUNI_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "openuni")
    return Path(home).expanduser() / "assets"


def place(asset: Asset) -> Path:
    """Where the asset's file belongs, whether it is there or not; a file put there by hand is as good as fetched.

    Example:
        >>> from openuni.experts.fastdepth import WEIGHTS
        >>> place(WEIGHTS).name
        'fastdepth_7.onnx'
    """
    return folder() / asset.filename


def path(asset: Asset) -> Path:
    """The verified local file. Never downloads.

    Raises AssetError with the place, size, hash and command if the file is missing or is not the pinned one. The
    hash is computed once a process for each state of the file on disk.

    Example:
        >>> from openuni.experts.fastdepth import WEIGHTS
        >>> path(WEIGHTS)
        Traceback (most recent call last):
            ...
        openuni.errors.AssetError: asset 'fastdepth' is not on this machine. Run `openuni assets fetch fastdepth`, ...
    """
    file = place(asset)
    if not file.is_file():
        raise AssetError(f"asset {asset.name!r} is not on this machine. {_fetch_or_put(asset)}")
    problem = _problem(asset, file)
    if problem:
        raise AssetError(f"asset {asset.name!r}: {file} is not the pinned file: {problem}. {_fetch_or_put(asset)}")
    return file


def is_cached(asset: Asset) -> bool:
    """Whether a file of the right size is in place. Looks, does not hash: `path` and `verify` do.

    Example:
        >>> from openuni.experts.fastdepth import WEIGHTS
        >>> is_cached(WEIGHTS)
        False
    """
    file = place(asset)
    return file.is_file() and asset.size in (None, file.stat().st_size)


def is_whole(asset: Asset) -> bool:
    """Whether the pinned file is in place."""
    file = place(asset)
    return file.is_file() and _problem(asset, file) is None


def verify(assets: Iterable[Asset]) -> list[Verdict]:
    """Hash every one of `assets` that is in the cache, anew.

    Example:
        >>> from openuni.experts.fastdepth import WEIGHTS
        >>> verify([WEIGHTS])  # it is not in the cache
        []
    """
    _hashes.clear()
    cached = [(asset, place(asset)) for asset in assets]
    return [Verdict(asset, file, _problem(asset, file)) for asset, file in cached if file.is_file()]


def put_by_hand(asset: Asset) -> str:
    """Which file to put where, as an error says it."""
    origin = "; or ".join(map(str, asset.sources))
    size = "" if asset.size is None else f"{asset.size} bytes, "
    return f"put the file at {place(asset)} ({size}SHA-256 {asset.sha256}; from {origin})"


def _fetch_or_put(asset: Asset) -> str:
    return f"Run `openuni assets fetch {asset.name}`, or {put_by_hand(asset)}"


_hashes: dict[tuple[str, int, int, int], str] = {}
"""SHA-256 by path, inode, size and modification time, so that a file is hashed once a process unless it changes."""


def _problem(asset: Asset, file: Path) -> str | None:
    """How `file` differs from the pinned one, or None."""
    stat = file.stat()
    if asset.size not in (None, stat.st_size):
        return f"expected {asset.size} bytes, got {stat.st_size}"
    key = (str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with file.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    if _hashes[key] != asset.sha256:
        return f"expected SHA-256 {asset.sha256}, got {_hashes[key]}"
    return None
