"""A local server in the place of a hub, with random weights in the published format and names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from openuni import assets
from openuni.assets import Asset, Url


def serve(served: tuple[Path, str], asset: Asset, content: Path) -> Asset:
    """The asset as if `content` were its published file: pinned, served, and fetched into the cache."""
    folder, address = served
    (folder / asset.name).write_bytes(content.read_bytes())
    data = content.read_bytes()
    pinned = replace(
        asset, sha256=hashlib.sha256(data).hexdigest(), size=len(data), sources=(Url(f"{address}/{asset.name}"),)
    )
    assets.fetch(pinned)
    return pinned


def safetensors_bytes(network: Any, name: Callable[[str], str] = str) -> int:
    """Size of the file that the network's weights fill under these names: to the byte, without any weights.

    Where it is that of a published file, its names are as long in all, and its shapes and types take as much room.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    tensors = [(name(key), value) for key, value in network.state_dict().items()]
    for key, value in sorted(tensors, key=lambda one: (-one[1].element_size(), one[0])):
        begin, end = end, end + value.numel() * value.element_size()
        dtype = {"float32": "F32", "int64": "I64"}[str(value.dtype).removeprefix("torch.")]
        header[key] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [begin, end]}
    described = len(json.dumps(header, separators=(",", ":")))
    return 8 + described + -described % 8 + end


def small_depth_anything(folder: Path) -> tuple[Path, Path, Path]:
    """Weights, configuration and preprocessor of Depth Anything, small and random, in files as they are published."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": 56, "width": 56}
    published = {"do_resize": True, "size": size, "ensure_multiple_of": 14, "keep_aspect_ratio": True, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps({**published, "do_pad": False}))
    return folder / "model.safetensors", folder / "config.json", folder / "preprocessor_config.json"
