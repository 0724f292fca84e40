"""A stage of the curriculum on a dataset: from a configuration to trained weights, resumable at any moment.

Example:
    >>> from openuni_model.training import TrainConfig
    >>> TrainConfig(stage="1", preset="nano", data="data/toys", steps=10).preset
    'nano'
"""

from __future__ import annotations

import json
import math
import resource
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from openuni import outputs, printable
from openuni.errors import OpenUniError
from openuni.sample import Sample
from openuni.shards import layout
from openuni.shards.lock import RunLock
from openuni.storage import LocalStore, claim, is_object_url, naming, new_folder
from openuni_model.config import PRESETS, ModelConfig, ModelConfigError, preset

if TYPE_CHECKING:  # torch is loaded when training starts, not for --help
    from openuni.shards.reader import Dataset
    from openuni_model.batch import Batch, Item
    from openuni_model.cost import Memory
    from openuni_model.data import Bucket
    from openuni_model.dit import UnifiedDiT
    from openuni_model.parallel import World
    from openuni_model.remote import RemoteRun
    from openuni_model.tasks import Stage
    from openuni_model.trainer import Report, Schedule, Trainer
    from openuni_model.watch import Score

T = TypeVar("T")
_FOLDERS = ("checkpoints", "samples", "model", "adapter", "texts")
_SAMPLED, _SAMPLE_STEPS = 2, 20
_CAPTIONS_LOOKED_AT = 2_000


