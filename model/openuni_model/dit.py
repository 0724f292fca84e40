"""The unified diffusion transformer (UnityVideo, section 4): one network for RGB and every dense view of it.

A batch is a flat list of **streams**. A stream is one view of one clip (its RGB, its depth, …) with a timestep, a
modality, a role and a text of its own. The streams of a clip lie next to each other and `counts` says how many each
clip has, so a view that a clip lacks is simply not in the list: it costs nothing and needs no mask. Only
self-attention looks across the streams of a clip; everything else works a stream at a time.

Shapes:  P streams · N tokens a stream · G times a stream · D width · H heads · E channels a head · K modalities
         L text tokens · C F H W latent channels, frames, rows, columns · I, O values of a patch going in and out

The blocks are those of Wan (Wan Team, arXiv:2503.20314), so that its weights load (`weights.py`), and with the aux
streams absent and the new parameters at their zero start the model *is* Wan. What is new:
- timestep, modality and role act a stream (or frame) at a time, through AdaLN-Zero (the modality-adaptive switcher);
- patch embedding and output head have one expert a modality, stacked in one parameter `[K, …]`. A ModuleList would
  leave ranks that drew different modalities with different gradients to reduce, and silently different weights;
- a stream attends to its own text: RGB to the caption, a view to its modality's prompt (in-context learner).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openuni_model.config import ModelConfig, ModelConfigError

GENERATE, CONDITION = 0, 1


@dataclass(frozen=True, slots=True)
class Streams:
    """A batch for the model, the P streams of `len(counts)` clips, `sum(counts) == P`.

    x_PCFHW   float, latents: noisy where `role` is GENERATE, clean where it is CONDITION
    t_P       float in [0, 1]: 0 is clean and 1 pure noise; `[P]`, or `[P, F]` where frames have times of their own
              (the frames of one patch share theirs)
    modality_P, role_P  int64
    text_PLT  float, text embeddings padded with zeros to L; the padding is attended to, as in Wan
    """

    x_PCFHW: Tensor
    t_P: Tensor
    modality_P: Tensor
    role_P: Tensor
    text_PLT: Tensor
    counts: tuple[int, ...]

    def with_x(self, x_PCFHW: Tensor) -> Streams:
        return replace(self, x_PCFHW=x_PCFHW)

    def to(self, device: torch.device) -> Streams:
        return Streams(
            self.x_PCFHW.to(device, non_blocking=True),
            self.t_P.to(device, non_blocking=True),
            self.modality_P.to(device, non_blocking=True),
            self.role_P.to(device, non_blocking=True),
            self.text_PLT.to(device, non_blocking=True),
            self.counts,
        )


class UnifiedDiT(nn.Module):
    """Streams to predictions, `[P, C, F, H, W]` float32: clean latents or velocities, as `config.prediction` says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        D, volume = config.width, math.prod(config.patch)
        experts = len(config.modalities) if config.switcher else 1
        self.in_weight_KDI = nn.Parameter(torch.empty(experts, D, config.channels * volume))
        self.in_bias_KD = nn.Parameter(torch.empty(experts, D))
        self.time_in = nn.Sequential(nn.Linear(config.frequencies, D), nn.SiLU(), nn.Linear(D, D))
        self.time_proj = nn.Linear(D, 6 * D)
        self.text_in = nn.Sequential(nn.Linear(config.text_width, D), nn.GELU("tanh"), nn.Linear(D, D))
        self.modality_KD = nn.Parameter(torch.empty(experts, D)) if config.switcher else None
        self.role_2D = nn.Parameter(torch.empty(2, D))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.out_table_2D = None if config.own_tables else nn.Parameter(torch.empty(2, D))
        self.out_table_K2D = nn.Parameter(torch.empty(experts, 2, D)) if config.own_tables else None
        self.out_weight_KOD = nn.Parameter(torch.empty(experts, config.channels * volume, D))
        self.out_bias_KO = nn.Parameter(torch.empty(experts, config.channels * volume))
        self.checkpoint_blocks = False
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start of DiT (arXiv:2212.09748): Xavier linears, while modulation, gates and output head are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Block):
                nn.init.zeros_(module.table_6D)
        for expert_DI in self.in_weight_KDI:
            nn.init.xavier_uniform_(expert_DI)
        # All experts start as one, so a view first uses what the others' tokens have taught the blocks.
        self.in_weight_KDI.copy_(self.in_weight_KDI[:1].expand_as(self.in_weight_KDI))
        zero = (self.in_bias_KD, self.role_2D, self.out_weight_KOD, self.out_bias_KO)
        maybe = (self.out_table_2D, self.out_table_K2D, self.modality_KD)
        for parameter in (*zero, *self.time_proj.parameters(), *maybe):
            if parameter is not None:
                nn.init.zeros_(parameter)

    def compile_blocks(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """`torch.compile` block by block: one compilation for all of them, and for clips of every size.

        What is of the batch as a whole (which clip has how many streams) stays outside: it would compile anew for each.
        """
        for block in self.blocks:
            block.compile(backend=backend, dynamic=True)

    def forward(self, streams: Streams) -> Tensor:
        config = self.config
        grid = config.grid(*streams.x_PCFHW.shape[2:])
        check(streams, config)
        # A product with one-hot rows rather than a gather: its gradient is summed in a fixed order on any device.
        expert_P = streams.modality_P if config.switcher else torch.zeros_like(streams.modality_P)
        pick_PK = F.one_hot(expert_P, len(self.in_bias_KD)).to(self.in_bias_KD.dtype)

        dtype = self.role_2D.dtype
        role_PD = F.one_hot(streams.role_P, 2).to(dtype) @ self.role_2D
        switch_PD = 0.0 if self.modality_KD is None else pick_PK @ self.modality_KD
        # G is 1, or the token frames. Frame by frame: equal times give equal bits however many frames there are.
        temb_GPD = [
            self.time_in(sinusoid(1000 * t_P, config.frequencies).to(dtype)) + role_PD + switch_PD
            for t_P in times(streams, config).unbind(1)
        ]
        modulation_PG6D = torch.stack([self.time_proj(F.silu(t)).unflatten(1, (6, -1)) for t in temb_GPD], dim=1)

        in_PDI = torch.einsum("pk,kdi->pdi", pick_PK, self.in_weight_KDI)
        x_PND = torch.einsum("pni,pdi->pnd", patchify(streams.x_PCFHW, config.patch).to(dtype), in_PDI)
        x_PND = x_PND + (pick_PK @ self.in_bias_KD)[:, None]
        if config.absolute:
            x_PND = x_PND + positions(grid, config.width, x_PND.device).type_as(x_PND)
        text_PLD = self.text_in(streams.text_PLT.to(dtype))
        rotation = rope(grid, config, slots(streams, config))
        for block in self.blocks:
            if self.checkpoint_blocks and torch.is_grad_enabled():
                x_PND = checkpoint(
                    block, x_PND, text_PLD, modulation_PG6D, rotation, streams.counts, use_reentrant=False
                )
            else:
                x_PND = block(x_PND, text_PLD, modulation_PG6D, rotation, streams.counts)

        temb_PG1D = torch.stack(temb_GPD, dim=1)[:, :, None]
        if self.out_table_K2D is not None:
            table_P12D = torch.einsum("pk,kod->pod", pick_PK, self.out_table_K2D)[:, None]
        else:
            assert self.out_table_2D is not None
            table_P12D = self.out_table_2D
        shift_PG1D, scale_PG1D = (table_P12D + temb_PG1D).float().chunk(2, dim=2)
        x_PND = modulate(x_PND, shift_PG1D, scale_PG1D, config.eps)
        out_POD = torch.einsum("pk,kod->pod", pick_PK, self.out_weight_KOD)
        y_PNO = torch.einsum("pnd,pod->pno", x_PND, out_POD) + (pick_PK @ self.out_bias_KO)[:, None]
        return unpatchify(y_PNO, grid, config.patch).float()


class Block(nn.Module):
    """Wan's block: self-attention and feed-forward under AdaLN-Zero, between them cross-attention to the text."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.width
        self.eps = config.eps
        self.self_attn = Attention(D, config.heads, config.eps)
        self.cross_norm = nn.LayerNorm(D, config.eps)
        self.cross_attn = Attention(D, config.heads, config.eps)
        self.ffn = nn.Sequential(nn.Linear(D, config.ffn), nn.GELU("tanh"), nn.Linear(config.ffn, D))
        self.table_6D = nn.Parameter(torch.empty(6, D))

    def forward(
        self,
        x_PND: Tensor,
        text_PLD: Tensor,
        modulation_PG6D: Tensor,
        rotation: tuple[Tensor, Tensor],
        counts: tuple[int, ...],
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.table_6D + modulation_PG6D).float().chunk(6, dim=2)
        y_PND = self.self_attn(modulate(x_PND, shift1, scale1, self.eps), None, rotation, counts)
        x_PND = (x_PND.float() + by_frame(y_PND, gate1)).type_as(x_PND)
        x_PND = x_PND + self.cross_attn(self.cross_norm(x_PND).type_as(x_PND), text_PLD, None, None)
        y_PND = self.ffn(modulate(x_PND, shift2, scale2, self.eps))
        z_PND: Tensor = (x_PND.float() + by_frame(y_PND.float(), gate2)).type_as(x_PND)
        return z_PND


class Attention(nn.Module):
    """Multi-head attention; queries and keys are RMS-normalised over all heads together, as in Wan."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(width, eps), nn.RMSNorm(width, eps)

    def forward(
        self,
        x_PND: Tensor,
        text_PLD: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        counts: tuple[int, ...] | None,
    ) -> Tensor:
        """Attend to `text_PLD` stream by stream or, where it is None, to all streams of the same clip."""
        source = x_PND if text_PLD is None else text_PLD
        q = self.norm_q(self.q(x_PND)).unflatten(2, (self.heads, -1))
        k = self.norm_k(self.k(source)).unflatten(2, (self.heads, -1))
        v = self.v(source).unflatten(2, (self.heads, -1))
        if rotation is not None:
            q, k = rotate(q, *rotation).type_as(v), rotate(k, *rotation).type_as(v)
        y = attend(q, k, v) if counts is None else attend_within_clips(q, k, v, counts)
        o_PND: Tensor = self.o(y.flatten(2).type_as(x_PND))
        return o_PND


def attend(q_BNHE: Tensor, k_BMHE: Tensor, v_BMHE: Tensor) -> Tensor:
    q, k, v = (z.transpose(1, 2) for z in (q_BNHE, k_BMHE, v_BMHE))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_within_clips(q_PNHE: Tensor, k_PNHE: Tensor, v_PNHE: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Full attention over the tokens of each clip's streams: one call for each run of clips with equal counts.

    So no key is padding and no mask is made, which would also rule out the flash kernels.
    """
    outputs, start, N = [], 0, q_PNHE.shape[1]
    for count, run in groupby(counts):
        stop = start + count * len(list(run))
        q, k, v = (z[start:stop].unflatten(0, (-1, count)).flatten(1, 2) for z in (q_PNHE, k_PNHE, v_PNHE))
        outputs.append(attend(q, k, v).unflatten(1, (count, N)).flatten(0, 1))
        start = stop
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def modulate(x_PND: Tensor, shift_PG1D: Tensor, scale_PG1D: Tensor, eps: float) -> Tensor:
    """AdaLN: normalise without learned scale, then scale and shift by the frame's own vectors, in float32."""
    normed_PND = F.layer_norm(x_PND.float(), x_PND.shape[-1:], eps=eps)
    if shift_PG1D.shape[1] == 1:
        return (normed_PND * (1 + scale_PG1D[:, 0]) + shift_PG1D[:, 0]).type_as(x_PND)
    normed_PGND: Tensor = normed_PND.unflatten(1, (shift_PG1D.shape[1], -1))
    return (normed_PGND * (1 + scale_PG1D) + shift_PG1D).flatten(1, 2).type_as(x_PND)


def by_frame(y_PND: Tensor, gate_PG1D: Tensor) -> Tensor:
    """The tokens of each frame times its own gate; one gate for all where G is 1."""
    if gate_PG1D.shape[1] == 1:
        return y_PND * gate_PG1D[:, 0]
    y_PGND: Tensor = y_PND.unflatten(1, (gate_PG1D.shape[1], -1))
    return (y_PGND * gate_PG1D).flatten(1, 2)


def times(streams: Streams, config: ModelConfig) -> Tensor:
    """The time that each stream is told, `[P, G]`: G is 1, or the token frames where they have times of their own.

    Under `clean_time="shared"` a condition is told the latest time of its clip's other streams.
    """
    t_PG = streams.t_P[:, None] if streams.t_P.dim() == 1 else streams.t_P[:, :: config.patch[0]]
    if config.clean_time == "zero":
        return t_PG
    generated_PG = torch.where(streams.role_P[:, None] == GENERATE, t_PG, 0.0)
    latest_PG = torch.cat([clip.amax(0, keepdim=True).expand_as(clip) for clip in generated_PG.split(streams.counts)])
    return torch.where(streams.role_P[:, None] == GENERATE, t_PG, latest_PG)


def slots(streams: Streams, config: ModelConfig) -> Tensor:
    """Which run of columns each stream takes, `[P]`: RGB the first, whatever the order of the clip's streams.

    Without offsets there is one run for all, `[1]`.
    """
    if config.rope == "same":
        return torch.zeros(1, dtype=torch.int64, device=streams.modality_P.device)
    aux_P = (streams.modality_P != config.index("rgb")).long()
    return torch.cat([aux * aux.cumsum(0) for aux in aux_P.split(streams.counts)])


def sinusoid(position_P: Tensor, size: int) -> Tensor:
    """Sinusoidal embedding `[P, size]`, cosines before sines (Wan; frequencies 10000^(−i/half))."""
    half = size // 2
    rate = torch.exp(-math.log(10_000) / half * torch.arange(half, device=position_P.device, dtype=torch.float32))
    angle = position_P.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def rope(grid: tuple[int, int, int], config: ModelConfig, slot_P: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each `[1 or P, N, 1, E/2]`.

    As in Wan a head's channels are split between time, rows and columns (E − 4⌊E/6⌋, 2⌊E/6⌋, 2⌊E/6⌋), base 10000.
    """
    frames, rows, columns = grid
    E = config.width // config.heads
    spatial = 2 * (E // 6)
    device = slot_P.device

    def angles(positions: Tensor, size: int) -> Tensor:
        rate = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64, device=device) / size)
        return positions.to(torch.float64)[..., None] * rate

    column = torch.arange(columns, device=device) + columns * slot_P[:, None]
    time_F = angles(torch.arange(frames, device=device), E - 2 * spatial)
    row_H = angles(torch.arange(rows, device=device), spatial)
    column_PW = angles(column, spatial)
    size = (len(slot_P), frames, rows, columns, -1)
    angle = torch.cat(
        [
            time_F[None, :, None, None].expand(size),
            row_H[None, None, :, None].expand(size),
            column_PW[:, None, None].expand(size),
        ],
        dim=-1,
    ).flatten(1, 3)[:, :, None]
    return angle.cos().float(), angle.sin().float()


def positions(grid: tuple[int, int, int], width: int, device: torch.device) -> Tensor:
    """A fixed sine-cosine code of each token's frame, row and column, `[N, D]` float32.

    A third of the channels each (the rest to time). Wavelengths run from 4 to about 64 tokens, apt for the small
    grids of pixel models; ViTs' usual 2π to 60,000 would leave most channels constant there.
    """
    share = width // 6 * 2
    codes = []
    for axis, (length, size) in enumerate(zip(grid, (width - 2 * share, share, share), strict=True)):
        rate = math.pi / 2 * 16.0 ** (-torch.arange(0, size, 2, device=device, dtype=torch.float64) / size)
        angle = torch.arange(length, device=device, dtype=torch.float64)[:, None] * rate
        code = torch.cat([angle.sin(), angle.cos()], dim=1).float()
        shape = [1, 1, 1, size]
        shape[axis] = length
        codes.append(code.view(shape).expand(*grid, size))
    return torch.cat(codes, dim=-1).flatten(0, 2)


def rotate(x_PNHE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring channels (2i, 2i + 1) by the angle i."""
    a, b = x_PNHE.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def patchify(x_PCFHW: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """`[P, N, C·f·h·w]`, the order in which Wan's Conv3d kernel lies in memory."""
    f, h, w = patch
    x: Tensor = x_PCFHW.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, f))  # P C F f H h W w
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def unpatchify(y_PNO: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """Back to `[P, C, F, H, W]`; Wan's head writes a patch as f, h, w, C."""
    y: Tensor = y_PNO.unflatten(1, grid).unflatten(4, (*patch, -1))  # P F H W f h w C
    size = (n * p for n, p in zip(grid, patch, strict=True))
    return y.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(len(y), -1, *size)


def check(streams: Streams, config: ModelConfig) -> None:
    """Raise ModelConfigError where shapes or counts disagree; values on the device are not looked at."""
    P, C = streams.x_PCFHW.shape[:2]
    if config.channels != C:
        raise ModelConfigError(f"latents have {C} channels and the model takes {config.channels}: another codec?")
    if streams.text_PLT.shape[-1] != config.text_width:
        raise ModelConfigError(
            f"texts are {streams.text_PLT.shape[-1]} wide and the model takes {config.text_width}: another encoder?"
        )
    if streams.t_P.dim() == 2 and streams.t_P.shape[1] != streams.x_PCFHW.shape[2]:
        raise ModelConfigError(f"{streams.t_P.shape[1]} times do not fit latents of {streams.x_PCFHW.shape[2]} frames")
    sizes = {len(streams.t_P), len(streams.modality_P), len(streams.role_P), len(streams.text_PLT), P}
    if sizes != {sum(streams.counts)} or 0 in streams.counts:
        raise ModelConfigError(f"{P} streams do not fit clips of {streams.counts} streams")
