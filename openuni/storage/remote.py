"""Reading over fsspec, for datasets that lie at a URL; and `open_store`, which knows a folder from a URL."""

from __future__ import annotations

import importlib.util
import posixpath
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from openuni.errors import CorruptDataError, PlanError
from openuni.storage.base import Store, check_name
from openuni.storage.local import LocalStore
from openuni.storage.objects import ObjectStore, is_object_url


def open_store(url: str) -> Store:
    """The store at a folder, in a bucket, or at any fsspec URL. Raises PlanError where nothing installed knows it."""
    if is_object_url(url) and importlib.util.find_spec("obstore") is not None:
        return ObjectStore(url)
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:  # fsspec does not know the protocol, or lacks its package
        raise PlanError(f"{url} cannot be opened: {error}") from error
    if "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol):
        return LocalStore(Path(root))
    return RemoteStore(files, root)


class RemoteStore:
    """A `Store` that reads."""

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root

    def where(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def size(self, name: str) -> int:
        return int(self._files.size(self._path(name)))

    def exists(self, name: str) -> bool:
        return bool(self._files.exists(self._path(name)))

    def list(self, folder: str) -> list[str]:
        try:
            found = self._files.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{posixpath.basename(path)}" for path in found)

    def read(self, name: str, *, at_most: int) -> bytes:
        # One byte more than allowed: no second request is needed to learn the size.
        data: bytes = self._files.cat_file(self._path(name), start=0, end=at_most + 1)
        if len(data) > at_most:
            raise CorruptDataError(f"{self.where(name)} has more than {at_most:,} bytes")
        return data

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        data: bytes = self._files.cat_file(self._path(name), start=offset, end=offset + size)
        if len(data) != size:
            raise CorruptDataError(f"{self.where(name)} ends before byte {offset + size:,} of its index")
        return data

    def put(self, name: str, data: bytes, run: str, *, create_only: bool = False) -> None:
        raise self._read_only(name)

    def create(self, name: str, run: str, *, create_only: bool = False) -> AbstractContextManager[BinaryIO]:
        raise self._read_only(name)

    def delete(self, name: str) -> None:
        raise self._read_only(name)

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, check_name(name))

    def _read_only(self, name: str) -> PlanError:
        return PlanError(f"{self.where(name)} cannot be written: a dataset at a URL is read only; write to a folder")
