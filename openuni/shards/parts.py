"""Parts: a plan carried out by processes that have nothing in common but the dataset's folder.

Part i of n has the shards i-1, i-1+n, i-1+2n, … Its lock, log, progress and failures lie in `parts/i-of-n`, so that
no two parts write one file; what they commit lies where every run's does. Whoever holds the whole dataset next folds
the folder into the dataset's own files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from openuni.errors import PlanError
from openuni.shards import failures, layout
from openuni.shards.failures import Failure
from openuni.storage import LocalStore

FOLDER = "parts"
MOST = 100_000
"""Parts that a plan can be divided into."""
_NAME = re.compile(r"([1-9][0-9]{0,5})-of-([1-9][0-9]{0,5})")
_WRITTEN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Part `number` of `of`, counted from 1. Raises PlanError on what is none."""

    of: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST:
            raise PlanError(f"there is no part {self}: parts go from 1/n to n/n, with n up to {MOST:,}")

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part that is written `2/4`. Raises PlanError.

        Example:
            >>> list(Part.parse("2/4").shards(10))
            [1, 5, 9]
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            raise PlanError(f"{text!r} is not a part: write 2/4 for the second of four")
        return cls(number=int(match[1]), of=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """Where its lock, log, progress and failures lie."""
        return f"{FOLDER}/{self.number}-of-{self.of}"

    def shards(self, total: int) -> range:
        """Its shards out of `total`."""
        return range(self.number - 1, total, self.of)


def home(root: Path, part: Part | None) -> Path:
    """Where a run keeps what is its own: the dataset's folder, or below it that of its part."""
    return root if part is None else root / part.folder


def there(root: Path) -> list[Part]:
    """Parts that have begun and are not folded yet, in order."""
    matches = (_NAME.fullmatch(name.rpartition("/")[2]) for name in LocalStore(root).list(FOLDER))
    return sorted(
        Part(number=int(match[1]), of=int(match[2])) for match in matches if match and int(match[1]) <= int(match[2])
    )


def known_failures(root: Path, part: Part, shards: range) -> list[Failure]:
    """What is written down of a part's shards: by the part itself, or before the dataset was divided."""
    if (home(root, part) / layout.FAILURES).exists():
        return failures.read(home(root, part))
    return [failure for failure in failures.read(root) if failure.shard in shards]


def all_failures(root: Path, shards: int) -> list[Failure]:
    """The failures of a dataset that may be divided: of each shard by who wrote them down last."""
    found = failures.read(root)
    for part in there(root):
        own = part.shards(shards)
        found = [failure for failure in found if failure.shard not in own] + known_failures(root, part, own)
    return found


def fold(root: Path, shards: int, run: str) -> None:
    """Bring what the parts wrote down into the dataset's own files, and remove their folder.

    For the holder of the whole dataset: nobody may work on a part. A kill in between loses nothing; lines of the log
    may then come twice.
    """
    if not (found := there(root)):
        return
    store = LocalStore(root)
    before, after = failures.read(root), all_failures(root, shards)
    if before != after:
        failures.write(root, after, run)
    with store.append(layout.LOG) as log:
        for part in found:
            path = home(root, part) / layout.LOG
            if path.is_file():
                with path.open("rb") as lines:
                    while block := lines.read(1 << 20):
                        log.write(block)
    store.delete_folder(FOLDER)
