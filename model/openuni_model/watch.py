"""Watching a model learn: validation losses at fixed noise, scores of decoded estimates, and pictures.

All of it on held-out clips of the stage's own subsets and, in a run, with the averaged weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from openuni import modalities
from openuni.modalities import Frames
from openuni.sample import Sample
from openuni_model.batch import Batch, Embed, Item, collate
from openuni_model.codecs import Codec
from openuni_model.data import Bucket, Reader, why_not, window_of
from openuni_model.dit import CONDITION, GENERATE, UnifiedDiT
from openuni_model.parallel import autocast
from openuni_model.sampling import Guidance, LatentRequest, sample_views
from openuni_model.tasks import TASKS, Draw, Task, rng_of

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Middles of the five buckets of t at which validation looks."""


@dataclass(frozen=True, slots=True)
class Bucketed:
    """A mean validation loss over `count` generated streams of one task and view at one time."""

    task: Task
    view: str
    t: float
    loss: float
    count: int


Score = Callable[[str, Any, Any], Mapping[str, float]]
"""A view's name, an estimate and the truth, values of its modality of one size, to scores by name."""


def held_out(reader: Reader, count: int) -> list[Sample]:
    """`count` clips, or all where there are fewer, spread evenly over those of split val that the stage would take."""
    data, stage = reader.data, reader.stage
    fits = [
        number
        for number, sample in enumerate(data)
        if why_not(sample.record, stage, reader.fit, "val") is None and any(view in sample for view in stage.modalities)
    ]
    chosen = np.linspace(0, len(fits) - 1, min(count, len(fits))).round().astype(int)
    return [data[fits[number]] for number in chosen]


def validation_batches(reader: Reader, samples: Sequence[Sample], embed: Embed) -> list[Batch]:
    """One batch a clip: every task at every time, for one of its views in turn, with noise that never changes."""
    batches = []
    for number, sample in enumerate(samples):
        item = load(reader, sample, tuple(view for view in reader.stage.modalities if view in sample))
        views = [view for view in item.latents if view != "rgb"]
        view = views[number % len(views)]
        draws = [_draw(task, view, t) for task in TASKS for t in TIMES]
        rngs = [rng_of(0, "validate", number * len(draws) + i) for i in range(len(draws))]
        batches.append(collate([item] * len(draws), draws, rngs, reader.config, embed))
    return batches


def _draw(task: Task, view: str, t: float) -> Draw:
    roles = {"cond": (GENERATE, CONDITION), "est": (CONDITION, GENERATE), "joint": (GENERATE, GENERATE)}[task]
    times = tuple(0.0 if role == CONDITION else t for role in roles)
    return Draw(task, ("rgb", view), roles, times, caption=task != "est")


def load(reader: Reader, sample: Sample, views: Sequence[str]) -> Item:
    """The first window of a clip with RGB and `views`, through the codec."""
    bucket = _bucket(reader, sample)
    latents = {view: reader.latent(sample, view, bucket, 0) for view in ("rgb", *views)}
    return Item(sample.key, sample.caption, latents)


def _bucket(reader: Reader, sample: Sample) -> Bucket:
    bucket = reader.fit.bucket(sample.record)
    assert bucket is not None  # `held_out` looked
    return bucket


@torch.no_grad()
def validate(model: UnifiedDiT, batches: Sequence[Batch], device: torch.device) -> list[Bucketed]:
    """Mean losses of the generated streams by task, view and time.

    A loss is the squared error of what the network predicts, x_0 or v, at every time alike. The training loss of an
    x-prediction weighs it by 1/t²: of its mean over these times the first, which training hardly visits, had 84 %.
    """
    sums: dict[tuple[Task, str, float], list[float]] = defaultdict(list)
    model.eval()
    for batch in batches:
        with autocast(device):
            out = model(batch.streams.to(device))
        batch = batch.to(device)
        target_PCFHW = batch.x0_PCFHW if model.config.prediction == "x" else batch.noise_PCFHW - batch.x0_PCFHW
        errors_P = (out.float() - target_PCFHW).square().mean((1, 2, 3, 4)).tolist()
        times_P, roles_P = batch.streams.t_P.tolist(), batch.streams.role_P.tolist()
        for error, task, view, t, role in zip(errors_P, batch.tasks, batch.views, times_P, roles_P, strict=True):
            if role == GENERATE:
                sums[task, view, round(t, 6)].append(error)
    return [Bucketed(*where, float(np.mean(values)), len(values)) for where, values in sorted(sums.items())]


