"""Training: one loop that runs alone or as FSDP2 ranks, and continues bit for bit where it was killed.

    for report in Trainer(settings, model, reader, embed).run():
        ...

A step is a function of (weights, optimizer, EMA, cursor) and of nothing else: tasks, dropouts and noise come from
(seed, position in the order), so those four, which a checkpoint holds, are all there is to resume from.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from openuni.errors import OpenUniError
from openuni_model import checkpoint
from openuni_model.batch import Batch, Embed, collate, losses
from openuni_model.checkpoint import CheckpointError, Progress
from openuni_model.config import ModelConfig
from openuni_model.cost import flops
from openuni_model.data import Bucket, Cursor, Example, Reader, load_steps, plan_steps
from openuni_model.dit import GENERATE, UnifiedDiT
from openuni_model.lora import NEW, STACKED, lora_rank
from openuni_model.parallel import World, autocast, rows_like, shard
from openuni_model.tasks import TASKS

MAX_SKIPPED = 10
"""Steps in a row whose loss is not finite after which training stops."""
_FREE = ("out", "steps", "workers", "checkpoint_every", "keep", "compile", "activation_checkpointing")
"""Settings of which a step's outcome does not depend."""
_FIXED = {
    "model.": "the weights have the shape and the meaning of their configuration",
    "stage.": "the stage decides what each clip of the order trains",
    "data": "the order comes from the dataset's index, so its cursor means nothing in another",
    "lora": "adapters of another rank are other parameters",
    "seed": "the order, the tasks and the noise come from it",
}
"""What may not change when a run is resumed, and why; every other setting may."""
Decay = Literal["constant", "cosine"]
BatchBy = Literal["clips", "tokens"]


class DivergedError(OpenUniError):
    """Training that no longer gives finite losses."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a stage is trained. The learning rate warms up linearly, then stays or falls to 0 at the last step.

    `global_batch_size` clips a step over all ranks, in `gradient_accumulation_steps` micro-batches one after another;
    with `batch_by` tokens that many of the largest bucket, and of smaller ones as many as have no more tokens.
    `new_scale` multiplies the learning rate of what a pre-trained backbone does not bring (1 when there is none): the
    modality and role embeddings, adapters and every modality's experts but RGB's. The EMA's decay rises with the step
    to `ema`, as (1 + n) / (10 + n), so that a short run's average is not its random start.
    """

    out: Path
    steps: int
    global_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    batch_by: BatchBy = "clips"
    lr: float = 5e-5
    new_scale: float = 1.0
    warmup: int = 200
    decay: Decay = "constant"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip_norm: float = 1.5
    ema: float = 0.9999
    workers: int = 0
    checkpoint_every: int = 500
    keep: int = 3
    activation_checkpointing: bool = False
    compile: bool = False

    def micro_batch(self, ranks: int) -> int:
        """Clips that a rank takes at once. Raises OpenUniError where they do not divide."""
        if self.global_batch_size % (ranks * self.gradient_accumulation_steps):
            raise OpenUniError(
                f"{self.global_batch_size} clips a step do not divide among {ranks} ranks × "
                f"{self.gradient_accumulation_steps} micro-batches; change --global-batch-size or "
                "--gradient-accumulation-steps"
            )
        return self.global_batch_size // (ranks * self.gradient_accumulation_steps)

    def learning_rate(self, step: int) -> float:
        """Of the step after `step` others.

        Example:
            >>> rate = Schedule(Path("x"), steps=6, lr=1.0, warmup=2, decay="cosine").learning_rate
            >>> [round(rate(step), 2) for step in range(6)]
            [0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
        """
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.decay == "constant":
            return self.lr
        done = min(1.0, (step + 1 - self.warmup) / max(1, self.steps - self.warmup))
        return self.lr * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True, slots=True)
