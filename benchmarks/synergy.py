"""Do views, tasks and prompts help each other? The paper's claims as contrasts of two arms, small and repeatable.

    python benchmarks/synergy.py OUT [--size tiny|pilot|medium|full] [--contrast NAME …] [--seeds N] [--results FOLDER]

Runs every (arm, seed) that the contrasts need, one after another, and prints a verdict for each contrast. It may be
killed at any moment: the same command goes on. Rendered clips are kept one by one, a run goes on from its newest
checkpoint, and a finished run is one line of `results-SIZE.jsonl` and is not run again.

Seeds are paired: the same seed in two arms has the same starting weights (all arms know all views; an arm without
switcher or prompts has what it has), the same order of clips and the same windows. Draws of tasks and noise are of the
same seed, but an arm with other views takes other numbers from it. Evaluation uses averaged weights and one noise a
clip. The learning rate is constant after warm-up, so that one run gives the whole curve, and arms are compared on it at
two budgets: equal updates of what is measured (generated streams of that view in that task), and equal FLOPs.

Thresholds, written before the first registered run; a later change is to be said here.
- helps: ratio of errors ≤ .95 and its 95 % interval (bootstrap over seeds and clips) below 1; harms: the reverse, ratio
  ≥ 1 / .95 and the interval above 1;
- no effect: that interval within 1 ± MARGIN. MARGIN and the number of seeds were fixed by the pilot (`--size pilot`,
  `depth-views`, 4 seeds) before the first run of `full`: its paired log ratios scatter by .17 over seeds, so 8 seeds
  see a ratio of .84 with a power of 80 % and have an interval of about ± .15; .95 would need 92 seeds;
- faster: FLOPs to the single arm's final value ≤ .8 of the single arm's;
- zero-shot (targets of held kinds and classes): IoU with the target's prompt ≥ .10 above that with the fixed or a wrong
  prompt, the interval above 0;
- everything else is inconclusive.
Changed after the pilot and before any registered run: `harms` has a name; between two points of a curve numbers are
linear in the logarithm of the budget, because curves are steep at first and straight lines would flatter arm a; `full`
has 12 points in place of 6, and 8 seeds in place of 4.
Added on 28 November 2026, when only `prompts` had been run, which none of these contrasts has: the Fréchet distance of
RGB samples (`rgb-views-samples`), and EPE and mIoU of switcher and in-context learner. mIoU is judged as the error
1 − mIoU, so that the thresholds of errors hold for it. Training and all measures from before are as they were; runs of
`prompts` from before lack the new ones.
Added on 29 November 2026, when only `prompts` had been run: the size `medium`. All other arms at `full` would take 27
core hours, more than twice the whole budget. `medium` has the clips and held-out clips of `full` and the model of the
pilot, whose scatter fixed MARGIN and the number of seeds; every contrast has its verdict there, by these thresholds.
Added on 29 November 2026, when all of `medium` had been run and no arm of it had learnt segmentation, so that nothing
could be said on new targets: two follow-up arms at `medium`, `painter` (all of the work goes into painting targets: is
it the updates?) and `painter-wide` (the same with the model of `full`: is it the capacity?). Each is asked whether
painting gets better, and whether the target's prompt reaches held targets. There are no others.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

import openuni
from openuni.modalities.depth import Depth
from openuni.modalities.flow import Flow
from openuni.modalities.rgb import Rgb
from openuni.modalities.segmentation import Segmentation
from openuni.sample import Annotation, Record, Sample
from openuni.shards import writer
from openuni_model import checkpoint
from openuni_model.batch import Embed, collate
from openuni_model.codecs import PixelCodec
from openuni_model.config import ModelConfig, preset
from openuni_model.cost import flops
from openuni_model.data import Bucket, Buckets, Reader, window_of
from openuni_model.dit import GENERATE, UnifiedDiT
from openuni_model.generation import ClipRequest, Sampler, generate
from openuni_model.prompts import Target, targets
from openuni_model.sampling import Guidance
from openuni_model.tasks import Draw, Stage, draw, rng_of
from openuni_model.texts import open_texts
from openuni_model.trainer import Schedule, Trainer
from openuni_model.watch import load
from unibench.metrics.base import mean_iou
from unibench.metrics.depth import apply_fit, depth_errors, fit, valid_truth
from unibench.metrics.segmentation import overlaps, pair_objects
from unibench.rendering.render import modalities as truth_of
from unibench.rendering.render import render_scene
from unibench.scenes.families import Spec

Floats = npt.NDArray[np.float64]
FRAMES, SIDE = 8, 32
VIEWS = ("depth", "flow", "segmentation")
HELD = ("pair", "egg")
"""Targets that no arm is trained to show: two things at once, and a class."""
HELPS, FASTER, ZERO_SHOT = 0.95, 0.8, 0.10
MARGIN = 0.15
"""Of "no effect": what 8 seeds can bound, from the pilot."""
REPEATS = 2000


@dataclass(frozen=True, slots=True)
class Arm:
    """How one model is trained; what is not said is the curriculum's."""

    views: tuple[str, ...] = VIEWS
    tasks: tuple[float, float, float] = (0.2, 0.3, 0.5)
    switcher: bool = True
    in_context: bool = True
    prompts: bool = False
    wide: bool = False
    """The model of `full`, whatever the size."""

    def stage(self, steps: int) -> Stage:
        cond, est, joint = self.tasks
        return Stage(
            "synergy", self.views, (), steps, cond, est, joint, p_alone=0.0, prompts=self.prompts, held_targets=HELD
        )


