"""Training: resumed bit for bit, safe checkpoints, ranks equal to one process."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import openuni  # noqa: E402
from openuni_model import checkpoint  # noqa: E402
from openuni_model.checkpoint import CheckpointError, tensors_sha256  # noqa: E402
from openuni_model.codecs import PixelCodec  # noqa: E402
from openuni_model.config import ModelConfig, preset  # noqa: E402
from openuni_model.data import Buckets, Cursor, Reader, plan_steps  # noqa: E402
from openuni_model.dit import UnifiedDiT  # noqa: E402
from openuni_model.lora import add_lora  # noqa: E402
from openuni_model.parallel import World  # noqa: E402
from openuni_model.tasks import Stage  # noqa: E402
from openuni_model.trainer import MAX_SKIPPED, DivergedError, Report, Schedule, Trainer  # noqa: E402
from openuni_model.training import keep_base, run_until  # noqa: E402
from openuni_model.weights import load_model  # noqa: E402
from openuni_pipelines.commands.train import Signals  # noqa: E402
from tests.openuni_model.conftest import random_model  # noqa: E402

GOLDEN = (2.131343, 2.209867, 0.716319, 35.008595, 0.489593, 1.088963)
"""Losses of the first six steps of `trainer`; the fourth has a stream at small t, where x-errors weigh most."""
STAGE = Stage("test", ("depth", "flow"), p_more=0.3, p_alone=0.0, prompts=False)


def tiny() -> ModelConfig:
    changes = {"width": 32, "ffn": 64, "layers": 2, "heads": 2, "text_width": 16, "text_length": 4}
    return preset("nano", modalities=("rgb", "depth", "flow"), **changes)


def embed(text: str) -> torch.Tensor:
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(sum(map(ord, text))))


def trainer(discs: Path, out: Path, world: World | None = None, *, lora: int = 0, **changes: object) -> Trainer:
    settings = Schedule(out, steps=6, global_batch_size=3, lr=1e-3, warmup=4, checkpoint_every=3)
    torch.manual_seed(0)
    model = UnifiedDiT(tiny())
    if lora:
        keep_base(random_model(tiny()), out, world or World())
        model = add_lora(load_model(out / "base"), lora)
    reader = Reader(str(discs), STAGE, Buckets(tiny()), 0, PixelCodec())
    return Trainer(replace(settings, **changes), model, reader, embed, world)  # type: ignore[arg-type]


def numbers(report: Report) -> dict[str, float]:
    """What a step reports of all ranks together."""
    tasks = {"/".join(pair): loss for pair, loss in report.by_task.items()}
    return {"loss": report.loss, "tokens": report.tokens, "flops": report.flops, **tasks}


def hashes(path: Path) -> list[str]:
    checkpoint.read_progress(path)
    return [tensors_sha256(checkpoint.read(path, part)) for part in checkpoint.PARTS]


def test_a_run_resumed_from_any_checkpoint_ends_with_the_same_bits(discs: Path, tmp_path: Path) -> None:
    whole = list(trainer(discs, tmp_path / "whole", checkpoint_every=1, keep=99).run())
    folder = tmp_path / "whole" / "checkpoints"
    assert [path.name for path in checkpoint.checkpoints(folder)] == [f"{n:08d}" for n in range(1, 7)]
    for start in (1, 3, 5):
        again = trainer(discs, tmp_path / f"from{start}")
        again.restore(folder / f"{start:08d}")
        reports = list(again.run())
        assert [r.loss for r in reports] == [r.loss for r in whole[start:]]
        assert [r.keys for r in reports] == [r.keys for r in whole[start:]]
        assert hashes(tmp_path / f"from{start}" / "checkpoints" / "00000006") == hashes(folder / "00000006")


def test_killed_with_sigkill_and_resumed_it_ends_with_the_same_bits(discs: Path, tmp_path: Path) -> None:
    list(trainer(discs, tmp_path / "whole").run())
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
from tests.openuni_model.test_trainer import trainer
for report in trainer(Path({str(discs)!r}), Path({str(tmp_path / "killed")!r})).run():
    if report.step == 4: os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    folder = tmp_path / "killed" / "checkpoints"
    path, damaged = checkpoint.newest(folder)
    assert path is not None
    assert (path.name, damaged) == ("00000003", [])
    again = trainer(discs, tmp_path / "killed")
    again.restore(path)
    list(again.run())
    assert hashes(folder / "00000006") == hashes(tmp_path / "whole" / "checkpoints" / "00000006")


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_sigterm_at_random_steps_changes_no_bit(discs: Path, tmp_path: Path, kills: int) -> None:
    steps = 2 * kills + 2
    settings = {"steps": steps, "checkpoint_every": 1000, "keep": 1}
    whole = list(trainer(discs, tmp_path / "whole", **settings).run())
    folder, losses = tmp_path / "killed" / "checkpoints", []
    for at in [*sorted(random.Random(kills).sample(range(1, steps), kills)), steps]:
        again = trainer(discs, tmp_path / "killed", **settings)
        path, _ = checkpoint.newest(folder)
        if path:
            again.restore(path)
        with Signals() as signals:
            if again.step == at - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            for report in run_until(again, signals.came):
                losses.append(report.loss)
                if report.step == at - 1:  # noted for the end of the next step
                    os.kill(os.getpid(), signal.SIGTERM)
        assert [found.name for found in checkpoint.checkpoints(folder)] == [f"{at:08d}"]
    assert losses == [report.loss for report in whole]
    assert hashes(folder / f"{steps:08d}") == hashes(tmp_path / "whole" / "checkpoints" / f"{steps:08d}")


def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(discs: Path, tmp_path: Path) -> None:
    list(trainer(discs, tmp_path, checkpoint_every=1, keep=3).run())
    folder = tmp_path / "checkpoints"
    assert [path.name for path in checkpoint.checkpoints(folder)] == ["00000004", "00000005", "00000006"]
    [weights] = (folder / "00000006" / "ema").iterdir()
    weights.write_bytes(weights.read_bytes()[:-7])
    (folder / "00000005" / "state.json").unlink()
    path, damaged = checkpoint.newest(folder)
    assert path == folder / "00000004"
    assert "00000006/ema/" in damaged[0]
    assert "is damaged" in damaged[0]
    assert "00000005 is not a finished checkpoint" in damaged[1]
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_trained(folder / "00000006")


def test_a_resumed_run_may_change_how_it_steps_and_says_what_changed(discs: Path, tmp_path: Path) -> None:
    """The cursor is kept: after two steps of 4 clips, steps of 2 and of 1 take the clips that come next, each once."""
    four = trainer(discs, tmp_path, steps=2, global_batch_size=4, checkpoint_every=1)
    taken = [key for report in four.run() for key in report.keys]
    two = trainer(discs, tmp_path, steps=4, global_batch_size=2, gradient_accumulation_steps=2, lr=1e-4, ema=0.5)
    assert two.restore(tmp_path / "checkpoints" / "00000002") == [
        "ema 0.5 (was 0.9999)",
        "global_batch_size 2 (was 4)",
        "gradient_accumulation_steps 2 (was 1)",
        "lr 0.0001 (was 0.001)",
    ]
    reports = list(two.run())
    assert [report.lr for report in reports] == [3 / 4 * 1e-4, 1e-4]
    taken += [key for report in reports for key in report.keys]
    one = trainer(discs, tmp_path, steps=8, global_batch_size=1)
    one.restore(tmp_path / "checkpoints" / "00000004")
    taken += [key for report in one.run() for key in report.keys]
    undisturbed = trainer(discs, tmp_path / "whole", steps=16, global_batch_size=1)
    assert sorted(taken) == sorted(key for report in undisturbed.run() for key in report.keys)


def test_fewer_clips_a_step_take_first_what_waits_in_the_same_order_after_any_resume(discs: Path) -> None:
    data, fit = openuni.open(str(discs)), Buckets(replace(tiny(), frames=4))
    waiting = Cursor(20, (3, 8, 9, 12, 15))
    plans = list(islice(plan_steps(data, STAGE, fit, clips_of=lambda _: 2, seed=0, cursor=waiting), 4))
    for number, plan in enumerate(plans[:-1]):
        again = next(plan_steps(data, STAGE, fit, clips_of=lambda _: 2, seed=0, cursor=plan.after))
        assert again == plans[number + 1]
    assert [[entry.position for entry in plan.entries] for plan in plans[:2]] == [[3, 8], [9, 12]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"seed 1 \(was 0\): the order, the tasks and the noise come from it"),
        ({"stage": replace(STAGE, p_more=0.5)}, r"stage.p_more 0.5 \(was 0.3\): the stage decides"),
        # Left out where it is 0, so that checkpoints from before there was such a share go on.
        ({"stage": replace(STAGE, p_alone=0.5)}, r"stage.p_alone 0.5 \(was None\): the stage decides"),
        ({"fit": Buckets(replace(tiny(), frames=4))}, r"model.frames 4 \(was 8\): the weights have"),
    ],
)
def test_what_must_not_change_is_named_with_the_reason(
    discs: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    list(trainer(discs, tmp_path, steps=1).run())
    other = trainer(discs, tmp_path)
    other.reader = replace(other.reader, **change)
    other.config = other.reader.config
    with pytest.raises(CheckpointError, match=message):
        other.restore(tmp_path / "checkpoints" / "00000001")


def test_only_what_is_new_has_its_own_learning_rate(discs: Path, tmp_path: Path) -> None:
    """A first AdamW step moves each value by the learning rate: RGB's experts once, those of views ten times."""
    settings = {"new_scale": 10.0, "weight_decay": 0.0, "warmup": 0, "clip_norm": 1e9}
    run = trainer(discs, tmp_path, steps=1, **settings)
    with torch.no_grad():  # no gradient is zero
        for parameter in run.names.values():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    before = {name: p.detach().clone() for name, p in run.names.items()}
    list(run.run())
    moved = {name: (p.detach() - before[name]).abs() for name, p in run.names.items()}
    for name in ("in_weight_KDI", "out_weight_KOD"):
        by_view = moved[name].flatten(1).median(1).values
        assert by_view.tolist() == pytest.approx([1e-3, 1e-2, 1e-2], rel=0.01), name
    assert float(moved["modality_KD"].median()) == pytest.approx(1e-2, rel=0.01)
    assert float(moved["blocks.0.ffn.0.weight"].median()) == pytest.approx(1e-3, rel=0.01)