class Report:
    """One of `steps`. `by_task` are mean losses of the generated streams by (task, view), `keys` this rank's clips.

    `seconds` is the whole step and `waited` the part of it spent waiting for data; all but these two and `keys` count
    all ranks (`flops`: forward and backward, model only). `damaged` says of each clip of this rank that could not be
    read why; the next one in the order took its place.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    by_task: Mapping[tuple[str, str], float]
    keys: tuple[str, ...]
    skipped: bool
    clips: int
    tokens: int
    flops: float
    seconds: float
    waited: float
    checkpoint: Path | None
    damaged: tuple[str, ...] = ()


class Trainer:
    """Holds what a step changes: weights, optimizer, EMA, cursor, step."""

    def __init__(
        self, settings: Schedule, model: UnifiedDiT, reader: Reader, embed: Embed, world: World | None = None
    ) -> None:
        """`model` is sharded and moved in place. Raises OpenUniError where the clips do not divide among the ranks."""
        self.settings, self.reader, self.embed, self.world = settings, reader, embed, world or World()
        settings.micro_batch(self.world.size)
        self.config = model.config
        model.checkpoint_blocks = settings.activation_checkpointing
        self.model = shard(model.to(self.world.device), self.world)
        if settings.compile:
            self.model.compile_blocks()
        self.names = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.lora = lora_rank(self.model)
        self.ema = {name: parameter.detach().float().clone() for name, parameter in self.names.items()}
        self.optimizer = torch.optim.AdamW(list(self._groups()), lr=settings.lr, betas=settings.betas)
        self.step, self.cursor, self.skipped_in_a_row = 0, Cursor(), 0

    def _groups(self) -> Iterator[dict[str, Any]]:
        """Four groups: new or not, decayed or not. Vectors, tables and embeddings are not decayed."""
        groups: dict[tuple[bool, bool], list[Tensor]] = defaultdict(list)
        for name, parameter in self.names.items():
            new = name in NEW or "lora_" in name
            groups[new, name.endswith(("weight", "weight_KDI", "weight_KOD")) and "norm" not in name].append(parameter)
        for (new, decays), parameters in groups.items():
            yield {
                "params": parameters,
                "weight_decay": self.settings.weight_decay if decays else 0.0,
                "scale": self.settings.new_scale if new else 1.0,
            }

    def run(self) -> Iterator[Report]:
        """Train from the present step to `settings.steps`, yielding after each step; checkpoints are written here.

        Raises DivergedError after MAX_SKIPPED steps in a row without a finite loss.
        """
        settings, world = self.settings, self.world
        plans = plan_steps(
            self.reader.data,
            self.reader.stage,
            self.reader.fit,
            clips_of=self._clips_of,
            seed=self.reader.seed,
            cursor=self.cursor,
        )
        steps = load_steps(
            self.reader,
            plans,
            rank=world.rank,
            world=world.size,
            accumulate=settings.gradient_accumulation_steps,
            workers=settings.workers,
        )
        while self.step < settings.steps:
            began = time.perf_counter()
            plan, micro_batches = next(steps)
            waited = time.perf_counter() - began
            outcome = self._train_step(micro_batches, len(plan.entries))
            self.step += 1
            self.cursor = plan.after
            saved = None
            if self.step % settings.checkpoint_every == 0 or self.step == settings.steps:
                saved = self.save()
            yield Report(
                step=self.step,
                steps=settings.steps,
                **outcome,
                clips=len(plan.entries),
                seconds=time.perf_counter() - began,
                waited=waited,
                checkpoint=saved,
            )
            if self.skipped_in_a_row >= MAX_SKIPPED:
                raise DivergedError(
                    f"no finite loss for {MAX_SKIPPED} steps up to step {self.step}; the last clips were "
                    f"{', '.join(sorted(set(outcome['keys'])))}; lower --lr, or look at these clips"
                )

    def _clips_of(self, bucket: Bucket) -> int:
        """Clips of a step of this bucket, over all ranks."""
        settings, fit = self.settings, self.reader.fit
        micro = settings.micro_batch(self.world.size)
        if settings.batch_by == "tokens":
            micro = micro * fit.most_tokens // fit.tokens(bucket)
        return micro * self.world.size * settings.gradient_accumulation_steps

    def _train_step(self, micro_batches: list[list[Example]], clips: int) -> dict[str, Any]:
        """`clips` are those of all ranks together."""
        settings, config, device = self.settings, self.config, self.world.device
        lr = settings.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        total, tokens, work = torch.zeros((), device=device), 0, 0.0
        K = len(config.modalities)
        by_task = torch.zeros(len(TASKS) * K, 2, dtype=torch.float64, device=device)  # sum of errors, and their count
        keys: list[str] = []
        self.model.train()
        for examples in micro_batches:
            batch = collate_examples(examples, config, self.embed).to(device)
            with autocast(device):
                out = self.model(batch.streams)
            errors_P = losses(out, batch, config)
            # FSDP averages gradients over ranks; times the ranks, the sum over all clips is divided by their number.
            loss = errors_P.sum() * self.world.size / clips
            loss.backward()
            total += loss.detach() / self.world.size
            task_P = torch.tensor([TASKS.index(task) for task in batch.tasks], device=device)
            generated_P = batch.streams.role_P == GENERATE
            added_P2 = torch.stack([errors_P.detach(), generated_P.to(errors_P.dtype)], dim=1).double()
            by_task.index_add_(0, task_P * K + batch.streams.modality_P, added_P2)
            keys += batch.keys
            N = math.prod(config.grid(*batch.x0_PCFHW.shape[2:]))
            tokens += N * len(batch.keys)
            work += 3 * flops(config, N, batch.streams.counts)
        counted = torch.tensor([tokens, work], dtype=torch.float64, device=device)
        if self.world.size > 1:
            for part in (total, by_task, counted):
                dist.all_reduce(part)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        # The norm is one number on all ranks, so they skip together.
        skipped = not (math.isfinite(float(total)) and math.isfinite(float(norm)))
        if not skipped:
            self._update_weights()
            self._update_ema()
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        return {
            "loss": float(total),
            "grad_norm": float(norm),
            "lr": lr,
            "by_task": {
                (task, view): error / count
                for (task, view), (error, count) in zip(
                    product(TASKS, config.modalities), by_task.tolist(), strict=True
                )
                if count
            },
            "keys": tuple(keys),
            "damaged": tuple(said for examples in micro_batches for one in examples for said in one.damaged),
            "skipped": skipped,
            "tokens": int(counted[0]),
            "flops": float(counted[1]),
        }

    @torch.no_grad()
    def _update_weights(self) -> None:
        """An optimizer's step, of which RGB's rows, which are not new, take their share 1 / new_scale.

        AdamW's step, decay included, is proportional to the learning rate, so that is the step at their own rate.
        """
        scale, config = self.settings.new_scale, self.config
        stacked = [self.names[name] for name in STACKED if name in self.names] if scale != 1 else []
        before = [parameter.detach().clone() for parameter in stacked]
        self.optimizer.step()
        row = config.index("rgb") if config.switcher else 0
        for parameter, old in zip(stacked, before, strict=True):
            parameter.add_((old - parameter) * rows_like(parameter, {row: 1 - 1 / scale}))

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for name, parameter in self.names.items():
            self.ema[name].lerp_(parameter.float(), 1 - decay)

    def agree(self, asked: bool) -> bool:
        """Whether any rank was asked to stop: they must stop after the same step."""
        if self.world.size == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.world.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag > 0)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Meanwhile the model has its averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # In place and one at a time: sharded parameters stay where FSDP knows them, and no second copy is needed.
        for name, parameter in self.names.items():
            weights = parameter.detach().clone()
            parameter.copy_(self.ema[name])
            self.ema[name].copy_(weights)

    def fingerprint(self) -> dict[str, Any]:
        """What decides a run's steps, by name. Of it, what `_FIXED` lists must not change when the run is resumed."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in _FREE}
        stage = {f"stage.{name}": value for name, value in asdict(self.reader.stage).items() if name != "steps"}
        if not self.reader.stage.p_alone:  # checkpoints from before it was there go on
            del stage["stage.p_alone"]
        model = {f"model.{name}": value for name, value in asdict(self.config).items()}
        data = {"data": self.reader.data.manifest.plan_sha256, "seed": self.reader.seed}
        data |= {"lora": self.lora} if self.lora else {}
        return {**settings, **stage, **model, **data}

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything of the state that is a tensor, sharded as it is; AdamW's moments exist from the start."""
        optimizer: dict[str, Tensor] = {}
        for name, parameter in self.names.items():
            state = self.optimizer.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            optimizer[f"exp_avg.{name}"], optimizer[f"exp_avg_sq.{name}"] = state["exp_avg"], state["exp_avg_sq"]
        updates = next(iter(self.optimizer.state.values()))["step"].detach().reshape(1).cpu().clone()
        weights = {name: parameter.detach() for name, parameter in self.names.items()}
        return {"weights": weights, "ema": self.ema, "optimizer": {**optimizer, "updates": updates}}

    def save(self) -> Path | None:
        """Write a checkpoint; every rank takes part, rank 0 gets the path."""
        progress = Progress(
            self.step, self.cursor, self.skipped_in_a_row, self.reader.stage.name, self.fingerprint(), {}
        )
        folder = self.settings.out / "checkpoints"
        return checkpoint.save(
            folder, progress, self.config, self._tensors(), keep=self.settings.keep, world=self.world
        )

    @torch.no_grad()
    def restore(self, path: Path) -> list[str]:
        """Continue from a checkpoint; returns what has changed since, as `name value (was value)`.

        Raises CheckpointError naming each thing in which the run differs and must not, with the reason.
        """
        progress = checkpoint.read_progress(path)
        theirs, ours = jsonable(progress.fingerprint), jsonable(self.fingerprint())
        changed = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
        said = {name: f"{name} {ours.get(name)} (was {theirs.get(name)})" for name in changed}
        if fixed := {name: why for name in changed for start, why in _FIXED.items() if name.startswith(start)}:
            raise CheckpointError(
                f"{path} cannot go on with {', '.join(said[name] for name in fixed)}: "
                f"{'; '.join(dict.fromkeys(fixed.values()))}. Use the same settings, or start another --out from it "
                "(--init)"
            )
        tensors = self._tensors()
        for part in checkpoint.PARTS:
            checkpoint.fill(path, part, tensors[part], alone=self.world.size == 1)
        for state in self.optimizer.state.values():
            state["step"] = tensors["optimizer"]["updates"][0].clone()
        self.step, self.cursor = progress.step, progress.cursor
        self.skipped_in_a_row = progress.skipped_in_a_row
        return list(said.values())


def jsonable(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from a JSON file: tuples become lists."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    return result


def collate_examples(examples: list[Example], config: ModelConfig, embed: Embed) -> Batch:
    return collate([e.item for e in examples], [e.draw for e in examples], [e.rng for e in examples], config, embed)
