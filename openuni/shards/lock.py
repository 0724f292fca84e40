"""One run at a time may write to a dataset, or to each of its parts. The lock names its holder.

A dead holder is recognised.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from openuni import storage
from openuni.errors import CorruptDataError, PlanError
from openuni.shards import layout, parts
from openuni.shards.parts import Part
from openuni.storage import LocalStore

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A holder on another machine that has not touched its lock for this long is taken for dead."""
_GUARD = f".{layout.LOCK}"
_MOST = 1 << 16
"""Bytes that a lock may have."""


class HeldError(PlanError):
    """Somebody else holds what is asked for."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock. `born` is the boot, the container and the process's start: a reused pid is not taken for it."""

    run: str
    host: str
    pid: int
    born: str


class RunLock:
    """`with RunLock(root, run):` holds the dataset for this process. Raises HeldError naming a living holder.

    Before anything else the folder must be empty or ours (`storage.check_ours`), and then it is marked as ours, and
    temporary files that killed runs left are removed, also in the folders `sweeps`. A mark
    or a folder that was made for it, and beside or in which nothing came to lie, is removed again.

    With a `part` it holds only that part, beside the holders of the others; whoever asks for the whole must wait for
    all of them. Nothing is swept then: what the others write lies in the same folders.
    """

    def __init__(self, root: Path, run: str, sweeps: Sequence[str] = (), part: Part | None = None) -> None:
        self._root = root
        self._part = part
        self._home = parts.home(root, part)
        self._sweeps = sweeps
        self._store = LocalStore(root)
        self._name = _name(part)
        self._me = Holder(run, socket.gethostname(), os.getpid(), born(os.getpid()))
        self._is_new = self._is_newly_marked = False
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._heartbeat, daemon=True, name="openuni-lock")

    def __enter__(self) -> Self:
        storage.check_ours(self._root)
        self._is_new = not self._root.exists()
        with _one_at_a_time(self._store):
            self._check_free()
            self._store.put(self._name, layout.dump_json(self._me), self._me.run)
            self._is_newly_marked = storage.claim(self._root)
            if self._part is None:
                layout.sweep(self._root, self._sweeps)
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        with _one_at_a_time(self._store):
            if read(self._home) == self._me:
                self._store.delete(self._name)
            if self._is_newly_marked and {path.name for path in self._root.iterdir()} == {storage.MARKER, _GUARD}:
                self._store.delete(storage.MARKER)
        if self._is_new:
            with suppress(OSError):  # it holds something
                self._root.rmdir()

    def _check_free(self) -> None:
        """Raise where somebody holds some of what is asked for; take their locks from the dead.

        Without its lock a run publishes nothing, although a worker of it may live for a moment.
        """
        begun = parts.there(self._root)
        if self._part is not None and (other := next((one for one in begun if one.of != self._part.of), None)):
            raise PlanError(
                f"{self._root} is being built in {other.of} parts; go on with --part i/{other.of}, or fold what they "
                f"did with `openuni index {self._root}` and divide it anew"
            )
        for part in (None, *(one for one in begun if self._part in (None, one))):
            path = parts.home(self._root, part) / layout.LOCK
            holder = read(path.parent)
            if holder is None:
                continue
            if alive(path, holder):
                what = self._root if part is None else f"part {part} of {self._root}"
                raise HeldError(
                    f"{what} is being written by run {holder.run} (process {holder.pid} on {holder.host}). "
                    f"Wait for it or stop it; if it is certainly dead, delete {path}"
                )
            if part != self._part:
                self._store.delete(_name(part))

    def _heartbeat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError, PlanError):  # a file server that does not answer now may the next time
                if read(self._home) == self._me:
                    self._store.touch(self._name)


def _name(part: Part | None) -> str:
    return layout.LOCK if part is None else f"{part.folder}/{layout.LOCK}"


def read(home: Path) -> Holder | None:
    """Who holds the dataset or the part whose own files lie in `home`, dead or alive; None if nobody does."""
    path = home / layout.LOCK
    try:
        return layout.parse_json(Holder, LocalStore(home).read(layout.LOCK, at_most=_MOST), str(path))
    except FileNotFoundError:
        return None
    except CorruptDataError:
        raise PlanError(f"{path} is not a lock of this program; delete it if no build is running") from None


def alive(path: Path, holder: Holder) -> bool:
    """Whether the holder still runs: by its process where that can be seen, else by its heartbeat."""
    if (seen := runs(holder)) is not None:
        return seen
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def runs(holder: Holder) -> bool | None:
    """Whether its process runs; None where that cannot be seen: on another host, or in another container of this."""
    theirs, ours = holder.born.split("/"), born(os.getpid()).split("/")
    is_contained = theirs[0] == ours[0] and theirs[1:-1] != ours[1:-1]
    if holder.host != socket.gethostname() or is_contained:
        return None
    return born(holder.pid) == holder.born != ""


def check(home: Path, run: str) -> None:
    """Raise PlanError unless `run` holds the dataset or part: a worker of a killed run stops before it publishes."""
    holder = read(home)
    if holder is None or holder.run != run:
        raise PlanError(f"run {run} no longer holds {home}; nothing was published")


@contextmanager
def _one_at_a_time(store: LocalStore) -> Iterator[None]:
    """Between reading the lock and replacing it nobody else does; the kernel frees this for a process that dies.

    Tried again by who waited while the file was taken away, and by who finds that a run which did nothing has just
    taken its new folder away.
    """
    while True:
        store.root.mkdir(parents=True, exist_ok=True)  # what cannot be made raises here, and is not tried again
        with ExitStack() as stack:
            try:
                is_held = stack.enter_context(store.guard(_GUARD))
            except FileNotFoundError:
                continue
            if is_held:
                yield
                return


def born(pid: int) -> str:
    """Boot id, namespace of process ids and start time of a process from /proc, empty if there is none; where /proc is
    missing, its pid.

    Containers of one host may share its name, and count processes each by itself: the namespace is the one that `pid`
    was counted in, which is ours.
    """
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            return str(pid)
        return str(pid)
    try:
        # The command name may hold spaces and brackets; fields are counted after its closing bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid")
    counted_in = namespace.stat().st_ino if namespace.exists() else 0
    return "" if fields[0] in "ZX" else f"{boot}/{counted_in}/{fields[19]}"
