"""ViCLIP-L/14 (Wang et al. 2023, arXiv:2307.06942), trained on InternVid-10M-FLT: how well a video fits its prompt.

Both towers are CLIP's (open_clip's layers under the names of the published file); the video tower attends over the
patches of all eight frames at once, with one more position code for the frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer, Transformer
from torch import nn

from unibench.metrics.video import Frames
from unibench.networks.clip import prepared
from unibench.networks.weights import device, fill, tensors

_FRAMES, _WORDS = 8, 32


class VideoTower(nn.Module):
    """Frames `[8, 3, 224, 224]`, normalised, to the features of the video `[out]`."""

    def __init__(self, width: int, depth: int, heads: int, out: int, patch: int, side: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((side // patch) ** 2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, _FRAMES, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, depth, heads, 4.0, act_layer=QuickGELU)
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(frames.transpose(0, 1)[None])[0].flatten(2).permute(1, 2, 0)  # [8, N, width]
        patches = patches + self.positional_embedding[1:] + self.temporal_positional_embedding.transpose(0, 1)
        # Tokens stand patch by patch, the frames of each together: the order does not matter to attention, but sums do.
        tokens = patches.transpose(0, 1).flatten(0, 1)
        first = self.class_embedding + self.positional_embedding[:1]
        x = self.transformer(self.ln_pre(torch.cat([first, tokens])[None]))
        features: torch.Tensor = self.ln_post(x[0, 0]) @ self.proj
        return features


class ViClip(nn.Module):
    """The two towers, and the temperature of training, which nothing here uses."""

    def __init__(
        self, width: int = 1024, depth: int = 24, heads: int = 16, out: int = 768, patch: int = 14, side: int = 224
    ) -> None:
        super().__init__()
        self.vision_encoder = VideoTower(width, depth, heads, out, patch, side)
        self.text_encoder = TextTransformer(
            context_length=_WORDS, width=768, heads=12, layers=12, output_dim=out, act_layer=QuickGELU
        )
        self.temp = nn.Parameter(torch.tensor(0.01))


def similarity(file: Path) -> Callable[[Frames, str], float]:
    """Cosine between 8 frames uint8 `[8, H, W, 3]` and a prompt (its first 30 tokens count).

    Raises AssetError where the file does not fit.
    """
    model = fill(ViClip(), tensors(file)["model"], file)
    tokens = SimpleTokenizer(context_length=_WORDS)

    @lru_cache(maxsize=64)  # five videos share a prompt
    def text(prompt: str) -> torch.Tensor:
        features: torch.Tensor = model.text_encoder(tokens([prompt]).to(device()))[0]
        return features

    @torch.inference_mode()
    def measure(frames: Frames, prompt: str) -> float:
        # VBench resizes bytes here, and floats elsewhere: values are rounded once more.
        video = model.vision_encoder(prepared(torch.from_numpy(frames).permute(0, 3, 1, 2)))
        return float(nn.functional.cosine_similarity(video, text(prompt), dim=0))

    return measure
