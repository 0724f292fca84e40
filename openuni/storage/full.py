"""A disk that takes no more: which errors say so, and the one sentence that a user reads."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


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


@contextmanager
def naming(path: Path | str, hidden: Path | None = None) -> Iterator[None]:
    """Errors of the block that know a descriptor only, no file, or one below the `hidden` folder, name `path`."""
    try:
        yield
    except OSError as error:
        known = error.filename
        if error.errno is not None and (
            known is None or (hidden is not None and Path(os.fsdecode(known)).is_relative_to(hidden))
        ):
            error.filename = str(path)
        raise
