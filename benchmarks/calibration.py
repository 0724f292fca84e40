"""Does a confidence predict quality? Rows of both, their calibration error and interval, and their picture.

A row is a pair of frames, a clip or a person-frame: the confidence that the index would have, or the one that a curve
fitted on the other families gives, beside the quality that was measured. `light.py` and `crowd_confidence.py` collect
them, and write with `--out FOLDER` a table (`<name>.csv`) and a picture (`<name>.png`). The picture has two panels for
each modality: reliability (confidence across, the mean quality of a tenth of the scale up, with how many rows it has
and 95 % by resampling clips) and risk over coverage (what is missing from quality 1 in the surest rows, as more of
them are kept; below it the least risk that any order could have).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

Floats = npt.NDArray[np.float64]
Canvas = npt.NDArray[np.uint8]
Ink = tuple[int, int, int]

_DARK, _GRAY, _PALE, _BLUE, _RED = (50, 50, 50), (150, 150, 150), (225, 225, 225), (180, 90, 20), (40, 50, 200)
"""BGR."""
_SIDE, _LEFT, _TOP, _ACROSS, _DOWN = 300, 70, 66, 450, 410
"""Pixels: of a panel's square, from its cell's corner to it, and of the cell."""
_FEWEST = 5
"""Rows from which a tenth of the scale has an interval."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What one row was believed, and how good it was, both 0 to 1; `clip` is the clip or scene it belongs to."""

    family: str
    clip: str
    confidence: float
    quality: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One modality: what its quality is, in the words of the picture, and its rows.

    `beside` are rows of another kind, few and unlike the others, drawn one by one as crosses.
    """

    title: str
    quality: str
    rows: Sequence[Judged]
    beside: Sequence[Judged] = ()
    beside_are: str = ""


def columns(rows: Sequence[Judged]) -> tuple[Floats, Floats]:
    """Confidence and quality of all rows."""
    table = np.array([(row.confidence, row.quality) for row in rows], np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def calibration_error(confidence: Floats, quality: Floats) -> float:
    """Mean gap between confidence and quality over bins of equal count: ten, five of fewer than 50 rows."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), 10 if len(confidence) >= 50 else 5)
    gaps = [len(part) * abs(confidence[part].mean() - quality[part].mean()) for part in parts if len(part)]
    return float(sum(gaps) / len(confidence))


def interval(rows: Sequence[Judged]) -> tuple[float, float]:
    """95 % of Spearman's correlation, by resampling whole clips: what one holds is alike."""
    confidence, quality = columns(rows)
    # Where all drawn rows are alike, there is no order.
    ordered = [i for i in _resampled(rows, 1000) if np.ptp(confidence[i]) > 0 and np.ptp(quality[i]) > 0]
    found = [spearmanr(confidence[i], quality[i])[0] for i in ordered]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def report(what: str, rows: Sequence[Judged]) -> None:
    """Print how well the confidence of some rows predicts their quality, in all and by family."""
    confidence, quality = columns(rows)
    low, high = interval(rows)
    print(f"{what}: {len(rows)} of {len({row.clip for row in rows})} clips, quality {quality.mean():.3f}")
    print(f"  Spearman           {spearmanr(confidence, quality)[0]:.3f} (95 %: {low:.2f} to {high:.2f})")
    print(f"  calibration error  {calibration_error(confidence, quality):.3f}")
    for name in sorted({row.family for row in rows}):
        here = np.array([row.family == name for row in rows])
        print(f"  {name:<10} {here.sum():4d}, confidence − quality {(confidence - quality)[here].mean():+.3f}")


def save(panels: Sequence[Panel], to: Path, name: str) -> None:
    """Write the rows of all panels as a table, and their picture beside it."""
    to.mkdir(parents=True, exist_ok=True)
    with (to / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("panel", "family", "clip", "confidence", "quality"))
        for panel in panels:
            for title, rows in ((panel.title, panel.rows), (f"{panel.title}: {panel.beside_are}", panel.beside)):
                for row in rows:
                    values = f"{row.confidence:.4f}", f"{row.quality:.4f}"
                    table.writerow((title, row.family, row.clip, *values))
    cv2.imwrite(str(to / f"{name}.png"), np.vstack([_drawn(panel) for panel in panels]))


def _resampled(rows: Sequence[Judged], times: int) -> list[npt.NDArray[np.intp]]:
    clip = np.array([row.clip for row in rows])
    places = [np.flatnonzero(clip == name) for name in np.unique(clip)]
    rng = np.random.default_rng(0)
    return [np.concatenate([places[i] for i in rng.integers(0, len(places), len(places))]) for _ in range(times)]


