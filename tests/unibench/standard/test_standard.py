"""The frozen sets: their records are whole, and scenes made now are those that were frozen."""

from __future__ import annotations

import pytest

from openuni.errors import OpenUniError
from unibench.scenes.families import FAMILIES
from unibench.standard import SETS, fingerprint, get, key, recorded


@pytest.mark.parametrize("name", [name for name, standard in SETS.items() if standard.record.is_file()])
def test_a_record_names_every_scene_once(name: str) -> None:
    keys = [key(spec) for spec in get(name).specs()]
    assert list(recorded(get(name))) == keys
    assert len(set(keys)) == get(name).scenes
    assert {spec.family for spec in get(name).specs()} == set(get(name).families) <= set(FAMILIES)


def test_one_scene_of_every_family_is_as_frozen() -> None:
    frozen = recorded(get("ci"))
    for spec in list(get("ci").specs())[: len(get("ci").families)]:
        assert fingerprint(spec) == frozen[key(spec)], key(spec)


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(OpenUniError, match="estimation, small, ci"):
        get("best")
