"""RIFE's IFNet (Huang et al., ECCV 2022, arXiv:2011.06294) in the five blocks, coarse to fine, of Practical-RIFE.

It is made to draw the frame between two others; what is used here is the motion by which it does. Parameters have the
published names, so that published weights fit. What their training used besides (`teacher`, `caltime`) is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (16, 8, 4, 2, 1)
STRIDE = 4 * SCALES[0]
"""Sides of the frames must be multiples of this: the coarsest block halves twice what is already 16 times smaller."""
_CHANNELS = (192, 128, 96, 64, 32)
_MIDDLE = 0.5
_TRAINING_ONLY = ("teacher.", "caltime.")


class IFNet(nn.Module):
    """Motion from the middle of two frames to each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = _Head()
        for k, channels in enumerate(_CHANNELS):
            self.add_module(f"block{k}", _Block(15 if k == 0 else 28, channels))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Frames `[N, 3, H, W]` in [0, 1], sides multiples of 64 → `[N, 4, H, W]` pixels: x, y to the first, to the
        second, each at the pixels of the frame halfway between them."""
        features = self.encode(first), self.encode(second)
        time = torch.full_like(first[:, :1], _MIDDLE)
        first_block, *others = (getattr(self, f"block{k}") for k in range(len(SCALES)))
        flow: Tensor
        flow, mask, hidden = first_block(torch.cat([first, second, *features, time], 1), None, SCALES[0])
        for block, scale in zip(others, SCALES[1:], strict=True):
            ways = (flow[:, :2], flow[:, 2:]) * 2
            seen = [_warped(image, way) for image, way in zip((first, second, *features), ways, strict=True)]
            more, mask, hidden = block(torch.cat([*seen, time, mask, hidden], 1), flow, scale)
            flow = flow + more
        return flow


def weights_of(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's own among the published tensors."""
    return {name: value for name, value in published.items() if not name.startswith(_TRAINING_ONLY)}


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cnn0 = nn.Conv2d(3, 16, 3, 2, 1)
        self.cnn1 = nn.Conv2d(16, 16, 3, 1, 1)
        self.cnn2 = nn.Conv2d(16, 16, 3, 1, 1)
        self.cnn3 = nn.ConvTranspose2d(16, 4, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.cnn0, self.cnn1, self.cnn2):
            x = F.leaky_relu(layer(x), 0.2)
        out: Tensor = self.cnn3(x)
        return out


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(x) * self.beta + x, 0.2)


class _Block(nn.Module):
    def __init__(self, seen: int, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(_halving(seen, channels // 2), _halving(channels // 2, channels))
        self.convblock = nn.Sequential(*(_Residual(channels) for _ in range(8)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(channels, 4 * 13, 4, 2, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor, flow: Tensor | None, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        """Motion to add, mask and hidden features, from what is seen at a `scale` times smaller size."""
        x = _resized(x, 1 / scale)
        if flow is not None:
            x = torch.cat([x, _resized(flow, 1 / scale) / scale], 1)
        out = _resized(self.lastconv(self.convblock(self.conv0(x))), scale)
        return out[:, :4] * scale, out[:, 4:5], out[:, 5:]


def _halving(seen: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(seen, channels, 3, 2, 1), nn.LeakyReLU(0.2))


def _resized(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _warped(image: Tensor, flow: Tensor) -> Tensor:
    """What the image `[N, C, H, W]` shows where `flow` `[N, 2, H, W]` leads from each pixel."""
    height, width = image.shape[2:]
    rows = torch.linspace(-1, 1, height, device=image.device)
    columns = torch.linspace(-1, 1, width, device=image.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    at = torch.stack([x + flow[:, 0] * (2 / (width - 1)), y + flow[:, 1] * (2 / (height - 1))], dim=-1)
    return F.grid_sample(image, at, mode="bilinear", padding_mode="border", align_corners=True)
