"""Conventional WebDataset files: one tar a shard with all members of a sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from openuni.errors import PlanError
from openuni.modalities.openpose import draw_openpose
from openuni.printable import count
from openuni.shards import results
from openuni.shards.reader import Dataset
from openuni.storage import LocalStore
from openuni.video.encode import encode_video
from openuni_pipelines.engine.run import holding


def merge(
    data: Dataset,
    out: Path,
    columns: list[str],
    *,
    openpose: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write `out/NNNNNN.tar` for each shard of `data`: all members of a sample stand together. Returns the files.

    Each file appears whole or not at all; an existing one is replaced. Absent modalities keep their JSON, which says
    why. `openpose` adds a video to each sample that has skeletons, `KEY.openpose.mp4`: RGB without loss, drawn by
    `draw_openpose`. Raises PlanError for a column that the dataset does not have, or not in every shard yet, and where
    nothing is committed: a merged file without a column would look whole.
    """
    known = [*data.columns, *data.score_columns]
    needed = [*columns, "skeleton"] if openpose else columns
    if unknown := [name for name in needed if name not in known]:
        raise PlanError(f"{data.url} has no column {', '.join(unknown)}; it has {', '.join(known)}")
    if not data.shards:
        raise PlanError(f"{data.url} has no committed sample yet; run the same `openuni build` again")
    if lacking := [s.number for s in data.shards if not set(needed) <= set(s.columns)]:
        raise PlanError(
            f"{data.url} is not complete: a column is not in {count(len(lacking), 'shard')} (the first is "
            f"{lacking[0]:06d}); run the "
            "same `openuni build` again, or choose others with --columns"
        )
    with holding(out) as run:
        return _merge(data, out, columns, openpose, run, progress)


def _merge(
    data: Dataset, out: Path, columns: list[str], openpose: bool, run: str, progress: Callable[[int, int], None]
) -> list[Path]:
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
                if openpose and "skeleton" in (sample := data[key]):
                    drawn = encode_video(draw_openpose(sample.skeleton), sample.record.fps, lossless=True)
                    results.add_member(tar, f"{key}.openpose.mp4", drawn)
        written.append(out / name)
        progress(position + 1, len(data.shards))
    return written
