"""The kill harness (`benchmarks/kills.py`), a dozen strikes of it; `docs/reliability.md` reports a longer run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import kills


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_builds_that_are_killed_end_in_the_bytes_of_an_undisturbed_build(tmp_path: Path) -> None:
    """Driver, worker, raylet and all at once, at every kind of moment; OPENUNI_KILLS asks for more of them."""
    report = kills.run(tmp_path, kills=int(os.environ.get("OPENUNI_KILLS", "12")), nodes=1, seed=7)
    assert report.problems == []
    assert len(report.strikes) >= 12


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_nodes_of_which_one_is_removed_midway_do_the_same(tmp_path: Path) -> None:
    report = kills.run(tmp_path, kills=3, nodes=3, seed=7)
    assert report.problems == []
    assert report.nodes_removed >= 1
