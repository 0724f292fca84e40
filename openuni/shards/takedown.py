"""Takedowns: which clips were removed from a dataset for good, without naming them.

`takedowns.json` keeps the SHA-256 of keys and ids, so that nothing in the folder tells what was in it, and a dataset
that grows later does not take the same clips in again. An entry that is not `done` is a removal that was interrupted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from openuni.sample import Clip, Record
from openuni.shards import layout
from openuni.storage import DOCUMENT, LocalStore

FILE = "takedowns.json"
Kind = Literal["key", "source_id", "video_id"]
_PARTED = re.compile(r"[-_./]")
"""What stands between the id of a video and the number of a part of it."""


@dataclass(frozen=True, slots=True)
class Takedown:
    """One removal. `digests` of what was asked for and of the keys that were found; `reason` in the user's words.

    `shards` gives the columns, with their fingerprints, that each touched shard had; `plans` the SHA-256 of each plan
    as it is to be afterwards.
    """

    when: str
    reason: str
    digests: Sequence[str]
    clips: int
    shards: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    plans: Mapping[str, str] = field(default_factory=dict)
    done: bool = False


@dataclass(frozen=True, slots=True)
class Takedowns:
    """All removals of a dataset, in order."""

    entries: Sequence[Takedown] = ()

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(one for entry in self.entries for one in entry.digests)


def digest(kind: Kind, name: str) -> str:
    """How a key or id is remembered.

    Example:
        >>> digest("key", "bunny")[:8]
        'c08c8938'
    """
    return layout.digest(f"{kind}/{name}".encode("utf-8", "surrogatepass"))


def digests_in(name: str) -> Iterator[str]:
    """All by which a row that became no clip may have been taken down, of its `name`: an id, or a path.

    The tables beside a plan have nothing else of such a row. Its id is what its clip's would have been, or begins with
    its video's, as those of parts of a video do.

    Example:
        >>> digest("video_id", "bunny") in digests_in("films/bunny-0003")
        True
    """
    for whole in {name, name.rpartition("/")[2]}:
        for start in (whole, *(whole[: parted.start()] for parted in _PARTED.finditer(whole))):
            yield from (digest(kind, start) for kind in get_args(Kind))


def digests_of(clip: Clip | Record) -> set[str]:
    """All by which a clip may have been taken down."""
    named: dict[Kind, str] = {"key": clip.key, "source_id": clip.source_id, "video_id": clip.video_id}
    return {digest(kind, name) for kind, name in named.items() if name}


def read(root: Path) -> Takedowns:
    """What was taken down. Raises CorruptDataError where the file is not as it was written."""
    store = LocalStore(root)
    try:
        data = store.read(FILE, at_most=DOCUMENT)
    except FileNotFoundError:
        return Takedowns()
    return layout.parse_checked(Takedowns, data, store.where(FILE))


def write(root: Path, takedowns: Takedowns, run: str) -> None:
    LocalStore(root).put(FILE, layout.dump_checked(takedowns), run)