ARMS: Mapping[str, Arm] = {
    "all": Arm(),
    "depth": Arm(views=("depth",)),
    "flow": Arm(views=("flow",)),
    "est": Arm(tasks=(0.0, 1.0, 0.0)),
    "rgb": Arm(views=()),
    "no-switcher": Arm(switcher=False),
    "no-in-context": Arm(in_context=False),
    "neither": Arm(switcher=False, in_context=False),
    "prompts": Arm(prompts=True),
    "painter": Arm(views=("segmentation",), tasks=(0.0, 1.0, 0.0), prompts=True),
    "painter-wide": Arm(views=("segmentation",), tasks=(0.0, 1.0, 0.0), prompts=True, wide=True),
}


@dataclass(frozen=True, slots=True)
class Contrast:
    """Arm `a`, which the claim says is better, against `b`, by measures that both have (`rival` where b's differs).

    Errors are compared by ratio; IoU (`zero_shot`) by difference.
    """

    claim: str
    a: str
    b: str
    measure: str
    rival: str = ""
    zero_shot: bool = False

    @property
    def other(self) -> str:
        return self.rival or self.measure


_SWITCHER = "the switcher helps beside the in-context learner"
_IN_CONTEXT = "the in-context learner helps beside the switcher"
CONTRASTS: Mapping[str, Contrast] = {
    "depth-views": Contrast("more views help depth", "all", "depth", "absrel"),
    "flow-views": Contrast("more views help flow", "all", "flow", "epe"),
    "depth-tasks": Contrast("more tasks help depth", "all", "est", "absrel"),
    "flow-tasks": Contrast("more tasks help flow", "all", "est", "epe"),
    "switcher": Contrast(f"{_SWITCHER}: depth", "all", "no-switcher", "absrel"),
    "switcher-flow": Contrast(f"{_SWITCHER}: flow", "all", "no-switcher", "epe"),
    "switcher-segmentation": Contrast(f"{_SWITCHER}: segmentation", "all", "no-switcher", "miou error"),
    "switcher-alone": Contrast("the switcher helps alone: depth", "no-in-context", "neither", "absrel"),
    "switcher-alone-flow": Contrast("the switcher helps alone: flow", "no-in-context", "neither", "epe"),
    "switcher-alone-segmentation": Contrast(
        "the switcher helps alone: segmentation", "no-in-context", "neither", "miou error"
    ),
    "in-context": Contrast(f"{_IN_CONTEXT}: depth", "all", "no-in-context", "absrel"),
    "in-context-flow": Contrast(f"{_IN_CONTEXT}: flow", "all", "no-in-context", "epe"),
    "in-context-segmentation": Contrast(f"{_IN_CONTEXT}: segmentation", "all", "no-in-context", "miou error"),
    "in-context-alone": Contrast("the in-context learner helps alone: depth", "no-switcher", "neither", "absrel"),
    "in-context-alone-flow": Contrast("the in-context learner helps alone: flow", "no-switcher", "neither", "epe"),
    "in-context-alone-segmentation": Contrast(
        "the in-context learner helps alone: segmentation", "no-switcher", "neither", "miou error"
    ),
    "rgb-views": Contrast("views help RGB: its error", "all", "rgb", "rgb"),
    "rgb-views-samples": Contrast("views help RGB: its samples", "all", "rgb", "frechet"),
    "target-fixed": Contrast("prompts reach new targets", "prompts", "all", "iou", "iou fixed", zero_shot=True),
    "target-wrong": Contrast("and the text decides", "prompts", "prompts", "iou", "iou wrong", zero_shot=True),
    "painter": Contrast("follow-up: painting alone is learnt better", "painter", "prompts", "miou error"),
    "painter-wrong": Contrast(
        "follow-up: painting alone, the text decides", "painter", "painter", "iou", "iou wrong", zero_shot=True
    ),
    "wide": Contrast("follow-up: a wider model paints better", "painter-wide", "painter", "miou error"),
    "wide-wrong": Contrast(
        "follow-up: in a wider model the text decides",
        "painter-wide",
        "painter-wide",
        "iou",
        "iou wrong",
        zero_shot=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much is spent. Measured `points` times, evenly; `model` changes the nano preset.

    Estimates take `solver_steps`, samples of RGB `rgb_steps`.
    """

    train: int
    held_out: int
    steps: int
    batch: int
    points: int
    seeds: int
    solver_steps: int
    rgb_steps: int
    family: str = "collide"
    model: Mapping[str, Any] = field(default_factory=dict)


_NARROW = {"width": 64, "ffn": 256, "layers": 2, "heads": 2}
SIZES: Mapping[str, Size] = {
    "tiny": Size(4, 2, 4, 2, 2, 2, 1, 2, "projectile", {**_NARROW, "width": 32, "ffn": 64}),
    "pilot": Size(400, 64, 600, 8, 4, 4, 1, 8, model=_NARROW),
    "medium": Size(2000, 256, 1000, 8, 4, 8, 1, 8, model=_NARROW),
    "full": Size(2000, 256, 3000, 8, 12, 8, 1, 8),
}


def reads(arm: Arm, measure: str) -> bool:
    """Whether a contrast reads this measure of this arm."""
    asked = {(c.a, c.measure) for c in CONTRASTS.values()} | {(c.b, c.other) for c in CONTRASTS.values()}
    return any(ARMS[name] == arm and what == measure for name, what in asked)


MEASURES: Mapping[str, tuple[str, str]] = {
    "absrel": ("est", "depth"),
    "epe": ("est", "flow"),
    "miou error": ("est", "segmentation"),
    "rgb": ("joint", "rgb"),
    "frechet": ("joint", "rgb"),
    "iou": ("est", "segmentation"),
    "iou fixed": ("est", "segmentation"),
    "iou wrong": ("est", "segmentation"),
}
"""What each measure asks of the model: the task and the view whose generated streams are its updates."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--contrast", nargs="*", choices=list(CONTRASTS), default=["depth-views"])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--results", type=Path, help="default: OUT for tiny, else docs/experiments")
    a = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = SIZES[a.size]
    seeds = range(a.seeds or size.seeds)
    kept = a.results or (a.out if a.size == "tiny" else Path(__file__).parents[1] / "docs" / "experiments")
    results = kept / f"results-{a.size}.jsonl"
    chosen = {name: CONTRASTS[name] for name in a.contrast}
    root = render(a.out / f"data-{a.size}", size)
    for seed in seeds:  # so that what is done when it is interrupted can be paired
        for arm in dict.fromkeys(arm for c in chosen.values() for arm in (c.a, c.b)):
            if (arm, seed) not in read(results):
                remember(results, run(a.out / f"{a.size}-{arm}-{seed}", root, arm, seed, size))
    lines = read(results)
    print(json.dumps({"without a model": naive(root)}))
    for name, contrast in chosen.items():
        mine, theirs = ([lines[arm, seed] for seed in seeds] for arm in (contrast.a, contrast.b))
        print(json.dumps({"contrast": name, **judge(contrast, mine, theirs)}))
        draw_curves(contrast, mine, theirs, a.out / f"{a.size}-{name}.png")


Line = dict[str, Any]
"""A finished run as it is stored: `arm`, `seed`, `points`; a point has `step`, `flops`, `updates` and errors a clip."""


def read(path: Path) -> dict[tuple[str, int], Line]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(line["arm"], line["seed"]): line for line in map(json.loads, lines)}


