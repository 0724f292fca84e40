"""Being asked to stop: SIGINT and SIGTERM become KeyboardInterrupt, and none is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_blocks: list[list[int]] = []
"""The signals that came to each open block; the module's own, because a process has one set of handlers."""


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Signals that ask this process to end raise KeyboardInterrupt in the block; their numbers are in the list.

    It is KeyboardInterrupt for SIGTERM too: no expert's `except Exception` swallows it, and Ray, which runs the handler
    in the middle of its waiting, passes on no other. After the first signal the next one ends the process at once.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # Python delivers signals to the main thread only
        return

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    _blocks.append(received)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
        check()
    finally:
        _blocks.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raise KeyboardInterrupt if this process has been asked to stop; every long loop calls it once a round.

    The handler raises wherever Python happens to be. In a finaliser, or below C code that clears errors as it asks for
    an attribute, the exception ends there and the work would go on.
    """
    if any(_blocks):
        raise KeyboardInterrupt
