"""Reading over fsspec, for datasets that lie at a URL; and `open_store`, which knows a folder from a URL."""

from __future__ import annotations

import importlib.util
import posixpath
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from openuni.errors import CorruptDataError, OpenUniError, PlanError
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
        with self._asking(name):
            return int(self._files.size(self._path(name)))

    def exists(self, name: str) -> bool:
        with self._asking(name):
            return bool(self._files.exists(self._path(name)))

    def list(self, folder: str) -> list[str]:
        try:
            with self._asking(folder):
                found = self._files.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{posixpath.basename(path)}" for path in found)

    def read(self, name: str, *, at_most: int) -> bytes:
        # One byte more than allowed: no second request is needed to learn the size.
        with self._asking(name):
            data: bytes = self._files.cat_file(self._path(name), start=0, end=at_most + 1)
        if len(data) > at_most:
            raise CorruptDataError(f"{self.where(name)} has more than {at_most:,} bytes")
        return data

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with self._asking(name):
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

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Each protocol has errors of its own: what is missing is told by type, all else is one sentence."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, OpenUniError):
            raise
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).partition("\n")[0][:300]
            raise OpenUniError(
                f"{self.where(name)} cannot be read: {why}; check the URL, the network and your credentials, and run "
                "the same command again"
            ) from error

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, check_name(name))

    def _read_only(self, name: str) -> PlanError:
        return PlanError(f"{self.where(name)} cannot be written: a dataset at a URL is read only; write to a folder")
