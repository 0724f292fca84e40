"""Keeps the log lines of native libraries off the terminal; MediaPipe's heed neither a setting nor the environment."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_CHATTER = re.compile(rb"(INFO|WARNING): |[IW]\d{4}(\d{4})? \d\d:\d\d:\d+\.\d+ ")
"""How lines of Abseil and TensorFlow Lite begin that are not errors, of today's and of older releases."""


@contextmanager
def hidden() -> Iterator[None]:
    """Leave informations and warnings of native code out of what this process writes to file descriptor 2.

    All else that is written meanwhile, by Python too, comes when the block ends, however it ends: so it is for short
    calls, since a process that aborts in it takes its last words along.

    Example:
        >>> with hidden():
        ...     _ = os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\n")
    """
    _flush()
    try:
        terminal = os.dup(2)
    except OSError:  # closed, as a daemon's may be: nothing is to be seen there anyway
        yield
        return
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            for line in written:
                if not _CHATTER.match(line):
                    os.write(2, line)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
