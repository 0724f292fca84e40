"""Codecs: pictures `[T, H, W, 3]` in [0, 1] to latents `[C, F, h, w]` and back. RGB and every view use the same one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openuni.modalities import Pictures
from openuni_model import wan_files
from openuni_model.config import CodecName, ModelConfigError
from openuni_model.weights import wan_part


class Codec(ABC):
    """Pictures in and out of the space that the model works in."""

    tiled = False
    """Whether large pictures are coded tile by tile, which changes latents a little."""

    @abstractmethod
    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Latent frames, rows and columns of a clip. Raises ModelConfigError where the clip does not fit."""

    @abstractmethod
    def encode(self, pictures: Pictures) -> Tensor:
        """Latents `[C, F, h, w]` float32 on the CPU, about zero mean and unit variance."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Pictures:
        """Pictures float32 `[T, H, W, 3]`, clipped to [0, 1]."""

    def error(self, pictures: Pictures) -> float:
        """Root mean square error of pictures sent through the codec and back: what no model above it can undo."""
        return float(np.sqrt(np.mean((self.decode(self.encode(pictures)) - pictures) ** 2)))


class PixelCodec(Codec):
    """No compression: a latent is a picture scaled to [−1, 1], and the error is float32 rounding."""

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames, height, width

    def encode(self, pictures: Pictures) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pictures.transpose(3, 0, 1, 2)) * np.float32(2) - np.float32(1))

    def decode(self, latents: Tensor) -> Pictures:
        return ((latents.float().cpu() + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0).numpy()


class WanCodec(Codec):
    """Wan's video autoencoder (`diffusers.AutoencoderKLWan`): the posterior's mode, normalised by the published
    mean and deviation of each channel. A clip has 4k + 1 frames and sides that the compression divides.
    """

    def __init__(self, vae: Any, tiled: bool = False) -> None:
        """`vae` is an AutoencoderKLWan (Wan2.1: 16 channels, ×8; Wan2.2-TI2V: 48 channels, ×16).

        `tiled`: pictures larger than its tiles (256 × 256 with overlaps of 64, the library's) go through it tile by
        tile and are blended, so that memory is bounded by a tile.
        """
        self._vae = vae.eval().requires_grad_(False)
        self.tiled = tiled
        if tiled:
            self._vae.enable_tiling()
        self._mean_C111 = torch.tensor(vae.config.latents_mean).view(-1, 1, 1, 1)
        self._std_C111 = torch.tensor(vae.config.latents_std).view(-1, 1, 1, 1)

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        config = self._vae.config
        time, space = config.scale_factor_temporal, config.scale_factor_spatial
        if (frames - 1) % time or height % space or width % space:
            raise ModelConfigError(
                f"a clip of {frames}×{height}×{width} does not fit Wan's codec: it takes {time}k + 1 frames and "
                f"sides that {space} divides"
            )
        return (frames - 1) // time + 1, height // space, width // space

    @torch.no_grad()
    def encode(self, pictures: Pictures) -> Tensor:
        self.latent_size(*pictures.shape[:3])
        x_1CTHW = torch.from_numpy(np.ascontiguousarray(pictures.transpose(3, 0, 1, 2)))[None] * 2 - 1
        posterior = self._vae.encode(x_1CTHW.to(self._vae.device, self._vae.dtype)).latent_dist
        mode: Tensor = posterior.mode()[0].float().cpu()
        return (mode - self._mean_C111) / self._std_C111

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Pictures:
        z = latents.float().cpu() * self._std_C111 + self._mean_C111
        x_CTHW: Tensor = self._vae.decode(z[None].to(self._vae.device, self._vae.dtype)).sample[0].float().cpu()
        pictures: Pictures = ((x_CTHW + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0).numpy()
        return pictures


def open_codec(
    name: CodecName, wan: Path | None = None, device: str | torch.device = "cpu", *, tiled: bool = False
) -> Codec:
    """The codec of a model; `wan` is a folder of Wan, with `vae/` (diffusers layout) or Wan's own file in it.
    `tiled`: see WanCodec; pixels have no tiles.

    Raises ModelConfigError where the folder is missing or holds another autoencoder.
    """
    if name == "pixel":
        return PixelCodec()
    original = wan_files.vae_file(wan, name)
    if original is not None:
        folder, vae = original, wan_files.open_vae(original)
    else:
        from diffusers import AutoencoderKLWan

        folder = wan_part(wan, "vae", name)
        vae = AutoencoderKLWan.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    channels = {"wan2.1": 16, "wan2.2": 48}[name]
    if vae.config.z_dim != channels:
        raise ModelConfigError(f"{folder} has {vae.config.z_dim} latent channels; {name} has {channels}")
    return WanCodec(vae.to(device), tiled)
