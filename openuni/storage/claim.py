"""Whose folder is it? The one rule of every command that writes, applied before any lock, sweep or file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from openuni.errors import CorruptDataError, PlanError
from openuni.printable import plain
from openuni.storage.base import DOCUMENT
from openuni.storage.local import FOLLOW_LINKS, LocalStore

MARKER = ".openuni"
"""The file that says that a folder is ours, from before its first other file until a dataset's manifest does so too."""
MANIFEST = "dataset.json"
_BEFORE_THE_MARKER = re.compile(r"\.?run\.lock|\.(run\.lock|\.openuni)\.[\w-]+\.[0-9a-f]{8}\.tmp")
"""What a run that is killed while it takes its lock leaves behind."""
_TEXT = b"Written by openuni: its commands replace and remove files of theirs in this folder.\n"


def claim(root: Path, *, marks: Sequence[str] = ()) -> bool:
    """Make `root` ours: check that it may be, make it, and mark it. True where the mark is new.

    `marks`: further files by which a folder of an earlier version is known. Raises as `check_ours` does.
    """
    check_ours(root, marks=marks)
    store = LocalStore(root)
    if _is_marked(store, marks):
        return False
    store.put(MARKER, _TEXT, "claim")
    return True


def check_ours(root: Path, *, marks: Sequence[str] = ()) -> None:
    """Raise PlanError unless `root` is missing, empty or ours, and holds no link that would be written through.

    A dataset has been known by its `dataset.json` since before there was a marker.
    """
    try:
        with os.scandir(root) as scanned:
            entries = list(scanned)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise PlanError(f"{root} is a file; name a folder") from None
    store = LocalStore(root)
    foreign = [entry.name for entry in entries if not _BEFORE_THE_MARKER.fullmatch(entry.name)]
    if foreign and not _is_marked(store, marks):
        raise PlanError(
            f"{root} holds other files ({plain(min(foreign))}), and neither {MARKER} nor {MANIFEST} says that openuni "
            "may write there; choose a new or an empty folder"
        )
    links = sorted(entry.name for entry in entries if entry.is_symlink())
    if links and not store.follow_links:
        raise PlanError(
            f"{root / links[0]} is a link, and nothing is written through links; if you made it, set {FOLLOW_LINKS}=1, "
            "else delete it"
        )


def _is_marked(store: LocalStore, marks: Sequence[str]) -> bool:
    """Other programs write a `dataset.json` too: ours names us."""
    if any(store.exists(name) for name in (MARKER, *marks)):
        return True
    try:
        return b'"openuni"' in store.read(MANIFEST, at_most=DOCUMENT)
    except (FileNotFoundError, CorruptDataError):
        return False
