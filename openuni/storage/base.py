"""What every store can do, and which names it takes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from openuni.errors import CorruptDataError

DOCUMENT = 64 << 20
"""Bytes that a JSON document of a dataset may have; a larger one is not read."""


class Store(Protocol):
    """Files below one root, by name. Whatever is missing raises FileNotFoundError.

    Nothing is renamed and nothing is changed in place: a file is put whole, and with `create_only` never over another
    (FileExistsError), which is what lets two writers race safely on an object store.
    """

    def where(self, name: str) -> str:
        """The file as a person would name it, for messages."""

    def size(self, name: str) -> int:
        """Bytes of a file. Raises CorruptDataError where it is not a regular one."""

    def exists(self, name: str) -> bool:
        """Whether there is something of that name."""

    def list(self, folder: str) -> list[str]:
        """Names of the files directly in `folder`, sorted; none where the folder is missing."""

    def read(self, name: str, *, at_most: int) -> bytes:
        """A whole file. Raises CorruptDataError where it has more than `at_most` bytes."""

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`. Raises CorruptDataError where the file ends before, nothing taken."""

    def put(self, name: str, data: bytes, run: str, *, create_only: bool = False) -> None:
        """Write a file, whole or not at all; `run` is the writer's id."""

    def create(self, name: str, run: str, *, create_only: bool = False) -> AbstractContextManager[BinaryIO]:
        """A file to write to, which becomes `name` when the block ends and nothing when the block raises."""

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""


def check_name(name: str) -> str:
    """`name` if it stays below the root. Raises CorruptDataError: names come out of files that may be anybody's.

    Example:
        >>> check_name("shards/000000.rgb.tar")
        'shards/000000.rgb.tar'
        >>> check_name("../x")
        Traceback (most recent call last):
        openuni.errors.CorruptDataError: '../x' is not the name of a file in a dataset
    """
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise CorruptDataError(f"{name!r} is not the name of a file in a dataset")
    return name
