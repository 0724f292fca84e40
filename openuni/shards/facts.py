"""The facts: what the index knows of every clip, as one flat Parquet table that SQL reads in seconds.

A row a clip, in stored order: `key`, the fields of `Record`, for each column `depth.present`, `depth.reason`,
`depth.expert` and `depth.confidence`, each score by its name, and `hashes`. Where two columns have a score of one name,
the name is the later column's, and both are there as `rgb.motion` and `scores.motion`.

It is derived, belongs to one catalog, and may be deleted at any time. In a folder that can be written it is kept
beside the catalog (`facts.parquet`; `facts.json`, written last, names the catalog). In a bucket it is put once the
dataset is complete, under a name with the catalog's hash. What was fetched from a URL, or made for one, is kept on this
machine in `$OPENUNI_HOME/facts`, by default `~/.cache/openuni/facts`, up to 4 GiB.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openuni import assets
from openuni.errors import CorruptDataError, PlanError
from openuni.shards import catalog, layout, tables
from openuni.shards.layout import Manifest
from openuni.storage import DOCUMENT, LocalStore, Store, open_regular

if TYPE_CHECKING:
    from openuni.shards.reader import Dataset

HEAD = "facts.json"
TABLE = "facts.parquet"
_TOGETHER = 64
"""Shards that are flattened together."""
_AT_ONCE = 32
"""Shards whose indices are read at once."""
_PIECE = 64 << 20
MOST_NEAR = 4 << 30
"""Bytes of facts of URLs that are kept on this machine; the longest unused go."""


@dataclass(frozen=True, slots=True)
class Head:
    """`facts.json`: which catalog the table was made of, and how many bytes it has."""

    catalog_sha256: str
    size: int


@contextmanager
def table(data: Dataset, told: Callable[[int], None] = lambda clips: None, *, keep: bool = True) -> Iterator[Path]:
    """The facts of the whole dataset of `data`, also where that is a view. Raises PlanError where it has no clip yet.

    Made where there are none for its catalog, and with `keep` kept where that can be; meanwhile `told` hears of how
    many clips were read.
    """
    store = data.store
    with there(store) as path:
        if path is not None:
            yield path
            return
    with tempfile.TemporaryDirectory(prefix="openuni-facts-") as scratch:
        before = _catalog(store)
        made = Path(scratch) / TABLE
        write(data, made, told)
        # Only of the catalog that it was made of: a run that changes the dataset takes the catalog away first.
        if keep and before and _catalog(store) == before:
            if isinstance(store, LocalStore):
                _keep(store, made, before)
            else:
                _keep_near(store, made, before)
        yield made


@contextmanager
def there(store: Store) -> Iterator[Path | None]:
    """The table that is kept, brought here where it lies far away; None where there is none of this catalog."""
    if isinstance(store, LocalStore):
        yield kept(store)
        return
    current = _catalog(store)
    if not current:
        yield None
        return
    near = _near(store, current)
    if near.is_file():
        with suppress(OSError):
            os.utime(near)  # of all it is now the last to go
        yield near
        return
    with tempfile.TemporaryDirectory(prefix="openuni-facts-") as scratch:
        path = _fetched(store, in_bucket(current), Path(scratch) / TABLE)
        if path is not None:
            _keep_near(store, path, current)
        yield path


def _fetched(store: Store, name: str, path: Path) -> Path | None:
    try:
        with path.open("wb") as fetched:
            size = store.size(name)
            for begin in range(0, size, _PIECE):
                fetched.write(store.read_range(name, begin, min(_PIECE, size - begin)))
        # It may be anybody's: what it claims must be possible.
        with open_regular(path) as file:
            tables.open_table(file, pa.schema([pa.field("key", pa.string())]), store.where(name))
    except (FileNotFoundError, CorruptDataError):
        return None
    return path


def in_bucket(catalog_sha256: str) -> str:
    """Where the facts of a catalog lie in a bucket; nowhere without one."""
    return layout.hashed(TABLE, catalog_sha256) if catalog_sha256 else ""


def put(data: Dataset, run: str) -> None:
    """Put the facts of a complete dataset in a bucket, unless they are there."""
    name = in_bucket(_catalog(data.store))
    if not name or not data.shards or data.store.exists(name):
        return
    with tempfile.TemporaryDirectory(prefix="openuni-facts-") as scratch:
        write(data, made := Path(scratch) / TABLE)
        with suppress(FileExistsError), data.store.create(name, run, create_only=True) as file, made.open("rb") as rows:
            shutil.copyfileobj(rows, file, 1 << 20)


def kept(store: Store) -> Path | None:
    """The table that lies beside the catalog, if it was made of just this one."""
    current = _catalog(store)
    if not current or not isinstance(store, LocalStore):
        return None
    try:
        head = layout.parse_checked(Head, store.read(HEAD, at_most=DOCUMENT), store.where(HEAD))
        is_whole = head.catalog_sha256 == current and store.size(TABLE) == head.size
    except (FileNotFoundError, CorruptDataError):
        return None
    return store.path(TABLE) if is_whole else None


def forget(root: Path) -> None:
    """Delete what is kept."""
    store = LocalStore(root)
    store.delete(HEAD)
    store.delete(TABLE)


def write(data: Dataset, path: Path, told: Callable[[int], None] = lambda clips: None) -> None:
    """Write the facts of every clip that is committed, a few shards in memory at a time."""
    positions = range(len(data.shards))
    if not positions:
        raise PlanError(f"{data.url} has no committed sample yet; `openuni status` says how far its build is")
    # Far away, an index is mostly waiting.
    with tempfile.TemporaryDirectory(prefix="openuni-facts-") as scratch, ThreadPoolExecutor(_AT_ONCE) as pool:
        pieces, clips = [], 0
        for first in positions[::_TOGETHER]:
            together = pa.concat_tables(pool.map(data.facts, positions[first : first + _TOGETHER]))
            pieces.append(Path(scratch) / f"{first:08d}.parquet")
            pq.write_table(flat(together, list(data.manifest.columns)), pieces[-1])
            clips += len(together)
            told(clips)
        # A score that no clip of a piece has is not in it.
        schema = pa.unify_schemas([pq.read_schema(piece) for piece in pieces])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for piece in pieces:
                read = pq.read_table(piece)
                lacking = [field for field in schema if field.name not in read.column_names]
                for field in lacking:
                    read = read.append_column(field, pa.nulls(len(read), field.type))
                writer.write_table(read.select(schema.names))


def flat(facts: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The table of `Dataset.table`, its maps of scores as columns of their own."""
    made = facts.select([name for name in facts.column_names if "." not in name])
    scores = {column: _names(facts[f"{column}.scores"]) for column in columns}
    counted = Counter(name for names in scores.values() for name in names)
    taken = set(made.column_names)
    values: dict[str, pa.ChunkedArray] = {}
    for column in columns:
        for kind in ("present", "reason", "expert", "confidence"):
            values[f"{column}.{kind}"] = facts[f"{column}.{kind}"]
        for name in scores[column]:
            found = pc.map_lookup(facts[f"{column}.scores"], name, "first")
            if counted[name] > 1 or name in taken:
                values[f"{column}.{name}"] = found
            if name not in taken:
                values[name] = found
        if layout.holds_numbers(column) and f"{column}.hashes" in facts.column_names:
            values["hashes" if column == layout.SCORES else f"{column}.hashes"] = facts[f"{column}.hashes"]
    for name, column_values in values.items():
        made = made.append_column(name, column_values)
    return made


