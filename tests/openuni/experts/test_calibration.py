"""The numbers and pictures of docs/confidence.md, on rows whose answer is known."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import calibration
from benchmarks.calibration import Judged, Panel


def rows(gap: float) -> list[Judged]:
    """Sixty rows of twenty clips whose quality is the confidence less a gap."""
    confidence = np.linspace(0.3, 1.0, 60)
    return [Judged("ab"[k % 2], f"clip {k // 3}", float(c), float(c - gap)) for k, c in enumerate(confidence)]


@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_what_is_believed_too_much_by_a_gap_is_off_by_that_gap(gap: float) -> None:
    assert calibration.calibration_error(*calibration.columns(rows(gap))) == pytest.approx(gap)
    assert calibration.interval(rows(gap)) == pytest.approx((1.0, 1.0))


def test_a_confidence_that_says_nothing_has_no_rank_correlation() -> None:
    rng = np.random.default_rng(0)
    chance = [Judged("a", str(k), *rng.random(2)) for k in range(60)]
    low, high = calibration.interval(chance)
    assert low < 0 < high


def test_table_and_picture_hold_every_row(tmp_path: Path) -> None:
    beside = [Judged("chairs", "one", 0.9, 0.1)]
    panels = [Panel("flow", "share right", rows(0.1), beside, "real"), Panel("depth", "order", rows(0.0))]
    calibration.save(panels, tmp_path, "light")
    table = list(csv.DictReader((tmp_path / "light.csv").open()))
    assert [row["panel"] for row in table] == ["flow"] * 60 + ["flow: real"] + ["depth"] * 60
    assert table[60] == {"panel": "flow: real", "family": "chairs", "clip": "one"} | {
        "confidence": "0.9000",
        "quality": "0.1000",
    }
    picture = cv2.imread(str(tmp_path / "light.png"))
    height, width, _ = picture.shape
    flow, depth = picture[: height // 2, : width // 2], picture[height // 2 :, : width // 2]
    red = (flow[..., 2] > 180) & (flow[..., :2] < 90).all(axis=-1)
    assert red.any(), "the real pair is a cross"
    assert not ((depth[..., 2] > 180) & (depth[..., :2] < 90).all(axis=-1)).any()
