"""A disk that takes no more: which errors say so, and the one sentence that a user reads."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
TEMPORARY = re.compile(r"\..+\.[A-Za-z0-9_-]+\.[0-9a-f]{2,8}\.tmp", re.DOTALL)
"""`.NAME.RUN.RANDOM.tmp`: what `sweep` may take away. A `.draft.tmp` is somebody's."""


def disk_sentence(where: Path | str, error: OSError) -> str:
    """What to tell the user of a disk that takes no more.

    Example:
        >>> disk_sentence("/data/d", OSError(errno.EROFS, "…"))
        'the disk of /data/d is read-only; mount it for writing, or choose another folder'
    """
    if error.errno == errno.EROFS:
        return f"the disk of {where} is read-only; mount it for writing, or choose another folder"
    return (
        f"the disk of {where} refuses to take more ({os.strerror(error.errno or 0)}). Nothing is half committed: "
        "make room and run the same command again"
    )


def system_sentence(error: OSError, where: Path | str | None = None) -> str:
    """What the system refused, as one sentence that names the file, else `where`.

    Example:
        >>> system_sentence(PermissionError(errno.EACCES, "Permission denied", "/data/d/dataset.json"))
        '/data/d/dataset.json: Permission denied; check the path, its permissions and the space left'
    """
    name = error.filename or where
    if error.strerror is None:
        return str(error)
    if error.errno in DISK_ERRORS and name:
        return disk_sentence(name, error)
    return f"{f'{name}: ' if name else ''}{error.strerror}; check the path, its permissions and the space left"


@contextmanager
def naming(path: Path | str, hidden: Path | None = None) -> Iterator[None]:
    """Errors of the block name `path` where what they know would tell a user nothing: a descriptor, no file, a name
    without its folder, a temporary one, one below the `hidden` folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and _tells_nothing(error.filename, Path(path), hidden):
            error.filename = str(path)
        raise


def _tells_nothing(known: str | bytes | int | None, path: Path, hidden: Path | None) -> bool:
    if not isinstance(known, str | bytes):
        return True
    name = Path(os.fsdecode(known))
    within = hidden is not None and name.is_relative_to(hidden)
    return within or name == Path(path.name) or TEMPORARY.fullmatch(name.name) is not None