def remember(path: Path, line: Line) -> None:
    """Add a run; a kill leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    before = path.read_text() if path.is_file() else ""
    temporary.write_text(before + json.dumps(line, separators=(",", ":")) + "\n")
    temporary.replace(path)


def render(root: Path, size: Size) -> Path:
    """The clips of a size: first those to train on, then those held out."""
    columns = dict.fromkeys(("rgb", *VIEWS), "render-1")
    if (root / "dataset.json").is_file():
        return root
    keys = [f"{size.family}-{number:05d}" for number in range(size.train + size.held_out)]
    for number, key in enumerate(keys):
        if writer.is_saved(root, 0, key, columns):
            continue
        made = render_scene(Spec(size.family, number, FRAMES, SIDE, SIDE, 8.0))
        truth = truth_of(made.truth)
        split = "train" if number < size.train else "val"
        record = Record(key, FRAMES, SIDE, SIDE, 8.0, made.caption, split=split, license="CC0-1.0")  # type: ignore[arg-type]
        values: dict[str, Annotation[Any] | str] = {
            "rgb": Annotation(Rgb(made.rgb, 8.0, exact=True)),
            **{view: Annotation(getattr(truth, view)) for view in VIEWS},
        }
        writer.save_sample(root, 0, record, values, columns, "synergy")
    writer.commit_shard(root, 0, keys, columns, "synergy")
    writer.write_manifest(root, {"source": size.family}, columns, len(keys), 1, "synergy")
    return root


def run(out: Path, root: Path, arm: str, seed: int, size: Size) -> Line:
    """Train one arm with one seed from where it stands, measuring at each point."""
    how, every = ARMS[arm], size.steps // size.points
    modalities = ("rgb", *VIEWS)
    config = preset(
        "nano",
        modalities=modalities,
        switcher=how.switcher,
        in_context=how.in_context,
        **({} if how.wide else size.model),
    )
    stage = how.stage(size.steps)
    reader = Reader(str(root), stage, Buckets(config), seed, PixelCodec(), out.parent / "latents")
    schedule = Schedule(out, size.steps, size.batch, lr=1e-3, warmup=min(100, every), ema=0.995, checkpoint_every=every)
    torch.manual_seed(seed)
    trainer = Trainer(schedule, UnifiedDiT(config), reader, open_encoder(config))
    out.mkdir(parents=True, exist_ok=True)
    written = out / "points.jsonl"
    if (path := checkpoint.newest(out / "checkpoints")[0]) is not None:
        trainer.restore(path)
    points = [json.loads(line) for line in written.read_text().splitlines()] if written.is_file() else []
    points = [point for point in points if point["step"] <= trainer.step]
    if trainer.step and (not points or points[-1]["step"] != trainer.step):  # killed between checkpoint and measuring
        points.append(measure(trainer, how, root, size))
        save(written, points)
    for report in trainer.run():
        if report.checkpoint is not None:
            points.append(measure(trainer, how, root, size))
            save(written, points)
            print(arm, seed, {"step": report.step, **means(points[-1])}, flush=True)
    return {"arm": arm, "seed": seed, "points": points}


def save(path: Path, points: Sequence[Line]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(point) + "\n" for point in points))
    temporary.replace(path)


def means(point: Line) -> dict[str, float]:
    return {name: round(float(np.nanmean(np.array(values, float))), 4) for name, values in point["clips"].items()}


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The clips to measure on, read once a process, a target of a held kind or class of each where it has one, and the
    prompt of other instances of the same clip where there are such.
    """

    clips: list[Sample]
    targets: list[Target | None]
    others: list[str | None]


