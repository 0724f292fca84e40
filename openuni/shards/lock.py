"""One run at a time may write to a data set. The lock names its holder, and a dead holder is recognised."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from openuni.errors import CorruptDataError, PlanError
from openuni.shards import layout

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A holder on another machine that has not touched its lock for this long is taken for dead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock. `born` is the process's start in kernel ticks, so a reused pid is not mistaken for it."""

    run: str
    host: str
    pid: int
    born: str


class RunLock:
    """`with RunLock(root, run):` holds the data set for this process. Raises PlanError naming a living holder."""

    def __init__(self, root: Path, run: str) -> None:
        self._path = root / layout.LOCK
        self._me = Holder(run, socket.gethostname(), os.getpid(), _born(os.getpid()))
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._heartbeat, daemon=True, name="openuni-lock")

    def __enter__(self) -> RunLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            holder = read(self._path.parent)
            if holder is None:
                continue
            if alive(self._path, holder):
                raise PlanError(
                    f"{self._path.parent} is being written by run {holder.run} (process {holder.pid} on "
                    f"{holder.host}). Wait for it or stop it; if it is certainly dead, delete {self._path}"
                )
            self._bury(holder)
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if read(self._path.parent) == self._me:
            self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        # Written aside and linked: the lock never exists without its content.
        aside = self._path.with_name(f".{layout.LOCK}.{self._me.run}.new")
        aside.write_text(json.dumps(asdict(self._me)))
        try:
            os.link(aside, self._path)
        except FileExistsError:
            return False
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _bury(self, dead: Holder) -> None:
        """Move a dead holder's lock away. Another newcomer may have been faster: then what was moved is put back."""
        grave = self._path.with_name(f".{layout.LOCK}.{self._me.run}.dead")
        try:
            self._path.rename(grave)
        except FileNotFoundError:
            return
        if layout.parse_json(Holder, grave.read_bytes(), str(grave)) != dead:
            os.link(grave, self._path)
        grave.unlink()

    def _heartbeat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if read(self._path.parent) != self._me:
                return
            os.utime(self._path)


def read(root: Path) -> Holder | None:
    """Who holds the data set, dead or alive; None if nobody does."""
    path = root / layout.LOCK
    try:
        return layout.parse_json(Holder, path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except CorruptDataError:
        raise PlanError(f"{path} is not a lock of this program; delete it if no build is running") from None


def alive(path: Path, holder: Holder) -> bool:
    """Whether the holder still runs: by its process on this host, by its heartbeat on another."""
    if holder.host == socket.gethostname():
        return _born(holder.pid) == holder.born != ""
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def check(root: Path, run: str) -> None:
    """Raise PlanError unless `run` holds the data set: a worker of a killed run stops before it publishes."""
    holder = read(root)
    if holder is None or holder.run != run:
        raise PlanError(f"run {run} no longer holds {root}; nothing was published")


def _born(pid: int) -> str:
    """The process's start time from /proc, empty if there is no such process; where /proc is missing, its pid."""
    stat = Path(f"/proc/{pid}/stat")
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
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
