"""A row's own columns as one object of JSON, made in SQL: numbers stay numbers, lists lists, objects objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from openuni.choosing import quoted, text

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

_DAYS = ("date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns")
_WIDE = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT")
_EXACT = 2**53
"""Beyond it not every whole number is a float."""


def as_json(columns: Mapping[str, str], said: Collection[str], scores: Collection[str] = ()) -> str:
    """SQL for the object of `columns` (names and types) without those that a clip `said` as they are; NULL of nothing.

    A clip has `scores` as floats: of them only the whole numbers that no float can hold are in it. Times are ISO 8601,
    those with a zone in UTC; NaN and the infinities are null; bytes are base64.
    """
    from duckdb import sqltype

    pairs = [
        f"{text(name)}, {_plain(quoted(name), sqltype(kind))}"
        for name, kind in columns.items()
        if name not in said and name not in scores
    ]
    wide = [name for name in columns if name in scores and name not in said and columns[name] in _WIDE]
    if not wide:
        return f"json_object({', '.join(pairs)})" if pairs else "NULL"
    members = [f"(json_object({', '.join(pairs)})::VARCHAR)[2:-2]"] if pairs else []
    for name in wide:
        column = quoted(name)
        far = f"{column} NOT BETWEEN {-_EXACT} AND {_EXACT}"
        members.append(f"CASE WHEN {far} THEN (json_object({text(name)}, {column})::VARCHAR)[2:-2] END")
    return f"nullif(concat('{{', concat_ws(',', {', '.join(members)}), '}}'), '{{}}')"


def _plain(value: str, kind: DuckDBPyType, depth: int = 0) -> str:
    """`value` as SQL of a type that DuckDB writes as JSON should have it; itself where it does so anyway."""
    name = kind.id
    if name in ("double", "float"):
        # As text a float of 32 bits has the digits that it was written with.
        number = f"{value}::VARCHAR::DOUBLE" if name == "float" else value
        return f"CASE WHEN isfinite({value}) THEN {number} END"
    if name in _DAYS:
        return f"CASE WHEN isfinite({value}) THEN replace({value}::VARCHAR, ' ', 'T') END"
    if name == "timestamp with time zone":
        utc = f"make_timestamp(epoch_us({value}))::VARCHAR"
        return f"CASE WHEN isfinite({value}) THEN concat(replace({utc}, ' ', 'T'), 'Z') END"
    if name == "blob":
        return f"base64({value})"
    inner = f"e{depth}"
    if name in ("list", "array"):
        element = _plain(inner, _children(kind)["child"], depth + 1)
        return value if element == inner else f"list_transform({value}, lambda {inner}: {element})"
    if name == "struct":
        parts = {part: f"struct_extract({value}, {text(part)})" for part in _children(kind)}
        plain = {part: _plain(parts[part], of, depth) for part, of in _children(kind).items()}
        if plain == parts:
            return value
        members = ", ".join(f"{text(part)}, {one}" for part, one in plain.items())
        return f"CASE WHEN {value} IS NOT NULL THEN json_object({members}) END"
    if name == "map":
        held = _plain(f"{inner}.value", _children(kind)["value"], depth + 1)
        if held == f"{inner}.value":
            return value
        entry = f"struct_pack(k := {inner}.key::VARCHAR, v := {held})"
        return f"map_from_entries(list_transform(map_entries({value}), lambda {inner}: {entry}))"
    return value


def _children(kind: DuckDBPyType) -> dict[str, DuckDBPyType]:
    # A member of a struct may be called `size`; what an array calls so is a number, and what an enum has are texts.
    return {name: child for name, child in kind.children if not isinstance(child, int | list)}
