"""Other people's ground truth as an OpenUni dataset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openuni.errors import PlanError
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record, make_key
from openuni.shards import layout, writer
from openuni_pipelines.engine.parallel import HERE, Parallel, mapping
from openuni_pipelines.engine.run import start_over
from openuni_pipelines.engine.truth_in_bucket import holding_truth
from unibench.formats import sidecar
from unibench.importers import Imported, LeftOut, read

_COLUMNS = ("rgb", "depth", "flow", "segmentation", "skeleton")
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Clip:
    """An imported clip: its key, its size, and what a reader of its scores must know."""

    key: str
    frames: int
    height: int
    width: int
    notes: tuple[str, ...]


def import_truth(
    name: str,
    src: Path,
    out: Path | str,
    parallel: Parallel = HERE,
    *,
    staging: Path | None = None,
    shard_size: int = 64,
    progress: Callable[[Clip | LeftOut], None] = lambda news: None,
) -> int:
    """Read the clips of `src` in format `name` and write them as a dataset; the number of clips.

    Readers stream, so clips are read here; `parallel` says where they are encoded and stored. `progress` is told of
    each clip in the order of the source, and at the end of what became none. `out` in an object store is staged in a
    folder, a shard at a time. Raises PlanError where `out` holds a
    dataset, and OpenUniError naming the first file that is not what it claims.
    """
    columns = dict.fromkeys(_COLUMNS, f"import-{name}-{_VERSION}")
    count = shards = 0
    with holding_truth(out, staging) as held, mapping(parallel.workers, parallel.ray_address) as mapped:
        root, run, far = held.root, held.run, held.bucket
        start_over(root)
        if far is not None:
            if far.manifest() is not None:
                raise PlanError(f"{out} holds a dataset already; choose another --out or delete it")
            far.start_over()
        source = read(name, src)
        due = (_Save(root.absolute(), run, name, shard_size, number, clip) for number, clip in enumerate(source))
        clips = mapped(_save, due)
        while batch := list(_told(itertools.islice(clips, shard_size), progress)):
            writer.commit_shard(root, shards, [clip.key for clip in batch], columns, run)
            if far is not None:
                far.put_shard(shards, [clip.key for clip in batch], columns)
            count += len(batch)
            shards += 1
        for left in source.left_out:
            progress(left)
        if not count:
            raise PlanError(f"{src} holds no clip of format {name}; point to the folder that its documentation names")
        configuration: dict[str, Any] = {"source": f"unibench import {name}"}
        if source.categories:
            configuration["categories"] = {str(number): label for number, label in sorted(source.categories.items())}
        if far is None:
            writer.write_manifest(root, configuration, columns, count, shards, run)
        else:
            far.finish(far.put_manifest(configuration, columns, count, shards))
    return count


def _told(clips: Iterable[Clip], progress: Callable[[Clip | LeftOut], None]) -> Iterator[Clip]:
    for clip in clips:
        progress(clip)
        yield clip


@dataclass(frozen=True, slots=True)
class _Save:
    out: Path
    run: str
    name: str
    shard_size: int
    number: int
    clip: Imported


def _save(task: _Save) -> Clip:
    """Store one clip and its side-car, under a key that ascends with the order of the source."""
    clip, name, run = task.clip, task.name, task.run
    key = f"{task.number:06d}-{make_key(clip.key)}"[:64]
    frames, height, width = clip.rgb.shape[:3]
    video = (clip.video or key) if clip.number is None else str(clip.number)
    record = Record(key, frames, height, width, clip.fps, split="test", source=name, source_id=clip.key, video_id=video)
    annotations: dict[str, Annotation[Any] | str] = {"rgb": Annotation(Rgb(clip.rgb, clip.fps, exact=True), 1.0)}
    for column in _COLUMNS[1:]:
        value = getattr(clip, column)
        annotations[column] = f"{name} has none" if value is None else Annotation(value, 1.0)
    folder = task.out / sidecar.FOLDER / key
    if clip.camera is not None:
        layout.write_atomic(folder / "camera.npz", sidecar.encode_camera(clip.camera), run)
    if clip.normals is not None:
        layout.write_atomic(folder / "normals.npz", sidecar.encode_normals(clip.normals), run)
    if clip.notes:
        layout.write_atomic(folder / "notes.txt", ("\n".join(clip.notes) + "\n").encode(), run)
    columns = dict.fromkeys(_COLUMNS, f"import-{name}-{_VERSION}")
    writer.save_sample(task.out, task.number // task.shard_size, record, annotations, columns, run)
    return Clip(key, frames, height, width, tuple(clip.notes))
