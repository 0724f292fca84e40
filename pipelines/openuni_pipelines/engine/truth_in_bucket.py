"""Rendered and imported truth in a bucket: made in a local folder shard by shard, and put into the bucket from there.

A complete shard is put with its side-cars and previews first and its columns last, and then deleted from the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openuni
from openuni import outputs, storage
from openuni.errors import PlanError
from openuni.shards import bucket, catalog, layout
from openuni.shards.bucket import BeatenError
from openuni.shards.layout import Manifest
from openuni.storage import DOCUMENT, LocalStore, is_object_url
from openuni.storage.objects import ObjectStore
from openuni_pipelines.engine.run import holding
from unibench.formats import sidecar
from unibench.report import previews

_AT_ONCE = 16
"""Side-cars that are under way together."""
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Held:
    """A dataset of truth that this run holds: the folder that it is made in, and the bucket that it is put into."""

    root: Path
    run: str
    bucket: TruthInBucket | None


@contextmanager
def holding_truth(out: Path | str, staging: Path | None = None) -> Iterator[Held]:
    """Hold a folder, or a place in a bucket and the folder that stages it. Raises PlanError as those do."""
    url = out.rstrip("/") if isinstance(out, str) and is_object_url(out) else ""
    if staging is not None and not url:
        raise PlanError("--staging is for an --out in an object store (s3://…); a folder is written where it is")
    root = folder_of(out, staging)
    if url:
        storage.claim(root)
    with holding(root, [sidecar.FOLDER, previews.FOLDER]) as run:
        if not url:
            yield Held(root, run, None)
            return
        with outputs.holding(url, run, root) as store:
            yield Held(root, run, TruthInBucket(store, root, run))


def folder_of(out: Path | str, staging: Path | None) -> Path:
    """Where truth is made on this machine."""
    return staging or outputs.staging(str(out)) if is_object_url(str(out)) else Path(out)


class TruthInBucket:
    """The bucket's side of a dataset of truth."""

    def __init__(self, store: ObjectStore, root: Path, run: str) -> None:
        self.url = store.url
        self._store, self._root, self._run = store, root, run
        self._there = bucket.committed(store)

    def manifest(self) -> Manifest | None:
        """What the bucket's dataset is; None where there is none yet."""
        return bucket.read_manifest(self._store)

    def put_manifest(
        self, configuration: Mapping[str, Any], columns: Mapping[str, str], clips: int, shards: int
    ) -> Manifest:
        """Put what the dataset is. Raises BeatenError where another run was first with another."""
        own = layout.in_bucket(configuration, shards)
        manifest = Manifest(own, columns, clips, shards, plan_sha256="", openuni=openuni.__version__)
        try:
            self._store.put(layout.MANIFEST, layout.dump_checked(manifest), self._run, create_only=True)
        except FileExistsError:
            data = self._store.read(layout.MANIFEST, at_most=DOCUMENT)
            there = layout.parse_checked(Manifest, data, self._store.where(layout.MANIFEST))
            if bucket.plain(replace(there, openuni=manifest.openuni)) != bucket.plain(manifest):
                raise BeatenError(f"{self.url} was begun by another run meanwhile; choose another --out") from None
        return manifest

    def start_over(self) -> None:
        """Forget what an interrupted run committed that never put a manifest: it may be of other clips. Its tars lie
        under names with their hashes, and are not put again where they are the same."""
        for name in filter(layout.parse_commit_name, self._store.walk(layout.COMMITS)):
            self._store.delete(name)
        self._there.clear()

    def has(self, shard: int, columns: Mapping[str, str]) -> bool:
        """Whether a shard is there, with all columns."""
        return all((shard, column) in self._there for column in columns)

    def put_shard(self, shard: int, keys: Sequence[str], columns: Mapping[str, str]) -> None:
        """Put a shard that is committed in the folder, and free the folder of it; states stay, for they are few."""
        folders = [self._root / sidecar.FOLDER / key for key in keys]
        drawn = [path for key in keys for path in (self._root / previews.FOLDER).glob(f"{key}.*")]
        files = [path for folder in folders for path in folder.glob("[!.]*")] + drawn
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._put, files))
        for column in sorted(columns, key=lambda name: name != "rgb"):
            if (shard, column) not in self._there:
                bucket.push(self._store, self._root, shard, column)
                self._there.add((shard, column))
        bucket.forget(self._root, shard, columns)
        local = LocalStore(self._root)
        for path in files:
            if path.name != STATE:
                local.delete(path.relative_to(self._root).as_posix())

    def bring_states(self, keys: Sequence[str]) -> None:
        """Bring the states of clips that another machine rendered."""
        missing = [key for key in keys if not (self._root / sidecar.FOLDER / key / STATE).is_file()]

        def bring(key: str) -> None:
            name = f"{sidecar.FOLDER}/{key}/{STATE}"
            data = self._store.read(name, at_most=sidecar.LARGEST_STATE)
            LocalStore(self._root).put(name, data, self._run)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(bring, missing))

    def finish(self, manifest: Manifest, *names: str) -> None:
        """Put files of the folder, and the catalog, once every shard is there."""
        for name in names:
            self._put(self._root / name)
        places = [(shard, column) for shard in range(manifest.shards) for column in sorted(manifest.columns)]
        catalog.put(self._store, bucket.records(self._store, places), self._run)

    def is_finished(self) -> bool:
        return self._store.exists(catalog.HEAD)

    def _put(self, path: Path) -> None:
        self._store.put(path.relative_to(self._root).as_posix(), path, self._run)