def test_with_averaged_weights_and_back(discs: Path, tmp_path: Path) -> None:
    run = trainer(discs, tmp_path, steps=3)
    list(run.run())
    weights, ema = tensors_sha256(run.names), tensors_sha256(run.ema)
    with run.averaged():
        assert tensors_sha256(run.names) == ema
    assert (tensors_sha256(run.names), tensors_sha256(run.ema)) == (weights, ema)


def test_accumulated_micro_batches_make_the_step_of_the_whole_batch(discs: Path, tmp_path: Path) -> None:
    parts = [trainer(discs, tmp_path / str(n), gradient_accumulation_steps=n, steps=3) for n in (1, 3)]
    losses = [[report.loss for report in part.run()] for part in parts]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, parameter in parts[0].names.items():
        torch.testing.assert_close(parameter, parts[1].names[name], atol=1e-4, rtol=1e-3)


def test_steps_bounded_by_tokens_take_more_short_clips_and_resume_bit_for_bit(discs: Path, tmp_path: Path) -> None:
    """The clip of two frames comes once an epoch of ten; four of it make a step."""

    def run(folder: str, steps: int) -> Trainer:
        return trainer(
            discs, tmp_path / folder, batch_by="tokens", global_batch_size=1, steps=steps, checkpoint_every=9
        )

    whole = run("whole", 45)
    reports = list(whole.run())
    assert {report.clips for report in reports} == {1, 4}
    assert max(report.tokens for report in reports) <= 3 * whole.reader.fit.most_tokens  # streams of a clip
    first = run("parts", 9)
    list(first.run())
    second = run("parts", 45)
    second.restore(tmp_path / "parts" / "checkpoints" / "00000009")
    list(second.run())
    assert tensors_sha256(second.names) == tensors_sha256(whole.names)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU: no g++ here")
