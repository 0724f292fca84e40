"""The network of Video Depth Anything (Chen et al., CVPR 2025, arXiv:2501.12375), with the published parameter names.

DINOv2 (Oquab et al., arXiv:2304.07193) sees each frame, the head of DPT (Ranftl et al., arXiv:2103.13413) makes a map
of four of its layers, and temporal attention at four places of the head looks along the 32 frames of a window.

Names are those of `video_depth_anything_vits.pth`, which follow the published code
(github.com/DepthAnything/Video-Depth-Anything, Apache-2.0), so `load_state_dict` takes that file as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PATCH = 14
_GRID = 37
"""Patches a side for which DINOv2's positions were learned: 518 pixels."""
_OFFSET = 0.1
"""What DINOv2 adds to the number of patches as it stretches its positions; the published weights expect it."""
_WINDOW = 32


@dataclass(frozen=True, slots=True)
class Size:
    """Width, depth and heads of DINOv2, which of its blocks are read, and the channels of the head."""

    width: int
    depth: int
    heads: int
    read: tuple[int, int, int, int]
    features: int
    channels: tuple[int, int, int, int]


VITS = Size(384, 12, 6, (2, 5, 8, 11), 64, (48, 96, 192, 384))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        batch, tokens, width = x_BNC.shape
        q, k, v = self.qkv(x_BNC).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        out: Tensor = self.proj(seen)
        return out


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.ls1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(width)
        self.ls2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, _PATCH, _PATCH)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return out


