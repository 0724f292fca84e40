"""Bringing assets into the cache. A file enters under its name only once its size and SHA-256 are the pinned ones."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast
from urllib.error import URLError

from openuni.assets import sources
from openuni.assets.cache import Asset, checksum, difference, folder, is_whole, keep, kept, place, put_by_hand
from openuni.assets.sources import HubFile, Source, Url
from openuni.errors import AssetError
from openuni.storage import DISK_ERRORS, LocalStore, disk_sentence, sync_folder

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and the bytes in all."""

_CHUNK = 1 << 20


def fetch(asset: Asset, progress: Progress | None = None) -> Path:
    """Bring the asset into the cache and return its verified path; a good file that is there is kept.

    Where no record pins the SHA-256, the hub is asked for it before anything is fetched, once (`Asset.sha256`).

    Sources are tried in order, first the mirror that `OPENUNI_MIRROR` names: a folder, or an address, that holds files
    as an asset cache does. Safe beside other processes that fetch the same asset: each writes a file of its own and
    renames it into place when it is complete. Raises AssetError saying why each source failed, or, with
    `OPENUNI_OFFLINE=1` or `HF_HUB_OFFLINE=1`, which file to put where; of sources only a mirror's folder is asked then.

    Example:
        >>> from openuni.experts.fastdepth import WEIGHTS
        >>> fetch(WEIGHTS)  # doctest: +SKIP
        PosixPath('/home/me/.cache/openuni/assets/fastdepth_7.onnx')
    """
    file = place(asset)
    if is_whole(asset):
        return file
    mirror, offline = _mirrored(asset), _offline()
    here = mirror is not None and mirror.url.startswith("file:")
    if offline and not here:
        remedy = put_by_hand(asset)
        raise AssetError(f"asset {asset.name!r} is not on this machine and {offline} forbids the network: {remedy}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AssetError(f"cannot make the asset cache {file.parent}: {error}. Set OPENUNI_HOME elsewhere") from error
    expected = checksum(asset) or _told(asset, offline)
    if file.is_file() and difference(asset, file, expected) is None:  # put there by hand
        keep(asset, expected)
        return file
    failures = []
    for source in (*([mirror] if mirror else []), *([] if offline else asset.sources)):
        try:
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder()) as scratch:
                _install(asset, expected, source, file, Path(scratch), progress or _silent)
            return file
        except sources.ERRORS as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:  # another source would not fit either
                raise AssetError(f"{disk_sentence(folder(), error)}, or set OPENUNI_HOME elsewhere") from error
            failures.append(f"{source}: {error.reason if type(error) is URLError else error}")
    why = "; ".join(failures)
    raise AssetError(f"asset {asset.name!r} could not be fetched: {why}; or by hand: {put_by_hand(asset)}")


def stage(assets: Sequence[Asset]) -> None:
    """Bring `assets` to this node. Of all processes that ask at once, one fetches and the others wait.

    A file of the wrong bytes is fetched again. Raises AssetError as `fetch` does.

    Example:
        >>> from openuni.experts.dis import Dis
        >>> stage(Dis.assets)  # it needs none
    """
    missing = [asset for asset in assets if not is_whole(asset)]
    if not missing:
        return
    try:
        guard = LocalStore(folder()).append(".staging")
    except OSError as error:
        raise AssetError(f"cannot make the asset cache {folder()}: {error}. Set OPENUNI_HOME elsewhere") from error
    with guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for asset in missing:
            fetch(asset)


def _silent(_done: int, _total: int) -> None:
    pass


def _mirrored(asset: Asset) -> Url | None:
    """Where `$OPENUNI_MIRROR` has the asset, if it is set."""
    mirror = os.environ.get("OPENUNI_MIRROR", "").rstrip("/")
    if not mirror:
        return None
    base = mirror if "://" in mirror else Path(mirror).expanduser().resolve().as_uri()
    return Url(f"{base}/{urllib.parse.quote(asset.filename)}")


def _offline() -> str:
    """The variable that forbids the network, or an empty string."""
    for variable in ("OPENUNI_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").strip().lower() in {"1", "true", "yes", "on"}:
            return f"{variable}={os.environ[variable]}"
    return ""


def _told(asset: Asset, offline: str) -> str:
    """What the hub says that the asset's SHA-256 is. Raises AssetError with the remedy where it cannot be asked."""
    try:
        if offline:
            raise AssetError(f"{offline} forbids the network")
        (source,) = asset.sources
        return sources.told(cast(HubFile, source))
    except sources.ERRORS as error:
        raise AssetError(
            f"asset {asset.name!r} has no published SHA-256, and the hub cannot be asked for it ({error}): put it at "
            f"{kept(asset)}, as a machine has it that has fetched the asset, and fetch again"
        ) from error


def _install(asset: Asset, expected: str, source: Source, file: Path, scratch: Path, progress: Progress) -> None:
    """Copy the source's bytes beside the cache, check them, and rename them into place, durably."""
    digest, done = hashlib.sha256(), 0
    part = scratch / "asset.part"
    with sources.opened(source, scratch) as stream, part.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            done += len(chunk)
            if asset.size is not None and done > asset.size:
                raise AssetError(f"expected {asset.size} bytes, got more")
            digest.update(chunk)
            out.write(chunk)
            progress(done, asset.size or done)
        out.flush()
        os.fsync(out.fileno())
    if asset.size not in (None, done):
        raise AssetError(f"expected {asset.size} bytes, got {done}")
    if digest.hexdigest() != expected:
        raise AssetError(f"expected SHA-256 {expected}, got {digest.hexdigest()}")
    if asset.sha256 is None:
        keep(asset, expected)
    part.chmod(0o644)
    part.replace(file)
    sync_folder(file.parent)
