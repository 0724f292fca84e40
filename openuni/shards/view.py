"""A view: keys of a dataset and the rule that chose them, in a small file that opens wherever a dataset does.

    data = openuni.open("sharp.json")          # a Dataset of just those clips; nothing is copied

As `.json` it is for reading and diffing, as `.parquet` for millions of keys.
"""

from __future__ import annotations

import io
import json
import os
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
from openuni.storage import open_regular, write_atomic

SUFFIXES = (".json", ".parquet")
_MOST_BYTES = 1 << 30
_META = b"openuni_view"
_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True)
class View:
    """`dataset` is its folder or URL; relative to the view's own folder where the view lies in the dataset.

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
    return path.endswith(SUFFIXES) and Path(path).is_file()


def write(path: Path, view: View, run: str) -> None:
    """Write `view`, whole or not at all. Raises PlanError on another suffix."""
    if path.suffix not in SUFFIXES:
        raise PlanError(f"{path}: a view is a .json or .parquet file; name one")
    if (path.parent / layout.MANIFEST).exists() and path.name in (layout.MANIFEST, layout.PLAN, layout.FAILURES):
        raise PlanError(f"{path} is a file of the dataset; choose another name")
    head = json.loads(layout.dump_json(view))
    keys = head.pop("keys")
    if path.suffix == ".json":
        # A key a line, so that two views can be compared line by line.
        lines = ",\n".join(f"  {json.dumps(key)}" for key in keys)
        text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + f',\n "keys": [\n{lines}\n ]\n}}\n'
        write_atomic(path, text.encode(), run, sweeps=True)
        return
    sink = io.BytesIO()
    schema = _SCHEMA.with_metadata({_META: json.dumps(head, ensure_ascii=False).encode()})
    pq.write_table(pa.table([pa.array(keys, pa.string())], schema), sink, compression="zstd")
    write_atomic(path, sink.getvalue(), run, sweeps=True)


def read(path: Path) -> View:
    """The view in a file, its dataset resolved. Raises CorruptDataError naming the file that is none."""
    with open_regular(path) as file:
        if file.size > _MOST_BYTES:
            raise CorruptDataError(f"{path} has {file.size:,} bytes, more than a view ever has")
        data = file.read()
    if path.suffix == ".parquet":
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
    if "://" in view.dataset:
        return View(view.dataset, view.rule, view.funnel, keys)
    return View(str(path.parent / view.dataset), view.rule, view.funnel, keys)


def dataset_of(url: str, out: Path) -> str:
    """How a view at `out` names the dataset at `url`."""
    if "://" in url:
        return url
    root, folder = Path(url).resolve(), out.parent.resolve()
    return os.path.relpath(root, folder) if folder.is_relative_to(root) else str(root)
