"""Views of a dataset: clips chosen by what the index knows of them, without measuring or copying anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

import openuni
from openuni.choosing import Rows, text
from openuni.errors import CorruptDataError, OpenUniError, PlanError
from openuni.sample import check_key
from openuni.shards import facts, tables, view
from openuni.shards.reader import Dataset
from openuni.shards.view import View
from openuni.storage import DOCUMENT, open_regular
from openuni_pipelines.engine import duplicates
from openuni_pipelines.engine.viewing.flags import Flags

STILL = 0.02
"""Diagonals a second up to which a camera stands still."""
_CAMERA_PARTS = ("camera_x", "camera_y", "camera_zoom", "camera_roll", "camera_shake")
_STEADY = "abs(camera_x), abs(camera_y), abs(camera_zoom) / 4, abs(camera_roll) / 4"
CAMERA = f"""CASE
 WHEN camera_x IS NULL THEN NULL
 WHEN greatest({_STEADY}, camera_shake) <= {STILL} THEN 'static'
 WHEN camera_shake > greatest({_STEADY}) THEN 'shake'
 WHEN abs(camera_zoom) / 4 >= greatest(abs(camera_x), abs(camera_y), abs(camera_roll) / 4)
  THEN CASE WHEN camera_zoom > 0 THEN 'zoom in' ELSE 'zoom out' END
 WHEN abs(camera_roll) / 4 >= greatest(abs(camera_x), abs(camera_y)) THEN 'roll'
 WHEN abs(camera_x) >= abs(camera_y) THEN 'pan' ELSE 'tilt' END"""
"""The class of a camera's motion: its largest part, a zoom and a roll by what they move a point half-way out."""


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Which clips. Each part narrows what the one before left, in this order.

    Raises PlanError where the shares exceed 1.
    """

    keys: Path | None = field(default=None, metadata={"exists": True})
    """Only clips named in this file: one key per line, a view, or the viewer's flags."""
    exclude: Path | None = field(default=None, metadata={"exists": True})
    """Leave out the clips named in this file, of the same kinds."""
    split: Literal["train", "val", "test"] | None = None
    """Only this split. Splits are by source video: no video is in two."""
    val: float = field(default=0.01, metadata={"min": 0.0, "max": 1.0})
    """Share of the videos in split val."""
    test: float = field(default=0.01, metadata={"min": 0.0, "max": 1.0})
    """Share of the videos in split test."""
    disjoint_from: str | None = field(default=None, metadata={"shown": "none"})
    """A dataset, such as a benchmark: leave out its clips, its source videos and their near-duplicates."""
    balance: str = ""
    """Choose equally many clips for each value of this SQL expression, such as `subset` or `round(motion, 1)`."""
    sample: int | None = field(default=None, metadata={"min": 1, "shown": "all"})
    """Choose this many clips at random."""
    seed: int = 0
    """Seed of the splits and of the random choice."""

    def __post_init__(self) -> None:
        if self.val + self.test > 1:
            raise PlanError(f"--val {self.val:g} and --test {self.test:g} are more than all videos")


@dataclass(frozen=True, slots=True)
class Selection:
    """A view that was made, and how long the choice took."""

    view: View
    seconds: float


def select(
    data: Dataset, where: Sequence[str] = (), rule: SelectConfig = SelectConfig(), out: Path | str | None = None
) -> Selection:
    """Choose clips of a dataset or view, and write the view to `out`, a file or a URL, if any.

    `where` are SQL conditions over the facts (`openuni.shards.facts`) and `camera`, the class of the camera's motion;
    each is a step of the funnel. Raises PlanError where one cannot be evaluated, or nothing is left.

    Example:
        >>> made = select(openuni.open("data/demo"), ['"depth.confidence" > .5'], SelectConfig(sample=1))
        >>> [(step.what, step.left) for step in made.view.funnel]
        [('all', 3), ('"depth.confidence" > .5', 2), ('sample', 1)]
    """
    begin = time.monotonic()
    if out is not None:
        view.check_name(out)
    with facts.table(data) as path, Rows(_relation(path), "key", "file_row_number", _hidden(path)) as rows:
        if data.is_view:
            rows.keep(list(data.keys()), "the view's")
        _narrow(rows, data, where, rule)
        keys = rows.keys()
        funnel = rows.funnel
    if not keys:
        raise PlanError(f"no clip is left: {'; '.join(f'{step.what}: {step.left:,}' for step in funnel)}")
    made = View(data.url if out is None else view.dataset_of(data.url, out), _said(where, rule), funnel, keys)
    if out is not None:
        view.write(out, made, "select")
    return Selection(made, time.monotonic() - begin)


