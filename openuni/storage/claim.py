"""Whose folder is it? The one rule of every command that writes, applied before any lock, sweep or file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from openuni.errors import CorruptDataError, PlanError
from openuni.printable import plain
from openuni.storage.base import DOCUMENT
from openuni.storage.local import FOLLOW_LINKS, MANIFEST, MARKER, LocalStore

_BEFORE_THE_MARKER = re.compile(r"\.?run\.lock|\.(run\.lock|\.openuni)\.[\w-]+\.[0-9a-f]{8}\.tmp")
"""What a run that is killed while it takes its lock leaves behind."""
_NOBODYS = frozenset({"lost+found", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir", ".snapshot", ".Trash-1000"})
"""What a file system or a file manager puts into a folder that is empty to its user: the root of a new disk has one."""
_TEXT = b"Written by openuni: its commands replace and remove files of theirs in this folder.\n"


def claim(root: Path, *, marks: Sequence[str] = (), below: Path | None = None) -> bool:
    """Make `root` ours: check that it may be, make it, and mark it. True where it was not ours before.

    `marks`: further files by which a folder of an earlier version is known. `below`: the folder of somebody else's that
    `root` lies in, where the user did not name `root` himself (`PRED/score`). Raises as `check_ours` does.
    """
    if below is not None:
        LocalStore(below).make_folder(root.relative_to(below).as_posix())
    check_ours(root, marks=marks)
    store = LocalStore(root)
    was_ours = _is_marked(store, marks)
    if not _is_marked(store, ()):
        store.put(MARKER, _TEXT, "claim")
    return not was_ours


def check_ours(root: Path, *, marks: Sequence[str] = ()) -> None:
    """Raise PlanError unless `root` is missing, empty or ours, and holds no link that would be written through.

    CorruptDataError where `dataset.json` is damaged; by that a dataset has been known since before there was a marker.
    """
    try:
        with os.scandir(root) as scanned:
            entries = list(scanned)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise PlanError(f"{root} cannot be written: it, or what it lies in, is a file; name a folder") from None
    store = LocalStore(root)
    names = {entry.name for entry in entries} - _NOBODYS
    foreign = [name for name in names if not _BEFORE_THE_MARKER.fullmatch(name)]
    if foreign and not _is_marked(store, marks):
        raise PlanError(
            f"{root} is not empty and not a dataset or another folder of openuni's: it holds {plain(min(foreign))}, "
            f"and no {MARKER}; choose a new or an empty folder"
        )
    links = sorted(entry.name for entry in entries if entry.is_symlink())
    if links and not store.follow_links:
        raise PlanError(
            f"{root / links[0]} is a link, and nothing is written through links; if you made it, pass "
            f"--follow-links (or set {FOLLOW_LINKS}=1), else delete it"
        )


def _is_marked(store: LocalStore, marks: Sequence[str]) -> bool:
    """Other programs write a `dataset.json` too: ours names us."""
    if any(store.exists(name) for name in (MARKER, *marks)):
        return True
    try:
        manifest = json.loads(store.read(MANIFEST, at_most=DOCUMENT))
    except FileNotFoundError:
        return False
    except (ValueError, RecursionError):
        where = store.where(MANIFEST)
        raise CorruptDataError(f"{where} is damaged, so whose folder it is in cannot be told; restore it") from None
    return isinstance(manifest, dict) and "openuni" in manifest