@cache
def held_out(root: Path) -> HeldOut:
    clips = [sample for sample in openuni.open(str(root)) if sample.record.split == "val"]
    wanted = [held_target(sample) for sample in clips]
    return HeldOut(clips, wanted, [other_prompt(*pair) for pair in zip(clips, wanted, strict=True)])


def measure(trainer: Trainer, arm: Arm, root: Path, size: Size) -> Line:
    """Errors of the averaged weights on the held-out clips, a number a clip (None: the clip has no such target)."""
    held = held_out(root)
    model = UnifiedDiT(trainer.config)
    model.load_state_dict(trainer.ema)
    model.eval()

    def estimated(view: str, texts: Sequence[str | None] = ()) -> list[Any]:
        return estimates(model, held.clips, view, trainer.embed, size, texts)

    values: dict[str, list[float]] = {}
    if "depth" in arm.views:
        values["absrel"] = depth_errors_of(estimated("depth"), held)
    if "flow" in arm.views:
        values["epe"] = flow_errors_of(estimated("flow"), held)
    if "segmentation" in arm.views:
        asked = [None if target is None else f"segment {target.words}" for target in held.targets]
        own = estimated("segmentation")
        values["iou"] = painted_iou(estimated("segmentation", asked), asked, held)
        values["iou fixed"] = painted_iou(own, asked, held)
        values["iou wrong"] = painted_iou(estimated("segmentation", held.others), held.others, held)
        values["miou error"] = miou_errors_of(own, held)
    if arm.tasks[2] > 0:
        values["rgb"] = rgb_alone(model, held.clips, trainer)
    if reads(arm, "frechet"):  # eight passes of the model a clip, so not of arms for which nothing asks
        values["frechet"] = frechet_shares(model, held, space_of(root), trainer.embed, size)
    shares = stream_shares(arm)
    seen = trainer.step * size.batch
    return {
        "step": trainer.step,
        "flops": seen * flops_of_a_clip(arm, trainer.config),
        "updates": {name: seen * shares["/".join(MEASURES[name])] for name in values},
        "clips": {name: [None if math.isnan(v) else round(v, 5) for v in those] for name, those in values.items()},
    }


