"""Hostile files (`benchmarks/hostile.py`) through the real `folder` source, as a user would meet them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import hostile


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_hostile_file_is_taken_or_refused_with_a_reason(tmp_path: Path) -> None:
    # TransNetV2 would look at most of these 300, for minutes, and at nothing that is not decoded here: see `make soak`.
    report = hostile.run(tmp_path, seed=1, options=("--shots", "adaptive"))
    assert report.problems == []
    assert report.files >= 300
    assert report.peak_worker_mib < 1024 * (hostile.WORKER_GIB + 1)