class TrainConfigError(OpenUniError):
    """A training configuration that describes no run."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What to train on what. None takes the preset's or the stage's own value."""

    stage: str = "1"
    """1, 2, or a .toml file of a stage's fields."""
    preset: Literal["nano", "micro", "small", "1.3b", "5b", "10b"] = "nano"
    """Model size, with defaults for how it is trained."""
    data: str | None = field(default=None, metadata={"shown": "the newest below data/"})
    """Dataset: a folder or a URL."""
    out: Path | str | None = field(default=None, metadata={"shown": "runs/stage-STAGE"})
    """Run folder, or a place in an object store: s3://BUCKET/FOLDER, gs://…, az://…"""
    staging: Path | None = field(default=None, metadata={"shown": "data/staging/BUCKET-FOLDER"})
    """With --out in an object store: local folder that the run works in."""
    init: Path | str | None = field(
        default=None,
        metadata={
            "exists": True,
            "shown": "for stage 2 the run of stage 1 beside --out, if there is one; else --wan; else random",
        },
    )
    """Run, checkpoint or model folder to start from; may lie in an object store."""
    wan: Path | None = field(default=None, metadata={"exists": True})
    """Folder with Wan's weights, in diffusers' layout (transformer/, vae/, text_encoder/, tokenizer/) or Wan's own."""
    unityvideo: Path | None = field(default=None, metadata={"exists": True})
    """Start from the public UnityVideo weights: a .safetensors file, or its folder. --preset is ignored."""
    modalities: tuple[str, ...] = field(default=(), metadata={"shown": "the stage's"})
    """Views to train, comma-separated."""
    steps: int | None = field(default=None, metadata={"min": 1, "shown": "by preset or stage"})
    """Total number of steps."""
    global_batch_size: int | None = field(default=None, metadata={"min": 1, "shown": "by preset"})
    """Clips per step, over all ranks."""
    gradient_accumulation_steps: int = field(default=1, metadata={"min": 1})
    """Micro-batches per step."""
    batch_by: Literal["clips", "tokens"] = "clips"
    """tokens: steps of shorter clips take more clips, so that all steps cost about the same."""
    lr: float | None = field(default=None, metadata={"shown": "by preset"})
    """Learning rate."""
    new_lr_scale: float | None = field(default=None, metadata={"shown": "10 on Wan's weights, else 1"})
    """Factor on the learning rate for parameters that Wan does not have."""
    decay: Literal["constant", "cosine"] = "constant"
    """Schedule of the learning rate after the warm-up; cosine ends at 0."""
    warmup: int | None = field(default=None, metadata={"min": 0, "shown": "by preset"})
    """Steps of linear warm-up."""
    ema: float | None = field(default=None, metadata={"shown": "by preset"})
    """Decay of the averaged weights."""
    frames: int | None = field(default=None, metadata={"min": 1, "shown": "by preset"})
    """Frames of the longest bucket."""
    size: int | None = field(default=None, metadata={"min": 1, "shown": "by preset"})
    """Frame size in pixels: the side of a square with the same area."""
    seed: int = field(default=0, metadata={"min": 0})
    """Seed of weights, order, tasks and noise."""
    switcher: bool = True
    """Use modality embeddings and an expert for each modality; off: an ablation."""
    in_context: bool = True
    """Each view reads its own prompt; off, the caption: an ablation."""
    prompts: bool = True
    """Vary the prompt of each view, which may also select a target; off, one prompt per modality: an ablation."""
    cache: Path | None = None
    """Folder in which latents and text embeddings are cached, for several runs; losses stay the same."""
    data_cache: Path | None = None
    """Folder in which samples of a dataset at a URL are cached, so that a second epoch reads them there."""
    data_cache_size: int = field(default=100 * 10**9, metadata={"min": 1})
    """Bytes of --data-cache; what was unused longest goes first."""
    vae_tiling: bool = False
    """Encode large frames tile by tile, to save memory; latents change slightly."""
    workers: int = field(default=0, metadata={"min": 0})
    """Processes that load data; 0: load in this process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    compile: bool = False
    """torch.compile the model, block by block."""
    lora: int = field(default=0, metadata={"min": 0})
    """Rank of LoRA adapters to train instead of the backbone; 0: train the whole model."""
    activation_checkpointing: bool = False
    """Recompute blocks in the backward pass."""
    checkpoint_every: int = field(default=500, metadata={"min": 1})
    """Steps between checkpoints."""
    keep: int = field(default=3, metadata={"min": 1})
    """Checkpoints kept."""
    validate_every: int = field(default=250, metadata={"min": 0})
    """Steps between validations; 0: never."""
    validation_clips: int = field(default=16, metadata={"min": 1})
    """Held-out clips for validation losses and scores."""
    score_every: int = field(default=0, metadata={"min": 0})
    """Steps between scorings of decoded estimates on held-out clips; 0: never."""
    sample_every: int = field(default=500, metadata={"min": 0})
    """Steps between sample pictures; 0: never."""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue from the newest whole checkpoint in --out."""

    @property
    def folder(self) -> Path:
        """The run folder; of a run in an object store the folder that stages it here."""
        if self.url:
            return self.staging or outputs.staging(self.url)
        return Path(self.out or Path("runs") / f"stage-{Path(self.stage).stem}")

    @property
    def url(self) -> str:
        """The place in an object store, without a slash at its end; empty where the run is a folder."""
        return self.out.rstrip("/") if isinstance(self.out, str) and is_object_url(self.out) else ""

    @property
    def place(self) -> str:
        """Where the run is, for people."""
        return self.url or str(self.folder)

    @property
    def parts(self) -> Path | None:
        """The folder of Wan's autoencoder and text encoder; UnityVideo's own where it holds them."""
        return self.wan or (self.unityvideo if self.unityvideo and self.unityvideo.is_dir() else None)

    def __post_init__(self) -> None:
        """Raises TrainConfigError naming the first value that describes no run."""
        least = {"steps": 1, "global_batch_size": 1, "gradient_accumulation_steps": 1, "warmup": 0, "frames": 1,
                 "size": 1, "seed": 0, "workers": 0, "checkpoint_every": 1, "keep": 1, "validate_every": 0,
                 "validation_clips": 1, "score_every": 0, "sample_every": 0, "lora": 0,
                 "data_cache_size": 1}  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise TrainConfigError(f"--{name.replace('_', '-')} {value}: it must be {low} or more")
        if self.staging is not None and not self.url:
            raise TrainConfigError(
                "--staging is for an --out in an object store (s3://…); a folder is written as it is"
            )
        if self.unityvideo and (self.init or not (self.switcher and self.in_context)):
            raise TrainConfigError(
                "--unityvideo starts from weights that have switcher and in-context learner: leave "
                "--init, --no-switcher and --no-in-context out"
            )
        if self.lr is not None and not 0 < self.lr < 1:
            raise TrainConfigError(f"--lr {self.lr}: a learning rate lies between 0 and 1")
        if self.new_lr_scale is not None and not 0 < self.new_lr_scale <= 1000:
            raise TrainConfigError(f"--new-lr-scale {self.new_lr_scale}: it is above 0 and at most 1000")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise TrainConfigError(f"--ema {self.ema}: a decay is 0 or more and below 1")
        if len(set(self.modalities)) != len(self.modalities):
            raise TrainConfigError(f"--modalities {','.join(self.modalities)} names a view twice")
        if "rgb" in self.modalities:
            raise TrainConfigError("--modalities: list the views besides RGB; RGB is always there")


Progress = Callable[["str | Report"], None]
"""Called with a sentence to say, and with the report of each step."""