_DRAWS = 5_000


@cache
def drawn(arm: Arm) -> list[Draw]:
    """What an arm trains, so often that means over it stand for any run: a resumed run needs no counters."""
    stage = arm.stage(1)
    return [draw(rng_of(0, "validate", number), arm.views, stage, 3.0) for number in range(_DRAWS)]


@cache
def stream_shares(arm: Arm) -> dict[str, float]:
    """Generated streams a clip, by task/view."""
    shares = {"/".join(what): 0.0 for what in MEASURES.values()}
    for one in drawn(arm):
        for view, role in zip(one.views, one.roles, strict=True):
            name = f"{one.task}/{view}"
            if role == GENERATE and name in shares:
                shares[name] += 1 / _DRAWS
    return shares


@cache
def flops_of_a_clip(arm: Arm, config: ModelConfig) -> float:
    """Forward and backward of a clip, a mean over what is drawn."""
    tokens = math.prod(config.grid(FRAMES, SIDE, SIDE))
    counts = Counter(len(one.views) for one in drawn(arm))
    return 3 * sum(times * flops(config, tokens, (streams,)) for streams, times in counts.items()) / _DRAWS


@cache
def open_encoder(config: ModelConfig) -> Any:
    return open_texts(config)


def estimates(
    model: UnifiedDiT,
    clips: Sequence[Sample],
    view: str,
    embed: Embed,
    size: Size,
    texts: Sequence[str | None] = (),
) -> list[Any]:
    """A view of each clip from its RGB, under the text given for it, else the view's own prompt."""
    prompts = [{view: text} if text is not None else {} for text in texts] or [{} for _ in clips]
    requested = [
        ClipRequest(s.key, "", (view,), {"rgb": s.rgb}, FRAMES, SIDE, SIDE, prompt)
        for s, prompt in zip(clips, prompts, strict=True)
    ]
    sampler = Sampler(steps=size.solver_steps, guidance=Guidance(controls=(1.0,)), batch=16)
    made = generate(model, PixelCodec(), embed, requested, sampler)
    values = {request.key: value[view] for request, value in made}
    return [values[s.key] for s in clips]


def depth_errors_of(made: Sequence[Any], held: HeldOut) -> list[float]:
    """AbsRel, aligned by scale and shift of disparity."""
    errors = []
    for predicted, sample in zip(made, held.clips, strict=True):
        values = sample.depth.values
        valid = valid_truth(values)
        fitted = fit(predicted, values, valid, "disparity")
        errors.append(
            math.nan
            if fitted is None
            else float(depth_errors(apply_fit(predicted, fitted)[valid], values[valid].astype(np.float64)).absrel)
        )
    return errors


def flow_errors_of(made: Sequence[Any], held: HeldOut) -> list[float]:
    """End-point error in pixels where the truth is known."""
    errors = []
    for predicted, sample in zip(made, held.clips, strict=True):
        difference = np.linalg.norm(np.nan_to_num(predicted.forward) - sample.flow.forward, axis=-1)
        errors.append(float(np.nanmean(difference)))
    return errors


