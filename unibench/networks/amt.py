"""AMT-S (Li et al. 2023, arXiv:2304.09790): the frame half way between two, behind motion smoothness.

Two flows, from the middle to either frame, are refined from 1/16 of the size to the whole; at three sizes they look
up what correlates with where they point, in all pairs of 1/8-size features. The last step has three flow fields, whose
warped frames are blended. Names are those of the published file (CC BY-NC 4.0); only t = ½ is here, and batches of one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from unibench.metrics.video import Frame
from unibench.networks.weights import device, fill, tensors

_CHANNELS = (20, 32, 44, 56)
_SIDE_CHANNELS = 20
_FLOWS = 3
_LEVELS, _RADIUS = 4, 3
_MULTIPLE = 16


def _resized(x: torch.Tensor, factor: float) -> torch.Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear")


def _warped(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """`image` `[B, C, H, W]` looked up where `flow` `[B, 2, H, W]` (x, y in pixels) points; the border continues."""
    height, width = flow.shape[-2:]
    at = torch.stack(
        [
            torch.linspace(-1, 1, width, device=flow.device) + flow[:, 0] * (2 / (width - 1)),
            torch.linspace(-1, 1, height, device=flow.device)[:, None] + flow[:, 1] * (2 / (height - 1)),
        ],
        -1,
    )
    return F.grid_sample(image, at, padding_mode="border", align_corners=True)


def _activated(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


class Residual(nn.Module):
    """Convolutions over all channels in turn with convolutions over the last 20 of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = _activated(width, width), _activated(width, width)
        self.conv2, self.conv4 = (_activated(_SIDE_CHANNELS, _SIDE_CHANNELS) for _ in range(2))
        self.conv5 = nn.Conv2d(width, width, 3, 1, 1)
        self.prelu = nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv3(self._aside(self.conv1(x), self.conv2))
        out: torch.Tensor = self.prelu(x + self.conv5(self._aside(y, self.conv4)))
        return out

    @staticmethod
    def _aside(x: torch.Tensor, convolution: nn.Module) -> torch.Tensor:
        return torch.cat([x[:, :-_SIDE_CHANNELS], convolution(x[:, -_SIDE_CHANNELS:])], 1)


