"""Conventional WebDataset files: one tar a shard with all members of a sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openuni.errors import PlanError
from openuni.printable import count
from openuni.shards import results
from openuni.shards.reader import Dataset
from openuni.storage import LocalStore
from openuni_pipelines.engine.run import holding


def merge(
    data: Dataset, out: Path, columns: list[str], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """Write `out/NNNNNN.tar` for each shard of `data`: all members of a sample stand together. Returns the files.

    Each file appears whole or not at all; an existing one is replaced. Absent modalities keep their JSON, which says
    why. Raises PlanError for a column that the dataset does not have, or not in every shard yet, and where nothing
    is committed: a merged file without a column would look whole.
    """
    known = [*data.columns, *data.score_columns]
    if unknown := [name for name in columns if name not in known]:
        raise PlanError(f"{data.url} has no column {', '.join(unknown)}; it has {', '.join(known)}")
    if not data.shards:
        raise PlanError(f"{data.url} has no committed sample yet; run the same `openuni build` again")
    if lacking := [s.number for s in data.shards if not set(columns) <= set(s.columns)]:
        raise PlanError(
            f"{data.url} is not complete: a column is not in {count(len(lacking), 'shard')} (the first is "
            f"{lacking[0]:06d}); run the "
            "same `openuni build` again, or choose others with --columns"
        )
    with holding(out) as run:
        return _merge(data, out, columns, run, progress)


def _merge(data: Dataset, out: Path, columns: list[str], run: str, progress: Callable[[int, int], None]) -> list[Path]:
    written: list[Path] = []
    for position in range(len(data.shards)):
        if next(data.stored(position, []), None) is None:  # a view has nothing of this shard
            progress(position + 1, len(data.shards))
            continue
        name = f"{data.shards[position].number:06d}.tar"
        with LocalStore(out).create(name, run) as file, results.open_tar_for_writing(file) as tar:
            for key, stored in data.stored(position, columns):
                for result in stored:
                    note = results.encode_note(result.note)
                    results.add_member(tar, f"{key}.{results.note_field(result.column)}", note)
                    for field, payload in result.members.items():
                        results.add_member(tar, f"{key}.{field}", payload)
        written.append(out / name)
        progress(position + 1, len(data.shards))
    return written