def score_estimates(
    model: UnifiedDiT, reader: Reader, samples: Sequence[Sample], embed: Embed, score: Score, *, steps: int
) -> dict[str, float]:
    """Mean scores, as `view/name`, of the stage's views of these clips estimated from RGB and decoded.

    Scores that are not finite are left out, and a name without any.
    """
    results: dict[str, list[float]] = defaultdict(list)
    one = Guidance(controls=(1.0,))
    model.eval()
    for view in reader.stage.modalities:
        with_view = sorted((sample for sample in samples if view in sample), key=lambda s: str(_bucket(reader, s)))
        for bucket, group in groupby(with_view, key=lambda s: _bucket(reader, s)):
            alike = list(group)
            rgb = [reader.latent(sample, "rgb", bucket, 0) for sample in alike]
            size = (int(rgb[0].shape[1]), int(rgb[0].shape[2]), int(rgb[0].shape[3]))
            requests = [
                LatentRequest(sample.key, "", (view,), {"rgb": latents}, size)
                for sample, latents in zip(alike, rgb, strict=True)
            ]
            estimated = sample_views(model, requests, embed, guidance=one, steps=steps)
            for sample, latents in zip(alike, estimated, strict=True):
                value = modalities.get(view).from_picture(reader.codec.decode(latents[view]))
                for name, number in score(view, value, window_of(sample, view, bucket, 0)).items():
                    results[f"{view}/{name}"].append(number)
    means = {name: [n for n in numbers if np.isfinite(n)] for name, numbers in results.items()}
    return {name: float(np.mean(numbers)) for name, numbers in means.items() if numbers}


def sample_all_ways(
    model: UnifiedDiT, items: Sequence[Item], view: str, embed: Embed, *, steps: int
) -> list[dict[str, Tensor]]:
    """For each clip its truth and what the model makes of it: RGB and `view` as est, cond and joint generation."""
    F, H, W = items[0].latents["rgb"].shape[1:]
    results: list[dict[str, Tensor]] = [{"rgb": item.latents["rgb"], view: item.latents[view]} for item in items]
    one = Guidance(controls=(1.0,))

    def requests(views: tuple[str, ...], controls: tuple[str, ...], caption: bool) -> list[LatentRequest]:
        return [
            LatentRequest(i.key, i.caption if caption else "", views, {c: i.latents[c] for c in controls}, (F, H, W))
            for i in items
        ]

    model.eval()
    estimated = sample_views(model, requests((view,), ("rgb",), False), embed, guidance=one, steps=steps)
    controlled = sample_views(model, requests(("rgb",), (view,), True), embed, guidance=one, steps=steps)
    joint = sample_views(model, requests(("rgb", view), (), True), embed, guidance=Guidance(), steps=steps)
    for result, e, c, j in zip(results, estimated, controlled, joint, strict=True):
        result.update({"est": e[view], "cond": c["rgb"], "joint rgb": j["rgb"], f"joint {view}": j[view]})
    return results


def sheet(rows: Sequence[Mapping[str, Tensor]], codec: Codec, *, frames: int = 4, cell: int = 96) -> Frames:
    """One picture of such results, uint8 `[H, W, 3]`: a row for every entry of every clip, `frames` of its frames."""
    lines = []
    for row in rows:
        for name, latents in row.items():
            pictures = codec.decode(latents)
            chosen = pictures[np.linspace(0, len(pictures) - 1, frames).round().astype(int)]
            width = round(cell * pictures.shape[2] / pictures.shape[1])
            cells = [cv2.resize(np.rint(p * 255).astype(np.uint8), (width, cell), interpolation=cv2.INTER_NEAREST)
                     for p in chosen]  # fmt: skip
            label = np.full((cell, 96, 3), 24, np.uint8)
            cv2.putText(label, name, (4, cell // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230, 230, 230), 1, cv2.LINE_AA)
            lines.append(np.hstack([label, *(np.pad(c, ((1, 1), (1, 1), (0, 0))) for c in map(_trim, cells))]))
        lines.append(np.full((6, lines[-1].shape[1], 3), 90, np.uint8))
    return np.vstack(lines)


def _trim(cell: Frames) -> Frames:
    """One pixel off each side, which the frame around it takes."""
    return cell[1:-1, 1:-1]
