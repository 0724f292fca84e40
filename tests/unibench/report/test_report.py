"""Bootstrap intervals, the report as JSON, comparison of two runs, and the published table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from openuni.errors import OpenUniError
from unibench.report import report
from unibench.report.published import COLUMNS, TABLE_1, rows_for
from unibench.scoring import bootstrap
from unibench.scoring.protocol import Protocol
from unibench.scoring.samples import Collector, SampleResult

PROTOCOL = Protocol(("depth", "video"), truth="t", keys="k")


def collector(scores: dict[str, list[float]], protocol: Protocol = PROTOCOL) -> Collector:
    collected = Collector(protocol)
    count = len(next(iter(scores.values())))
    for k in range(count):
        collected.add(SampleResult("depth", f"s{k:03d}", "scored", {n: (v[k], 1.0) for n, v in scores.items()}))
    return collected


def made(name: str, scores: dict[str, list[float]], protocol: Protocol = PROTOCOL) -> report.Report:
    return report.build(name, f"runs/{name}", "truth", collector(scores, protocol))


def test_the_interval_of_a_mean_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap.interval(values, np.ones(400))
    assert found is not None
    half = 1.96 * values.std(ddof=1) / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_resampled_means_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=20), rng.uniform(1, 5, 20)
    means = bootstrap.resampled_means(values, weights, repeats=7, seed=3)
    chosen = np.random.default_rng([3, 20]).integers(0, 20, (7, 20))
    for k in range(7):
        over = sum(weights[i] * values[i] for i in chosen[k])
        assert means[k] == pytest.approx(over / sum(weights[i] for i in chosen[k]), rel=1e-12)


def test_counts_are_the_resamples_of_the_means() -> None:
    values, weights = np.random.default_rng(4).normal(size=30), np.random.default_rng(5).uniform(1, 3, 30)
    table = bootstrap.counts(30, repeats=600, seed=2)
    assert (table.sum(axis=1) == 30).all()
    means = table @ (weights * values) / (table @ weights)
    assert means == pytest.approx(bootstrap.resampled_means(values, weights, 600, 2), rel=1e-12)


def test_the_middle_leaves_undefined_resamples_out() -> None:
    assert bootstrap.middle(np.full(4, np.nan)) is None
    assert bootstrap.middle(np.array([1.0, np.nan, 1.0])) == bootstrap.Interval(1.0, 1.0)


def test_intervals_are_the_same_every_time_and_need_two_samples() -> None:
    values = np.arange(10.0)
    assert bootstrap.interval(values, np.ones(10)) == bootstrap.interval(values, np.ones(10))
    assert bootstrap.interval(values[:1], np.ones(1)) is None


def test_pairing_finds_a_difference_that_two_intervals_do_not() -> None:
    rng = np.random.default_rng(2)
    hard = rng.uniform(0, 10, 50)
    a, b = hard, hard + 0.05 + rng.normal(0, 0.02, 50)
    difference = bootstrap.paired(a, b, np.ones(50))
    assert difference is not None
    assert difference.decided
    assert difference.value == pytest.approx(np.mean(b - a))
    one, other = bootstrap.interval(a, np.ones(50)), bootstrap.interval(b, np.ones(50))
    assert one is not None
    assert other is not None
    assert one.high > other.low


def test_a_report_survives_json(tmp_path: Path) -> None:
    written = made("x", {"disparity/absrel": [0.1, 0.2, 0.3]})
    (tmp_path / "report.json").write_bytes(report.to_json(written))
    assert report.read(tmp_path) == written
    data = json.loads((tmp_path / "report.json").read_text())
    column = data["tasks"]["depth"]["columns"]["disparity/absrel"]
    assert column["value"] == pytest.approx(0.2)
    assert column["interval"]["low"] < 0.2 < column["interval"]["high"]
    assert data["tasks"]["depth"]["columns"]["tae"]["value"] is None
    assert data["versions"]["numpy"]
    assert data["samples"][0]["scores"]["disparity/absrel"] == [0.1, 1.0]


def test_a_report_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OpenUniError, match="unibench score"):
        report.read(tmp_path)
    (tmp_path / "report.json").write_text('{"schema": 1}')
    with pytest.raises(OpenUniError, match="not a report"):
        report.read(tmp_path)


def test_missing_predictions_and_lost_pixels_are_warned_of() -> None:
    collected = collector({"disparity/absrel": [0.1], "coverage": [0.9]})
    collected.add(SampleResult("depth", "gone", "missing", reason="no file"))
    warnings = report.build("x", "p", "t", collected).warnings
    assert any("10 % of the valid pixels" in w for w in warnings)
    assert any("1 prediction missing or unusable" in w and "left out" in w for w in warnings)


def test_comparison_refuses_another_protocol_and_says_which() -> None:
    a = made("a", {"disparity/absrel": [0.1, 0.2]})
    b = made("b", {"disparity/absrel": [0.1, 0.2]}, replace(PROTOCOL, max_depth=10.0))
    with pytest.raises(OpenUniError, match=r"max_depth: 80\.0 and 10\.0"):
        report.compare(a, b)


def test_comparison_names_the_better_run_only_where_the_interval_decides() -> None:
    rng = np.random.default_rng(3)
    base = rng.uniform(0.1, 0.5, 60)
    a = made("a", {"disparity/absrel": base.tolist(), "disparity/delta1": base.tolist()})
    worse = base + 0.05 + rng.normal(0, 0.01, 60)
    same = base + rng.normal(0, 0.01, 60) - rng.normal(0, 0.01, 60).mean()
    b = made("b", {"disparity/absrel": worse.tolist(), "disparity/delta1": same.tolist()})
    columns = {c.column.name: c for c in report.compare(a, b).columns}
    assert columns["disparity/absrel"].better == "a"
    assert columns["disparity/delta1"].difference.low < 0 < columns["disparity/delta1"].difference.high
    assert columns["disparity/delta1"].better is None


def test_comparison_warns_where_alignments_disagree_and_where_samples_differ() -> None:
    a = made("a", {"disparity/absrel": [0.1, 0.1, 0.1], "scale/absrel": [0.3, 0.3, 0.3]})
    b = made("b", {"disparity/absrel": [0.2, 0.2], "scale/absrel": [0.2, 0.2]})
    warnings = report.compare(a, b).warnings
    assert any("`disparity`" in w and "`scale`" in w for w in warnings)
    assert any("scored in one run only: 1 sample" in w for w in warnings)


def test_the_published_table_is_quoted_in_full_and_marked() -> None:
    assert len(TABLE_1) == 13
    unified = next(row for row in TABLE_1 if row.model == "UnityVideo (unified)")
    assert unified.values == dict(zip(COLUMNS, (97.44, 64.12, 23.57, 47.76, 68.82, 23.25, 0.022, 98.98), strict=True))
    assert {row.model for row in rows_for(["segmentation"])} == {"SAMWISE", "SeC", "UnityVideo (unified)"}
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report.tables(made("x", {"disparity/absrel": [0.1, 0.2]})))
    text = console.export_text()
    assert "not recomputed" in text
    assert "disparity/absrel" in text
    assert "DepthCrafter" in text
