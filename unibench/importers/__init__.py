"""Other people's ground truth in OpenUni's terms: one file a format, each `read_…(src)` a stream of clips.

A format is found by its name in the entry-point group `unibench.importers`, built in or from another distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openuni import registry
from openuni.errors import OpenUniError
from unibench.importers.base import Categories, Imported, LeftOut

GROUP = "unibench.importers"


def names() -> list[str]:
    """Every format that can be imported, built-in ones first.

    Example:
        >>> "davis" in names()
        True
    """
    return registry.names(GROUP)


class Clips(Iterator[Imported]):
    """The clips of a source, one at a time; `left_out` is what has not become one, and `categories` the names of the
    source's categories, of what has been read so far.

    Raises OpenUniError where two tables of a source name one category differently.
    """

    def __init__(self, stream: Iterator[Imported | LeftOut | Categories]) -> None:
        self._stream = stream
        self.left_out: list[LeftOut] = []
        self.categories: dict[int, str] = {}

    def __next__(self) -> Imported:
        for item in self._stream:
            if isinstance(item, Imported):
                return item
            if isinstance(item, LeftOut):
                self.left_out.append(item)
                continue
            for number, name in item.names.items():
                if self.categories.setdefault(number, name) != name:
                    raise OpenUniError(
                        f"category {number} is {name!r} in one table and {self.categories[number]!r} in another; "
                        "import them apart"
                    )
        raise StopIteration


def read(name: str, src: Path) -> Clips:
    """Stream the clips of a folder in a format. Raises OpenUniError listing the formats, or (while it is read) naming a
    bad file."""
    reader = registry.load(GROUP, name)
    if not src.is_dir():
        raise OpenUniError(f"{src} is not a folder; give the one that holds the files of {name}")
    return Clips(reader(src))


__all__ = ["Categories", "Clips", "Imported", "LeftOut", "names", "read"]
