"""Generation: sample the missing views of clips under guidance. Shapes as in `dit.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from openuni_model.batch import Embed, stream_text
from openuni_model.config import ModelConfigError
from openuni_model.dit import CONDITION, GENERATE, Streams, UnifiedDiT
from openuni_model.flow import Solver, solve, timesteps, velocity
from openuni_model.parallel import autocast
from openuni_model.tasks import rng_of


@dataclass(frozen=True, slots=True)
class LatentRequest:
    """A clip to be generated: `views` from noise, given `controls` (clean latents `[C, F, H, W]`) and a caption.

    RGB from views is controlled generation, views from RGB estimation, everything from nothing joint generation.
    The noise depends on (seed, key) only. `prompts` are texts of views, else each reads its modality's own. `given`
    are the first latent frames `[C, f, H, W]` of views to be generated (a still, or the end of what came before): they
    are told to the model at time 0, frame by frame, and come back unchanged.
    """

    key: str
    caption: str
    views: tuple[str, ...]
    controls: Mapping[str, Tensor]
    size: tuple[int, int, int]
    seed: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guidance:
    """Strengths of the text and of each control, in the order of `LatentRequest.controls`; 1 is the model itself.

    v = v(∅) + Σ_k w_k [v(∅, m_1…m_k) − v(∅, m_1…m_(k−1))] + w_c [v(c, m) − v(∅, m)], where ∅ is the empty caption and
    an absent control is left out of the batch. Equal w_k therefore guide by all controls together. Estimation has no
    caption, so only the control counts (the RGB); joint generation has no control, so only the text. The prompts of
    the modalities stay in every pass: they say what is generated, not what it shows.

    `negative` takes the place of the empty caption in ∅: what is generated is led away from it. A request without a
    caption is then guided too.
    """

    text: float = 1.0
    controls: tuple[float, ...] = ()
    negative: str = ""


@dataclass(frozen=True, slots=True)
class Pass:
    """One evaluation of the model: the first `controls` controls, with the caption or without, and its weight."""

    controls: int
    caption: bool
    weight: float


def passes(guidance: Guidance, has_caption: bool) -> list[Pass]:
    """Guidance written as a weighted sum of evaluations; those of weight zero are left out. Weights sum to 1."""
    w = (1.0, *guidance.controls, *([guidance.text] if has_caption else []), 0.0)
    weights = [a - b for a, b in pairwise(w)]
    last = len(guidance.controls)
    steps = [Pass(k, False, weights[k]) for k in range(last + 1)]
    if has_caption:
        steps.append(Pass(last, True, weights[-1]))
    return [step for step in steps if step.weight != 0]


@torch.no_grad()
def sample_views(
    model: UnifiedDiT,
    requests: Sequence[LatentRequest],
    embed: Embed,
    *,
    guidance: Guidance,
    steps: int,
    solver: Solver = "euler",
    shift: float | None = None,
) -> list[dict[str, Tensor]]:
    """For each request the latents of its views, float32 `[C, F, H, W]` on the CPU; `shift` of the solver's times, or
    the model's.

    The requests must agree in views, controls and size: all of them and all passes go through the model in one call
    a step. Raises ModelConfigError where they do not, or where the strengths do not fit the controls.
    """
    config, first = model.config, requests[0]
    kinds = {(r.views, tuple(r.controls), r.size) for r in requests}
    if len(kinds) > 1 or not first.views or set(first.views) & set(first.controls):
        raise ModelConfigError(f"cannot sample {sorted(kinds)} together: views, controls and sizes must be the same")
    if len(guidance.controls) != len(first.controls):
        raise ModelConfigError(f"{len(guidance.controls)} control strengths for controls {', '.join(first.controls)}")
    plan = passes(guidance, bool(guidance.negative) or any(r.caption for r in requests))
    device = next(model.parameters()).device
    names = tuple(first.controls)
    clean = {name: torch.stack([r.controls[name] for r in requests]) for name in names}
    B, V = len(requests), len(first.views)

    # Rows of the batch, pass by pass and clip by clip: the generated views first, then this pass's controls.
    layout = [(p, b, view) for p in plan for b in range(B) for view in (*first.views, *names[: p.controls])]
    generated = torch.tensor([view in first.views for _, _, view in layout], device=device)
    x_PCFHW = torch.stack(
        [torch.zeros(config.channels, *first.size) if v in first.views else clean[v][b] for _, b, v in layout]
    ).to(device)
    texts = [
        stream_text(v, requests[b].caption if p.caption else guidance.negative, config, requests[b].prompts)
        for p, b, v in layout
    ]
    still = Streams(
        x_PCFHW=x_PCFHW,
        t_P=torch.zeros(len(layout), device=device),
        modality_P=torch.tensor([config.index(v) for _, _, v in layout], device=device),
        role_P=torch.where(generated, GENERATE, CONDITION),
        text_PLT=torch.stack([embed(text) for text in texts]).to(device),
        counts=tuple(V + p.controls for p in plan for _ in range(B)),
    )
    weight = torch.tensor([p.weight for p in plan], device=device).view(-1, 1, 1, 1, 1, 1)
    noise = torch.stack([z for r in requests for z in noise_of(r, config.channels)]).to(device)
    held_RF = _hold(noise, [r.given.get(view) for r in requests for view in first.views], config.patch[0])
    free_R1F11 = ~held_RF[:, None, :, None, None]

    def field(x_BCFHW: Tensor, t: float) -> Tensor:
        """The guided velocity of the `B·V` generated streams."""
        x = still.x_PCFHW.clone()
        x[generated] = x_BCFHW.repeat(len(plan), 1, 1, 1, 1)
        t_P = t * generated.to(torch.float32)
        told = t_P
        if bool(held_RF.any()):
            told = t_P[:, None].repeat(1, held_RF.shape[1])
            told[generated] *= ~held_RF.repeat(len(plan), 1)
        with autocast(device):
            out = model(Streams(x, told, still.modality_P, still.role_P, still.text_PLT, still.counts))
        v = velocity(out[generated], x[generated], t_P[generated], config.prediction)
        guided: Tensor = (weight * v.unflatten(0, (len(plan), -1))).sum(0)
        return guided * free_R1F11

    latents = (
        solve(field, noise, timesteps(steps, config.shift if shift is None else shift), solver)
        .cpu()
        .unflatten(0, (B, V))
    )
    return [dict(zip(first.views, clip, strict=True)) for clip in latents]


def _hold(start_RCFHW: Tensor, given: Sequence[Tensor | None], patch: int) -> Tensor:
    """Put what is given into the starting noise, in place; the frames that are given, bool `[R, F]`."""
    held_RF = torch.zeros(len(given), start_RCFHW.shape[2], dtype=torch.bool, device=start_RCFHW.device)
    for row, latents in enumerate(given):
        if latents is None:
            continue
        frames = latents.shape[1]
        if frames % patch or not frames < start_RCFHW.shape[2]:
            raise ModelConfigError(
                f"{frames} given latent frames: they must fill patches of {patch} and leave some of the "
                f"{start_RCFHW.shape[2]} to generate"
            )
        start_RCFHW[row, :, :frames] = latents.to(start_RCFHW)
        held_RF[row, :frames] = True
    return held_RF


def noise_of(request: LatentRequest, channels: int) -> list[Tensor]:
    """The starting noise of each of a request's views, from (seed, key)."""
    number = int.from_bytes(hashlib.sha256(request.key.encode()).digest()[:8], "big")
    rng = rng_of(request.seed, "sample", number)
    shape = (channels, *request.size)
    return [torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) for _ in request.views]
