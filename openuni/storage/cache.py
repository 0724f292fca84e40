"""Bytes of datasets at URLs, kept on this machine up to a bound: what was unused longest goes first."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from openuni.errors import CorruptDataError, PlanError
from openuni.storage.claim import claim
from openuni.storage.local import LocalStore

_SWEPT = 0.05
"""Share of the bound that a process may add before it looks at how much there is: that takes a listing of all."""
_LEFT = 0.9
"""Share of the bound that is left after that."""


@dataclass
class Cache:
    """Byte strings by the SHA-256 of what they hold, so none is ever out of date; several processes may share a folder.

    For a moment it may be larger than `at_most` bytes, by a twentieth of that for each process. Whoever reads checks
    what comes out of it, as of any other file. Raises PlanError where the folder is somebody else's.
    """

    folder: Path
    at_most: int
    _added: int | None = field(default=None, repr=False)
    """Bytes since this process looked last; None: it has not looked yet."""

    def __post_init__(self) -> None:
        if self.at_most < 1:
            raise PlanError(f"a cache of {self.at_most} bytes keeps nothing; give a size of 1 or more")
        claim(self.folder)

    def get(self, sha256: str, size: int, fetch: Callable[[], bytes]) -> bytes:
        """What is kept under this name if it has `size` bytes, else what `fetch` brings, which is then kept."""
        store, name = LocalStore(self.folder), f"{sha256[:2]}/{sha256}"
        with suppress(FileNotFoundError, CorruptDataError):
            data = store.read(name, at_most=size)
            if len(data) == size:
                with suppress(FileNotFoundError):  # another process may have removed it meanwhile
                    store.touch(name)
                return data
        data = fetch()
        self.put(sha256, data)
        return data

    def put(self, sha256: str, data: bytes) -> None:
        """Keep this instead of what may be there. A full disk is no error: it is only kept to save time."""
        with suppress(OSError, PlanError):
            LocalStore(self.folder).put(f"{sha256[:2]}/{sha256}", data, "cache")
        self._added = None if self._added is None else self._added + len(data)
        if self._added is None or self._added > _SWEPT * self.at_most:
            self._sweep()
            self._added = 0

    def _sweep(self) -> None:
        """Remove what was unused longest, once there is more than the bound, and what killed writers left."""
        kept: list[tuple[int, int, str]] = []
        folders = [entry.name for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]
        LocalStore(self.folder).sweep(folders)
        for folder in folders:
            for entry in os.scandir(self.folder / folder):
                with suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    kept.append((about.st_mtime_ns, about.st_size, f"{folder}/{entry.name}"))
        there = sum(size for _, size, _ in kept)
        if there <= self.at_most:
            return
        for _, size, name in sorted(kept):
            if there <= _LEFT * self.at_most:
                return
            with suppress(FileNotFoundError):
                (self.folder / name).unlink()
            there -= size
