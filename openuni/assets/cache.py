"""The cache: `$OPENUNI_HOME/assets`, by default `~/.cache/openuni/assets` (`$XDG_CACHE_HOME` is respected)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from openuni.assets.sources import SHA256, HubFile, Source
from openuni.errors import AssetError
from openuni.storage import LocalStore

_SUFFIX = ".sha256"
"""Of the file beside an asset that keeps what the hub has told; `sha256sum --check` reads it."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One pinned file. `filename` is its place in the cache, relative, with `/`.

    `size` is in bytes; None where no public record tells it, so that the hash alone decides.

    `sha256` is None where no public record tells it. The file is then a safetensors file, which runs no code, of known
    size, on the hub at a commit. On the first fetch the hub itself is asked for its SHA-256 (`sources.told`); that is
    kept beside the file, and holds from then on. This is weaker than a pin: whoever controls the hub then controls it.

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
    sha256: str | None
    size: int | None
    sources: tuple[Source, ...]
    light: bool = False

    def __post_init__(self) -> None:
        """Raises AssetError where there is no SHA-256, and the hub could not tell it."""
        if self.sha256 is None and (self.size is None or not self.filename.endswith(".safetensors") or not self._hub()):
            raise AssetError(
                f"asset {self.name!r} has no SHA-256, so it must be a safetensors file of known size, and its only "
                "source a HubFile at a commit of 40 digits"
            )

    @property
    def identity(self) -> str:
        """What a fingerprint holds of it: the pinned SHA-256, or where the hub tells that, its place at a commit."""
        return self.sha256 or self._hub()

    def _hub(self) -> str:
        """Its only place, on the hub at a commit; empty where there is no such."""
        match self.sources:
            case (HubFile(repo, commit, file),) if re.fullmatch("[0-9a-f]{40}", commit):
                return f"{repo}@{commit}/{file}"
        return ""


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


def kept(asset: Asset) -> Path:
    """Where the SHA-256 that the hub told of an asset is kept, or put by hand: beside its file.

    Example:
        >>> from openuni.experts.depth_anything import BASE
        >>> kept(BASE[0]).name
        'model.safetensors.sha256'
    """
    file = place(asset)
    return file.with_name(file.name + _SUFFIX)


def checksum(asset: Asset) -> str | None:
    """The SHA-256 that the asset's file must have: pinned, or kept; None where the hub has not been asked yet.

    Raises AssetError where what is kept is none.

    Example:
        >>> from openuni.experts.fastdepth import WEIGHTS
        >>> checksum(WEIGHTS)[:8]
        '6275c23f'
    """
    if asset.sha256 is not None or not kept(asset).exists():
        return asset.sha256
    line = LocalStore(folder()).read(asset.filename + _SUFFIX, at_most=1 << 16).decode("utf-8", "replace")
    told = (line.split() or [""])[0].lower()
    if not re.fullmatch(SHA256, told):
        raise AssetError(f"{kept(asset)} holds no SHA-256; put it there, or delete the file, and the hub is asked anew")
    return told


def keep(asset: Asset, told: str) -> None:
    """Keep a SHA-256 that the hub told. What is kept stays: raises AssetError where it is another."""
    line = f"{told}  {Path(asset.filename).name}\n".encode()
    try:
        LocalStore(folder()).put(asset.filename + _SUFFIX, line, "fetch", create_only=True)
    except FileExistsError:
        if (before := checksum(asset)) != told:
            raise AssetError(
                f"the hub tells SHA-256 {told} of asset {asset.name!r}, and has told {before} ({kept(asset)})"
            ) from None


def is_cached(asset: Asset) -> bool:
    """Whether a file of the right size is in place. Looks, does not hash: `path` and `verify` do.

    Example:
        >>> from openuni.experts.fastdepth import WEIGHTS
        >>> is_cached(WEIGHTS)
        False
    """
    file = place(asset)
    return file.is_file() and asset.size in (None, file.stat().st_size) and checksum(asset) is not None


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
    if asset.sha256 is None:
        return f"put the file at {place(asset)} ({asset.size} bytes; from {origin}) and its SHA-256 at {kept(asset)}"
    size = "" if asset.size is None else f"{asset.size} bytes, "
    return f"put the file at {place(asset)} ({size}SHA-256 {asset.sha256}; from {origin})"


def _fetch_or_put(asset: Asset) -> str:
    return f"Run `openuni assets fetch {asset.name}`, or {put_by_hand(asset)}"


_hashes: dict[tuple[str, int, int, int], str] = {}
"""SHA-256 by path, inode, size and modification time, so that a file is hashed once a process unless it changes."""


def _problem(asset: Asset, file: Path) -> str | None:
    """How `file` differs from the pinned one, or None."""
    if (expected := checksum(asset)) is None:
        return f"its SHA-256 is not known: there is no {kept(asset)}"
    return difference(asset, file, expected)


def difference(asset: Asset, file: Path, expected: str) -> str | None:
    """How `file` differs from one of the asset's size and this SHA-256, or None."""
    stat = file.stat()
    if asset.size not in (None, stat.st_size):
        return f"expected {asset.size} bytes, got {stat.st_size}"
    key = (str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with file.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    if _hashes[key] != expected:
        return f"expected SHA-256 {expected}, got {_hashes[key]}"
    return None
