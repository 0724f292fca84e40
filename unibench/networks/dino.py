"""DINO ViT-B/16 (Caron et al. 2021, arXiv:2104.14294): the features behind subject consistency.

The blocks are timm's, from which DINO's were taken, under the names of the published file. The position code is
stretched to other than square frames as DINO's own code does (bicubic, by a factor that is 0.1 patch too large).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from timm.models.vision_transformer import Block
from torch import nn
from torchvision.transforms.functional import normalize, resize

from unibench.metrics.base import Floats
from unibench.metrics.video import Frames
from unibench.networks.weights import by_frame, fill, tensors

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_SIDE = 224


class Dino(nn.Module):
    """Images `[B, 3, H, W]`, normalised, to the features of the class token `[B, width]`."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, patch: int = 16, grid: int = 14) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)))
        self.norm = norm(width)
        self._grid = grid

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed["proj"](images)
        position = self._position(*patches.shape[-2:])
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        features: torch.Tensor = self.norm(self.blocks(tokens + position))[:, 0]
        return features

    def _position(self, rows: int, columns: int) -> torch.Tensor:
        """The position code `[1, 1 + rows·columns, width]`."""
        if rows == columns == self._grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self._grid, self._grid))
        factors = ((rows + 0.1) / self._grid, (columns + 0.1) / self._grid)
        stretched = nn.functional.interpolate(square, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], stretched.flatten(2).transpose(1, 2)], 1)


def features(file: Path) -> Callable[[Frames], Floats]:
    """DINO's features of each frame, `[T, 768]`: shorter side 224 without antialiasing, no crop (VBench).

    Raises AssetError where the file does not fit.
    """
    model = fill(Dino(), tensors(file), file)
    return by_frame(lambda images: model(prepared(images)))


def prepared(images: torch.Tensor) -> torch.Tensor:
    """Images `[B, 3, H, W]` from 0 to 255, resized and normalised as VBench does for DINO."""
    small = resize(images, [_SIDE], antialias=False)
    normal: torch.Tensor = normalize(small / 255, _MEAN, _STD)
    return normal
