"""`unibench score`, `compare` and `doctor` as a user runs them, on small folders of ordinary files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from openuni.errors import OpenUniError
from openuni.video import encode_video
from openuni_pipelines.commands.compare import compare_command
from openuni_pipelines.commands.doctor import doctor_command
from openuni_pipelines.commands.score import score_command
from unibench.report.report import read

KEYS = [f"s{k}" for k in range(6)]


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    import cv2

    return np.stack([cv2.GaussianBlur(rng.normal(size=shape[1:]), (0, 0), 3) for _ in range(shape[0])]) * 10


def write_run(root: Path, seed: int, noise: float) -> Path:
    for number, key in enumerate(KEYS):
        rng, error = np.random.default_rng([7, number]), np.random.default_rng([seed, number])
        depth = np.exp(smooth(rng, 4, 24, 32) / 4 + 1.5).astype(np.float32)
        flow = np.stack([smooth(rng, 3, 24, 32), smooth(rng, 3, 24, 32)], axis=-1).astype(np.float32)
        ids = np.zeros((4, 24, 32), np.uint8)
        ids[:, 4:12, 4:14], ids[:, 14:22, 16:28] = 1, 2
        frames = rng.integers(0, 255, (4, 24, 32, 3), dtype=np.uint8)
        values = {
            "depth": depth * error.lognormal(0, noise, depth.shape).astype(np.float32),
            "flow": flow + error.normal(0, 3 * noise, flow.shape).astype(np.float32),
            "segmentation": np.roll(ids, round(noise * 10), axis=2),
        }
        for task, value in values.items():
            (root / task).mkdir(parents=True, exist_ok=True)
            np.save(root / task / f"{key}.npy", value)
        (root / "video").mkdir(exist_ok=True)
        (root / "video" / f"{key}.mp4").write_bytes(encode_video(list(frames), 16.0))
    (root / "predictions.json").write_text('{"depth": {"kind": "metric"}, "fps": 16}')
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("score")
    write_run(root / "truth", 0, 0.0)
    write_run(root / "good", 1, 0.05)
    write_run(root / "bad", 2, 0.3)
    return root


def run(command, *arguments: object) -> Result:  # type: ignore[no-untyped-def]
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def score(folder: Path, name: str, out: Path, *more: object) -> dict:  # type: ignore[type-arg]
    result = run(score_command, "--pred", folder / name, "--gt", folder / "truth", "--out", out, *more)
    assert result.exit_code == 0, result.output
    report: dict = json.loads((out / "report.json").read_text())  # type: ignore[type-arg]
    return report


class Links(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value is not None:
                self.images += tag == "img"
                self.found.append(value)


def test_a_run_is_scored_into_json_and_a_page_that_needs_nothing_else(folder: Path, tmp_path: Path) -> None:
    report = score(folder, "good", tmp_path)
    assert list(report["tasks"]) == ["depth", "flow", "segmentation", "video", "consistency"]
    assert report["tasks"]["depth"]["counts"] == {"scored": 6, "missing": 0, "unusable": 0, "penalised": 0}
    assert 0 < report["tasks"]["depth"]["columns"]["disparity/absrel"]["value"] < 0.2
    assert report["tasks"]["video"]["columns"]["imaging_quality"]["value"] is None
    assert "unvalidated" in report["tasks"]["video"]["columns"]["imaging_quality"]["note"]
    assert report["warnings"] == []
    for name in ("miou", "frame_ap", "tube_ap_agnostic50"):  # of the whole set, so resampled as a whole
        column = report["tasks"]["segmentation"]["columns"][name]
        assert column["interval"]["low"] <= column["value"] <= column["interval"]["high"]
        assert column["samples"] == 6
    page = (tmp_path / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.images > 20
    assert all(link.startswith("data:image/") for link in links.found)
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\(", page)
    for words in ("All alignments side by side", "Worst samples", "not recomputed", report["fingerprint"]):
        assert words in page


def test_an_interrupted_run_resumes_to_the_same_report(folder: Path, tmp_path: Path) -> None:
    whole = score(folder, "good", tmp_path / "whole", "--no-page", "--tasks", "depth,flow,segmentation")
    journal = (tmp_path / "whole" / "samples.jsonl").read_bytes()
    (tmp_path / "cut").mkdir()
    for kept in (0, 60, len(journal) // 3, len(journal) - 5):
        (tmp_path / "cut" / "samples.jsonl").write_bytes(journal[:kept])
        if kept == 60:  # not even the first line is whole: nothing to go on with
            with pytest.raises(OpenUniError, match="another protocol"):
                score(folder, "good", tmp_path / "cut", "--no-page", "--resume", "--tasks", "depth,flow")
            continue
        again = score(folder, "good", tmp_path / "cut", "--no-page", "--resume", "--tasks", "depth,flow,segmentation")
        assert again["tasks"] == whole["tasks"]
        assert again["samples"] == whole["samples"]
        assert (tmp_path / "cut" / "samples.jsonl").read_bytes() == journal


@pytest.mark.slow
def test_two_processes_on_ray_give_the_same_report(folder: Path, tmp_path: Path) -> None:
    here = score(folder, "good", tmp_path / "here", "--no-page")
    there = score(folder, "good", tmp_path / "there", "--no-page", "--workers", 2)
    assert here["tasks"] == there["tasks"]
    assert here["samples"] == there["samples"]


def test_limit_tasks_and_missing_predictions(folder: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "few", 1, 0.05)
    (tmp_path / "few" / "flow" / "s0.npy").unlink()
    arguments = ("--pred", tmp_path / "few", "--gt", folder / "truth", "--tasks", "flow", "--limit", 3, "--no-page")
    assert run(score_command, *arguments, "--out", tmp_path / "a").exit_code == 0
    left_out = json.loads((tmp_path / "a" / "report.json").read_text())
    assert left_out["tasks"]["flow"]["counts"] == {"scored": 2, "missing": 1, "unusable": 0, "penalised": 0}
    assert "left out" in left_out["warnings"][0]
    assert run(score_command, *arguments, "--missing", "penalise", "--out", tmp_path / "b").exit_code == 0
    penalised = json.loads((tmp_path / "b" / "report.json").read_text())
    column = "epe_video"
    values = [r["tasks"]["flow"]["columns"][column]["value"] for r in (left_out, penalised)]
    assert values[0] < values[1]
    assert left_out["fingerprint"] != penalised["fingerprint"]


def test_what_cannot_be_done_is_said_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    cases = [
        (("--pred", folder / "good", "--gt", folder / "truth", "--tasks", "sound"), "unknown task 'sound'"),
        (("--pred", folder / "good", "--gt", folder / "nowhere"), "not a folder"),
        (("--pred", folder / "good", "--gt", folder / "truth", "--subset", "general"), "--subset needs"),
        (("--pred", tmp_path, "--gt", folder / "truth"), "no predictions that are known by their place"),
    ]
    for arguments, words in cases:
        with pytest.raises(OpenUniError, match=re.escape(words)):
            run(score_command, *arguments)


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    result = run(
        score_command, "--pred", folder / "good", "--gt", folder / "truth", "--out", tmp_path / "x", "--dry-run"
    )
    assert result.exit_code == 0
    assert "6 depth, 6 flow" in result.output
    assert not (tmp_path / "x").exists()


def test_two_runs_compare_and_two_protocols_do_not(folder: Path, tmp_path: Path) -> None:
    score(folder, "good", tmp_path / "good" / "score", "--no-page")
    score(folder, "bad", tmp_path / "bad" / "score", "--no-page")
    result = run(compare_command, tmp_path / "good", tmp_path / "bad", "--json")
    columns = {f"{c['task']}/{c['column']['name']}": c for c in json.loads(result.output)["columns"]}
    for name in ("depth/disparity/absrel", "flow/epe_video", "segmentation/jf"):
        assert columns[name]["better"] == "good", name
    assert "good" in run(compare_command, tmp_path / "good", tmp_path / "bad" / "score" / "report.json").output
    score(folder, "bad", tmp_path / "other", "--no-page", "--max-depth", 10)
    with pytest.raises(OpenUniError, match="max_depth"):
        run(compare_command, tmp_path / "good", tmp_path / "other")


def test_flipped_flow_is_named_in_the_report_and_by_the_doctor(folder: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "flipped", 1, 0.05)
    for key in KEYS:
        file = tmp_path / "flipped" / "flow" / f"{key}.npy"
        np.save(file, -np.load(file))
    report = score(tmp_path, "flipped", tmp_path / "out", "--no-page", "--gt", folder / "truth")
    assert any("opposite sign" in warning for warning in report["warnings"])
    result = run(doctor_command, "--pred", tmp_path / "flipped", "--gt", folder / "truth")
    assert result.exit_code == 1
    assert "opposite sign" in result.output
    assert "depth: no mistaken convention" in result.output


def test_control_fidelity_scores_what_an_expert_sees_in_the_video(tmp_path: Path) -> None:
    """A textured plane slides to the right: the flow seen in the video is the control, or its opposite."""
    import cv2

    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), (0, 0), 2)
    frames = [np.roll(texture, 2 * t, axis=1) for t in range(4)]
    motion = np.zeros((3, 64, 96, 2), np.float32)
    motion[..., 0] = 2
    for name, sign in (("kept", 1), ("ignored", -1)):
        (tmp_path / name / "flow").mkdir(parents=True)
        np.save(tmp_path / name / "flow" / "a.npy", sign * motion)
    (tmp_path / "run" / "video").mkdir(parents=True)
    (tmp_path / "run" / "video" / "a.mp4").write_bytes(encode_video(frames, 16.0))
    errors = []
    for name in ("kept", "ignored"):
        arguments = ("--pred", tmp_path / "run", "--gt", tmp_path / name, "--out", tmp_path / name / "out", "--no-page")
        assert run(score_command, *arguments, "--control", "flow=dis").exit_code == 0
        report = json.loads((tmp_path / name / "out" / "report.json").read_text())
        assert report["protocol"]["estimators"]["flow"].startswith("dis-")
        errors.append(report["tasks"]["flow"]["columns"]["epe_video"]["value"])
    assert errors[0] < 0.5
    assert errors[1] > 3.5
    with pytest.raises(OpenUniError, match="estimates flow, not depth"):
        run(score_command, "--pred", tmp_path / "run", "--gt", tmp_path / "kept", "--control", "depth=dis")
    program = "densepose=densepose_torchscript"
    with pytest.raises(OpenUniError, match=r"is a program that is run\. .*--trust"):
        run(score_command, "--pred", tmp_path / "run", "--gt", tmp_path / "kept", "--control", program)


def test_the_doctor_checks_itself_on_scenes_that_it_renders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(doctor_command, "--limit", 1)
    assert result.exit_code == 0, result.output
    assert "every check passes" in result.output


def test_scoring_imports_neither_torch_nor_ray(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from openuni_pipelines.commands.score import score_command as s\n"
        f"s(['--pred', {str(folder / 'good')!r}, '--gt', {str(folder / 'truth')!r}, '--out', {str(tmp_path)!r}], "
        "standalone_mode=False)\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'scipy', 'mitsuba')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path).tasks["flow"].counts.scored == 6
