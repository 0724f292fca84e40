"""`openuni train`: a stage of the curriculum on a dataset, resumable at any moment, alone or under torchrun."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from openuni.errors import OpenUniError
from openuni.shards import layout

if TYPE_CHECKING:  # torch is loaded when training starts, not for --help
    from openuni_model.batch import Batch, Embed, Item
    from openuni_model.data import Reader
    from openuni_model.dit import UnifiedDiT
    from openuni_model.parallel import World
    from openuni_model.train import Report, Settings, Trainer

_VALIDATED, _PAINTED, _PAINT_STEPS = 8, 2, 20
_SPEAK_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a preset is trained unless the user says otherwise."""

    clips: int
    lr: float
    warmup: int
    ema: float
    steps: int | None = None


RECIPES: Mapping[str, Recipe] = {
    "nano": Recipe(16, 1e-3, 100, 0.999, 2_000),
    "micro": Recipe(16, 5e-4, 200, 0.999, 10_000),
    "small": Recipe(32, 2e-4, 500, 0.9999),
    "1.3b": Recipe(32, 5e-5, 200, 0.9999),
    "5b": Recipe(32, 5e-5, 200, 0.9999),
}
"""Where `steps` is None a stage's own number is taken: 16,000 and 40,000, as in the paper."""


@click.command("train")
@click.option("--stage", default="1", show_default=True, help="1, 2, or a .toml file of a stage's fields.")
@click.option("--preset", type=click.Choice(list(RECIPES)), default="nano", show_default=True, help="Model size.")
@click.option("--data", help="Dataset.  [default: the newest below data/]")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/stage-STAGE]")
@click.option(
    "--init",
    type=click.Path(path_type=Path, exists=True),
    help="Run, checkpoint or model folder to start from.  [default: for stage 2 the run of stage 1 beside --out, "
    "if there is one; else --wan; else random]",
)
@click.option(
    "--wan",
    type=click.Path(path_type=Path, exists=True),
    help="Folder of Wan in diffusers layout (transformer/, vae/, text_encoder/, tokenizer/).",
)
@click.option("--modalities", help="Views to train, comma-separated.  [default: the stage's]")
@click.option("--steps", type=click.IntRange(1), help="Steps in all.  [default: by preset or stage]")
@click.option("--clips", type=click.IntRange(1), help="Clips a step, over all ranks.  [default: by preset]")
@click.option("--accumulate", default=1, show_default=True, help="Micro-batches a step.")
@click.option("--lr", type=float, help="Learning rate.  [default: by preset]")
@click.option("--warmup", type=int, help="Steps of linear warm-up.  [default: by preset]")
@click.option("--ema", type=float, help="Decay of the averaged weights.  [default: by preset]")
@click.option("--frames", type=int, help="Frames of the longest bucket.  [default: by preset]")
@click.option("--size", type=int, help="Side of a square of the frames' area.  [default: by preset]")
@click.option("--seed", default=0, show_default=True)
@click.option("--no-switcher", is_flag=True, help="Ablation: no modality embedding, one expert for all.")
@click.option("--no-in-context", is_flag=True, help="Ablation: views read the caption, not their own prompt.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder that keeps latents; losses stay the same.")
@click.option("--workers", default=0, show_default=True, help="Processes that read ahead.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--compile", "compile_", is_flag=True, help="torch.compile the model.")
@click.option("--activation-checkpointing", is_flag=True, help="Recompute blocks in the backward pass.")
@click.option("--checkpoint-every", default=500, show_default=True, help="Steps.")
@click.option("--keep", default=3, show_default=True, help="Checkpoints kept.")
@click.option("--validate-every", default=250, show_default=True, help="Steps; 0: never.")
@click.option("--paint-every", default=500, show_default=True, help="Steps between sample pictures; 0: never.")
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="auto: go on from the newest whole checkpoint in --out.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained and what it takes; train nothing.")
def train_command(**options: Any) -> None:
    """Train the unified model on a dataset.

    Several GPUs: torchrun --nproc-per-node 8 -m openuni_pipelines train …
    """
    import torch
    from transformers.utils import logging as transformers_logging

    from openuni_model.parallel import joined_world

    transformers_logging.disable_progress_bar()
    # Same bits on the same machine, also after a resume; an operation that cannot promise them warns.
    torch.use_deterministic_algorithms(True, warn_only=True)
    with joined_world(options["device"]) as world:
        train(options, world, Console(stderr=True, quiet=world.rank > 0))


