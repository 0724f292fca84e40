"""MUSIQ (Ke et al. 2021, arXiv:2108.05997), trained on SPAQ: image quality from patches of three scales of a frame.

Weights are IQA-PyTorch's conversion of the authors'; the names below are that file's. There short sequences of
patches are padded and the padding masked out; here nothing is padded, which is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import resize

from unibench.metrics.base import Floats
from unibench.metrics.video import Frames
from unibench.networks.weights import by_frame, fill, tensors

_PATCH = 32
_LONGER_SIDES = (224, 384)
"""Two smaller copies of the frame are looked at beside the frame itself."""
_GRID = 10
_LONGEST = 512


class StandardisedConv(nn.Conv2d):
    """A convolution whose kernels are brought to mean 0 and deviation 1; the border is TensorFlow's `same`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return F.conv2d(_same(x, self.kernel_size[0], self.stride[0]), weight, self.bias, self.stride)


def _same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Zeros around `[..., H, W]` so that a window of `kernel` at this stride has ⌈H/stride⌉ × ⌈W/stride⌉ places."""
    margin = []
    for size in (x.shape[-1], x.shape[-2]):
        more = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        margin += [more // 2, more - more // 2]
    return F.pad(x, margin)


class Bottleneck(nn.Module):
    """ResNet's block with group norms, 64 to 256 channels."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConv(width, width, 1, bias=False)
        self.gn1 = nn.GroupNorm(32, width, 1e-4)
        self.conv2 = StandardisedConv(width, width, 3, bias=False)
        self.gn2 = nn.GroupNorm(32, width, 1e-4)
        self.conv3 = StandardisedConv(width, out, 1, bias=False)
        self.gn3 = nn.GroupNorm(32, out, 1e-4)
        self.conv_proj = StandardisedConv(width, out, 1, bias=False)
        self.gn_proj = nn.GroupNorm(32, out, 1e-4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.gn1(self.conv1(x)))
        y = F.relu(self.gn2(self.conv2(y)))
        return F.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)))


class Attention(nn.Module):
    """Attention of all tokens `[B, N, width]` to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self._heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(2, (self._heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed: torch.Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class Layer(nn.Module):
    """A transformer's layer, norms first."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attention = Attention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        hidden: torch.Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + hidden


class Encoder(nn.Module):
    """Tokens of patches `[B, N, width]`, their cells in a grid of 10×10 `[N]` and scales `[N]`, to the class token."""

    def __init__(self, width: int, hidden: int, heads: int, depth: int) -> None:
        super().__init__()
        self.posembed_input = nn.ParameterDict({"position_emb": nn.Parameter(torch.zeros(1, _GRID * _GRID, width))})
        self.scaleembed_input = nn.ParameterDict(
            {"scale_emb": nn.Parameter(torch.zeros(len(_LONGER_SIDES) + 1, width))}
        )
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = nn.ModuleDict({f"encoderblock_{k}": Layer(width, hidden, heads) for k in range(depth)})
        self.encoder_norm = nn.LayerNorm(width, 1e-6)

    def forward(self, x: torch.Tensor, cells: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        x = x + self.posembed_input["position_emb"][0, cells] + self.scaleembed_input["scale_emb"][scales]
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for layer in self.transformer.values():
            x = layer(x)
        first: torch.Tensor = self.encoder_norm(x[:, 0])
        return first


class Musiq(nn.Module):
    """Images `[B, 3, H, W]` from 0 to 1 to scores `[B]`, 0 to 100 after training on SPAQ."""

    def __init__(self, width: int = 384, hidden: int = 1152, heads: int = 6, depth: int = 14) -> None:
        super().__init__()
        self.conv_root = StandardisedConv(3, 64, 7, 2, bias=False)
        self.gn_root = nn.GroupNorm(32, 64, 1e-6)
        self.block1 = Bottleneck(64, 256)
        self.embedding = nn.Linear(256 * (_PATCH // 4) ** 2, width)
        self.transformer_encoder = Encoder(width, hidden, heads, depth)
        self.head = nn.Linear(width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images * 2 - 1
        height, width = images.shape[-2:]
        tokens, cells, scales = [], [], []
        for scale, side in enumerate((*_LONGER_SIDES, max(height, width))):
            sizes = [round(size * (side / max(height, width))) for size in (height, width)]
            copy = images if scale == len(_LONGER_SIDES) else F.interpolate(images, sizes, mode="bicubic")
            tokens.append(self._tokens(copy))
            cells.append(_cells(*(math.ceil(size / _PATCH) for size in sizes)).to(images.device))
            scales.append(torch.full_like(cells[-1], scale))
        first = self.transformer_encoder(torch.cat(tokens, 1), torch.cat(cells), torch.cat(scales))
        score: torch.Tensor = self.head(first)[:, 0]
        return score

    def _tokens(self, images: torch.Tensor) -> torch.Tensor:
        """A token for each patch of 32 px, rows first: `[B, N, width]`. Zeros surround what is not a multiple of 32."""
        patches = F.unfold(_same(images, _PATCH, _PATCH), _PATCH, stride=_PATCH).transpose(1, 2)
        x = F.relu(self.gn_root(self.conv_root(patches.reshape(-1, 3, _PATCH, _PATCH))))
        x = self.block1(F.max_pool2d(_same(x, 3, 2), 3, 2))
        # The weights were trained with channels last.
        tokens: torch.Tensor = self.embedding(x.permute(0, 2, 3, 1).reshape(*patches.shape[:2], -1))
        return tokens


def _cells(rows: int, columns: int) -> torch.Tensor:
    """The cell of a grid of 10×10 that each of rows × columns patches falls into, rows first: int64 `[N]`."""
    line = torch.arange(_GRID, dtype=torch.float32)[None, None]
    down, along = (F.interpolate(line, count, mode="nearest")[0, 0].long() for count in (rows, columns))
    return (down[:, None] * _GRID + along[None]).flatten()


def quality(file: Path) -> Callable[[Frames], Floats]:
    """MUSIQ's score of each frame `[T]`, 0 to 100. Raises AssetError where the file does not fit.

    Frames with a side above 512 are made smaller first (bilinear, no antialiasing), as VBench does by default.
    """
    model = fill(Musiq(), tensors(file), file)
    return by_frame(lambda images: model(prepared(images)))


def prepared(images: torch.Tensor) -> torch.Tensor:
    """Images `[B, 3, H, W]` from 0 to 255, to at most 512 px and 0 to 1."""
    height, width = images.shape[-2:]
    if max(height, width) > _LONGEST:
        factor = _LONGEST / max(height, width)
        images = resize(images, [int(factor * height), int(factor * width)], antialias=False)
    return images / 255
