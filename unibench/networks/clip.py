"""OpenAI's CLIP (Radford et al. 2021, arXiv:2103.00020) and LAION's aesthetic head on top of it.

The image towers are open_clip's, whose names are those of OpenAI's files. These are TorchScript archives: reading
their weights runs none of their code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn
from torchvision.transforms.functional import InterpolationMode, center_crop, normalize, resize

from openuni.errors import AssetError
from unibench.metrics.base import Floats
from unibench.metrics.video import Frames
from unibench.networks.weights import by_frame, device, fill, tensors

_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_SIDE = 224


def vit_b32() -> Any:
    """The image tower of ViT-B/32, 512 features."""
    return VisionTransformer(_SIDE, 32, 768, 12, 12, 4.0, output_dim=512, act_layer=QuickGELU)


def vit_l14() -> Any:
    """The image tower of ViT-L/14, 768 features."""
    return VisionTransformer(_SIDE, 14, 1024, 24, 16, 4.0, output_dim=768, act_layer=QuickGELU)


def image_tower(tower: Any, file: Path) -> Any:
    """The tower with the image weights of one of OpenAI's archives. Raises AssetError where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is on its way out; these archives are it
            state = torch.jit.load(str(file), map_location="cpu").state_dict()
    except RuntimeError as error:
        raise AssetError(f"{file} is not a TorchScript archive: {error}") from error
    image = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    return fill(tower, image, file)


def features(file: Path) -> Callable[[Frames], Floats]:
    """CLIP ViT-B/32's features of each frame, `[T, 512]`. Raises AssetError where the file does not fit."""
    tower = image_tower(vit_b32(), file)
    return by_frame(lambda images: tower(prepared(images)))


def aesthetic(clip: Path, head: Path) -> Callable[[Frames], Floats]:
    """LAION's score of each frame `[T]`, about 1 to 10: a linear head over CLIP ViT-L/14's unit features.

    Raises AssetError where a file does not fit.
    """
    tower = image_tower(vit_l14(), clip)
    linear = fill(nn.Linear(768, 1), tensors(head), head)
    return by_frame(lambda images: linear(nn.functional.normalize(tower(prepared(images)), dim=-1))[:, 0])


def prepared(images: torch.Tensor) -> torch.Tensor:
    """Images `[B, 3, H, W]` from 0 to 255 as VBench gives them to CLIP: shorter side 224, its middle square.

    Bicubic without antialiasing; float images are not clipped, bytes are rounded and clipped.
    """
    small = center_crop(resize(images, [_SIDE], InterpolationMode.BICUBIC, antialias=False), [_SIDE])
    normal: torch.Tensor = normalize(small.to(device()).float() / 255, _MEAN, _STD)
    return normal