@dataclass(frozen=True)
class Run:
    """Everything a run needs, resolved and opened; `started` says what the weights are."""

    config: TrainConfig
    trainer: Trainer
    world: World
    started: str


def train(
    config: TrainConfig,
    progress: Progress | None = None,
    *,
    world: World | None = None,
    stop: Callable[[], bool] = lambda: False,
    score: Score | None = None,
) -> Path | None:
    """Train, and write `log.jsonl`, TensorBoard events, sample pictures and at the end `model/`, which is returned.

    Under torchrun pass the `world` of `openuni_model.parallel.joined_world`. Once `stop()` is true on any rank the step
    is finished, a checkpoint written and None returned; the same configuration then goes on bit for bit. `score` is
    what `score_every` measures estimates with. Raises PlanError where the folder is not ours or another run holds it,
    OpenUniError where something is missing, and DivergedError.

    Example:
        >>> import openuni_model
        >>> config = openuni_model.TrainConfig(
        ...     stage="2", data="data/demo", modalities=("depth", "flow"), out=Path("runs/first"), steps=1,
        ...     global_batch_size=1, frames=4, size=16, validate_every=0, sample_every=0,
        ... )
        >>> openuni_model.train(config, progress=lambda news: None)
        PosixPath('runs/first/model')
    """
    from openuni_model.parallel import World, pick_device

    if config.score_every and score is None:
        raise TrainConfigError("score_every needs `score`: what estimates are measured with")
    say = progress or _silent
    world = world or World(device=pick_device(config.device))
    # Two trainers would remove each other's checkpoints. The first rank holds the folder for all.
    with _holding(config, say) if world.rank == 0 else nullcontext() as remote:
        world.wait()  # the others read what the first has brought
        plan = resolve(config, say)
        run = prepare(plan, world, say)
        if remote is not None:
            remote.put_base()
        describe(plan, world, say, gpu=world.device.type == "cuda")
        say(f"weights: {run.started}")
        return _train(run, say, stop, score, remote)


@contextmanager
def _holding(config: TrainConfig, say: Progress) -> Iterator[RemoteRun | None]:
    """Hold the run folder; of a run in a bucket also its place there, whose newest checkpoint is brought here."""
    run = f"train-{secrets.token_hex(4)}"
    with RunLock(config.folder, run, _FOLDERS):
        if not config.url:
            yield None
            return
        from openuni_model.remote import RemoteRun

        with outputs.holding(config.url, run, config.folder) as store:
            remote = RemoteRun(store, config.folder, run, config.keep)
            if remote.is_begun and config.resume == "never":
                raise OpenUniError(f"{config.url} holds checkpoints; give another --out, or leave --resume at auto")
            remote.bring(say)
            try:
                yield remote
            except OpenUniError:  # whoever looks for the reason looks at the log
                with suppress(OpenUniError):
                    remote.put_log()
                raise


def dry_run(config: TrainConfig, progress: Progress, *, world: World | None = None, fit: str | None = None) -> None:
    """Say what would be trained and what it takes, and which flags make it fit a card; write nothing, load no weights.

    With `fit` (a card's name or memory, see `cost.parse_card`) numbers are those of training on a GPU.
    """
    from openuni_model.cost import parse_card
    from openuni_model.parallel import World, pick_device

    world = world or World(device=pick_device(config.device))
    room = parse_card(fit) if fit else None
    plan = resolve(config, progress)
    plan.schedule.micro_batch(world.size)
    describe(plan, world, progress, gpu=room is not None or world.device.type == "cuda", room=room)


def _silent(_: str | Report) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Plan:
    """What would be trained on what, resolved from a configuration; nothing but the dataset's index is opened."""

    config: TrainConfig
    url: str
    stage: Stage
    shape: ModelConfig
    schedule: Schedule


