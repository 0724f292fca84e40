"""Some of the cases of `benchmarks/hostile.py`; `make soak` runs them all, and the videos and checkpoints too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FAMILIES = {"datasets,measured,predictions,folders,checkpoints": 60, "pushed,pulled,published,benchmarks,reports": 12}
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hostile.py"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("families", "cases"), FAMILIES.items())
def test_what_somebody_else_made_ends_in_a_sentence_or_right_and_touches_nothing_else(
    tmp_path: Path, families: str, cases: int
) -> None:
    """In a process of its own: the cases are forked from one that has no threads."""
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--families", families, "--cases", str(cases), "--seconds", "60", "--report", report],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stderr
    ended = json.loads(report.read_text())
    assert ended["problems"] == []
    assert ended["cases"] == cases
    assert 0 < ended["peak_case_mib"] < 1536