def train(options: Mapping[str, Any], world: World, console: Console) -> None:
    """Say what will be trained and, unless it is a dry run, train it."""
    job = prepare(options, world, console)
    describe(job, console)
    if not options["dry_run"]:
        run(job, console)


@dataclass(frozen=True)
class Job:
    """Everything a run needs, resolved; `started` says what the weights are."""

    settings: Settings
    model: UnifiedDiT
    reader: Reader
    embed: Embed
    world: World
    started: str
    validate_every: int
    paint_every: int
    resume: bool


def prepare(options: Mapping[str, Any], world: World, console: Console) -> Job:
    """Resolve defaults, open data, codec, text encoder and weights. Raises OpenUniError with the mend."""
    import openuni
    from openuni import registry
    from openuni_model.codecs import open_codec
    from openuni_model.config import preset
    from openuni_model.data import Fit, Reader
    from openuni_model.tasks import load_stage
    from openuni_model.texts import open_text_encoder
    from openuni_model.train import Settings

    recipe = RECIPES[options["preset"]]
    recipe = replace(
        recipe,
        **{k: options[k] for k in ("clips", "lr", "warmup", "ema", "steps") if options[k] is not None},
    )
    stage = load_stage(options["stage"])
    if options["modalities"]:
        stage = replace(stage, modalities=tuple(options["modalities"].split(",")))
    if unknown := sorted(set(stage.modalities) - set(registry.names("modalities"))):
        raise OpenUniError(f"no modality {', '.join(unknown)}; known: {', '.join(registry.names('modalities'))}")
    url = options["data"] or str(newest_data_set(Path("data")))
    out = options["out"] or Path("runs") / f"stage-{stage.name}"
    console.print(f"data {url}, out {out}")
    size = {name: options[name] for name in ("frames", "size") if options[name] is not None}
    switches = {"switcher": not options["no_switcher"], "in_context": not options["no_in_context"]}
    config = preset(options["preset"], **switches, **size)
    data = openuni.open(url)
    codec = open_codec(config.codec, options["wan"], world.device)
    embed = open_text_encoder(config, options["wan"], world.device)
    model, started, brought = first_weights(options, out, stage.name, config)
    settings = Settings(
        out=out,
        steps=recipe.steps or stage.steps,
        clips=recipe.clips,
        accumulate=options["accumulate"],
        lr=recipe.lr,
        new_scale=10.0 if brought else 1.0,  # what Wan does not bring has further to go
        warmup=recipe.warmup,
        ema=recipe.ema,
        workers=options["workers"],
        checkpoint_every=options["checkpoint_every"],
        keep=options["keep"],
        activation_checkpointing=options["activation_checkpointing"],
        compile=options["compile_"],
    )
    reader = Reader(data.url, stage, Fit(config), options["seed"], codec, options["cache"])
    return Job(
        settings,
        model,
        reader,
        embed,
        world,
        started,
        options["validate_every"],
        options["paint_every"],
        options["resume"] == "auto",
    )


def first_weights(options: Mapping[str, Any], out: Path, stage: str, config: Any) -> tuple[UnifiedDiT, str, bool]:
    """The model to start from, what it is in words, and whether its backbone is Wan's."""
    import torch

    from openuni_model.checkpoint import load_trained
    from openuni_model.config import ModelConfigError
    from openuni_model.dit import UnifiedDiT
    from openuni_model.weights import load_wan, read_wan, wan_part

    before = out.parent / "stage-1"
    init = options["init"] or (before if stage == "2" and (before / "checkpoints").is_dir() else None)
    if init is not None:
        model = load_trained(init, modalities=config.modalities)
        if replace(model.config, frames=config.frames, size=config.size) != config:
            other = [n for n, v in asdict(config).items() if asdict(model.config)[n] != v]
            raise ModelConfigError(f"{init} is another model than --preset asks for: it differs in {', '.join(other)}")
        model.config = config
        return model, f"from {init}", False
    torch.manual_seed(options["seed"])
    model = UnifiedDiT(config)
    if options["wan"] is None:
        return model, "random start", False
    load_wan(model, read_wan(wan_part(options["wan"], "transformer", "--wan")))
    return model, f"from Wan in {options['wan']}", True