def _drawn(panel: Panel) -> Canvas:
    """Both panels of a modality, side by side."""
    return np.hstack([_reliability(panel), _risk(panel)])


def _reliability(panel: Panel) -> Canvas:
    confidence, quality = columns(panel.rows)
    rho, error = spearmanr(confidence, quality)[0], calibration_error(confidence, quality)
    low, high = interval(panel.rows)
    canvas = _axes("confidence", panel.quality)
    _write(canvas, panel.title, _LEFT, 22, size=0.52)
    said = f"Spearman {rho:.2f} ({low:.2f} to {high:.2f}), calibration error {error:.3f}"
    _write(canvas, said, _LEFT, 44, _GRAY)
    cv2.line(canvas, _at(0, 0), _at(1, 1), _GRAY, 1, cv2.LINE_AA)
    tenth = np.minimum((confidence * 10).astype(int), 9)
    again = _resampled(panel.rows, 300)
    for k in np.unique(tenth).tolist():
        here = tenth == k
        x, y = confidence[here].mean(), quality[here].mean()
        means = [quality[i][tenth[i] == k].mean() for i in again if (tenth[i] == k).any()]
        if here.sum() >= _FEWEST and len(means) > 1:
            down, up = np.percentile(means, [2.5, 97.5])
            cv2.line(canvas, _at(x, down), _at(x, up), _BLUE, 1, cv2.LINE_AA)
        cv2.circle(canvas, _at(x, y), 5, _BLUE, -1, cv2.LINE_AA)
        across, height = _at(x, y)
        _write(canvas, str(here.sum()), across + 7, height + (16 if y > 0.5 else -8), _DARK, 0.38)
    for row in panel.beside:
        cv2.drawMarker(canvas, _at(row.confidence, row.quality), _RED, cv2.MARKER_TILTED_CROSS, 9, 2, cv2.LINE_AA)
    if panel.beside:
        _write(canvas, f"x {panel.beside_are}", _LEFT + 10, _TOP + 18, _RED, 0.38)
    return canvas


def _risk(panel: Panel) -> Canvas:
    confidence, quality = columns(panel.rows)
    canvas = _axes("coverage: share kept, the surest first", "risk: 1 - quality of what is kept")
    kept = np.arange(1, len(quality) + 1)
    first = max(1, len(quality) // 50)  # the mean of a few rows is chance
    for order, ink, width in ((-quality, _GRAY, 1), (-confidence, _BLUE, 2)):
        risk = 1 - np.cumsum(quality[np.argsort(order, kind="stable")]) / kept
        points = [_at(x, y) for x, y in zip(kept[first - 1 :] / len(kept), risk[first - 1 :], strict=True)]
        cv2.polylines(canvas, [np.array(points, np.int32)], False, ink, width, cv2.LINE_AA)
    everything = 1 - quality.mean()
    cv2.line(canvas, _at(0, everything), _at(1, everything), _GRAY, 1, cv2.LINE_4)
    sure = confidence >= 0.5
    _write(canvas, f"{len(quality)} rows of {len({row.clip for row in panel.rows})} clips", _LEFT, 22)
    if sure.any():
        said = f"confidence from .5: {sure.mean():.0%} kept, risk {1 - quality[sure].mean():.2f} of {everything:.2f}"
        _write(canvas, said, _LEFT, 44, _GRAY)
    return canvas


def _axes(across: str, up: str) -> Canvas:
    """An empty square from 0 to 1 both ways, its axes named."""
    canvas = np.full((_DOWN, _ACROSS, 3), 255, np.uint8)
    for tick in np.linspace(0, 1, 6):
        cv2.line(canvas, _at(tick, 0), _at(tick, 1), _PALE, 1)
        cv2.line(canvas, _at(0, tick), _at(1, tick), _PALE, 1)
        x, y = _at(tick, 0)
        _write(canvas, f"{tick:.1f}", x - 10, y + 16, size=0.38)
        _write(canvas, f"{tick:.1f}", _LEFT - 28, _at(0, tick)[1] + 4, size=0.38)
    cv2.rectangle(canvas, _at(0, 1), _at(1, 0), _GRAY, 1)
    _write(canvas, across, _LEFT, _TOP + _SIDE + 36)
    turned = np.full((16, _SIDE, 3), 255, np.uint8)
    _write(turned, up, 0, 12)
    canvas[_TOP : _TOP + _SIDE, 14:30] = cv2.rotate(turned, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return canvas


def _at(x: float, y: float) -> tuple[int, int]:
    return round(_LEFT + float(np.clip(x, 0, 1)) * _SIDE), round(_TOP + (1 - float(np.clip(y, 0, 1))) * _SIDE)


def _write(canvas: Canvas, text: str, x: int, y: int, ink: Ink = _DARK, size: float = 0.42) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
