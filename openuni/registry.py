"""The extension points, each an entry-point group: `openuni.modalities`, `openuni.experts`, `openuni.sources`,
`unibench.tasks`, `unibench.importers`.

A sixth modality, a new expert or source is one class (an importer one function) in any installed distribution that
names it in its group; the built-in ones are found the same way.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from openuni.errors import OpenUniError

# The order of tables, reports and a model's modalities. Installers sort entry points as they like, so a file's order
# in pyproject.toml says nothing; names that are not here follow by the alphabet.
ORDER = ("rgb", "depth", "flow", "segmentation", "skeleton", "densepose", "video", "consistency", "physics")


def names(group: str) -> list[str]:
    """Names registered in `openuni.<group>`, or in the group of that full name.

    Built-in ones come first; then by `ORDER`, then by the alphabet.

    Example:
        >>> from openuni import registry
        >>> registry.names("modalities")[:3]
        ['rgb', 'depth', 'flow']
    """
    return list(_entries(group, tuple(sys.path)))


def load(group: str, name: str) -> Any:
    """What is registered as `name` in `openuni.<group>`: a class, or in the group `assets` a tuple of assets.

    Raises OpenUniError listing the known names, or naming the distribution whose entry cannot be imported.

    Example:
        >>> from openuni import registry
        >>> registry.load("modalities", "depth")
        <class 'openuni.modalities.depth.DepthModality'>
    """
    entries = _entries(group, tuple(sys.path))
    if name not in entries:
        raise OpenUniError(f"there is no {name!r} among the installed {group}: {', '.join(entries)}")
    try:
        return entries[name].load()
    except (ImportError, AttributeError) as error:
        value = entries[name].value
        remedy = "repair or uninstall its package"
        raise OpenUniError(f"{group}: {name!r} ({value}) cannot be imported: {error}; {remedy}") from error


@cache
def _entries(group: str, _path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Entry points by name; cached by `sys.path`, because scanning distributions takes milliseconds."""
    full = group if "." in group else f"openuni.{group}"
    registered = sorted(entry_points(group=full), key=_place)
    entries: dict[str, EntryPoint] = {}
    for entry in registered:
        other = entries.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise OpenUniError(f"{group}: {entry.name!r} is registered twice, as {other.value} and {entry.value}")
    return entries


def _place(entry: EntryPoint) -> tuple[bool, int, str]:
    place = ORDER.index(entry.name) if entry.name in ORDER else len(ORDER)
    return not entry.value.startswith(("openuni.", "unibench.")), place, entry.name
