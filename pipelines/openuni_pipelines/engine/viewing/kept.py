"""What was made is kept, up to a bound; what is being made is waited for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, made once however many threads ask; beyond `most` bytes the longest unused go. Thread-safe.

    Example:
        >>> kept = Kept[str, bytes](10, len)
        >>> kept.get("a", lambda: b"six...")
        b'six...'
        >>> kept.get("a", lambda: b"never made")
        b'six...'
        >>> kept.get("b", lambda: b"another"), kept.bytes
        (b'another', 7)
    """

    def __init__(self, most: int, size: Callable[[V], int]) -> None:
        self._most, self._size = most, size
        self._values: OrderedDict[K, Future[V]] = OrderedDict()
        self._sizes: dict[K, int] = {}
        self.bytes = 0
        """Of all values that are kept."""
        self._lock = threading.Lock()

    def peek(self, key: K) -> V | None:
        """The value of a key if it is kept and made."""
        with self._lock:
            return self._values[key].result() if key in self._sizes else None

    def begun(self, key: K) -> bool:
        """Whether the value of a key is kept or being made."""
        with self._lock:
            return key in self._values

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made now if it is not kept. What `make` raises, all who wait get; it is not kept."""
        with self._lock:
            future = self._values.get(key)
            mine = future is None
            if future is None:
                future = self._values[key] = Future()
            self._values.move_to_end(key)
        if mine:
            self._make(key, future, make)
        return future.result()

    def _make(self, key: K, future: Future[V], make: Callable[[], V]) -> None:
        try:
            value = make()
        except BaseException as error:  # noqa: BLE001  passed on
            with self._lock:
                self._values.pop(key, None)
            future.set_exception(error)
            return
        with self._lock:
            future.set_result(value)
            self._sizes[key] = self._size(value)
            self.bytes += self._sizes[key]
            self._forget(key)

    def _forget(self, key: K) -> None:
        """Let go of the longest unused; never of the one just made, nor of one that is being made."""
        for old in (
            [old for old in self._values if old in self._sizes and old != key] if self.bytes > self._most else ()
        ):
            if self.bytes <= self._most:
                break
            del self._values[old]
            self.bytes -= self._sizes.pop(old)