class _Dino(nn.Module):
    """DINOv2 without registers: patch tokens after some of its blocks."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.read = size.read
        self.patch_embed = _Patches(size.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, _GRID**2 + 1, size.width))
        self.mask_token = nn.Parameter(torch.zeros(1, size.width))  # of its training; it is in the file
        self.blocks = nn.ModuleList(_Block(size.width, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Tokens `[B, N, C]` of images `[B, 3, H, W]`, sides multiples of 14, after each block of `read`."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + self._positions(images.shape[2] // _PATCH, images.shape[3] // _PATCH)
        read: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.read:
                read.append(self.norm(x)[:, 1:])
        return read

    def _positions(self, rows: int, columns: int) -> Tensor:
        if rows == columns == _GRID:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, _GRID, _GRID, -1).permute(0, 3, 1, 2)
        scale = ((rows + _OFFSET) / _GRID, (columns + _OFFSET) / _GRID)
        stretched = F.interpolate(grid.float(), scale_factor=scale, mode="bicubic").to(grid.dtype)
        return torch.cat([self.pos_embed[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)


class _Places(nn.Module):
    """Sinusoidal places of the frames of a window."""

    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        place = torch.arange(_WINDOW).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        pe = torch.zeros(1, _WINDOW, width)
        pe[0, :, 0::2] = torch.sin(place * rate)
        pe[0, :, 1::2] = torch.cos(place * rate)
        self.register_buffer("pe", pe)


class _AlongTime(nn.Module):
    """Attention along the frames, each place of the map by itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.pos_encoder = _Places(width)

    def forward(self, x_PTC: Tensor) -> Tensor:
        places, frames, width = x_PTC.shape
        x_PTC = x_PTC + self.pos_encoder.pe[:, :frames].to(x_PTC.dtype)
        q, k, v = (
            project(x_PTC).reshape(places, frames, self.heads, width // self.heads).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(places, frames, width)
        out: Tensor = self.to_out[0](seen)
        return out


class _Gated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = values * F.gelu(gate)
        return out


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        # The published list has a dropout, without parameters, at place 1.
        self.net = nn.Sequential(_Gated(width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class _TimeBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(_AlongTime(width, heads) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.ff = _FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = attention(norm(x)) + x
        out: Tensor = self.ff(self.ff_norm(x)) + x
        return out


class _TimeTransformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([_TimeBlock(width, 8)])
        self.proj_out = nn.Linear(width, width)


class _Temporal(nn.Module):
    """Adds to each map of a window what attention along its frames says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temporal_transformer = _TimeTransformer(width)

    def forward(self, x_TCHW: Tensor) -> Tensor:
        inner = self.temporal_transformer
        frames, width, height, columns = x_TCHW.shape
        tokens = inner.proj_in(inner.norm(x_TCHW).permute(2, 3, 0, 1).reshape(height * columns, frames, width))
        for block in inner.transformer_blocks:
            tokens = block(tokens)
        added = inner.proj_out(tokens).reshape(height, columns, frames, width).permute(2, 3, 0, 1)
        out: Tensor = added + x_TCHW
        return out


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.relu(self.conv1(F.relu(x)))) + x
        return out


class _Fusion(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = _Residual(width)
        self.resConfUnit2 = _Residual(width)

    def forward(self, x: Tensor, beside: Tensor | None, size: tuple[int, int]) -> Tensor:
        if beside is not None:
            x = x + self.resConfUnit1(beside)
        x = F.interpolate(self.resConfUnit2(x), size=size, mode="bilinear", align_corners=True)
        out: Tensor = self.out_conv(x)
        return out


class _Scratch(nn.Module):
    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        for number, inner in enumerate(channels, 1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(inner, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{number}", _Fusion(width))
        self.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(width // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU()
        )


class _Head(nn.Module):
    """DPT's head, with temporal attention on its two coarsest maps before and after they are fused."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        a, b, c, d = size.channels
        self.projects = nn.ModuleList(nn.Conv2d(size.width, inner, 1) for inner in size.channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(a, a, 4, 4),
                nn.ConvTranspose2d(b, b, 2, 2),
                nn.Identity(),
                nn.Conv2d(d, d, 3, 2, padding=1),
            ]
        )
        self.scratch = _Scratch(size.channels, size.features)
        self.motion_modules = nn.ModuleList(_Temporal(inner) for inner in (c, d, size.features, size.features))

    def forward(self, read: list[Tensor], rows: int, columns: int) -> Tensor:
        maps = [
            resize(project(tokens.transpose(1, 2).unflatten(2, (rows, columns))))
            for tokens, project, resize in zip(read, self.projects, self.resize_layers, strict=True)
        ]
        maps[2], maps[3] = self.motion_modules[0](maps[2]), self.motion_modules[1](maps[3])
        scratch = self.scratch
        one, two, three, four = (scratch.get_submodule(f"layer{number}_rn")(x) for number, x in enumerate(maps, 1))
        path = scratch.get_submodule("refinenet4")(four, None, three.shape[2:])
        path = self.motion_modules[2](path)
        path = scratch.get_submodule("refinenet3")(path, three, two.shape[2:])
        path = self.motion_modules[3](path)
        out: list[Tensor] = []
        for t in range(len(path)):  # the finest maps are large: one frame at a time
            fine = scratch.get_submodule("refinenet2")(path[t : t + 1], two[t : t + 1], one.shape[2:])
            height, width = one.shape[2:]
            fine = scratch.get_submodule("refinenet1")(fine, one[t : t + 1], (2 * height, 2 * width))
            fine = F.interpolate(
                scratch.output_conv1(fine), (rows * _PATCH, columns * _PATCH), mode="bilinear", align_corners=True
            )
            out.append(scratch.output_conv2(fine))
        return torch.cat(out)


class VideoDepthAnything(nn.Module):
    """Disparity up to scale and shift of a window of frames."""

    def __init__(self, size: Size = VITS) -> None:
        super().__init__()
        self.pretrained = _Dino(size)
        self.head = _Head(size)

    def forward(self, images_TCHW: Tensor) -> Tensor:
        """`[T, H, W]`, 0 and more, of T ≤ 32 frames `[T, 3, H, W]` normalised as ImageNet; sides multiples of 14."""
        height, width = images_TCHW.shape[2:]
        depth = self.head(self.pretrained(images_TCHW), height // _PATCH, width // _PATCH)
        return F.relu(depth)[:, 0]