def miou_errors_of(made: Sequence[Segmentation], held: HeldOut) -> list[float]:
    """1 − the mean over true instances of the IoU, over the clip, with the painted instance paired with each.

    A picture of segmentation tells instances apart but not classes, so the mean is over instances.
    """
    errors = []
    for predicted, sample in zip(made, held.clips, strict=True):
        overlap = overlaps(predicted, sample.segmentation)
        total = overlap.sum(axis=0)
        counts = [
            (0 if p is None else total[p + 1, n], 0 if p is None else total[p + 1].sum(), total[:, n].sum())
            for n, p in enumerate(pair_objects(overlap), start=1)
        ]
        errors.append(1 - float(mean_iou(np.array(counts, np.int64).reshape(-1, 3))))
    return errors


def naive(root: Path) -> dict[str, float]:
    """Errors of what needs no model: the mean disparity of FITTED training clips for depth, flow at rest."""
    held = held_out(root)
    train = islice((sample for sample in openuni.open(str(root)) if sample.record.split == "train"), FITTED)
    depths = np.stack([sample.depth.values for sample in train]).astype(np.float64)
    known = np.isfinite(depths) & (depths > 0)
    disparity = np.where(known, 1 / np.where(known, depths, 1), 0).mean(axis=0).clip(1e-6)
    layout = Depth((1 / disparity).astype(np.float32), "metric")
    rest = Flow(np.zeros_like(held.clips[0].flow.forward))
    return {
        "absrel": float(np.nanmean(depth_errors_of([layout] * len(held.clips), held))),
        "epe": float(np.nanmean(flow_errors_of([rest] * len(held.clips), held))),
    }


def held_target(sample: Sample) -> Target | None:
    """A clip's first target of a held kind or class."""
    value = window_of(sample, "segmentation", Bucket(FRAMES, SIDE, SIDE), 0)
    trained = targets(value, HELD)
    return next((target for target in targets(value) if target not in trained), None)


def other_prompt(sample: Sample, target: Target | None) -> str | None:
    """The prompt of instances of the clip that are none of the target's."""
    others = targets(sample.segmentation) if target else []
    words = [other.words for other in others if target and not set(other.ids) & set(target.ids)]
    return f"segment {words[0]}" if words else None


def painted_iou(made: Sequence[Segmentation], texts: Sequence[str | None], held: HeldOut) -> list[float]:
    """IoU over the clip of everything painted with the clip's target; NaN without a target or text."""
    found = []
    for value, sample, target, text in zip(made, held.clips, held.targets, texts, strict=True):
        if target is None or text is None:
            found.append(math.nan)
            continue
        painted, true = value.ids > 0, np.isin(sample.segmentation.ids, target.ids)
        found.append(float((painted & true).sum() / (painted | true).sum()))
    return found


@torch.no_grad()
def rgb_alone(model: UnifiedDiT, clips: Sequence[Sample], trainer: Trainer) -> list[float]:
    """Unweighted squared error of the clean RGB predicted at t ≥ .3 from RGB and caption alone, a mean over times."""
    errors = []
    for number, sample in enumerate(clips):
        item = load(trainer.reader, sample, ())
        draws = [Draw("joint", ("rgb",), (GENERATE,), (t,), caption=True) for t in (0.3, 0.5, 0.7, 0.9)]
        rngs = [rng_of(0, "validate", 4 * number + i) for i in range(4)]
        batch = collate([item] * 4, draws, rngs, trainer.config, trainer.embed)
        errors.append(float((model(batch.streams) - batch.x0_PCFHW).square().mean()))
    return errors


COMPONENTS, FITTED = 16, 512


@dataclass(frozen=True, slots=True)
class Space:
    """Principal components of training clips' RGB: `mean` `[D]` and `axes` `[D, K]`, of D values in [0, 1] a clip.

    What lies outside of them, fine detail above all, is not compared.
    """

    mean: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    explained: float
    """Share of the variance of those clips that the components have."""

    def coordinates(self, clips: Sequence[Rgb]) -> Floats:
        """`[N, K]`, of N clips."""
        found: Floats = ((flat(clips) - self.mean) @ self.axes).astype(np.float64)
        return found


