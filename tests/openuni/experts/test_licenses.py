"""Code, weights and training data of every expert have terms of their own; what forbids profit is refused by name."""

from __future__ import annotations

import re

import pytest

from openuni import experts, registry
from openuni.errors import OpenUniError
from openuni.experts import sets
from openuni_pipelines.engine import card

FORBIDS = re.compile(r"\bNC\b|-NC-|not for profit|non-commercial research$", re.IGNORECASE)
BUILT_IN = [name for name in registry.names("experts") if experts.get(name).__module__.startswith("openuni.experts.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_expert_states_its_terms_and_is_refused_where_they_forbid_profit(name: str) -> None:
    expert = experts.get(name)
    terms = expert.licenses()
    assert terms.code
    assert bool(expert.assets) == bool(expert.training_data) == (terms.weights != "none")
    forbidding = {which for which in ("code", "weights", "data") if FORBIDS.search(getattr(terms, which))}
    assert bool(expert.noncommercial) == bool(forbidding)
    for which in forbidding:
        assert which in expert.noncommercial  # the sentence names which of the three it is
    if "for research" in terms.data:  # not refused, and said to be unsettled, or whose word it is
        assert "contested" in terms.data or "Apache-2.0" in terms.data


def test_commercial_names_each_expert_and_which_of_the_three_forbids_it() -> None:
    sets.check_commercial(["light", "production"])
    with pytest.raises(
        OpenUniError, match=r"dwpose: its training data, .*; densepose_torchscript: its training data, "
    ):
        sets.check_commercial(["paper"])
    with pytest.raises(OpenUniError, match="depth_anything_v2_large: its weights are CC-BY-NC"):
        sets.check_commercial(["depth_anything_v2_large"])


def test_the_card_tells_code_weights_and_data_apart_also_of_what_a_column_builds_on() -> None:
    def terms(column: str, expert: str) -> list[str]:
        made = experts.get(expert).fingerprint()
        return card._licenses({"rgb": "rgb-1-00000000", column: made, "mine": "gone_expert-1-00000000"})[4:]

    assert terms("densepose", "densepose_torchscript") == [
        "| densepose | `densepose_torchscript` | Apache-2.0 | "
        "contested: Apache-2.0 says the hub, CC-BY-SA-3.0 detectron2 | DensePose-COCO: not for profit |",
        "| densepose | `rf_detr` | Apache-2.0 | Apache-2.0 | COCO, Objects365, each with terms of its own |",
    ]
    (large,) = terms("depth", "depth_anything_v2_large")
    assert large.startswith("| depth | `depth_anything_v2_large` | Apache-2.0 | CC-BY-NC-4.0 | ")
    assert terms("flow", "dis") == ["| flow | `dis` | Apache-2.0 | none | none |"]