def newest_data_set(folder: Path) -> Path:
    """The dataset below `folder` that was changed last. Raises OpenUniError saying what to put there."""
    found = sorted(folder.glob(f"*/{layout.MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise OpenUniError(f"no dataset below {folder}/; build one (openuni build) or name one with --data")
    return found[-1].parent


def describe(job: Job, console: Console) -> None:
    """Parameters, tokens, bytes, clips kept and dropped, codec error of each view."""
    from openuni_model.cost import training_bytes
    from openuni_model.data import picture, survey

    config, stage, settings = job.model.config, job.reader.stage, job.settings
    data = job.reader.data
    found = survey(data, stage, job.reader.fit)
    parameters = sum(p.numel() for p in job.model.parameters())
    console.print(
        f"model {parameters / 1e6:,.1f} M parameters, {config.prediction}-prediction, {job.started}; "
        f"stage {stage.name}: {', '.join(stage.modalities)}, {settings.steps:,} steps of {settings.clips} clips"
    )
    for bucket, clips in sorted(found.buckets.items(), key=lambda pair: -pair[1]):
        size = job.reader.codec.latent_size(bucket.frames, bucket.height, bucket.width)
        tokens = config.grid(*size)
        micro = settings.clips // (settings.accumulate * job.world.size)
        state, kept = training_bytes(
            config, size, (2,) * micro, ranks=job.world.size, checkpointing=settings.activation_checkpointing
        )
        waits = "" if clips >= settings.clips else f" (fewer than a step: trained once {settings.clips} have gathered)"
        console.print(
            f"  {bucket.frames}×{bucket.height}×{bucket.width}: {clips:,} clips{waits}, "
            f"{tokens[0] * tokens[1] * tokens[2]:,} tokens a stream, predicted bytes a rank: "
            f"{state / 2**20:,.0f} MiB state + {kept / 2**20:,.0f} MiB activations (float32)"
        )
    console.print("  views: " + ", ".join(f"{name} {count:,}" for name, count in found.views.items()))
    if found.dropped:
        console.print("  left out: " + ", ".join(f"{count:,} {reason}" for reason, count in found.dropped.items()))
    sample = next((s for s in data if job.reader.fit.bucket(s.record)), None)
    size_of = job.reader.fit.bucket(sample.record) if sample else None
    if sample is not None and size_of is not None:
        errors = {
            view: job.reader.codec.error(picture(sample, view, size_of, 0))
            for view in ("rgb", *stage.modalities)
            if view in sample
        }
        said = ", ".join(f"{view} {error:.4f}" for view, error in errors.items())
        console.print(f"  error of a picture through the codec (RMSE of 0…1, {sample.key}): {said}")


def run(job: Job, console: Console) -> None:
    """Train, and write `log.jsonl`, TensorBoard events, sample pictures and at the end `model/`."""
    from openuni_model.checkpoint import checkpoints, newest
    from openuni_model.train import Trainer
    from openuni_model.watch import held_out, validation_batches
    from openuni_model.watch import load as load_item

    out = job.settings.out
    folder = out / "checkpoints"
    trainer = Trainer(job.settings, job.model, job.reader, job.embed, job.world)
    if checkpoints(folder) and not job.resume:
        raise OpenUniError(f"{folder} holds checkpoints; give another --out, or leave --resume at auto")
    path, damaged = newest(folder)
    for sentence in damaged:
        console.print(sentence, style="yellow")
    if path is not None:
        trainer.restore(path)
        console.print(f"resuming from {path}")
    samples = held_out(job.reader.data, job.reader.fit, job.reader.stage.modalities, _VALIDATED)
    if not samples:
        console.print("no clip of split val fits: validation and sample pictures are off", style="yellow")
    batches = validation_batches(job.reader, samples, job.embed) if job.validate_every else []
    views = [view for view in job.reader.stage.modalities if samples and view in samples[0]]
    painted = [load_item(job.reader, s, views[:1]) for s in samples[:_PAINTED] if views and views[0] in s]
    log = Log(out, trainer.step) if job.world.rank == 0 else None
    if log:
        log.write({"event": "start", "step": trainer.step, "from": job.started, **trainer.fingerprint()})
    spoken = time.monotonic()
    with _bar(console) as bar:
        shown = bar.add_task("training", total=job.settings.steps, completed=trainer.step, said="")
        for report in trainer.run():
            if log:
                log.step(report, job.world)
            bar.update(shown, completed=report.step, said=_line(report))
            if not console.is_terminal and time.monotonic() > spoken + _SPEAK_SECONDS:
                spoken = time.monotonic()
                console.print(f"step {report.step:,} of {job.settings.steps:,}: {_line(report)}")
            if report.skipped:
                console.print(f"step {report.step}: no finite loss, nothing changed; clips {', '.join(report.keys)}")
            last = report.step == job.settings.steps
            if batches and (report.step % job.validate_every == 0 or last):
                _validate(trainer, batches, log, report.step, console)
            if painted and job.paint_every and (report.step % job.paint_every == 0 or last):
                _paint(trainer, painted, views[0], log, report.step)
    if log:
        final = _export(trainer, folder)
        log.close()
        console.print(f"trained to step {trainer.step}; the model is {final}")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
        console=console,
        disable=not console.is_terminal,
    )


def _line(report: Report) -> str:
    rate, waits = report.clips / report.seconds, report.waited / report.seconds
    return f"loss {report.loss:.4f}  {rate:.1f} clips/s  waiting {waits:.0%}"


def _validate(trainer: Trainer, batches: list[Batch], log: Log | None, step: int, console: Console) -> None:
    from openuni_model.watch import validate

    results = validate(trainer.model, batches, trainer.world.device)
    mean = sum(r.loss for r in results) / len(results)
    console.print(f"step {step}: validation loss {mean:.4f}")
    if log:
        log.write({"event": "validate", "step": step, "loss": mean, "buckets": [asdict(r) for r in results]})
        log.scalars({"validation/all": mean} | {f"validation/{r.task}/{r.view}/t={r.t}": r.loss for r in results}, step)


def _paint(trainer: Trainer, items: list[Item], view: str, log: Log | None, step: int) -> None:
    import cv2

    from openuni_model.watch import paint_all_ways, sheet

    # Every rank takes part: a sharded model is gathered by all.
    rows = paint_all_ways(trainer.model, items, view, trainer.embed, steps=_PAINT_STEPS)
    if log:
        picture = sheet(rows, trainer.reader.codec)
        path = trainer.settings.out / "samples" / f"{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
        log.picture(picture, step)


def _export(trainer: Trainer, folder: Path) -> Path:
    """`model/`: the averaged weights of the last checkpoint, ready to be used or published."""
    from openuni_model.checkpoint import checkpoints, load_trained
    from openuni_model.weights import model_card, save_model

    model = load_trained(checkpoints(folder)[-1])
    final = trainer.settings.out / "model"
    stage = trainer.reader.stage
    card = model_card(
        model.config,
        f"Stage {stage.name} ({', '.join(stage.modalities)}), {trainer.step:,} steps of {trainer.settings.clips} "
        f"clips, averaged weights (EMA {trainer.settings.ema}).",
    )
    save_model(final, model.config, model.state_dict(), card)
    return final


class Log:
    """`log.jsonl` and TensorBoard events of a run. After a resume the steps since the checkpoint are written again."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        out.mkdir(parents=True, exist_ok=True)
        self._file = (out / "log.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step or None)

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"time": round(time.time(), 3), **row}) + "\n")
        self._file.flush()

    def step(self, report: Report, world: World) -> None:
        from openuni_model.cost import PEAK_FLOPS

        peak, memory = (
            None,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        )
        if world.device.type == "cuda":
            import torch

            name = torch.cuda.get_device_name(world.device)
            peak = next((flops for gpu, flops in PEAK_FLOPS.items() if gpu in name), None)
            memory = torch.cuda.max_memory_allocated(world.device)
        row: dict[str, Any] = {
            "loss": report.loss,
            "grad_norm": report.grad_norm,
            "lr": report.lr,
            "clips_per_second": report.clips / report.seconds,
            "tokens": report.tokens,
            "flops": report.flops,
            "mfu": report.flops / report.seconds / (peak * world.size) if peak else None,
            "waited": report.waited / report.seconds,
            "memory_bytes": memory,
        }
        tasks = {f"{task}/{view}": loss for (task, view), loss in sorted(report.by_task.items())}
        skipped = {"skipped": list(report.keys)} if report.skipped else {}
        saved = {"checkpoint": str(report.checkpoint)} if report.checkpoint else {}
        self.write({"event": "step", "step": report.step, **row, "by_task": tasks, **skipped, **saved})
        numbers = {f"train/{name}": value for name, value in row.items() if value is not None}
        self.scalars(numbers | {f"loss/{name}": value for name, value in tasks.items()}, report.step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, picture: Any, step: int) -> None:
        self._board.add_image("samples", picture, step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        self._board.close()