def test_a_compiled_model_takes_the_same_steps(discs: Path, tmp_path: Path) -> None:
    plain = list(trainer(discs, tmp_path / "plain").run())
    compiled = list(trainer(discs, tmp_path / "compiled", compile=True).run())
    torch.compiler.reset()
    assert [r.loss for r in compiled] == pytest.approx([r.loss for r in plain], rel=1e-5)
    assert [r.grad_norm for r in compiled] == pytest.approx([r.grad_norm for r in plain], rel=1e-4)


def test_steps_that_are_not_finite_change_nothing_are_named_and_stop_the_run(discs: Path, tmp_path: Path) -> None:
    run = trainer(discs, tmp_path, steps=50, checkpoint_every=100)
    before = tensors_sha256(run.names)
    with torch.no_grad():
        run.names["out_bias_KO"].fill_(float("nan"))
    reports: list[Report] = []
    with pytest.raises(DivergedError, match=f"no finite loss for {MAX_SKIPPED} steps up to step 10.*disc-"):
        reports.extend(run.run())
    assert all(report.skipped and report.keys for report in reports)
    assert len(reports) == MAX_SKIPPED
    with torch.no_grad():
        run.names["out_bias_KO"].zero_()
    assert tensors_sha256(run.names) == before


def test_the_trained_model_is_the_ema_and_loads_from_run_checkpoint_or_folder(discs: Path, tmp_path: Path) -> None:
    run = trainer(discs, tmp_path)
    list(run.run())
    for where in (tmp_path, tmp_path / "checkpoints" / "00000006"):
        model = checkpoint.load_trained(where)
        assert tensors_sha256(model.state_dict()) == tensors_sha256(run.ema)
    raw = checkpoint.load_trained(tmp_path, ema=False)
    assert tensors_sha256(raw.state_dict()) == tensors_sha256(run.names)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        checkpoint.load_trained(tmp_path / "empty")