class Decoder(nn.Module):
    """Features and flows of one size to those of twice the size."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.convblock = nn.Sequential(
            _activated(inputs, width), Residual(width), nn.ConvTranspose2d(width, outputs, 4, 2, 1)
        )

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.convblock(torch.cat(parts, 1))
        return out


class Pyramid(nn.Module):
    """Features of a frame at 1/2, 1/4, 1/8 and 1/16 of its size."""

    def __init__(self) -> None:
        super().__init__()
        for number, (inputs, outputs) in enumerate(zip((3, *_CHANNELS), _CHANNELS, strict=False), 1):
            level = nn.Sequential(_activated(inputs, outputs, 2), _activated(outputs, outputs))
            self.add_module(f"pyramid{number}", level)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        levels = []
        for level in self.children():
            x = level(x)
            levels.append(x)
        return levels


class Bottleneck(nn.Module):
    """RAFT-small's block with instance norms."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 4, 1)
        self.conv2 = nn.Conv2d(outputs // 4, outputs // 4, 3, stride, 1)
        self.conv3 = nn.Conv2d(outputs // 4, outputs, 1)
        self.downsample = None if stride == 1 else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for convolution in (self.conv1, self.conv2, self.conv3):
            y = F.relu(F.instance_norm(convolution(y)))
        return F.relu(y + (x if self.downsample is None else F.instance_norm(self.downsample(x))))


class Features(nn.Module):
    """84 features at 1/8 of the size, for correlation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1), Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2), Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2), Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.instance_norm(self.conv1(x)))
        out: torch.Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return out


class Correlation:
    """How each place of a feature map `[1, C, H, W]` agrees with those around a place of another, at four scales."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
        _, channels, height, width = first.shape
        volume = (first.flatten(2)[0].T @ second.flatten(2)[0]) / channels**0.5
        self._pyramid = [volume.reshape(-1, 1, height, width)]
        for _ in range(_LEVELS - 1):
            self._pyramid.append(F.avg_pool2d(self._pyramid[-1], 2))

    def around(self, places: torch.Tensor) -> torch.Tensor:
        """`places` `[1, 2, H, W]` (x, y) in the second map, for each place of the first: `[1, 4·49, H, W]`."""
        height, width = places.shape[-2:]
        steps = torch.arange(-_RADIUS, _RADIUS + 1, device=places.device, dtype=places.dtype)
        # Steps of y come first and are added to x, as in RAFT's own code; the weights were trained so.
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
        centres = places[0].permute(1, 2, 0).reshape(-1, 1, 1, 2)
        found = []
        for level, volume in enumerate(self._pyramid):
            size = torch.tensor([volume.shape[-1] - 1, volume.shape[-2] - 1], device=places.device)
            at = 2 * (centres / 2**level + window) / size - 1
            found.append(F.grid_sample(volume, at, align_corners=True).reshape(height, width, -1))
        return torch.cat(found, -1).permute(2, 0, 1)[None]


class Update(nn.Module):
    """Corrections of features and flows at `factor`/8 of the size, from correlations at 1/8."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(2 * _LEVELS * (2 * _RADIUS + 1) ** 2, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, padding=3)
        self.convf2 = nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(84, 68, 3, padding=1)
        self.gru = self._two(68 + 4 + width, 76)
        self.feat_head, self.flow_head = self._two(76, width), self._two(76, 4)
        self.factor = factor

    @staticmethod
    def _two(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, 76, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(76, outputs, 3, padding=1)
        )

    def forward(
        self, features: torch.Tensor, flow: torch.Tensor, correlation: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        def leaky(x: torch.Tensor) -> torch.Tensor:
            return F.leaky_relu(x, 0.1)

        motion = leaky(self.convf2(leaky(self.convf1(flow))))
        mixed = leaky(self.conv(torch.cat([leaky(self.convc1(correlation)), motion], 1)))
        state = self.gru(torch.cat([mixed, flow, self._scaled(features, 1 / self.factor)], 1))
        more = self._scaled(self.feat_head(state), self.factor)
        return more, self.factor * self._scaled(self.flow_head(state), self.factor)

    def _scaled(self, x: torch.Tensor, factor: float) -> torch.Tensor:
        return x if self.factor == 1 else _resized(x, factor)


class Amt(nn.Module):
    """Two frames `[1, 3, H, W]` from 0 to 1, sides multiples of 16, to the frame half way between them."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4 = _CHANNELS
        self.feat_encoder = Features()
        self.encoder = Pyramid()
        self.decoder4 = Decoder(2 * c4 + 1, c3 + 4, 2 * c4)
        self.decoder3 = Decoder(3 * c3 + 4, c2 + 4, 3 * c3)
        self.decoder2 = Decoder(3 * c2 + 4, c1 + 4, 3 * c2)
        self.decoder1 = Decoder(3 * c1 + 4, 8 * _FLOWS, 3 * c1)
        self.update4, self.update3, self.update2 = Update(c3, 1), Update(c2, 2), Update(c1, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * _FLOWS, 6 * _FLOWS, 3, 1, 1), nn.PReLU(6 * _FLOWS), nn.Conv2d(6 * _FLOWS, 3, 3, 1, 1)
        )

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        mean = torch.cat([first, second], 2).mean()
        first, second = first - mean, second - mean
        features = self.feat_encoder(first), self.feat_encoder(second)
        forward, backward = Correlation(*features), Correlation(*features[::-1])
        (a1, a2, a3, a4), (b1, b2, b3, b4) = self.encoder(first), self.encoder(second)

        out = self.decoder4(a4, b4, torch.full_like(a4[:, :1], 0.5))
        flow, hidden = self._refined(self.update4, out[:, :4], out[:, 4:], forward, backward)
        for decoder, update, a, b in ((self.decoder3, self.update3, a3, b3), (self.decoder2, self.update2, a2, b2)):
            out = decoder(hidden, _warped(a, flow[:, :2]), _warped(b, flow[:, 2:]), flow)
            flow, hidden = self._refined(update, out[:, :4] + 2 * _resized(flow, 2), out[:, 4:], forward, backward)
        out = self.decoder1(hidden, _warped(a1, flow[:, :2]), _warped(b1, flow[:, 2:]), flow)
        return self._blended(out, 2 * _resized(flow, 2), first, second, mean)

    @staticmethod
    def _refined(
        update: Update, flow: torch.Tensor, hidden: torch.Tensor, forward: Correlation, backward: Correlation
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Flows `[1, 4, h, w]` (to the first frame, to the second) and features, corrected."""
        eighth = 1 / update.factor
        small = flow if eighth == 1 else eighth * _resized(flow, eighth)
        rows, columns = torch.meshgrid(*(torch.arange(n, device=flow.device) for n in small.shape[-2:]), indexing="ij")
        here = torch.stack([columns, rows])[None].float()
        # Motion is taken as even: what is half way to one frame has come twice as far since the other.
        seen = torch.cat([forward.around(here + 2 * small[:, 2:]), backward.around(here + 2 * small[:, :2])], 1)
        more, change = update(hidden, small, seen)
        return flow + change, hidden + more

    def _blended(
        self, out: torch.Tensor, flow: torch.Tensor, first: torch.Tensor, second: torch.Tensor, mean: torch.Tensor
    ) -> torch.Tensor:
        """The mean over three flow fields of masked, warped and corrected frames, and a last correction of all."""
        n = _FLOWS
        to_first = out[0, : 2 * n].unflatten(0, (n, 2)) + flow[:, :2]
        to_second = out[0, 2 * n : 4 * n].unflatten(0, (n, 2)) + flow[:, 2:]
        mask = torch.sigmoid(out[0, 4 * n : 5 * n])[:, None]
        residual = out[0, 5 * n :].unflatten(0, (n, 3))
        warped = [_warped(x.expand(n, -1, -1, -1), f) for x, f in ((first, to_first), (second, to_second))]
        frames: torch.Tensor = mask * warped[0] + (1 - mask) * warped[1] + mean + residual
        last: torch.Tensor = self.comb_block(frames.flatten(0, 1)[None])
        return (frames.mean(0, keepdim=True) + last).clamp(0, 1)


def interpolator(file: Path) -> Callable[[Frame, Frame], Frame]:
    """AMT-S's frame uint8 `[H, W, 3]` half way between two. Raises AssetError where the file does not fit.

    As in VBench, frames are padded to multiples of 16 by repeating their edges, and values cut (not rounded) to bytes.
    """
    model = fill(Amt(), tensors(file)["state_dict"], file)

    @torch.inference_mode()
    def measure(first: Frame, second: Frame) -> Frame:
        height, width = first.shape[:2]
        down, right = -height % _MULTIPLE, -width % _MULTIPLE
        margin = (right // 2, right - right // 2, down // 2, down - down // 2)
        images = (
            F.pad(torch.from_numpy(frame).to(device()).permute(2, 0, 1)[None] / 255, margin, mode="replicate")
            for frame in (first, second)
        )
        middle = model(*images)[0, :, margin[2] : margin[2] + height, margin[0] : margin[0] + width]
        frame: Frame = (middle * 255).permute(1, 2, 0).cpu().numpy().astype(np.uint8)
        return frame

    return measure