def resolve(config: TrainConfig, say: Progress) -> Plan:
    """Fill in defaults. Raises OpenUniError with the remedy."""
    from openuni import registry
    from openuni_model.tasks import load_stage
    from openuni_model.trainer import Schedule
    from openuni_model.unityvideo import unityvideo_shape

    defaults = PRESETS[config.preset]
    stage = load_stage(config.stage)
    if config.modalities:
        stage = replace(stage, modalities=config.modalities)
    if not config.prompts or config.unityvideo:  # the public weights have learned one prompt a modality
        stage = replace(stage, prompts=False)
    if unknown := sorted(set(stage.modalities) - set(registry.names("modalities"))):
        raise OpenUniError(f"no modality {', '.join(unknown)}; known: {', '.join(registry.names('modalities'))}")
    url = config.data or str(newest_dataset(Path("data")))
    out = config.folder
    say(f"data {url}, out {config.place}" + (f", worked on in {out}" if config.url else ""))
    sides = {name: value for name in ("frames", "size") if (value := getattr(config, name)) is not None}
    if config.unityvideo:
        shape = replace(unityvideo_shape(config.unityvideo), **sides)
    else:
        shape = preset(config.preset, switcher=config.switcher, in_context=config.in_context, **sides)
    schedule = Schedule(
        out=out,
        steps=_chosen(config.steps, defaults.steps or stage.steps),
        global_batch_size=_chosen(config.global_batch_size, defaults.global_batch_size),
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        batch_by=config.batch_by,
        lr=_chosen(config.lr, defaults.lr),
        decay=config.decay,
        warmup=_chosen(config.warmup, defaults.warmup),
        ema=_chosen(config.ema, defaults.ema),
        workers=config.workers,
        checkpoint_every=config.checkpoint_every,
        keep=config.keep,
        activation_checkpointing=config.activation_checkpointing,
        compile=config.compile,
    )
    return Plan(config, url, stage, shape, schedule)


def prepare(plan: Plan, world: World, say: Progress) -> Run:
    """Open codec, text encoder and weights. Raises OpenUniError with the remedy."""
    from openuni_model.codecs import open_codec
    from openuni_model.data import Buckets, Reader
    from openuni_model.lora import add_lora
    from openuni_model.texts import FOLDER as TEXTS
    from openuni_model.texts import open_texts
    from openuni_model.trainer import Trainer

    config, shape, out = plan.config, plan.shape, plan.schedule.out
    codec = open_codec(shape.codec, config.parts, world.device, tiled=config.vae_tiling)
    if config.cache is not None:
        claim(config.cache, marks=(TEXTS,))
    embed = open_texts(shape, config.parts, world.device, config.cache or out)
    model, started, brought = (adapted if config.lora else first_weights)(config, out, plan.stage.name, shape, say)
    if config.lora:
        keep_base(model, out, world)
        add_lora(model, config.lora, config.seed)
    # What Wan does not bring has further to go.
    schedule = replace(plan.schedule, new_scale=_chosen(config.new_lr_scale, 10.0 if brought else 1.0))
    reader = Reader(
        plan.url,
        plan.stage,
        Buckets(shape),
        config.seed,
        codec,
        config.cache,
        config.data_cache,
        config.data_cache_size,
    )
    return Run(config, Trainer(schedule, model, reader, embed, world), world, started)