def _names(scores: pa.ChunkedArray) -> list[str]:
    return sorted({name for chunk in scores.chunks for name in pc.unique(chunk.keys).to_pylist()})


def _keep(store: LocalStore, made: Path, catalog_sha256: str) -> None:
    try:
        for name in (TABLE, HEAD):
            store.sweep(("",), of=name)  # of writers that were killed; no run is held here that would
        with made.open("rb") as source, store.create(TABLE, "facts") as target:
            while block := source.read(1 << 20):
                target.write(block)
        store.put(HEAD, layout.dump_checked(Head(catalog_sha256, made.stat().st_size)), "facts")
    except (OSError, PlanError):  # somebody else's folder, or a full disk: it is only kept to save time
        return


def near_folder() -> Path:
    """Where the facts of URLs are kept on this machine; it may not exist yet."""
    return assets.folder().with_name("facts")


def _near(store: Store, catalog_sha256: str) -> Path:
    """The name has the URL, too: what a stranger's bucket calls the facts of a catalog is said of that bucket alone."""
    name = hashlib.sha256(f"{store.where('')}\n{catalog_sha256}".encode()).hexdigest()
    return near_folder() / f"{name}.parquet"


def _keep_near(store: Store, made: Path, catalog_sha256: str) -> None:
    near = _near(store, catalog_sha256)
    try:
        near.parent.mkdir(parents=True, exist_ok=True)
        here = LocalStore(near.parent)
        here.sweep(("",))
        with made.open("rb") as source, here.create(near.name, "facts") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        kept = sorted(near.parent.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        size = 0
        for file in kept:
            size += file.stat().st_size
            if size > MOST_NEAR and file != near:
                here.delete(file.name)
    except (OSError, PlanError):  # no home, a full disk, another process at it: it is only kept to save time
        return


def _catalog(store: Store) -> str:
    """The digest of the catalog's table, empty where there is no catalog of the manifest."""
    try:
        data = store.read(layout.MANIFEST, at_most=DOCUMENT)
        revised = layout.revised(layout.parse_json(Manifest, data, store.where(layout.MANIFEST)))
        if revised is not None:
            return revised.files[catalog.TABLE].sha256
        head = layout.parse_checked(catalog.Head, store.read(catalog.HEAD, at_most=DOCUMENT), store.where(catalog.HEAD))
    except (FileNotFoundError, CorruptDataError, KeyError):
        return ""
    return head.table.sha256 if head.manifest_sha256 == layout.digest(data) else ""