def read_keys(path: Path) -> list[str]:
    """The keys that a file lists: a view, any Parquet with a column `key`, the viewer's flags, or a key a line."""
    if path.suffix == ".jsonl":
        return sorted(Flags(path).reasons)
    if path.suffix == ".json":
        return list(view.read(path).keys)
    with open_regular(path) as file:
        if path.suffix == ".parquet":
            schema = pa.schema([("key", pa.string())])
            return [key for key in tables.read(file, schema, str(path))["key"].to_pylist() if key]
        if file.size > DOCUMENT:
            raise CorruptDataError(f"{path} has {file.size:,} bytes; give a longer list of keys as Parquet")
        lines = file.read().decode("utf-8-sig", "replace").split()
    for number, key in enumerate(lines, 1):
        try:
            check_key(key)
        except OpenUniError as error:
            raise CorruptDataError(f"{path}: entry {number}: {error}") from None
    return lines


def split_sql(rule: SelectConfig) -> str:
    """The split of a clip by its source video, as `openuni.sample.split_of` with the rule's shares and seed."""
    named = "coalesce(nullif(video_id, ''), key)"
    hashed = f"concat('{rule.seed}/', {named})" if rule.seed else named
    place = f"(('0x' || substr(sha256({hashed}), 1, 12))::UBIGINT / 281474976710656.0::DOUBLE)"
    return (
        f"CASE WHEN {place} < {rule.test} THEN 'test' WHEN {place} < {rule.val + rule.test} THEN 'val' ELSE 'train' END"
    )


def _relation(path: Path) -> str:
    table = f"read_parquet({text(str(path))}, file_row_number = true)"
    has_camera = set(_CAMERA_PARTS) <= set(pq.read_schema(path).names)
    return f"(SELECT *, {CAMERA} AS camera FROM {table})" if has_camera else table


def _hidden(path: Path) -> list[str]:
    """What `dedup` compares, and no condition can be made of."""
    return [name for name in pq.read_schema(path).names if name.rpartition(".")[2] == "hashes"]


def _narrow(rows: Rows, data: Dataset, where: Sequence[str], rule: SelectConfig) -> None:
    if rule.keys is not None:
        rows.keep(read_keys(rule.keys), f"keys of {rule.keys.name}")
    if rule.exclude is not None:
        rows.keep(read_keys(rule.exclude), f"not in {rule.exclude.name}", inside=False)
    for condition in where:
        rows.where(condition)
    if rule.split is not None:
        rows.where(f"{split_sql(rule)} = '{rule.split}'", f"split {rule.split}")
    if rule.disjoint_from is not None:
        other = openuni.open(rule.disjoint_from)
        for keys, words in duplicates.shared(rows, data, other):
            rows.keep(keys, words, inside=False)
    if rule.balance:
        rows.balance(rule.balance, rule.sample, rule.seed)
    elif rule.sample is not None:
        rows.sample(rule.sample, rule.seed)


def _said(where: Sequence[str], rule: SelectConfig) -> dict[str, Any]:
    """What was asked for, without what is as it always is."""
    plain = asdict(SelectConfig())
    asked = {name: value for name, value in asdict(rule).items() if value != plain[name]}
    said: dict[str, Any] = {"where": list(where)} if where else {}
    return said | {name: str(value) if isinstance(value, Path) else value for name, value in asked.items()}
