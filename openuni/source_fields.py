"""What a source's own row says beside what a clip's record says: an object of JSON that travels with the clip.

From the plan, where it is text, it goes to `Clip.source_fields` and, whole, to `KEY.json`. The index has the short
fields alone: a reader holds the index of many shards, and masks in it would cost all who never ask for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 64 << 10
"""Of the object as UTF-8; a larger one is left out, and its clip kept."""
TOO_LARGE = f"source fields larger than {MOST_BYTES} bytes were left out"
MOST_SHORT = 4 << 10
"""Bytes of a field that the index has."""
MOST_INDEXED = 8 << 10
"""Bytes of all that the index has of one clip."""
_DEEPEST = 150
"""Lists and objects in each other. JSON of DuckDB has at most 128; who reads `KEY.json` takes 200."""
_LONGEST_NUMBER = 300
"""Digits; Python refuses to read several thousand."""


def encode(fields: Mapping[str, Any]) -> str:
    """The object as text; the same fields give the same text. Raises ValueError where it is no JSON, or too deep.

    NaN and the infinities, which JSON has not, are null; halves of surrogate pairs are `?`.

    Example:
        >>> encode({"width": 640, "angle": float("nan")})
        '{"angle":null,"width":640}'
    """
    plain = _plain(fields, 0)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def decode(text: str) -> dict[str, Any]:
    """The fields in a text that anybody may have written. Raises ValueError where it is no object, too deep or large.

    Example:
        >>> decode('{"tags": ["dog", 1e999], "views": 12}')
        {'tags': ['dog', None], 'views': 12}
    """
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ValueError(f"source fields of more than {MOST_BYTES} bytes")
    try:
        fields = json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("source fields lie too deep in each other") from error
    if not isinstance(fields, dict):
        raise ValueError("source fields that are no object")
    plain: dict[str, Any] = _plain(fields, 0)
    return plain


def indexed(fields: Mapping[str, Any]) -> str | None:
    """What the index has of `fields`, as text: the short ones, in the order of their names; None where there are none.

    Example:
        >>> indexed({"tags": ["dog"], "mask": "0" * 5000})
        '{"tags":["dog"]}'
    """
    kept, size = dict[str, Any](), 2
    for name in sorted(fields):
        more = len(encode({name: fields[name]}).encode())
        if more <= MOST_SHORT and size + more <= MOST_INDEXED:
            kept[name] = fields[name]
            size += more
    return encode(kept) if kept else None


def _plain(value: Any, depth: int) -> Any:
    """`value` as JSON can have it."""
    if depth > _DEEPEST:
        raise ValueError("source fields lie too deep in each other")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {_plain(str(name), depth): _plain(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, depth + 1) for one in value]
    raise ValueError(f"source fields with a {type(value).__name__}")


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else digits
