"""UniBench-real: real clips of a dataset, chosen evenly over subsets and views, frozen as a list with hashes.

They are the controls and the references of generation, as the second 200 of the paper's UniBench are. Clips come from
splits that no training reads. The split hangs on the source video's id alone (`openuni.sample.split_of`), so a clip
that is collected here is off the training split of every dataset that is built from the same videos.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from openuni.errors import PlanError
from openuni.sample import Split, Subset
from openuni.shards import results
from openuni.shards.reader import NOT_YET, Dataset
from openuni.shards.results import Result

LIST = "collected.json"
"""The list's name in the folder of the dataset that was collected."""
SUBSETS: tuple[Subset, ...] = get_args(Subset)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip that may be chosen: its source video, its subset and the views that it has besides RGB."""

    key: str
    video: str
    split: Split
    subset: Subset
    views: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A frozen clip: what it was chosen for (`subset`, `view`), and the SHA-256 of what each column stores of it."""

    key: str
    video: str
    split: Split
    subset: Subset
    view: str
    sha256: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Collected:
    """The list. `columns`: fingerprints of what made the columns; `seed` and `splits`: how the choice was made."""

    seed: int
    splits: tuple[Split, ...]
    columns: Mapping[str, str]
    clips: tuple[Chosen, ...]
    version: int = 1


def candidates(data: Dataset, splits: Sequence[Split]) -> Iterable[Candidate]:
    """The clips of these splits with at least one view, from the index alone.

    Clips of shards that lack a column are left out: what they have is not known yet.
    """
    for sample in data:
        if any(status.reason == NOT_YET for status in sample.statuses.values()):
            continue
        record = sample.record
        views = tuple(name for name in data.columns if name != "rgb" and name in sample)
        if record.split in splits and views and "rgb" in sample:
            yield Candidate(record.key, record.video_id or record.key, record.split, record.subset, views)


def select(found: Iterable[Candidate], count: int, seed: int) -> list[tuple[Candidate, str]]:
    """Up to `count` clips, each with the view that it was chosen for; at most one of each source video.

    A cell is a subset and a view. The cell with the fewest clips so far takes its next one, in an order hashed from
    the seed, until there are `count` or every cell is empty: so cells are even as far as they have clips. The same
    clips give the same choice in whatever order they come. Memory holds `2·count` clips a cell.
    """
    cells: dict[tuple[Subset, str], dict[str, tuple[bytes, bytes, Candidate]]] = {}
    for one in found:
        ranked = _hash(seed, one.video), _hash(seed, one.key), one
        for view in one.views:
            cell = cells.setdefault((one.subset, view), {})
            if one.video not in cell or ranked[:2] < cell[one.video][:2]:
                cell[one.video] = ranked
            if len(cell) > 2 * count:
                # Fewer than `count` videos can be taken by other cells before this one's turn: more never matter.
                cells[one.subset, view] = {r[2].video: r for r in _in_order(cell)[:count]}
    queues = {name: [r[2] for r in _in_order(cells[name])] for name in sorted(cells, key=_place)}
    picked: list[tuple[Candidate, str]] = []
    used, taken = set[str](), Counter[tuple[Subset, str]]()
    while queues and len(picked) < count:
        name = min(queues, key=lambda name: taken[name])
        free = next((c for c in queues[name] if c.video not in used), None)
        if free is None:
            del queues[name]
            continue
        used.add(free.video)
        taken[name] += 1
        picked.append((free, name[1]))
    return picked


def digest(result: Result) -> str:
    """SHA-256 over all that a column stores of a clip: the note, and the members by name."""
    hashed = hashlib.sha256(results.encode_note(result.note))
    for name in sorted(result.members):
        hashed.update(f"{name} {len(result.members[name])}\n".encode())
        hashed.update(result.members[name])
    return hashed.hexdigest()


def choose(data: Dataset, count: int, seed: int, splits: Sequence[Split]) -> list[tuple[Candidate, str]]:
    """`select` over a dataset, in the order of keys. Raises PlanError where it has too few."""
    picked = select(candidates(data, splits), count, seed)
    if len(picked) < count:
        have = f"clips of only {len(picked)} source videos" if picked else "no clip with a view"
        fewer = f"ask for fewer with --count {len(picked)}, " if picked else ""
        raise PlanError(
            f"{data.url} has {have} in split {' and '.join(splits)} (by a hash of their ids one video in a hundred is "
            f"test and one is val); {fewer}add --split val, or build more"
        )
    return sorted(picked, key=lambda pair: pair[0].key)


def _hash(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}/{text}".encode("utf-8", "surrogatepass")).digest()


def _in_order(cell: Mapping[str, tuple[bytes, bytes, Candidate]]) -> list[tuple[bytes, bytes, Candidate]]:
    return sorted(cell.values(), key=lambda ranked: ranked[:2])


def _place(cell: tuple[Subset, str]) -> tuple[int, str]:
    return SUBSETS.index(cell[0]), cell[1]
