"""RAFT (Teed & Deng 2020, arXiv:2003.12039), trained on Chairs and Things: the flow behind the dynamic degree.

The network is torchvision's; the file is the authors' `raft-things.pth`, whose names are translated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torchvision.models.optical_flow import raft_large

from unibench.metrics.video import FlowBetween, Frame
from unibench.networks.weights import device, fill, tensors

_STEPS = 20

_NAMES = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.encoder\.conv(c|f)(\d)\.", r"update_block.motion_encoder.conv\1\2.0."),
    (r"motion_encoder\.convc", "motion_encoder.convcorr"),
    (r"motion_encoder\.convf", "motion_encoder.convflow"),
    (r"^update_block\.gru\.conv(\w)(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
_SHORTCUT_NORM = re.compile(r"layer\d\.0\.norm3\.")
"""The authors' file holds the norm of a block's shortcut twice; `downsample.1` is the same."""


def translated(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' state under torchvision's names."""
    renamed = {}
    for name, value in state.items():
        if _SHORTCUT_NORM.search(name):
            continue
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed


def flow(file: Path) -> FlowBetween:
    """RAFT's flow from one frame to another in pixels, 20 steps. Raises AssetError where the file does not fit.

    As VBench does, frames are padded to multiples of 8 by repeating their edges, evenly on both sides, and the flow of
    the padding counts: the result is `[⌈H/8⌉·8, ⌈W/8⌉·8, 2]`.
    """
    model = fill(raft_large(weights=None), translated(tensors(file)), file)

    @torch.inference_mode()
    def measure(first: Frame, second: Frame) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = (
            model(_prepared(first), _prepared(second), num_flow_updates=_STEPS)[-1][0].permute(1, 2, 0).cpu().numpy()
        )
        return found

    return measure


def _prepared(frame: Frame) -> torch.Tensor:
    image = torch.from_numpy(frame).to(device()).permute(2, 0, 1)[None].float() * (2 / 255) - 1
    down, right = -frame.shape[0] % 8, -frame.shape[1] % 8
    return nn.functional.pad(image, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")
