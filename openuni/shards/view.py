"""A view: keys of a dataset and the rule that chose them, in a small file that opens wherever a dataset does.

    data = openuni.open("sharp.json")          # a Dataset of just those clips; nothing is copied

As `.json` it is for reading and diffing, as `.parquet` for millions of keys. It may lie at a URL too.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openuni.choosing import Step
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import check_key
from openuni.shards import layout, tables
from openuni.storage import open_regular, open_store, write_atomic
from openuni.storage.objects import ObjectStore

SUFFIXES = (".json", ".parquet")
_MOST_BYTES = 1 << 30
_META = b"openuni_view"
_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True)
class View:
    """`dataset` is its folder or URL; relative to the view's own folder or URL where the view lies in the dataset.

    `rule` is what was asked for, option by option; `funnel` what each step left, the whole dataset first.
    """

    dataset: str
    rule: Mapping[str, Any]
    funnel: Sequence[Step]
    keys: Sequence[str] = field(default_factory=tuple)
    openuni_view: int = 1

    def __post_init__(self) -> None:
        if self.openuni_view != 1:
            raise ValueError(f"it is of version {self.openuni_view}, and this program reads version 1")


def is_view(path: str) -> bool:
    """Whether a path names a file that can only be a view."""
    return path.endswith(SUFFIXES) and ("://" in path or Path(path).is_file())


def check_name(path: Path | str) -> None:
    """Raise PlanError where a view cannot have this name."""
    folder, _, name = str(path).rpartition("/")
    if not name.endswith(SUFFIXES):
        raise PlanError(f"{path}: a view is a .json or .parquet file; name one")
    if name in (layout.MANIFEST, layout.PLAN, layout.FAILURES) and open_store(folder or ".").exists(layout.MANIFEST):
        raise PlanError(f"{path} is a file of the dataset; choose another name")


def write(path: Path | str, view: View, run: str) -> None:
    """Write `view` to a file or a URL, whole or not at all. Raises PlanError as `check_name`."""
    check_name(path)
    data = _encoded(view, is_json=str(path).endswith(".json"))
    folder, _, name = str(path).rpartition("/")
    if "://" not in folder:
        write_atomic(Path(path), data, run, sweeps=True)
        return
    store = open_store(folder)
    if not isinstance(store, ObjectStore):
        raise PlanError(f"{path} cannot be written: a view is written to a folder or a bucket (s3, gs, az)")
    store.put(name, data, run)


def _encoded(view: View, *, is_json: bool) -> bytes:
    head = json.loads(layout.dump_json(view))
    keys = head.pop("keys")
    if is_json:
        # A key a line, so that two views can be compared line by line.
        lines = ",\n".join(f"  {json.dumps(key)}" for key in keys)
        text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + f',\n "keys": [\n{lines}\n ]\n}}\n'
        return text.encode()
    sink = io.BytesIO()
    schema = _SCHEMA.with_metadata({_META: json.dumps(head, ensure_ascii=False).encode()})
    pq.write_table(pa.table([pa.array(keys, pa.string())], schema), sink, compression="zstd")
    return sink.getvalue()


def read(path: Path | str) -> View:
    """The view in a file or at a URL, its dataset resolved. Raises CorruptDataError naming what is none."""
    folder, _, name = str(path).rpartition("/")
    if "://" in folder:
        try:
            data = open_store(folder).read(name, at_most=_MOST_BYTES)
        except FileNotFoundError:
            raise PlanError(f"{path} is not there") from None
    else:
        with open_regular(Path(path)) as file:
            if file.size > _MOST_BYTES:
                raise CorruptDataError(f"{path} has {file.size:,} bytes, more than a view ever has")
            data = file.read()
    if name.endswith(".parquet"):
        keys = tables.read(io.BytesIO(data), _SCHEMA, str(path))["key"].to_pylist()
        head = (pq.read_schema(io.BytesIO(data)).metadata or {}).get(_META)
        if head is None:
            raise CorruptDataError(f"{path} is not a view; `openuni select DATASET --out {path}` makes one")
        view = layout.parse_json(View, head, str(path))
    else:
        view = layout.parse_json(View, data, str(path))
        keys = list(view.keys)
    try:
        for key in keys:
            check_key(key)
    except (OpenUniError, TypeError) as error:
        raise CorruptDataError(f"{path} is not a view: {error}") from None
    if "://" in view.dataset or Path(view.dataset).is_absolute():
        return View(view.dataset, view.rule, view.funnel, keys)
    if "://" in folder:
        scheme, _, place = folder.partition("://")
        dataset = f"{scheme}://{posixpath.normpath(posixpath.join(place, view.dataset))}"
    else:
        dataset = str(Path(path).parent / view.dataset)
    return View(dataset, view.rule, view.funnel, keys)


def dataset_of(url: str, out: Path | str) -> str:
    """How a view at `out` names the dataset at `url`.

    Example:
        >>> dataset_of("s3://bucket/data", "s3://bucket/data/views/sharp.json")
        '..'
    """
    if "://" in str(out):
        folder, root = str(out).rpartition("/")[0], url.rstrip("/")
        is_inside = f"{folder}/".startswith(f"{root}/")
        return posixpath.relpath(root, folder) if is_inside else url if "://" in url else str(Path(url).resolve())
    if "://" in url:
        return url
    root_folder, folder_of_view = Path(url).resolve(), Path(out).parent.resolve()
    if folder_of_view.is_relative_to(root_folder):
        return os.path.relpath(root_folder, folder_of_view)
    return str(root_folder)