@cache
def space_of(root: Path) -> Space:
    """From the first FITTED training clips."""
    train = (sample for sample in openuni.open(str(root)) if sample.record.split == "train")
    rows = flat([sample.rgb for sample in islice(train, FITTED)])
    mean = rows.mean(axis=0)
    rows -= mean
    wide = rows.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T)
    kept = slice(-min(COMPONENTS, len(rows) - 1), None)
    axes = (rows.T @ vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    return Space(mean, axes, float(values[kept].sum() / values.sum()))


def flat(clips: Sequence[Rgb]) -> npt.NDArray[np.float32]:
    """`[N, D]` in [0, 1]."""
    return np.stack([np.asarray(clip.frames).reshape(-1) for clip in clips]).astype(np.float32) / np.float32(255)


def frechet(a: Floats, b: Floats) -> float:
    """Fréchet distance of normal distributions with the means and covariances (divided by N) of `[N, K]` and `[M, K]`.

    |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a^½ Σ_b Σ_a^½)^½), the squared distance of FID (Heusel et al. 2017).
    """
    first, second = (np.atleast_2d(np.cov(x, rowvar=False, bias=True)) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    apart = a.mean(axis=0) - b.mean(axis=0)
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * cross)


def shares_of_distance(a: Floats, b: Floats) -> list[float]:
    """The jackknife's pseudo-values of the Fréchet distance of `[N, K]` and `[N, K]`, of which clip i made a pair.

    With N clips the distance is too large by about c/N. The mean of N·d − (N − 1)·d_(without i) is free of that, and
    as numbers a clip they are bootstrapped like any error. Near zero the mean may be below it.
    """
    whole, n = frechet(a, b), len(a)
    return [n * whole - (n - 1) * frechet(np.delete(a, i, 0), np.delete(b, i, 0)) for i in range(n)]


def frechet_shares(model: UnifiedDiT, held: HeldOut, space: Space, embed: Embed, size: Size) -> list[float]:
    """Of RGB generated alone from the captions of the held-out clips, against these clips; as many in every arm."""
    requested = [ClipRequest(s.key, s.caption, ("rgb",), {}, FRAMES, SIDE, SIDE) for s in held.clips]
    made = {
        request.key: value["rgb"]
        for request, value in generate(model, PixelCodec(), embed, requested, Sampler(steps=size.rgb_steps, batch=16))
    }
    truth = space.coordinates([sample.rgb for sample in held.clips])
    return shares_of_distance(space.coordinates([made[s.key] for s in held.clips]), truth)


def at(line: Line, measure: str, budget: str, amount: float) -> Floats:
    """A run's numbers a clip at a budget, between its points linear in the budget's logarithm."""
    points = [point for point in line["points"] if measure in point["clips"]]
    spent = [point["flops"] if budget == "flops" else point["updates"][measure] for point in points]
    values = np.array([point["clips"][measure] for point in points], np.float64)
    amount = min(max(amount, spent[0]), spent[-1])
    after = min(int(np.searchsorted(spent, amount)), len(spent) - 1)
    before = max(0, after - 1)
    share = 1.0 if after == before else math.log(amount / spent[before]) / math.log(spent[after] / spent[before])
    interpolated: Floats = (1 - share) * values[before] + share * values[after]
    return interpolated


def shared(lines: Sequence[Line], measure: str, budget: str) -> float:
    """The most that every run has spent."""
    points = [[p for p in line["points"] if measure in p["clips"]][-1] for line in lines]
    return min(float(point["flops"] if budget == "flops" else point["updates"][measure]) for point in points)


def judge(contrast: Contrast, mine: Sequence[Line], theirs: Sequence[Line]) -> dict[str, Any]:
    """The verdict at both budgets, how fast, and what could have been seen."""
    result: dict[str, Any] = {"claim": contrast.claim, "seeds": len(mine)}
    for budget in ("updates", "flops"):
        amount = min(shared(mine, contrast.measure, budget), shared(theirs, contrast.other, budget))
        a = np.stack([at(line, contrast.measure, budget, amount) for line in mine])
        b = np.stack([at(line, contrast.other, budget, amount) for line in theirs])
        result[f"equal {budget}"] = verdict(a, b, zero_shot=contrast.zero_shot)
    if not contrast.zero_shot:
        speed = quicker(contrast, mine, theirs)
        result["flops to the single arm's final value"] = speed
        result["faster"] = speed is not None and speed <= FASTER
    return result


def verdict(a: Floats, b: Floats, *, zero_shot: bool) -> dict[str, Any]:
    """Of numbers `[S, N]`, paired by seed and clip: ratio of means (or difference), its interval, and the seeds needed.

    Seeds and clips are resampled each. `seeds for 5 %` would show HELPS with a power of 80 % (two-sided 5 %, normal
    approximation, from the scatter of the paired log ratios of seeds).
    """
    seen = ~np.isnan(a).any(axis=0) & ~np.isnan(b).any(axis=0)
    if not seen.any():
        return {"verdict": "no clip has such a target"}
    a, b = a[:, seen], b[:, seen]

    def effect(x: Floats, y: Floats) -> float:
        return float(x.mean() - y.mean()) if zero_shot else float(x.mean() / y.mean())

    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(REPEATS):
        where = np.ix_(rng.integers(len(a), size=len(a)), rng.integers(a.shape[1], size=a.shape[1]))
        resampled.append(effect(a[where], b[where]))
    low, high = np.quantile(resampled, [0.025, 0.975]).tolist()
    value = effect(a, b)
    said = {"a": float(a.mean()), "b": float(b.mean()), "effect": value, "interval": [low, high]}
    first, second = a.mean(axis=1), b.mean(axis=1)
    if zero_shot:
        scatter = float((first - second).std(ddof=1)) if len(first) > 1 else None
        word = "zero-shot" if value >= ZERO_SHOT and low > 0 else "inconclusive"
        return {**said, "scatter of seeds": scatter, "verdict": word}
    comparable = len(first) > 1 and (first / second > 0).all()  # a distance freed of its bias may be below zero
    scatter = float(np.log(first / second).std(ddof=1)) if comparable else None
    needed = None if scatter is None else math.ceil((2.8 * scatter / math.log(HELPS)) ** 2)
    if value <= HELPS and high < 1:
        word = "helps"
    elif value >= 1 / HELPS and low > 1:
        word = "harms"
    elif low >= 1 - MARGIN and high <= 1 + MARGIN:
        word = "no effect"
    else:
        word = "inconclusive"
    return {**said, "scatter of seeds": scatter, "seeds for 5 %": needed, "verdict": word}


def curve(lines: Sequence[Line], measure: str) -> tuple[Floats, Floats]:
    """FLOPs `[P]` of the points that have the measure, and there each seed's mean over clips, `[S, P]`."""
    points = [[point for point in line["points"] if measure in point["clips"]] for line in lines]
    spent = np.array([point["flops"] for point in points[0]], np.float64)
    means_ = [[np.nanmean(np.array(point["clips"][measure], np.float64)) for point in those] for those in points]
    return spent, np.array(means_, np.float64)


def quicker(contrast: Contrast, mine: Sequence[Line], theirs: Sequence[Line]) -> float | None:
    """FLOPs at which arm a reaches b's final value, over b's FLOPs; None: not within the run."""
    (spent, a), (total, b) = curve(mine, contrast.measure), curve(theirs, contrast.other)
    reached = np.flatnonzero(a.mean(axis=0) <= b.mean(axis=0)[-1])
    return float(spent[reached[0]] / total[-1]) if len(reached) else None


def draw_curves(contrast: Contrast, mine: Sequence[Line], theirs: Sequence[Line], out: Path) -> None:
    """The measure over FLOPs: arm a blue, arm b red, each seed thin and their mean thick."""
    curves = [curve(mine, contrast.measure), curve(theirs, contrast.other)]
    labels = (contrast.a, contrast.b) if contrast.a != contrast.b else (contrast.measure, contrast.other)
    right, top = max(x[-1] for x, _ in curves), max(float(np.nanmax(y)) for _, y in curves) or 1.0
    canvas = np.full((290, 520, 3), 255, np.uint8)

    def write(text: str, x: int, y: int, ink: tuple[int, int, int] = (60, 60, 60)) -> None:
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)

    cv2.rectangle(canvas, (50, 30), (390, 260), (170, 170, 170), 1)
    inks = ((180, 60, 30), (30, 60, 200))
    for number, ((x, each), ink, label) in enumerate(zip(curves, inks, labels, strict=True)):
        for y, width in [*((one, 1) for one in each), (each.mean(axis=0), 3)]:
            places = np.stack([50 + x / right * 340, 260 - y / top * 220], axis=1)
            cv2.polylines(canvas, [places.round().astype(np.int32)], False, ink, width, cv2.LINE_AA)
        write(label, 396, 44 + 16 * number, ink)
    write(f"{contrast.measure}, a mean over {len(mine)} seeds (thick)", 50, 20)
    write(f"{top:.2g}", 8, 44)
    write("0", 36, 264)
    write(f"FLOPs to {right:.2g}", 290, 278)
    cv2.imwrite(str(out), canvas)


if __name__ == "__main__":
    main()
