"""How often one server is asked, by all threads together."""

from __future__ import annotations

import threading
import time

LONGEST = 1800.0
"""Seconds of the longest pause that a run sits out."""
MOST_REFUSALS = 6
"""Pauses without an answer between them after which a server is left alone until the next run."""


class Pace:
    """Lets requests to a server start one after another, `interval` seconds apart, and pause when it asks for that.

    A pause is what the server names, else `pause` seconds, doubled each time until it answers again.
    """

    def __init__(self, interval: float, pause: float, stopping: threading.Event) -> None:
        self._interval, self._pause, self._stopping = interval, pause, stopping
        self._lock = threading.Lock()
        self._next = self._paused_at = 0.0
        self._refusals = 0
        self._is_over = False

    def wait(self) -> float | None:
        """Sleep until a request may start; when it did. None where no further one is to be made in this run."""
        while not self._stopping.is_set():
            with self._lock:
                if self._is_over:
                    return None
                now = time.monotonic()
                delay = self._next - now
                if delay <= 0:
                    self._next = now + self._interval
                    return now
            self._stopping.wait(delay)
        return None

    def refused(self, started: float, retry_after: float | None) -> None:
        """The server throttled the request that started then."""
        with self._lock:
            if started < self._paused_at:  # it was under way when another one was refused: one refusal
                return
            self._refusals += 1
            pause = self._pause * 2 ** (self._refusals - 1) if retry_after is None else max(retry_after, 0.0)
            self._is_over = self._refusals >= MOST_REFUSALS or pause > LONGEST
            self._paused_at = time.monotonic()
            self._next = max(self._next, self._paused_at + min(pause, LONGEST))

    def answered(self) -> None:
        """The server answered as it should."""
        with self._lock:
            self._refusals = 0
