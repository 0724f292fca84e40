"""Who works on a dataset in an object store: an object that its holder writes anew every few seconds.

It is advice. It keeps two runs from doing the same work, and says who does it; what may count is decided by the commit
records alone, which are created once. So a clock that is wrong, or a holder that was taken for dead, costs work and
nothing else. Whether a holder on another machine lives is seen by watching: no clocks are compared.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from openuni.errors import OpenUniError
from openuni.shards import layout, lock
from openuni.shards.lock import HeldError, Holder
from openuni.shards.parts import Part
from openuni.storage.objects import ObjectStore

FOLDER = "leases"
BEAT_SECONDS = 15.0
_PATIENCE = 3
"""Beats that are waited for before a silent holder is taken for dead."""
_MOST = 1 << 16
_LAST_SECONDS = 10.0
"""How long a beat under way is waited for at the end."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds it, and how often that was said."""

    holder: Holder
    beat: int = 0


@contextmanager
def holding(store: ObjectStore, run: str, part: Part | None) -> Iterator[None]:
    """Hold the lease of a part, or of the whole dataset. Raises HeldError naming a holder that lives."""
    name = _name(part)
    asked = [name] if part is None else [name, _name(None)]
    others = [other for other in store.list(FOLDER) if part is None and other != name]
    for each in (*asked, *others):
        _check_free(store, each)
    mine = Lease(Holder(run, socket.gethostname(), os.getpid(), lock.born(os.getpid())))
    store.put(name, layout.dump_json(mine), run)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, name, mine, done), daemon=True, name="openuni-lease")
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join(_LAST_SECONDS)  # else it puts again what is deleted here
        with suppress(OpenUniError, FileNotFoundError):  # a lease that stays behind is found dead
            found = read(store, name)
            if found is not None and found.holder.run == run:
                store.delete(name)


def read(store: ObjectStore, name: str) -> Lease | None:
    try:
        return layout.parse_json(Lease, store.read(name, at_most=_MOST), store.where(name))
    except FileNotFoundError:
        return None


def check(store: ObjectStore, run: str) -> None:
    """Raise HeldError where another run has taken over the whole that `run` held."""
    found = read(store, _name(None))
    if found is not None and found.holder.run != run:
        raise HeldError(f"{store.url} was taken over by run {found.holder.run}; run {run} puts nothing more there")


def all_leases(store: ObjectStore) -> dict[str, Lease]:
    """What is held, by `whole` or the part's name, by the living and the dead."""
    found = ((name, read(store, name)) for name in store.list(FOLDER))
    return {name.rpartition("/")[2].removesuffix(".json"): lease for name, lease in found if lease is not None}


def _check_free(store: ObjectStore, name: str) -> None:
    """Raise HeldError where a lease is held by somebody who lives: by its process on this machine, else by its beat."""
    before = read(store, name)
    if before is None:
        return
    holder = before.holder
    lives = lock.runs(holder)
    if lives is None:
        lives = _beats(store, name, before)
    if lives:
        raise HeldError(
            f"{store.url} ({name}) is being written by run {holder.run} (process {holder.pid} on {holder.host}). "
            f"Wait for it or stop it; if it is certainly dead, delete {store.where(name)}"
        )


def _beats(store: ObjectStore, name: str, before: Lease) -> bool:
    """Whether the lease is written anew while this waits; a lease that is given back is nobody's."""
    end = time.monotonic() + _PATIENCE * BEAT_SECONDS
    while (now := read(store, name)) == before and time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 4)
    return now not in (None, before)


def _beat(store: ObjectStore, name: str, lease: Lease, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        with suppress(OpenUniError, OSError):  # a store that does not answer now may the next time
            found = read(store, name)
            if found is not None and found.holder.run != lease.holder.run:
                return  # taken over: it is advice, and the records decide
            lease = replace(lease, beat=lease.beat + 1)
            store.put(name, layout.dump_json(lease), lease.holder.run)


def _name(part: Part | None) -> str:
    return f"{FOLDER}/whole.json" if part is None else f"{FOLDER}/{part.number}-of-{part.of}.json"
