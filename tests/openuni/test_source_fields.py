"""The fields of a source's row: bounded, plain JSON, and the same text for the same fields."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from openuni import source_fields


def test_what_json_has_not_becomes_what_it_has() -> None:
    odd = {"nan": math.nan, "list": [1, -math.inf, (2.5,)], "half": "\ud800x", "näme": {"deep": [True, None]}}
    text = source_fields.encode(odd)
    assert json.loads(text) == {"nan": None, "list": [1, None, [2.5]], "half": "?x", "näme": {"deep": [True, None]}}
    assert text == source_fields.encode(dict(reversed(odd.items())))
    assert source_fields.decode(text) == json.loads(text)
    assert source_fields.decode('{"a": 1e999, "b": NaN, "c": "\\ud800"}') == {"a": None, "b": None, "c": "?"}
    assert source_fields.decode(json.dumps({"n": 10**299})) == {"n": 10**299}
    assert source_fields.decode('{"n": ' + "9" * 5000 + "}") == {"n": "9" * 5000}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[1]", "no object"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "too deep"),
        ('{"a": ' + "[" * 30_000 + "]" * 30_000 + "}", "too deep"),
        (json.dumps({"a": "é" * source_fields.MOST_BYTES}, ensure_ascii=False), "more than 65536 bytes"),
        ('{"a": ', "Expecting value"),
    ],
)
def test_what_is_no_object_of_bounded_size_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        source_fields.decode(text)


def test_values_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="source fields with a set"):
        source_fields.encode({"tags": {"a"}})


def test_the_index_has_the_short_fields_up_to_a_bound() -> None:
    fields: dict[str, Any] = {"mask": "0" * 5000, **{f"f{n}": "x" * 3000 for n in range(4)}, "z": 1}
    kept = json.loads(source_fields.indexed(fields) or "")
    assert kept == {"f0": "x" * 3000, "f1": "x" * 3000, "z": 1}
    assert source_fields.indexed({"mask": "0" * 5000}) is None
    assert source_fields.indexed({}) is None