_RANK = """
import json, os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
from openuni_model.parallel import joined_world
from openuni_model.training import run_until
from openuni_pipelines.commands.train import Signals
from tests.openuni_model import test_trainer as t

def train(world):
    run = t.trainer(Path({discs!r}), Path({out!r}), world=world, **{changes!r})
    resume, kill_at = {resume!r}, {kill_at!r}
    if resume:
        run.restore(Path(resume))
    steps = []
    with Signals() as signals:
        load = run.reader.load
        def killing(entry):  # in the middle of a step, while the other rank works on it
            if run.step == kill_at and world.rank == 1 and not signals.came():
                os.kill(os.getpid(), signal.SIGTERM)
            return load(entry)
        object.__setattr__(run.reader, "load", killing)
        steps = [t.numbers(report) for report in run_until(run, signals.came)]
    if world.rank == 0:
        print("STEPS", json.dumps(steps))

with joined_world("cpu") as world:
    train(world)
"""


def two_ranks(
    discs: Path, out: Path, resume: Path | None = None, *, kill_at: int | None = None, **changes: object
) -> list[dict[str, float]]:
    """The `numbers` of a run by two processes, started as a user would: by torchrun, which finds a free port.

    During the step after `kill_at` others the second process alone gets SIGTERM.
    """
    script = out.with_suffix(".py")
    script.write_text(
        _RANK.format(
            root=str(Path(__file__).parents[2]),
            discs=str(discs),
            out=str(out),
            changes=changes,
            resume=str(resume or ""),
            kill_at=kill_at,
        )
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    steps: list[dict[str, float]] = json.loads(done.stdout.split("STEPS", 1)[1])
    return steps


def test_one_two_one_ranks_with_a_sigterm_equal_an_undisturbed_run(discs: Path, tmp_path: Path) -> None:
    """Two steps alone, two by two ranks of which one is told to end, the rest alone; accumulation changes too."""
    common = {"global_batch_size": 4, "steps": 6, "checkpoint_every": 2}
    whole = trainer(discs, tmp_path / "whole", **common)
    steps = [numbers(report) for report in whole.run()]
    out, folder = tmp_path / "run", tmp_path / "run" / "checkpoints"
    alone = trainer(discs, out, **{**common, "steps": 2})
    got = [numbers(report) for report in alone.run()]
    more = two_ranks(discs, out, folder / "00000002", kill_at=2, **common, gradient_accumulation_steps=2)
    assert len(more) == 1  # both ranks ended after the step in which one was told to
    assert [path.name for path in checkpoint.checkpoints(folder)] == ["00000002", "00000003"]
    again = trainer(discs, out, **common, gradient_accumulation_steps=4)
    again.restore(folder / "00000003")
    got += more + [numbers(report) for report in again.run()]
    for theirs, ours in zip(got, steps, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-6)
    weights, others = (
        checkpoint.read(run / "checkpoints" / "00000006", "weights") for run in (out, whole.settings.out)
    )
    apart = max(float((weights[name] - others[name]).norm() / (others[name].norm() + 1)) for name in weights)
    assert apart < 1e-6


@pytest.mark.slow
def test_two_fsdp_ranks_equal_one_process_and_resume_from_its_checkpoint(discs: Path, tmp_path: Path) -> None:
    """The ranks draw different tasks and modalities; SGD-like closeness is asked of weights after AdamW."""
    alone = trainer(discs, tmp_path / "alone", global_batch_size=4, checkpoint_every=3)
    steps = [numbers(report) for report in alone.run()]
    got = two_ranks(discs, tmp_path / "ranks", global_batch_size=4, checkpoint_every=3)
    for step, theirs in zip(steps, got, strict=True):
        assert theirs == pytest.approx(step, abs=1e-5, rel=1e-5)
    one, two = (checkpoint.read(tmp_path / n / "checkpoints" / "00000006", "weights") for n in ("alone", "ranks"))
    assert len(list((tmp_path / "ranks" / "checkpoints" / "00000006" / "weights").iterdir())) == 2
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4)
    from_alone = tmp_path / "alone" / "checkpoints" / "00000003"
    resumed = two_ranks(discs, tmp_path / "again", from_alone, global_batch_size=4, checkpoint_every=3)
    for step, theirs in zip(steps[3:], resumed, strict=True):
        assert theirs == pytest.approx(step, abs=1e-5, rel=1e-5)


def test_two_ranks_train_adapters_as_one_process_does(discs: Path, tmp_path: Path) -> None:
    common = {"lora": 2, "global_batch_size": 4, "steps": 3}
    alone = trainer(discs, tmp_path / "alone", **common)  # type: ignore[arg-type]
    steps = [numbers(report) for report in alone.run()]
    ranks = two_ranks(discs, tmp_path / "ranks", **common)  # type: ignore[arg-type]
    for theirs, ours in zip(ranks, steps, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5)
    ours, theirs = (checkpoint.load_trained(tmp_path / name).state_dict() for name in ("alone", "ranks"))
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], atol=1e-5, rtol=1e-4)


def test_golden_losses(discs: Path, tmp_path: Path) -> None:
    """A change of these numbers is a change of the model, the draws or the data: it must be meant."""
    losses = [report.loss for report in trainer(discs, tmp_path).run()]
    assert losses == pytest.approx(GOLDEN, rel=2e-4)