def _chosen(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given


def first_weights(
    config: TrainConfig, out: Path, stage: str, shape: ModelConfig, say: Progress
) -> tuple[UnifiedDiT, str, bool]:
    """The model to start from, what it is in words, and whether its backbone is Wan's."""
    import torch

    from openuni_model.checkpoint import load_trained
    from openuni_model.dit import UnifiedDiT
    from openuni_model.remote import at_hand
    from openuni_model.unityvideo import open_unityvideo
    from openuni_model.weights import load_wan, read_wan, wan_part

    if config.unityvideo:
        model = open_unityvideo(config.unityvideo).float()
        model.config = shape
        return model, f"from UnityVideo in {config.unityvideo}", False
    before = out.parent / "stage-1"
    init = config.init or (before if stage == "2" and (before / "checkpoints").is_dir() else None)
    if init is not None:
        with at_hand(init) as here:
            model = load_trained(here, modalities=shape.modalities)
        resized = replace(model.config, frames=shape.frames, size=shape.size)
        if resized != shape:
            other = [name for name, value in asdict(shape).items() if asdict(resized)[name] != value]
            raise ModelConfigError(f"{init} is another model than --preset asks for: it differs in {', '.join(other)}")
        model.config = shape
        return model, f"from {init}", False
    torch.manual_seed(config.seed)
    model = UnifiedDiT(shape)
    if config.wan is None:
        if stage == "2":
            say(f"warning: stage 2 starts from random weights, for {before} holds no run; name one with --init")
        return model, "random start", False
    load_wan(model, read_wan(wan_part(config.wan, "transformer", "--wan")))
    return model, f"from Wan in {config.wan}", True


def adapted(
    config: TrainConfig, out: Path, stage: str, shape: ModelConfig, say: Progress
) -> tuple[UnifiedDiT, str, bool]:
    """As `first_weights`, of a run with adapters: the model that it started from, where there is one already."""
    from openuni_model.checkpoint import BASE
    from openuni_model.weights import load_model

    if (out / BASE).is_dir():
        return load_model(out / BASE), f"from {out / BASE}", True
    model, started, _ = first_weights(config, out, stage, shape, say)
    return model, started, True


def keep_base(model: UnifiedDiT, out: Path, world: World) -> None:
    """Write the model that adapters are trained for to `base/`, whole or not at all, unless it is there."""
    from openuni_model.checkpoint import BASE
    from openuni_model.weights import model_card, save_model

    if world.rank == 0 and not (out / BASE).is_dir():
        card = model_card(model.config, "What adapters start from.")
        with new_folder(out / BASE, "train") as folder:
            save_model(folder, model.config, model.state_dict(), card)
    world.wait()


def newest_dataset(folder: Path) -> Path:
    """The dataset below `folder` that was changed last. Raises OpenUniError saying what to put there."""
    found = sorted(folder.glob(f"*/{layout.MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise OpenUniError(f"no dataset below {folder}/; build one (openuni build) or name one with --data")
    return found[-1].parent


def describe(plan: Plan, world: World, say: Progress, *, gpu: bool, room: int | None = None) -> None:
    """Parameters, tokens, bytes, clips kept and dropped, an epoch, captions that are cut, codec error of each view."""
    import openuni
    from openuni_model.data import Buckets, survey

    config, stage, schedule, fit = plan.shape, plan.stage, plan.schedule, Buckets(plan.shape)
    data = openuni.open(plan.url)
    counted = survey(data, stage, fit)
    whole, trained = parameters(config, plan.config.lora)
    adapters = f" ({trained / 1e6:,.1f} M trained: adapters of rank {plan.config.lora})" if plan.config.lora else ""
    say(
        f"model {whole / 1e6:,.1f} M parameters{adapters}, {config.prediction}-prediction; stage {stage.name}: "
        f"{', '.join(stage.modalities)}, {schedule.steps:,} steps of {schedule.global_batch_size} clips"
    )
    for bucket, clips in sorted(counted.buckets.items(), key=lambda pair: -pair[1]):
        step = schedule.global_batch_size
        waits = "" if clips >= step else f" (fewer than a step: trained once {step} have gathered)"
        tokens = math.prod(config.grid(*fit.latents(bucket)))
        shown = printable.count(clips, "clip")
        say(f"  {bucket.frames}×{bucket.height}×{bucket.width}: {shown}{waits}, {tokens:,} tokens a stream")
    largest = max(counted.buckets, key=lambda bucket: math.prod(config.grid(*fit.latents(bucket))))
    _describe_memory(plan, largest, world.size, say, gpu=gpu, room=room)
    _describe_epoch(plan, counted.buckets, world.size, say)
    say("  views: " + ", ".join(f"{name} {count:,}" for name, count in counted.views.items()))
    _describe_shares(stage, say)
    if counted.dropped:
        say("  left out: " + ", ".join(f"{count:,} {reason}" for reason, count in counted.dropped.items()))
    _describe_captions(plan, data, say)
    _describe_codec(plan, data, say)


def _describe_shares(stage: Stage, say: Progress) -> None:
    """What is trained rarely, so that nobody is surprised when it is bad at it."""
    from openuni_model.tasks import shares

    found = shares(stage)
    views = ", ".join(f"{count} {100 * share:.2g} %" for count, share in enumerate(found.views))
    say(
        f"  of samples with every view, RGB alone without a caption: {100 * found.alone:.2g} % (p_alone); "
        f"views at once: {views} (p_more)"
    )


def parameters(config: ModelConfig, lora: int) -> tuple[int, int]:
    """How many there are and how many are trained, without making any."""
    import torch

    from openuni_model.dit import UnifiedDiT
    from openuni_model.lora import add_lora

    with torch.device("meta"):
        model = UnifiedDiT(config)
    whole = sum(p.numel() for p in model.parameters())
    if not lora:
        return whole, whole
    return whole, sum(p.numel() for p in add_lora(model, lora).parameters() if p.requires_grad)


def _memory(plan: Plan, bucket: Bucket, ranks: int, gpu: bool) -> tuple[Memory, int]:
    """Bytes of the largest micro-batch, and its streams."""
    import torch

    from openuni_model.cost import frozen_bytes, most_streams, spread, training_bytes
    from openuni_model.data import Buckets

    schedule = plan.schedule
    micro = schedule.micro_batch(ranks)
    streams = most_streams(plan.stage, micro, schedule.steps * schedule.gradient_accumulation_steps * ranks)
    memory = training_bytes(
        plan.shape,
        Buckets(plan.shape).latents(bucket),
        spread(streams, micro),
        ranks=ranks,
        checkpointing=schedule.activation_checkpointing,
        dtype=torch.bfloat16 if gpu else torch.float32,
        lora=plan.config.lora,
    )
    return replace(memory, frozen=frozen_bytes(plan.shape)), streams


def _describe_memory(plan: Plan, bucket: Bucket, ranks: int, say: Progress, *, gpu: bool, room: int | None) -> None:
    memory, streams = _memory(plan, bucket, ranks, gpu)
    micro = plan.schedule.micro_batch(ranks)
    state, kept, gathered, frozen, total = (
        f"{part / 2**20:,.0f} MiB"
        for part in (memory.state, memory.activations, memory.gathered, memory.frozen, memory.total)
    )
    say(
        f"  predicted bytes a rank ({ranks} ranks, {micro} clips of {streams} streams at most): {state} state + {kept} "
        f"activations ({'bfloat16' if gpu else 'float32'}) + {gathered} gathered blocks + {frozen} text encoder and "
        f"codec = {total}"
    )
    if room is None:
        return
    if memory.total <= room:
        say(f"  fits in {room / 2**30:,.1f} GiB as it is")
        return
    flags = flags_that_fit(plan, bucket, ranks, room)
    if flags is None:
        say(f"  does not fit in {room / 2**30:,.1f} GiB, whatever the flags; take a smaller --preset or --size")
    else:
        say(f"  to fit in {room / 2**30:,.1f} GiB: {flags}")


_LORA_RANK = 32
_MOST_RANKS = 64


def flags_that_fit(plan: Plan, bucket: Bucket, ranks: int, room: int) -> str | None:
    """The first of what makes the largest micro-batch fit, or None: smaller micro-batches, recomputed blocks, more
    GPUs, adapters; what costs least comes first.
    """
    batch = plan.schedule.global_batch_size

    def fits(n: int, accumulate: int, checkpointing: bool, lora: int) -> bool:
        schedule = replace(
            plan.schedule, gradient_accumulation_steps=accumulate, activation_checkpointing=checkpointing
        )
        tried = replace(plan, schedule=schedule, config=replace(plan.config, lora=lora))
        return _memory(tried, bucket, n, gpu=True)[0].total <= room

    worlds = [n for n in range(ranks, _MOST_RANKS + 1) if n == ranks or (n & (n - 1) == 0 and batch % n == 0)]
    tries = [(n, plan.config.lora) for n in worlds]
    tries.insert(1, (ranks, plan.config.lora or _LORA_RANK))
    for n, lora in tries:
        smallest = batch // n  # one clip at once
        if batch % n or not fits(n, smallest, True, lora):
            continue
        divisors = [a for a in range(plan.schedule.gradient_accumulation_steps, smallest + 1) if smallest % a == 0]
        accumulate, checkpointing = next(
            (a, recomputes) for recomputes in (False, True) for a in divisors if fits(n, a, recomputes, lora)
        )
        flags = [f"--gradient-accumulation-steps {accumulate}"]
        flags += ["--activation-checkpointing"] if checkpointing else []
        flags += [f"--lora {lora}"] if lora else []
        return (f"torchrun --nproc-per-node {n}, " if n > ranks else "") + " ".join(flags)
    return None


_TYPICAL_MFU = 0.4


def _describe_epoch(plan: Plan, buckets: Mapping[Bucket, int], ranks: int, say: Progress) -> None:
    """Steps, floating point operations and, on a named card, hours."""
    from openuni_model.cost import PEAK_FLOPS, flops
    from openuni_model.data import Buckets

    fit, batch = Buckets(plan.shape), plan.schedule.global_batch_size
    work = sum(
        3 * clips * flops(plan.shape, math.prod(plan.shape.grid(*fit.latents(bucket))), (2,))
        for bucket, clips in buckets.items()
    )
    clips = sum(buckets.values())
    hours = work / (ranks * _TYPICAL_MFU * PEAK_FLOPS["H100"]) / 3600
    say(
        f"  an epoch: {printable.count(clips, 'clip')}, {clips / batch:,.1f} steps, "
        f"{work:.2e} floating point operations at two streams "
        f"a clip ({hours:,.2g} h on {ranks} H100 at {_TYPICAL_MFU:.0%} of the peak); the run: "
        f"{plan.schedule.steps * batch / clips:,.1f} epochs"
    )


def _describe_captions(plan: Plan, data: Dataset, say: Progress) -> None:
    """How many captions are longer than the model reads."""
    from openuni_model.texts import token_counter

    tokens = token_counter(plan.shape, plan.config.parts)
    if tokens is None:
        say("  captions that are cut: not counted without a tokenizer (--wan)")
        return
    length = plan.shape.text_length
    looked_at = data[:_CAPTIONS_LOOKED_AT]
    cut = sum(tokens(sample.caption) > length for sample in looked_at)
    of = f"{len(looked_at):,} captions looked at" if len(data) > len(looked_at) else f"{len(data):,} captions"
    if cut:
        say(f"  {cut:,} of {of} are longer than the {length} tokens that the model reads, and are cut")
    else:
        say(f"  none of {of} is longer than the {length} tokens that the model reads")


def _describe_codec(plan: Plan, data: Dataset, say: Progress) -> None:
    from openuni_model.codecs import open_codec
    from openuni_model.data import Buckets, picture

    fit, wan = Buckets(plan.shape), plan.config.parts
    if plan.shape.codec != "pixel" and (wan is None or not (wan / "vae").is_dir()):
        say("  error of a picture through the codec: not measured without its weights (--wan)")
        return
    sample = next((s for s in data if fit.bucket(s.record)), None)
    bucket = fit.bucket(sample.record) if sample else None
    if sample is None or bucket is None:
        return
    codec = open_codec(plan.shape.codec, wan)
    errors = {
        view: codec.error(picture(sample, view, bucket, 0, plan.shape))
        for view in ("rgb", *plan.stage.modalities)
        if view in sample
    }
    said = ", ".join(f"{view} {error:.4f}" for view, error in errors.items())
    say(f"  error of a picture through the codec (RMSE of 0…1, {sample.key}): {said}")


def _train(
    run: Run, say: Progress, stop: Callable[[], bool], score: Score | None, remote: RemoteRun | None
) -> Path | None:
    from openuni_model.checkpoint import checkpoints, newest
    from openuni_model.tasks import shares
    from openuni_model.watch import held_out, validation_batches
    from openuni_model.watch import load as load_item

    trainer, config = run.trainer, run.config
    folder = trainer.settings.out / "checkpoints"
    if checkpoints(folder) and config.resume == "never":
        raise OpenUniError(f"{folder} holds checkpoints; give another --out, or leave --resume at auto")
    path, damaged = newest(folder)
    for sentence in damaged:
        say(sentence)
    if path is not None:
        changed = trainer.restore(path)
        say(f"resuming from {path}" + (f" with another {', '.join(changed)}" if changed else ""))
    reader = trainer.reader
    samples = held_out(reader, config.validation_clips)
    if samples:
        say(f"validation on {printable.count(len(samples), 'clip')} of split val, with averaged weights")
    else:
        say(f"no clip of split val fits stage {reader.stage.name}: validation, scores and sample pictures are off")
    batches = validation_batches(reader, samples, trainer.embed) if config.validate_every else []
    views = [view for view in reader.stage.modalities if samples and view in samples[0]]
    shown = [load_item(reader, s, views[:1]) for s in samples[:_SAMPLED] if views and views[0] in s]
    log = Log(trainer.settings.out, trainer.step) if run.world.rank == 0 else None
    if log:
        said = {"from": run.started, "shares": asdict(shares(reader.stage))}
        log.write({"event": "start", "step": trainer.step, **said, **trainer.fingerprint()})
    passed_over = 0
    for report in run_until(trainer, stop):
        if log:
            log.step(report, run.world)
        say(report)
        if remote and log and report.checkpoint:
            log.flush()
            remote.checkpoint(report.checkpoint, say)
        for sentence in report.damaged:
            passed_over += 1
            say(f"warning: step {report.step}: passed over a damaged clip: {sentence}")
        last = report.step == trainer.settings.steps
        if batches and (report.step % config.validate_every == 0 or last):
            _validate(trainer, batches, log, report.step, say)
        if samples and score and config.score_every and (report.step % config.score_every == 0 or last):
            _score(trainer, samples, score, log, report.step, say)
        if shown and config.sample_every and (report.step % config.sample_every == 0 or last):
            _sample(trainer, shown, views[0], log, report.step)
    if passed_over:
        say(f"warning: {printable.count(passed_over, 'damaged clip')} passed over; run openuni verify on {reader.url}")
    finished = trainer.step >= trainer.settings.steps
    if not finished:
        say(f"stopped after step {trainer.step:,}, with a checkpoint; the same command goes on from there")
    if log is None:
        return None
    final = _export(trainer, folder) if finished else None
    log.close()
    if remote is not None:
        remote.finish(say)
    if final is not None:
        where = f"{remote.url}/{final.name}" if remote else final
        say(f"trained to step {trainer.step}; the model is {where}")
    return final


def run_until(trainer: Trainer, stop: Callable[[], bool]) -> Iterator[Report]:
    """Steps to the end, or until one after which some rank was asked to stop; that one has a checkpoint."""
    for report in trainer.run():
        asked = trainer.agree(stop())
        if asked and report.checkpoint is None:
            report = replace(report, checkpoint=trainer.save())
        yield report
        if asked:
            return


def _validate(trainer: Trainer, batches: list[Batch], log: Log | None, step: int, say: Progress) -> None:
    from openuni_model.watch import validate

    with trainer.averaged():
        results = validate(trainer.model, batches, trainer.world.device)
    mean = sum(r.loss for r in results) / len(results)
    say(f"step {step}: validation loss {mean:.4f}")
    if log:
        row = {"event": "validate", "step": step, "loss": mean, "clips": len(batches), "weights": "averaged"}
        log.write({**row, "buckets": [asdict(r) for r in results]})
        log.scalars({"validation/all": mean} | {f"validation/{r.task}/{r.view}/t={r.t}": r.loss for r in results}, step)


def _score(trainer: Trainer, samples: list[Sample], score: Score, log: Log | None, step: int, say: Progress) -> None:
    from openuni_model.watch import score_estimates

    with trainer.averaged():
        scores = score_estimates(trainer.model, trainer.reader, samples, trainer.embed, score, steps=_SAMPLE_STEPS)
    say(f"step {step}: estimates score " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    if log:
        log.write({"event": "score", "step": step, "clips": len(samples), "weights": "averaged", "scores": scores})
        log.scalars({f"score/{name}": value for name, value in scores.items()}, step)


def _sample(trainer: Trainer, items: list[Item], view: str, log: Log | None, step: int) -> None:
    import cv2

    from openuni_model.watch import sample_all_ways, sheet

    # Every rank takes part: a sharded model is gathered by all.
    with trainer.averaged():
        rows = sample_all_ways(trainer.model, items, view, trainer.embed, steps=_SAMPLE_STEPS)
    if log:
        picture = sheet(rows, trainer.reader.codec)
        _, png = cv2.imencode(".png", picture[..., ::-1])
        layout.write_atomic(trainer.settings.out / "samples" / f"{step:08d}.png", png.tobytes(), "train")
        log.picture(picture, step)


def _export(trainer: Trainer, folder: Path) -> Path:
    """`model/`: the averaged weights of the last checkpoint, ready to be used or published, adapters merged.

    A run with adapters also writes them apart, to `adapter/`.
    """
    from openuni_model.checkpoint import BASE, checkpoints, load_trained, read
    from openuni_model.lora import save_adapter
    from openuni_model.weights import model_card, save_model

    last = checkpoints(folder)[-1]
    model = load_trained(last)
    if trainer.lora:
        save_adapter(trainer.settings.out / "adapter", read(last, "ema"), BASE)
    final = trainer.settings.out / "model"
    stage = trainer.reader.stage
    card = model_card(
        model.config,
        f"Stage {stage.name} ({', '.join(stage.modalities)}), {trainer.step:,} steps of "
        f"{trainer.settings.global_batch_size} clips, averaged weights (EMA {trainer.settings.ema}).",
    )
    save_model(final, model.config, model.state_dict(), card)
    return final


class Log:
    """`log.jsonl` and TensorBoard events of a run. After a resume the steps since the checkpoint are written again."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = out / "log.jsonl"
        self._file = LocalStore(out).append(self._path.name)
        self._events = out / "tensorboard"
        self._board = SummaryWriter(str(self._events), purge_step=step or None)

    def write(self, row: Mapping[str, Any]) -> None:
        line = json.dumps({"time": round(time.time(), 3), **row}) + "\n"
        with naming(self._path):
            self._file.write(line.encode())
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
        damaged = {"damaged": list(report.damaged)} if report.damaged else {}
        saved = {"checkpoint": str(report.checkpoint)} if report.checkpoint else {}
        self.write({"event": "step", "step": report.step, **row, "by_task": tasks, **skipped, **damaged, **saved})
        numbers = {f"train/{name}": value for name, value in row.items() if value is not None}
        self.scalars(numbers | {f"loss/{name}": value for name, value in tasks.items()}, report.step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        with naming(self._events):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, picture: Any, step: int) -> None:
        with naming(self._events):
            self._board.add_image("samples", picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring the events that are held back to their file; rows of the log are there."""
        with naming(self._events):
            self._board.flush()

    def close(self) -> None:
        self._file.close()
        with naming(self._events):
            self._board.close()
