"""The unified model against what it is built on, in one run, in turn, on one thread; ratios are of the medians.

    python benchmarks/model.py [--rounds 7] [--data DATASET]

1. A training step (forward, backward, AdamW) of two streams a clip against diffusers' WanTransformer3DModel of the
   same width, depth, tokens, text length and batch, whose timestep is per token as in Wan2.2; with a time a stream
   and with a time a frame.
2. Guided sampling with one control: three passes (nothing, control, control and text) in one batched call, against the
   two passes (control, control and text) of usual guidance.
3. With --data: the share of a nano step that waits for data when the latents are cached.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from openuni_model.codecs import PixelCodec
from openuni_model.config import ModelConfig, preset
from openuni_model.data import Buckets, Reader
from openuni_model.dit import Streams, UnifiedDiT
from openuni_model.sampling import Guidance, LatentRequest, sample_views
from openuni_model.tasks import Stage
from openuni_model.trainer import Schedule, Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = Table("what", "ours ms", "reference ms", "ratio", "bound")
    config = preset("micro", channels=16, patch=(1, 2, 2), text_length=32)
    for what, times in (("a time a stream", torch.rand(2 * CLIPS)), ("a time a frame", torch.rand(2 * CLIPS, FRAMES))):
        ratio = _compare(_ours(config, times), _wan(config), arguments.rounds)
        table.add_row(f"training step against Wan, {what}", *ratio, "≤ 1.05")
    table.add_row("three passes against two", *_compare(*_guided(config), arguments.rounds), "≤ 1.6")
    Console().print(table)
    if arguments.data:
        print(f"waiting for data, nano, cached latents: {_waiting(arguments.data):.1%} of a step (bound 10 %)")


def _compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[str, str, str]:
    """Medians in milliseconds of both, run in turn after one warm-up each, and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for kept, call in zip(times, (ours, theirs), strict=True):
            began = time.process_time()
            call()
            if number:
                kept.append(1000 * (time.process_time() - began))
    a, b = map(statistics.median, times)
    return f"{a:.0f}", f"{b:.0f}", f"{a / b:.3f}"


FRAMES, ROWS, COLUMNS, CLIPS = 4, 16, 16, 2


def _ours(config: ModelConfig, times: Tensor) -> Callable[[], None]:
    model = UnifiedDiT(config)
    P = 2 * CLIPS
    streams = Streams(
        torch.randn(P, config.channels, FRAMES, ROWS, COLUMNS),
        times,
        torch.tensor([0, 1] * CLIPS),
        torch.zeros(P, dtype=torch.int64),
        torch.randn(P, config.text_length, config.text_width),
        (2,) * CLIPS,
    )
    return _step(model, lambda: model(streams))


def _wan(config: ModelConfig) -> Callable[[], None]:
    from diffusers import WanTransformer3DModel

    wan = WanTransformer3DModel(
        patch_size=config.patch,
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=config.channels,
        out_channels=config.channels,
        text_dim=config.text_width,
        ffn_dim=config.ffn,
        num_layers=config.layers,
    )
    x = torch.randn(CLIPS, config.channels, FRAMES, ROWS, 2 * COLUMNS)
    tokens = 2 * FRAMES * ROWS * COLUMNS // 4
    t, text = torch.rand(CLIPS, tokens) * 1000, torch.randn(CLIPS, config.text_length, config.text_width)
    return _step(wan, lambda: wan(x, t, text).sample)


def _step(model: torch.nn.Module, forward: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        forward().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _guided(config: ModelConfig) -> tuple[Callable[[], object], Callable[[], object]]:
    model = UnifiedDiT(config).eval()
    size = (FRAMES, ROWS, COLUMNS)
    controls = {"depth": torch.randn(config.channels, *size)}
    request = LatentRequest("clip", "a caption", ("rgb",), controls, size)

    def embed(text: str) -> Tensor:
        return torch.zeros(config.text_length, config.text_width)

    def call(control: float) -> Callable[[], object]:
        guidance = Guidance(7.5, (control,))
        return lambda: sample_views(model, [request], embed, guidance=guidance, steps=2)

    return call(2.0), call(1.0)  # at strength 1 the pass without the control has weight 0 and is not run


def _waiting(data: Path) -> float:
    """Share of the time of 20 steps spent waiting, the cache having been filled by the same steps before."""
    config = preset("nano")
    stage = Stage("benchmark", ("depth",), p_alone=0.0, prompts=False)
    with tempfile.TemporaryDirectory() as scratch:
        reader = Reader(str(data), stage, Buckets(config), 0, PixelCodec(), Path(scratch) / "cache")
        for folder in ("fill", "timed"):
            torch.manual_seed(0)
            settings = Schedule(Path(scratch) / folder, steps=25, global_batch_size=16, checkpoint_every=1000)
            trainer = Trainer(settings, UnifiedDiT(config), reader, lambda text: torch.zeros(64, 384))
            reports = list(islice(trainer.run(), 20))
        return sum(r.waited for r in reports) / sum(r.seconds for r in reports)


if __name__ == "__main__":
    main()
