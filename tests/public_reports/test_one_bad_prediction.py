"""A video larger than the truth could need, or a prediction that cannot be drawn, costs its own place, not the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unibench
from openuni.errors import BadVideoError
from openuni.video import encode_video
from unibench import tasks
from unibench.scoring import doctor, samples
from unibench.tasks import Info


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predicted depth as mp4 of two clips, one of which is far longer than its truth."""
    pred, truth = tmp_path / "pred", tmp_path / "truth"
    (pred / "depth").mkdir(parents=True)
    (truth / "depth").mkdir(parents=True)
    grey = np.linspace(40, 200, 32, dtype=np.uint8)[None, None, :, None]
    for key, frames in (("good", 4), ("long", 400)):
        (pred / f"depth/{key}.mp4").write_bytes(encode_video(np.tile(grey, (frames, 32, 1, 3)), 8.0, lossless=True))
        np.savez(truth / f"depth/{key}.npz", depth=np.tile(grey[..., 0].astype(np.float32) / 10, (4, 32, 1)))
    (pred / "predictions.json").write_text(json.dumps({"depth": {"kind": "relative"}}))
    (truth / "predictions.json").write_text(json.dumps({"depth": {"kind": "metric"}}))
    return pred, truth


def test_a_video_too_large_for_its_truth_is_unusable(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_most", lambda size: 20 * 32 * 32 * 3)
    report = unibench.score(*folders)
    assert report.tasks["depth"].counts.unusable == 1
    (lost,) = (sample for sample in report.samples if sample.status == "unusable")
    assert lost.key == "long"
    assert "exceed" in lost.reason


def test_a_video_is_refused_before_it_is_decoded(folders: tuple[Path, Path]) -> None:
    for task in ("depth", "video"):
        with pytest.raises(BadVideoError, match="400 frames of 32×32 exceed 1000 bytes"):
            tasks.get_stored(task).read(folders[0] / "depth/long.mp4", _info(task), 1000)


def _info(task: str) -> Info:
    return Info(8.0, {"depth": tasks.get_stored("depth").Options(kind="relative")} if task == "depth" else {})


@pytest.mark.parametrize("where", ["drawing", "doubting"])
def test_what_a_prediction_raises_later_does_not_end_the_run(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of <b>all</b> things")

    if where == "drawing":
        monkeypatch.setattr(type(tasks.get("depth")), "panels", fail)
    else:
        monkeypatch.setattr(doctor, "diagnose", fail)
    report = unibench.score(*folders)
    assert report.tasks["depth"].counts.scored == 2
    page = (folders[0] / "score/report.html").read_text("utf-8")
    assert "ZeroDivisionError: of &lt;b&gt;all&lt;/b&gt; things" in page
