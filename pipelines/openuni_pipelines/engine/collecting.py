"""Real clips of a built dataset, frozen as a list and copied into a small one of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from openuni.errors import CorruptDataError, PlanError
from openuni.sample import Split
from openuni.shards import columns as columns_
from openuni.shards import layout, writer
from openuni.shards.reader import Dataset
from openuni.shards.results import Result
from openuni.storage import DOCUMENT, LocalStore
from openuni_pipelines.engine import stopping
from openuni_pipelines.engine.parallel import HERE, Parallel, mapping
from openuni_pipelines.engine.run import holding, start_over
from unibench.standard import collect
from unibench.standard.collect import Chosen, Collected

SHARD_SIZE = 64


def freeze(
    data: Dataset, out: Path, count: int, seed: int, splits: Sequence[Split], parallel: Parallel = HERE
) -> Collected:
    """Choose clips of `data`, copy them into a new dataset `out` and write their list into it.

    Raises PlanError where `out` holds a dataset, or `data` has too few clips.
    """
    picked = collect.choose(data, count, seed, splits)
    clips = tuple(Chosen(one.key, one.video, one.split, one.subset, view, {}) for one, view in picked)
    return _copy(data, out, Collected(seed, tuple(splits), dict(data.manifest.columns), clips), parallel)


def copy(data: Dataset, out: Path, frozen: Collected, parallel: Parallel = HERE) -> Collected:
    """Copy the clips of a frozen list out of `data` once more. Raises CorruptDataError for one that has changed."""
    if lacking := [name for name in frozen.columns if name not in data.columns]:
        raise PlanError(f"{data.url} lacks {', '.join(lacking)}, which the list has; it is not the dataset of the list")
    return _copy(data, out, frozen, parallel)


def _copy(data: Dataset, out: Path, wanted: Collected, parallel: Parallel) -> Collected:
    """Copy members as they are stored, hashing them; where the list has a hash already, it must agree."""
    clips = sorted(wanted.clips, key=lambda clip: clip.key)
    shards = [tuple(clips[i : i + SHARD_SIZE]) for i in range(0, len(clips), SHARD_SIZE)]
    hashes: dict[str, dict[str, str]] = {clip.key: {} for clip in clips}
    with holding(out) as run, mapping(parallel.workers, parallel.ray_address) as mapped:
        start_over(out)
        due = [
            _Column(out.absolute(), number, column, fingerprint, some, run)
            for number, some in enumerate(shards)
            for column, fingerprint in wanted.columns.items()
        ]
        for one, copied in zip(due, mapped(partial(_copy_column, data), due), strict=True):
            for key, sha256 in copied.items():
                hashes[key][one.column] = sha256
        frozen = replace(wanted, clips=tuple(replace(clip, sha256=hashes[clip.key]) for clip in clips))
        data_of_list = layout.dump_json(frozen)
        layout.write_atomic(out / collect.LIST, data_of_list, run)
        # The manifest is last: without it the folder is not a dataset, and the next run starts over.
        configuration = {"source": "unibench collect", "list_sha256": layout.digest(data_of_list)}
        writer.write_manifest(out, configuration, wanted.columns, len(clips), len(shards), run)
    return frozen


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of one shard that is to be copied."""

    out: Path
    shard: int
    column: str
    fingerprint: str
    clips: tuple[Chosen, ...]
    run: str


def _copy_column(data: Dataset, due: _Column) -> dict[str, str]:
    """Copy and commit one column of one shard; the SHA-256 of what is stored of each clip, by key."""
    hashes: dict[str, str] = {}

    def stored() -> Iterator[tuple[str, Result]]:
        for clip in due.clips:
            stopping.check()
            try:
                result = data.result(clip.key, due.column)
            except KeyError:
                raise PlanError(f"{data.url} has no clip {clip.key}; it is not the dataset of the list") from None
            sha256 = hashes[clip.key] = collect.digest(result)
            if clip.sha256.get(due.column, sha256) != sha256:
                raise CorruptDataError(f"{clip.key}: {due.column} in {data.url} is not what the list froze")
            yield clip.key, result

    columns_.commit(due.out, due.shard, due.column, due.fingerprint, stored(), due.run)
    return hashes


def read_list(path: Path) -> Collected:
    """A frozen list. Raises CorruptDataError naming the file that is none."""
    frozen = layout.parse_json(Collected, LocalStore(path.parent).read(path.name, at_most=DOCUMENT), str(path))
    if frozen.version != 1:
        raise CorruptDataError(f"{path} is a list of version {frozen.version}; this program reads version 1")
    if len({clip.key for clip in frozen.clips}) != len(frozen.clips) or not frozen.clips:
        raise CorruptDataError(f"{path} names no clip, or one twice")
    for clip in frozen.clips:
        if "rgb" not in frozen.columns or clip.sha256.keys() != frozen.columns.keys():
            raise CorruptDataError(f"{path} lacks hashes of {clip.key}: it needs one of RGB and of each other column")
        if clip.split == "train":
            raise CorruptDataError(f"{path} names {clip.key}, which is trained on; a list has clips of test and val")
    return frozen
