"""What a build did not take, on the terminal: each reason, how often, and the names of the first few rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from openuni.printable import rich
from openuni.shards import layout, plan


def lines(root: Path, counts: Mapping[str, int]) -> Iterator[str]:
    """One line a reason, as Rich markup, for the dataset at `root`; `counts` as its manifest has them."""
    if not counts:
        return
    for group in plan.left_out(root / layout.PLAN, counts):
        names = [rich(name, at_most=80) for name in group.names]
        more = [] if group.count <= len(names) or not names else ["…"]
        yield f"  {group.count:,} × {rich(group.reason)}" + (": " if names else "") + ", ".join([*names, *more])
    yield f"  all of them: {rich(str(root / layout.SKIPPED))}"
