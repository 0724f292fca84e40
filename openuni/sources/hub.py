"""Where a source's files lie by default, and how its tables come from the hub.

Unless `--metadata` and `--videos` say otherwise: `data/sources/<name>/metadata` and `data/sources/<name>/videos`, or
the same below the folder that `OPENUNI_SOURCES` names.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from openuni.errors import AssetError, OpenUniError

if TYPE_CHECKING:
    from openuni.sources.base import Source

SOURCES = "OPENUNI_SOURCES"
_SPARE = 1 << 30
"""Bytes that stay free on the disk."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set on the Hugging Face hub that publishes a source's tables."""

    repository: str
    pattern: str = "*.csv"


@dataclass(frozen=True, slots=True)
class Published:
    """What the hub has of a source: the files with their bytes, at one commit, and the license that its card states."""

    hub: Hub
    commit: str
    license: str
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class Place:
    """A default place, and what lies there."""

    path: Path
    files: int
    bytes: int


def folder(source: str) -> Path:
    """The folder of a source's own files.

    Example:
        >>> folder("koala36m").as_posix()
        'data/sources/koala36m'
    """
    return Path(os.environ.get(SOURCES) or "data/sources") / source


def default(source: str, kind: str) -> Path | None:
    """The default place of `metadata` or `videos`, if there is anything."""
    place = folder(source) / kind
    return place if place.is_dir() and any(place.iterdir()) else None


def look(source: str, kind: str, most: int = 100_000) -> Place:
    """What lies in a default place; at most so many files are counted."""
    place, files, size = folder(source) / kind, 0, 0
    for path in place.rglob("*"):
        if files == most:
            break
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(place).parts):
            files, size = files + 1, size + path.stat().st_size
    return Place(place, files, size)


def published(source: Source) -> Published:
    """Ask the hub (`HF_ENDPOINT`, with `HF_TOKEN` where it is set) what it has. Raises AssetError where it cannot."""
    hub = source.hub
    if hub is None:
        raise OpenUniError(
            f"the tables of source {source.name} are not on the hub; put them into {folder(source.name) / 'metadata'}"
        )
    api = _api()
    try:
        about = api.dataset_info(hub.repository, files_metadata=True)
    except Exception as error:
        raise _unreachable(hub, error) from error
    files = {
        file.rfilename: int(file.size or 0)
        for file in about.siblings or ()
        if fnmatch.fnmatch(file.rfilename, hub.pattern) and ".." not in PurePosixPath(file.rfilename).parts
    }
    if not files:
        raise AssetError(f"{hub.repository} on {api.endpoint} has no {hub.pattern}; its layout has changed")
    card = about.card_data
    return Published(hub, about.sha or "main", str((card and card.get("license")) or "not stated"), files)


def fetch(source: Source, what: Published, progress: Callable[[str, int], None] = lambda name, done: None) -> Path:
    """Download the files into the default place; what is there is kept, what was cut off goes on.

    `progress` is called with a file's name and its bytes when it is there. Raises AssetError, and where the disk is
    too small before anything is downloaded.
    """
    from huggingface_hub import hf_hub_download

    target = folder(source.name) / "metadata"
    target.mkdir(parents=True, exist_ok=True)
    missing = {
        name: size for name, size in what.files.items()
        if not (target / name).is_file() or (target / name).stat().st_size != size
    }  # fmt: skip
    free = shutil.disk_usage(target).free
    if sum(missing.values()) + _SPARE > free:
        raise AssetError(
            f"{target}: {sum(missing.values()) / 1e9:.1f} GB are to come and {free / 1e9:.1f} GB are free; "
            f"point {SOURCES} to a larger disk"
        )
    api = _api()
    for name in sorted(what.files):
        if name in missing:
            try:
                hf_hub_download(
                    what.hub.repository, name, repo_type="dataset", revision=what.commit, local_dir=target,
                    endpoint=api.endpoint, token=api.token,
                )  # fmt: skip
            except Exception as error:
                raise _unreachable(what.hub, error) from error
            if (target / name).stat().st_size != what.files[name]:
                raise AssetError(f"{target / name} is cut short; run the same command again")
        progress(name, what.files[name])
    return target


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise OpenUniError("huggingface_hub is not installed; run: pip install 'openuni[build]'") from error
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN"))


def _unreachable(hub: Hub, error: Exception) -> AssetError:
    why = (str(error).strip() or type(error).__name__).partition("\n")[0]
    return AssetError(
        f"{hub.repository} cannot be had from the hub: {why}; check the network, HF_ENDPOINT and HF_TOKEN, "
        "and run the same command again"
    )
