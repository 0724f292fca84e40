"""Writing samples that were not built from video: rendered truth, imported truth, what a model generated.

    columns = {"rgb": "render-1", "depth": "render-1"}
    for record, values in scenes:
        writer.save_sample(root, shard, record, values, columns, run)
    writer.commit_shard(root, shard, keys, columns, run)
    writer.write_manifest(root, configuration, columns, clips, shards, run)

Each sample is an atomic file until its shard is committed, so a killed writer resumes where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openuni
from openuni import modalities
from openuni.errors import InvalidAnnotationError
from openuni.sample import Annotation, Record, Status
from openuni.shards import columns as columns_
from openuni.shards import layout, results
from openuni.shards.layout import Manifest
from openuni.shards.results import ColumnNote, DamagedResultError, Result
from openuni.storage import LocalStore


def encode_sample(
    record: Record, annotations: Mapping[str, Annotation[Any] | str], columns: Mapping[str, str]
) -> dict[str, Result]:
    """A result for every column. `annotations` gives a value, or the reason why the sample has none.

    Raises InvalidAnnotationError where a value is nonsense or has other frames or another size than `record`.
    """
    made: dict[str, Result] = {}
    for column, fingerprint in columns.items():
        annotation = annotations.get(column, "not made")
        note_record = record if column == "rgb" else None
        if isinstance(annotation, str):
            made[column] = Result(column, ColumnNote(Status(False, annotation, fingerprint), record=note_record))
            continue
        modality = modalities.get(column)
        modality.check(annotation.value)
        expected, found = (record.frames, record.height, record.width), modality.shape(annotation.value)
        if found != expected:
            raise InvalidAnnotationError(f"{record.key}: {column} is {found} (frames, height, width), not {expected}")
        encoded = modality.encode(annotation.value)
        status = Status(True, expert=fingerprint, confidence=annotation.confidence)
        note = ColumnNote(status, encoded.meta, dict(annotation.scores), note_record)
        made[column] = Result(column, note, encoded.members)
    return made


def save_sample(
    root: Path,
    shard: int,
    record: Record,
    annotations: Mapping[str, Annotation[Any] | str],
    columns: Mapping[str, str],
    run: str,
) -> None:
    """Encode one sample and keep it in `work/`. RGB is saved last: `is_saved` then means that all of it is."""
    made = encode_sample(record, annotations, columns)
    results.open_work(root, shard)
    for column in sorted(made, key=lambda name: name == "rgb"):
        results.save(root, shard, record.key, _print(column, columns), made[column], run)


def is_saved(root: Path, shard: int, key: str, columns: Mapping[str, str]) -> bool:
    return results.exists(root, shard, key, _print("rgb", columns))


def commit_shard(root: Path, shard: int, keys: Sequence[str], columns: Mapping[str, str], run: str) -> None:
    """Commit every column of a shard whose samples are all saved, RGB first, and empty its folder in `work/`.

    Raises DamagedResultError where a saved sample is not as it was written; it then no longer counts as saved.

    Keys ascend from shard to shard too: the reader finds a key by the first one of each.
    """
    for column in sorted(columns, key=lambda name: name != "rgb"):
        fingerprint = columns[column]
        record = columns_.committed(root, shard, column)
        if record is not None and record.fingerprint == fingerprint:
            continue
        stored = ((key, results.load(root, shard, key, _print(column, columns))) for key in sorted(keys))
        try:
            columns_.commit(root, shard, column, fingerprint, stored, run)
        except DamagedResultError as error:
            # Without RGB's the sample does not count as saved: the next run makes it again.
            LocalStore(root).delete(layout.result_name(shard, error.key, _print("rgb", columns)))
            raise
    results.close_work(root, shard)


def write_manifest(
    root: Path, configuration: Mapping[str, Any], columns: Mapping[str, str], clips: int, shards: int, run: str
) -> Manifest:
    """`dataset.json` of a dataset that has no plan: its samples do not come from videos."""
    told = layout.laid_out(configuration, shards)
    manifest = Manifest(told, columns, clips, shards, plan_sha256="", openuni=openuni.__version__)
    LocalStore(root).put(layout.MANIFEST, layout.dump_checked(manifest), run)
    return manifest


def _print(column: str, columns: Mapping[str, str]) -> str:
    """Columns of one maker share a fingerprint; in `work/` the column's name keeps their files apart."""
    return f"{columns[column]}.{column}"
